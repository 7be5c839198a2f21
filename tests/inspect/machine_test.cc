// SPDX-License-Identifier: GPL-3.0-or-later
//
// Children, signals, the proof of KVM and the checks of `doctor`.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <thread>

#include "inspect/child_process.h"
#include "inspect/health.h"
#include "inspect/interruption.h"
#include "inspect/kvm_proof.h"
#include "inspect/private_folder.h"
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
    test::write_file(emulator_,
                     "#!/bin/sh\necho run >>" + dir_.file("runs") + "\necho 'no such machine' >&2\nexit 7\n");
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

TEST_F(KvmProofTest, is_remembered_until_the_emulator_changes) {
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

TEST(Health, every_check_has_a_finding_and_every_trouble_an_advice) {
  for (const HealthCheck& check : check_health(false)) {
    EXPECT_FALSE(check.name.empty());
    EXPECT_FALSE(check.detail.empty()) << check.name;
    EXPECT_EQ(check.advice.empty(), check.state == CheckState::ok) << check.name;
  }
}

}  // namespace
}  // namespace drydock
