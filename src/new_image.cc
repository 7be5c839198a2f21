// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/new_image.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "src/error.h"
#include "src/file_storage.h"
#include "src/image_lock.h"

namespace drydock {

namespace {

// `file`, which is to be `name`.
std::shared_ptr<FileStorage> open_part(const std::string& file, const std::string& name, bool writable, bool durable) {
  UniqueFd fd(::open(file.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!fd) throw system_error(errno, printable(name));
  auto opened = std::make_shared<FileStorage>(std::move(fd), name, writable);
  if (!durable) opened->leave_flushing_to_system();
  return opened;
}

// Finds a new image's data file where it is being made. The user has just named it: no policy is asked.
class DataFileGate final : public OpenGate {
 public:
  DataFileGate(std::shared_ptr<const OpenGate> others, std::string name, std::string place, bool durable)
      : others_(std::move(others)), name_(std::move(name)), place_(std::move(place)), durable_(durable) {}

  std::shared_ptr<Storage> open(const FileReference& reference, bool writable) const override {
    if (reference.role != FileRole::data_file || resolve_name(reference) != name_) {
      return others_->open(reference, writable);
    }
    return open_part(place_, name_, writable, durable_);
  }

 private:
  std::shared_ptr<const OpenGate> others_;
  std::string name_;
  std::string place_;
  bool durable_;
};

}  // namespace

NewImage::NewImage(std::string path, ImageCreateOptions options, bool durable)
    : path_(std::move(path)), durable_(durable) {
  options = resolve_create_options(path_, options);
  gate_ = options.gate;
  try {
    part_ = std::make_unique<PartFile>(path_);
    begin_data_file(options);
  } catch (const LockError&) {  // names the file
    throw;
  } catch (const Error& error) {
    throw error.within(printable(path_));
  }
  if (!in_place()) options.place = file();
  warnings_ = create_image(path_, options);
  storage_ = open_made(options.remote.get());
  image_ = Image::open(storage_, {.format = options.format, .writable = true, .gate = gate_, .remote = options.remote});
}

void NewImage::begin_data_file(ImageCreateOptions& options) {
  if (options.format != Format::qcow2 || !options.qcow2.data_file) return;
  const std::string name = resolve_name({*options.qcow2.data_file, path_, FileRole::data_file});
  data_part_ = std::make_unique<PartFile>(name);
  if (data_part_->in_place()) return;
  options.data_place = data_part_->file();
  gate_ = std::make_shared<DataFileGate>(gate_, name, options.data_place, durable_);
}

std::shared_ptr<Storage> NewImage::open_made(const RemoteOpener* remote) const {
  if (is_remote_name(path_)) return open_remote(remote, path_, true);
  const auto made = open_part(file(), path_, true, durable_);
  lock_for_use(*made, false);
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
  if (data_part_ && !data_part_->in_place()) {
    const UniqueFd data(::open(data_part_->file().c_str(), O_RDONLY | O_CLOEXEC));
    if (!data) throw system_error(errno, printable(data_part_->file()));
    data_part_->take_name(data.get(), durable_);
  }
  part_->take_name(storage_->descriptor(), durable_);
}

}  // namespace drydock
