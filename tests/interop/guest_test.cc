// SPDX-License-Identifier: GPL-3.0-or-later
//
// The guest commands beside libguestfs-tools, on the same images. Every command starts an appliance, which takes 10 s
// and more without KVM: a test covers as much as it can with each.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <functional>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "inspect/appliance.h"
#include "src/unique_fd.h"
#include "tests/interop/guest_image.h"
#include "tests/interop/man_examples.h"
#include "tests/interop/served.h"
#include "tests/support/in_process.h"
#include "tests/support/support.h"

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace drydock {
namespace {

namespace fs = std::filesystem;
using test::Outcome;
using testing::HasSubstr;

class Guest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    // The product has to find out by itself what works here.
    ::unsetenv("LIBGUESTFS_BACKEND");
    ::unsetenv("LIBGUESTFS_BACKEND_SETTINGS");
    shared_ = std::make_unique<test::TempDir>();
    const fs::path tree = shared_->path() / "tree";
    test::make_debian_tree(tree, "/dev/sda2 / ext4 defaults 0 1\n/dev/sda1 /boot/efi vfat defaults 0 2\n");
    test::make_partitioned_guest(shared_->file("guest.img"), tree, shared_->path());
    test::run_ok({"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", shared_->file("guest.img"),
                  shared_->file("guest.qcow2")});
  }
  static void TearDownTestSuite() { shared_.reset(); }

  static std::string image() { return shared_->file("guest.img"); }
  std::string copy_of_image(const std::string& name) const {
    fs::copy_file(image(), dir_.path() / name);
    return dir_.file(name);
  }
  static std::string hash(const std::string& path) { return test::run_ok({"sha256sum", path}).substr(0, 64); }

  // The appliance's kernel numbers and names its disks as it meets them, and virt-filesystems passes on what LVM calls
  // them there.
  static std::string without_disk_names(const std::string& text) {
    const std::string numbers = std::regex_replace(text, std::regex("\\b8:[0-9]+\\b"), "8:N");
    return std::regex_replace(numbers, std::regex("/dev/sd[a-z]"), "/dev/sdX");
  }

  struct Comparison {
    std::string incumbent;
    std::vector<std::string> words;
  };

  // The same words to both, and the same answer from both, with one launch of our own, beside which the incumbents have
  // theirs. All are of the same disks. `more` is done with our launch, too; it has ended before the incumbents' output
  // is waited for, since what it forks may hold their pipes open.
  static void expect_all_same(const std::vector<Comparison>& comparisons, const std::function<void()>& more = {}) {
    auto running = std::async(std::launch::async, [&] {
      std::vector<Outcome> outcomes;
      for (const Comparison& each : comparisons) {
        std::vector<std::string> theirs{each.incumbent};
        theirs.insert(theirs.end(), each.words.begin(), each.words.end());
        outcomes.push_back(test::run_incumbent(theirs));
      }
      return outcomes;
    });
    std::vector<Outcome> ours;
    {
      const KeptAppliance kept;
      for (const Comparison& each : comparisons) {
        std::vector<std::string> words{each.incumbent};
        words.insert(words.end(), each.words.begin(), each.words.end());
        ours.push_back(test::drydock_as(words));
      }
      if (more) more();
    }
    const std::vector<Outcome> theirs = running.get();
    for (size_t i = 0; i < comparisons.size(); ++i) {
      EXPECT_EQ(ours[i].status, theirs[i].status) << comparisons[i].incumbent << ": " << ours[i].err << theirs[i].err;
      EXPECT_EQ(without_disk_names(ours[i].out), without_disk_names(theirs[i].out)) << comparisons[i].incumbent;
    }
  }

  static void expect_clean(const std::string& path) {
    const Outcome check = test::run({"e2fsck", "-fn", test::root_filesystem(path)});
    EXPECT_EQ(check.status, 0) << check.out << check.err;
  }
  static std::string debugfs(const std::string& path, const std::string& request) {
    return test::run_ok({"debugfs", "-R", request, test::root_filesystem(path)});
  }

  static std::unique_ptr<test::TempDir> shared_;
  test::TempDir dir_;
};

std::unique_ptr<test::TempDir> Guest::shared_;

TEST_F(Guest, safety_1_reading_commands_speak_as_libguestfs_tools_do_and_change_nothing) {
  const std::string before = hash(image());
  expect_all_same({
      {"virt-filesystems", {"-a", image(), "--all", "--long", "--uuid"}},
      {"virt-filesystems", {"-a", image(), "--csv", "-l", "--parts", "--filesystems"}},
      {"virt-df", {"--format=raw", "-a", image()}},
      {"virt-cat", {"-a", image(), "/etc/hostname", "/etc/link", "/home/user/sub/random"}},
      {"virt-ls", {"-a", image(), "-lR", "--uids", "--time-t", "--checksum=sha256", "/etc", "/home"}},
      {"virt-ls", {"-a", image(), "-m", "/dev/sda2", "-lR", "--csv", "--extra-stats", "--times", "/home"}},
      {"virt-ls", {"-a", image(), "-l", "/etc", "/home"}},
      {"virt-ls", {"-a", image(), "-R", "/"}},
  });
  const std::string second = shared_->file("esp.part");
  expect_all_same({{"virt-df", {"-a", image(), "-a", second, "-h"}}}, [&] {
    // Of a disk without a partition table only the appliance knows what there is.
    const Outcome wrong = test::drydock({"ls", "-a", image(), "-a", second, "-m", "/dev/sdb9", "/"});
    EXPECT_EQ(wrong.status, 1);
    EXPECT_THAT(wrong.err, HasSubstr("cannot mount /dev/sdb9 on /: "));
    EXPECT_THAT(wrong.err, HasSubstr("; there are: /dev/sdb (vfat), /dev/sda1 (vfat), /dev/sda2 (ext4)\n"));
    EXPECT_EQ(std::ranges::count(wrong.err, '\n'), 1) << wrong.err;
  });
  EXPECT_EQ(hash(image()), before);
}

TEST_F(Guest, qcow2_is_read_through_the_engine_and_json_tells_all) {
  const std::string image = shared_->file("guest.qcow2");
  const std::string before = hash(image);
  const KeptAppliance kept;
  const Outcome listed = test::drydock({"filesystems", "-a", image, "--json", "--all"});
  ASSERT_EQ(listed.status, 0) << listed.err;
  const auto volumes = nlohmann::json::parse(listed.out);
  ASSERT_EQ(volumes.size(), 5U) << listed.out;
  EXPECT_EQ(volumes[1]["name"], "/dev/sda2");
  EXPECT_EQ(volumes[1]["vfs"], "ext4");
  EXPECT_EQ(volumes[1]["label"], "rootfs");
  EXPECT_EQ(volumes[3]["parents"][0], "/dev/sda");
  // One file is missing: the others are printed, and the status tells.
  const Outcome cat = test::drydock({"cat", "-a", image, "/etc/nowhere", "/etc/hostname", "/etc"});
  EXPECT_EQ(cat.status, 1);
  EXPECT_EQ(cat.out, "guest1\n");
  EXPECT_THAT(cat.err, HasSubstr("drydock cat: /etc/nowhere: No such file or directory\n"));
  EXPECT_EQ(std::ranges::count(cat.err, '\n'), 2) << cat.err;
  // Of several folders each has its name above it; JSON has every field.
  const Outcome folders = test::drydock({"ls", "-a", image, "/home/user/sub", "/home/user"});
  EXPECT_EQ(folders.out, "/home/user/sub:\nempty\nrandom\n\n/home/user:\nescape\nsub\nwith space,comma\n");
  const Outcome files = test::drydock({"ls", "-a", image, "--root", "/dev/sda2", "--json", "/home/user/sub"});
  ASSERT_EQ(files.status, 0) << files.err;
  const auto random = nlohmann::json::parse(files.out)[1];
  for (const char* member : {"path", "type", "mode", "size", "uid", "gid", "atime", "mtime", "ctime", "device", "inode",
                             "nlink", "rdev", "blocks"}) {
    EXPECT_TRUE(random.contains(member)) << member;
  }
  const Outcome elsewhere = test::drydock({"cat", "-a", image, "--root", "/dev/sda1", "/etc/hostname"});
  EXPECT_EQ(elsewhere.status, 1);
  EXPECT_THAT(elsewhere.err,
              HasSubstr("--root /dev/sda1: no operating system was found there; there are: /dev/sda2 ("));
  EXPECT_EQ(hash(image), before);
}

TEST_F(Guest, where_nothing_is_found_one_clear_line_says_so) {
  const std::string empty = dir_.file("empty.raw");
  std::ofstream(empty).close();
  fs::resize_file(empty, test::mib);
  const KeptAppliance kept;
  const Outcome none = test::drydock({"cat", "-a", empty, "/etc/fstab"});
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("no operating system was found on this disk; `drydock filesystems` lists"));
  EXPECT_EQ(std::ranges::count(none.err, '\n'), 1) << none.err;
  for (const std::string command : {"df", "filesystems"}) {
    const Outcome ours = test::drydock({command, "-a", empty});
    EXPECT_EQ(ours.status, 0);
    EXPECT_THAT(ours.err, HasSubstr("drydock " + command + ": found no")) << ours.err;
    EXPECT_EQ(std::ranges::count(ours.out, '\n'), command == "df" ? 1 : 0) << ours.out;
    // As the incumbents have it.
    const Outcome dropped_in = test::drydock_as({"virt-" + command, "-a", empty});
    EXPECT_EQ(dropped_in.status, 0);
    EXPECT_EQ(dropped_in.err, "");
    EXPECT_EQ(dropped_in.out, ours.out);
  }
}

std::string tree_listing(const fs::path& folder) {
  return test::run_ok({"find", folder.string(), "-printf", "%P %y %m %U:%G %s %l\n"});
}

TEST_F(Guest, safety_12_copy_out_copies_as_virt_copy_out_but_no_set_uid_bits) {
  fs::create_directory(dir_.path() / "theirs");
  fs::create_directory(dir_.path() / "ours");
  const std::vector<std::string> words{"-a", image(), "/home", "/usr", "/etc/hostname"};
  std::vector<std::string> theirs{"virt-copy-out"};
  std::vector<std::string> ours{"copy-out"};
  theirs.insert(theirs.end(), words.begin(), words.end());
  ours.insert(ours.end(), words.begin(), words.end());
  theirs.push_back(dir_.file("theirs"));
  // One that is not there stops no other.
  ours.insert(ours.begin() + 3, "/nowhere");
  ours.push_back(dir_.file("ours"));
  auto running = std::async(std::launch::async, [&] { return test::run_incumbent(theirs); });
  const Outcome outcome = test::drydock(ours);
  ASSERT_EQ(running.get().status, 0);
  ASSERT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("/nowhere: No such file or directory\n"));
  EXPECT_THAT(outcome.err, HasSubstr("1 file could not be copied; everything else is\n"));
  // The guest's filesystem keeps seconds.
  EXPECT_EQ(std::chrono::floor<std::chrono::seconds>(fs::last_write_time(dir_.path() / "ours/hostname")),
            std::chrono::floor<std::chrono::seconds>(fs::last_write_time(shared_->path() / "tree/etc/hostname")));
  test::run_ok({"diff", "-r", "--no-dereference", dir_.file("theirs"), dir_.file("ours")});
  const auto sorted_lines = [](const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) {
      // Sizes of folders are the host filesystem's business.
      if (line.find(" d ") == std::string::npos) lines.push_back(line);
    }
    std::ranges::sort(lines);
    return lines;
  };
  std::vector<std::string> expected = sorted_lines(tree_listing(dir_.path() / "theirs"));
  for (std::string& line : expected) line = std::regex_replace(line, std::regex(" f 4755 "), " f 755 ");
  EXPECT_EQ(sorted_lines(tree_listing(dir_.path() / "ours")), expected);
}

TEST_F(Guest, safety_6_edit_keeps_mode_owner_xattrs_and_label_and_a_file_that_fails_stops_no_other) {
  const std::string path = copy_of_image("edit.img");
  const std::string before = debugfs(path, "ea_list /etc/motd");
  const Outcome edited = test::drydock(
      {"edit", "-a", path, "-b", ".orig", "-e", "die qq{no\n} if /guest/; s/foo/bar/", "/etc/hostname", "/etc/motd"});
  EXPECT_EQ(edited.status, 1);
  EXPECT_THAT(edited.err, HasSubstr("the Perl expression failed: no"));
  expect_clean(path);
  EXPECT_EQ(debugfs(path, "cat /etc/motd"), "Welcome\nto bar\n");
  EXPECT_EQ(debugfs(path, "cat /etc/motd.orig"), "Welcome\nto foo\n");
  EXPECT_EQ(debugfs(path, "ea_list /etc/motd"), before);
  EXPECT_THAT(before, HasSubstr("system_u:object_r:etc_t:s0"));
  EXPECT_THAT(debugfs(path, "stat /etc/motd"), testing::ContainsRegex("Mode:  0640.*User: +12 +Group: +34"));
  EXPECT_EQ(debugfs(path, "cat /etc/hostname"), "guest1\n");
  EXPECT_THAT(debugfs(path, "ls -p /etc"), testing::Not(testing::ContainsRegex("\\.drydock|hostname\\.orig")));
}

TEST_F(Guest, copy_in_merges_folders_and_edit_follows_the_incumbents) {
  const std::string ours = copy_of_image("ours.img");
  const std::string theirs = copy_of_image("theirs.img");
  fs::create_directories(dir_.path() / "user/sub");
  test::write_file(dir_.file("user/sub/added"), "added\n");
  auto copying = std::async(std::launch::async, [&] {
    return test::run_incumbent({"virt-copy-in", "-a", theirs, dir_.file("user"), "/home"}).status;
  });
  {
    Served served({"--rw", "-f", "raw", "--socket", dir_.file("socket"), ours});
    EXPECT_EQ(test::drydock({"copy-in", "-a", served.uris().front(), dir_.file("user"), "/home"}).status, 0);
    EXPECT_EQ(served.end(SIGTERM), 0);
  }
  ASSERT_EQ(copying.get(), 0);
  const std::string expression = "$_ = \"$lineno:$_\"; s/(foo)/<$1>/; $_ .= \"end\\n\" if /Welcome/";
  auto editing = std::async(std::launch::async, [&] {
    return test::run_incumbent({"virt-edit", "-a", theirs, "/etc/motd", "-e", expression}).status;
  });
  EXPECT_EQ(test::drydock_as({"virt-edit", "-a", ours, "/etc/motd", "-e", expression}).status, 0);
  ASSERT_EQ(editing.get(), 0);
  for (const char* file :
       {"/home/user/sub/added", "/home/user/sub/random", "/home/user/with space,comma", "/etc/motd"}) {
    const std::string request = fmt::format("cat \"{}\"", file);
    EXPECT_EQ(debugfs(ours, request), debugfs(theirs, request)) << file;
  }
  expect_clean(ours);
}

TEST_F(Guest, root_on_lvm_is_listed_read_and_measured) {
  const fs::path tree = dir_.path() / "tree";
  test::make_debian_tree(tree, "/dev/vg_guest/lv_root / ext4 defaults 0 1\n/dev/vg_guest/lv_swap none swap sw 0 0\n");
  const std::string path = dir_.file("lvm.img");
  test::make_lvm_guest(path, tree, dir_.path());
  const std::string before = hash(path);
  expect_all_same(
      {{"virt-filesystems", {"-a", path, "--all", "--long", "--uuid", "-h"}}, {"virt-df", {"-a", path, "--csv"}}}, [&] {
        const Outcome cat = test::drydock({"cat", "-a", path, "/etc/hostname"});
        EXPECT_EQ(cat.status, 0) << cat.err;
        EXPECT_EQ(cat.out, "guest1\n");
      });
  EXPECT_EQ(hash(path), before);
}

TEST_F(Guest, an_encrypted_guest_opens_with_its_key_only) {
  const fs::path tree = dir_.path() / "tree";
  test::make_debian_tree(tree, "LABEL=cryptroot / ext4 defaults 0 1\n");
  const std::string path = dir_.file("luks.img");
  test::make_encrypted_guest(path, tree, dir_.path());
  const UniqueFd progress(::open(dir_.file("progress").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const Outcome wrong = test::drydock({"cat", "-a", path, "--key", "all:key:wrong", "--keys-from-stdin",
                                       "--progress-fd", std::to_string(progress.get()), "/etc/hostname"});
  EXPECT_EQ(wrong.status, 1);
  EXPECT_THAT(wrong.err, HasSubstr("/dev/sda1 is encrypted, and no key opens it; --key /dev/sda1:file:FILENAME"));
  std::ifstream progress_lines(dir_.file("progress"));
  std::vector<nlohmann::json> told;
  for (std::string line; std::getline(progress_lines, line);) told.push_back(nlohmann::json::parse(line));
  ASSERT_GE(told.size(), 3U);
  EXPECT_EQ(told.front()["phase"], "launching");
  EXPECT_EQ(told[told.size() - 2]["percent"], 100.0);
  EXPECT_EQ(told.back()["state"], "failed");

  const KeptAppliance kept;
  const Outcome measured = test::drydock({"df", "-a", path});
  EXPECT_EQ(measured.status, 1);
  EXPECT_THAT(measured.err, HasSubstr("drydock df: /dev/sda1 is left out: it is encrypted\n"));
  EXPECT_EQ(test::drydock_as({"virt-df", "-a", path}).err, "");
  const Outcome opened = test::drydock({"cat", "-a", path, "--key", "all:key:secret", "/etc/hostname"});
  EXPECT_EQ(opened.status, 0) << opened.err;
  EXPECT_EQ(opened.out, "guest1\n");
}

// The process's children of that name, as pid and command line.
std::vector<std::pair<pid_t, std::string>> children_named(pid_t parent, const std::string& name) {
  std::vector<std::pair<pid_t, std::string>> found;
  std::error_code failure;
  for (const auto& thread : fs::directory_iterator(fmt::format("/proc/{}/task", parent), failure)) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child = 0; list >> child;) {
      std::ifstream file(fmt::format("/proc/{}/cmdline", child));
      std::string line{std::istreambuf_iterator<char>(file), {}};
      std::ranges::replace(line, '\0', ' ');
      if (line.find(name) != std::string::npos) found.emplace_back(child, line);
    }
  }
  return found;
}

TEST_F(Guest, safety_7_a_signal_leaves_no_process_socket_or_folder_behind) {
  for (const int signal : {SIGINT, SIGTERM}) {
    const fs::path temporary = dir_.path() / fmt::format("tmp{}", signal);
    fs::create_directory(temporary);
    const std::vector<std::string> words{"env",
                                         "TMPDIR=" + temporary.string(),
                                         "LIBGUESTFS_CACHEDIR=/var/tmp",
                                         test::drydock_program(),
                                         "ls",
                                         "-R",
                                         "-a",
                                         image(),
                                         "/"};
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    pid_t child = 0;
    ASSERT_EQ(::posix_spawnp(&child, "env", nullptr, nullptr, argv.data(), environ), 0);
    // A virtual machine that runs, with its socket and its disks.
    std::string command_line;
    ASSERT_TRUE(test::wait_until([&] {
      const auto machines = children_named(child, "guestfsd.sock");
      if (!machines.empty()) command_line = machines[0].second;
      return !machines.empty();
    }));
    std::smatch socket;
    ASSERT_TRUE(std::regex_search(command_line, socket, std::regex("path=(\\S+)/guestfsd.sock")));
    const fs::path socket_folder = socket[1].str();
    EXPECT_TRUE(fs::exists(socket_folder));
    EXPECT_FALSE(fs::is_empty(temporary));
    const pid_t machine = children_named(child, "guestfsd.sock")[0].first;

    ::kill(child, signal);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal) << status;
    EXPECT_FALSE(fs::exists(socket_folder)) << socket_folder;
    EXPECT_TRUE(fs::is_empty(temporary)) << *fs::directory_iterator(temporary);
    EXPECT_TRUE(test::wait_until([&] { return ::kill(machine, 0) != 0; }));
  }
}

// In a folder that becomes the working folder while it lives.
class WorkingFolder {
 public:
  explicit WorkingFolder(const fs::path& folder) : before_(fs::current_path()) { fs::current_path(folder); }
  WorkingFolder(const WorkingFolder&) = delete;
  WorkingFolder& operator=(const WorkingFolder&) = delete;
  ~WorkingFolder() { fs::current_path(before_); }

 private:
  fs::path before_;
};

// Those that launch nothing are in man_examples_test.cc.
TEST_F(Guest, the_examples_of_the_manuals_do_what_they_say) {
  const WorkingFolder here(dir_.path());
  test::run_ok({std::string(DRYDOCK_SUPPORT) + "/make-sample-guest", "guest.qcow2"});
  test::write_file("site.conf", "server {}\n");
  fs::create_directory("certs");
  test::write_file("certs/site.pem", "certificate\n");
  std::optional<KeptAppliance> kept(std::in_place);  // what reads comes first: the image is the same for all of it
  std::vector<std::vector<std::string>> writing;
  for (const test::Display& display : test::displays_of_manuals(DRYDOCK_MAN)) {
    for (const test::Example& example : display.examples) {
      std::vector<std::string> words = test::words_of(example.command);
      if (!display.needs_appliance() || words[0] != "drydock") continue;
      words.erase(words.begin());
      if (words[0] == "edit" || words[0] == "copy-in") {
        writing.push_back(words);
        continue;
      }
      const Outcome outcome = test::drydock(words);
      EXPECT_EQ(outcome.status, 0) << display.where() << ": " << outcome.err;
      if (example.output.empty()) continue;
      EXPECT_EQ(test::without_figures(outcome.out), test::without_figures(example.output)) << display.where();
    }
  }
  EXPECT_TRUE(fs::exists("log/syslog"));
  kept.reset();
  for (const auto& words : writing) {
    const Outcome outcome = test::drydock(words);
    EXPECT_EQ(outcome.status, 0) << words[0] << ": " << outcome.err;
  }
  EXPECT_EQ(writing.size(), 2U);
  test::run_ok({"qemu-img", "convert", "-O", "raw", "guest.qcow2", "guest.raw"});
  const std::string root = "guest.raw?offset=" + std::to_string(49 << 20);
  const std::string menu = test::run_ok({"debugfs", "-R", "cat /boot/grub/grub.cfg", root});
  EXPECT_THAT(menu, HasSubstr(" ro\n"));
  EXPECT_THAT(menu, testing::Not(HasSubstr("quiet")));
  EXPECT_THAT(test::run_ok({"debugfs", "-R", "cat /boot/grub/grub.cfg.orig", root}), HasSubstr(" ro quiet\n"));
  EXPECT_EQ(test::run_ok({"debugfs", "-R", "cat /etc/ssh/certs/site.pem", root}), "certificate\n");
}

TEST_F(Guest, doctor_finds_a_machine_that_can_do_all_this) {
  const Outcome outcome = test::drydock({"doctor", "--json", "--appliance"});
  EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  const auto checks = nlohmann::json::parse(outcome.out);
  for (const char* name :
       {"drydock", "FUSE device", "FUSE helper", "libguestfs", "appliance kernel", "KVM", "appliance"}) {
    EXPECT_TRUE(std::ranges::any_of(checks, [&](const auto& check) { return check["check"] == name; })) << name;
  }
}

}  // namespace
}  // namespace drydock
