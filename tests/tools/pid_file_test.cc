// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/pid_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <optional>

#include "tests/support/support.h"

namespace drydock::cli {
namespace {

using testing::HasSubstr;

std::string text_of(const std::string& path) {
  const auto bytes = test::read_file(path);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class pid_file : public testing::Test {
 protected:
  test::TempDir dir;
  std::string path = dir.file("pid");
};

TEST_F(pid_file, holds_the_process_id_and_goes_away) {
  {
    const PidFile file(path);
    EXPECT_EQ(text_of(path), fmt::format("{}\n", ::getpid()));
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0644U);
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST_F(pid_file, one_in_use_is_refused_and_one_left_behind_replaced) {
  // Even where the number in it is that of some other process by now.
  test::write_file(path, "1\n");
  const PidFile file(path);
  EXPECT_EQ(text_of(path), fmt::format("{}\n", ::getpid()));
  const Error error = test::error_of([&] { const PidFile second(path); });
  EXPECT_EQ(error.kind(), ErrorKind::busy);
  EXPECT_THAT(error.what(), HasSubstr(fmt::format("it belongs to process {}, which runs", ::getpid())));
}

TEST_F(pid_file, another_kind_of_file_is_left_alone) {
  test::write_file(path, "precious");
  EXPECT_EQ(test::error_of([&] { const PidFile file(path); }).kind(), ErrorKind::refused);
  EXPECT_EQ(text_of(path), "precious");
  std::filesystem::remove(path);
  std::filesystem::create_symlink(dir.file("elsewhere"), path);
  test::error_of([&] { const PidFile file(path); });
  EXPECT_FALSE(std::filesystem::exists(dir.file("elsewhere")));
  EXPECT_EQ(test::error_of([&] { const PidFile file(dir.file("no/folder")); }).kind(), ErrorKind::not_found);
}

TEST_F(pid_file, what_somebody_put_in_its_place_stays) {
  std::optional<PidFile> file(path);
  std::filesystem::remove(path);
  test::write_file(path, "2\n");
  file.reset();
  EXPECT_EQ(text_of(path), "2\n");
}

}  // namespace
}  // namespace drydock::cli
