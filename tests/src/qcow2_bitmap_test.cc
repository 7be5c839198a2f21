// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "src/byteorder.h"
#include "src/qcow2/bitmap_store.h"
#include "src/qcow2/bitmaps_extension.h"
#include "src/qcow2/create.h"
#include "src/qcow2/header_fields.h"
#include "tests/support/crash_storage.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::CrashStorage;
using test::error_of;
using testing::HasSubstr;

// Clusters behind the image's end, one behind the other; what is freed is not used again, so that a wrong reference is
// seen.
class FakeAllocator final : public ClusterAllocator {
 public:
  FakeAllocator(uint64_t first, uint64_t cluster_size) : next_(first), cluster_size_(cluster_size) {}

  HostOffset allocate(uint64_t bytes) override {
    if (fail_) throw Error(ErrorKind::no_space, "no space left");
    const HostOffset offset(next_);
    for (const uint64_t end = next_ + bytes; next_ < end; next_ += cluster_size_) allocated_.insert(next_);
    return offset;
  }
  void free(HostOffset offset, uint64_t bytes) override {
    for (uint64_t cluster = offset.value(); cluster < offset.value() + bytes; cluster += cluster_size_) {
      if (!allocated_.contains(cluster) || !freed_.insert(cluster).second) {
        ADD_FAILURE() << "freed without having been allocated: " << cluster;
      }
    }
  }
  void commit() override {
    for (const uint64_t cluster : freed_) allocated_.erase(cluster);
    freed_.clear();
    counted_ = allocated_;
  }

  void fail(bool fail) { fail_ = fail; }
  // Whether the file's reference counts cover the cluster.
  bool counted(HostOffset offset) const { return counted_.contains(offset.value()); }
  size_t in_use() const { return allocated_.size() - freed_.size(); }

 private:
  uint64_t next_;
  uint64_t cluster_size_;
  std::set<uint64_t> allocated_;
  std::set<uint64_t> counted_;
  std::set<uint64_t> freed_;
  bool fail_ = false;
};

// What a file says of its bitmaps: each one's flags, and its contents where they may be trusted.
struct Told {
  std::string name;
  bool in_use = false;
  bool automatic = false;
  uint64_t dirty = 0;  // bits

  bool operator==(const Told&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Told& told) {
  return out << told.name << (told.in_use ? " in-use" : "") << (told.automatic ? " auto" : "") << " " << told.dirty;
}

class Bitmaps : public testing::TestWithParam<uint64_t> {
 protected:
  Bitmaps() : Bitmaps({.size = 128 * test::mib}) {}
  explicit Bitmaps(CreateOptions options) {
    options.cluster_size = GetParam();
    MemoryStorage empty({});
    create(empty, options);
    HeaderFields(empty).set_size(64 * test::mib).store();  // with an L1 table that has room to grow
    std::vector<std::byte> bytes(empty.size());
    empty.read(HostOffset(0), bytes);
    storage_ = std::make_unique<CrashStorage>(bytes);
    allocator_ = std::make_unique<FakeAllocator>(round_up(bytes.size(), GetParam()), GetParam());
    owner_ = std::make_unique<HeaderOwner>(*storage_);
    open();
  }

  // The store of a program that opens the image now; the one before is gone without a close().
  void open() {
    store_ =
        std::make_unique<BitmapStore>(*storage_, *allocator_, *owner_, read_header(*storage_), 64 * test::mib, nullptr);
  }
  void record(GuestRange range) {
    store_->make_ready();
    EXPECT_TRUE(store_->record(range));
  }
  void reopen() {
    store_->close();
    open();
  }

  static std::vector<Told> told_by(const Storage& storage) {
    std::vector<Told> all;
    const Header header = read_header(storage);
    for (const BitmapInfo& info : read_bitmap_directory(storage, header)) {
      const uint64_t dirty = info.in_use ? 0 : read_bitmap(storage, header, info.name)->count();
      all.push_back({info.name, info.in_use, info.automatic, dirty});
    }
    return all;
  }
  std::vector<Told> told() const { return told_by(*storage_); }

  // Everything that the bitmaps of `disk` refer to is counted.
  void expect_counted(const MemoryStorage& disk) const {
    const Header header = read_header(disk);
    if (!header.bitmaps) return;
    EXPECT_TRUE(allocator_->counted(header.bitmaps->directory_offset));
    for (const BitmapEntry& entry : read_bitmap_entries(disk, header.bitmaps)) {
      for (const HostRun& run : clusters_of_bitmap(disk, entry, header.cluster_size())) {
        EXPECT_TRUE(allocator_->counted(run.offset)) << entry.name;
      }
    }
  }

  // Runs `operation` with a crash behind each of its writes; the file must then say `before` or `after`, or that it
  // cannot be trusted.
  void expect_atomic(const std::function<void()>& operation, const std::vector<Told>& after) {
    const std::vector<Told> before = told();
    size_t crashes = 0;
    storage_->on_crash([&](const std::vector<std::byte>& bytes) {
      ++crashes;
      const MemoryStorage disk(bytes);
      const std::vector<Told> left = told_by(disk);
      EXPECT_TRUE(left == before || left == after || left.empty())
          << testing::PrintToString(left) << " is neither " << testing::PrintToString(before) << " nor "
          << testing::PrintToString(after);
      expect_counted(disk);
    });
    operation();
    storage_->on_crash(nullptr);
    EXPECT_GT(crashes, 1U);
    EXPECT_EQ(told(), after);
  }

  std::unique_ptr<CrashStorage> storage_;
  std::unique_ptr<FakeAllocator> allocator_;
  std::unique_ptr<HeaderOwner> owner_;
  std::unique_ptr<BitmapStore> store_;
};

INSTANTIATE_TEST_SUITE_P(of_all_cluster_sizes, Bitmaps, testing::Values(512, 4096, 65536));

TEST_P(Bitmaps, are_added_and_listed_and_removed) {
  store_->add("first", 65536, true);
  store_->add("second", 512, false);
  EXPECT_EQ(told(), (std::vector<Told>{{"first", false, true, 0}, {"second", false, false, 0}}));
  reopen();
  EXPECT_EQ(store_->list()[1].granularity, 512U);
  store_->remove("first");
  EXPECT_EQ(told(), (std::vector<Told>{{"second", false, false, 0}}));
  store_->remove("second");
  EXPECT_EQ(read_header(*storage_).bitmaps.has_value(), false);
  EXPECT_EQ(HeaderFields(*storage_).autoclear_features(), 0U);
  allocator_->commit();
  EXPECT_EQ(allocator_->in_use(), 0U);
}

TEST_P(Bitmaps, enabled_ones_record_what_is_written_and_disabled_ones_do_not) {
  store_->add("on", 65536, true);
  store_->add("fine", 512, true);
  store_->add("off", 65536, false);
  record({GuestOffset(65535), 2});
  record({GuestOffset(10 * test::mib), 3 * test::mib});
  reopen();
  EXPECT_EQ(told(), (std::vector<Told>{{"on", false, true, 2 + 48},
                                       {"fine", false, true, 2 + 3 * test::mib / 512},
                                       {"off", false, false, 0}}));
  record({GuestOffset(64 * test::mib - 1), 1});
  reopen();
  const auto bits = store_->bits("on");
  EXPECT_TRUE(bits->test(0));
  EXPECT_TRUE(bits->test(1));
  EXPECT_FALSE(bits->test(2));
  EXPECT_TRUE(bits->test(1023));
  EXPECT_EQ(bits->count(), 51U);
}

TEST_P(Bitmaps, a_recording_bitmap_is_in_use_from_before_the_first_write_until_it_is_saved) {
  store_->add("on", 65536, true);
  store_->add("off", 65536, false);
  reopen();
  const size_t before = storage_->operations();
  record({GuestOffset(0), 512});
  EXPECT_EQ(storage_->operations(), before + 2);  // the flag, and a flush
  EXPECT_EQ(told(), (std::vector<Told>{{"on", true, true, 0}, {"off", false, false, 0}}));
  record({GuestOffset(5 * test::mib), 512});
  EXPECT_EQ(storage_->operations(), before + 2);
  store_->close();
  EXPECT_EQ(told(), (std::vector<Told>{{"on", false, true, 2}, {"off", false, false, 0}}));
}

TEST_P(Bitmaps, one_that_was_not_saved_is_never_used_again_and_can_be_removed) {
  store_->add("lost", 65536, true);
  store_->add("kept", 65536, false);
  record({GuestOffset(0), 512});
  open();  // as after a crash
  EXPECT_TRUE(store_->list()[0].in_use);
  record({GuestOffset(test::mib), 512});
  reopen();
  EXPECT_EQ(told(), (std::vector<Told>{{"lost", true, true, 0}, {"kept", false, false, 0}}));
  for (const auto& use :
       std::vector<std::function<void()>>{[&] { store_->clear("lost"); }, [&] { store_->enable("lost"); },
                                          [&] { store_->disable("lost"); }, [&] { store_->bits("lost"); }}) {
    const Error error = error_of(use);
    EXPECT_EQ(error.kind(), ErrorKind::invalid);
    EXPECT_THAT(error.what(), HasSubstr("Bitmap 'lost' is inconsistent"));
  }
  store_->remove("lost");
  EXPECT_EQ(told(), (std::vector<Told>{{"kept", false, false, 0}}));
}

TEST_P(Bitmaps, are_cleared_enabled_disabled_and_merged) {
  store_->add("coarse", 65536, true);
  store_->add("fine", 4096, true);
  record({GuestOffset(test::mib), 4096});
  store_->disable("coarse");
  EXPECT_EQ(told(), (std::vector<Told>{{"coarse", false, false, 1}, {"fine", true, true, 0}}));
  record({GuestOffset(2 * test::mib), 4096});
  store_->merge("coarse", *store_->bits("fine"));
  EXPECT_EQ(store_->bits("coarse")->count(), 2U);
  store_->clear("fine");
  store_->merge("fine", *store_->bits("coarse"));
  EXPECT_EQ(store_->bits("fine")->count(), 2U * 16);
  store_->enable("coarse");
  record({GuestOffset(3 * test::mib), 1});
  reopen();
  EXPECT_EQ(told(), (std::vector<Told>{{"coarse", false, true, 3}, {"fine", false, true, 33}}));
  store_->clear("coarse");
  EXPECT_EQ(told(), (std::vector<Told>{{"coarse", false, true, 0}, {"fine", false, true, 33}}));
}

TEST_P(Bitmaps, what_is_replaced_is_given_back) {
  store_->add("one", 512, true);
  record({GuestOffset(0), 64 * test::mib});
  reopen();
  allocator_->commit();
  const size_t after_once = allocator_->in_use();
  for (uint64_t i = 0; i < 5; ++i) {
    record({GuestOffset(512 * i), 512});
    reopen();
  }
  allocator_->commit();
  EXPECT_EQ(allocator_->in_use(), after_once);
}

TEST_P(Bitmaps, follow_the_disk_to_another_size) {
  store_->add("on", 65536, true);
  store_->add("off", 512, false);
  record({GuestOffset(0), 64 * test::mib});
  store_->merge("off", *store_->bits("on"));
  store_->prepare_resize(100 * test::mib);
  EXPECT_EQ(told(), (std::vector<Told>{{"on", true, true, 0}, {"off", true, false, 0}}));
  HeaderFields(*storage_).set_size(100 * test::mib).store();
  store_->finish_resize(100 * test::mib);
  record({GuestOffset(99 * test::mib), test::mib});
  store_->close();
  EXPECT_EQ(told(), (std::vector<Told>{{"on", false, true, 1024 + 16}, {"off", false, false, 64 * test::mib / 512}}));

  store_ =
      std::make_unique<BitmapStore>(*storage_, *allocator_, *owner_, read_header(*storage_), 100 * test::mib, nullptr);
  store_->prepare_resize(test::mib + 512);
  HeaderFields(*storage_).set_size(test::mib + 512).store();
  store_->finish_resize(test::mib + 512);
  EXPECT_EQ(told(), (std::vector<Told>{{"on", false, true, 17}, {"off", false, false, 2049}}));
  EXPECT_THAT(error_of([&] { store_->prepare_resize(0); }).what(), HasSubstr("cannot have bitmaps"));
}

TEST_P(Bitmaps, a_resize_that_failed_leaves_them_as_they_were) {
  store_->add("off", 65536, false);
  store_->add("on", 65536, true);
  record({GuestOffset(0), 1});
  reopen();
  const std::vector<Told> before = told();
  store_->prepare_resize(100 * test::mib);
  store_->finish_resize(64 * test::mib);
  EXPECT_EQ(told(), before);
}

TEST_P(Bitmaps, safety_3_a_crash_within_an_operation_leaves_the_old_state_or_the_new_one) {
  const std::string long_name(1000, 'x');  // entries over several sectors
  expect_atomic([&] { store_->add("a", 65536, true); }, {{"a", false, true, 0}});
  expect_atomic([&] { store_->add(long_name, 512, false); }, {{"a", false, true, 0}, {long_name, false, false, 0}});
  expect_atomic([&] { record({GuestOffset(0), test::mib}); }, {{"a", true, true, 0}, {long_name, false, false, 0}});
  expect_atomic([&] { store_->close(); }, {{"a", false, true, 16}, {long_name, false, false, 0}});
  open();
  expect_atomic([&] { store_->merge(long_name, *store_->bits("a")); },
                {{"a", false, true, 16}, {long_name, false, false, 2048}});
  expect_atomic([&] { store_->clear("a"); }, {{"a", false, true, 0}, {long_name, false, false, 2048}});
  expect_atomic([&] { store_->disable("a"); }, {{"a", false, false, 0}, {long_name, false, false, 2048}});
  expect_atomic([&] { store_->remove("a"); }, {{long_name, false, false, 2048}});
  expect_atomic([&] { store_->remove(long_name); }, {});
  expect_atomic([&] { store_->add("b", 65536, false); }, {{"b", false, false, 0}});
}

// Every write of every operation fails in turn: nothing has happened then, or all of it, and the next try
// succeeds.
TEST_P(Bitmaps, safety_5_a_failed_operation_can_be_tried_again) {
  store_->add("a", 65536, true);
  store_->add("b", 65536, true);
  record({GuestOffset(0), test::mib});
  reopen();
  const std::vector<std::pair<std::function<void()>, std::vector<Told>>> operations{
      {[&] { store_->add("c", 512, false); }, {{"a", false, true, 16}, {"b", false, true, 16}, {"c", false, false, 0}}},
      {[&] { store_->remove("b"); }, {{"a", false, true, 16}, {"c", false, false, 0}}},
      {[&] { store_->merge("c", *store_->bits("a")); }, {{"a", false, true, 16}, {"c", false, false, 2048}}},
      {[&] { store_->clear("a"); }, {{"a", false, true, 0}, {"c", false, false, 2048}}},
      {[&] { store_->disable("a"); }, {{"a", false, false, 0}, {"c", false, false, 2048}}},
      {[&] { store_->enable("c"); }, {{"a", false, false, 0}, {"c", false, true, 2048}}},
      {[&] {
         record({GuestOffset(32 * test::mib), 512});
       },
       {{"a", false, false, 0}, {"c", true, true, 0}}},
      {[&] { store_->close(); }, {{"a", false, false, 0}, {"c", false, true, 2049}}},
  };
  storage_->let_flushes_fail(false);
  for (const auto& [operation, after] : operations) {
    const std::vector<BitmapInfo> before = store_->list();
    for (size_t failing = 1;; ++failing) {
      storage_->fail_after(failing);
      try {
        operation();
        storage_->fail_after(0);
        break;
      } catch (const Error& error) {
        EXPECT_EQ(error.errno_value(), EIO);
        EXPECT_EQ(store_->list().size(), before.size());
      }
      storage_->fail_after(0);
    }
    EXPECT_EQ(told(), after);
  }
  open();
  store_->remove("a");
  store_->remove("c");
  allocator_->commit();
  EXPECT_EQ(allocator_->in_use(), 0U);
}

// What the file then says is what was there before, or after, or that it cannot be trusted: expect_atomic() has shown
// it.
TEST_P(Bitmaps, safety_7a_behind_a_flush_that_failed_nothing_can_be_done_until_the_image_is_opened_anew) {
  store_->add("a", 65536, false);
  storage_->fail_after(1);
  EXPECT_EQ(error_of([&] { storage_->flush(); }).errno_value(), EIO);
  storage_->fail_after(0);
  for (const auto& operation : std::vector<std::function<void()>>{
           [&] { store_->add("b", 65536, true); }, [&] { store_->enable("a"); }, [&] { store_->remove("a"); }}) {
    EXPECT_THAT(error_of(operation).what(), HasSubstr("no flush succeeds until the image is opened anew"));
  }
  EXPECT_EQ(told(), (std::vector<Told>{{"a", false, false, 0}}));
}

// Between a switch that failed half-way and the next write, the file may hold a bitmap that must record and that
// memory does not have.
TEST_P(Bitmaps, safety_5_after_a_failed_switch_no_write_goes_unrecorded) {
  store_->add("a", 65536, false);
  storage_->let_flushes_fail(false);
  for (size_t failing = 1;; ++failing) {
    open();
    storage_->fail_after(failing);
    bool failed = false;
    try {
      store_->enable("a");
    } catch (const Error&) {
      failed = true;
    }
    storage_->fail_after(0);
    record({GuestOffset(0), 512});
    for (const Told& bitmap : told()) EXPECT_TRUE(bitmap.in_use || !bitmap.automatic) << failing;
    store_->close();
    EXPECT_EQ(told(), (std::vector<Told>{{"a", false, !failed, failed ? 0U : 1U}}));
    if (!failed) break;
  }
}

TEST_P(Bitmaps, without_space_nothing_changes) {
  store_->add("a", 65536, true);
  record({GuestOffset(0), 512});
  allocator_->fail(true);
  EXPECT_EQ(error_of([&] { store_->add("b", 65536, true); }).kind(), ErrorKind::no_space);
  EXPECT_EQ(error_of([&] { store_->close(); }).kind(), ErrorKind::no_space);
  EXPECT_EQ(told(), (std::vector<Told>{{"a", true, true, 0}}));
  allocator_->fail(false);
  record({GuestOffset(test::mib), 512});
  store_->close();
  EXPECT_EQ(told(), (std::vector<Told>{{"a", false, true, 2}}));
}

TEST_P(Bitmaps, impossible_ones_are_refused) {
  const auto expect_refused = [&](std::string_view name, uint64_t granularity, std::string_view message) {
    const Error error = error_of([&] { store_->add(name, granularity, true); });
    EXPECT_EQ(error.kind(), ErrorKind::invalid);
    EXPECT_THAT(error.what(), HasSubstr(message));
  };
  store_->add("there", 65536, true);
  expect_refused("there", 65536, "Bitmap already exists: there");
  expect_refused("", 65536, "Bitmap name cannot be empty");
  expect_refused(std::string(1024, 'x'), 65536, "Bitmap name is too long: 1024 bytes; at most 1023");
  expect_refused("b", 256, "Granularity must be power of 2 and at least 512");
  expect_refused("b", uint64_t{1} << 32, "Granularity exceeds maximum (2147483648 bytes)");
  expect_refused("b", 1000, "Granularity must be power of 2 and at least 512");
  EXPECT_EQ(error_of([&] { store_->remove("b"); }).kind(), ErrorKind::not_found);
  EXPECT_THAT(error_of([&] { store_->clear("b"); }).what(), HasSubstr("Dirty bitmap 'b' not found"));
  EXPECT_THAT(error_of([&] { store_->merge("there", DirtyBitmap(test::mib, 16)); }).what(),
              HasSubstr("Bitmaps are of different sizes"));
}

// A bitmap that must record but is of a kind not known here cannot be kept true: it is put in use, and stays so.
TEST_P(Bitmaps, one_that_cannot_be_kept_true_is_put_in_use) {
  for (const uint64_t field : {16U, 17U}) {  // type, granularity
    store_->add("odd", 65536, true);
    const HostOffset directory = store_->extension()->directory_offset;
    storage_->write(directory + field, std::vector<std::byte>{std::byte{60}});
    open();
    EXPECT_FALSE(store_->list()[0].in_use);
    EXPECT_EQ(error_of([&] { store_->clear("odd"); }).kind(), ErrorKind::invalid);
    record({GuestOffset(0), 512});
    reopen();
    EXPECT_TRUE(store_->list()[0].in_use);
    store_->remove("odd");
  }
}

TEST_P(Bitmaps, one_with_a_damaged_table_is_put_in_use) {
  store_->add("odd", 65536, true);
  const auto entries = read_bitmap_entries(*storage_, store_->extension());
  std::vector<std::byte> word(8);
  store_be<uint64_t>(word, 0, 0x10);  // a reserved bit
  storage_->write(entries[0].table_offset, word);
  open();
  record({GuestOffset(0), 512});
  reopen();
  EXPECT_EQ(told(), (std::vector<Told>{{"odd", true, true, 0}}));
}

TEST_P(Bitmaps, extra_data_that_may_be_ignored_is_kept) {
  BitmapEntry entry{.name = "extra",
                    .table_offset = HostOffset(GetParam()),
                    .table_entries = 1,
                    .flags = bitmap_flag::extra_data_compatible,
                    .granularity_bits = 31,
                    .extra_data = std::vector<std::byte>(5, std::byte{7})};
  EXPECT_EQ(reason_against(entry, {GetParam(), 64 * test::mib}), std::nullopt);
  entry.flags = 0;
  EXPECT_THAT(*reason_against(entry, {GetParam(), 64 * test::mib}), HasSubstr("extra data"));
  const auto bytes = encode_bitmap_directory({entry, entry});
  const MemoryStorage storage(bytes);
  const auto decoded = read_bitmap_entries(storage, BitmapsExtension{.count = 2, .directory_size = bytes.size()});
  ASSERT_EQ(decoded.size(), 2U);
  EXPECT_EQ(decoded[1].extra_data, entry.extra_data);
  EXPECT_EQ(decoded[1].name, "extra");
}

TEST_P(Bitmaps, those_of_another_program_that_did_not_keep_them_are_gone) {
  store_->add("old", 65536, true);
  HeaderFields(*storage_).set_autoclear_features(0).store();
  storage_->flush();
  open();
  EXPECT_TRUE(store_->list().empty());
  record({GuestOffset(0), 512});
  expect_atomic([&] { store_->add("new", 65536, false); }, {{"new", false, false, 0}});
}

// With a backing file whose name stands right behind the extensions.
class BitmapsOverBacking : public Bitmaps {
 protected:
  BitmapsOverBacking()
      : Bitmaps({.size = 128 * test::mib, .backing_file = "the-base.qcow2", .backing_format = "qcow2"}) {}
};

INSTANTIATE_TEST_SUITE_P(of_all_cluster_sizes, BitmapsOverBacking, testing::Values(512, 65536));

TEST_P(BitmapsOverBacking, safety_3_the_name_makes_way_without_ever_being_lost) {
  storage_->on_crash([](const std::vector<std::byte>& bytes) {
    EXPECT_EQ(read_header(MemoryStorage(bytes)).backing_file, "the-base.qcow2");
  });
  store_->add("a", 65536, true);
  EXPECT_EQ(told(), (std::vector<Told>{{"a", false, true, 0}}));
  EXPECT_EQ(read_header(*storage_).backing_format, "qcow2");
}

}  // namespace
}  // namespace drydock::qcow2
