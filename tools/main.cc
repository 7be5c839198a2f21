// SPDX-License-Identifier: GPL-3.0-or-later

#include <csignal>
#include <iostream>

#include "tools/cli.h"

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write, reported like any other
  drydock::cli::Streams streams{std::cin, std::cout, std::cerr};
  return drydock::cli::run_program({argv, argv + argc}, streams);
}
