// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images of other formats, as the programs make them that they are of: every command refuses to take them for raw
// disks.

#include <gmock/gmock.h>

#include <filesystem>
#include <memory>

#include "tests/support/in_process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::Outcome;
using testing::HasSubstr;

class ForeignFormats : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<test::TempDir>();
    raw_ = file("raw");
    test::write_file(raw_, test::random_bytes(1, test::mib));
    for (const std::string format : {"vmdk", "vdi", "vhdx", "vpc", "qed", "qcow", "parallels"})
      make(format, format, "");
    make("vmdk-flat", "vmdk", "subformat=monolithicFlat");
    make("vmdk-stream", "vmdk", "subformat=streamOptimized");
    make("vpc-fixed", "vpc", "subformat=fixed");
    for (const std::string program : {"gzip", "xz", "zstd"}) test::run_ok({program, "-q", "-k", raw_});
    test::run_ok({"tar", "-C", dir_->path().string(), "-cf", file("tar"), "raw"});
    for (const char* made : {"raw.gz", "raw.xz", "raw.zst", "tar"}) wrapped_.push_back(file(made));
  }

  static void TearDownTestSuite() { dir_.reset(); }

  static std::string file(const std::string& name) { return dir_->file(name); }

  static void make(const std::string& name, const std::string& format, const std::string& option) {
    std::vector<std::string> words{"qemu-img", "convert", "-f", "raw", "-O", format};
    if (!option.empty()) words.insert(words.end(), {"-o", option});
    words.insert(words.end(), {raw_, file(name)});
    test::run_ok(words);
    images_.push_back(file(name));
  }

  static void expect_refused(const Outcome& outcome, const std::string& what) {
    EXPECT_EQ(outcome.status, what.starts_with("compare") ? 2 : 1) << what << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("is in the format ")) << what;
    EXPECT_EQ(outcome.out, "") << what;
  }

  static std::unique_ptr<test::TempDir> dir_;
  static std::string raw_;
  static std::vector<std::string> images_;
  static std::vector<std::string> wrapped_;
};

std::unique_ptr<test::TempDir> ForeignFormats::dir_;
std::string ForeignFormats::raw_;
std::vector<std::string> ForeignFormats::images_;
std::vector<std::string> ForeignFormats::wrapped_;

TEST_F(ForeignFormats, are_refused_by_every_command_that_opens_an_image) {
  std::vector<std::string> all = images_;
  all.insert(all.end(), wrapped_.begin(), wrapped_.end());
  for (const std::string& image : all) {
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{"info", image},
                                               {"convert", "-O", "qcow2", image, file("target")},
                                               {"map", image},
                                               {"check", image},
                                               {"compare", raw_, image},
                                               {"measure", "-O", "qcow2", image},
                                               {"resize", image, "+1M"},
                                               {"dd", "if=" + image, "of=" + file("target")},
                                               {"snapshot", "-l", image},
                                               {"filesystems", "-a", image},
                                               {"df", "-a", image},
                                               {"ls", "-a", image, "/"},
                                               {"cat", "-a", image, "/etc/fstab"},
                                               {"copy-in", "-a", image, raw_, "/"}}) {
      expect_refused(test::drydock(words), words[0] + " " + image + ": ");
    }
    EXPECT_FALSE(std::filesystem::exists(file("target")));
    EXPECT_EQ(test::drydock({"info", "-f", "raw", image}).status, 0) << image;
  }
}

TEST_F(ForeignFormats, are_not_served_or_exported) {
  for (const std::string& image : {images_[0], wrapped_[0]}) {
    expect_refused(test::run({"timeout", "20", test::drydock_program(), "serve", "-k", file("socket"), image}),
                   "serve: ");
    std::filesystem::create_directories(file("mount"));
    expect_refused(
        test::run({"timeout", "20", test::drydock_program(), "export", "--foreground", image, file("mount")}),
        "export: ");
  }
}

TEST_F(ForeignFormats, fail_under_the_name_qemu_img_where_qemu_img_reads_them) {
  for (const std::string& image : images_) {
    const Outcome theirs = test::run({"qemu-img", "info", image});
    const Outcome ours = test::drydock_as({"qemu-img", "info", image});
    if (theirs.out.find("file format: raw\n") == std::string::npos) {
      EXPECT_EQ(ours.status, 1) << image;
      EXPECT_THAT(ours.err, testing::StartsWith("qemu-img: Could not open '" + image + "': is in the format "));
    } else {
      EXPECT_EQ(ours.out, theirs.out) << image;
    }
  }
  for (const std::string& image : wrapped_) {
    EXPECT_EQ(test::drydock_as({"qemu-img", "info", image}).out, test::run_ok({"qemu-img", "info", image}));
  }
}

}  // namespace
}  // namespace drydock
