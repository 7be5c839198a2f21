// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/client/connection_pool.h"

#include <algorithm>
#include <utility>

namespace drydock::nbd {

ConnectionPool::ConnectionPool(Address address, ClientOptions options)
    : address_(std::move(address)), options_(std::move(options)) {
  connections_.push_back(std::make_shared<Connection>(address_, options_.patience, options_.connect_unix));
  info_ = connections_[0]->info();
  if (info_.multi_conn) limit_ = std::max(1U, options_.connections);
}

std::shared_ptr<Connection> ConnectionPool::connect() const {
  std::shared_ptr<Connection> made;
  try {
    made = std::make_shared<Connection>(address_, options_.patience, options_.connect_unix);
  } catch (const Error& error) {
    throw ConnectionLost(error.errno_value(), error.what());
  }
  if (made->info().size != info_.size) {
    throw Error(ErrorKind::invalid, fmt::format("the export has {} bytes now; it had {} when it was opened",
                                                made->info().size, info_.size));
  }
  return made;
}

// Beside the pool itself, only users hold a connection.
std::shared_ptr<Connection> ConnectionPool::least_used() const {
  const auto found = std::ranges::min_element(connections_, {}, [](const auto& c) { return c.use_count(); });
  return found == connections_.end() ? nullptr : *found;
}

std::shared_ptr<Connection> ConnectionPool::take() {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::shared_ptr<Connection> found = least_used();
    const bool unused = found && found.use_count() == 2;  // by the pool, and here
    if (unused || (found && connections_.size() + being_made_ >= limit_)) return found;
    if (connections_.size() + being_made_ < limit_) break;
    made_.wait(lock);  // another thread is making the only one
  }
  ++being_made_;
  lock.unlock();
  std::shared_ptr<Connection> made;
  std::exception_ptr failure;
  try {
    made = connect();
  } catch (const Error&) {
    failure = std::current_exception();
  }
  lock.lock();
  --being_made_;
  made_.notify_all();
  if (made) {
    // A server that was started anew answers this one, and the others are lost: their users must hear of it first.
    const auto found = std::ranges::find_if(connections_, [](const auto& other) { return other->is_lost(); });
    std::shared_ptr<Connection> lost = found == connections_.end() ? nullptr : *found;
    connections_.push_back(made);
    return lost ? lost : made;
  }
  // A server that takes no more of them is served by those that are there.
  std::shared_ptr<Connection> found = least_used();
  if (!found) std::rethrow_exception(failure);
  limit_ = std::max<size_t>(1, connections_.size());
  return found;
}

std::shared_ptr<Connection> ConnectionPool::take_living() {
  for (;;) {
    std::shared_ptr<Connection> taken = take();
    if (!taken->is_lost()) return taken;
    drop(taken);
  }
}

void ConnectionPool::drop(const std::shared_ptr<Connection>& lost) {
  const std::lock_guard lock(mutex_);
  std::erase(connections_, lost);
}

}  // namespace drydock::nbd
