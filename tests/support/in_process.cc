// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/support/in_process.h"

#include <sstream>

#include "tools/cli.h"

namespace drydock::test {

Outcome drydock_as(const std::vector<std::string>& argv) {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  cli::Streams streams{in, out, err};
  const int status = cli::run_program(argv, streams);
  return {status, out.str(), err.str()};
}

Outcome drydock(const std::vector<std::string>& words) {
  std::vector<std::string> argv{"drydock"};
  argv.insert(argv.end(), words.begin(), words.end());
  return drydock_as(argv);
}

}  // namespace drydock::test
