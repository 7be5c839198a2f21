// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every field of every metadata structure of a real qcow2 image, found by following its tables, and wrong values for
// them: for tests that damage images field by field.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace drydock::test {

struct MetadataField {
  std::string name;     // "L2 entry 3"
  uint64_t offset = 0;  // in the file
  unsigned bytes = 0;   // 1, 2, 4 or 8
};

// Fields that are checked when the image is open already (and those whose damage keeps it from opening are few: see
// header fields). Of long tables the first entries, the last, and one of each kind.
std::vector<MetadataField> metadata_fields(const std::vector<std::byte>& image);

uint64_t field_value(const std::vector<std::byte>& image, const MetadataField& field);
void set_field(std::vector<std::byte>& image, const MetadataField& field, uint64_t value);

// Zero, one, all ones, unaligned, past the file's end, the header, other tables, each flag: without what the field has.
std::vector<uint64_t> wrong_values(const std::vector<std::byte>& image, const MetadataField& field);

}  // namespace drydock::test
