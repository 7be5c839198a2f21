// SPDX-License-Identifier: GPL-3.0-or-later
//
// Children, signals, the proof of KVM and the checks of `doctor`.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <thread>

#include "inspect/appliance.h"
#include "inspect/child_process.h"
#include "inspect/health.h"
#include "inspect/interruption.h"
#include "inspect/kvm_proof.h"
#include "inspect/private_folder.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using testing::HasSubstr;

TEST(ChildProcess, tells_status_signal_and_complaint) {
  const ChildResult result = run_child({"sh", "-c", "echo oops >&2; exit 3"}, {});
  EXPECT_EQ(result.status, 3);
  EXPECT_EQ(result.err, "oops\n");
  EXPECT_EQ(run_child({"sh", "-c", "kill -TERM $$"}, {}).status, 128 + SIGTERM);
  EXPECT_EQ(test::error_of([] { run_child({"/nonexistent/program"}, {}); }).kind(), ErrorKind::not_found);
}

TEST(ChildProcess, is_killed_at_its_limit_even_when_it_says_nothing) {
  const auto start = std::chrono::steady_clock::now();
  const ChildResult result = run_child({"sleep", "60"}, {.limit = std::chrono::milliseconds(100)});
  EXPECT_TRUE(result.timed_out);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

TEST(PrivateFolder, is_its_owners_alone_and_goes_away) {
  std::filesystem::path path;
  {
    const PrivateFolder folder;
    path = folder.path();
    EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms::owner_all);
    test::write_file(folder.file("x"), "x");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

void wait_for_interruption(const InterruptionGuard& guard) {
  if (!test::wait_until([&] { return guard.caught() != 0; })) std::abort();
}

TEST(InterruptionGuardDeathTest, lets_the_stack_unwind_before_the_signal_kills) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    EXPECT_EXIT(
        {
          ::signal(signal, SIG_DFL);  // nohup leaves SIGHUP ignored, and so it stays then
          const InterruptionGuard guard;
          const std::shared_ptr<void> clean_up(nullptr, [](void*) { std::cerr << "cleaned up\n"; });
          ::kill(::getpid(), signal);
          wait_for_interruption(guard);
        },
        testing::KilledBySignal(signal), "cleaned up");
  }
}

TEST(InterruptionGuardDeathTest, kills_the_children_that_somebody_waits_for) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const InterruptionGuard guard;
        ::kill(::getpid(), SIGTERM);
        const ChildResult result = run_child({"sleep", "60"}, {});
        if (result.status != 128 + SIGKILL) std::abort();
      },
      testing::KilledBySignal(SIGTERM), "");
}

class KvmProofTest : public testing::Test {
 protected:
  void SetUp() override {
    ::setenv("XDG_CACHE_HOME", dir_.file("cache").c_str(), 1);
    make_emulator("echo 'no such machine' >&2\nexit 7");
  }
  // An emulator that notes each run, and ends as it likes.
  void make_emulator(const std::string& script) {
    test::write_file(emulator_, "#!/bin/sh\necho run >>" + dir_.file("runs") + "\n" + script + "\n");
    ::chmod(emulator_.c_str(), 0755);
  }
  void TearDown() override { ::unsetenv("XDG_CACHE_HOME"); }

  test::TempDir dir_;
  const std::string emulator_ = dir_.file("emulator");
  const bool device_opens_ = bool(UniqueFd(::open("/dev/kvm", O_RDWR | O_CLOEXEC)));
};

TEST_F(KvmProofTest, fails_with_the_reason_where_no_guest_boots) {
  const KvmProof proof = prove_kvm(emulator_);
  EXPECT_FALSE(proof.works);
  EXPECT_TRUE(proof.fresh);
  EXPECT_THAT(proof.reason, HasSubstr(device_opens_ ? "QEMU ended with status 7: no such machine" : "/dev/kvm: "));
}

TEST_F(KvmProofTest, only_what_a_guest_that_ran_has_shown_is_remembered) {
  constexpr int abort_status = 128 + SIGABRT;
  EXPECT_TRUE(judge_kvm({.status = 33}).works);
  EXPECT_TRUE(judge_kvm({.status = 33}).lasts);
  const KvmProof given_up =
      judge_kvm({.status = abort_status, .err = "qemu: kvm.c:3183: kvm_buf_set_msrs: Assertion failed.\n"});
  EXPECT_FALSE(given_up.works);
  EXPECT_TRUE(given_up.lasts);
  EXPECT_TRUE(judge_kvm({.timed_out = true, .status = 137, .err = "KVM internal error. Suberror: 1\n"}).lasts);
  EXPECT_TRUE(judge_kvm({.timed_out = true, .status = 137, .cpu_time = kvm_proof_cpu_time}).lasts);
  // A busy host, Ctrl-C or a lack of memory, and any other complaint of QEMU's.
  EXPECT_FALSE(judge_kvm({.timed_out = true, .status = 137, .cpu_time = kvm_proof_cpu_time / 2}).lasts);
  EXPECT_FALSE(judge_kvm({.status = 128 + SIGINT}).lasts);
  EXPECT_FALSE(judge_kvm({.status = 137}).lasts);
  EXPECT_FALSE(judge_kvm({.status = 1, .err = "cannot set up guest memory 'pc.ram': Cannot allocate memory"}).lasts);

  EXPECT_TRUE(remembered_kvm_proof(emulator_).fresh);
  EXPECT_TRUE(remembered_kvm_proof(emulator_).fresh || !device_opens_);
}

TEST_F(KvmProofTest, needs_no_temporary_folder) {
  make_emulator("[ \"$(tail -c +511 | head -c 2 | od -An -tx1)\" = ' 55 aa' ] && exit 33");
  ::setenv("TMPDIR", "/proc/nowhere", 1);
  const KvmProof proof = prove_kvm(emulator_);
  ::unsetenv("TMPDIR");
  EXPECT_EQ(proof.works, device_opens_) << proof.reason;
}

TEST_F(KvmProofTest, is_remembered_until_the_emulator_changes) {
  make_emulator("exit 33");
  const KvmProof first = remembered_kvm_proof(emulator_);
  const KvmProof second = remembered_kvm_proof(emulator_);
  EXPECT_TRUE(first.fresh);
  EXPECT_FALSE(second.fresh);
  EXPECT_EQ(first.reason, second.reason);
  if (device_opens_) {
    EXPECT_EQ(test::read_file(dir_.file("runs")).size(), 4U);
  }

  std::filesystem::last_write_time(emulator_, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  EXPECT_TRUE(remembered_kvm_proof(emulator_).fresh);
}

TEST_F(KvmProofTest, a_cache_that_cannot_be_written_is_no_failure) {
  ::setenv("XDG_CACHE_HOME", "/proc/nowhere", 1);
  EXPECT_FALSE(remembered_kvm_proof(emulator_).works);
}

TEST_F(KvmProofTest, a_guest_that_never_reports_is_given_up) {
  test::write_file(emulator_, std::string("#!/bin/sh\nexec sleep 60\n"));
  const KvmProof proof = prove_kvm(emulator_);
  EXPECT_FALSE(proof.works);
  EXPECT_THAT(proof.reason, HasSubstr(device_opens_ ? "did not boot within 3 s" : "/dev/kvm: "));
}

std::unique_ptr<DiskServer> empty_disk() {
  const auto disk = std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(1 << 20), "disk"),
                                              RawOrigin::given);
  return std::make_unique<DiskServer>(
      [&](Confinement&) { return ServedDisks{.disks = {{.disk = disk}}, .warnings = {}}; }, false);
}

class TemporaryFolderTest : public testing::Test {
 protected:
  void TearDown() override { before_.empty() ? ::unsetenv("TMPDIR") : ::setenv("TMPDIR", before_.c_str(), 1); }
  const std::string before_ = std::getenv("TMPDIR") == nullptr ? "" : std::getenv("TMPDIR");
};

TEST_F(TemporaryFolderTest, a_lack_of_it_is_told_by_name_before_a_launch_and_by_doctor) {
  // /proc has no room for anything.
  for (const auto& [folder, trouble] : std::vector<std::pair<std::string, std::string>>{
           {"/proc/nowhere", "(TMPDIR, /proc/nowhere): No such file or directory"},
           {"/proc", "(TMPDIR, /proc)"},
           {"/dev/null", "(TMPDIR, /dev/null)"}}) {
    ::setenv("TMPDIR", folder.c_str(), 1);
    EXPECT_THAT(test::error_of([&] { open_appliance(empty_disk(), {}); }).what(), HasSubstr(trouble));
    EXPECT_THAT(appliance_advice(), HasSubstr(trouble));
    const std::vector<HealthCheck> checks = check_health(false);
    const auto check = std::ranges::find(checks, "temporary files", &HealthCheck::name);
    ASSERT_NE(check, checks.end());
    EXPECT_EQ(check->state, CheckState::failed);
    EXPECT_THAT(check->detail, HasSubstr(trouble));
  }
}

TEST(ApplianceLaunch, a_wrong_value_in_the_environment_is_refused_by_name) {
  ::setenv("LIBGUESTFS_MEMSIZE", "much", 1);
  EXPECT_THAT(test::error_of([&] { open_appliance(empty_disk(), {}); }).what(), HasSubstr("LIBGUESTFS_MEMSIZE"));
  ::unsetenv("LIBGUESTFS_MEMSIZE");
}

TEST(Health, every_check_has_a_finding_and_every_trouble_an_advice) {
  for (const HealthCheck& check : check_health(false)) {
    EXPECT_FALSE(check.name.empty());
    EXPECT_FALSE(check.detail.empty()) << check.name;
    EXPECT_EQ(check.advice.empty(), check.state == CheckState::ok) << check.name;
  }
}

}  // namespace
}  // namespace drydock
