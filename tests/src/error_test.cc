// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/error.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace drydock {
namespace {

TEST(error, every_kind_maps_to_its_errno) {
  EXPECT_EQ(Error(ErrorKind::read_only, "x").errno_value(), EROFS);
  EXPECT_EQ(Error(ErrorKind::no_space, "x").errno_value(), ENOSPC);
  EXPECT_EQ(Error(ErrorKind::corrupt, "x").errno_value(), EIO);
  EXPECT_EQ(Error(ErrorKind::out_of_range, "x").errno_value(), EINVAL);
}

TEST(error, system_error_keeps_errno_and_names_the_place) {
  const Error error = system_error(EDQUOT, "disk.raw");
  EXPECT_EQ(error.kind(), ErrorKind::no_space);
  EXPECT_EQ(error.errno_value(), EDQUOT);
  EXPECT_STREQ(error.what(), "disk.raw: Disk quota exceeded");
}

TEST(error, within_puts_the_context_before_the_message) {
  const Error inner(ErrorKind::corrupt, "bad L2 entry");
  EXPECT_STREQ(inner.within("guest.qcow2").what(), "guest.qcow2: bad L2 entry");
  EXPECT_EQ(inner.within("guest.qcow2").kind(), ErrorKind::corrupt);
}

TEST(error, safety_12_direction_and_line_controls_and_quotes_of_names_are_escaped) {
  // "guest" + RIGHT-TO-LEFT OVERRIDE + "2wocq."
  EXPECT_EQ(printable("guest\xe2\x80\xae"
                      "2wocq."),
            "guest\\xe2\\x80\\xae2wocq.");
  for (const std::string control : {"\xd8\x9c", "\xe2\x80\x8e", "\xe2\x80\x8f", "\xe2\x80\xa8", "\xe2\x80\xa9",
                                    "\xe2\x80\xaa", "\xe2\x81\xa6", "\xe2\x81\xa9"}) {
    EXPECT_EQ(printable(control)[0], '\\');
  }
  EXPECT_EQ(printable("\xe2\x80\x9c\xe2\x81\xaa"),
            "\xe2\x80\x9c\xe2\x81\xaa");  // typographic quotes and others around them
  EXPECT_EQ(printable("it's \"it\""), "it's \"it\"");
  EXPECT_EQ(printable_in_quotes("it's \"it\""), "it\\x27s \\x22it\\x22");
}

TEST(error, safety_12_names_are_escaped_for_the_terminal) {
  EXPECT_EQ(printable("plain name.qcow2"), "plain name.qcow2");
  EXPECT_EQ(printable("Größe €"), "Größe €");
  EXPECT_EQ(printable("\033]0;owned\007"), "\\x1b]0;owned\\x07");
  EXPECT_EQ(printable("a\nb\x7f"), "a\\x0ab\\x7f");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\xc2\\x9b31m");  // a C1 control sequence introducer
  EXPECT_EQ(printable("\xc0\xaf\xff\xed\xa0\x80"), "\\xc0\\xaf\\xff\\xed\\xa0\\x80");  // overlong, stray, surrogate
}

}  // namespace
}  // namespace drydock
