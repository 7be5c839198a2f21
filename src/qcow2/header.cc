// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/header.h"

#include <algorithm>
#include <array>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_format.h"

namespace drydock::qcow2 {

namespace {

// A name of the feature name table.
struct FeatureName {
  uint8_t type = 0;  // 0 incompatible, 1 compatible, 2 autoclear
  uint8_t bit = 0;
  std::string name;
};

// Decodes one header; holds what its steps share.
class HeaderReader {
 public:
  HeaderReader(const Storage& storage, bool for_check) : storage_(storage), for_check_(for_check) {}

  Header read() {
    decode_fixed_fields();
    if (header_.version >= 3) decode_version_3_fields();
    decode_compression_type();
    decode_extensions();
    decode_backing_name();
    check_incompatible_features();
    check_tables();
    return std::move(header_);
  }

 private:
  [[noreturn]] void fail(ErrorKind kind, const std::string& message) const {
    throw Error(kind, fmt::format("{}: {}", printable(storage_.name()), message));
  }
  [[noreturn]] void invalid(const std::string& message) const { fail(ErrorKind::invalid, message); }

  std::span<const std::byte> bytes(uint64_t offset, uint64_t length) const {
    return std::span(cluster_).subspan(offset, length);
  }
  std::string text(uint64_t offset, uint64_t length) const {
    const auto view = bytes(offset, length);
    return {reinterpret_cast<const char*>(view.data()), view.size()};
  }

  void decode_fixed_fields();
  void decode_version_3_fields();
  void decode_compression_type();
  void decode_extensions();
  void decode_extension(uint32_t type, uint64_t offset, uint32_t length);
  void decode_feature_names(uint64_t offset, uint32_t length);
  void decode_bitmaps(uint64_t offset, uint32_t length);
  void decode_backing_name();
  void check_incompatible_features() const;
  void check_tables() const;
  void check_snapshot_fields() const;
  std::string feature_name(unsigned bit) const;

  const Storage& storage_;
  bool for_check_;
  std::vector<std::byte> cluster_;  // the first cluster, or what the file has of it
  uint64_t header_length_ = version_2_header_bytes;
  HostOffset backing_name_offset_;
  uint32_t backing_name_length_ = 0;
  std::vector<FeatureName> feature_names_;
  Header header_;
};

void HeaderReader::decode_fixed_fields() {
  std::array<std::byte, version_2_header_bytes> start{};
  const size_t got = storage_.read(HostOffset(0), start);
  if (got < 8 || load_be<uint32_t>(start) != header_magic) invalid("Image is not in qcow2 format");
  header_.version = load_be<uint32_t>(start, 4);
  if (header_.version != 2 && header_.version != 3) {
    fail(ErrorKind::unsupported, fmt::format("Unsupported qcow2 version {}; 2 and 3 are known", header_.version));
  }
  if (got < start.size()) read_exactly(storage_, HostOffset(0), start, "the qcow2 header");

  backing_name_offset_ = HostOffset(load_be<uint64_t>(start, 8));
  backing_name_length_ = load_be<uint32_t>(start, 16);
  header_.cluster_bits = load_be<uint32_t>(start, 20);
  header_.size = load_be<uint64_t>(start, 24);
  const auto crypt_method = load_be<uint32_t>(start, 32);
  header_.l1_entries = load_be<uint32_t>(start, 36);
  header_.l1_offset = HostOffset(load_be<uint64_t>(start, 40));
  header_.refcount_table_offset = HostOffset(load_be<uint64_t>(start, 48));
  header_.refcount_table_clusters = load_be<uint32_t>(start, 56);
  header_.snapshot_count = load_be<uint32_t>(start, 60);
  header_.snapshots_offset = HostOffset(load_be<uint64_t>(start, 64));

  if (header_.cluster_bits < min_cluster_bits || header_.cluster_bits > max_cluster_bits) {
    invalid(fmt::format("Unsupported cluster size: 2^{}; from 2^{} to 2^{} are possible", header_.cluster_bits,
                        min_cluster_bits, max_cluster_bits));
  }
  if (crypt_method > static_cast<uint32_t>(CryptMethod::luks)) {
    fail(ErrorKind::unsupported, fmt::format("Unsupported encryption method {}", crypt_method));
  }
  header_.crypt_method = static_cast<CryptMethod>(crypt_method);

  cluster_.resize(header_.cluster_size());
  cluster_.resize(storage_.read(HostOffset(0), cluster_));
}

void HeaderReader::decode_version_3_fields() {
  if (cluster_.size() < version_3_min_header_bytes) {
    std::array<std::byte, version_3_min_header_bytes> whole{};
    read_exactly(storage_, HostOffset(0), whole, "the qcow2 header");
  }
  header_.incompatible_features = load_be<uint64_t>(cluster_, 72);
  header_.compatible_features = load_be<uint64_t>(cluster_, 80);
  header_.autoclear_features = load_be<uint64_t>(cluster_, 88);
  header_.refcount_order = load_be<uint32_t>(cluster_, 96);
  header_length_ = load_be<uint32_t>(cluster_, 100);
  if (header_length_ < version_3_min_header_bytes) {
    invalid(fmt::format("qcow2 header too short: header_length is {}, at least {} is needed", header_length_,
                        version_3_min_header_bytes));
  }
  if (header_length_ > header_.cluster_size()) {
    invalid(fmt::format("qcow2 header exceeds cluster size: header_length is {}", header_length_));
  }
  if (header_length_ > cluster_.size()) {
    fail(ErrorKind::truncated, fmt::format("the file is truncated: its header has {} bytes, but the file ends at {}",
                                           header_length_, cluster_.size()));
  }
  if (header_.refcount_order > max_refcount_order) {
    invalid(fmt::format("Reference count entry width too large: 2^{} bits; may not exceed 64 bits",
                        header_.refcount_order));
  }
}

void HeaderReader::decode_compression_type() {
  // The field counts as absent, and so as 0, when the header ends before it ("Additional fields").
  const bool has_compression_field = header_.version >= 3 && header_length_ > compression_type_offset;
  const auto type = has_compression_field ? std::to_integer<uint8_t>(cluster_[compression_type_offset]) : uint8_t{0};
  const bool flagged = header_.is(incompatible::compression_type);
  if (flagged != (type != 0)) {
    invalid(fmt::format("compression type {} contradicts the compression type feature bit, which is {}", type,
                        flagged ? "set" : "clear"));
  }
  if (type > static_cast<uint8_t>(CompressionType::zstd)) {
    fail(ErrorKind::unsupported, fmt::format("Unsupported compression type {}; zlib (0) and zstd (1) are known", type));
  }
  header_.compression = static_cast<CompressionType>(type);
}

void HeaderReader::decode_extensions() {
  // "If the image has a backing file then the backing file name should be stored in the remaining space".
  const uint64_t name_offset = backing_name_offset_.value();
  if (name_offset > header_.cluster_size()) {
    invalid(fmt::format("Invalid backing file offset {}: it must lie within the first cluster", name_offset));
  }
  const uint64_t end = name_offset != 0 ? name_offset : header_.cluster_size();
  uint64_t offset = header_length_;
  while (offset + extension_header_bytes <= end) {
    if (offset + extension_header_bytes > cluster_.size()) {
      // A version 2 file may end right behind its header; then there are no extensions.
      if (offset == header_length_ && offset == cluster_.size()) return;
      fail(ErrorKind::truncated,
           fmt::format("the file is truncated: it ends at {} within its header extensions", cluster_.size()));
    }
    const auto type = load_be<uint32_t>(cluster_, offset);
    const auto length = load_be<uint32_t>(cluster_, offset + 4);
    if (type == extension::end) return;
    offset += extension_header_bytes;
    if (length > end - offset) {
      invalid(fmt::format("Header extension too large: type {:#010x} at offset {} claims {} bytes, {} are left", type,
                          offset - extension_header_bytes, length, end - offset));
    }
    if (length > cluster_.size() - offset) {
      fail(ErrorKind::truncated,
           fmt::format("the file is truncated: it ends at {} within header extension {:#010x}", cluster_.size(), type));
    }
    decode_extension(type, offset, length);
    offset += round_up(length, 8);
  }
}

void HeaderReader::decode_extension(uint32_t type, uint64_t offset, uint32_t length) {
  switch (type) {
    case extension::backing_format:
      if (length > max_format_name_bytes) {
        invalid(fmt::format("backing format name too long: {} bytes; at most {}", length, max_format_name_bytes));
      }
      // Of no length it says as much as none.
      if (length > 0) header_.backing_format = text(offset, length);
      break;
    case extension::data_file:
      if (length > max_data_file_name_bytes) {
        invalid(fmt::format("data file name too long: {} bytes; at most {}", length, max_data_file_name_bytes));
      }
      header_.data_file = text(offset, length);
      break;
    case extension::feature_names:
      decode_feature_names(offset, length);
      break;
    case extension::bitmaps:
      decode_bitmaps(offset, length);
      break;
    case extension::encryption:
      if (length != encryption_extension_bytes) {
        invalid(
            fmt::format("encryption header pointer has {} bytes; {} are expected", length, encryption_extension_bytes));
      }
      header_.encryption = {HostOffset(load_be<uint64_t>(cluster_, offset)), load_be<uint64_t>(cluster_, offset + 8)};
      break;
    default:
      break;  // "Unknown header extension, can be safely ignored"
  }
}

void HeaderReader::decode_feature_names(uint64_t offset, uint32_t length) {
  for (uint64_t entry = 0; entry + feature_name_entry_bytes <= length; entry += feature_name_entry_bytes) {
    const auto fields = bytes(offset + entry, feature_name_entry_bytes);
    std::string name = text(offset + entry + 2, feature_name_entry_bytes - 2);
    name.resize(std::min(name.size(), name.find('\0')));
    feature_names_.push_back(
        {std::to_integer<uint8_t>(fields[0]), std::to_integer<uint8_t>(fields[1]), std::move(name)});
  }
}

void HeaderReader::decode_bitmaps(uint64_t offset, uint32_t length) {
  // Without the autoclear bit some other writer did not keep the bitmaps true: they count as absent.
  if ((header_.autoclear_features & autoclear::bitmaps) == 0) return;
  if (length != bitmaps_extension_bytes) {
    invalid(fmt::format("bitmaps extension has {} bytes; {} are expected", length, bitmaps_extension_bytes));
  }
  const BitmapsExtension found{.count = load_be<uint32_t>(cluster_, offset),
                               .directory_size = load_be<uint64_t>(cluster_, offset + 8),
                               .directory_offset = HostOffset(load_be<uint64_t>(cluster_, offset + 16))};
  if (found.count == 0 || found.count > max_bitmaps) {
    invalid(fmt::format("bitmaps extension claims {} bitmaps; from 1 to {} are possible", found.count, max_bitmaps));
  }
  if (found.directory_size > max_bitmap_directory_bytes) {
    invalid(fmt::format("bitmap directory too large: {} bytes", found.directory_size));
  }
  if (!found.directory_offset.is_aligned(header_.cluster_size())) {
    invalid(fmt::format("Invalid bitmap directory offset {:#x}", found.directory_offset.value()));
  }
  header_.bitmaps = found;
}

void HeaderReader::decode_backing_name() {
  if (backing_name_offset_.value() == 0 || backing_name_length_ == 0) return;
  const uint64_t offset = backing_name_offset_.value();
  if (backing_name_length_ > std::min<uint64_t>(max_backing_name_bytes, header_.cluster_size() - offset)) {
    invalid(fmt::format("Backing file name too long: {} bytes at offset {}", backing_name_length_, offset));
  }
  if (offset + backing_name_length_ > cluster_.size()) {
    fail(ErrorKind::truncated,
         fmt::format("the file is truncated: it ends at {} within the backing file name", cluster_.size()));
  }
  header_.backing_file = text(offset, backing_name_length_);
}

// Empty where the table has none.
std::string HeaderReader::feature_name(unsigned bit) const {
  for (const FeatureName& feature : feature_names_) {
    if (feature.type == 0 && feature.bit == bit && !feature.name.empty()) return printable(feature.name);
  }
  return "";
}

void HeaderReader::check_incompatible_features() const {
  uint64_t unknown = header_.incompatible_features & ~incompatible::known;
  if (unknown == 0) return;
  std::string names;
  const auto add = [&](const std::string& name) { names += (names.empty() ? "" : ", ") + name; };
  for (unsigned bit = 0; bit < 64; ++bit) {
    const std::string name = (unknown >> bit & 1) != 0 ? feature_name(bit) : "";
    if (name.empty()) continue;
    add(name);
    unknown &= ~(uint64_t{1} << bit);
  }
  if (unknown != 0) add(fmt::format("Unknown incompatible feature: {:x}", unknown));
  fail(ErrorKind::unsupported, fmt::format("Unsupported qcow2 feature(s): {}", names));
}

void HeaderReader::check_snapshot_fields() const {
  if (header_.snapshot_count > max_snapshots) {
    invalid(fmt::format("Snapshot table too large: {} snapshots; at most {}", header_.snapshot_count, max_snapshots));
  }
  if (header_.snapshot_count > 0 && !header_.snapshots_offset.is_aligned(header_.cluster_size())) {
    invalid(fmt::format("Invalid snapshot table offset {:#x}", header_.snapshots_offset.value()));
  }
}

void HeaderReader::check_tables() const {
  const uint64_t cluster_size = header_.cluster_size();
  if (header_.extended_l2() && header_.cluster_bits < min_extended_l2_cluster_bits) {
    invalid(fmt::format("extended L2 entries need clusters of at least 16 KiB; these have {} bytes", cluster_size));
  }
  if (header_.refcount_table_clusters > max_refcount_table_bytes / cluster_size) {
    invalid(fmt::format("Image reference count table too large: {} clusters", header_.refcount_table_clusters));
  }
  if (!header_.refcount_table_offset.is_aligned(cluster_size)) {
    invalid(fmt::format("Invalid reference count table offset {:#x}", header_.refcount_table_offset.value()));
  }
  if (!for_check_) check_snapshot_fields();
  if (uint64_t{header_.l1_entries} * 8 > max_l1_table_bytes) {
    invalid(fmt::format("Active L1 table too large: {} entries", header_.l1_entries));
  }
  if (!header_.l1_offset.is_aligned(cluster_size)) {
    invalid(fmt::format("Active L1 table offset invalid: {:#x}", header_.l1_offset.value()));
  }
  if (divide_up(header_.size, header_.l2_coverage()) > header_.l1_entries) {
    invalid("L1 table is too small");
  }
}

}  // namespace

Header read_header(const Storage& storage) { return HeaderReader(storage, false).read(); }

Header read_header_for_check(const Storage& storage) { return HeaderReader(storage, true).read(); }

}  // namespace drydock::qcow2
