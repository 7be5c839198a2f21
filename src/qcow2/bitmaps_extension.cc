// SPDX-License-Identifier: GPL-3.0-or-later
//
// What makes each step safe:
//
//   - the 8 bytes of an extension's type and length are aligned to 8, so that a write of them is never torn: an
//     extension appears and disappears in one such write, after its body is known to be on the disk;
//   - the 24 bytes of the body may straddle two sectors; then they are only written while the autoclear bit is clear,
//     and without it nobody trusts them;
//   - the fixed fields lie in the first sector and change in one write.

#include "src/qcow2/bitmaps_extension.h"

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/header_format.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t whole_extension_bytes = extension_header_bytes + bitmaps_extension_bytes;

struct Found {
  std::optional<uint64_t> place;  // of an extension that is or was one of bitmaps: where its type lies
  bool retired = false;
  bool last = false;            // the end marker follows
  std::optional<uint64_t> end;  // where the end marker lies; nothing: the area is full to its end
};

class ExtensionEditor {
 public:
  explicit ExtensionEditor(Storage& storage) : storage_(storage), fields_(storage) {
    std::array<std::byte, 24> start{};
    read_exactly(storage, HostOffset(0), start, "the qcow2 header");
    const auto cluster_bits = load_be<uint32_t>(start, 20);
    if (cluster_bits < min_cluster_bits || cluster_bits > max_cluster_bits) invalid("its cluster size is not possible");
    name_offset_ = load_be<uint64_t>(start, 8);
    name_length_ = name_offset_ == 0 ? 0 : load_be<uint32_t>(start, 16);
    cluster_.resize(uint64_t{1} << cluster_bits);
    read_or_zero(storage, HostOffset(0), cluster_);
    if (fields_.version() < 3) {
      throw Error(ErrorKind::unsupported, fmt::format("{}: qcow2 version 2 has no bitmaps; version 3 (compat 1.1) does",
                                                      printable(storage.name())));
    }
    find();
  }

  void store(const BitmapsExtension& target);
  void remove();
  // Where a new extension's type goes, and the name after it has made way.
  struct Room {
    uint64_t place = 0;
    std::optional<uint64_t> new_name_offset;
  };
  Room find_room() const;  // throws no_space
  bool has_place() const { return found_.place.has_value(); }

 private:
  [[noreturn]] void invalid(const std::string& message) const {
    throw Error(ErrorKind::invalid,
                fmt::format("{}: the header cannot be changed: {}", printable(storage_.name()), message));
  }

  void find();
  void replace_body(uint64_t place, std::span<const std::byte> body);
  void append(std::span<const std::byte> body);
  void move_name(uint64_t target);
  void write_type(uint64_t place, uint32_t type, uint32_t length);
  void set_trusted(bool trusted);
  bool trusted() const { return (fields_.autoclear_features() & autoclear::bitmaps) != 0; }
  // The end of what extensions may use.
  uint64_t limit() const { return name_offset_ != 0 ? name_offset_ : cluster_.size(); }

  Storage& storage_;
  HeaderFields fields_;
  std::vector<std::byte> cluster_;
  uint64_t name_offset_ = 0;
  uint64_t name_length_ = 0;
  Found found_;
};

void ExtensionEditor::find() {
  uint64_t offset = load_be<uint32_t>(cluster_, 100);
  if (offset < version_3_min_header_bytes || offset % extension_alignment != 0) invalid("its length is not possible");
  if (!range_fits(name_offset_, name_length_, cluster_.size())) invalid("the backing file's name lies outside");
  while (offset + extension_header_bytes <= limit()) {
    const auto type = load_be<uint32_t>(cluster_, offset);
    const auto length = load_be<uint32_t>(cluster_, offset + 4);
    if (type == extension::end) {
      found_.end = offset;
      return;
    }
    if (length > limit() - offset - extension_header_bytes) invalid("an extension reaches past its end");
    const bool retired = type == extension::retired && length == bitmaps_extension_bytes && !found_.place;
    found_.last = retired || type == extension::bitmaps;
    if (found_.last) {
      if (length != bitmaps_extension_bytes) invalid("its bitmaps extension is of another size");
      found_.place = offset;
      found_.retired = retired;
    }
    offset += extension_header_bytes + round_up(length, extension_alignment);
  }
}

void ExtensionEditor::set_trusted(bool trusted_now) {
  if (trusted() == trusted_now) return;
  const uint64_t others = fields_.autoclear_features() & ~autoclear::bitmaps;
  fields_.set_autoclear_features(others | (trusted_now ? autoclear::bitmaps : 0)).store();
  storage_.flush();
}

void ExtensionEditor::write_type(uint64_t place, uint32_t type, uint32_t length) {
  std::array<std::byte, extension_header_bytes> bytes{};
  store_be<uint32_t>(bytes, 0, type);
  store_be<uint32_t>(bytes, 4, length);
  storage_.write(HostOffset(place), bytes);
  storage_.flush();
}

void ExtensionEditor::store(const BitmapsExtension& target) {
  std::array<std::byte, bitmaps_extension_bytes> body{};
  store_be<uint32_t>(body, 0, target.count);
  store_be<uint64_t>(body, 8, target.directory_size);
  store_be<uint64_t>(body, 16, target.directory_offset.value());
  if (found_.place) {
    replace_body(*found_.place, body);
  } else {
    append(body);
  }
  set_trusted(true);
}

void ExtensionEditor::replace_body(uint64_t place, std::span<const std::byte> body) {
  const uint64_t start = place + extension_header_bytes;
  const bool torn = start / sector_size != (start + body.size() - 1) / sector_size;
  if (torn || found_.retired) set_trusted(false);
  storage_.write(HostOffset(start), body);
  storage_.flush();
  if (found_.retired) write_type(place, extension::bitmaps, bitmaps_extension_bytes);
}

// The new end marker goes out with the body, behind the old one, which the extension's type then replaces.
void ExtensionEditor::append(std::span<const std::byte> body) {
  set_trusted(false);  // a bit without an extension is an error in the image; the new one must not inherit it
  const Room room = find_room();
  if (room.new_name_offset) move_name(*room.new_name_offset);
  std::vector<std::byte> bytes(body.begin(), body.end());
  bytes.resize(body.size() + extension_header_bytes);
  storage_.write(HostOffset(room.place + extension_header_bytes), bytes);
  storage_.flush();
  write_type(room.place, extension::bitmaps, bitmaps_extension_bytes);
}

ExtensionEditor::Room ExtensionEditor::find_room() const {
  if (found_.end) {
    const uint64_t needed_end = *found_.end + whole_extension_bytes + extension_header_bytes;
    if (needed_end <= limit()) return {*found_.end, std::nullopt};
    // As far back as possible, clear of where the name is now: it must not be overwritten before its copy is in use.
    const uint64_t name_end = name_offset_ + name_length_;
    if (name_offset_ != 0 && needed_end <= cluster_.size() - name_length_ &&
        name_end <= cluster_.size() - name_length_) {
      return {*found_.end, cluster_.size() - name_length_};
    }
  }
  throw Error(ErrorKind::no_space,
              fmt::format("{}: the header has no room for bitmaps: its cluster of {} bytes is full",
                          printable(storage_.name()), cluster_.size()));
}

void ExtensionEditor::move_name(uint64_t target) {
  storage_.write(HostOffset(target), std::span(cluster_).subspan(name_offset_, name_length_));
  storage_.flush();
  fields_.set_backing_name(HostOffset(target), static_cast<uint32_t>(name_length_)).store();
  storage_.flush();
}

void ExtensionEditor::remove() {
  set_trusted(false);
  if (!found_.place || found_.retired) return;
  if (found_.last) {
    write_type(*found_.place, extension::end, 0);
  } else {
    write_type(*found_.place, extension::retired, bitmaps_extension_bytes);
  }
}

}  // namespace

void store_bitmaps_extension(Storage& storage, const std::optional<BitmapsExtension>& target) {
  ExtensionEditor editor(storage);
  if (target) {
    editor.store(*target);
  } else {
    editor.remove();
  }
}

void check_room_for_bitmaps_extension(Storage& storage) {
  const ExtensionEditor editor(storage);
  if (!editor.has_place()) editor.find_room();
}

}  // namespace drydock::qcow2
