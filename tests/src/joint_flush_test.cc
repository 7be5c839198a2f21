// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <condition_variable>
#include <future>
#include <mutex>

#include "src/image.h"
#include "src/joint_flush.h"
#include "src/memory_storage.h"
#include "src/qcow2/create.h"
#include "tests/crash/faulty_storage.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using crash::FaultyStorage;
using testing::HasSubstr;

// A flush that waits for its test.
class HeldFlush {
 public:
  void operator()() {
    std::unique_lock lock(mutex_);
    ++begun_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return allowed_ >= begun_; });
    if (failing_ == begun_) throw system_error(EIO, "held");
  }
  void wait_until_begun(unsigned runs) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return begun_ >= runs; });
  }
  void allow(unsigned runs) {
    const std::lock_guard lock(mutex_);
    allowed_ = runs;
    changed_.notify_all();
  }
  void fail(unsigned run) { failing_ = run; }
  unsigned begun() const { return begun_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned begun_ = 0;
  unsigned allowed_ = 0;
  unsigned failing_ = 0;
};

TEST(joint_flush, a_flush_that_runs_already_is_not_taken_for_the_own_one) {
  JointFlush flushes;
  HeldFlush flush;
  auto first = std::async(std::launch::async, [&] { flushes.run("disk", std::ref(flush)); });
  flush.wait_until_begun(1);
  std::vector<std::future<void>> later;
  for (int i = 0; i < 8; ++i) {
    later.push_back(std::async(std::launch::async, [&] { flushes.run("disk", std::ref(flush)); }));
  }
  flush.allow(1);
  first.get();
  flush.wait_until_begun(2);
  flush.allow(100);
  for (auto& each : later) each.get();
  EXPECT_GE(flush.begun(), 2U);
  EXPECT_LE(flush.begun(), 9U);
}

TEST(joint_flush, safety_7a_who_waits_and_who_comes_later_hear_of_the_failure) {
  JointFlush flushes;
  HeldFlush flush;
  flush.fail(1);
  auto first = std::async(std::launch::async, [&] { flushes.run("disk", std::ref(flush)); });
  flush.wait_until_begun(1);
  auto waiting = std::async(std::launch::async, [&] { flushes.run("disk", std::ref(flush)); });
  flush.allow(100);
  EXPECT_EQ(test::error_of([&] { first.get(); }).errno_value(), EIO);
  const Error told = test::error_of([&] { waiting.get(); });
  EXPECT_EQ(told.errno_value(), EIO);
  EXPECT_THAT(told.what(), HasSubstr("disk: a flush failed, and what was written before it may be lost"));
  EXPECT_EQ(test::error_of([&] { flushes.run("disk", std::ref(flush)); }).errno_value(), EIO);
  EXPECT_EQ(flush.begun(), 1U);
}

TEST(joint_flush, safety_7a_of_an_unknown_exception_too_the_failure_stays) {
  JointFlush flushes;
  EXPECT_THROW(flushes.run("disk", [] { throw std::bad_alloc(); }), std::bad_alloc);
  EXPECT_EQ(test::error_of([&] { flushes.run("disk", [] {}); }).kind(), ErrorKind::io);
}

// The storage loses what was written, and says so once: no flush of either kind of image may succeed after it.
TEST(joint_flush, safety_7a_a_flush_that_failed_fails_until_the_image_is_opened_anew) {
  for (const Format format : {Format::raw, Format::qcow2}) {
    SCOPED_TRACE(format_name(format));
    const auto bytes = std::make_shared<MemoryStorage>(std::vector<std::byte>{});
    if (format == Format::qcow2) {
      qcow2::create(*bytes, {.size = test::mib});
    } else {
      bytes->truncate(test::mib);
    }
    const OpenOptions options{.format = format, .writable = true};
    const auto faulty = std::make_shared<FaultyStorage>(bytes);
    auto image = Image::open(std::static_pointer_cast<Storage>(faulty), options);
    image->disk()->write(GuestOffset(0), std::vector<std::byte>(512, std::byte{7}));
    faulty->arm({.errno_value = EIO});
    EXPECT_EQ(test::error_of([&] { faulty->flush(); }).errno_value(), EIO);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(test::error_of([&] { image->disk()->flush(); }).errno_value(), EIO);
      image->disk()->write(GuestOffset(4096), std::vector<std::byte>(512, std::byte{8}));
    }
    image.reset();

    image = Image::open(std::static_pointer_cast<Storage>(bytes), options);
    image->disk()->write(GuestOffset(0), std::vector<std::byte>(512, std::byte{9}));
    EXPECT_NO_THROW(image->disk()->flush());
    EXPECT_NO_THROW(image->close());
  }
}

}  // namespace
}  // namespace drydock
