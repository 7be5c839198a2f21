// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/remote.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <sstream>

namespace drydock::cli {

namespace {

constexpr const char* standing_variable = "DRYDOCK_ALLOW_NBD";

}  // namespace

OptionSpec allow_nbd_option() {
  return {0, "allow-nbd", "URI", "also open backing and data files on the NBD server of URI (may be repeated)"};
}

std::shared_ptr<const RemoteOpener> remote_opener_for(const Invocation& invocation,
                                                      const std::vector<std::string>& also) {
  std::vector<std::string> allowed = invocation.options.values("allow-nbd");
  allowed.insert(allowed.end(), also.begin(), also.end());
  const char* standing = std::getenv(standing_variable);
  if (standing != nullptr) {
    std::istringstream words(standing);
    for (std::string word; words >> word;) allowed.push_back(word);
  }
  return make_remote_opener(allowed);
}

// Rather once too often: it costs the start of the complete program.
bool speaks_of_nbd(const std::vector<std::string>& words) {
  constexpr std::array signs{"nbd:", "nbds:", "nbd+", "nbds+", "driver=nbd", "\"nbd\""};
  return std::getenv(standing_variable) != nullptr || std::ranges::any_of(words, [&](const std::string& word) {
           return word.starts_with("--allow-n") ||
                  std::ranges::any_of(signs, [&](const char* sign) { return word.find(sign) != std::string::npos; });
         });
}

}  // namespace drydock::cli
