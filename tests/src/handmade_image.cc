// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/src/handmade_image.h"

#include <array>

#include "src/byteorder.h"
#include "src/memory_storage.h"
#include "src/qcow2/compression.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {

using test::Qcow2Bytes;

void set_refcount(Qcow2Bytes& image, uint64_t cluster, uint16_t count) {
  std::array<std::byte, 2> bytes{};
  store_be<uint16_t>(bytes, 0, count);
  image.put(refcount_block + cluster * 2, bytes);
}

Qcow2Bytes image_with_data(uint64_t clusters) {
  Qcow2Bytes image;
  for (uint64_t i = 0; i < clusters; ++i) {
    const uint64_t offset = image.append(test::random_bytes(i, Qcow2Bytes::cluster_size));
    image.l2(i, offset | Qcow2Bytes::copied);
    set_refcount(image, cluster_at(offset), 1);
  }
  return image;
}

CheckResult check_bytes(const std::vector<std::byte>& bytes) {
  return check(MemoryStorage(bytes, "test.qcow2", false));
}

std::vector<std::string> messages(const CheckReport& result) {
  std::vector<std::string> all;
  for (const Finding& finding : result.findings) all.push_back(finding.message);
  return all;
}

std::vector<std::byte> bytes_of_storage(const Storage& storage) {
  std::vector<std::byte> bytes(storage.size());
  storage.read(HostOffset(0), bytes);
  return bytes;
}

std::vector<std::byte> guest_bytes(const std::vector<std::byte>& image) {
  OpenOptions options;
  options.format = Format::qcow2;
  return test::bytes_of(*Image::open(std::make_shared<MemoryStorage>(image, "test.qcow2", false), options)->disk());
}

Repaired repair_bytes(const std::vector<std::byte>& bytes, RepairMode mode) {
  MemoryStorage storage(bytes, "test.qcow2", true);
  RepairOutcome outcome = repair(storage, {.mode = mode});
  return {std::move(outcome), bytes_of_storage(storage)};
}

uint64_t add_snapshots(Qcow2Bytes& image, const std::vector<uint64_t>& l1_tables) {
  constexpr uint64_t entry_bytes = 64;
  const uint64_t table = image.append(std::vector<std::byte>(round_up(l1_tables.size() * entry_bytes, 512)));
  for (uint64_t i = 0; i < l1_tables.size(); ++i) {
    const uint64_t at = table + i * entry_bytes;
    image.set64(at, l1_tables[i]).set32(at + 8, 1).set32(at + 12, uint32_t{1} << 16 | 1).set32(at + 36, 16);
    image.set64(at + 48, Qcow2Bytes::disk_size).set32(at + 56, static_cast<uint32_t>(('0' + i) << 24 | 'n' << 16));
  }
  image.set32(60, static_cast<uint32_t>(l1_tables.size())).set64(64, table);
  set_refcount(image, cluster_at(table), 1);
  return table;
}

namespace {

// The guest's third cluster in compressed form, where its first has its data.
void put_compressed_over_data(Qcow2Bytes& image) {
  std::vector<std::byte> packed(Qcow2Bytes::cluster_size);
  compress(CompressionType::zlib, std::vector<std::byte>(Qcow2Bytes::cluster_size, std::byte{7}), packed);
  image.put(first_data, packed);
  image.l2(2, Qcow2Bytes::compressed | first_data);
}

std::vector<Damaged> shared() {
  std::vector<Damaged> all;
  const auto add = [&](const std::string& name, const std::function<void(Qcow2Bytes&)>& damage) {
    Qcow2Bytes image = image_with_data(3);
    damage(image);
    all.push_back({name, std::move(image)});
  };
  add("compressed cluster over data", put_compressed_over_data);
  add("data on the L2 table", [](Qcow2Bytes& image) { image.l2(3, Qcow2Bytes::l2_offset | Qcow2Bytes::copied); });
  add("data on the L1 table", [](Qcow2Bytes& image) { image.l2(3, Qcow2Bytes::l1_offset | Qcow2Bytes::copied); });
  add("L2 table on the L1 table",
      [](Qcow2Bytes& image) { image.set64(Qcow2Bytes::l1_offset, Qcow2Bytes::l1_offset | Qcow2Bytes::copied); });
  add("snapshots with the active L1 table", [](Qcow2Bytes& image) {
    add_snapshots(image, {Qcow2Bytes::l1_offset, Qcow2Bytes::l1_offset});
  });
  add("data on the snapshot table and on a snapshot's L1 table", [](Qcow2Bytes& image) {
    const uint64_t l1 = image.append(std::vector<std::byte>(Qcow2Bytes::cluster_size));
    image.set64(l1, Qcow2Bytes::l2_offset);
    const uint64_t table = add_snapshots(image, {l1});
    image.l2(4, table | Qcow2Bytes::copied).l2(5, l1 | Qcow2Bytes::copied);
  });
  add("refcount table, blocks and L2 table in one", [](Qcow2Bytes& image) {
    image.l2(3, refcount_table | Qcow2Bytes::copied).l2(4, refcount_block).l2(5, Qcow2Bytes::l2_offset);
  });
  return all;
}

}  // namespace

std::vector<Damaged> repairable() {
  std::vector<Damaged> all;
  const auto add = [&](const std::string& name, const std::function<void(Qcow2Bytes&)>& damage) {
    Qcow2Bytes image = image_with_data(3);
    damage(image);
    all.push_back({name, std::move(image)});
  };
  add("leak", [](Qcow2Bytes& image) { image.l2(2, 0); });
  add("too low", [](Qcow2Bytes& image) { set_refcount(image, 5, 0); });
  add("too high", [](Qcow2Bytes& image) { set_refcount(image, 6, 7); });
  add("all at once", [](Qcow2Bytes& image) {
    for (uint16_t cluster = 0; cluster < 8; ++cluster) set_refcount(image, cluster, cluster % 4);
  });
  add("copied flag missing", [](Qcow2Bytes& image) { image.l2(0, first_data); });
  add("cluster shared by two entries", [](Qcow2Bytes& image) { image.l2(3, first_data | Qcow2Bytes::copied); });
  add("no refcount block", [](Qcow2Bytes& image) { image.set64(refcount_table, 0); });
  add("refcount block out of the file", [](Qcow2Bytes& image) { image.set64(refcount_table, uint64_t{1} << 50); });
  add("reserved bits", [](Qcow2Bytes& image) { image.set64(refcount_table, refcount_block | 2); });
  add("refcount block on the L2 table", [](Qcow2Bytes& image) { image.set64(refcount_table, Qcow2Bytes::l2_offset); });
  add("refcount block on data", [](Qcow2Bytes& image) { image.set64(refcount_table, first_data); });
  add("no refcount table", [](Qcow2Bytes& image) { image.set32(56, 0); });
  add("refcount table on the header", [](Qcow2Bytes& image) { image.set64(48, 0); });
  add("refcount table out of the file", [](Qcow2Bytes& image) { image.set64(48, uint64_t{1} << 50); });
  add("marked dirty and corrupt", [](Qcow2Bytes& image) { image.set64(72, 3); });
  for (Damaged& damaged : shared()) all.push_back(std::move(damaged));
  return all;
}

}  // namespace drydock::qcow2
