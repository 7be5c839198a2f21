// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/readiness.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <exception>
#include <span>
#include <utility>

#include "src/error.h"

namespace drydock::nbd {

namespace {

constexpr int max_events = 64;  // collected at once

UniqueFd new_epoll() {
  UniqueFd fd(::epoll_create1(EPOLL_CLOEXEC));
  if (!fd) throw system_error(errno, "epoll_create");
  return fd;
}

}  // namespace

Readiness::Readiness(boost::asio::io_context& loop)
    : loop_(loop), epoll_(loop, new_epoll().release()), epoll_fd_(epoll_.native_handle()) {}

void Readiness::start() { listen(); }

void Readiness::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  boost::system::error_code ignored;
  epoll_.cancel(ignored);
}

void Readiness::listen() {
  const std::lock_guard lock(mutex_);
  if (stopped_) return;
  epoll_.async_wait(boost::asio::posix::stream_descriptor::wait_read, [this](const boost::system::error_code& error) {
    if (!error) collect();
  });
}

// Each of the ready ones is done by a thread of its own, as far as there are any; one by this.
void Readiness::collect() {
  std::array<epoll_event, max_events> events{};
  const int count = ::epoll_wait(epoll_fd_, events.data(), max_events, 0);
  // Before anything is done, which may take its time.
  listen();
  std::array<Waiter*, max_events> mine{};
  size_t count_of_mine = 0;
  for (int i = 0; i < count; ++i) {
    auto* waiter = static_cast<Waiter*>(events.at(static_cast<size_t>(i)).data.ptr);
    if (!waiter->armed_.exchange(false, std::memory_order_acquire)) continue;
    if (i + 1 == count || !hand_over(*waiter)) mine.at(count_of_mine++) = waiter;
  }
  for (Waiter* each : std::span(mine).first(count_of_mine)) each->call();
}

// What the waiter calls keeps the waiter, too.
bool Readiness::hand_over(Waiter& waiter) {
  try {
    boost::asio::post(loop_, [&waiter] { waiter.call(); });
    return true;
  } catch (const std::exception&) {  // out of memory
    return false;
  }
}

void Readiness::Waiter::call() {
  const std::function<void()> then = std::exchange(then_, nullptr);
  then();
}

// The other descriptor of the same socket would keep it known.
Readiness::Waiter::~Waiter() {
  if (known_) ::epoll_ctl(readiness_.epoll_fd_, EPOLL_CTL_DEL, descriptor_.get(), nullptr);
}

// Made known by the first wait only: what nobody waits for is not to be heard of, and epoll tells of an end unasked.
void Readiness::Waiter::wait(uint32_t events, std::function<void()> then) {
  // Not EPOLLRDHUP: a client that says nothing more still takes its answers, and who waits to send them waits for room.
  epoll_event wanted{.events = events | EPOLLONESHOT, .data = {.ptr = this}};
  const int change = std::exchange(known_, true) ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  then_ = std::move(then);
  armed_.store(true, std::memory_order_release);
  if (::epoll_ctl(readiness_.epoll_fd_, change, descriptor_.get(), &wanted) == 0) return;
  ::shutdown(descriptor_.get(), SHUT_RDWR);
  armed_ = false;
  boost::asio::post(readiness_.loop_, std::exchange(then_, nullptr));
}

}  // namespace drydock::nbd
