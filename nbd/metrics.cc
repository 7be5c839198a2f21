// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <string_view>

#include "nbd/protocol.h"

namespace drydock::nbd {

using namespace std::chrono_literals;

namespace {

constexpr auto relaxed = std::memory_order_relaxed;

// By their numbers. Number 2 ends a connection and is no request; those behind the last are unknown ones.
constexpr std::array<std::string_view, 9> command_names{
    "read", "write", "", "flush", "trim", "cache", "write_zeroes", "block_status", "other"};
constexpr std::array<std::string_view, 5> reason_names{"limit", "time", "tls", "not_allowed", "protocol"};

size_t shard_of_this_thread(size_t count) {
  static std::atomic<size_t> threads = 0;
  thread_local const size_t number = threads.fetch_add(1, relaxed);
  return number % count;
}

double seconds(std::chrono::nanoseconds duration) { return std::chrono::duration<double>(duration).count(); }

void append_head(std::string& text, std::string_view name, std::string_view type, std::string_view help) {
  fmt::format_to(std::back_inserter(text), "# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
}

void append_number(std::string& text, std::string_view name, std::string_view type, std::string_view help,
                   uint64_t value) {
  append_head(text, name, type, help);
  fmt::format_to(std::back_inserter(text), "{} {}\n", name, value);
}

}  // namespace

const std::array<std::chrono::nanoseconds, Metrics::bucket_count> Metrics::bounds{10us, 50us, 100us, 500us, 1ms, 5ms,
                                                                                  10ms, 50ms, 100ms, 500ms, 1s,  5s};

uint64_t Metrics::Total::requests() const { return std::accumulate(durations.begin(), durations.end(), uint64_t{0}); }

void Metrics::count_connection() { connected_.fetch_add(1, relaxed); }
void Metrics::count_end_of_connection() { ended_.fetch_add(1, relaxed); }
void Metrics::count_turned_away(TurnedAway why) { turned_away_.at(static_cast<size_t>(why)).fetch_add(1, relaxed); }

void Metrics::count(const Finished& request) {
  const size_t index = std::min<size_t>(request.type, command_count - 1);
  Command& command = shards_.at(shard_of_this_thread(shard_count)).commands.at(index);
  const auto bucket = std::ranges::lower_bound(bounds, request.duration) - bounds.begin();
  command.durations.at(static_cast<size_t>(bucket)).fetch_add(1, relaxed);
  command.nanoseconds.fetch_add(static_cast<uint64_t>(request.duration.count()), relaxed);
  if (request.failed) {
    command.failed.fetch_add(1, relaxed);
  } else if (request.bytes > 0) {
    command.bytes.fetch_add(request.bytes, relaxed);
  }
}

Metrics::Total Metrics::total(size_t command) const {
  Total total;
  for (const Shard& shard : shards_) {
    const Command& part = shard.commands.at(command);
    for (size_t i = 0; i < part.durations.size(); ++i) total.durations.at(i) += part.durations.at(i).load(relaxed);
    total.nanoseconds += part.nanoseconds.load(relaxed);
    total.failed += part.failed.load(relaxed);
    total.bytes += part.bytes.load(relaxed);
  }
  return total;
}

std::string Metrics::text() const {
  std::string text;
  // In this order: the one that is counted first is never behind the other.
  const uint64_t ended = ended_.load(relaxed);
  const uint64_t connected = std::max(connected_.load(relaxed), ended);
  append_number(text, "drydock_nbd_connections", "gauge", "Clients that are connected.", connected - ended);
  append_number(text, "drydock_nbd_connections_total", "counter", "Clients that were let in.", connected);
  append_head(text, "drydock_nbd_turned_away_total", "counter", "Clients that did not come as far as an export.");
  for (size_t i = 0; i < reason_count; ++i) {
    fmt::format_to(std::back_inserter(text), "drydock_nbd_turned_away_total{{reason=\"{}\"}} {}\n", reason_names.at(i),
                   turned_away_.at(i).load(relaxed));
  }
  append_requests(text);
  append_durations(text);
  return text;
}

void Metrics::append_requests(std::string& text) const {
  append_head(text, "drydock_nbd_requests_total", "counter", "Requests that were answered.");
  for (size_t i = 0; i < command_count; ++i) {
    if (command_names.at(i).empty()) continue;
    const Total sum = total(i);
    // A failure may have been counted since.
    const uint64_t good = sum.requests() - std::min(sum.failed, sum.requests());
    fmt::format_to(std::back_inserter(text),
                   "drydock_nbd_requests_total{{command=\"{0}\",result=\"ok\"}} {1}\n"
                   "drydock_nbd_requests_total{{command=\"{0}\",result=\"error\"}} {2}\n",
                   command_names.at(i), good, sum.failed);
  }
  append_number(text, "drydock_nbd_read_bytes_total", "counter", "Bytes that clients have read.",
                total(static_cast<size_t>(CommandType::read)).bytes);
  append_number(text, "drydock_nbd_written_bytes_total", "counter", "Bytes that clients have written.",
                total(static_cast<size_t>(CommandType::write)).bytes);
}

void Metrics::append_durations(std::string& text) const {
  constexpr std::string_view name = "drydock_nbd_request_duration_seconds";
  append_head(text, name, "histogram", "From a request's arrival until its reply has left.");
  for (size_t i = 0; i < command_count; ++i) {
    if (command_names.at(i).empty()) continue;
    const Total sum = total(i);
    uint64_t below = 0;
    for (size_t bucket = 0; bucket < bucket_count; ++bucket) {
      below += sum.durations.at(bucket);
      fmt::format_to(std::back_inserter(text), "{}_bucket{{command=\"{}\",le=\"{}\"}} {}\n", name, command_names.at(i),
                     seconds(bounds.at(bucket)), below);
    }
    fmt::format_to(std::back_inserter(text),
                   "{0}_bucket{{command=\"{1}\",le=\"+Inf\"}} {2}\n"
                   "{0}_sum{{command=\"{1}\"}} {3}\n"
                   "{0}_count{{command=\"{1}\"}} {2}\n",
                   name, command_names.at(i), sum.requests(),
                   seconds(std::chrono::nanoseconds(static_cast<int64_t>(sum.nanoseconds))));
  }
}

}  // namespace drydock::nbd
