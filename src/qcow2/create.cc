// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/create.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <functional>

#include "src/byteorder.h"
#include "src/error.h"
#include "src/qcow2/header_encoder.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t table_entry_size = 8;
constexpr uint64_t copied = uint64_t{1} << 63;
constexpr uint64_t batch_bytes = 1 << 20;  // of a table that are written at once

[[noreturn]] void too_large() {
  throw Error(ErrorKind::no_space, EFBIG,
              "The image size is too large for file format 'qcow2' (try using a larger cluster size)");
}

Preallocation effective_preallocation(const CreateOptions& options) {
  // A reader of the metadata must see what a reader of the raw data file alone sees.
  const bool needs_mapping = options.data_file_raw && options.preallocation == Preallocation::off;
  return needs_mapping ? Preallocation::metadata : options.preallocation;
}

// Where the regions lie, in clusters.
struct Layout {
  uint64_t cluster_size = 0;
  uint64_t guest_clusters = 0;  // that are mapped: 0 without preallocation
  uint64_t refcount_table = 0;  // the lengths
  uint64_t refcount_blocks = 0;
  uint64_t l1 = 0;
  uint64_t l2 = 0;
  uint64_t data = 0;  // guest clusters that lie in the image file

  uint64_t refcount_table_start() const { return 1; }
  uint64_t refcount_blocks_start() const { return refcount_table_start() + refcount_table; }
  uint64_t l1_start() const { return refcount_blocks_start() + refcount_blocks; }
  uint64_t l2_start() const { return l1_start() + l1; }
  uint64_t data_start() const { return l2_start() + l2; }
  uint64_t total() const { return data_start() + data; }
  HostOffset offset(uint64_t cluster) const { return HostOffset(cluster * cluster_size); }
};

// A header with all that the options alone decide.
Header header_of(const CreateOptions& options) {
  Header header;
  header.version = options.version;
  header.cluster_bits = static_cast<uint32_t>(std::countr_zero(options.cluster_size));
  header.size = round_up(options.size, sector_size);
  header.refcount_order = static_cast<uint32_t>(std::countr_zero(options.refcount_bits));
  header.compression = options.compression;
  if (options.compression != CompressionType::zlib) header.incompatible_features |= incompatible::compression_type;
  if (options.extended_l2) header.incompatible_features |= incompatible::extended_l2;
  if (options.data_file) header.incompatible_features |= incompatible::external_data_file;
  if (options.lazy_refcounts) header.compatible_features |= compatible::lazy_refcounts;
  if (options.data_file_raw) header.autoclear_features |= autoclear::data_file_raw;
  header.backing_file = options.backing_file;
  header.backing_format = options.backing_format;
  header.data_file = options.data_file;
  header.l1_entries = 1;  // a disk of no bytes has one, for when it grows
  return header;
}

Layout layout_of(const Header& header, const CreateOptions& options) {
  const uint64_t cluster_size = header.cluster_size();
  const uint64_t l1_entries = std::max<uint64_t>(divide_up(header.size, header.l2_coverage()), 1);
  if (header.size > max_virtual_size || l1_entries > max_l1_table_bytes / table_entry_size) too_large();

  Layout layout;
  layout.cluster_size = cluster_size;
  layout.l1 = divide_up(l1_entries * table_entry_size, cluster_size);
  if (effective_preallocation(options) != Preallocation::off) {
    layout.guest_clusters = divide_up(header.size, cluster_size);
    layout.l2 = divide_up(header.size, header.l2_coverage());
    if (!options.data_file) layout.data = layout.guest_clusters;
  }
  // Refcount blocks count themselves and their table too: more of them until it is enough.
  const uint64_t per_block = cluster_size * 8 / header.refcount_bits();
  const uint64_t blocks_per_table_cluster = cluster_size / table_entry_size;
  for (uint64_t covered = 0; covered < layout.total(); covered = layout.refcount_blocks * per_block) {
    layout.refcount_blocks = divide_up(layout.total(), per_block);
    layout.refcount_table = divide_up(layout.refcount_blocks, blocks_per_table_cluster);
    if (layout.refcount_table > max_refcount_table_bytes / cluster_size) too_large();
  }
  if (layout.total() > max_host_size / cluster_size) too_large();
  return layout;
}

// Writes the first `words` big-endian 64-bit words of the region that starts at cluster `start`; `word(i)` gives the
// i-th. The rest of the region has been zeroed.
void write_words(Storage& storage, const Layout& layout, uint64_t start, uint64_t words,
                 const std::function<uint64_t(uint64_t)>& word) {
  std::vector<std::byte> batch(std::min(words * sizeof(uint64_t), batch_bytes));
  for (uint64_t first = 0; first < words; first += batch.size() / sizeof(uint64_t)) {
    const uint64_t count = std::min(words - first, batch.size() / sizeof(uint64_t));
    for (uint64_t i = 0; i < count; ++i) store_be<uint64_t>(batch, i * sizeof(uint64_t), word(first + i));
    storage.write(layout.offset(start) + first * sizeof(uint64_t), std::span(batch).first(count * sizeof(uint64_t)));
  }
}

// The word with `count` reference counts of 1, from the first on. In bytes the first entry has the lowest bits, entries
// wider than a byte are big-endian.
uint64_t refcount_word(uint64_t refcount_bits, uint64_t count) {
  std::array<std::byte, sizeof(uint64_t)> bytes{};
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t bit = refcount_bits < 8 ? i * refcount_bits : (i + 1) * refcount_bits - 8;
    bytes[bit / 8] |= static_cast<std::byte>(1U << (bit % 8));
  }
  return load_be<uint64_t>(bytes);
}

void write_refcounts(Storage& storage, const Layout& layout, const Header& header) {
  write_words(storage, layout, layout.refcount_table_start(), layout.refcount_blocks,
              [&](uint64_t i) { return layout.offset(layout.refcount_blocks_start() + i).value(); });
  const uint64_t per_word = 64 / header.refcount_bits();
  const uint64_t full_words = layout.total() / per_word;
  const uint64_t full_word = refcount_word(header.refcount_bits(), per_word);
  const uint64_t last_word = refcount_word(header.refcount_bits(), layout.total() % per_word);
  write_words(storage, layout, layout.refcount_blocks_start(), divide_up(layout.total(), per_word),
              [&](uint64_t i) { return i < full_words ? full_word : last_word; });
}

// Maps every guest cluster. An extended entry's bitmap stays 0: the place is there, what it holds is not yet decided,
// so that a backing file shows through.
void write_mapping(Storage& storage, const Layout& layout, const Header& header) {
  write_words(storage, layout, layout.l1_start(), layout.l2,
              [&](uint64_t i) { return layout.offset(layout.l2_start() + i).value() | copied; });
  const uint64_t words_per_entry = header.l2_entry_size() / sizeof(uint64_t);
  const uint64_t first = header.has_data_file() ? 0 : layout.data_start();
  write_words(storage, layout, layout.l2_start(), layout.guest_clusters * words_per_entry, [&](uint64_t i) {
    return i % words_per_entry == 0 ? layout.offset(first + i / words_per_entry).value() | copied : 0;
  });
}

void check_version_2(const CreateOptions& options) {
  const auto needs_version_3 = [](std::string_view what) {
    throw_invalid(
        fmt::format("{} only supported with compatibility level 1.1 and above (use version=v3 or greater)", what));
  };
  if (options.extended_l2) needs_version_3("Extended L2 entries are");
  if (options.lazy_refcounts) needs_version_3("Lazy refcounts");
  if (options.refcount_bits != 16) {
    throw_invalid(
        "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or "
        "greater)");
  }
  if (options.data_file) needs_version_3("External data files are");
  if (options.compression != CompressionType::zlib) needs_version_3("Non-zlib compression type is");
}

}  // namespace

void check_create_options(const CreateOptions& options) {
  if (options.version != 2 && options.version != 3)
    throw_invalid(fmt::format("Unknown qcow2 version {}", options.version));
  if (!std::has_single_bit(options.cluster_size) || options.cluster_size < uint64_t{1} << min_cluster_bits ||
      options.cluster_size > uint64_t{1} << max_cluster_bits) {
    throw_invalid(fmt::format("Cluster size must be a power of two between {} and {}k", 1U << min_cluster_bits,
                              1U << (max_cluster_bits - 10)));
  }
  if (options.extended_l2 && options.cluster_size < uint64_t{1} << min_extended_l2_cluster_bits) {
    throw_invalid(fmt::format("Extended L2 entries are only supported with cluster sizes of at least {} bytes",
                              1U << min_extended_l2_cluster_bits));
  }
  if (options.backing_file && options.preallocation != Preallocation::off && !options.extended_l2) {
    throw_invalid("Backing file and preallocation can only be used at the same time if extended_l2 is on");
  }
  if (options.backing_format && !options.backing_file)
    throw_invalid("Backing format cannot be used without backing file");
  if (!std::has_single_bit(options.refcount_bits) || options.refcount_bits > 1U << max_refcount_order) {
    throw_invalid("Refcount width must be a power of two and may not exceed 64 bits");
  }
  if (options.version == 2) check_version_2(options);
  if (options.data_file_raw && !options.data_file) throw_invalid("data-file-raw requires data-file");
  if (options.data_file_raw && options.backing_file) {
    throw_invalid("Backing file and data-file-raw cannot be used at the same time");
  }
  if (options.size > max_virtual_size) too_large();
  const Header header = header_of(options);
  encode_header(header);  // whether the names fit
  layout_of(header, options);
}

Header create(Storage& storage, const CreateOptions& options, Storage* data) {
  check_create_options(options);
  Header header = header_of(options);
  const Layout layout = layout_of(header, options);
  const Preallocation preallocation = effective_preallocation(options);
  header.refcount_table_offset = layout.offset(layout.refcount_table_start());
  header.refcount_table_clusters = static_cast<uint32_t>(layout.refcount_table);
  header.l1_offset = layout.offset(layout.l1_start());
  header.l1_entries = static_cast<uint32_t>(std::max<uint64_t>(divide_up(header.size, header.l2_coverage()), 1));

  // The space first: where it is short, that shows before anything is written. On a block device the old contents go.
  preallocate(storage, layout.offset(0), layout.data_start() * layout.cluster_size, Preallocation::off);
  preallocate(storage, layout.offset(layout.data_start()), layout.data * layout.cluster_size, preallocation);
  if (data != nullptr) preallocate(*data, HostOffset(0), header.size, preallocation);

  write_refcounts(storage, layout, header);
  if (layout.l2 > 0) write_mapping(storage, layout, header);
  if (data != nullptr) data->flush();
  storage.flush();
  storage.write(HostOffset(0), encode_header(header));
  storage.flush();
  return header;
}

}  // namespace drydock::qcow2
