// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: what a client says once it is in transmission, and how it got there and how it arrives:
//
//     u8   mode          bits 0 to 1: simple, structured or extended replies; bit 2: the writable disk in memory
//                        instead of a read-only one in a file; bit 3: with metadata contexts
//     u8   step          bytes that arrive at once, times 8; 0: as many as there are
//     then the client's bytes: requests, with their payloads; half of each cookie is replaced by the request's number
//
// A whole Session reads them from a socket. It is carried on by one thread, so that the requests are done in their
// order: a model of the disk tells what the reply to each must be. Replies may overtake each other.

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "nbd/session.h"
#include "src/error.h"
#include "src/file_storage.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/fuzz/fuzz.h"

namespace drydock::nbd {
namespace {

using fuzz::require;

constexpr size_t disk_size = (64 << 10) + 512;
// Data, a hole, data.
constexpr size_t hole_begin = 16 << 10;
constexpr size_t hole_end = 48 << 10;
constexpr size_t patience = 1000;  // turns of the loop without any progress
constexpr uint32_t client_flags = client_flag_fixed_newstyle | client_flag_no_zeroes;

struct Mode {
  Framing framing = Framing::simple;
  bool writable = false;
  bool contexts = false;
  size_t step = SIZE_MAX;
};

const std::vector<std::byte>& initial_content() {
  static const std::vector<std::byte> made = [] {
    std::vector<std::byte> content(disk_size);
    for (size_t i = 0; i < disk_size; ++i) content[i] = std::byte(i % 251 + 1);
    std::fill(content.begin() + hole_begin, content.begin() + hole_end, std::byte{0});
    return content;
  }();
  return made;
}

std::shared_ptr<Disk> make_file_disk() {
  const auto& content = initial_content();
  std::string path = (std::filesystem::temp_directory_path() / "drydock-fuzz-XXXXXX").string();
  const UniqueFd made(::mkstemp(path.data()));
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(content.data()), hole_begin);
  file.seekp(hole_end);
  file.write(reinterpret_cast<const char*>(content.data()) + hole_end, disk_size - hole_end);
  file.close();
  auto disk = std::make_shared<RawDisk>(FileStorage::open(path, false), RawOrigin::given);
  std::filesystem::remove(path);
  return disk;
}

Exports make_exports(bool writable) {
  static const std::shared_ptr<Disk> file_disk = make_file_disk();
  Exports exports;
  auto disk = file_disk;
  if (writable) {
    disk = std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(initial_content()), RawOrigin::given);
  }
  exports.add({.name = "disk", .description = "", .disk = disk, .read_only = !writable, .allocation_depth = true});
  return exports;
}

void append_option(Bytes& bytes, Option option, const Bytes& data = {}) {
  append_be<uint64_t>(bytes, option_magic);
  append_be<uint32_t>(bytes, static_cast<uint32_t>(option));
  append_be<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
}

void append_counted(Bytes& bytes, std::string_view text) {
  append_be<uint32_t>(bytes, static_cast<uint32_t>(text.size()));
  append_text(bytes, text);
}

Bytes negotiation(const Mode& mode) {
  Bytes bytes;
  append_be<uint32_t>(bytes, client_flags);
  if (mode.framing == Framing::structured) append_option(bytes, Option::structured_reply);
  if (mode.framing == Framing::extended) append_option(bytes, Option::extended_headers);
  if (mode.contexts) {
    Bytes data;
    append_counted(data, "disk");
    append_be<uint32_t>(data, 2);
    append_counted(data, base_allocation);
    append_counted(data, qemu_allocation_depth);
    append_option(bytes, Option::set_meta_context, data);
  }
  Bytes data;
  append_counted(data, "disk");
  append_be<uint16_t>(data, 0);
  append_option(bytes, Option::go, data);
  return bytes;
}

// What is heard behind the acknowledgement of GO.
std::span<const std::byte> behind_negotiation(std::span<const std::byte> heard) {
  heard = heard.subspan(Handshake::greeting().size());
  for (;;) {
    const auto option = load_be<uint32_t>(heard, 8);
    const auto type = load_be<uint32_t>(heard, 12);
    heard = heard.subspan(20 + load_be<uint32_t>(heard, 16));
    const bool over = option == static_cast<uint32_t>(Option::go) && type == static_cast<uint32_t>(OptionReply::ack);
    if (over) return heard;
  }
}

// Both ends of a connection, in one thread.
class Connection {
 public:
  Connection(const Exports& exports, std::span<const std::byte> said, size_t step) : said_(said), step_(step) {
    limits_.memory_per_connection = 96 << 10;
    limits_.requests_per_connection = 8;
    std::array<int, 2> ends{};
    require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0, "no sockets");
    client_ = UniqueFd(ends[0]);
    readiness_.start();
    const SessionContext context{.loop = loop_,
                                 .control = loop_,
                                 .readiness = readiness_,
                                 .exports = exports,
                                 .limits = limits_,
                                 .memory = memory_,
                                 .buffers = buffers_,
                                 .lingering = lingering_,
                                 .workers = workers_,
                                 .tls = tls_,
                                 .credentials = nullptr,
                                 .log = log_,
                                 .metrics = &metrics_};
    session_ = std::make_shared<Session>(context, UniqueFd(ends[1]), 1,
                                         [this](const std::shared_ptr<Session>&) { ended_ = true; });
  }

  // All that the server says.
  Bytes run() {
    session_->start();
    Bytes heard;
    for (size_t idle = 0; !ended_ || idle < 2; ++idle) {
      require(idle < patience, "the connection neither goes on nor ends");
      if (say() || loop_.poll() > 0 || listen(heard)) idle = 0;
      loop_.restart();
    }
    session_.reset();
    require(memory_.taken() == 0, "memory that nothing holds any more is still counted");
    return heard;
  }

 private:
  bool say() {
    if (said_.empty()) {
      if (std::exchange(silent_, true)) return false;
      ::shutdown(client_.get(), SHUT_WR);
      return true;
    }
    const ssize_t sent = ::send(client_.get(), said_.data(), std::min(step_, said_.size()), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) said_ = {};
    if (sent > 0) said_ = said_.subspan(static_cast<size_t>(sent));
    return sent > 0;
  }

  bool listen(Bytes& heard) {
    std::array<std::byte, 16384> buffer{};
    const ssize_t got = ::recv(client_.get(), buffer.data(), buffer.size(), 0);
    if (got > 0) heard.insert(heard.end(), buffer.begin(), buffer.begin() + got);
    return got > 0;
  }

  std::span<const std::byte> said_;
  size_t step_;
  bool silent_ = false;
  bool ended_ = false;
  Limits limits_;
  MemoryAccount memory_{limits_.total_memory};
  BufferPool buffers_;
  Lingering lingering_{0};  // one thread does everything
  Workers workers_{1};      // and is none of theirs
  TlsOptions tls_;
  const Log log_ = [](const std::string& line) { require(printable(line) == line, "an unprintable line of the log"); };
  Metrics metrics_;
  boost::asio::io_context loop_{1};
  Readiness readiness_{loop_};
  UniqueFd client_;
  std::shared_ptr<Session> session_;
};

// A request, as this target itself reads it.
struct Asked {
  uint16_t flags = 0;
  CommandType type{};
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  bool has_payload = false;
  bool too_large = false;  // its payload, which is refused unread; nothing behind it is heard
  std::span<const std::byte> payload;

  bool has(uint16_t flag) const { return (flags & flag) != 0; }
};

// The client's bytes as requests, up to the one that ends the connection. Their cookies are made to differ.
std::vector<Asked> split_requests(const Mode& mode, std::span<std::byte> said) {
  const bool extended = mode.framing == Framing::extended;
  const size_t size = extended ? extended_request_size : request_size;
  std::vector<Asked> requests;
  while (said.size() >= size && load_be<uint32_t>(said) == (extended ? extended_request_magic : request_magic)) {
    store_be<uint32_t>(said, 8, static_cast<uint32_t>(requests.size()));
    Asked asked{.flags = load_be<uint16_t>(said, 4),
                .type = static_cast<CommandType>(load_be<uint16_t>(said, 6)),
                .cookie = load_be<uint64_t>(said, 8),
                .offset = load_be<uint64_t>(said, 16),
                .length = extended ? load_be<uint64_t>(said, 24) : load_be<uint32_t>(said, 24),
                .payload = {}};
    said = said.subspan(size);
    if (asked.type == CommandType::disconnect) break;
    asked.has_payload = extended ? asked.has(command_flag_payload_length) : asked.type == CommandType::write;
    asked.too_large = asked.has_payload && asked.length > max_payload;
    if (asked.has_payload && !asked.too_large) {
      if (said.size() < asked.length) break;
      asked.payload = said.first(asked.length);
      said = said.subspan(asked.length);
    }
    requests.push_back(asked);
    if (asked.too_large) break;
  }
  return requests;
}

enum class Verdict : uint8_t { succeeds, fails, either };

// What the protocol says of a request, and what is on the disk.
class Model {
 public:
  explicit Model(const Mode& mode) : mode_(mode), content_(initial_content()), trimmed_(disk_size) {}

  Verdict judge(const Asked& asked) const {
    if (asked.too_large) return Verdict::fails;
    unsigned allowed = command_flag_fua;
    bool writes = false;
    switch (asked.type) {
      case CommandType::read:
        if (mode_.framing != Framing::simple) allowed |= command_flag_df;
        break;
      case CommandType::write:
        writes = true;
        if (mode_.framing == Framing::extended) allowed |= command_flag_payload_length;
        break;
      case CommandType::trim:
        writes = true;
        break;
      case CommandType::write_zeroes:
        writes = true;
        allowed |= command_flag_no_hole | command_flag_fast_zero;
        break;
      case CommandType::block_status:
        allowed |= command_flag_req_one;
        if (mode_.framing == Framing::extended) allowed |= command_flag_payload_length;
        break;
      case CommandType::flush:
      case CommandType::cache:
        break;
      default:
        return Verdict::fails;
    }
    if ((asked.flags & ~allowed) != 0 || (writes && !mode_.writable)) return Verdict::fails;
    if (asked.type == CommandType::flush) return succeeds_if(asked.offset == 0 && asked.length == 0);
    if (asked.type == CommandType::block_status) return succeeds_if(may_ask_status(asked));
    if (!fits(asked.offset, asked.length)) return Verdict::fails;
    if (asked.type == CommandType::write) return succeeds_if(asked.has_payload);
    if (asked.type == CommandType::write_zeroes && asked.has(command_flag_fast_zero)) return Verdict::either;
    return Verdict::succeeds;
  }

  void apply(const Asked& asked) {
    const auto begin = static_cast<std::ptrdiff_t>(asked.offset);
    const auto length = static_cast<std::ptrdiff_t>(asked.length);
    if (asked.type == CommandType::write) std::ranges::copy(asked.payload, content_.begin() + begin);
    if (asked.type == CommandType::write_zeroes) std::fill_n(content_.begin() + begin, length, std::byte{0});
    const bool overwrites = asked.type == CommandType::write || asked.type == CommandType::write_zeroes;
    if (overwrites) std::fill_n(trimmed_.begin() + begin, length, false);
    if (asked.type == CommandType::trim) std::fill_n(trimmed_.begin() + begin, length, true);
  }

  // What was trimmed may have become zeros or not.
  bool may_read(uint64_t offset, std::span<const std::byte> bytes) const {
    if (std::memcmp(bytes.data(), content_.data() + offset, bytes.size()) == 0) return true;
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (bytes[i] != content_[offset + i] && !(trimmed_[offset + i] && bytes[i] == std::byte{0})) return false;
    }
    return true;
  }

  // The range that a block status asks about.
  static uint64_t status_length(const Asked& asked) {
    return asked.has_payload ? load_be<uint64_t>(asked.payload) : asked.length;
  }
  static size_t status_contexts(const Asked& asked) { return asked.has_payload ? (asked.payload.size() - 8) / 4 : 2; }

 private:
  static Verdict succeeds_if(bool condition) { return condition ? Verdict::succeeds : Verdict::fails; }
  static bool fits(uint64_t offset, uint64_t length) { return offset <= disk_size && length <= disk_size - offset; }

  bool may_ask_status(const Asked& asked) const {
    if (!mode_.contexts) return false;
    if (asked.has_payload) {
      const auto ids = asked.payload;
      const bool well_formed = ids.size() == 12 || ids.size() == 16;
      if (!well_formed) return false;
      const auto first = load_be<uint32_t>(ids, 8);
      const uint32_t second = ids.size() == 16 ? load_be<uint32_t>(ids, 12) : 3 - first;
      if (!((first == 1 && second == 2) || (first == 2 && second == 1))) return false;
    }
    const uint64_t length = status_length(asked);
    return length > 0 && fits(asked.offset, length);
  }

  Mode mode_;
  std::vector<std::byte> content_;
  std::vector<bool> trimmed_;
};

// Reads both sides of the transmission together.
class Reading {
 public:
  Reading(const Mode& mode, std::span<const Asked> requests, std::span<const std::byte> heard)
      : mode_(mode), model_(mode), requests_(requests), heard_(heard) {}

  void check() {
    std::map<uint64_t, std::span<const std::byte>> replies = split_replies();
    for (const Asked& asked : requests_) {
      heard_ = replies[asked.cookie];
      const bool ok = check_reply(asked);
      require(heard_.empty(), "a reply goes on behind its end");
      const Verdict verdict = model_.judge(asked);
      require(verdict == Verdict::either || ok == (verdict == Verdict::succeeds), "a request gets the wrong verdict");
      if (ok) model_.apply(asked);
    }
  }

 private:
  bool extended() const { return mode_.framing == Framing::extended; }
  size_t header_size() const {
    if (mode_.framing == Framing::simple) return simple_reply_size;
    return extended() ? extended_chunk_header_size : chunk_header_size;
  }

  std::span<const std::byte> hear(size_t count) {
    require(heard_.size() >= count, "a reply is missing, or incomplete");
    const auto taken = heard_.first(count);
    heard_ = heard_.subspan(count);
    return taken;
  }

  // By their cookies. Each comes in one piece.
  std::map<uint64_t, std::span<const std::byte>> split_replies() {
    std::map<uint64_t, std::span<const std::byte>> replies;
    while (!heard_.empty()) {
      const auto begin = heard_;
      const auto cookie = load_be<uint64_t>(hear(header_size()), 8);
      const auto asked = std::ranges::find(requests_, cookie, &Asked::cookie);
      require(asked != requests_.end(), "a reply to what was not asked");
      heard_ = begin;
      skip_reply(*asked);
      const bool first = replies.emplace(cookie, begin.first(begin.size() - heard_.size())).second;
      require(first, "a second reply to a request");
    }
    return replies;
  }

  void skip_reply(const Asked& asked) {
    if (mode_.framing == Framing::simple) {
      const bool ok = load_be<uint32_t>(hear(simple_reply_size), 4) == 0;
      if (ok && asked.type == CommandType::read) hear(asked.length);
      return;
    }
    for (bool done = false; !done;) {
      const auto header = hear(header_size());
      require(load_be<uint64_t>(header, 8) == asked.cookie, "a reply to another request");
      hear(extended() ? load_be<uint64_t>(header, 24) : load_be<uint32_t>(header, 16));
      done = (load_be<uint16_t>(header, 4) & reply_flag_done) != 0;
    }
  }

  // Whether it tells success.
  bool check_reply(const Asked& asked) {
    if (mode_.framing == Framing::simple) return check_simple(asked);
    std::vector<GuestRange> covered;
    uint32_t error = 0;
    size_t contents = 0;
    for (bool done = false; !done;) {
      const auto header = hear(header_size());
      require(load_be<uint32_t>(header) == (extended() ? extended_reply_magic : structured_reply_magic), "no reply");
      const auto flags = load_be<uint16_t>(header, 4);
      const auto type = static_cast<ChunkType>(load_be<uint16_t>(header, 6));
      require(flags <= reply_flag_done, "unknown flags");
      require(load_be<uint64_t>(header, 8) == asked.cookie, "a reply to another request");
      require(!extended() || load_be<uint64_t>(header, 16) == asked.offset, "another offset than the request's");
      const auto data = hear(extended() ? load_be<uint64_t>(header, 24) : load_be<uint32_t>(header, 16));
      done = flags == reply_flag_done;
      contents += check_chunk(asked, type, data, covered, error) ? 1 : 0;
    }
    if (error != 0) return false;
    if (asked.type == CommandType::read) {
      check_complete(asked, covered);
      require(!asked.has(command_flag_df) || contents <= 1, "a reply was fragmented that must not be");
    } else if (asked.type == CommandType::block_status) {
      require(contents == Model::status_contexts(asked), "block status is not told once for every context");
    } else {
      require(contents == 0, "a reply has content that was not asked for");
    }
    return true;
  }

  bool check_simple(const Asked& asked) {
    const auto header = hear(simple_reply_size);
    require(load_be<uint32_t>(header) == simple_reply_magic, "no simple reply");
    require(load_be<uint64_t>(header, 8) == asked.cookie, "a reply to another request");
    if (load_be<uint32_t>(header, 4) != 0) return false;
    if (asked.type == CommandType::read) {
      require(model_.judge(asked) == Verdict::succeeds, "what must not be read was read");
      require(model_.may_read(asked.offset, hear(asked.length)), "a read yields wrong bytes");
    }
    return true;
  }

  // Whether it carries content.
  bool check_chunk(const Asked& asked, ChunkType type, std::span<const std::byte> data,
                   std::vector<GuestRange>& covered, uint32_t& error) {
    switch (type) {
      case ChunkType::none:
        require(data.empty(), "an empty chunk that is not");
        return false;
      case ChunkType::error:
        require(data.size() >= 6 && data.size() == 6U + load_be<uint16_t>(data, 4), "a malformed error");
        require(load_be<uint32_t>(data) != 0, "an error that is none");
        error = load_be<uint32_t>(data);
        return false;
      case ChunkType::offset_data:
      case ChunkType::offset_hole:
        check_content(asked, type, data, covered);
        return true;
      default:
        require(type == (extended() ? ChunkType::block_status_extended : ChunkType::block_status), "an unknown chunk");
        check_status(asked, data);
        return true;
    }
  }

  void check_content(const Asked& asked, ChunkType type, std::span<const std::byte> data,
                     std::vector<GuestRange>& covered) {
    require(model_.judge(asked) == Verdict::succeeds && asked.type == CommandType::read, "content unasked for");
    require(data.size() > 8, "content without content");
    const auto offset = load_be<uint64_t>(data);
    const bool hole = type == ChunkType::offset_hole;
    require(!hole || data.size() == 12, "a malformed hole");
    const uint64_t length = hole ? load_be<uint32_t>(data, 8) : data.size() - 8;
    require(length > 0 && offset >= asked.offset && offset - asked.offset <= asked.length &&
                length <= asked.length - (offset - asked.offset),
            "content outside of what was asked for");
    const auto bytes = hole ? std::vector<std::byte>(length) : std::vector(data.begin() + 8, data.end());
    require(model_.may_read(offset, bytes), "a read yields wrong bytes");
    covered.push_back({GuestOffset(offset), length});
  }

  static void check_complete(const Asked& asked, std::vector<GuestRange>& covered) {
    std::ranges::sort(covered, {}, [](const GuestRange& range) { return range.start.value(); });
    uint64_t next = asked.offset;
    for (const GuestRange& range : covered) {
      require(range.start.value() == next, "content is missing from a read, or told twice");
      next = range.end().value();
    }
    require(next - asked.offset == asked.length, "a read was not answered in full");
  }

  void check_status(const Asked& asked, std::span<const std::byte> data) {
    require(model_.judge(asked) == Verdict::succeeds && asked.type == CommandType::block_status, "status unasked for");
    const size_t head = extended() ? 8 : 4;
    const size_t width = extended() ? 16 : 8;
    require(data.size() >= head + width && (data.size() - head) % width == 0, "a malformed block status");
    const auto context = load_be<uint32_t>(data);
    require(context == 1 || context == 2, "an unknown context");
    const size_t count = (data.size() - head) / width;
    require(!extended() || load_be<uint32_t>(data, 4) == count, "the number of extents is wrong");
    require(!asked.has(command_flag_req_one) || count == 1, "more than one extent");
    const uint64_t asked_for = Model::status_length(asked);
    uint64_t told = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t at = head + i * width;
      const uint64_t length = extended() ? load_be<uint64_t>(data, at) : load_be<uint32_t>(data, at);
      const uint64_t flags = extended() ? load_be<uint64_t>(data, at + 8) : load_be<uint32_t>(data, at + 4);
      require(length > 0 && length <= asked_for - told, "an extent of an impossible length");
      const bool zero = context == 1 && (flags & state_zero) != 0;
      require(!zero || model_.may_read(asked.offset + told, std::vector<std::byte>(length)), "zeros that are none");
      told += length;
    }
  }

  Mode mode_;
  Model model_;
  std::span<const Asked> requests_;
  std::span<const std::byte> heard_;
};

void check(std::span<const std::byte> input) {
  const auto bits = static_cast<unsigned>(input[0]);
  const size_t step = static_cast<size_t>(input[1]) * 8;
  const Mode mode{.framing = static_cast<Framing>(std::min(bits & 3U, 2U)),
                  .writable = (bits & 4) != 0,
                  .contexts = (bits & 8) != 0 && (bits & 3U) != 0,
                  .step = step == 0 ? SIZE_MAX : step};
  Bytes said = negotiation(mode);
  const size_t negotiated = said.size();
  said.insert(said.end(), input.begin() + 2, input.end());
  const std::vector<Asked> requests = split_requests(mode, std::span(said).subspan(negotiated));
  const Exports exports = make_exports(mode.writable);
  const Bytes heard = Connection(exports, said, mode.step).run();
  Reading(mode, requests, behind_negotiation(heard)).check();
}

}  // namespace
}  // namespace drydock::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size >= 2) drydock::nbd::check(std::as_bytes(std::span(data, size)));
  return 0;
}
