// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/metrics_endpoint.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <chrono>
#include <exception>
#include <string_view>
#include <utility>

namespace drydock::nbd {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr size_t max_visitors = 8;
constexpr size_t max_request = 4096;  // what Prometheus and curl send is a tenth of it
constexpr std::chrono::seconds visit_time{5};

std::string response(std::string_view status, std::string_view type, std::string_view body) {
  return fmt::format("HTTP/1.0 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}", status,
                     type, body.size(), body);
}

std::string refusal(std::string_view status) { return response(status, "text/plain", fmt::format("{}\n", status)); }

std::string answer_to(std::string_view request, const Metrics& metrics) {
  const std::string_view line = request.substr(0, request.find("\r\n"));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return refusal("400 Bad Request");
  if (line.substr(0, space) != "GET") return refusal("405 Method Not Allowed");
  std::string_view target = line.substr(space + 1);
  target = target.substr(0, target.find_first_of(" ?"));
  if (target != "/metrics") return refusal("404 Not Found");
  return response("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics.text());
}

}  // namespace

// One request; kept alive by what it waits for.
class MetricsEndpoint::Visitor : public std::enable_shared_from_this<Visitor> {
 public:
  Visitor(const Strand& strand, UniqueFd socket, std::shared_ptr<const Metrics> metrics)
      : timer_(strand), metrics_(std::move(metrics)), socket_(strand, socket.get()) {
    [[maybe_unused]] const int taken_over = socket.release();
  }

  void start() {
    timer_.expires_after(visit_time);
    timer_.async_wait([self = shared_from_this()](const error_code& cancelled) {
      if (!cancelled) self->end();
    });
    read();
  }

  void end() {
    timer_.cancel();
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  void read() {
    socket_.async_read_some(asio::buffer(input_), [self = shared_from_this()](const error_code& error, size_t got) {
      if (error) return self->end();
      self->request_.append(self->input_.data(), got);
      const bool whole = self->request_.find("\r\n\r\n") != std::string::npos;
      if (whole) return self->answer();
      if (self->request_.size() > max_request) return self->write(refusal("431 Request Header Fields Too Large"));
      self->read();
    });
  }

  void answer() {
    std::string text;
    try {
      text = answer_to(request_, *metrics_);
    } catch (const std::exception&) {  // out of memory
      return end();
    }
    write(std::move(text));
  }

  void write(std::string text) {
    response_ = std::move(text);
    asio::async_write(socket_, asio::buffer(response_), [self = shared_from_this()](const error_code& error, size_t) {
      // Closing with something unread would take the answer back from a client that is still sending.
      if (!error) ::shutdown(self->socket_.native_handle(), SHUT_WR);
      if (error || self->request_.size() <= max_request) return self->end();
      self->drain();
    });
  }

  void drain() {
    socket_.async_read_some(asio::buffer(input_), [self = shared_from_this()](const error_code& error, size_t) {
      if (error) return self->end();
      self->drain();
    });
  }

  asio::steady_timer timer_;
  std::shared_ptr<const Metrics> metrics_;
  asio::posix::stream_descriptor socket_;
  std::array<char, 1024> input_{};
  std::string request_;
  std::string response_;
};

MetricsEndpoint::MetricsEndpoint(Strand strand, Listener listener, std::shared_ptr<const Metrics> metrics)
    : strand_(std::move(strand)), listener_(std::move(listener)), metrics_(std::move(metrics)), pause_(strand_) {
  for (UniqueFd& fd : listener_.take_descriptors()) doors_.emplace_back(strand_, fd.release());
}

void MetricsEndpoint::start() {
  for (Door& door : doors_) wait_at(door);
}

void MetricsEndpoint::stop() {
  stopped_ = true;
  pause_.cancel();
  for (Door& door : doors_) door.close();
  listener_.close();
  for (const auto& visitor : visitors_) {
    if (const auto here = visitor.lock()) here->end();
  }
}

void MetricsEndpoint::wait_at(Door& door) {
  door.async_wait(Door::wait_read, [this, &door](const error_code& error) {
    if (!error && !stopped_) let_in(door);
  });
}

// Until descriptors or memory have come back, somebody who cannot be let in stays at the door.
void MetricsEndpoint::wait_later_at(Door& door) {
  paused_.push_back(&door);
  if (paused_.size() > 1) return;
  pause_.expires_after(accept_pause);
  pause_.async_wait([this](const error_code& cancelled) {
    if (cancelled || stopped_) return;
    for (Door* each : std::exchange(paused_, {})) wait_at(*each);
  });
}

// One too many is let in and put out.
void MetricsEndpoint::let_in(Door& door) {
  UniqueFd socket(::accept4(door.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket && lacks_resources(errno)) return wait_later_at(door);
  visitors_.remove_if([](const auto& visitor) { return visitor.expired(); });
  try {
    if (socket && visitors_.size() < max_visitors) {
      const auto visitor = std::make_shared<Visitor>(strand_, std::move(socket), metrics_);
      visitors_.push_back(visitor);
      visitor->start();
    }
  } catch (const std::exception&) {
    // The system has no memory for one more, or lets nobody wait for one more.
    return wait_later_at(door);
  }
  wait_at(door);
}

}  // namespace drydock::nbd
