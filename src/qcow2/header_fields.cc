// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/header_fields.h"

#include "src/byteorder.h"
#include "src/qcow2/header_format.h"

namespace drydock::qcow2 {

HeaderFields::HeaderFields(Storage& storage) : storage_(storage) {
  read_exactly(storage, HostOffset(0), std::span(bytes_).first(version_2_header_bytes), "the qcow2 header");
  length_ = version() >= 3 ? bytes_.size() : version_2_header_bytes;
  read_exactly(storage, HostOffset(0), std::span(bytes_).first(length_), "the qcow2 header");
}

HeaderFields& HeaderFields::set_size(uint64_t bytes) {
  store_be<uint64_t>(bytes_, field::size, bytes);
  return *this;
}

HeaderFields& HeaderFields::set_l1_table(HostOffset offset, uint32_t entries) {
  store_be<uint32_t>(bytes_, field::l1_entries, entries);
  store_be<uint64_t>(bytes_, field::l1_offset, offset.value());
  return *this;
}

HeaderFields& HeaderFields::set_refcount_table(HostOffset offset, uint32_t clusters) {
  store_be<uint64_t>(bytes_, field::refcount_table_offset, offset.value());
  store_be<uint32_t>(bytes_, field::refcount_table_clusters, clusters);
  return *this;
}

HeaderFields& HeaderFields::set_snapshots(HostOffset offset, uint32_t count) {
  store_be<uint32_t>(bytes_, field::snapshot_count, count);
  store_be<uint64_t>(bytes_, field::snapshots_offset, offset.value());
  return *this;
}

HeaderFields& HeaderFields::set_backing_name(HostOffset offset, uint32_t length) {
  store_be<uint64_t>(bytes_, field::backing_name_offset, offset.value());
  store_be<uint32_t>(bytes_, field::backing_name_length, length);
  return *this;
}

HeaderFields& HeaderFields::set_incompatible_features(uint64_t features) {
  store_be<uint64_t>(bytes_, field::incompatible_features, features);
  return *this;
}

HeaderFields& HeaderFields::set_compatible_features(uint64_t features) {
  store_be<uint64_t>(bytes_, field::compatible_features, features);
  return *this;
}

HeaderFields& HeaderFields::set_autoclear_features(uint64_t features) {
  store_be<uint64_t>(bytes_, field::autoclear_features, features);
  return *this;
}

HeaderFields& HeaderFields::set_refcount_order(uint32_t order) {
  store_be<uint32_t>(bytes_, field::refcount_order, order);
  return *this;
}

uint32_t HeaderFields::version() const { return load_be<uint32_t>(bytes_, field::version); }

uint64_t HeaderFields::feature_field(uint64_t offset) const {
  return length_ > version_2_header_bytes ? load_be<uint64_t>(bytes_, offset) : 0;
}

uint64_t HeaderFields::incompatible_features() const { return feature_field(field::incompatible_features); }
uint64_t HeaderFields::compatible_features() const { return feature_field(field::compatible_features); }
uint64_t HeaderFields::autoclear_features() const { return feature_field(field::autoclear_features); }

void HeaderFields::store() const { storage_.write(HostOffset(0), std::span(bytes_).first(length_)); }

}  // namespace drydock::qcow2
