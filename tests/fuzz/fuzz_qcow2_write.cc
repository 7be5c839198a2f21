// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: a qcow2 image, as it would lie in a file, whose last bytes also choose what is done to it (Choices). It is
// opened for writing in memory, and written, zeroed, discarded, resized, closed and opened again, its snapshots and
// bitmaps made and removed. Whatever the image is, nothing but Error is thrown; and if the check calls it free of
// errors before, then what is written reads back, and the check still finds at worst leaks behind it.

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "src/error.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/check.h"
#include "src/qcow2/header.h"
#include "src/qcow2/repair.h"
#include "tests/fuzz/fuzz.h"

namespace drydock {
namespace {

// Bytes.
constexpr uint64_t largest_image = 2 << 20;  // of a file system that is soon full
constexpr uint64_t largest_data = 1 << 20;
constexpr uint64_t window = 64 << 10;  // what is known about the disk's start
constexpr uint64_t longest_write = 40 << 10;
constexpr uint64_t largest_compressed = 64 << 10;
constexpr size_t operations = 24;
constexpr uint64_t sector_size = 512;

// A file of at most `limit` bytes in memory.
class SmallStorage final : public Storage {
 public:
  SmallStorage(std::vector<std::byte> bytes, std::string name, uint64_t limit)
      : memory_(std::move(bytes), std::move(name), true), limit_(std::max(limit, memory_.size())) {}

  const std::string& name() const override { return memory_.name(); }
  bool writable() const override { return true; }
  uint64_t size() const override { return memory_.size(); }
  uint64_t allocated_size() const override { return memory_.size(); }
  size_t read(HostOffset offset, std::span<std::byte> buffer) const override { return memory_.read(offset, buffer); }
  void write(HostOffset offset, std::span<const std::byte> data) override {
    check_room(offset.value(), data.size());
    memory_.write(offset, data);
  }
  void zero(HostOffset offset, uint64_t length, bool keep_space) override {
    check_room(offset.value(), length);
    memory_.zero(offset, length, keep_space);
  }
  // A hole: what is there is gone.
  void discard(HostOffset offset, uint64_t length) override {
    if (offset.value() >= size()) return;
    memory_.zero(offset, std::min(length, size() - offset.value()), false);
  }
  void truncate(uint64_t size) override {
    check_room(size, 0);
    memory_.truncate(size);
  }
  void flush_now() override {}
  StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, false}; }

 private:
  void check_room(uint64_t offset, uint64_t bytes) const {
    if (offset <= limit_ && bytes <= limit_ - offset) return;
    throw Error(ErrorKind::no_space, fmt::format("{}: no space for {} bytes at {}", name(), bytes, offset));
  }

  MemoryStorage memory_;
  uint64_t limit_;
};

// "base" is there to be read, "data" to be written, an image may name itself as "self"; everything else is refused.
class WritableGate final : public OpenGate {
 public:
  explicit WritableGate(std::vector<std::byte> self) : self_(std::move(self)) {}

  std::shared_ptr<Storage> open(const FileReference& reference, bool) const override {
    constexpr size_t base_size = 20000;  // no multiple of anything
    if (reference.name == "self") return std::make_shared<MemoryStorage>(self_, "self", false);
    if (reference.name == "data") return data_;
    if (reference.name != "base") throw Error(ErrorKind::refused, "refused");
    return std::make_shared<MemoryStorage>(std::vector<std::byte>(base_size, std::byte{0xB5}), "base", false);
  }

 private:
  std::vector<std::byte> self_;
  std::shared_ptr<Storage> data_ =
      std::make_shared<SmallStorage>(std::vector<std::byte>(sector_size), "data", largest_data);
};

// Numbers made of the input's last bytes, each of which the fuzzer can change; different each time even where they are
// all the same.
class Choices {
 public:
  explicit Choices(std::span<const std::byte> input) : tail_(input.last(std::min<size_t>(input.size(), 96))) {}

  uint64_t below(uint64_t limit) {
    const uint64_t given = tail_.empty() ? 0 : static_cast<uint64_t>(tail_[tail_.size() - 1 - taken_ % tail_.size()]);
    uint64_t mixed = (++taken_ + (given << 32)) * 0x9E37'79B9'7F4A'7C15;  // the golden ratio
    mixed = (mixed ^ mixed >> 31) * 0xD6E8'FEB8'6659'FD93;
    return (mixed ^ mixed >> 32) % limit;
  }

 private:
  std::span<const std::byte> tail_;
  uint64_t taken_ = 0;
};

// What the start of the disk must read as, where that is known. In blocks, not byte by byte: libFuzzer counts every
// comparison that is made.
struct Known {
  std::vector<std::byte> values = std::vector<std::byte>(window);
  std::vector<std::byte> known = std::vector<std::byte>(window);  // 1 or 0

  std::span<std::byte> within(std::vector<std::byte>& bytes, GuestRange range) const {
    const uint64_t start = std::min(window, range.start.value());
    return std::span(bytes).subspan(start, std::min(window - start, range.length));
  }
  void forget(GuestRange range) { fill(within(known, range), 0); }
  void set_zero(GuestRange range) {
    fill(within(values, range), 0);
    fill(within(known, range), 1);
  }
  void set(GuestOffset offset, std::span<const std::byte> data) {
    const std::span<std::byte> target = within(values, {offset, data.size()});
    if (target.empty()) return;
    std::memcpy(target.data(), data.data(), target.size());
    fill(within(known, {offset, data.size()}), 1);
  }
  // The first stretch that is known from `start` on; empty for none.
  GuestRange next(uint64_t start) const {
    const auto* from = static_cast<const std::byte*>(std::memchr(known.data() + start, 1, window - start));
    if (from == nullptr) return {GuestOffset(window), 0};
    const auto first = static_cast<uint64_t>(from - known.data());
    const auto* to = static_cast<const std::byte*>(std::memchr(from, 0, window - first));
    return {GuestOffset(first), static_cast<uint64_t>((to == nullptr ? known.data() + window : to) - from)};
  }

 private:
  static void fill(std::span<std::byte> bytes, int value) {
    if (!bytes.empty()) std::memset(bytes.data(), value, bytes.size());
  }
};

std::vector<uint64_t> make_noise() {
  std::vector<uint64_t> noise(longest_write / sizeof(uint64_t));
  uint64_t state = 1;
  for (uint64_t& number : noise) number = state = state * 0x5851'F42D'4C95'7F2D + 0x1405'7B7E'F767'814F;
  return noise;
}

struct AtSnapshot {
  std::string id;
  std::string name;
  Known known;
};

class Session {
 public:
  Session(const std::vector<std::byte>& bytes, bool free_of_errors)
      : storage_(std::make_shared<SmallStorage>(bytes, "fuzz.qcow2", largest_image)),
        free_of_errors_(free_of_errors),
        choices_(bytes) {
    options_.format = Format::qcow2;
    options_.backing_format = Format::raw;
    options_.metadata_cache_size = min_metadata_cache_size;
    options_.discard_keeps_place = choices_.below(4) == 0;
    options_.gate = std::make_shared<WritableGate>(bytes);
  }

  void run() {
    image_ = Image::open(storage_, options_);
    for (size_t i = 0; i < operations && image_; ++i) {
      try {
        operate();
      } catch (const Error& error) {
        fuzz::require(error.errno_value() > 0, "an error without an errno");
        fuzz::require(error.kind() != ErrorKind::out_of_range, "a range of the disk is refused");
      }
    }
    if (!image_) return;
    verify();
    close();
    if (free_of_errors_) check_again();
  }

 private:
  void operate() {
    switch (choices_.below(20)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return write();
      case 5:
        return write_compressed();
      case 6:
      case 7:
        return zero();
      case 8:
      case 9:
        return discard();
      case 10:
        return image_->disk()->flush();
      case 11:
        return create_snapshot();
      case 12:
        return apply_snapshot();
      case 13:
        return delete_snapshot();
      case 14:
        return read_snapshot();
      case 15:
        return resize();
      case 16:
      case 17:
        return change_bitmap();
      case 18:
        return reopen();
      default:
        return verify();
    }
  }

  // Most often where the disk is known, now and then at its end.
  GuestRange any_range() {
    const uint64_t size = image_->disk()->size();
    uint64_t length = 1 + choices_.below(choices_.below(3) == 0 ? longest_write : 5000);
    if (choices_.below(2) == 0) length = round_up(length, sector_size);
    length = std::min(length, size);
    uint64_t start = choices_.below(std::min(size - length, window) + 1);
    if (choices_.below(2) == 0) start = round_down(start, sector_size);
    if (choices_.below(8) == 0) start = size - length;
    return {GuestOffset(start), length};
  }

  // Half of it does not compress.
  std::vector<std::byte> contents(uint64_t length) {
    std::vector<std::byte> data(length, static_cast<std::byte>(++number_));
    if (data.empty()) return data;
    const std::span<const std::byte> noise = std::as_bytes(std::span(noise_));
    std::memcpy(data.data(), noise.data() + number_, std::min(length / 2, noise.size() - number_));
    return data;
  }

  void write() {
    const GuestRange range = any_range();
    const std::vector<std::byte> data = contents(range.length);
    known_.forget(range);
    image_->disk()->write(range.start, data);
    known_.set(range.start, data);
  }

  void write_compressed() {
    const uint64_t cluster_size = qcow2::read_header(*storage_).cluster_size();
    const uint64_t size = image_->disk()->size();
    if (cluster_size > largest_compressed || size < cluster_size) return;
    const GuestRange range{GuestOffset(cluster_size * choices_.below(std::min(size, window) / cluster_size)),
                           cluster_size};
    std::vector<std::byte> data = contents(range.length);
    if (choices_.below(4) > 0) std::memset(data.data(), static_cast<int>(number_), data.size());
    known_.forget(range);
    image_->disk()->write_compressed(range.start, data);
    known_.set(range.start, data);
  }

  void zero() {
    const GuestRange range = any_range();
    const bool keep_space = choices_.below(2) == 0;
    known_.forget(range);
    image_->disk()->zero(range, keep_space);
    known_.set_zero(range);
  }

  void discard() {
    GuestRange range = any_range();
    if (choices_.below(16) == 0) range = whole(*image_->disk());
    known_.forget(range);
    image_->disk()->discard(range);
  }

  void create_snapshot() {
    const std::string name = fmt::format("s{}", ++number_);
    image_->create_snapshot(name);
    const SnapshotInfo& added = image_->snapshots().back();
    at_snapshot_.push_back({added.id, added.name, known_});
  }

  std::optional<size_t> any_snapshot() {
    const size_t count = image_->snapshots().size();
    if (count == 0) return std::nullopt;
    return choices_.below(count);
  }

  void apply_snapshot() {
    const auto index = any_snapshot();
    if (!index) return;
    const SnapshotInfo applied = image_->snapshots()[*index];
    image_->apply_snapshot(*index);
    const auto then = std::ranges::find_if(
        at_snapshot_, [&](const AtSnapshot& at) { return at.id == applied.id && at.name == applied.name; });
    known_ = then == at_snapshot_.end() ? Known() : then->known;
  }

  void delete_snapshot() {
    if (const auto index = any_snapshot()) image_->delete_snapshot(*index);
  }

  void read_snapshot() {
    if (const auto index = any_snapshot()) fuzz::explore(*image_->snapshot_disk(*index));
  }

  void resize() {
    const uint64_t old_size = image_->disk()->size();
    uint64_t size = sector_size * choices_.below(2 * window / sector_size);
    if (choices_.below(3) == 0) size = round_up(old_size + size, sector_size);
    image_->resize(size, choices_.below(4) == 0 ? Preallocation::metadata : Preallocation::off);
    const uint64_t least = std::min(size, old_size);
    known_.forget({GuestOffset(least), window});
    if (size > old_size) known_.set_zero({GuestOffset(old_size), size - old_size});
  }

  void change_bitmap() {
    const std::vector<BitmapInfo> bitmaps = image_->bitmaps();
    const uint64_t choice = choices_.below(6);
    if (choice == 0 || bitmaps.empty()) {
      return image_->add_bitmap(fmt::format("b{}", ++number_), sector_size << choices_.below(10),
                                choices_.below(3) > 0);
    }
    const std::string& name = bitmaps[choices_.below(bitmaps.size())].name;
    if (choice == 1) return image_->remove_bitmap(name);
    if (choice == 2) return image_->clear_bitmap(name);
    if (choice == 3) return image_->enable_bitmap(name);
    if (choice == 4) return image_->disable_bitmap(name);
    image_->merge_bitmap(name, *image_, bitmaps[choices_.below(bitmaps.size())].name);
  }

  // A failure may leave the image open; what was not in the file is then lost with it.
  void close() {
    try {
      image_->close();
    } catch (const Error&) {
      known_ = Known();
    }
    image_.reset();
  }

  void reopen() {
    close();
    if (free_of_errors_) check_again();
    try {
      image_ = Image::open(storage_, options_);
    } catch (const Error& error) {
      fuzz::require(!free_of_errors_ || error.kind() == ErrorKind::no_space, "what was closed does not open");
    }
  }

  void verify() {
    if (!free_of_errors_) return fuzz::explore(*image_->disk());
    for (GuestRange run = known_.next(0); run.length > 0; run = known_.next(run.end().value())) {
      std::vector<std::byte> found(run.length);
      try {
        image_->disk()->read(run.start, found);
      } catch (const Error&) {
        fuzz::require(false, "what was written cannot be read");
      }
      fuzz::require(std::memcmp(found.data(), known_.values.data() + run.start.value(), run.length) == 0,
                    "what was written does not read back");
      if (run.end().value() == window) break;
    }
  }

  void check_again() {
    if (qcow2::read_header(*storage_).is(qcow2::incompatible::dirty)) {  // closing it has failed
      try {
        qcow2::recover_refcounts(*storage_);
      } catch (const Error&) {  // no space for that either
        return;
      }
    }
    const qcow2::CheckResult result = qcow2::check(*storage_);
    if (!result.findings.empty() && result.corruptions + result.check_errors > 0) {
      for (const qcow2::Finding& finding : result.findings) fmt::print(stderr, "{}\n", finding.message);
    }
    fuzz::require(!result.failure && result.corruptions == 0 && result.check_errors == 0, "the image is damaged");
  }

  std::shared_ptr<Storage> storage_;
  bool free_of_errors_;
  Choices choices_;
  OpenOptions options_;
  std::shared_ptr<Image> image_;
  Known known_;
  std::vector<AtSnapshot> at_snapshot_;  // of those made here
  uint64_t number_ = 0;
  std::vector<uint64_t> noise_ = make_noise();
};

bool free_of_errors(const std::vector<std::byte>& bytes) {
  try {
    const qcow2::CheckResult result = qcow2::check(MemoryStorage(bytes, "fuzz.qcow2", false));
    return !result.failure && result.corruptions == 0 && result.check_errors == 0;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace
}  // namespace drydock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  drydock::fuzz::try_input(data, size, [](const std::vector<std::byte>& bytes) {
    drydock::Session(bytes, drydock::free_of_errors(bytes)).run();
  });
  return 0;
}
