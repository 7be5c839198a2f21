// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is said and counted of one connection: who came, to what, and why it ended.
//
// Thread-safety: all of it. Ownership: the log and the metrics outlive it.

#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "nbd/metrics.h"
#include "nbd/reply.h"

namespace drydock::nbd {

// Takes one printable line without its end, from any thread; empty: nobody wants to know.
using Log = std::function<void(const std::string& line)>;

class SessionRecord {
 public:
  // `number` tells this connection's lines from others'. `metrics` may be null.
  SessionRecord(const Log& log, Metrics* metrics, uint64_t number, int socket);
  SessionRecord(const SessionRecord&) = delete;
  SessionRecord& operator=(const SessionRecord&) = delete;
  // Says how it ended.
  ~SessionRecord();

  void came_by_tls(const std::string& name);
  // An option that clients should know the fate of; of many, some.
  void refused(OptionReply error, const std::string& message);
  void chose(const Export& chosen);
  // Why the connection ends, unless somebody has said so before. Throws nothing.
  void ends(std::string_view why, TurnedAway reason = TurnedAway::protocol);

  bool counts_time() const { return metrics_ != nullptr; }
  void done(const Reply& reply);

 private:
  void say(const std::string& what) const;
  void say_goodbye() const;

  const Log& log_;
  Metrics* const metrics_;
  const uint64_t number_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  std::atomic<uint64_t> requests_ = 0;
  std::atomic<uint64_t> failed_ = 0;
  std::atomic<uint64_t> read_ = 0;
  std::atomic<uint64_t> written_ = 0;

  std::mutex mutex_;  // guards what follows
  std::string why_;
  TurnedAway reason_ = TurnedAway::protocol;
  bool served_ = false;
  unsigned refusals_ = 0;
};

}  // namespace drydock::nbd
