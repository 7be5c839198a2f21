// SPDX-License-Identifier: GPL-3.0-or-later
//
// An NBD client that says whatever a test wants, byte by byte, and a server for it to say it to.
//
// Errors: std::runtime_error where the server hangs up or keeps silent for 20 s, which fails the test.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/handshake.h"
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "nbd/wire.h"
#include "src/unique_fd.h"

namespace drydock::nbd {

struct OptionAnswer {
  uint32_t option = 0;
  OptionReply type{};
  Bytes data;
  std::string text() const { return {reinterpret_cast<const char*>(data.data()), data.size()}; }
};

struct Chunk {
  uint16_t flags = 0;
  uint16_t type = 0;
  uint64_t cookie = 0;
  Bytes data;
  uint64_t offset = 0;  // of an extended reply's header
  bool done() const { return (flags & reply_flag_done) != 0; }
  bool is(ChunkType wanted) const { return type == static_cast<uint16_t>(wanted); }
  uint32_t error() const;       // of an error chunk
  std::string message() const;  // of an error chunk
};

class RawClient {
 public:
  // Connects, and by default says the client's flags.
  explicit RawClient(const Server& server,
                     std::optional<uint32_t> flags = client_flag_fixed_newstyle | client_flag_no_zeroes)
      : RawClient(server.socket_path(), flags) {}
  // To a server in another process.
  explicit RawClient(const std::string& socket_path,
                     std::optional<uint32_t> flags = client_flag_fixed_newstyle | client_flag_no_zeroes);

  // Everything up to the end of the connection.
  Bytes receive_rest();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  virtual ~RawClient() = default;

  virtual void send(std::span<const std::byte> bytes);
  virtual Bytes receive(size_t count);
  // Whether the server has hung up, nothing else having been sent before.
  virtual bool is_closed();
  void half_close();
  int descriptor() const { return socket_.get(); }

  void send_option(uint32_t option, std::span<const std::byte> data, std::optional<uint32_t> length = {});
  void send_option(Option option, const Bytes& data = {}) { send_option(static_cast<uint32_t>(option), data); }
  OptionAnswer receive_answer();
  // All answers up to the final one (an ACK or an error).
  std::vector<OptionAnswer> ask(uint32_t option, const Bytes& data = {});
  std::vector<OptionAnswer> ask(Option option, const Bytes& data = {}) {
    return ask(static_cast<uint32_t>(option), data);
  }
  // The final answer's type.
  OptionReply verdict(Option option, const Bytes& data = {}) { return ask(option, data).back().type; }

  // Into transmission, with structured replies and base:allocation or without both. Returns the transmission flags.
  uint16_t go(std::string_view name = "disk", bool structured = true);
  // The same with this framing and these contexts; requests and replies are framed so from then on.
  uint16_t go(std::string_view name, Framing framing, const std::vector<std::string>& contexts);

  void send_request(CommandType type, uint64_t offset, uint64_t length, uint16_t flags = 0, uint64_t cookie = 1);
  std::pair<uint32_t, uint64_t> receive_simple();  // error and cookie
  Chunk receive_chunk();
  // Chunks up to the one that is marked as the last.
  std::vector<Chunk> request(CommandType type, uint64_t offset, uint64_t length, uint16_t flags = 0,
                             std::span<const std::byte> payload = {});
  // What a read yields, put together; throws for an error.
  Bytes read(uint64_t offset, uint32_t length, uint16_t flags = 0);

 private:
  UniqueFd socket_;
  bool extended_ = false;
};

// The data of INFO and GO.
Bytes info_data(std::string_view name, const std::vector<uint16_t>& wanted = {});
// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
Bytes context_data(std::string_view name, const std::vector<std::string>& queries);
Bytes text_data(std::string_view text);

}  // namespace drydock::nbd
