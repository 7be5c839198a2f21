// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/open_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include "src/error.h"
#include "src/memory_storage.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using testing::HasSubstr;

class LocalGate : public testing::Test {
 protected:
  LocalGate() {
    std::filesystem::create_directories(dir_.path() / "images/deep");
    test::write_file(image_, "image");
    test::write_file(dir_.file("images/base.raw"), "base");
    test::write_file(dir_.file("images/deep/base.raw"), "deep");
    test::write_file(dir_.file("outside.raw"), "outside");
  }

  std::string open(const std::string& name, std::vector<std::string> allowed = {}) {
    const auto storage = LocalFilesGate(std::move(allowed)).open({name, image_, FileRole::backing_file}, false);
    std::string text(storage->size(), '\0');
    storage->read(HostOffset(0), std::as_writable_bytes(std::span(text)));
    return text;
  }

  test::TempDir dir_;
  const std::string image_ = dir_.file("images/overlay.qcow2");
};

TEST_F(LocalGate, opens_names_relative_to_the_image_and_absolute_ones_beside_it) {
  EXPECT_EQ(open("base.raw"), "base");
  EXPECT_EQ(open("deep/base.raw"), "deep");
  EXPECT_EQ(open(dir_.file("images/base.raw")), "base");
  EXPECT_EQ(open("deep/../base.raw"), "base");
}

TEST_F(LocalGate, safety_9_a_name_outside_the_images_tree_is_refused_unless_allowed) {
  for (const std::string& name :
       {std::string("../outside.raw"), dir_.file("outside.raw"), std::string("/etc/passwd")}) {
    const Error error = test::error_of([&] { open(name); });
    EXPECT_EQ(error.kind(), ErrorKind::refused) << name;
    EXPECT_THAT(error.what(), HasSubstr("--allow-dir"));
    EXPECT_THAT(error.what(), HasSubstr("overlay.qcow2"));
  }
  EXPECT_EQ(open("../outside.raw", {dir_.path().string()}), "outside");
  EXPECT_EQ(open(dir_.file("outside.raw"), {"/"}), "outside");
}

TEST_F(LocalGate, safety_9_a_symlink_out_of_the_tree_is_refused) {
  std::filesystem::create_symlink("../outside.raw", dir_.path() / "images/link.raw");
  std::filesystem::create_symlink("base.raw", dir_.path() / "images/inner.raw");
  EXPECT_EQ(test::error_of([&] { open("link.raw"); }).kind(), ErrorKind::refused);
  EXPECT_EQ(open("inner.raw"), "base");
}

TEST_F(LocalGate, cve_2024_4467_json_names_urls_and_drivers_are_refused) {
  for (const char* name :
       {"json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "nbdx://localhost", "ssh://host/x", "https://host/x",
        "file:base.raw", "fat:rw:.", "host_device:/dev/sda", "rbd:pool/image"}) {
    const Error error = test::error_of([&] { open(name); });
    EXPECT_EQ(error.kind(), ErrorKind::refused) << name;
    EXPECT_THAT(error.what(), HasSubstr("only plain local paths")) << name;
  }
}

// Knows one server.
class OneServer final : public RemoteOpener {
 public:
  std::shared_ptr<Storage> open(const std::string&, bool) const override { throw std::logic_error("not for gates"); }
  std::shared_ptr<Storage> open_allowed(const std::string& name, bool writable) const override {
    if (name != "nbd://allowed/base") return nullptr;
    return std::make_shared<MemoryStorage>(std::vector<std::byte>(1), name, writable);
  }
};

TEST_F(LocalGate, safety_9_servers_are_refused_unless_allowed) {
  const LocalFilesGate gate({"/"}, std::make_shared<OneServer>());
  EXPECT_EQ(gate.open({"nbd://allowed/base", image_, FileRole::backing_file}, false)->name(), "nbd://allowed/base");
  for (const char* name : {"nbd://other/base", "nbds://allowed/base", "nbd+unix:///base?socket=/run/s",
                           "nbd:unix:/run/s", "nbd:allowed:1"}) {
    const Error error = test::error_of([&] { gate.open({name, image_, FileRole::backing_file}, false); });
    EXPECT_EQ(error.kind(), ErrorKind::refused) << name;
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("allow that server with --allow-nbd '{}'", name)));
    EXPECT_EQ(test::error_of([&] { open(name, {"/"}); }).kind(), ErrorKind::refused) << "without an opener";
  }
}

TEST_F(LocalGate, safety_9_an_image_on_a_server_has_no_tree_of_its_own) {
  const std::string namer = "nbd+unix:///image?socket=" + dir_.file("images/socket");
  for (const std::string& name : {std::string("base.raw"), std::string("./base.raw"), dir_.file("images/base.raw")}) {
    const Error error = test::error_of([&] { LocalFilesGate().open({name, namer, FileRole::backing_file}, false); });
    EXPECT_EQ(error.kind(), ErrorKind::refused) << name;
  }
  const LocalFilesGate gate({dir_.file("images")});
  EXPECT_EQ(gate.open({dir_.file("images/base.raw"), namer, FileRole::backing_file}, false)->size(), 4U);
}

TEST_F(LocalGate, safety_9_only_regular_files_and_block_devices_are_opened) {
  EXPECT_EQ(test::error_of([&] { open("deep"); }).kind(), ErrorKind::invalid);
  ASSERT_EQ(::mkfifo(dir_.file("images/pipe").c_str(), 0600), 0);
  const Error error = test::error_of([&] { open("pipe"); });
  EXPECT_EQ(error.kind(), ErrorKind::invalid);
  EXPECT_THAT(error.what(), HasSubstr("a pipe"));
  EXPECT_EQ(test::error_of([&] { open("/dev/zero", {"/"}); }).kind(), ErrorKind::invalid);
}

TEST_F(LocalGate, a_missing_file_is_named_with_the_image_that_wants_it) {
  const Error error = test::error_of([&] { open("gone.raw"); });
  EXPECT_EQ(error.kind(), ErrorKind::not_found);
  EXPECT_THAT(error.what(), HasSubstr("gone.raw"));
  EXPECT_THAT(error.what(), HasSubstr("overlay.qcow2"));
}

}  // namespace
}  // namespace drydock
