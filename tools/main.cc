// SPDX-License-Identifier: GPL-3.0-or-later
//
// The complete program.

#include "tools/cli.h"

int main(int argc, char** argv) { return drydock::cli::run_main({argv, argv + argc}); }
