// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_output.h"

#include <gtest/gtest.h>

namespace drydock::cli {
namespace {

TEST(GuestOutput, sizes_are_rounded_as_libguestfs_tools_round_them) {
  EXPECT_EQ(short_size(0), "0");
  EXPECT_EQ(short_size(1023), "1023");
  EXPECT_EQ(short_size(1024), "1.0K");
  EXPECT_EQ(short_size(1536), "1.5K");
  EXPECT_EQ(short_size(10188), "9.9K");
  EXPECT_EQ(short_size(10239), "10K");
  EXPECT_EQ(short_size(57381888), "55M");
  EXPECT_EQ(short_size(1024 * 1024 - 1), "1.0M");
  EXPECT_EQ(short_size(104857600), "100M");
  EXPECT_EQ(short_size(UINT64_MAX), "16E");
}

TEST(GuestOutput, csv_quotes_what_needs_it) {
  EXPECT_EQ(csv_row({"plain", "with space", "a,b", "say \"x\"", "line\nend", ""}),
            "plain,\"with space\",\"a,b\",\"say \"\"x\"\"\",\"line\nend\",\n");
}

TEST(GuestOutput, columns_are_aligned_and_empty_ones_left_out) {
  EXPECT_EQ(aligned({{"Name", "Type", std::nullopt}, {"/dev/sda1", std::nullopt, std::nullopt}}),
            "Name       Type\n/dev/sda1  -\n");
  EXPECT_EQ(aligned({{"a", ""}, {"b", "c"}}), "a  -\nb  c\n");
  // Wide tables move closer together.
  EXPECT_EQ(aligned({{std::string(70, 'x'), "y"}}), std::string(70, 'x') + " y\n");
}

TEST(GuestOutput, safety_12_json_escapes_names) {
  EXPECT_EQ(json_text("a\"\n\x1b[31m"), "\"a\\\"\\n\\u001b[31m\"\n");
  EXPECT_EQ(json_text("bad \xff byte"), "\"bad \xef\xbf\xbd byte\"\n");
  EXPECT_EQ(json_text("g\xc3\xbct \xe2\x80\xae\xc2\x9b"), "\"g\xc3\xbct \\u202e\\u009b\"\n");
}

TEST(GuestOutput, json_keeps_bytes_that_are_not_utf_8) {
  auto object = nlohmann::ordered_json::object();
  add_text(object, "path", "bad \xff byte");
  add_text(object, "link", "g\xc3\xbct");
  EXPECT_EQ(object["path-hex"], "62616420ff2062797465");
  EXPECT_FALSE(object.contains("link-hex"));
  EXPECT_EQ(nlohmann::json::parse(json_text(object))["path"], "bad \xef\xbf\xbd byte");
}

}  // namespace
}  // namespace drydock::cli
