// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who may open an image beside whom: the same for QEMU beside QEMU, for ours beside QEMU, for QEMU beside ours, and for
// ours beside ours.

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <memory>

#include "src/error.h"
#include "src/image.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

enum class Mode { reads, writes, force_shares };
constexpr std::array modes{Mode::reads, Mode::writes, Mode::force_shares};

std::string_view name_of(Mode mode) {
  return mode == Mode::reads ? "reads" : mode == Mode::writes ? "writes" : "reads with -U";
}

// qemu-nbd, which has the image open while this lives.
class QemuHolder {
 public:
  QemuHolder(const std::string& image, const std::string& format, Mode mode) {
    std::vector<std::string> words{"qemu-nbd",     "--fork",     "--persistent",  "--socket",
                                   dir_.file("s"), "--pid-file", dir_.file("pid")};
    if (mode != Mode::writes) words.emplace_back("--read-only");
    words.push_back("--image-opts");
    words.push_back(fmt::format("driver={},file.driver=file,file.filename={}{}", format, image,
                                mode == Mode::force_shares ? ",force-share=on" : ""));
    test::run_ok(words);
    const auto text = test::read_file(dir_.file("pid"));
    pid_ = std::stoi(std::string(reinterpret_cast<const char*>(text.data()), text.size()));
  }
  QemuHolder(const QemuHolder&) = delete;
  QemuHolder& operator=(const QemuHolder&) = delete;
  ~QemuHolder() {
    ::kill(pid_, SIGKILL);
    EXPECT_TRUE(test::wait_until([&] { return !std::filesystem::exists(fmt::format("/proc/{}/exe", pid_)); }));
  }

 private:
  test::TempDir dir_;
  pid_t pid_ = -1;
};

std::shared_ptr<Image> our_holder(const std::string& image, Format format, Mode mode) {
  return Image::open(
      image, {.format = format, .writable = mode == Mode::writes, .beside_writers = mode == Mode::force_shares});
}

bool qemu_opens(const std::string& image, const std::string& format, Mode mode) {
  std::vector<std::string> words{"qemu-io", "-f", format, "-c", "read 0 512"};
  if (mode != Mode::writes) words.emplace_back("-r");
  if (mode == Mode::force_shares) words.emplace_back("-U");
  words.push_back(image);
  return test::run(words).status == 0;
}

bool we_open(const std::string& image, const std::string& format, Mode mode) {
  const std::string drydock = test::drydock_program();
  const test::Outcome outcome = mode == Mode::writes  ? test::run({drydock, "resize", "-f", format, image, "1M"})
                                : mode == Mode::reads ? test::run({drydock, "map", "-f", format, image})
                                                      : test::run({drydock, "map", "-U", "-f", format, image});
  EXPECT_TRUE(outcome.status == 0 || outcome.err.find("is in use by process") != std::string::npos) << outcome.err;
  return outcome.status == 0;
}

class LockTable : public testing::Test {
 protected:
  LockTable() {
    for (const char* format : {"raw", "qcow2"}) {
      test::run_ok({"qemu-img", "create", "-q", "-f", format, dir_.file(format), "1M"});
    }
  }

  test::TempDir dir_;
};

TEST_F(LockTable, safety_2_who_opens_a_qcow2_image_beside_whom_is_as_among_qemus) {
  const std::string image = dir_.file("qcow2");
  for (const Mode held : modes) {
    std::vector<bool> among_qemus;
    {
      const QemuHolder qemu(image, "qcow2", held);
      for (const Mode mode : modes) {
        among_qemus.push_back(qemu_opens(image, "qcow2", mode));
        EXPECT_EQ(we_open(image, "qcow2", mode), among_qemus.back())
            << "QEMU " << name_of(held) << ", ours " << name_of(mode);
      }
    }
    // The oracle itself, so that the comparison is one.
    EXPECT_EQ(among_qemus, held == Mode::reads    ? (std::vector<bool>{true, false, true})
                           : held == Mode::writes ? (std::vector<bool>{false, false, true})
                                                  : (std::vector<bool>{true, true, true}));
    const auto ours = our_holder(image, Format::qcow2, held);
    for (size_t i = 0; i < modes.size(); ++i) {
      EXPECT_EQ(qemu_opens(image, "qcow2", modes.at(i)), among_qemus.at(i))
          << "ours " << name_of(held) << ", QEMU " << name_of(modes.at(i));
      EXPECT_EQ(we_open(image, "qcow2", modes.at(i)), among_qemus.at(i))
          << "ours " << name_of(held) << ", ours " << name_of(modes.at(i));
    }
  }
}

// QEMU's readers and tools mind no writer of a raw file, only a machine does; we mind each.
TEST_F(LockTable, safety_2_of_raw_images_we_are_as_strict_as_of_qcow2) {
  const std::string image = dir_.file("raw");
  const QemuHolder qemu(image, "raw", Mode::writes);
  EXPECT_TRUE(qemu_opens(image, "raw", Mode::reads));
  EXPECT_FALSE(we_open(image, "raw", Mode::reads));
  EXPECT_FALSE(we_open(image, "raw", Mode::writes));
  EXPECT_TRUE(we_open(image, "raw", Mode::force_shares));
}

}  // namespace
}  // namespace drydock
