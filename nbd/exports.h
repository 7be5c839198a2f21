// SPDX-License-Identifier: GPL-3.0-or-later
//
// The exports of a server: disks under names. A server asks an ExportCatalog for them, which may open an image only
// when a client wants it; Exports is the catalog of those that are open anyway.
//
// Thread-safety: a catalog may be asked by any thread; Exports is filled first. Ownership: an export that was handed
// out lives, with its disk, for as long as a client uses it.

#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nbd/workers.h"
#include "src/dirty_ranges.h"
#include "src/disk.h"

namespace drydock::nbd {

// A dirty bitmap that clients may ask for as qemu:dirty-bitmap:NAME.
struct ExportedBitmap {
  std::string name;
  std::shared_ptr<const DirtyRanges> ranges;
};

struct Export {
  std::string name;         // at most 4096 bytes of UTF-8; the empty name is a default export of its own
  std::string description;  // one line for people
  std::shared_ptr<Disk> disk;
  bool read_only = true;          // a disk that is not writable() is read-only in any case
  bool multi_conn = true;         // clients may open several connections
  bool allocation_depth = false;  // offers qemu:allocation-depth
  std::vector<ExportedBitmap> bitmaps{};
  // Of all exports of one image: it may hang, and then takes no more threads than that.
  std::shared_ptr<RequestShare> share = std::make_shared<RequestShare>();

  bool writable() const { return !read_only && disk->writable(); }
};

class ExportCatalog {
 public:
  // What a client that lists exports gets to see.
  struct Entry {
    std::string name;
    std::string description;
  };

  ExportCatalog() = default;
  ExportCatalog(const ExportCatalog&) = default;
  ExportCatalog& operator=(const ExportCatalog&) = default;
  virtual ~ExportCatalog() = default;

  virtual std::vector<Entry> list() const = 0;
  // Null where there is none of that name; the empty name is the default export's. Throws Error for one that is there
  // and cannot be opened.
  virtual std::shared_ptr<const Export> find(std::string_view name) const = 0;
  // Brings what clients have written to stable storage; all of it, whatever fails; throws what could not be.
  virtual void flush() const = 0;
  // Lets go of what nobody has used for a while. Called every few seconds.
  virtual void close_idle() const {}
};

class Exports final : public ExportCatalog {
 public:
  // Throws usage for a name that is taken or that the protocol cannot carry.
  void add(Export added);
  // Which export a client gets that asks for the empty name; without this it gets none.
  void set_default(std::string_view name);

  const std::vector<std::shared_ptr<const Export>>& all() const { return all_; }

  std::vector<Entry> list() const override;
  std::shared_ptr<const Export> find(std::string_view name) const override;
  void flush() const override;

 private:
  std::vector<std::shared_ptr<const Export>> all_;
  std::string default_name_;
};

}  // namespace drydock::nbd
