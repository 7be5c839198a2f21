// SPDX-License-Identifier: GPL-3.0-or-later
//
// The complete program.

#include "src/process/standard_streams.h"
#include "tools/cli.h"

int main(int argc, char** argv) {
  drydock::ensure_standard_streams();
  return drydock::cli::run_main({argv, argv + argc});
}
