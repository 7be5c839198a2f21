// SPDX-License-Identifier: GPL-3.0-or-later
//
// What commands do with images that name what they should not; tests/src/qcow2_hostile_test.cc has the engine's part.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/in_process.h"
#include "tests/support/qcow2_bytes.h"

namespace drydock {
namespace {

using test::Qcow2Bytes;
using testing::HasSubstr;

TEST(hostile_qcow2, safety_9_info_opens_no_second_file) {
  const test::TempDir dir;
  test::write_file(dir.file("o.qcow2"), Qcow2Bytes().backing("/does/not/exist", "raw").bytes());
  const test::Outcome outcome = test::drydock({"info", dir.file("o.qcow2")});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("backing file: /does/not/exist"));
  EXPECT_EQ(test::drydock({"info", "--backing-chain", dir.file("o.qcow2")}).status, 1);
}

TEST(hostile_qcow2, a_missing_backing_file_is_one_clear_error) {
  const test::TempDir dir;
  test::write_file(dir.file("o.qcow2"), Qcow2Bytes().backing("gone.raw", "raw").bytes());
  const test::Outcome outcome = test::drydock({"map", dir.file("o.qcow2")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("gone.raw"));
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1);
}

}  // namespace
}  // namespace drydock
