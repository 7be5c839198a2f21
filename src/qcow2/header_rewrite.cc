// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/header_rewrite.h"

#include <algorithm>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_format.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

// Extensions of ours that only take up room; others skip them, as ones that they do not know.
constexpr uint32_t filler_type = 0x6472666C;  // "drfl"

void append(std::vector<std::byte>& to, std::span<const std::byte> bytes) {
  to.insert(to.end(), bytes.begin(), bytes.end());
}

void append_extension_start(std::vector<std::byte>& to, uint32_t type, uint64_t length) {
  const size_t at = to.size();
  to.resize(at + extension_header_bytes);
  store_be<uint32_t>(to, at, type);
  store_be<uint32_t>(to, at + 4, static_cast<uint32_t>(length));
}

}  // namespace

HeaderRewrite::HeaderRewrite(Storage& storage) : storage_(storage) {
  const Header header = read_header(storage);
  cluster_size_ = header.cluster_size();
  backing_name_ = header.backing_file;
  std::vector<std::byte> cluster(cluster_size_);
  read_or_zero(storage, HostOffset(0), cluster);
  const uint64_t length =
      header.version >= 3 ? load_be<uint32_t>(cluster, field::header_length) : version_2_header_bytes;
  const auto name_offset = load_be<uint64_t>(cluster, field::backing_name_offset);
  fields_.assign(cluster.begin(), cluster.begin() + static_cast<std::ptrdiff_t>(length));
  old_start_.assign(cluster.begin(), cluster.begin() + static_cast<std::ptrdiff_t>(sector_size));
  const uint64_t limit = name_offset != 0 ? name_offset : cluster_size_;
  uint64_t filler_end = 0;
  uint64_t offset = length;
  while (offset + extension_header_bytes <= limit) {
    const auto type = load_be<uint32_t>(cluster, offset);
    const auto size = load_be<uint32_t>(cluster, offset + 4);
    offset += extension_header_bytes;
    if (type == extension::end) break;
    const auto data = std::span(cluster).subspan(offset, size);
    if (type == filler_type && extensions_.empty()) filler_end = offset + size;
    if (type != extension::retired && type != filler_type) extensions_.push_back({type, {data.begin(), data.end()}});
    offset += round_up(size, extension_alignment);
  }
  extensions_end_ = offset;
  name_start_ = name_offset;
  name_end_ = name_offset + (backing_name_ ? backing_name_->size() : 0);
  // Where another program has moved the filler, it no longer says what is free.
  if (filler_end != 0 && encode().size() <= filler_end) tidied_ = encode();
}

void HeaderRewrite::set_extension(uint32_t type, const std::optional<std::string>& text) {
  std::erase_if(extensions_, [&](const Extension& extension) { return extension.type == type; });
  if (!text) return;
  const auto bytes = std::as_bytes(std::span(*text));
  extensions_.insert(extensions_.begin(), {type, {bytes.begin(), bytes.end()}});
}

void HeaderRewrite::set_backing(const std::optional<std::string>& name, const std::optional<std::string>& format) {
  backing_name_ = name;
  set_extension(extension::backing_format, format);
}

void HeaderRewrite::set_data_file(const std::string& name) { set_extension(extension::data_file, name); }

void HeaderRewrite::set_version(uint32_t version) {
  store_be<uint32_t>(fields_, field::version, version);
  fields_.resize(version_2_header_bytes);
  if (version < 3) {
    set_extension(extension::feature_names, std::nullopt);
    return;
  }
  constexpr uint32_t default_refcount_order = 4;
  fields_.resize(version_3_header_bytes);
  store_be<uint32_t>(fields_, field::refcount_order, default_refcount_order);
  store_be<uint32_t>(fields_, field::header_length, static_cast<uint32_t>(version_3_header_bytes));
}

std::vector<std::byte> HeaderRewrite::encode_tail(uint64_t& name_at) const {
  std::vector<std::byte> tail;
  for (const Extension& extension : extensions_) {
    append_extension_start(tail, extension.type, extension.data.size());
    append(tail, extension.data);
    tail.resize(round_up(tail.size(), extension_alignment));
  }
  append_extension_start(tail, extension::end, 0);
  name_at = tail.size();
  if (backing_name_) append(tail, std::as_bytes(std::span(*backing_name_)));
  return tail;
}

std::vector<std::byte> HeaderRewrite::first_part(uint64_t name_offset) const {
  std::vector<std::byte> bytes = fields_;
  store_be<uint64_t>(bytes, field::backing_name_offset, backing_name_ ? name_offset : 0);
  store_be<uint32_t>(bytes, field::backing_name_length,
                     backing_name_ ? static_cast<uint32_t>(backing_name_->size()) : 0);
  return bytes;
}

std::vector<std::byte> HeaderRewrite::encode() const {
  uint64_t name_at = 0;
  const std::vector<std::byte> tail = encode_tail(name_at);
  std::vector<std::byte> whole = first_part(fields_.size() + name_at);
  append(whole, tail);
  return whole;
}

// The end of a change that was interrupted behind step 2: without it there may be no room for another one.
void HeaderRewrite::finish_last_change() {
  if (tidied_.size() <= sector_size) return;
  storage_.write(HostOffset(sector_size), std::span(tidied_).subspan(sector_size));
  storage_.flush();
  old_start_.assign(tidied_.begin(), tidied_.begin() + static_cast<std::ptrdiff_t>(sector_size));
  storage_.write(HostOffset(0), old_start_);
  storage_.flush();
  extensions_end_ = name_start_ = name_end_ = tidied_.size();
}

// Clear of what the old header uses, whose name may lie anywhere, and of where the new one will lie.
uint64_t HeaderRewrite::find_room(uint64_t whole_bytes, uint64_t tail_bytes) const {
  uint64_t place = round_up(std::max(extensions_end_, whole_bytes), sector_size);
  if (place < name_end_ && name_start_ < place + tail_bytes) place = round_up(name_end_, sector_size);
  if (place + tail_bytes <= cluster_size_) return place;
  throw Error(ErrorKind::no_space,
              fmt::format("{}: the header cannot be changed safely: its cluster of {} bytes has no room for the old "
                          "and the new at once",
                          printable(storage_.name()), cluster_size_));
}

void HeaderRewrite::write_start(std::vector<std::byte> bytes) {
  bytes.resize(sector_size);
  storage_.write(HostOffset(0), bytes);
  storage_.flush();
}

// Where that takes nothing from the old header: it has nothing there, or the same.
bool HeaderRewrite::can_store_rest_first(const std::vector<std::byte>& whole) const {
  if (std::max(extensions_end_, name_end_) <= sector_size) return true;
  std::vector<std::byte> rest(whole.size() - sector_size);
  read_or_zero(storage_, HostOffset(sector_size), rest);
  return std::ranges::equal(rest, std::span(whole).subspan(sector_size));
}

void HeaderRewrite::store_rest_first(const std::vector<std::byte>& whole) {
  storage_.write(HostOffset(sector_size), std::span(whole).subspan(sector_size));
  storage_.flush();
  write_start({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(sector_size)});
}

void HeaderRewrite::store() try {
  std::vector<std::byte> whole = encode();
  if (whole.size() > cluster_size_) {
    throw Error(ErrorKind::no_space,
                fmt::format("{}: the header needs {} bytes, and its cluster has {}; a shorter name of the backing file "
                            "may help",
                            printable(storage_.name()), whole.size(), cluster_size_));
  }
  if (whole.size() <= sector_size) return write_start(std::move(whole));
  if (fields_.size() + extension_header_bytes > sector_size) {
    throw Error(
        ErrorKind::unsupported,
        fmt::format("{}: the header's fields take {} bytes, and what is changed at once has {}; it was not changed",
                    printable(storage_.name()), fields_.size(), sector_size));
  }
  finish_last_change();
  if (can_store_rest_first(whole)) return store_rest_first(whole);
  uint64_t name_at = 0;
  const std::vector<std::byte> tail = encode_tail(name_at);
  const uint64_t aside = find_room(whole.size(), tail.size());
  storage_.write(HostOffset(aside), tail);
  storage_.flush();
  std::vector<std::byte> start = first_part(aside + name_at);
  append_extension_start(start, filler_type, aside - start.size() - extension_header_bytes);
  write_start(std::move(start));
  tidy(whole);
} catch (const Error&) {
  // The file may have either start, and after a failed flush the page cache another than the disk.
  try {
    storage_.write(HostOffset(0), old_start_);
    storage_.flush();
  } catch (const Error&) {  // the first failure is the one to tell
  }
  throw;
}

// The change is made; that this fails costs nothing but order.
void HeaderRewrite::tidy(const std::vector<std::byte>& whole) try {
  storage_.write(HostOffset(sector_size), std::span(whole).subspan(sector_size));
  storage_.flush();
  storage_.write(HostOffset(0), std::span(whole).first(sector_size));
  storage_.flush();
} catch (const Error&) {
  return;
}

void store_backing_file(Storage& storage, const std::optional<std::string>& name,
                        const std::optional<std::string>& format) {
  const Header header = read_header(storage);
  if (name && header.data_file_raw()) {
    throw Error(ErrorKind::unsupported,
                fmt::format("{}: an image whose data file is a raw image of its disk cannot have a backing file",
                            printable(storage.name())));
  }
  if ((name && name->size() > max_backing_name_bytes) || (format && format->size() > max_format_name_bytes)) {
    throw Error(ErrorKind::invalid, fmt::format("the backing file's name has at most {} bytes, its format's {}",
                                                max_backing_name_bytes, max_format_name_bytes));
  }
  HeaderRewrite rewrite(storage);
  rewrite.set_backing(name, format);
  rewrite.store();
}

}  // namespace drydock::qcow2
