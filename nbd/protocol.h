// SPDX-License-Identifier: GPL-3.0-or-later
//
// The numbers of the NBD protocol (https://github.com/NetworkBlockDevice/nbd, doc/proto.md), under the names that it
// gives them without their NBD_ prefix. All integers on the wire are big-endian.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace drydock::nbd {

// Handshake.
inline constexpr uint64_t init_magic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr uint64_t option_magic = 0x49484156454F5054;  // "IHAVEOPT"
inline constexpr uint64_t option_reply_magic = 0x3e889045565a9;

inline constexpr uint16_t flag_fixed_newstyle = 1 << 0;
inline constexpr uint16_t flag_no_zeroes = 1 << 1;
inline constexpr uint32_t client_flag_fixed_newstyle = 1 << 0;
inline constexpr uint32_t client_flag_no_zeroes = 1 << 1;

enum class Option : uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReply : uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  error_unsupported = 0x80000001,
  error_policy = 0x80000002,
  error_invalid = 0x80000003,
  error_tls_required = 0x80000005,
  error_unknown = 0x80000006,  // no such export
  error_too_big = 0x80000009,
  error_extended_headers_required = 0x8000000A,
};

enum class Info : uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

// Transmission.
inline constexpr uint16_t transmission_has_flags = 1 << 0;
inline constexpr uint16_t transmission_read_only = 1 << 1;
inline constexpr uint16_t transmission_send_flush = 1 << 2;
inline constexpr uint16_t transmission_send_fua = 1 << 3;
inline constexpr uint16_t transmission_send_trim = 1 << 5;
inline constexpr uint16_t transmission_send_write_zeroes = 1 << 6;
inline constexpr uint16_t transmission_send_df = 1 << 7;
inline constexpr uint16_t transmission_can_multi_conn = 1 << 8;
inline constexpr uint16_t transmission_send_cache = 1 << 10;
inline constexpr uint16_t transmission_send_fast_zero = 1 << 11;
inline constexpr uint16_t transmission_block_status_payload = 1 << 12;

inline constexpr uint32_t request_magic = 0x25609513;
inline constexpr uint32_t extended_request_magic = 0x21e41c71;
inline constexpr uint32_t simple_reply_magic = 0x67446698;
inline constexpr uint32_t structured_reply_magic = 0x668e33ef;
inline constexpr uint32_t extended_reply_magic = 0x6e8a278c;

enum class CommandType : uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

inline constexpr uint16_t command_flag_fua = 1 << 0;
inline constexpr uint16_t command_flag_no_hole = 1 << 1;
inline constexpr uint16_t command_flag_df = 1 << 2;
inline constexpr uint16_t command_flag_req_one = 1 << 3;
inline constexpr uint16_t command_flag_fast_zero = 1 << 4;
inline constexpr uint16_t command_flag_payload_length = 1 << 5;  // extended requests: the length is a payload's

inline constexpr uint16_t reply_flag_done = 1 << 0;

enum class ChunkType : uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_extended = 6,
  error = 0x8001,
};

// base:allocation.
inline constexpr std::string_view base_namespace = "base:";
inline constexpr std::string_view base_allocation = "base:allocation";
inline constexpr uint32_t state_hole = 1 << 0;
inline constexpr uint32_t state_zero = 1 << 1;

// QEMU's contexts (https://www.qemu.org/docs/master/interop/nbd.html). The depth is 0 for what no layer of the backing
// chain has, 1 for the image itself, 2 for the one below ...
inline constexpr std::string_view qemu_namespace = "qemu:";
inline constexpr std::string_view qemu_allocation_depth = "qemu:allocation-depth";
inline constexpr std::string_view qemu_dirty_bitmap = "qemu:dirty-bitmap:";  // and the bitmap's name
inline constexpr uint32_t state_dirty = 1 << 0;

// Errors on the wire. Linux's numbers today, but fixed by the protocol.
enum class WireError : uint32_t {
  perm = 1,
  io = 5,
  no_memory = 12,
  invalid = 22,
  no_space = 28,
  overflow = 75,
  not_supported = 95,
  shutdown = 108,
};

// Sizes of messages.
inline constexpr size_t option_header_size = 16;  // magic, option, length
inline constexpr size_t request_size = 28;
inline constexpr size_t extended_request_size = 32;
inline constexpr size_t simple_reply_size = 16;
inline constexpr size_t chunk_header_size = 20;
inline constexpr size_t extended_chunk_header_size = 32;
inline constexpr size_t export_name_padding = 124;

// Limits. The protocol's own:
inline constexpr size_t max_string_length = 4096;
// Ours. A request's payload: what the protocol asks servers to take at least, and what clients use unasked.
inline constexpr uint32_t max_payload = 32 << 20;
inline constexpr uint32_t min_block_size = 1;
inline constexpr uint32_t preferred_block_size = 4096;
// An option's data that we look at: a name and a dozen queries of full length.
inline constexpr uint32_t max_option_length = 64 << 10;
// An option's data that we read over to stay in step; a client that announces more is cut off (CVE-2017-15119).
inline constexpr uint32_t max_skipped_option_length = 1 << 20;

}  // namespace drydock::nbd
