// SPDX-License-Identifier: GPL-3.0-or-later
// Zeroes and discards.

#include <algorithm>
#include <array>

#include "src/qcow2/writable_disk.h"

namespace drydock::qcow2 {

namespace {

constexpr uint64_t zero_block = 64 << 10;

}  // namespace

// ---- zeroes

void WritableDisk::zero(GuestRange range, bool keep_space) {
  check_range(range);
  const uint64_t unit = layer_->decoder.subcluster_size();
  const GuestOffset whole_start(round_up(range.start.value(), unit));
  const GuestOffset whole_end(aligned_end(range.end().value(), unit));
  if (whole_start >= whole_end) {
    const GuestOffset middle = std::min(whole_start, range.end());
    zero_partial({range.start, middle - range.start});
    zero_partial({middle, range.end() - middle});
    return;
  }
  zero_partial({range.start, whole_start - range.start});
  zero_whole({whole_start, whole_end - whole_start}, keep_space);
  zero_partial({whole_end, range.end() - whole_end});
}

bool WritableDisk::zero_at_once(GuestRange range, bool keep_space) {
  check_range(range);
  const Header& header = layer_->header;
  const bool zeros_are_metadata = header.version >= 3 || (!keep_space && !layer_->backing);
  const uint64_t unit = layer_->decoder.subcluster_size();
  const bool has_whole = round_up(range.start.value(), unit) < aligned_end(range.end().value(), unit);
  // The host of a raw data file may have to write.
  if (!zeros_are_metadata || !has_whole || header.data_file_raw()) return false;
  zero(range, keep_space);
  return true;
}

uint64_t WritableDisk::aligned_end(uint64_t end, uint64_t alignment) const {
  return end == size() ? end : round_down(end, alignment);
}

// A part of one subcluster, which cannot be marked.
void WritableDisk::zero_partial(GuestRange range) {
  if (range.length == 0) return;
  {
    const Change change(*this, range);
    if (reads_as_zeros(range)) return;
  }
  write_zeros(range);
}

void WritableDisk::write_zeros(GuestRange range) {
  static constexpr std::array<std::byte, zero_block> zeros{};
  while (range.length > 0) {
    // No step ends within a sector: a power cut between two would leave a half of it.
    const uint64_t step = std::min(range.length, zero_block - range.start.value() % zero_block);
    write(range.start, std::span(zeros).first(step));
    range = {range.start + step, range.length - step};
  }
}

void WritableDisk::zero_whole(GuestRange range, bool keep_space) {
  const Header& header = layer_->header;
  if (header.version < 3) {
    // No zero clusters: what has no cluster reads as zeros where there is nothing below.
    if (keep_space || layer_->backing) return write_zeros(range);
    return discard(range);
  }
  const uint64_t slice_coverage = l2_slice_bytes(header) / header.l2_entry_size() << header.cluster_bits;
  while (range.length > 0) {
    GuestRange part{range.start, std::min(range.length, slice_coverage - range.start.value() % slice_coverage)};
    {
      const Change change(*this, part);
      const RangeLocks::Hold hold(placing_, part.start.value() >> header.cluster_bits,
                                  (part.end().value() - 1) >> header.cluster_bits);
      if (header.data_file_raw()) {
        layer_->data_storage->zero(HostOffset(part.start.value()), part.length, keep_space);
      }
      part.length = metadata_->zero(part, keep_space);
    }
    if (part.length == 0) {  // a part of a compressed cluster
      part.length = std::min(range.length, header.cluster_size() - range.start.value() % header.cluster_size());
      write_zeros(part);
    }
    range = {range.start + part.length, range.length - part.length};
  }
}

// ---- discards

void WritableDisk::discard(GuestRange range) {
  check_range(range);
  const Header& header = layer_->header;
  // Without zero clusters what is below would show through.
  if (header.version < 3 && layer_->backing) return;
  // Bitmaps get all of it, as QEMU's do, though parts of clusters stay as they are.
  { const Change told(*this, range); }
  const uint64_t slice_coverage = l2_slice_bytes(header) / header.l2_entry_size() << header.cluster_bits;
  const GuestOffset end(aligned_end(range.end().value(), header.cluster_size()));
  GuestOffset start(round_up(range.start.value(), header.cluster_size()));
  while (start < end) {
    GuestRange part{start, std::min(end - start, slice_coverage - start.value() % slice_coverage)};
    const Change change(*this, part);
    const RangeLocks::Hold hold(placing_, part.start.value() >> header.cluster_bits,
                                (part.end().value() - 1) >> header.cluster_bits);
    if (discard_keeps_place_ || header.has_data_file()) discard_place(part);
    part.length = metadata_->discard(part, discard_keeps_place_ ? Discarded::zeros_in_place : Discarded::zeros);
    start += part.length;
  }
}

// Gives back the space of data whose place nobody else is going to get.
void WritableDisk::discard_place(GuestRange range) {
  while (range.length > 0) {
    const Mapping mapping = metadata_->translate_for_write(range);
    if (mapping.state == ClusterState::data && mapping.ours) {
      if (layer_->header.data_file_raw()) {
        layer_->data_storage->zero(mapping.host, mapping.length, false);
      } else {
        layer_->data_storage->discard(mapping.host, mapping.length);
      }
    }
    range = {range.start + mapping.length, range.length - mapping.length};
  }
}

}  // namespace drydock::qcow2
