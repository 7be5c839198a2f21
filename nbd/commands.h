// SPDX-License-Identifier: GPL-3.0-or-later
//
// The commands of the transmission phase, on validated requests.
//
// Thread-safety: functions of their arguments; disks are thread-safe.

#pragma once

#include <atomic>
#include <optional>
#include <span>

#include "nbd/buffer_pool.h"
#include "nbd/handshake.h"
#include "nbd/reply.h"
#include "nbd/request.h"

namespace drydock::nbd {

// Runs any request, which may block; `payload` is a write's. Failures become error replies; throws bad_alloc only. Once
// nobody waits for the answer any more (`abandoned`) what takes long is not gone on with.
Reply run_command(const Request& request, const Agreement& agreement, BufferPool& buffers,
                  std::span<const std::byte> payload, const std::atomic<bool>& abandoned);

// The reply to a request that takes no waiting, as far as one can tell: small, and to bytes that lie plain in files and
// in the page cache. Nothing otherwise. Throws Error for what fails.
std::optional<Reply> run_at_once(const Request& request, const Agreement& agreement, BufferPool& buffers,
                                 std::span<const std::byte> payload);

// A read's reply where that takes no waiting, of any size: the bytes lie plain in files that nobody here writes, and in
// the page cache. Nothing otherwise.
std::optional<Reply> read_at_once(const Request& request, const Agreement& agreement, BufferPool& buffers);
// Whether a read by way of the disk would most likely find all in memory.
bool is_at_hand(const Request& request, const Agreement& agreement);

// A read by way of the disk.
Reply read_from_disk(const Request& request, const Agreement& agreement, BufferPool& buffers);

// Block status, whose `payload`, if it has one, is decoded and validated here.
Reply run_block_status(const Request& request, const Agreement& agreement, std::span<const std::byte> payload);

}  // namespace drydock::nbd
