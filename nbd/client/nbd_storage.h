// SPDX-License-Identifier: GPL-3.0-or-later
//
// NbdStorage: an export of an NBD server as a Storage of fixed size.
//
// When the connection is lost. Reads and block status are asked again, on a new connection, a few times with growing
// pauses (ClientOptions); it must be an export of the same size. Changes are not:
//
// - One whose answer never came is not repeated. The server may still be about to carry it out, behind whatever is
//   written to the same place after the repetition.
// - What was answered, but not flushed since, may be lost with the server's memory. To go on as if nothing had happened
//   would lose it silently, and reads that find the old bytes in its place would mislead who wrote the new ones: for
//   qcow2 metadata, into damage. Whoever wrote is the only one who could write it again, and does not know.
//
// So when a connection is lost while anything is written and not flushed, the storage has failed: every request from
// then on throws, reads too, and says why. After a flush with nothing written since, there is nothing to lose: reads
// and writes go on.
//
// Requests that are not of whole blocks of the server's minimum size are read around, and written by reading, changing
// and writing the blocks at their ends, one such writer at a time.
//
// Thread-safety: as Storage has it. Requests run in parallel, on several connections where the server allows it.
// Errors: Error(io) that begins with the name, with the server's errno, or as described above.

#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <optional>

#include "nbd/client/connection_pool.h"
#include "nbd/client/extent_cache.h"
#include "src/range_locks.h"
#include "src/storage.h"

namespace drydock::nbd {

class NbdStorage final : public Storage {
 public:
  // Connects. Throws invalid or io, as a failure to open; read_only where `writable` and the server lets nobody write.
  static std::shared_ptr<NbdStorage> open(const Address& address, bool writable, const ClientOptions& options = {});

  NbdStorage(const Address& address, bool writable, const ClientOptions& options);

  const std::string& name() const override { return name_; }
  bool writable() const override { return writable_; }
  uint64_t size() const override { return pool_.info().size; }
  uint64_t allocated_size() const override { return 0; }
  bool tells_allocated_size() const override { return false; }
  bool can_grow() const override { return false; }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override;
  void write(HostOffset offset, std::span<const std::byte> data) override;
  void zero(HostOffset offset, uint64_t length, bool keep_space) override;
  void discard(HostOffset offset, uint64_t length) override;
  void truncate(uint64_t size) override;
  void flush_now() override;
  StorageExtent extent_at(HostOffset offset, uint64_t limit) const override;
  // The server's words: the same export by other words is not recognised.
  std::string identity() const override { return name_; }

 private:
  using Use = std::function<void(Connection&)>;

  void reading(const Use& use) const;
  void changing(uint64_t offset, uint64_t length, const Use& use);
  std::shared_ptr<Connection> connection_for_change();
  void use_for_change(Connection& connection, const Use& use);
  void check_failed() const;
  void check_change(uint64_t offset, uint64_t length) const;
  void note_loss(const std::shared_ptr<Connection>& connection, const ConnectionLost& lost) const;

  void read_blocks(uint64_t offset, std::span<std::byte> buffer) const;
  void changing_blocks(uint64_t offset, uint64_t length, const Use& use);
  void write_part_of_block(uint64_t offset, std::span<const std::byte> data);
  void write_zeros(uint64_t offset, uint64_t length);
  void zero_blocks(uint64_t offset, uint64_t length, bool keep_space);

  std::string name_;
  bool writable_;
  ClientOptions options_;
  mutable ConnectionPool pool_;
  mutable ExtentCache extents_;
  // In blocks: by each change, over reading, changing and writing a block above all. Comes before all other locks.
  RangeLocks changing_;

  mutable std::mutex mutex_;  // guards all below; comes before the pool's
  uint64_t changes_begun_ = 0;
  uint64_t changes_flushed_ = 0;  // of those begun, so many are safe
  unsigned changes_under_way_ = 0;
  mutable std::optional<Error> failed_;
};

}  // namespace drydock::nbd
