// SPDX-License-Identifier: GPL-3.0-or-later
//
// NewImage: an image that is being filled, and stands under its name only when it is whole.
//
//     NewImage target("out.qcow2", {.format = Format::qcow2, .size = size}, true);
//     ... target.image().disk()->write(...) ...
//     target.finish();
//
// Until finish() it is a file of its own beside the one that it is to replace, ".out.qcow2.XXXXXX.part"; what was there
// stays as it was, and stays locked against other writers. It is made in place where it has to be: on a block device,
// where it is remote, and in a folder in which nothing can be created. The same goes for its external data file, which
// gets its name a moment before the image.
//
// Not thread-safe; the image's disk is.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/file_storage.h"
#include "src/image.h"
#include "src/image_create.h"
#include "src/open_gate.h"
#include "src/part_file.h"

namespace drydock {

class NewImage {
 public:
  // Creates the image as create_image() would at `path`, and opens it for writing; what it names is opened by
  // options.gate. With `durable`, finish() returns when all survives a power cut; else the system writes it when it
  // likes. Throws what create_image() and Image::open() throw.
  NewImage(std::string path, ImageCreateOptions options, bool durable);
  NewImage(const NewImage&) = delete;
  NewImage& operator=(const NewImage&) = delete;
  // Removes what was made, unless finish() has returned; what was made in place stays, unfinished.
  ~NewImage() = default;

  Image& image() { return *image_; }
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  // Of the creation.
  const std::vector<std::string>& warnings() const { return warnings_; }
  // Whether there is nothing under its name before finish() is called.
  bool in_place() const { return part_->in_place(); }

  // The file in which it is until finish(), and who opens the files that it names there.
  const std::string& file() const { return part_->file(); }
  const std::shared_ptr<const OpenGate>& gate() const { return gate_; }

  // Brings everything into the file; the image's disk refuses changes from then on.
  void close();
  // close(); then it takes its name, with the permissions and the owner of what was there.
  void finish();

 private:
  void begin_data_file(ImageCreateOptions& options);
  std::shared_ptr<Storage> open_made(const RemoteOpener* remote) const;

  std::string path_;  // as given
  std::unique_ptr<PartFile> part_;
  std::unique_ptr<PartFile> data_part_;  // null without a data file
  std::shared_ptr<const OpenGate> gate_;
  bool durable_;
  bool closed_ = false;
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Image> image_;
  std::vector<std::string> warnings_;
};

}  // namespace drydock
