// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/undo_restore.h"

#include <algorithm>
#include <map>
#include <optional>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/undo_format.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

using undo::Frame;
using undo::FrameKind;

class Restorer {
 public:
  Restorer(Storage& undo_file, Storage& image)
      : file_(undo_file), image_(image), old_size_(undo::decode_file_header(undo_file)) {}

  UndoSummary run() {
    read_frames();
    if (restored_) refuse("the undo file has been used: the image was restored from it");
    check_image();
    if (!restoring_) append({.kind = FrameKind::restoring, .offset = {}, .length = 0, .payload = {}});
    const uint64_t bytes = restore();
    append({.kind = FrameKind::restored, .offset = {}, .length = 0, .payload = {}});
    return {.restored_bytes = bytes, .repair_was_complete = finished_size_.has_value()};
  }

 private:
  struct Sector {
    HostOffset old_bytes;             // in the undo file
    std::vector<uint32_t> checksums;  // of what the repair wrote there, one after the other
  };

  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorKind::invalid, fmt::format("{}: {}", printable(file_.name()), why));
  }

  // The frame at `end_`; nothing behind the last one, or where it is torn.
  std::optional<Frame> next_frame() {
    std::vector<std::byte> header(undo::frame_header_bytes);
    if (file_.read(HostOffset(end_), header) < header.size()) return std::nullopt;
    if (load_be<uint32_t>(header, 0) != undo::frame_magic) return std::nullopt;
    if (load_be<uint32_t>(header, 28) != undo::checksum(std::span(header).first(28))) return std::nullopt;
    const auto kind = load_be<uint32_t>(header, 4);
    if (kind < static_cast<uint32_t>(FrameKind::saved) || kind > static_cast<uint32_t>(FrameKind::restored)) {
      return std::nullopt;
    }
    Frame frame{.kind = static_cast<FrameKind>(kind),
                .offset = HostOffset(load_be<uint64_t>(header, 8)),
                .length = load_be<uint64_t>(header, 16),
                .payload = {}};
    const bool range = frame.kind == FrameKind::saved || frame.kind == FrameKind::rewritten;
    if (range && (frame.length > 2 * undo::max_frame_bytes || frame.length % sector_size != 0 ||
                  frame.offset.value() % sector_size != 0 || !checked_add(frame.offset.value(), frame.length))) {
      return std::nullopt;
    }
    frame.payload.resize(undo::payload_bytes(frame.kind, frame.length));
    if (file_.read(HostOffset(end_) + header.size(), frame.payload) < frame.payload.size()) return std::nullopt;
    if (load_be<uint32_t>(header, 24) != undo::checksum(frame.payload)) return std::nullopt;
    return frame;
  }

  void read_frames() {
    end_ = undo::file_header_bytes;
    while (const auto frame = next_frame()) {
      if (restored_) refuse("the undo file is damaged: it goes on behind its end");
      take(*frame);
      end_ += undo::frame_header_bytes + frame->payload.size();
    }
    // Only the tail of a repair that was interrupted may be torn.
    if (end_ < file_.size() && (finished_size_ || restoring_)) {
      refuse(fmt::format("the undo file is damaged at offset {:#x}", end_));
    }
    if (!finished_size_ && frame_follows()) refuse(fmt::format("the undo file is damaged at offset {:#x}", end_));
  }

  // Whether the bytes behind the frame that could not be read hold another one: then this is no torn tail.
  bool frame_follows() {
    const uint64_t bad = end_;
    const uint64_t size = file_.size();
    bool follows = false;
    std::vector<std::byte> piece(64 << 10);
    for (uint64_t at = bad + 1; at + undo::frame_header_bytes <= size && !follows; at += piece.size() - 3) {
      const size_t got = file_.read(HostOffset(at), piece);
      for (size_t i = 0; i + 4 <= got && !follows; ++i) {
        if (load_be<uint32_t>(piece, i) != undo::frame_magic) continue;
        end_ = at + i;
        follows = next_frame().has_value();
      }
    }
    end_ = bad;
    return follows;
  }

  void take(const Frame& frame) {
    switch (frame.kind) {
      case FrameKind::saved:
      case FrameKind::rewritten:
        return take_range(frame);
      case FrameKind::finished:
        finished_size_ = frame.length;
        finished_checksum_ = load_be<uint32_t>(frame.payload);
        return;
      case FrameKind::restoring:
        restoring_ = true;
        return;
      case FrameKind::restored:
        restored_ = true;
        return;
    }
  }

  void take_range(const Frame& frame) {
    const uint64_t count = frame.length / sector_size;
    const uint64_t old_bytes = frame.kind == FrameKind::saved ? frame.length : 0;
    for (uint64_t i = 0; i < count; ++i) {
      Sector& sector = sectors_[frame.offset.value() / sector_size + i];
      if (frame.kind == FrameKind::saved) {
        sector.old_bytes = HostOffset(end_ + undo::frame_header_bytes + i * sector_size);
      }
      sector.checksums.push_back(load_be<uint32_t>(frame.payload, old_bytes + i * undo::checksum_bytes));
    }
  }

  void check_image() {
    const auto changed = [&](const std::string& what) {
      refuse(fmt::format("'{}' is not the image as this repair left it: {}", printable(image_.name()), what));
    };
    const uint64_t size = image_.size();
    if (size < old_size_) changed(fmt::format("it has {} bytes, and had {} before", size, old_size_));
    for (const auto& [number, sector] : sectors_) {
      std::array<std::byte, sector_size> now{};
      read_or_zero(image_, HostOffset(number * sector_size), now);
      if (now != old_bytes(sector) &&
          std::ranges::find(sector.checksums, undo::checksum(now)) == sector.checksums.end()) {
        changed(fmt::format("the sector at {:#x} has been changed since", number * sector_size));
      }
    }
    // A restoration that was interrupted has mixed old and new.
    if (!finished_size_ || restoring_) return;
    if (size != *finished_size_) changed(fmt::format("it has {} bytes, and had {} then", size, *finished_size_));
    if (undo::allocation_checksum(image_) != finished_checksum_) changed("it has been written to since");
  }

  std::array<std::byte, sector_size> old_bytes(const Sector& sector) const {
    std::array<std::byte, sector_size> bytes{};
    if (sector.old_bytes == HostOffset(0)) refuse("the undo file is damaged: it lacks a sector");
    read_exactly(file_, sector.old_bytes, bytes, "a saved sector");
    return bytes;
  }

  uint64_t restore() {
    uint64_t bytes = 0;
    for (const auto& [number, sector] : sectors_) {
      const auto old = old_bytes(sector);
      const uint64_t start = number * sector_size;
      const uint64_t length = std::min(sector_size, old_size_ - std::min(old_size_, start));
      image_.write(HostOffset(start), std::span(old).first(length));
      bytes += length;
    }
    image_.flush();
    if (image_.size() != old_size_) image_.truncate(old_size_);
    image_.flush();
    return bytes;
  }

  void append(const Frame& frame) {
    const std::vector<std::byte> bytes = undo::encode_frame(frame);
    // Overwrites a torn frame; what is left of one behind it must not be taken for more.
    file_.truncate(end_);
    file_.write(HostOffset(end_), bytes);
    file_.flush();
    end_ += bytes.size();
  }

  Storage& file_;
  Storage& image_;
  uint64_t old_size_;
  uint64_t end_ = 0;  // of the frames read
  std::map<uint64_t, Sector> sectors_;
  std::optional<uint64_t> finished_size_;
  uint32_t finished_checksum_ = 0;
  bool restoring_ = false;
  bool restored_ = false;
};

}  // namespace

UndoSummary restore_from_undo_file(Storage& undo_file, Storage& image) { return Restorer(undo_file, image).run(); }

}  // namespace drydock::qcow2
