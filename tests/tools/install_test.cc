// SPDX-License-Identifier: GPL-3.0-or-later
//
// What `meson install` puts where: one staged installation, and all the tests look at it.

#include <gmock/gmock.h>

#include <set>

#include "tests/support/support.h"
#include "tools/commands.h"
#include "version.h"

namespace drydock::cli {
namespace {

namespace fs = std::filesystem;
using test::Outcome;
using test::run;
using test::run_ok;
using testing::HasSubstr;
using testing::Not;

class install : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    stage_ = std::make_unique<test::TempDir>();
    run_ok({"meson", "install", "-C", DRYDOCK_BUILD, "--no-rebuild", "--destdir", stage_->path().string()});
  }
  static void TearDownTestSuite() { stage_.reset(); }

  // A path below the installation's prefix.
  static std::string installed(const std::string& path) { return stage_->path().string() + DRYDOCK_PREFIX "/" + path; }

  // What bash offers where the cursor stands behind the last of `words`.
  static std::string bash_offers(const std::string& words) {
    return run_ok({"bash", "-c",
                   "source \"$0\" && COMP_WORDS=(" + words +
                       ") && COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) && _drydock && echo \"${COMPREPLY[*]}\"",
                   installed("share/bash-completion/completions/drydock")});
  }

  // What zsh's completion system would be asked for.
  static std::string zsh_asks(const std::string& words) {
    return run_ok({"zsh", "-fc",
                   "compdef() {}; _arguments() { print -l -- \"$@\" }; _describe() { print -l -- $commands }; "
                   "source \"$0\" && words=(" +
                       words + ") && CURRENT=$#words && _drydock",
                   installed("share/zsh/site-functions/_drydock")});
  }

  static std::unique_ptr<test::TempDir> stage_;
};

std::unique_ptr<test::TempDir> install::stage_;

TEST_F(install, the_program_runs_from_where_it_was_put) {
  EXPECT_EQ(run_ok({installed("bin/drydock"), "--version"}),
            std::string("drydock (drydock) ") + DRYDOCK_VERSION + "\n");
}

TEST_F(install, commands_on_images_load_no_guest_libraries) {
  EXPECT_THAT(run_ok({"ldd", installed("bin/drydock")}), Not(HasSubstr("libguestfs")));
  EXPECT_THAT(run_ok({"ldd", installed("bin/drydock")}), Not(HasSubstr("libcrypto")));
  EXPECT_THAT(run_ok({"ldd", installed("libexec/drydock/drydock-complete")}), HasSubstr("libguestfs"));
}

TEST_F(install, without_the_complete_program_the_commands_on_images_go_on) {
  const test::TempDir dir;
  fs::copy(installed("bin/drydock"), dir.file("drydock"));
  EXPECT_EQ(run({dir.file("drydock"), "create", "-q", dir.file("disk"), "1M"}).status, 0);
  const Outcome outcome = run({dir.file("drydock"), "help"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("drydock-complete: No such file or directory"));
}

TEST_F(install, every_command_has_its_manual) {
  for (const Command* command : all_commands()) {
    EXPECT_TRUE(fs::exists(installed(fmt::format("share/man/man1/drydock-{}.1", command->name)))) << command->name;
  }
  for (const std::string page : {"man1/drydock.1", "man7/drydock-formats.7", "man7/drydock-security.7",
                                 "man7/drydock-hacking.7", "man7/drydock-qemu-img.7"}) {
    EXPECT_TRUE(fs::exists(installed("share/man/" + page))) << page;
  }
}

TEST_F(install, the_drop_in_folder_holds_every_incumbents_name_and_no_other) {
  std::set<std::string> expected;
  for (const Command* command : all_commands()) {
    if (!command->incumbent.empty()) expected.emplace(command->incumbent);
  }
  expected.emplace("qemu-img");
  std::set<std::string> found;
  if (fs::exists(installed("libexec/drydock/bin"))) {
    for (const auto& entry : fs::directory_iterator(installed("libexec/drydock/bin"))) {
      found.insert(entry.path().filename().string());
    }
  }
  EXPECT_EQ(found, expected);
}

TEST_F(install, drop_ins_are_relative_links_that_answer_by_their_own_name) {
  for (const Command* command : all_commands()) {
    if (command->incumbent.empty()) continue;
    const std::string name(command->incumbent);
    const std::string link = installed("libexec/drydock/bin/" + name);
    EXPECT_EQ(fs::read_symlink(link), "../../../bin/drydock");
    EXPECT_EQ(run_ok({link, "--version"}), fmt::format("{} (drydock) {}\n", name, DRYDOCK_VERSION));
    const Outcome outcome = run({link, "--no-such-option"});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr(name + ": unknown option '--no-such-option'"));
  }
}

TEST_F(install, the_link_named_qemu_img_answers_as_qemu_img) {
  const std::string link = installed("libexec/drydock/bin/qemu-img");
  EXPECT_EQ(fs::read_symlink(link), "../../../bin/drydock");
  EXPECT_EQ(run_ok({link, "--version"}), std::string("qemu-img version 7.2.0 (drydock ") + DRYDOCK_VERSION + ")\n");
  const Outcome outcome = run({link, "info"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, "qemu-img: Expecting one image file name\nTry 'qemu-img --help' for more information\n");
}

TEST_F(install, bash_completes_commands_options_and_values) {
  EXPECT_EQ(bash_offers("drydock inf"), "info\n");
  EXPECT_EQ(bash_offers("drydock info --backing-"), "--backing-format --backing-chain\n");
  EXPECT_EQ(bash_offers("drydock info --format q"), "qcow2\n");
  EXPECT_EQ(bash_offers("drydock info --output = j"), "json\n");
  EXPECT_EQ(bash_offers("drydock info --allow-dir ''"), "\n");
  EXPECT_EQ(bash_offers("drydock info disk"), "\n");
  EXPECT_EQ(bash_offers("drydock help ma"), "map\n");
}

TEST_F(install, bash_offers_every_command_and_every_option) {
  std::string names;
  for (const Command* command : all_commands()) {
    names += fmt::format("{} ", command->name);
    std::string options;
    for (const OptionSpec& spec : all_options(*command)) {
      if (spec.short_name != 0) options += fmt::format("-{} ", spec.short_name);
      if (!spec.long_name.empty()) options += fmt::format("--{} ", spec.long_name);
    }
    options.back() = '\n';
    EXPECT_EQ(bash_offers(fmt::format("drydock {} -", command->name)), options);
  }
  EXPECT_EQ(bash_offers("drydock ''"), names + "help\n");
}

TEST_F(install, zsh_is_told_of_every_command_and_every_option) {
  const std::string commands = zsh_asks("drydock ''");
  for (const Command* command : all_commands()) {
    EXPECT_THAT(commands, HasSubstr(fmt::format("{}:", command->name)));
    const std::string rows = zsh_asks(fmt::format("drydock {} ''", command->name));
    for (const OptionSpec& spec : all_options(*command)) {
      const std::string label =
          spec.long_name.empty() ? std::string(1, spec.short_name) : fmt::format("-{}", spec.long_name);
      EXPECT_THAT(rows, HasSubstr(fmt::format("\n*-{}", label)));
      if (spec.short_name != 0) {
        EXPECT_THAT(rows, HasSubstr(fmt::format("\n*-{}", spec.short_name)));
      }
    }
  }
}

}  // namespace
}  // namespace drydock::cli
