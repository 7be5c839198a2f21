// SPDX-License-Identifier: GPL-3.0-or-later
//
// What clients may take (safety.md, 16), and the account of it.

#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace drydock::nbd {

// A connection may always have one request in flight, whatever its size, so that none waits for another. The memory
// for payloads is therefore at most `total_memory` + connections * its largest request: 64 clients with requests of 1
// MiB take 128 MiB + 64 * 1 MiB by default, and what the pool keeps is among that.
struct Limits {
  size_t connections = 64;
  bool queue = false;  // who comes beyond them waits for a place, instead of being turned away
  size_t requests_per_connection = 128;
  uint64_t memory_per_connection = 8 << 20;  // bytes of payload in flight; more only spoils the processor's caches
  uint64_t total_memory = 128 << 20;         // bytes, over all connections
  std::chrono::milliseconds handshake{10'000};
  std::chrono::milliseconds shutdown{5'000};      // for requests in flight when the server stops
  std::chrono::milliseconds housekeeping{2'000};  // so often the catalog may close what nobody uses
  std::chrono::milliseconds patience{5'000};      // for disks that do not answer, when it was told to stop again
};

// Bytes of payload in flight over all connections. Thread-safe.
class MemoryAccount {
 public:
  explicit MemoryAccount(uint64_t limit) : limit_(limit) {}

  bool try_take(uint64_t bytes) {
    if (taken_.fetch_add(bytes) + bytes <= limit_) return true;
    taken_.fetch_sub(bytes);
    return false;
  }
  void take(uint64_t bytes) { taken_.fetch_add(bytes); }
  void give_back(uint64_t bytes) { taken_.fetch_sub(bytes); }
  uint64_t taken() const { return taken_; }

 private:
  uint64_t limit_;
  std::atomic<uint64_t> taken_ = 0;
};

}  // namespace drydock::nbd
