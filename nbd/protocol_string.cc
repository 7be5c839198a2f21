// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/protocol_string.h"

#include <algorithm>

#include "nbd/protocol.h"
#include "src/utf8.h"

namespace drydock::nbd {

bool is_protocol_string(std::string_view text) {
  return text.size() <= max_string_length && text.find('\0') == std::string_view::npos;
}

std::string_view as_protocol_string(std::string_view message) {
  if (message.size() <= max_string_length) return message;
  size_t end = 0;
  while (end < max_string_length) {
    const size_t step = std::max<size_t>(1, utf8_sequence_length(message.substr(end)));
    if (end + step > max_string_length) break;
    end += step;
  }
  return message.substr(0, end);
}

}  // namespace drydock::nbd
