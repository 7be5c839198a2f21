// SPDX-License-Identifier: GPL-3.0-or-later
//
// Messages to and from bytes. The reader checks every length against what is there; it allocates nothing.

#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "src/byteorder.h"

namespace drydock::nbd {

using Bytes = std::vector<std::byte>;

template <class T>
void append_be(Bytes& bytes, T value) {
  const size_t end = bytes.size();
  bytes.resize(end + sizeof value);
  store_be<T>(bytes, end, value);
}

inline void append_text(Bytes& bytes, std::string_view text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  bytes.insert(bytes.end(), first, first + text.size());
}

// Takes fields off the front of a message; nothing where the message is too short.
class WireReader {
 public:
  explicit WireReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  std::optional<T> number() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    const T value = load_be<T>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }

  std::optional<std::string_view> text(size_t length) {
    if (rest_.size() < length) return std::nullopt;
    const std::string_view text(reinterpret_cast<const char*>(rest_.data()), length);
    rest_ = rest_.subspan(length);
    return text;
  }

  // A 32-bit length and so many bytes.
  std::optional<std::string_view> counted_text() {
    const auto length = number<uint32_t>();
    return length ? text(*length) : std::nullopt;
  }

  bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace drydock::nbd
