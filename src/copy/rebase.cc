// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/rebase.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "src/copy/pieces.h"

namespace drydock {

namespace {

std::vector<Extent> extents_of(const Disk& disk, GuestRange range) {
  std::vector<Extent> extents;
  for_each_extent(disk, range, [&](const Extent& extent) { extents.push_back(extent); });
  return extents;
}

// One thread's work on one piece.
class Piece {
 public:
  Piece(Disk& overlay, const Disk* new_backing, const TakeInOptions& options, GuestRange range)
      : overlay_(overlay), new_backing_(new_backing), options_(options), range_(range) {}

  void run() {
    for (const Extent& extent : extents_of(overlay_, range_)) {
      const bool own = extent.present && extent.depth == 0;
      if (!own) compare(extent);
    }
    if (options_.progress) options_.progress(range_.length);
  }

 private:
  // A stretch that the overlay does not hold.
  void compare(const Extent& old) {
    const uint64_t limit = new_backing_ == nullptr ? 0 : new_backing_->size();
    const GuestOffset end = std::max(old.range.start, std::min(old.range.end(), GuestOffset(limit)));
    if (old.range.start < end) {
      for (const Extent& now : extents_of(*new_backing_, {old.range.start, end - old.range.start})) {
        if ((old.zero && now.zero) || same_bytes(old, now)) continue;
        take_in(now.range, old.zero, !now.zero);
      }
    }
    if (end < old.range.end() && !old.zero) take_in({end, old.range.end() - end}, false, false);
  }

  bool same_bytes(const Extent& old, const Extent& now) {
    if (old.file == nullptr || now.file == nullptr || old.zero || now.zero) return false;
    const std::string& identity = identity_of(old.file);
    return !identity.empty() && identity == identity_of(now.file) &&
           old.offset + (now.range.start - old.range.start) == now.offset;
  }

  const std::string& identity_of(const Storage* file) {
    const auto found = identities_.find(file);
    return found != identities_.end() ? found->second : identities_[file] = file->identity();
  }

  void take_in(GuestRange range, bool old_is_zero, bool has_new) {
    while (range.length > 0) {
      const uint64_t step = std::min(range.length, piece_buffer_bytes - range.start.value() % piece_buffer_bytes);
      take_in_part({range.start, step}, old_is_zero, has_new);
      range = {range.start + step, range.length - step};
    }
  }

  void take_in_part(GuestRange range, bool old_is_zero, bool has_new) {
    old_.assign(range.length, std::byte{0});
    new_.assign(range.length, std::byte{0});
    if (!old_is_zero) overlay_.read(range.start, old_);
    if (has_new) new_backing_->read(range.start, new_);
    for (uint64_t at = 0; at < range.length;) {
      const uint64_t same_end = run_end(range, at, true);
      const uint64_t end = run_end(range, same_end, false);
      if (same_end < end) store({range.start + same_end, end - same_end}, same_end, old_is_zero);
      at = end;
    }
  }

  // Where the units from `at` on that are equal, or are not, come to an end.
  uint64_t run_end(GuestRange range, uint64_t at, bool equal) const {
    while (at < range.length) {
      const GuestOffset guest = range.start + at;
      const uint64_t length = std::min(range.length - at, options_.unit - guest.value() % options_.unit);
      if ((std::memcmp(old_.data() + at, new_.data() + at, length) == 0) != equal) break;
      at += length;
    }
    return at;
  }

  void store(GuestRange range, uint64_t at, bool zero) {
    const auto data = std::span(old_).subspan(at, range.length);
    const bool whole_units = range.start.is_aligned(options_.unit) &&
                             (range.length % options_.unit == 0 || range.end().value() == overlay_.size());
    // Less than a unit is stored: Disk::zero() has nothing to do where the old backing file, or none, reads as zeros.
    if (zero && whole_units && options_.marks_zeros) {
      overlay_.zero(range, false);
    } else if (options_.compress && whole_units) {
      overlay_.write_compressed(range.start, data);
    } else {
      overlay_.write(range.start, data);
    }
  }

  Disk& overlay_;
  const Disk* new_backing_;
  const TakeInOptions& options_;
  GuestRange range_;
  std::map<const Storage*, std::string> identities_;
  std::vector<std::byte> old_;
  std::vector<std::byte> new_;
};

}  // namespace

void take_in_differences(Disk& overlay, const Disk* new_backing, const TakeInOptions& options) {
  for_each_piece(whole(overlay), std::max(piece_bytes, options.unit),
                 [&](GuestRange range) { Piece(overlay, new_backing, options, range).run(); });
}

}  // namespace drydock
