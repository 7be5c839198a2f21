// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/utf8.h"

#include <gtest/gtest.h>

namespace drydock {
namespace {

using namespace std::string_view_literals;

std::string utf8_of(uint32_t code_point) {
  std::string text;
  append_utf8(text, code_point);
  return text;
}

TEST(utf8, code_points_take_one_to_four_bytes) {
  EXPECT_EQ(utf8_of('a'), "a");
  EXPECT_EQ(utf8_of(0xDC), "Ü");
  EXPECT_EQ(utf8_of(0x20AC), "€");
  EXPECT_EQ(utf8_of(0x1F427), "🐧");
  for (const uint32_t code_point : {0x7FU, 0x80U, 0x7FFU, 0x800U, 0xFFFFU, 0x10000U, 0x10FFFFU}) {
    EXPECT_EQ(utf8_sequence_length(utf8_of(code_point)), utf8_of(code_point).size());
  }
}

TEST(utf8, numbers_that_are_no_character_become_the_replacement_character) {
  for (const uint32_t code_point : {0xD800U, 0xDFFFU, 0x110000U, 0xFFFFFFFFU}) EXPECT_EQ(utf8_of(code_point), "\uFFFD");
}

TEST(utf8, utf16_ends_at_a_zero_or_at_the_end) {
  EXPECT_EQ(utf8_of_utf16le("a\0b\0\0\0c\0"sv), "ab");
  EXPECT_EQ(utf8_of_utf16le("a\0b\0"sv), "ab");
  EXPECT_EQ(utf8_of_utf16le("a\0b"sv), "a");
  EXPECT_EQ(utf8_of_utf16le(""sv), "");
}

TEST(utf8, unpaired_surrogates_are_replaced) {
  EXPECT_EQ(utf8_of_utf16le("\x3D\xD8\x27\xDC"sv), "🐧");
  EXPECT_EQ(utf8_of_utf16le("\x3D\xD8"sv), "\uFFFD");
  EXPECT_EQ(utf8_of_utf16le("\x3D\xD8x\0"sv), "\uFFFDx");
  EXPECT_EQ(utf8_of_utf16le("\x27\xDC\x3D\xD8"sv), "\uFFFD\uFFFD");
}

}  // namespace
}  // namespace drydock
