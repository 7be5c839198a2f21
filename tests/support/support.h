// SPDX-License-Identifier: GPL-3.0-or-later
//
// What tests share: temporary folders, other people's programs, deterministic bytes.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "src/error.h"

namespace drydock::test {

inline constexpr uint64_t kib = 1 << 10;
inline constexpr uint64_t mib = 1 << 20;  // bytes

// A folder that goes away with its owner.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::filesystem::path& path() const { return path_; }
  std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

struct Outcome {
  int status = -1;  // exit status; 128 + signal for a signal's death; 127 where the program is missing
  std::string out;
  std::string err;
  double cpu_seconds = 0;    // of run(): of the program itself
  uint64_t peak_memory = 0;  // KiB, resident; of run(): of the program, or of the test when it was started, if more
};

// Runs a program found on PATH to its end, standard input from /dev/null.
Outcome run(const std::vector<std::string>& argv);

// The same, and a thrown exception (a failed test) unless it exits with 0. Returns standard output.
std::string run_ok(const std::vector<std::string>& argv);

// The built program's path, for tests that need a process of their own.
std::string drydock_program();

// The same bytes for the same seed, everywhere.
std::vector<std::byte> random_bytes(uint64_t seed, size_t count);

std::vector<std::byte> read_file(const std::string& path);
void write_file(const std::string& path, std::span<const std::byte> bytes);
void write_file(const std::string& path, const std::string& text);

// Waits until `condition` holds, 20 s at most; false when it never did.
bool wait_until(const std::function<bool()>& condition);

// The Error that `action` throws; a failed test when it throws none.
Error error_of(const std::function<void()>& action);

}  // namespace drydock::test
