// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/long_listing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace drydock {
namespace {

using testing::ElementsAre;
using testing::Optional;

std::string no_links(const std::string& name) { throw std::runtime_error(name + " is no link"); }

TEST(LongListing, safety_12_a_line_end_in_a_name_begins_no_row) {
  const std::string text =
      "total 8\n"
      "drwxr-xr-x 2 0 0 1024 Nov 21 05:37 .\n"
      "drwxr-xr-x 3 0 0 1024 Nov 21 05:37 ..\n"
      "-rw-r--r-- 1 0 0   35 Nov 21 05:37 a\n-rwsr-xr-x 1 0 0 35 Nov 21 05:37 su\n"
      "lrwxrwxrwx 1 0 0    4 Nov 21 05:37 b\n -> c\nd\n"
      "-rw-r--r-- 1 0 0   35 Nov 21 05:37 su\n";
  const auto rows = rows_of_listing(text, {"a\n-rwsr-xr-x 1 0 0 35 Nov 21 05:37 su", "b\n", "su"},
                                    [](const std::string& name) { return name == "b\n" ? "c\nd" : ""; });
  EXPECT_THAT(rows, Optional(ElementsAre(
                        "total 8", "drwxr-xr-x 2 0 0 1024 Nov 21 05:37 .", "drwxr-xr-x 3 0 0 1024 Nov 21 05:37 ..",
                        "-rw-r--r-- 1 0 0   35 Nov 21 05:37 a\n-rwsr-xr-x 1 0 0 35 Nov 21 05:37 su",
                        "lrwxrwxrwx 1 0 0    4 Nov 21 05:37 b\n -> c\nd", "-rw-r--r-- 1 0 0   35 Nov 21 05:37 su")));
}

TEST(LongListing, names_before_the_dot_and_names_that_look_like_columns_are_told_apart) {
  const std::string text =
      "total 0\n"
      "-rw-r--r-- 1 0 0 0 Nov 21 05:37 !\n"
      "drwxr-xr-x 2 0 0 0 Nov 21 05:37 .\n"
      "drwxr-xr-x 3 0 0 0 Nov 21 05:37 ..\n"
      "-rw-r--r-- 1 0 0 0 Nov 21 05:37 0\n"
      "-rw-r--r-- 1 0 0 0 Nov 21 05:37 0 Nov\n";
  const auto rows = rows_of_listing(text, {"!", "0", "0 Nov"}, no_links);
  ASSERT_TRUE(rows);
  EXPECT_EQ(rows->size(), 6U);
  EXPECT_EQ(rows->back(), "-rw-r--r-- 1 0 0 0 Nov 21 05:37 0 Nov");
}

TEST(LongListing, what_is_no_listing_of_these_names_is_nothing) {
  const std::string dots =
      "total 0\ndrwxr-xr-x 2 0 0 0 Nov 21 05:37 .\n"
      "drwxr-xr-x 3 0 0 0 Nov 21 05:37 ..\n";
  EXPECT_TRUE(rows_of_listing(dots, {}, no_links));
  for (const std::string& text : {std::string(), std::string("total 0"), std::string("total 0\n"), "x\n" + dots,
                                  dots + "-rw-r--r-- 1 0 0 0 Nov 21 05:37 b\n"}) {
    EXPECT_FALSE(rows_of_listing(text, {"a"}, no_links)) << text;
    EXPECT_FALSE(rows_of_listing(text, {}, no_links)) << text;
  }
}

}  // namespace
}  // namespace drydock
