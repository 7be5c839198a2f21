// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/nbd/fake_server.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "nbd/uri.h"

namespace drydock::nbd {

namespace {

constexpr uint32_t allocation_id = 7;  // the server may choose any

bool receive(int socket, Bytes& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t got = ::recv(socket, bytes.data() + done, bytes.size() - done, 0);
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

bool send_all(int socket, const Bytes& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::send(socket, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (put <= 0) return false;
    done += static_cast<size_t>(put);
  }
  return true;
}

void append_reply(Bytes& bytes, uint32_t option, OptionReply type, const Bytes& data = {}) {
  append_be<uint64_t>(bytes, option_reply_magic);
  append_be<uint32_t>(bytes, option);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(type));
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
}

Bytes export_info(const FakeExport& exported) {
  Bytes data;
  append_be<uint16_t>(data, static_cast<uint16_t>(Info::export_));
  append_be<uint64_t>(data, exported.size);
  append_be<uint16_t>(data, exported.flags);
  return data;
}

Bytes block_size_info(const FakeExport& exported) {
  Bytes data;
  append_be<uint16_t>(data, static_cast<uint16_t>(Info::block_size));
  append_be<uint32_t>(data, exported.min_block);
  append_be<uint32_t>(data, exported.preferred_block);
  append_be<uint32_t>(data, exported.max_block);
  return data;
}

Bytes allocation_context() {
  Bytes data;
  append_be<uint32_t>(data, allocation_id);
  append_text(data, base_allocation);
  return data;
}

}  // namespace

FakeServer::FakeServer(const FakeExport& exported, Answer answer) : export_(exported), answer_(std::move(answer)) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string path = dir_.file("socket");
  std::memcpy(address.sun_path, path.c_str(), path.size());
  listening_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listening_.get(), SOMAXCONN) != 0) {
    throw std::runtime_error("cannot listen at " + path);
  }
  accepting_ = std::thread([this] { accept_all(); });
}

FakeServer::~FakeServer() {
  ::shutdown(listening_.get(), SHUT_RDWR);
  accepting_.join();
  for (const UniqueFd& socket : sockets_) ::shutdown(socket.get(), SHUT_RDWR);
  for (std::thread& thread : threads_) thread.join();
}

std::string FakeServer::uri() const { return unix_uri("", dir_.file("socket")); }

void FakeServer::accept_all() {
  for (;;) {
    const int socket = ::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) return;
    sockets_.emplace_back(socket);
    threads_.emplace_back([this, socket] { serve(socket); });
  }
}

void FakeServer::serve(int socket) const {
  if (handshake(socket)) transmit(socket);
  ::shutdown(socket, SHUT_RDWR);
}

bool FakeServer::handshake(int socket) const {
  Bytes greeting;
  append_be<uint64_t>(greeting, init_magic);
  append_be<uint64_t>(greeting, option_magic);
  append_be<uint16_t>(greeting, flag_fixed_newstyle | flag_no_zeroes);
  Bytes client_flags(sizeof(uint32_t));
  if (!send_all(socket, greeting) || !receive(socket, client_flags)) return false;
  for (;;) {
    Bytes header(option_header_size);
    if (!receive(socket, header)) return false;
    const auto option = load_be<uint32_t>(header, 8);
    Bytes data(load_be<uint32_t>(header, 12));
    if (!receive(socket, data)) return false;
    Bytes reply;
    switch (static_cast<Option>(option)) {
      case Option::structured_reply:
        break;
      case Option::set_meta_context:
        append_reply(reply, option, OptionReply::meta_context, allocation_context());
        break;
      case Option::go:
        append_reply(reply, option, OptionReply::info, export_info(export_));
        if (export_.min_block != 0) append_reply(reply, option, OptionReply::info, block_size_info(export_));
        break;
      default:
        append_reply(reply, option, OptionReply::error_unsupported);
        if (!send_all(socket, reply)) return false;
        continue;
    }
    append_reply(reply, option, OptionReply::ack);
    if (!send_all(socket, reply)) return false;
    if (static_cast<Option>(option) == Option::go) return true;
  }
}

void FakeServer::transmit(int socket) const {
  for (;;) {
    Bytes header(request_size);
    if (!receive(socket, header)) return;
    FakeRequest request{.flags = load_be<uint16_t>(header, 4),
                        .type = static_cast<CommandType>(load_be<uint16_t>(header, 6)),
                        .cookie = load_be<uint64_t>(header, 8),
                        .offset = load_be<uint64_t>(header, 16),
                        .length = load_be<uint32_t>(header, 24)};
    if (request.type == CommandType::disconnect) return;
    if (request.type == CommandType::write) request.payload.resize(request.length);
    if (!receive(socket, request.payload)) return;
    const Bytes answer = answer_(request);
    if (answer.empty() || !send_all(socket, answer)) return;
  }
}

Bytes simple_reply(uint64_t cookie, uint32_t error, const Bytes& data) {
  Bytes bytes;
  append_be<uint32_t>(bytes, simple_reply_magic);
  append_be<uint32_t>(bytes, error);
  append_be<uint64_t>(bytes, cookie);
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

Bytes chunk(uint64_t cookie, uint16_t flags, ChunkType type, const Bytes& data) {
  Bytes bytes;
  append_be<uint32_t>(bytes, structured_reply_magic);
  append_be<uint16_t>(bytes, flags);
  append_be<uint16_t>(bytes, static_cast<uint16_t>(type));
  append_be<uint64_t>(bytes, cookie);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

Bytes data_chunk(uint64_t cookie, uint16_t flags, uint64_t offset, const Bytes& data) {
  Bytes payload;
  append_be<uint64_t>(payload, offset);
  payload.insert(payload.end(), data.begin(), data.end());
  return chunk(cookie, flags, ChunkType::offset_data, payload);
}

Bytes status_chunk(uint64_t cookie, const std::vector<std::pair<uint32_t, uint32_t>>& extents) {
  Bytes payload;
  append_be<uint32_t>(payload, allocation_id);
  for (const auto& [length, state] : extents) {
    append_be<uint32_t>(payload, length);
    append_be<uint32_t>(payload, state);
  }
  return chunk(cookie, reply_flag_done, ChunkType::block_status, payload);
}

}  // namespace drydock::nbd
