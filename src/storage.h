// SPDX-License-Identifier: GPL-3.0-or-later
//
// Storage: a growable store of bytes that an image lives in. A file, a block device, memory, an export of an NBD
// server.
//
// Thread-safety: every method may be called from any thread at any time. Concurrent writes to overlapping ranges give
// either's bytes; everything else is as if done one after the other.
// Errors: `Error` that names the storage; io, no_space, read_only as the operating system says.

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "src/joint_flush.h"
#include "src/units.h"

namespace drydock {

// A stretch of a storage: bytes that were written, or a hole that reads as zeros and takes no space.
struct StorageExtent {
  uint64_t length = 0;  // bytes, at least 1
  bool hole = false;
  bool zero = false;  // no hole, and yet known to read as zeros
};

class Storage {
 public:
  Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  virtual ~Storage() = default;

  // How messages call it: the path as the user or the image gave it.
  virtual const std::string& name() const = 0;
  virtual bool writable() const = 0;

  // Bytes. Of a block device: its capacity.
  virtual uint64_t size() const = 0;
  // Bytes of the host's space that it takes, at most about size(); what `info` calls disk size.
  virtual uint64_t allocated_size() const = 0;
  // Whether allocated_size() is known.
  virtual bool tells_allocated_size() const { return true; }

  // False for a block device or an export, whose size is given.
  virtual bool can_grow() const { return true; }

  // Bytes, of a block device: the smallest part that it reads or writes. 0 where there is no such thing.
  virtual uint32_t device_sector_size() const { return 0; }

  // Reads at `offset` into `buffer`; returns how many bytes there were, fewer than asked only at the end.
  virtual size_t read(HostOffset offset, std::span<std::byte> buffer) const = 0;

  // Writes all of `data`, growing the storage where it reaches past the end.
  virtual void write(HostOffset offset, std::span<const std::byte> data) = 0;
  // Makes the range read as zeros, growing the storage like write(). With `keep_space` the host's space for it stays
  // (or is) reserved.
  virtual void zero(HostOffset offset, uint64_t length, bool keep_space) = 0;
  // The same where the host does it without writing zeros; false, and nothing has changed, where it does not.
  virtual bool zero_at_once(HostOffset /*offset*/, uint64_t /*length*/, bool /*keep_space*/) { return false; }
  // Takes the host's space for the range, which goes on reading as it does; where the host does not do that nothing
  // happens. Throws no_space. Never grows.
  virtual void reserve(HostOffset /*offset*/, uint64_t /*length*/) {}
  // Gives the host's space of the range back where it can; afterwards it reads as zeros or as before. Never grows.
  virtual void discard(HostOffset offset, uint64_t length) = 0;
  // Where it cannot grow: nothing happens as long as `size` fits.
  virtual void truncate(uint64_t size) = 0;
  // truncate() to more than the size is now, for one who is going to write all of it soon: the host's space is taken at
  // once where the host does that quickly. Whether it did is not told.
  virtual void extend(uint64_t size) { truncate(size); }
  // Returns when everything written before it survives a power cut. Once that has failed it fails for ever, for all
  // callers: what was lost then is not known (safety.md, 7a).
  void flush() {
    flushes_.run(name(), [this] { flush_now(); });
  }

  // What lies at `offset` (below size()), `limit` bytes at most. Data where the operating system does not tell.
  virtual StorageExtent extent_at(HostOffset offset, uint64_t limit) const = 0;

  // A descriptor whose bytes are this storage's, for in-kernel copies; owned by the storage, -1 where there is none.
  virtual int descriptor() const { return -1; }

  // The same text for storages that are the same file under two names; "" where that cannot be told.
  virtual std::string identity() const { return {}; }

 private:
  // What flush() does, one call at a time.
  virtual void flush_now() = 0;

  JointFlush flushes_;
};

// Fills `buffer` from `offset` on, with zeros past the end of the storage.
void read_or_zero(const Storage& storage, HostOffset offset, std::span<std::byte> buffer);

// Fills `buffer`, or throws truncated, naming `what` was being read ("L1 table").
void read_exactly(const Storage& storage, HostOffset offset, std::span<std::byte> buffer, std::string_view what);

}  // namespace drydock
