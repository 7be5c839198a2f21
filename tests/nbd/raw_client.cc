// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/nbd/raw_client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace drydock::nbd {

uint32_t Chunk::error() const { return load_be<uint32_t>(data); }

std::string Chunk::message() const {
  const auto length = load_be<uint16_t>(data, 4);
  return {reinterpret_cast<const char*>(data.data()) + 6, length};
}

RawClient::RawClient(const std::string& socket_path, std::optional<uint32_t> flags)
    : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof address.sun_path - 1);
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error("cannot connect");
  }
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (!flags) return;
  RawClient::receive(18);
  Bytes bytes;
  append_be<uint32_t>(bytes, *flags);
  RawClient::send(bytes);
}

void RawClient::send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) throw std::runtime_error(std::string("send: ") + std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(sent));
  }
}

Bytes RawClient::receive(size_t count) {
  Bytes bytes(count);
  size_t done = 0;
  while (done < count) {
    const ssize_t got = ::recv(socket_.get(), bytes.data() + done, count - done, 0);
    if (got == 0) throw std::runtime_error("the server hung up");
    if (got < 0) throw std::runtime_error(std::string("recv: ") + std::strerror(errno));
    done += static_cast<size_t>(got);
  }
  return bytes;
}

Bytes RawClient::receive_rest() {
  Bytes rest;
  for (;;) {
    Bytes bytes(64 << 10);
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (got == 0 || (got < 0 && errno == ECONNRESET)) return rest;
    if (got < 0) throw std::runtime_error(std::string("recv: ") + std::strerror(errno));
    rest.insert(rest.end(), bytes.begin(), bytes.begin() + got);
  }
}

bool RawClient::is_closed() {
  std::byte byte{};
  const ssize_t got = ::recv(socket_.get(), &byte, 1, 0);
  return got == 0 || (got < 0 && errno == ECONNRESET);
}

void RawClient::half_close() { ::shutdown(socket_.get(), SHUT_WR); }

void RawClient::send_option(uint32_t option, std::span<const std::byte> data, std::optional<uint32_t> length) {
  Bytes bytes;
  append_be<uint64_t>(bytes, option_magic);
  append_be<uint32_t>(bytes, option);
  append_be<uint32_t>(bytes, length.value_or(static_cast<uint32_t>(data.size())));
  bytes.insert(bytes.end(), data.begin(), data.end());
  send(bytes);
}

OptionAnswer RawClient::receive_answer() {
  const Bytes header = receive(20);
  if (load_be<uint64_t>(header) != option_reply_magic) throw std::runtime_error("no option reply");
  OptionAnswer answer{.option = load_be<uint32_t>(header, 8),
                      .type = static_cast<OptionReply>(load_be<uint32_t>(header, 12)),
                      .data = {}};
  answer.data = receive(load_be<uint32_t>(header, 16));
  return answer;
}

std::vector<OptionAnswer> RawClient::ask(uint32_t option, const Bytes& data) {
  send_option(option, data);
  std::vector<OptionAnswer> answers;
  do {
    answers.push_back(receive_answer());
    if (answers.back().option != option) throw std::runtime_error("an answer to another option");
  } while (answers.back().type != OptionReply::ack && static_cast<uint32_t>(answers.back().type) < 0x80000000);
  return answers;
}

uint16_t RawClient::go(std::string_view name, bool structured) {
  if (!structured) return go(name, Framing::simple, {});
  return go(name, Framing::structured, {std::string(base_allocation)});
}

uint16_t RawClient::go(std::string_view name, Framing framing, const std::vector<std::string>& contexts) {
  if (framing == Framing::structured) ask(Option::structured_reply);
  if (framing == Framing::extended) ask(Option::extended_headers);
  extended_ = framing == Framing::extended;
  if (!contexts.empty()) ask(Option::set_meta_context, context_data(name, contexts));
  const auto answers = ask(Option::go, info_data(name));
  if (answers.back().type != OptionReply::ack) throw std::runtime_error("GO was refused: " + answers.back().text());
  return load_be<uint16_t>(answers.front().data, 10);
}

void RawClient::send_request(CommandType type, uint64_t offset, uint64_t length, uint16_t flags, uint64_t cookie) {
  Bytes bytes;
  append_be<uint32_t>(bytes, extended_ ? extended_request_magic : request_magic);
  append_be<uint16_t>(bytes, flags);
  append_be<uint16_t>(bytes, static_cast<uint16_t>(type));
  append_be<uint64_t>(bytes, cookie);
  append_be<uint64_t>(bytes, offset);
  if (extended_) {
    append_be<uint64_t>(bytes, length);
  } else {
    append_be<uint32_t>(bytes, static_cast<uint32_t>(length));
  }
  send(bytes);
}

std::pair<uint32_t, uint64_t> RawClient::receive_simple() {
  const Bytes header = receive(simple_reply_size);
  if (load_be<uint32_t>(header) != simple_reply_magic) throw std::runtime_error("no simple reply");
  return {load_be<uint32_t>(header, 4), load_be<uint64_t>(header, 8)};
}

Chunk RawClient::receive_chunk() {
  const Bytes header = receive(extended_ ? extended_chunk_header_size : chunk_header_size);
  if (load_be<uint32_t>(header) != (extended_ ? extended_reply_magic : structured_reply_magic)) {
    throw std::runtime_error("no reply of the kind agreed upon");
  }
  Chunk chunk{.flags = load_be<uint16_t>(header, 4),
              .type = load_be<uint16_t>(header, 6),
              .cookie = load_be<uint64_t>(header, 8),
              .data = {}};
  if (extended_) chunk.offset = load_be<uint64_t>(header, 16);
  chunk.data = receive(extended_ ? load_be<uint64_t>(header, 24) : load_be<uint32_t>(header, 16));
  return chunk;
}

std::vector<Chunk> RawClient::request(CommandType type, uint64_t offset, uint64_t length, uint16_t flags,
                                      std::span<const std::byte> payload) {
  send_request(type, offset, length, flags);
  send(payload);
  std::vector<Chunk> chunks;
  do {
    chunks.push_back(receive_chunk());
  } while (!chunks.back().done());
  return chunks;
}

Bytes RawClient::read(uint64_t offset, uint32_t length, uint16_t flags) {
  Bytes bytes(length, std::byte{0xEE});
  for (const Chunk& chunk : request(CommandType::read, offset, length, flags)) {
    if (chunk.type >= 0x8000) throw std::runtime_error(chunk.message());
    if (chunk.is(ChunkType::none)) continue;
    const uint64_t at = load_be<uint64_t>(chunk.data) - offset;
    if (chunk.is(ChunkType::offset_hole)) {
      std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), load_be<uint32_t>(chunk.data, 8), std::byte{0});
    } else {
      std::copy(chunk.data.begin() + 8, chunk.data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  return bytes;
}

Bytes info_data(std::string_view name, const std::vector<uint16_t>& wanted) {
  Bytes bytes;
  append_be<uint32_t>(bytes, static_cast<uint32_t>(name.size()));
  append_text(bytes, name);
  append_be<uint16_t>(bytes, static_cast<uint16_t>(wanted.size()));
  for (const uint16_t info : wanted) append_be<uint16_t>(bytes, info);
  return bytes;
}

Bytes context_data(std::string_view name, const std::vector<std::string>& queries) {
  Bytes bytes;
  append_be<uint32_t>(bytes, static_cast<uint32_t>(name.size()));
  append_text(bytes, name);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) {
    append_be<uint32_t>(bytes, static_cast<uint32_t>(query.size()));
    append_text(bytes, query);
  }
  return bytes;
}

Bytes text_data(std::string_view text) {
  Bytes bytes;
  append_text(bytes, text);
  return bytes;
}

}  // namespace drydock::nbd
