// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a server counts, as text for Prometheus (its exposition format, version 0.0.4).
//
// A request adds to three or four counters with relaxed atomics, in a shard that few threads share: next to nothing
// beside a system call.
//
// Thread-safety: all of it.

#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace drydock::nbd {

// Why a client did not come as far as an export.
enum class TurnedAway : uint8_t { limit, time, tls, not_allowed, protocol };

class Metrics {
 public:
  void count_connection();
  void count_end_of_connection();
  void count_turned_away(TurnedAway why);

  struct Finished {
    uint16_t type = 0;  // a CommandType, or whatever the client sent
    bool failed = false;
    uint64_t bytes = 0;  // of payload
    std::chrono::nanoseconds duration{};
  };
  void count(const Finished& request);

  std::string text() const;

 private:
  static constexpr size_t command_count = 9;  // the protocol's numbers 0 to 7, and all others
  static constexpr size_t bucket_count = 12;  // and one for what is slower
  static constexpr size_t shard_count = 8;
  static constexpr size_t reason_count = 5;

  struct Command {
    std::array<std::atomic<uint64_t>, bucket_count + 1> durations{};  // of both results
    std::atomic<uint64_t> nanoseconds = 0;
    std::atomic<uint64_t> failed = 0;
    std::atomic<uint64_t> bytes = 0;
  };
  struct alignas(64) Shard {
    std::array<Command, command_count> commands;
  };
  // The sum of a command's shards.
  struct Total {
    std::array<uint64_t, bucket_count + 1> durations{};
    uint64_t nanoseconds = 0;
    uint64_t failed = 0;
    uint64_t bytes = 0;
    uint64_t requests() const;
  };
  Total total(size_t command) const;
  void append_requests(std::string& text) const;
  void append_durations(std::string& text) const;

  static const std::array<std::chrono::nanoseconds, bucket_count> bounds;

  std::array<Shard, shard_count> shards_;
  std::atomic<uint64_t> connected_ = 0;
  std::atomic<uint64_t> ended_ = 0;
  std::array<std::atomic<uint64_t>, reason_count> turned_away_{};
};

}  // namespace drydock::nbd
