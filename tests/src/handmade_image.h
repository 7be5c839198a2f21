// SPDX-License-Identifier: GPL-3.0-or-later
//
// Small images made by hand, checked and repaired in memory.

#pragma once

#include <string>
#include <vector>

#include "src/qcow2/repair.h"
#include "tests/support/qcow2_bytes.h"

namespace drydock::qcow2 {

constexpr uint64_t refcount_table = test::Qcow2Bytes::cluster_size;
constexpr uint64_t refcount_block = 2 * test::Qcow2Bytes::cluster_size;
constexpr uint64_t first_data = test::Qcow2Bytes::data_offset;

constexpr uint64_t cluster_at(uint64_t offset) { return offset / test::Qcow2Bytes::cluster_size; }

// With 16-bit refcounts.
void set_refcount(test::Qcow2Bytes& image, uint64_t cluster, uint16_t count);

// A clean image with data clusters for the guest's first `clusters` clusters.
test::Qcow2Bytes image_with_data(uint64_t clusters);

// Snapshots with such L1 tables of one entry, named "n", with the IDs 0, 1, ... (eight at most). Returns where their
// table lies.
uint64_t add_snapshots(test::Qcow2Bytes& image, const std::vector<uint64_t>& l1_tables);

CheckResult check_bytes(const std::vector<std::byte>& bytes);
std::vector<std::string> messages(const CheckReport& result);

std::vector<std::byte> bytes_of_storage(const Storage& storage);
std::vector<std::byte> guest_bytes(const std::vector<std::byte>& image);

struct Repaired {
  RepairOutcome outcome;
  std::vector<std::byte> bytes;
};
Repaired repair_bytes(const std::vector<std::byte>& bytes, RepairMode mode = RepairMode::all);

// Images with every kind of damage that a repair mends.
struct Damaged {
  std::string name;
  test::Qcow2Bytes image;
};
std::vector<Damaged> repairable();

}  // namespace drydock::qcow2
