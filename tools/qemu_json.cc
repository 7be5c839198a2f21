// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/qemu_json.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/utf8.h"

namespace drydock::cli {

namespace {

using nlohmann::json;

constexpr uint32_t hash_buckets = 512;
constexpr uint32_t replacement = 0xFFFD;

// The hash of GNU dbm, with which QEMU's dictionaries place their members. No two names that are printed here share a
// bucket; those that did would have to come in the reverse of the order in which they were added.
uint32_t bucket_of(const std::string& name) {
  uint32_t value = 0x238F13AFU * static_cast<uint32_t>(name.size());
  for (uint32_t i = 0; i < name.size(); ++i) {
    value += static_cast<uint32_t>(static_cast<unsigned char>(name[i])) << (i * 5 % 24);
  }
  return (1103515243U * value + 12345U) % hash_buckets;
}

// Of a well-formed sequence.
uint32_t code_point_of(std::string_view sequence) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(sequence[i])); };
  switch (sequence.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

std::string escaped(uint32_t code_point) {
  switch (code_point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (code_point >= 0x20 && code_point < 0x7F) return {static_cast<char>(code_point)};
  if (code_point < 0x10000) return fmt::format("\\u{:04X}", code_point);
  return fmt::format("\\u{:04X}\\u{:04X}", 0xD800 + ((code_point - 0x10000) >> 10), 0xDC00 + (code_point & 0x3FF));
}

std::string json_string(std::string_view text) {
  std::string result = "\"";
  while (!text.empty()) {
    const size_t length = utf8_sequence_length(text);
    result += escaped(length == 0 ? replacement : code_point_of(text.substr(0, length)));
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return result + "\"";
}

class Printer {
 public:
  std::string print(const json& value) {
    put(value);
    return std::move(text_);
  }

 private:
  void put(const json& value) {
    if (value.is_object()) {
      put_object(value);
    } else if (value.is_array()) {
      put_array(value);
    } else if (value.is_string()) {
      text_ += json_string(value.get_ref<const std::string&>());
    } else {
      text_ += value.dump();
    }
  }

  void put_object(const json& object) {
    std::vector<std::string> names;
    for (const auto& member : object.items()) names.push_back(member.key());
    std::ranges::stable_sort(names, {}, bucket_of);
    open('{');
    for (size_t i = 0; i < names.size(); ++i) {
      next_line(i);
      text_ += json_string(names[i]) + ": ";
      put(object.at(names[i]));
    }
    close('}');
  }

  void put_array(const json& array) {
    open('[');
    for (size_t i = 0; i < array.size(); ++i) {
      next_line(i);
      put(array[i]);
    }
    close(']');
  }

  void open(char bracket) {
    text_ += bracket;
    ++depth_;
  }
  void next_line(size_t index) {
    if (index > 0) text_ += ',';
    text_ += "\n" + std::string(4 * depth_, ' ');
  }
  void close(char bracket) {
    --depth_;
    text_ += "\n" + std::string(4 * depth_, ' ') + bracket;
  }

  std::string text_;
  size_t depth_ = 0;
};

}  // namespace

std::string qemu_json(const json& value) { return Printer().print(value); }

}  // namespace drydock::cli
