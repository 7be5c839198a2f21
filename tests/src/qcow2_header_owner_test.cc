// SPDX-License-Identifier: GPL-3.0-or-later
//
// The header of an image that is open for writing: who changes it, and what becomes of a change that failed.

#include "src/qcow2/header_owner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "src/error.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/create.h"
#include "tests/support/support.h"
#include "tests/support/watched_storage.h"

namespace drydock {
namespace {

using qcow2::HeaderFields;
using qcow2::HeaderOwner;
using test::Operation;

constexpr uint64_t first_size = test::mib;
constexpr uint64_t other_size = 2 * test::mib;

class HeaderOwnerTest : public testing::Test {
 protected:
  HeaderOwnerTest() { qcow2::create(*bytes_, {.size = first_size}); }

  // Writes of the header fail from now on, though they arrive.
  void fail_writes() {
    storage_.set_watcher([this](Operation operation, HostOffset offset, uint64_t) {
      if (operation != Operation::write || offset != HostOffset(0)) return;
      qcow2::HeaderFields(*bytes_).set_size(other_size).store();
      throw system_error(EIO, "the disk");
    });
  }
  void repair() { storage_.set_watcher({}); }
  void fail_a_change() {
    fail_writes();
    EXPECT_THROW(owner_.change([](HeaderFields& fields) { fields.set_size(other_size); }), Error);
    EXPECT_EQ(size_in_file(), other_size);
    repair();
  }
  uint64_t size_in_file() const { return qcow2::read_header(*bytes_).size; }

  std::shared_ptr<MemoryStorage> bytes_ = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  test::WatchedStorage storage_{bytes_};
  HeaderOwner owner_{storage_};
};

// Each thread has a bit of its own; one that read the fields while another changed them would put the other's bit back.
TEST_F(HeaderOwnerTest, changes_made_at_once_do_not_undo_each_other) {
  constexpr unsigned threads_count = 4;
  constexpr unsigned changes = 300;
  std::atomic<unsigned> undone = 0;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < threads_count; ++i) {
    threads.emplace_back([&, i] {
      const uint64_t bit = uint64_t{1} << (8 + i);
      for (unsigned round = 0; round < changes; ++round) {
        const uint64_t wanted = round % 2 == 0 ? bit : 0;
        owner_.change([&](HeaderFields& fields) {
          const uint64_t now = fields.compatible_features();
          if ((now & bit) == wanted) ++undone;
          fields.set_compatible_features((now & ~bit) | wanted);
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(undone, 0U);
}

TEST_F(HeaderOwnerTest, safety_3_a_change_that_failed_is_taken_back_before_the_next) {
  fail_a_change();
  uint64_t flags = 1;
  owner_.change([&](HeaderFields& fields) {
    flags = fields.compatible_features();
    fields.set_compatible_features(qcow2::compatible::lazy_refcounts);
  });
  EXPECT_EQ(size_in_file(), first_size);
  EXPECT_EQ(flags, 0U);
  EXPECT_EQ(HeaderFields(*bytes_).compatible_features(), qcow2::compatible::lazy_refcounts);
}

TEST_F(HeaderOwnerTest, safety_3_until_the_old_header_is_back_every_change_begins_with_it) {
  fail_a_change();
  fail_writes();
  EXPECT_THROW(owner_.restore(), Error);
  EXPECT_THROW(owner_.alone([] { FAIL() << "the header is not known"; }), Error);
  repair();
  bool ran = false;
  owner_.alone([&] {
    EXPECT_EQ(size_in_file(), first_size);
    ran = true;
  });
  EXPECT_TRUE(ran);
}

TEST_F(HeaderOwnerTest, a_mark_as_corrupt_stays_when_a_failed_change_is_taken_back) {
  fail_a_change();
  owner_.mark_corrupt();
  owner_.restore();
  EXPECT_EQ(size_in_file(), first_size);
  EXPECT_TRUE(qcow2::read_header(*bytes_).is(qcow2::incompatible::corrupt));
}

// What opening for writing clears is not brought back by whoever changes the header later.
TEST_F(HeaderOwnerTest, bits_cleared_at_opening_stay_clear) {
  constexpr uint64_t unknown_bit = uint64_t{1} << 40;
  HeaderFields(*bytes_).set_autoclear_features(unknown_bit).store();
  const auto image = Image::open(bytes_, {.format = Format::qcow2, .writable = true});
  EXPECT_EQ(HeaderFields(*bytes_).autoclear_features(), 0U);
  image->resize(other_size, Preallocation::off);
  image->close();
  EXPECT_EQ(HeaderFields(*bytes_).autoclear_features(), 0U);
  EXPECT_EQ(size_in_file(), other_size);
}

}  // namespace
}  // namespace drydock
