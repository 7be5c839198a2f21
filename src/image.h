// SPDX-License-Identifier: GPL-3.0-or-later
//
// Image: an opened image file of any format, from which disks come.
//
// This is the door through which every command opens an image:
//
//     auto image = Image::open("guest.qcow2", {});
//     image->disk()->read(...);
//
// Thread-safety: all methods may be called from any thread. Disks handed out keep what they need alive; the Image may
// go first.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/bitmap_info.h"
#include "src/dirty_ranges.h"
#include "src/disk.h"
#include "src/open_gate.h"
#include "src/preallocation.h"
#include "src/probe.h"
#include "src/remote.h"
#include "src/unique_fd.h"

namespace drydock {

inline constexpr uint64_t default_metadata_cache_size = 32 << 20;  // bytes, shared by a whole backing chain
inline constexpr uint64_t min_metadata_cache_size = 64 << 10;

struct OpenOptions {
  std::optional<Format> format;  // nothing: probe, once
  std::string driver;            // QEMU's name where it is not the format's: file, host_device, null-co, which are raw
  ProbeRule probe_rule = ProbeRule::refuse_all_foreign;
  std::optional<Format> backing_format;  // for backing files whose format the overlay does not record
  bool writable = false;
  bool beside_writers = false;  // another process may write to what is only read: it is in motion then
  bool locked_later = false;    // nothing is locked: who opens it does so (lock_for_use()) once that is right
  bool scratch = false;         // with `writable`: changes go to a private file, and are gone with the image
  std::function<UniqueFd()> scratch_file;  // opens that file, nameless; null: a new one in scratch_folder()
  bool discard_keeps_place = false;  // qcow2: a discarded cluster keeps its place in the file, its space goes back
  bool without_backing = false;      // the backing file stays closed: what it holds reads as zeros. For bitmaps.
  bool metadata_only = false;        // opens no second file, reads no table; disk() then throws. For `info`.
  uint64_t metadata_cache_size = default_metadata_cache_size;
  std::shared_ptr<const OpenGate> gate;        // null: LocalFilesGate without further trees
  std::shared_ptr<const RemoteOpener> remote;  // for the user's own word; null: only local images
  // Asked now and then by changes of the whole image (Image::resize() and its like), from the thread that makes them:
  // true ends them with Error(interrupted). Null: nothing does.
  std::function<bool()> interrupted;
};

// An internal snapshot as its image describes it (qcow2 specification, Snapshots).
struct SnapshotInfo {
  std::string id;
  std::string name;
  uint64_t disk_size = 0;      // bytes
  uint64_t vm_state_size = 0;  // bytes
  uint32_t date_seconds = 0;   // since the Epoch
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  std::optional<uint64_t> instruction_count;
};

class Image {
 public:
  Image() = default;
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  virtual ~Image() = default;

  // `path` is the user's own word: any local path, opened as it stands, or a remote name.
  static std::shared_ptr<Image> open(const std::string& path, const OpenOptions& options);

  // What `path` names, without a look at what is in it; locked as QEMU does, for writing or against writers.
  static std::shared_ptr<Storage> open_storage(const std::string& path, const OpenOptions& options);

  // The image in any storage, which decides whether it is writable; `options.format` must say in which format it is.
  static std::shared_ptr<Image> open(std::shared_ptr<Storage> storage, const OpenOptions& options);

  virtual Format format() const = 0;
  // What the user, or who recorded it, calls the format: its name, or QEMU's of a driver that is raw here.
  virtual std::string_view driver() const { return format_name(format()); }
  virtual const Storage& storage() const = 0;
  // All files of this layer: the image, and its external data file.
  virtual std::vector<const Storage*> files() const { return {&storage()}; }
  const std::string& path() const { return storage().name(); }
  virtual uint64_t virtual_size() const = 0;
  // Bytes, a power of two: data takes space in whole units of this, which begin at its multiples. A cluster's size.
  virtual uint64_t allocation_unit() const { return 512; }
  // Bytes, a power of two: the smallest part of the disk that can be there or not by itself. A subcluster's size where
  // clusters have such.
  virtual uint64_t mapping_unit() const { return allocation_unit(); }

  // The active disk. The same one each time.
  virtual std::shared_ptr<Disk> disk() const = 0;

  virtual const std::vector<SnapshotInfo>& snapshots() const;
  // The disk as it was when snapshots()[index] was taken; read-only.
  virtual std::shared_ptr<Disk> snapshot_disk(size_t index) const;

  // ---- Changes of an image opened for writing. Each is made as a whole or not at all, whatever happens, and is in the
  // file when the call returns. Disk requests wait meanwhile; disks of snapshots must not be in use, nor may
  // snapshots() be read. They throw unsupported where the format, or the image's kind, does not have them; read_only.

  // Keeps the active state under a name of 1 to 65535 bytes. `id` is what tells snapshots of one name apart.
  virtual void create_snapshot(const std::string& snapshot_name);
  // The active disk becomes what it was when snapshots()[index] was taken, its size included.
  virtual void apply_snapshot(size_t index);
  virtual void delete_snapshot(size_t index);
  // `size`: bytes; of qcow2 a multiple of 512, of raw what the file is to have. What is new reads as zeros. Making a
  // disk smaller throws away what lies behind.
  virtual void resize(uint64_t size, Preallocation preallocation) = 0;

  // ---- Persistent dirty bitmaps. Those that record ("automatic") learn of every change of the disk. One that is not
  // there: not_found. One that is in_use can only be removed: invalid.

  // Whether images of this kind can have any.
  virtual bool supports_bitmaps() const { return false; }
  virtual std::vector<BitmapInfo> bitmaps() const { return {}; }
  // Without `granularity` (bytes for each bit) it is the format's default.
  virtual void add_bitmap(const std::string& name, std::optional<uint64_t> granularity, bool enabled);
  virtual void remove_bitmap(const std::string& name);
  virtual void clear_bitmap(const std::string& name);
  virtual void enable_bitmap(const std::string& name);
  virtual void disable_bitmap(const std::string& name);
  // Marks in `target` what a bitmap of `source`, this image or one of the same size, has marked.
  virtual void merge_bitmap(const std::string& target, const Image& source, const std::string& source_name);

  // What a bitmap marks: of an image open for writing as it is whenever it is asked, else as it is in the file. The
  // bits live on when the image goes.
  virtual std::shared_ptr<const DirtyRanges> dirty_ranges(const std::string& name) const;

  // The image below; null for none, and for an image opened metadata_only.
  virtual std::shared_ptr<const Image> backing() const { return nullptr; }

  // Brings everything written into the file and ends the writing: the disk refuses changes from then on. Then the
  // files, those of the backing chain included, are locked no more, whoever still has the image or its disks. Without
  // it the last owner of a disk does so, and nobody hears of its errors. When it throws the locks stay.
  virtual void close() = 0;

  // What the user should be told though it stops nothing: "the image is marked corrupt", ...
  virtual std::vector<std::string> warnings() const { return {}; }

 protected:
  // The end of close().
  void give_up_files() const;
};

}  // namespace drydock
