// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/amend.h"

#include <bit>

#include "src/error.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/header_rewrite.h"
#include "src/qcow2/refcount_width.h"
#include "src/qcow2/repair.h"
#include "src/qcow2/snapshot_table.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t version_2_refcount_bits = 16;

[[noreturn]] void unsupported(const std::string& message) { throw Error(ErrorKind::unsupported, message); }

// `refcount_bits` are those that the image has by then.
void check_features(const Header& header, uint64_t refcount_bits) {
  if (refcount_bits != version_2_refcount_bits) throw_invalid("compat=0.10 requires refcount_bits=16");
  if (header.has_data_file()) unsupported("Cannot downgrade an image with a data file");
  if (const uint64_t features = header.incompatible_features & ~incompatible::dirty; features != 0) {
    unsupported(fmt::format("Cannot downgrade an image with incompatible features {:#x} set", features));
  }
}

// Of another size than the disk's, or with more of a machine's state than 32 bits count: other programs may rely on
// what version 2 has for these, and nothing of it would be right.
void check_snapshots_fit_version_2(const Storage& storage, const Header& header) {
  for (const Snapshot& snapshot : read_snapshot_table(storage, header)) {
    if (snapshot.info.disk_size == header.size && snapshot.info.vm_state_size <= UINT32_MAX) continue;
    unsupported("Internal snapshots prevent downgrade of image");
  }
}

void set_features(Storage& storage, const AmendOptions& options) {
  HeaderFields fields(storage);
  uint64_t compatible_features = fields.compatible_features();
  uint64_t autoclear_features = fields.autoclear_features();
  const auto assign = [](uint64_t& features, uint64_t bit, const std::optional<bool>& value) {
    if (value) features = *value ? features | bit : features & ~bit;
  };
  assign(compatible_features, compatible::lazy_refcounts, options.lazy_refcounts);
  assign(autoclear_features, autoclear::data_file_raw, options.data_file_raw);
  if (compatible_features == fields.compatible_features() && autoclear_features == fields.autoclear_features()) return;
  fields.set_compatible_features(compatible_features).set_autoclear_features(autoclear_features).store();
  storage.flush();
}

}  // namespace

void check_amend_options(const Header& header, const AmendOptions& options) {
  const uint32_t version = options.version.value_or(header.version);
  const uint64_t bits = options.refcount_bits.value_or(header.refcount_bits());
  if (!std::has_single_bit(bits) || bits > 64) {
    throw_invalid("Refcount width must be a power of two and may not exceed 64 bits");
  }
  if (options.data_file && !header.has_data_file()) {
    throw_invalid("data-file can only be set for images that use an external data file");
  }
  if (options.data_file_raw.value_or(false) && !header.data_file_raw()) {
    throw_invalid("data-file-raw cannot be set on existing images");
  }
  if (options.data_file && options.data_file->size() > max_data_file_name_bytes) {
    throw_invalid(fmt::format("the data file's name has at most {} bytes", max_data_file_name_bytes));
  }
  if (version < 3 && options.refcount_bits && bits != version_2_refcount_bits) {
    throw_invalid(
        "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)");
  }
  if (version < 3 && options.lazy_refcounts.value_or(false)) {
    throw_invalid("Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
  }
  if (version < header.version) check_features(header, bits);
}

void amend(Storage& storage, const AmendOptions& options, const std::function<void(uint64_t, uint64_t)>& progress) {
  Header header = read_header(storage);
  if (header.is(incompatible::dirty)) {
    recover_refcounts(storage);
    header = read_header(storage);
  }
  check_amend_options(header, options);
  if (options.version.value_or(2) > header.version) {
    HeaderRewrite rewrite(storage);
    rewrite.set_version(*options.version);
    rewrite.store();
    header = read_header(storage);
  }
  if (options.refcount_bits.value_or(header.refcount_bits()) != header.refcount_bits()) {
    change_refcount_width(storage, static_cast<uint32_t>(std::countr_zero(*options.refcount_bits)), progress);
  }
  if (options.data_file) {
    HeaderRewrite rewrite(storage);
    rewrite.set_data_file(*options.data_file);
    rewrite.store();
  }
  if (header.version >= 3) set_features(storage, options);
}

void check_downgrade(const Storage& storage) {
  const Header header = read_header(storage);
  check_features(header, header.refcount_bits());
  check_snapshots_fit_version_2(storage, header);
}

void downgrade(Storage& storage) {
  const Header header = read_header(storage);
  if (header.version < 3) return;
  check_downgrade(storage);
  if (header.bitmaps) unsupported("Cannot downgrade an image that has persistent dirty bitmaps");
  if (header.is(incompatible::dirty)) unsupported("Cannot downgrade an image that was not closed cleanly");
  HeaderRewrite rewrite(storage);
  rewrite.set_version(2);
  rewrite.store();
}

}  // namespace drydock::qcow2
