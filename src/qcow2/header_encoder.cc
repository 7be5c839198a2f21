// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/header_encoder.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string_view>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_format.h"

namespace drydock::qcow2 {

namespace {

// Smaller clusters have no room for a table of names beside a backing file name of any length.
constexpr uint64_t max_cluster_size_without_names = 4096;

struct Feature {
  uint8_t type;  // 0 incompatible, 1 compatible, 2 autoclear
  uint64_t bit;
  std::string_view name;
};
constexpr std::array features{
    Feature{0, incompatible::dirty, "dirty bit"},
    Feature{0, incompatible::corrupt, "corrupt bit"},
    Feature{0, incompatible::external_data_file, "external data file"},
    Feature{0, incompatible::compression_type, "compression type"},
    Feature{0, incompatible::extended_l2, "extended L2 entries"},
    Feature{1, compatible::lazy_refcounts, "lazy refcounts"},
    Feature{2, autoclear::bitmaps, "bitmaps"},
    Feature{2, autoclear::data_file_raw, "raw external data"},
};

std::vector<std::byte> feature_name_table() {
  std::vector<std::byte> table(features.size() * feature_name_entry_bytes);
  for (size_t i = 0; i < features.size(); ++i) {
    const auto entry = std::span(table).subspan(i * feature_name_entry_bytes, feature_name_entry_bytes);
    entry[0] = std::byte{features[i].type};
    entry[1] = static_cast<std::byte>(std::countr_zero(features[i].bit));
    std::ranges::copy(std::as_bytes(std::span(features[i].name)), entry.begin() + 2);
  }
  return table;
}

// Fills a cluster from its start.
class HeaderWriter {
 public:
  explicit HeaderWriter(const Header& header) : header_(header), cluster_(header.cluster_size()) {}

  std::vector<std::byte> write() {
    encode_fixed_fields();
    if (header_.version >= 3) encode_version_3_fields();
    encode_extensions();
    if (header_.backing_file) encode_backing_name(*header_.backing_file);
    return std::move(cluster_);
  }

 private:
  template <class T>
  void put(uint64_t offset, T value) {
    store_be<T>(cluster_, offset, value);
  }
  void put_bytes(std::span<const std::byte> bytes) {
    std::ranges::copy(bytes, cluster_.begin() + static_cast<std::ptrdiff_t>(end_));
    end_ += bytes.size();
  }

  void encode_fixed_fields();
  void encode_version_3_fields();
  void encode_extensions();
  void encode_extension(uint32_t type, std::span<const std::byte> data, std::string_view what);
  void encode_text(uint32_t type, const std::optional<std::string>& text, std::string_view what);
  void encode_backing_name(const std::string& name);

  const Header& header_;
  std::vector<std::byte> cluster_;
  uint64_t end_ = version_2_header_bytes;  // of what is used
};

void HeaderWriter::encode_fixed_fields() {
  put<uint32_t>(0, header_magic);
  put<uint32_t>(4, header_.version);
  put<uint32_t>(20, header_.cluster_bits);
  put<uint64_t>(24, header_.size);
  put<uint32_t>(32, static_cast<uint32_t>(header_.crypt_method));
  put<uint32_t>(36, header_.l1_entries);
  put<uint64_t>(40, header_.l1_offset.value());
  put<uint64_t>(48, header_.refcount_table_offset.value());
  put<uint32_t>(56, header_.refcount_table_clusters);
  put<uint32_t>(60, header_.snapshot_count);
  put<uint64_t>(64, header_.snapshots_offset.value());
}

void HeaderWriter::encode_version_3_fields() {
  put<uint64_t>(72, header_.incompatible_features);
  put<uint64_t>(80, header_.compatible_features);
  put<uint64_t>(88, header_.autoclear_features);
  put<uint32_t>(96, header_.refcount_order);
  put<uint32_t>(100, version_3_header_bytes);
  cluster_[compression_type_offset] = static_cast<std::byte>(header_.compression);
  end_ = version_3_header_bytes;
}

void HeaderWriter::encode_extensions() {
  encode_text(extension::backing_format, header_.backing_format, "the backing file's format");
  encode_text(extension::data_file, header_.data_file, "the data file's name");
  if (header_.version >= 3 && header_.cluster_size() > max_cluster_size_without_names) {
    encode_extension(extension::feature_names, feature_name_table(), "the feature name table");
  }
  if (header_.bitmaps) {
    std::array<std::byte, bitmaps_extension_bytes> data{};
    store_be<uint32_t>(data, 0, header_.bitmaps->count);
    store_be<uint64_t>(data, 8, header_.bitmaps->directory_size);
    store_be<uint64_t>(data, 16, header_.bitmaps->directory_offset.value());
    encode_extension(extension::bitmaps, data, "the bitmaps extension");
  }
  encode_extension(extension::end, {}, "the end of the header extensions");
}

void HeaderWriter::encode_text(uint32_t type, const std::optional<std::string>& text, std::string_view what) {
  if (text) encode_extension(type, std::as_bytes(std::span(*text)), what);
}

void HeaderWriter::encode_extension(uint32_t type, std::span<const std::byte> data, std::string_view what) {
  const uint64_t size = extension_header_bytes + round_up(data.size(), extension_alignment);
  if (size > cluster_.size() - end_) {
    throw Error(ErrorKind::invalid, fmt::format("{} does not fit into the header: {} bytes, {} are left; use larger "
                                                "clusters, or a shorter name",
                                                what, size, cluster_.size() - end_));
  }
  put<uint32_t>(end_, type);
  put<uint32_t>(end_ + 4, static_cast<uint32_t>(data.size()));
  end_ += extension_header_bytes;
  put_bytes(data);
  end_ = round_up(end_, extension_alignment);
}

void HeaderWriter::encode_backing_name(const std::string& name) {
  if (name.size() > std::min<uint64_t>(max_backing_name_bytes, cluster_.size() - end_)) {
    throw Error(
        ErrorKind::invalid,
        fmt::format("the backing file's name does not fit into the header: {} bytes, at most {} with clusters "
                    "of {} bytes",
                    name.size(), std::min<uint64_t>(max_backing_name_bytes, cluster_.size() - end_), cluster_.size()));
  }
  put<uint64_t>(8, end_);
  put<uint32_t>(16, static_cast<uint32_t>(name.size()));
  put_bytes(std::as_bytes(std::span(name)));
}

}  // namespace

std::vector<std::byte> encode_header(const Header& header) { return HeaderWriter(header).write(); }

}  // namespace drydock::qcow2
