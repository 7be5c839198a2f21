// SPDX-License-Identifier: GPL-3.0-or-later
//
// The exports of several images: files, and all images in folders. An image is opened when a client first asks for one
// of its exports and closed when nobody has used it for a while; what appears in a folder is found without a restart.
//
//     FILE, FILE/disk, FILE/p1, FILE/snapshots/NAME, FILE/backing/1, ...     (nbd/image_exports.h)
//
// FILE is a file's name without its folder, told apart from earlier ones by "~2", "~3" ... behind it; a file that is
// named twice is there once. With more than one source what is in a folder has the folder's own name before it,
// FOLDER/FILE. In a folder every regular file and block device counts whose name does not start with a dot; a symlink
// only where it ends within the folder.
//
// A file that another one has taken the name of stays open for the clients that use it, and is closed when the last of
// them has gone. Whatever cannot be written as an image is closed is told to `warn` at once, and thrown at the end.
//
// An image keeps the format it was found to have when it was first opened, whatever its guest has written to it since
// (safety.md, 8), until another file takes its name.
//
// Thread-safety: all of it. An image is opened and closed under its own lock; who wants another one does not wait, and
// who wants the same one only so long: its disk may hang.
// Ownership: what clients use lives until they let go of it.

#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "nbd/exports.h"
#include "nbd/failures.h"
#include "nbd/image_exports.h"
#include "src/image.h"

namespace drydock::nbd {

class ImageCatalog final : public ExportCatalog {
 public:
  struct Options {
    ExportRules rules;
    std::chrono::steady_clock::duration idle = std::chrono::seconds(30);  // so long an unused image stays open
    size_t open_images = 256;                                             // at once; a descriptor each, and its chain's
    bool scratch = false;                                                 // `open` puts a scratch overlay on the file
    std::chrono::steady_clock::duration patience = std::chrono::seconds(10);  // with an image that others are opening
    std::vector<std::string> hidden = {};  // files that are no exports, wherever they lie, though they may not be there
    // Opens an image; `format` is nothing until it has been found. From any thread.
    std::function<std::shared_ptr<Image>(const std::string& path, bool writable, std::optional<Format> format)> open;
    // Takes lines that somebody should read, printable. From any thread, one at a time.
    std::function<void(const std::string&)> warn;
  };

  // `sources`: files and folders, as the user names them. Throws what looking at them throws.
  ImageCatalog(const std::vector<std::string>& sources, Options options);

  std::vector<Entry> list() const override;
  std::shared_ptr<const Export> find(std::string_view name) const override;
  void flush() const override;
  void close_idle() const override;

  // Opens every file that is a source of its own, as clients will have it, and looks into every folder; throws for the
  // first where that fails.
  void check_files() const;
  // Closes every image; throws what failed, now or as others were closed before, after having closed all.
  void close() const;

 private:
  struct Opened {
    std::string name;  // of the file when it was opened, with which its exports' begin: it may have others
    std::shared_ptr<Image> image;
    std::vector<std::shared_ptr<const Export>> exports;
    bool in_use() const;
  };
  // One file, from when it is first asked for.
  struct Slot {
    std::timed_mutex mutex;  // guards what follows
    std::string identity;
    std::optional<Format> format;
    std::optional<Opened> opened;
    std::list<Opened> replaced;  // what was opened under this name before, and is still in use
    std::chrono::steady_clock::time_point used;
  };
  struct Source {
    std::string name;  // of the file, or what stands before the names of a folder's files
    std::string path;
    bool is_folder = false;
  };
  struct Named {
    std::string name;
    std::string path;
  };

  std::vector<Named> files() const;
  bool is_hidden(const std::string& path) const;
  std::shared_ptr<Slot> slot(const std::string& path) const;
  std::vector<std::shared_ptr<Slot>> slots() const;
  Opened open(const Named& file, Slot& slot, bool writable) const;
  std::shared_ptr<const Export> find_in(const Named& file, std::string_view name) const;
  std::vector<Entry> entries_of(const Named& file) const;
  void for_each_open(const std::function<void(Slot&)>& visit) const;
  bool may_close(const Slot& slot) const;
  void make_room() const;
  bool flushes() const;
  static void flush(const Opened& opened);
  void end(const Opened& opened) const;
  void close_slot(Slot& slot) const;
  void close_unused(Slot& slot) const;
  void close_early(const std::function<void()>& close) const;
  void warn(const std::string& line) const;

  const Options options_;
  std::vector<Source> sources_;
  mutable std::mutex mutex_;                                    // guards slots_; comes after a slot's own
  mutable std::map<std::string, std::shared_ptr<Slot>> slots_;  // by path
  mutable std::mutex warn_mutex_;
  mutable std::mutex failures_mutex_;
  mutable Failures failures_;  // to be told at the end
};

}  // namespace drydock::nbd
