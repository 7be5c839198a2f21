// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/utf8.h"

namespace drydock {

namespace {

constexpr uint32_t replacement_character = 0xFFFD;

constexpr bool is_surrogate(uint32_t unit) { return unit >= 0xD800 && unit <= 0xDFFF; }
constexpr bool is_high_surrogate(uint32_t unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
constexpr bool is_low_surrogate(uint32_t unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }

}  // namespace

size_t utf8_sequence_length(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  size_t length = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second >= 0xA0;
  const bool too_large = lead == 0xF4 && second >= 0x90;
  return overlong || surrogate || too_large ? 0 : length;
}

bool is_control(std::string_view sequence) {
  const auto first = static_cast<unsigned char>(sequence[0]);
  if (sequence.size() == 1) return first < 0x20 || first == 0x7F;
  const auto second = static_cast<unsigned char>(sequence[1]);
  if (sequence.size() == 2) return (first == 0xC2 && second < 0xA0) || (first == 0xD8 && second == 0x9C);  // U+061C
  if (sequence.size() != 3 || first != 0xE2) return false;
  const auto third = static_cast<unsigned char>(sequence[2]);
  // U+200E, U+200F, U+2028 to U+202E; U+2066 to U+2069.
  if (second == 0x80) return third == 0x8E || third == 0x8F || (third >= 0xA8 && third <= 0xAE);
  return second == 0x81 && third >= 0xA6 && third <= 0xA9;
}

void append_utf8(std::string& text, uint32_t code_point) {
  if (code_point > 0x10FFFF || is_surrogate(code_point)) code_point = replacement_character;
  auto append = [&](uint32_t byte) { text += static_cast<char>(byte); };
  auto append_continuation = [&](unsigned shift) { append(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | (code_point >> 6));
    append_continuation(0);
  } else if (code_point < 0x10000) {
    append(0xE0 | (code_point >> 12));
    append_continuation(6);
    append_continuation(0);
  } else {
    append(0xF0 | (code_point >> 18));
    append_continuation(12);
    append_continuation(6);
    append_continuation(0);
  }
}

std::string utf8_of_utf16le(std::string_view bytes) {
  const size_t units = bytes.size() / 2;
  auto unit = [&](size_t i) -> uint32_t {
    return static_cast<unsigned char>(bytes[2 * i]) | uint32_t{static_cast<unsigned char>(bytes[2 * i + 1])} << 8;
  };
  std::string text;
  for (size_t i = 0; i < units && unit(i) != 0; ++i) {
    const bool pair = is_high_surrogate(unit(i)) && i + 1 < units && is_low_surrogate(unit(i + 1));
    if (pair) {
      append_utf8(text, 0x10000 + ((unit(i) - 0xD800) << 10) + (unit(i + 1) - 0xDC00));
      ++i;
    } else {
      append_utf8(text, unit(i));
    }
  }
  return text;
}

}  // namespace drydock
