// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/new_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"

namespace drydock {

NewImage::NewImage(std::string path, ImageCreateOptions options, bool durable)
    : path_(std::move(path)), durable_(durable) {
  options = resolve_create_options(path_, options);
  try {
    part_ = std::make_unique<PartFile>(path_);
  } catch (const LockError&) {  // names the file
    throw;
  } catch (const Error& error) {
    throw error.within(printable(path_));
  }
  try {
    if (options.qcow2.data_file) {
      const std::string data = resolve_name({*options.qcow2.data_file, path_, FileRole::data_file});
      std::error_code ignored;
      if (!std::filesystem::exists(data, ignored)) new_data_file_ = data;
    }
    if (!in_place()) options.place = file();
    warnings_ = create_image(path_, options);
    storage_ = open_made(options.remote.get());
    image_ = Image::open(storage_,
                         {.format = options.format, .writable = true, .gate = options.gate, .remote = options.remote});
  } catch (...) {
    remove();
    throw;
  }
}

NewImage::~NewImage() {
  if (finished_) return;
  image_.reset();
  remove();
}

void NewImage::remove() {
  if (!new_data_file_.empty()) ::unlink(new_data_file_.c_str());
}

std::shared_ptr<Storage> NewImage::open_made(const RemoteOpener* remote) const {
  if (is_remote_name(path_)) return open_remote(remote, path_, true);
  UniqueFd fd(::open(file().c_str(), O_RDWR | O_CLOEXEC));
  if (!fd) throw system_error(errno, printable(path_));
  auto made = std::make_shared<FileStorage>(std::move(fd), path_, true);
  if (!durable_) made->leave_flushing_to_system();
  lock_for_writing(*made);
  return made;
}

void NewImage::close() {
  if (closed_) return;
  image_->disk()->flush();
  image_->close();
  storage_->flush();
  closed_ = true;
}

void NewImage::finish() {
  close();
  part_->take_name(storage_->descriptor(), durable_);
  finished_ = true;
}

}  // namespace drydock
