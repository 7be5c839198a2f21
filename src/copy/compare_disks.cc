// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/compare_disks.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "src/copy/pair_feed.h"
#include "src/copy/parallel.h"
#include "src/copy/zeros.h"
#include "src/units.h"

namespace drydock {

namespace {

// Where the first sector that is not all `same` begins; nothing where all are.
template <class Same>
std::optional<uint64_t> first_other_sector(size_t size, Same same) {
  if (same(0, size)) return std::nullopt;
  size_t at = 0;
  while (same(at, std::min(sector_size, size - at))) at += sector_size;
  return at;
}

class Comparison {
 public:
  Comparison(const Disk& first, const Disk& second, const CompareOptions& options)
      : first_(first),
        second_(second),
        options_(options),
        feed_(first, second, options.states_too ? PairDetail::place : PairDetail::state) {}

  std::optional<Difference> run() {
    const unsigned threads = options_.threads == 0 ? default_threads() : options_.threads;
    run_in_parallel(threads, [this](const std::atomic<bool>& stop) { work(stop); });
    return found_;
  }

 private:
  struct Buffers {
    std::vector<std::byte> first = std::vector<std::byte>(PairFeed::chunk);
    std::vector<std::byte> second = std::vector<std::byte>(PairFeed::chunk);
  };

  void work(const std::atomic<bool>& stop) {
    Buffers buffers;
    while (!stop) {
      const std::optional<PairWork> piece = next();
      if (!piece || is_behind_difference(piece->range.start)) return;
      compare(*piece, buffers);
      options_.advance(piece->range.length);
    }
  }

  std::optional<PairWork> next() try { return feed_.next(); } catch (const Error& error) {
    throw CompareFailure(error.within("Sector allocation test failed"), false);
  }

  bool is_behind_difference(GuestOffset offset) {
    const std::lock_guard lock(mutex_);
    return found_ && found_->offset < offset;
  }

  void found(GuestOffset offset, DifferenceKind kind) {
    const std::lock_guard lock(mutex_);
    if (!found_ || offset < found_->offset) found_ = Difference{offset, kind};
  }

  void compare(const PairWork& piece, Buffers& buffers) {
    const Extent& first = piece.first;
    const Extent& second = piece.second;
    if (options_.states_too && !same_state(first, second)) return found(piece.range.start, DifferenceKind::state);
    if (first.zero && second.zero) return;
    if (options_.may_share_files && !first.zero && !second.zero) return compare_unshared(piece.range, buffers);
    compare_bytes(piece.range, first.zero, second.zero, buffers);
  }

  // In all that QEMU's block status tells, where they lie and whether they reach to the end of their disk among it.
  bool same_state(const Extent& first, const Extent& second) const {
    const bool first_ends = first.range.end().value() == first_.size();
    const bool second_ends = second.range.end().value() == second_.size();
    return first.present == second.present && first.zero == second.zero && first.data == second.data &&
           (first.file == nullptr) == (second.file == nullptr) && first_ends == second_ends;
  }

  void compare_unshared(GuestRange range, Buffers& buffers) {
    while (range.length > 0) {
      const Extent first = first_.map(range, 1).front();
      const Extent second = second_.map(range, 1).front();
      const GuestRange part{range.start, std::min(first.range.length, second.range.length)};
      if (!is_same_place(first, second)) compare_bytes(part, false, false, buffers);
      range = {range.start + part.length, range.length - part.length};
    }
  }

  bool is_same_place(const Extent& a, const Extent& b) {
    if (a.file == nullptr || b.file == nullptr || a.offset != b.offset) return false;
    return a.file == b.file || (!identity(*a.file).empty() && identity(*a.file) == identity(*b.file));
  }

  std::string identity(const Storage& file) {
    const std::lock_guard lock(mutex_);
    const auto known = identities_.find(&file);
    if (known != identities_.end()) return known->second;
    return identities_[&file] = file.identity();
  }

  void compare_bytes(GuestRange range, bool first_is_zero, bool second_is_zero, Buffers& buffers) {
    std::optional<uint64_t> other;
    if (first_is_zero || second_is_zero) {
      const auto bytes = first_is_zero ? read(second_, options_.second_name, range, buffers.second)
                                       : read(first_, options_.first_name, range, buffers.first);
      other = first_other_sector(bytes.size(),
                                 [&](size_t at, size_t length) { return is_zero(bytes.subspan(at, length)); });
    } else {
      const auto a = read(first_, options_.first_name, range, buffers.first);
      const auto b = read(second_, options_.second_name, range, buffers.second);
      other = first_other_sector(a.size(),
                                 [&](size_t at, size_t length) { return std::memcmp(&a[at], &b[at], length) == 0; });
    }
    if (other) found(range.start + *other, DifferenceKind::content);
  }

  static std::span<const std::byte> read(const Disk& disk, const std::string& name, GuestRange range,
                                         std::vector<std::byte>& buffer) try {
    const std::span<std::byte> bytes = std::span(buffer).first(range.length);
    disk.read(range.start, bytes);
    return bytes;
  } catch (const Error& error) {
    throw CompareFailure(
        error.within(fmt::format("Error while reading offset {} of {}", range.start.value(), printable(name))), true);
  }

  const Disk& first_;
  const Disk& second_;
  const CompareOptions& options_;
  PairFeed feed_;
  std::mutex mutex_;  // guards what follows
  std::optional<Difference> found_;
  std::map<const Storage*, std::string> identities_;
};

}  // namespace

std::optional<Difference> compare_disks(const Disk& first, const Disk& second, const CompareOptions& options) {
  return Comparison(first, second, options).run();
}

}  // namespace drydock
