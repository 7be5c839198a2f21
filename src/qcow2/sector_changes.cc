// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/sector_changes.h"

#include <vector>

#include "src/byteorder.h"
#include "src/units.h"

namespace drydock::qcow2 {

void SectorChanges::set(HostOffset field, uint64_t value) {
  fields_[field.value()] = value;
  if (fields_.size() >= max_fields) apply();
}

void SectorChanges::apply() {
  for (auto field = fields_.begin(); field != fields_.end();) {
    const uint64_t start = field->first;
    const uint64_t sector_end = round_down(start, sector_size) + sector_size;
    std::vector<std::byte> bytes(sector_end - start);
    read_or_zero(image_, HostOffset(start), bytes);
    uint64_t end = 0;
    for (; field != fields_.end() && field->first < sector_end; ++field) {
      store_be<uint64_t>(bytes, field->first - start, field->second);
      end = field->first - start + sizeof(uint64_t);
    }
    image_.write(HostOffset(start), std::span(bytes).first(end));
  }
  fields_.clear();
}

}  // namespace drydock::qcow2
