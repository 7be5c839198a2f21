// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/crash_image.h"

#include <algorithm>
#include <array>

#include "src/units.h"

namespace drydock::crash {

namespace {

// Decides, piece by piece in the order of the record, what survives.
class Fate {
 public:
  Fate(Loss loss, std::span<const Change> pending, Random random) : loss_(loss), random_(random) {
    if (pending.empty()) return;
    chosen_change_ = random_.below(pending.size());
    const Change& chosen = pending[chosen_change_];
    const uint64_t first = chosen.offset / sector_size;
    const uint64_t last = chosen.length == 0 ? first : (chosen.offset + chosen.length - 1) / sector_size;
    chosen_sector_ = random_.between(first, last);
  }

  void next_change(size_t index) {
    is_chosen_ = index == chosen_change_;
    whole_kept_ = random_.chance(50);
  }

  // A piece of the current change that starts in `sector` and ends before byte `end`.
  bool keeps(uint64_t sector, uint64_t end) {
    switch (loss_) {
      case Loss::nothing:
        return true;
      case Loss::everything:
        return false;
      case Loss::half_the_sectors:
        return random_.below(2) == 0;
      case Loss::few_sectors:
        return random_.below(16) != 0;
      case Loss::most_sectors:
        return random_.below(16) == 0;
      case Loss::half_the_changes:
        return whole_kept_;
      case Loss::one_change:
        return !is_chosen_;
      case Loss::all_but_one:
        return is_chosen_;
      case Loss::one_sector:
        return !is_chosen_ || !has_chosen_sector(sector, end);
      case Loss::all_but_one_sector:
        return is_chosen_ && has_chosen_sector(sector, end);
    }
    return true;
  }

 private:
  bool has_chosen_sector(uint64_t sector, uint64_t end) const {
    return sector <= chosen_sector_ && chosen_sector_ * sector_size < end;
  }

  Loss loss_;
  Random random_;
  size_t chosen_change_ = 0;
  uint64_t chosen_sector_ = 0;
  bool is_chosen_ = false;
  bool whole_kept_ = false;
};

// Changes the file as the running system sees it.
void apply_to_live(std::vector<std::byte>& live, const Change& change) {
  if (change.kind == ChangeKind::truncate) return live.resize(change.offset);
  const uint64_t end = change.offset + change.length;
  if (live.size() < end) live.resize(end);
  const auto target = std::span(live).subspan(change.offset, change.length);
  if (change.kind == ChangeKind::write) {
    std::ranges::copy(change.bytes, target.begin());
  } else if (change.kind == ChangeKind::zero || change.reads_zeros) {
    std::ranges::fill(target, std::byte{0});
  }
}

// [offset, end) of a change survives. What earlier changes did to its sectors survives with it: a system writes sectors
// back, whole, as they are by then.
void keep_piece(std::vector<std::byte>& file, std::span<const std::byte> live, ChangeKind kind, uint64_t offset,
                uint64_t end) {
  if (kind == ChangeKind::discard) {
    end = std::min<uint64_t>(end, file.size());
    if (offset < end) std::ranges::fill(std::span(file).subspan(offset, end - offset), std::byte{0});
    return;
  }
  offset = round_down(offset, sector_size);
  end = std::min<uint64_t>(round_up(end, sector_size), live.size());
  if (file.size() < end) file.resize(end);
  std::ranges::copy(live.subspan(offset, end - offset), file.begin() + static_cast<std::ptrdiff_t>(offset));
}

void apply(std::vector<std::byte>& file, std::span<const std::byte> live, const Change& change, uint64_t granularity,
           bool size_kept, Fate& fate) {
  if (change.kind == ChangeKind::truncate) {
    if (fate.keeps(change.offset / sector_size, change.offset + 1)) file.resize(change.offset);
    return;
  }
  const uint64_t end = change.offset + change.length;
  for (uint64_t offset = change.offset; offset < end;) {
    const uint64_t next = std::min(end, round_down(offset, granularity) + granularity);
    if (fate.keeps(offset / sector_size, next)) keep_piece(file, live, change.kind, offset, next);
    offset = next;
  }
  if (size_kept && change.kind != ChangeKind::discard && file.size() < end) file.resize(end);
}

}  // namespace

std::string_view loss_name(Loss loss) {
  static constexpr std::array<std::string_view, loss_count> names{
      "nothing",          "everything", "half the sectors", "few sectors", "most sectors",
      "half the changes", "one change", "all but one",      "one sector",  "all but one sector"};
  return names[static_cast<size_t>(loss)];
}

std::vector<std::byte> crash_image(const std::vector<std::byte>& stable, std::span<const Change> pending, Loss loss,
                                   Random random) {
  const bool size_kept = random.chance(25);
  const uint64_t hole_granularity = random.chance(50) ? sector_size : 4096;
  std::vector<std::byte> file = stable;
  std::vector<std::byte> live = stable;
  Fate fate(loss, pending, random.fork());
  for (size_t i = 0; i < pending.size(); ++i) {
    fate.next_change(i);
    apply_to_live(live, pending[i]);
    apply(file, live, pending[i], pending[i].kind == ChangeKind::write ? sector_size : hole_granularity, size_kept,
          fate);
  }
  return file;
}

}  // namespace drydock::crash
