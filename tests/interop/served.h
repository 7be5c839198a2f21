// SPDX-License-Identifier: GPL-3.0-or-later
//
// NBD servers as processes beside a test.

#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {

// False when a server's socket never answers: it may be there before the image is open.
inline bool answers(const std::string& socket) {
  return test::wait_until([&] {
    return test::run({"nbdinfo", "--size", "nbd+unix:///?socket=" + socket}).status == 0;
  });
}

// `drydock serve` that listens.
class Served {
 public:
  explicit Served(const std::vector<std::string>& words) : process_(command(words)) {
    if (process_.wait_for_output("\n")) return;
    process_.wait();
    throw std::runtime_error("drydock serve did not start: " + process_.errors());
  }

  // The URIs that it printed, all in one go.
  std::vector<std::string> uris() const {
    std::vector<std::string> result;
    std::istringstream lines(process_.output());
    for (std::string line; std::getline(lines, line);) result.push_back(line.substr(0, line.find(' ')));
    return result;
  }

  pid_t pid() const { return process_.pid(); }

  // Exit status after a signal.
  int end(int signal) {
    process_.signal(signal);
    return process_.wait();
  }
  const std::string& err() const { return process_.errors(); }

 private:
  static std::vector<std::string> command(std::vector<std::string> words) {
    words.insert(words.begin(), {test::drydock_program(), "serve"});
    return words;
  }

  test::Process process_;
};

}  // namespace drydock
