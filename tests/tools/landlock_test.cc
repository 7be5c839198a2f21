// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which of Landlock's rights are asked for, by the version that a kernel has, and that each of these sets is one that a
// kernel takes.

#include "src/process/landlock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "tests/support/support.h"

namespace drydock {
namespace {

constexpr uint64_t of_version_1 = (1U << 13) - 1;  // from executing files to making symbolic links
constexpr uint64_t refer = 1U << 13;
constexpr uint64_t truncate = 1U << 14;

TEST(landlock, asks_for_what_the_kernels_version_knows_and_nothing_else) {
  EXPECT_EQ(landlock_rights(0), LandlockRights{});
  EXPECT_EQ(landlock_rights(-1), LandlockRights{});
  EXPECT_EQ(landlock_rights(1), (LandlockRights{.files = of_version_1}));
  // Debian 12's kernel.
  EXPECT_EQ(landlock_rights(2), (LandlockRights{.files = of_version_1 | refer}));
  EXPECT_EQ(landlock_rights(3), (LandlockRights{.files = of_version_1 | refer | truncate}));
  EXPECT_EQ(landlock_rights(4), (LandlockRights{.files = of_version_1 | refer | truncate, .network = 3}));
  EXPECT_EQ(landlock_rights(5), landlock_rights(4));
  EXPECT_EQ(landlock_rights(6), (LandlockRights{.files = of_version_1 | refer | truncate, .network = 3, .scoped = 3}));
  EXPECT_EQ(landlock_rights(100), landlock_rights(6));
}

// In a process of its own.
int exit_status(const std::function<int()>& action) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(action());
  int status = -1;
  ::waitpid(child, &status, 0);
  return WEXITSTATUS(status);
}

TEST(landlock, safety_17b_each_versions_rights_keep_out_of_what_is_not_listed) {
  const test::TempDir dir;
  for (const char* name : {"read", "written", "secret"}) test::write_file(dir.file(name), "bytes");
  for (long version = 1; version <= landlock_version(); ++version) {
    EXPECT_EQ(exit_status([&] {
                ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                const int failure = apply_landlock(
                    landlock_rights(version),
                    {{.path = dir.file("read")}, {.path = dir.file("written"), .writable = true}, {.path = "/nowhere"}},
                    {});
                const auto denied = [](const std::string& path, int flags) {
                  return ::open(path.c_str(), flags) < 0 && errno == EACCES;
                };
                if (failure != 0) return 1;
                if (denied(dir.file("read"), O_RDONLY) || !denied(dir.file("read"), O_RDWR)) return 2;
                if (denied(dir.file("written"), O_RDWR)) return 3;
                if (!denied(dir.file("secret"), O_RDONLY) || !denied(dir.file("secret"), O_RDWR)) return 4;
                return 0;
              }),
              0)
        << version;
  }
}

TEST(landlock, a_kernel_without_it_is_told_of) { EXPECT_EQ(apply_landlock(landlock_rights(0), {}, {}), ENOSYS); }

}  // namespace
}  // namespace drydock
