// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/undo_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/file_storage.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t max_waiting_bytes = 8 << 20;

// A file's name is in its folder, and lasts when that is flushed.
void flush_folder_of(const std::string& path) {
  const auto folder = std::filesystem::absolute(path).parent_path();
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) != 0)
    throw system_error(errno, fmt::format("flushing '{}'", printable(folder.string())));
}

}  // namespace

std::shared_ptr<Storage> UndoFile::create(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) throw system_error(errno, fmt::format("Could not create the undo file '{}'", printable(path)));
  flush_folder_of(path);
  return std::make_shared<FileStorage>(std::move(fd), path, true);
}

UndoFile::UndoFile(std::shared_ptr<Storage> file, const Storage& image)
    : file_(std::move(file)), image_(image), image_size_(image.size()) {
  const std::vector<std::byte> header = undo::encode_file_header(image_size_);
  file_->write(HostOffset(0), header);
  end_ = header.size();
}

void UndoFile::append(const undo::Frame& frame) {
  const std::vector<std::byte> bytes = undo::encode_frame(frame);
  file_->write(HostOffset(end_), bytes);
  end_ += bytes.size();
}

void UndoFile::save(HostOffset offset, std::span<const std::byte> data) {
  // What lies behind the old end goes by truncation.
  const uint64_t limit = round_up(image_size_, sector_size);
  if (offset.value() >= limit) return;
  data = data.first(std::min<uint64_t>(data.size(), limit - offset.value()));
  while (!data.empty()) {
    const uint64_t step = std::min<uint64_t>(data.size(), undo::max_frame_bytes - offset.value() % sector_size);
    const HostOffset start(round_down(offset.value(), sector_size));
    const HostOffset end(round_up(offset.value() + step, sector_size));
    std::vector<std::byte> old_bytes(end - start);
    read_or_zero(image_, start, old_bytes);
    std::vector<std::byte> new_bytes = old_bytes;
    std::ranges::copy(data.first(step), new_bytes.begin() + static_cast<std::ptrdiff_t>(offset - start));
    save_sectors(start, old_bytes, new_bytes);
    offset += step;
    data = data.subspan(step);
  }
}

// One frame for each run of sectors that all were saved before, or all were not.
void UndoFile::save_sectors(HostOffset offset, std::span<const std::byte> old_bytes,
                            std::span<const std::byte> new_bytes) {
  const uint64_t first = offset.value() / sector_size;
  const uint64_t sectors = old_bytes.size() / sector_size;
  for (uint64_t i = 0; i < sectors;) {
    const bool saved = saved_.contains(first + i);
    uint64_t end = i + 1;
    while (end < sectors && saved_.contains(first + end) == saved) ++end;
    const uint64_t start_byte = i * sector_size;
    undo::Frame frame{.kind = saved ? undo::FrameKind::rewritten : undo::FrameKind::saved,
                      .offset = offset + start_byte,
                      .length = (end - i) * sector_size,
                      .payload = {}};
    if (!saved) {
      const auto part = old_bytes.subspan(start_byte, frame.length);
      frame.payload.assign(part.begin(), part.end());
    }
    for (; i < end; ++i) {
      const auto sector = new_bytes.subspan(i * sector_size, sector_size);
      frame.payload.resize(frame.payload.size() + undo::checksum_bytes);
      store_be<uint32_t>(frame.payload, frame.payload.size() - undo::checksum_bytes, undo::checksum(sector));
      saved_.insert(first + i);
    }
    append(frame);
  }
}

void UndoFile::finish() {
  undo::Frame frame{
      .kind = undo::FrameKind::finished, .offset = {}, .length = image_.size(), .payload = std::vector<std::byte>(4)};
  store_be<uint32_t>(frame.payload, 0, undo::allocation_checksum(image_));
  append(frame);
  flush();
}

void UndoingStorage::drain() const {
  if (waiting_.empty()) return;
  for (const Write& write : waiting_) undo_.save(write.offset, write.data);
  undo_.flush();
  for (const Write& write : waiting_) image_.write(write.offset, write.data);
  waiting_.clear();
  waiting_sectors_.clear();
  waiting_bytes_ = 0;
}

uint64_t UndoingStorage::size() const {
  drain();
  return image_.size();
}

size_t UndoingStorage::read(HostOffset offset, std::span<std::byte> buffer) const {
  drain();
  return image_.read(offset, buffer);
}

StorageExtent UndoingStorage::extent_at(HostOffset offset, uint64_t limit) const {
  drain();
  return image_.extent_at(offset, limit);
}

// A sector waits for one write at a time: what is saved of the next begins with what this one leaves.
void UndoingStorage::write(HostOffset offset, std::span<const std::byte> data) {
  if (data.empty()) return;
  const uint64_t first = offset.value() / sector_size;
  const uint64_t last = (offset.value() + data.size() - 1) / sector_size;
  bool conflict = waiting_bytes_ + data.size() > max_waiting_bytes;
  for (uint64_t sector = first; sector <= last && !conflict; ++sector) conflict = waiting_sectors_.contains(sector);
  if (conflict) drain();
  for (uint64_t sector = first; sector <= last; ++sector) waiting_sectors_.insert(sector);
  waiting_.push_back({offset, {data.begin(), data.end()}});
  waiting_bytes_ += data.size();
}

void UndoingStorage::zero(HostOffset offset, uint64_t length, bool) {
  while (length > 0) {
    const uint64_t step = std::min(length, max_waiting_bytes);
    write(offset, std::vector<std::byte>(step));
    offset += step;
    length -= step;
  }
}

void UndoingStorage::truncate(uint64_t size) {
  drain();
  if (size < image_.size()) {
    throw Error(ErrorKind::unsupported, fmt::format("{}: a repair that can be undone makes no image smaller", name()));
  }
  image_.truncate(size);
}

void UndoingStorage::flush_now() {
  drain();
  image_.flush();
}

}  // namespace drydock::qcow2
