// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/view_name.h"

#include <fmt/format.h>

#include "src/utf8.h"

namespace drydock {

namespace {

constexpr size_t max_id_part = 32;  // bytes; QEMU's ids are small numbers, an image's may be anything

// Calls visit(std::string piece) with the encoded form of each character until it returns false. Pieces are what a
// name may be cut between.
template <class Visit>
void for_each_piece(std::string_view text, Visit visit) {
  for (bool first = true; !text.empty(); first = false) {
    const size_t length = utf8_sequence_length(text);
    const std::string_view sequence = text.substr(0, length == 0 ? 1 : length);
    text.remove_prefix(sequence.size());
    const bool encode =
        length == 0 || is_control(sequence) || sequence == "/" || sequence == "%" || (first && sequence == ".");
    std::string piece(encode ? "" : sequence);
    if (encode) {
      for (const char c : sequence) piece += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    if (!visit(std::move(piece))) return;
  }
}

std::string encode(std::string_view text, size_t max_size) {
  std::string result;
  for_each_piece(text, [&](const std::string& piece) {
    if (result.size() + piece.size() > max_size) return false;
    result += piece;
    return true;
  });
  return result;
}

}  // namespace

std::string view_name_part(std::string_view text) { return encode(text, max_view_name_part); }

std::string UniqueNames::take(std::string_view name, std::string_view id) {
  const std::string_view text = !name.empty() ? name : !id.empty() ? id : "snapshot";
  const std::string id_suffix = "~" + encode(id, max_id_part);
  std::string candidate = view_name_part(text);
  for (size_t attempt = 0; !taken_.insert(candidate).second; ++attempt) {
    const std::string suffix = attempt == 0 && !id.empty() ? id_suffix : fmt::format("{}~{}", id_suffix, attempt + 1);
    candidate = encode(text, max_view_name_part - suffix.size()) + suffix;
  }
  return candidate;
}

}  // namespace drydock
