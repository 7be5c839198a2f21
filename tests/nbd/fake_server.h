// SPDX-License-Identifier: GPL-3.0-or-later
//
// An NBD server that greets as it should, and then answers whatever a test wants.

#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "nbd/protocol.h"
#include "nbd/wire.h"
#include "src/unique_fd.h"
#include "tests/support/support.h"

namespace drydock::nbd {

struct FakeExport {
  uint64_t size = 1 << 20;  // bytes
  uint16_t flags = transmission_has_flags;
  uint32_t min_block = 0;  // 0: no block sizes are announced
  uint32_t preferred_block = 4096;
  uint32_t max_block = 32 << 20;
};

struct FakeRequest {
  uint16_t flags = 0;
  CommandType type{};
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  Bytes payload;
};

class FakeServer {
 public:
  // What goes to the client; nothing to hang up. Called by one thread for each connection.
  using Answer = std::function<Bytes(const FakeRequest&)>;

  FakeServer(const FakeExport& exported, Answer answer);
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;
  ~FakeServer();

  std::string uri() const;

 private:
  void accept_all();
  void serve(int socket) const;
  bool handshake(int socket) const;
  void transmit(int socket) const;

  test::TempDir dir_;
  FakeExport export_;
  Answer answer_;
  UniqueFd listening_;
  std::mutex mutex_;
  std::vector<UniqueFd> sockets_;
  std::vector<std::thread> threads_;
  std::thread accepting_;
};

Bytes simple_reply(uint64_t cookie, uint32_t error = 0, const Bytes& data = {});
Bytes chunk(uint64_t cookie, uint16_t flags, ChunkType type, const Bytes& data);
Bytes data_chunk(uint64_t cookie, uint16_t flags, uint64_t offset, const Bytes& data);
// Pairs of length and state.
Bytes status_chunk(uint64_t cookie, const std::vector<std::pair<uint32_t, uint32_t>>& extents);

}  // namespace drydock::nbd
