// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using namespace std::chrono_literals;
using testing::StartsWith;

// What a scraper makes of it; fails for lines that the format does not allow.
std::map<std::string, double> samples_of(const std::string& text) {
  static const std::regex comment(R"(# (HELP|TYPE) ([a-z_]+) (.+))");
  static const std::regex sample(R"(([a-z_]+)(\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? ([0-9.e+-]+))");
  std::map<std::string, double> samples;
  std::set<std::string> typed;
  std::istringstream lines(text);
  EXPECT_EQ(text.back(), '\n');
  for (std::string line; std::getline(lines, line);) {
    std::smatch parts;
    if (std::regex_match(line, parts, comment)) {
      const bool first = parts[1] != "TYPE" || typed.insert(parts[2]).second;
      EXPECT_TRUE(first) << line;
      continue;
    }
    EXPECT_TRUE(std::regex_match(line, parts, sample)) << line;
    const std::string name = std::regex_replace(parts[1].str(), std::regex("_(bucket|sum|count)$"), "");
    EXPECT_TRUE(typed.contains(name)) << line;
    EXPECT_TRUE(samples.emplace(parts[1].str() + parts[2].str(), std::stod(parts[3])).second) << line;
  }
  return samples;
}

std::string scrape(const std::string& path, std::string_view request) {
  const auto client = std::make_unique<RawClient>(path, std::nullopt);
  client->send(text_data(request));
  std::string answer;
  try {
    for (;;) answer += static_cast<char>(client->receive(1)[0]);
  } catch (const std::runtime_error&) {
    return answer;
  }
}

TEST(nbd_metrics, are_in_the_format_that_prometheus_reads) {
  Metrics metrics;
  metrics.count_connection();
  metrics.count_connection();
  metrics.count_end_of_connection();
  metrics.count_turned_away(TurnedAway::tls);
  metrics.count({.type = 0, .bytes = 4096, .duration = 10us});
  metrics.count({.type = 0, .bytes = 4096, .duration = 11us});
  metrics.count({.type = 0, .failed = true, .bytes = 4096, .duration = 60s});
  metrics.count({.type = 1, .bytes = 7, .duration = 2ms});
  metrics.count({.type = 4242, .failed = true});
  auto samples = samples_of(metrics.text());
  EXPECT_EQ(samples["drydock_nbd_connections"], 1);
  EXPECT_EQ(samples["drydock_nbd_connections_total"], 2);
  EXPECT_EQ(samples["drydock_nbd_turned_away_total{reason=\"tls\"}"], 1);
  EXPECT_EQ(samples["drydock_nbd_requests_total{command=\"read\",result=\"ok\"}"], 2);
  EXPECT_EQ(samples["drydock_nbd_requests_total{command=\"read\",result=\"error\"}"], 1);
  EXPECT_EQ(samples["drydock_nbd_requests_total{command=\"other\",result=\"error\"}"], 1);
  EXPECT_EQ(samples["drydock_nbd_read_bytes_total"], 8192);
  EXPECT_EQ(samples["drydock_nbd_written_bytes_total"], 7);
  const std::string read = "drydock_nbd_request_duration_seconds";
  EXPECT_EQ(samples[read + "_bucket{command=\"read\",le=\"1e-05\"}"], 1);
  EXPECT_EQ(samples[read + "_bucket{command=\"read\",le=\"5e-05\"}"], 2);
  EXPECT_EQ(samples[read + "_bucket{command=\"read\",le=\"5\"}"], 2);
  EXPECT_EQ(samples[read + "_bucket{command=\"read\",le=\"+Inf\"}"], 3);
  EXPECT_EQ(samples[read + "_count{command=\"read\"}"], 3);
  EXPECT_NEAR(samples[read + "_sum{command=\"read\"}"], 60.000021, 1e-9);
}

TEST(nbd_metrics, threads_count_together) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int n = 0; n < 1000; ++n) metrics.count({.type = 1, .bytes = 2, .duration = 1us});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(samples_of(metrics.text())["drydock_nbd_written_bytes_total"], 8000);
}

class nbd_metrics_endpoint : public testing::Test {
 protected:
  nbd_metrics_endpoint() {
    ServerOptions options;
    options.metrics = std::make_shared<Metrics>();
    options.metrics_socket = path;
    auto exports = std::make_shared<Exports>();
    exports->add({.name = "disk",
                  .description = "",
                  .disk = std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(64 << 10)),
                                                    RawOrigin::given),
                  .read_only = false});
    server = std::make_unique<Server>(exports, options);
    server->start();
  }

  // What is told behind the head.
  std::map<std::string, double> samples() const {
    const std::string answer = scrape(path, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
    return samples_of(answer.substr(answer.find("\r\n\r\n") + 4));
  }

  test::TempDir dir;
  std::string path = dir.file("metrics");
  std::unique_ptr<Server> server;
};

TEST_F(nbd_metrics_endpoint, tells_what_clients_did) {
  RawClient client(*server);
  client.go();
  client.read(0, 4096);
  client.request(CommandType::write, 0, 512, 0, Bytes(512));
  client.request(CommandType::read, 1 << 20, 512);
  RawClient(*server).ask(Option::abort);
  EXPECT_TRUE(test::wait_until([&] { return samples()["drydock_nbd_turned_away_total{reason=\"protocol\"}"] == 1; }));
  // A reply may be here before it was counted.
  EXPECT_TRUE(test::wait_until(
      [&] { return samples()["drydock_nbd_requests_total{command=\"read\",result=\"error\"}"] == 1; }));
  auto told = samples();
  EXPECT_EQ(told["drydock_nbd_connections"], 1);
  EXPECT_EQ(told["drydock_nbd_requests_total{command=\"read\",result=\"ok\"}"], 1);
  EXPECT_EQ(told["drydock_nbd_read_bytes_total"], 4096);
  EXPECT_EQ(told["drydock_nbd_written_bytes_total"], 512);
}

TEST_F(nbd_metrics_endpoint, safety_15_answers_get_metrics_and_nothing_else) {
  EXPECT_THAT(scrape(path, "GET / HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 404 "));
  EXPECT_THAT(scrape(path, "GET /metrics/../etc HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 404 "));
  EXPECT_THAT(scrape(path, "POST /metrics HTTP/1.0\r\n\r\n"), StartsWith("HTTP/1.0 405 "));
  EXPECT_THAT(scrape(path, "GET\r\n\r\n"), StartsWith("HTTP/1.0 400 "));
  EXPECT_THAT(scrape(path, "\r\n\r\n"), StartsWith("HTTP/1.0 400 "));
  RawClient endless(path, std::nullopt);
  endless.send(text_data("GET /metrics HTTP/1.0\r\nX: " + std::string(5000, 'x')));
  const Bytes answer = endless.receive(12);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(answer.data()), answer.size()), "HTTP/1.0 431");
}

TEST_F(nbd_metrics_endpoint, safety_16_visitors_are_few_and_hold_up_nobody) {
  std::vector<std::unique_ptr<RawClient>> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(std::make_unique<RawClient>(path, std::nullopt));
  RawClient one_too_many(path, std::nullopt);
  EXPECT_TRUE(one_too_many.is_closed());
  RawClient client(*server);
  client.go();
  EXPECT_EQ(client.read(0, 512).size(), 512U);
  server->stop();
  server->wait();
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace drydock::nbd
