// SPDX-License-Identifier: GPL-3.0-or-later
//
// rebase, commit, amend, resize: on chains of every kind qemu-img finds the same disk before and after; ended early
// they leave what they found; and every command has an answer in JSON.

#include <gmock/gmock.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "tests/support/in_process.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::drydock;
using test::Outcome;
using test::run;
using test::run_ok;
using testing::HasSubstr;
using testing::MatchesRegex;

class manage : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return dir_.file(name); }

  void create(const std::string& name, const std::string& options, const std::string& size) const {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path(name), size});
  }
  void write(const std::string& name, const std::vector<std::string>& commands) const {
    std::vector<std::string> words{"qemu-io", path(name)};
    for (const std::string& command : commands) words.insert(words.end(), {"-c", command});
    run_ok(words);
  }
  void remember(const std::string& name, const std::string& as) const {
    run_ok({"qemu-img", "convert", "-O", "qcow2", path(name), path(as)});
  }
  void expect_same(const std::string& a, const std::string& b, const std::string& what = {}) const {
    const Outcome compared = run({"qemu-img", "compare", path(a), path(b)});
    EXPECT_EQ(compared.status, 0) << what << ": " << compared.out << compared.err;
  }
  void expect_clean(const std::string& name, const std::string& what = {}) const {
    const Outcome check = run({"qemu-img", "check", path(name)});
    EXPECT_EQ(check.status, 0) << what << ": " << check.out << check.err;
  }
  static void expect_done(const std::vector<std::string>& words, const std::string& what = {}) {
    const Outcome outcome = drydock(words);
    EXPECT_EQ(outcome.status, 0) << what << ": " << outcome.err;
  }

  // Two bases that differ here and there, and a raw one that is shorter than a cluster's multiple.
  void make_bases() const {
    create("old.qcow2", "cluster_size=16k", "4M");
    write("old.qcow2", {"write -P 1 0 2M", "write -z 1M 100k", "write -P 2 3M 512k"});
    create("new.qcow2", "cluster_size=4k", "3M");
    write("new.qcow2", {"write -P 1 0 1500k", "write -P 9 1500k 500k", "write -P 7 2500k 20k"});
    test::write_file(path("new.raw"), test::random_bytes(5, 3'333'120));
  }

  const std::vector<std::string> kinds_{"compat=0.10",     "cluster_size=512",     "cluster_size=2M",
                                        "extended_l2=on",  "refcount_bits=1",      "lazy_refcounts=on",
                                        "data_file=d.raw", "compression_type=zstd"};

  test::TempDir dir_;
};

TEST_F(manage, an_overlay_of_any_kind_reads_the_same_on_any_new_base) {
  make_bases();
  for (const std::string& kind : kinds_) {
    std::string options = kind;
    if (kind.starts_with("data_file")) options = "data_file=" + path("d.raw");
    for (const std::vector<std::string>& target :
         {std::vector<std::string>{"new.qcow2", "qcow2"}, {"new.raw", "raw"}, {"", "qcow2"}}) {
      const std::string what = kind + " on " + target[0];
      create("over.qcow2", options + ",backing_file=old.qcow2,backing_fmt=qcow2", "5M");
      write("over.qcow2", {"write -P 3 1900k 300k", "write -P 4 4500k 10k", "write -z 256k 64k", "write -P 5 777k 3k"});
      remember("over.qcow2", "expected.qcow2");
      expect_done({"rebase", "-b", target[0], "-F", target[1], path("over.qcow2")}, what);
      expect_same("over.qcow2", "expected.qcow2", what);
      expect_clean("over.qcow2", what);
      fs::remove(path("over.qcow2"));
      fs::remove(path("d.raw"));
    }
  }
}

// What the overlay showed as zeros, for there was nothing below, is not to become what the new base has there.
TEST_F(manage, zeros_of_an_overlay_stay_zeros_on_a_new_base) {
  create("short.qcow2", "cluster_size=64k", "1M");
  create("fine.qcow2", "cluster_size=4k", "5M");
  write("fine.qcow2", {"write -P 1 0 4k", "write -P 2 100k 12k", "write -P 3 1028k 4k", "write -P 4 2M 2M",
                       "write -P 5 4500k 8k", "write -P 6 5116k 4k"});
  run_ok({"qemu-img", "convert", "-O", "raw", path("fine.qcow2"), path("fine.raw")});
  for (const std::string& kind : kinds_) {
    std::string options = kind;
    if (kind.starts_with("data_file")) options = "data_file=" + path("d.raw");
    for (const std::string old : {"", ",backing_file=short.qcow2,backing_fmt=qcow2"}) {
      for (const std::vector<std::string>& words : {std::vector<std::string>{"-b", "fine.qcow2", "-F", "qcow2"},
                                                    {"-b", "fine.raw", "-F", "raw"},
                                                    {"-c", "-b", "fine.qcow2", "-F", "qcow2"}}) {
        if (words[0] == "-c" && kind.starts_with("data_file")) continue;
        const std::string what = kind + old + " to " + words[1];
        create("over.qcow2", options + old, "5M");
        write("over.qcow2", {"write -P 7 110k 1k", "write -P 8 3M 64k"});
        remember("over.qcow2", "expected.qcow2");
        std::vector<std::string> all{"rebase"};
        all.insert(all.end(), words.begin(), words.end());
        all.push_back(path("over.qcow2"));
        expect_done(all, what);
        expect_same("over.qcow2", "expected.qcow2", what);
        expect_clean("over.qcow2", what);
        fs::remove(path("over.qcow2"));
        fs::remove(path("d.raw"));
      }
    }
  }
}

TEST_F(manage, what_a_compressing_rebase_takes_in_is_compressed) {
  make_bases();
  create("over.qcow2", "backing_file=old.qcow2,backing_fmt=qcow2", "4M");
  remember("over.qcow2", "expected.qcow2");
  expect_done({"rebase", "-c", "-b", "", path("over.qcow2")});
  expect_same("over.qcow2", "expected.qcow2");
  expect_clean("over.qcow2");
  EXPECT_THAT(run_ok({"qemu-img", "check", path("over.qcow2")}), HasSubstr("% compressed"));
  EXPECT_LT(fs::file_size(path("over.qcow2")), 2U << 20);
}

TEST_F(manage, a_base_of_any_kind_reads_as_its_overlay_did_after_commit) {
  for (const std::string& kind : kinds_) {
    std::string options = kind;
    if (kind.starts_with("data_file")) options = "data_file=" + path("d.raw");
    create("base.qcow2", options, "3M");
    write("base.qcow2", {"write -P 1 0 2M", "write -z 2500k 100k"});
    create("middle.qcow2", "cluster_size=4k,backing_file=base.qcow2,backing_fmt=qcow2", "2M");
    write("middle.qcow2", {"write -P 2 100k 33k", "write -z 1M 100k"});
    create("top.qcow2", "backing_file=middle.qcow2,backing_fmt=qcow2", "4M");
    write("top.qcow2", {"write -P 3 500k 1k", "write -P 4 3900k 10k", "write -z 2M 64k"});
    remember("top.qcow2", "expected.qcow2");
    expect_done({"commit", "-q", "-b", path("base.qcow2"), path("top.qcow2")}, kind);
    expect_same("base.qcow2", "expected.qcow2", kind);
    expect_clean("base.qcow2", kind);
    for (const std::string name : {"base.qcow2", "middle.qcow2", "top.qcow2", "d.raw"}) fs::remove(path(name));
  }
}

TEST_F(manage, an_overlay_keeps_its_snapshots_and_bitmaps_when_it_is_emptied) {
  create("base.qcow2", "cluster_size=64k", "4M");
  create("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "4M");
  write("top.qcow2", {"write -P 1 0 1M"});
  run_ok({"qemu-img", "snapshot", "-c", "kept", path("top.qcow2")});
  run_ok({"qemu-img", "bitmap", "--add", path("top.qcow2"), "kept"});
  write("top.qcow2", {"write -P 2 512k 1M"});
  const json before = json::parse(run_ok({"qemu-img", "info", "--output=json", path("top.qcow2")}));
  remember("top.qcow2", "expected.qcow2");
  EXPECT_THAT(drydock({"commit", path("top.qcow2")}).err, HasSubstr("warning: the image has internal snapshots"));
  const json after = json::parse(run_ok({"qemu-img", "info", "--output=json", path("top.qcow2")}));
  EXPECT_EQ(before.at("snapshots"), after.at("snapshots"));
  EXPECT_EQ(before.at("format-specific"), after.at("format-specific"));
  expect_same("base.qcow2", "expected.qcow2");
  expect_same("top.qcow2", "expected.qcow2");
  expect_clean("top.qcow2");
  run_ok({"qemu-img", "bitmap", "--remove", path("top.qcow2"), "kept"});  // QEMU would not apply the snapshot
  run_ok({"qemu-img", "snapshot", "-a", "kept", path("top.qcow2")});
  EXPECT_THAT(run_ok({"qemu-io", "-c", "read -P 1 0 1M", path("top.qcow2")}),
              testing::Not(HasSubstr("verification failed")));
}

TEST_F(manage, an_image_of_any_kind_is_amended_to_what_qemu_reads) {
  for (const std::string wish : {"compat=0.10", "refcount_bits=8", "refcount_bits=64,lazy_refcounts=on", "size=9M"}) {
    create("base.qcow2", "cluster_size=64k", "4M");
    write("base.qcow2", {"write -P 1 0 4M"});
    create("guest.qcow2", "cluster_size=4k,backing_file=base.qcow2,backing_fmt=qcow2", "5M");
    write("guest.qcow2", {"write -P 2 100k 900k", "write -z 500k 64k", "write -z 4500k 64k", "discard 2M 64k"});
    run_ok({"qemu-img", "convert", "-O", "raw", path("guest.qcow2"), path("expected.raw")});
    expect_done({"amend", "-o", wish, path("guest.qcow2")}, wish);
    if (wish.starts_with("size")) fs::resize_file(path("expected.raw"), 9 << 20);
    expect_same("guest.qcow2", "expected.raw", wish);
    expect_clean("guest.qcow2", wish);
  }
}

// qemu-img leaves flags here that its check calls corrupt, and leaks the bitmaps.
TEST_F(manage, what_version_2_does_not_have_leaves_an_image_that_qemu_reads) {
  create("base.qcow2", "cluster_size=64k", "4M");
  write("base.qcow2", {"write -P 1 0 4M"});
  for (const std::string base : {"", ",backing_file=base.qcow2,backing_fmt=qcow2"}) {
    create("guest.qcow2", "cluster_size=4k" + base, "5M");
    write("guest.qcow2", {"write -P 2 100k 900k", "write -z 500k 64k", "write -z 2M 64k"});
    run_ok({"qemu-img", "snapshot", "-c", "one", path("guest.qcow2")});
    run_ok({"qemu-img", "snapshot", "-c", "two", path("guest.qcow2")});
    write("guest.qcow2", {"write -P 3 500k 4k", "write -z 100k 64k"});
    run_ok({"qemu-img", "bitmap", "--add", path("guest.qcow2"), "b"});
    run_ok({"qemu-img", "convert", "-O", "raw", path("guest.qcow2"), path("expected.raw")});
    run_ok({"qemu-img", "convert", "-l", "one", "-O", "raw", path("guest.qcow2"), path("one.raw")});
    expect_done({"amend", "-o", "compat=0.10", path("guest.qcow2")}, base);
    EXPECT_THAT(run_ok({"qemu-img", "info", path("guest.qcow2")}), HasSubstr("compat: 0.10"));
    expect_clean("guest.qcow2", base);
    expect_same("guest.qcow2", "expected.raw", base);
    for (const std::string snapshot : {"two", "one"}) {
      run_ok({"qemu-img", "snapshot", "-a", snapshot, path("guest.qcow2")});
      expect_same("guest.qcow2", "one.raw", base + snapshot);
      expect_clean("guest.qcow2", base + snapshot);
    }
  }
}

TEST_F(manage, nothing_is_changed_while_another_process_writes) {
  create("base.qcow2", "cluster_size=64k", "4M");
  create("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "4M");
  write("top.qcow2", {"write -P 1 0 1M"});
  const auto top = test::read_file(path("top.qcow2"));
  {
    const test::ImageWriter holder("driver=file,filename=" + path("base.qcow2"));
    const Outcome outcome = drydock({"commit", path("top.qcow2")});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr(fmt::format("in use by process {}", holder.pid())));
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"amend", "-o", "size=8M", path("base.qcow2")},
          {"rebase", "-u", "-b", "", path("base.qcow2")},
          {"resize", path("base.qcow2"), "8M"},
          {"snapshot", "-c", "x", path("base.qcow2")},
          {"bitmap", "--add", path("base.qcow2"), "x"}}) {
      EXPECT_THAT(drydock(words).err, HasSubstr("in use by process")) << words[0];
    }
  }
  EXPECT_EQ(test::read_file(path("top.qcow2")), top);
  expect_done({"commit", path("top.qcow2")});
}

TEST_F(manage, nothing_is_taken_from_a_layer_that_another_process_writes) {
  for (const std::string name : {"base", "middle", "other", "top"}) {
    const std::string below = name == "middle" ? "base.qcow2" : "middle.qcow2";
    const bool stands_alone = name == "base" || name == "other";
    create(name + ".qcow2", stands_alone ? "cluster_size=64k" : "backing_fmt=qcow2,backing_file=" + below, "4M");
  }
  for (const std::string writing : {"middle.qcow2", "other.qcow2"}) {
    const test::ImageWriter holder("driver=file,filename=" + path(writing));
    const auto before = test::read_file(path("top.qcow2"));
    EXPECT_THAT(drydock({"rebase", "-b", "other.qcow2", "-F", "qcow2", path("top.qcow2")}).err,
                HasSubstr(fmt::format("in use by process {}", holder.pid())));
    EXPECT_EQ(test::read_file(path("top.qcow2")), before);
    if (writing != "middle.qcow2") continue;
    EXPECT_THAT(drydock({"commit", "-b", "base.qcow2", path("top.qcow2")}).err, HasSubstr("in use by process"));
  }
  expect_done({"rebase", "-b", "other.qcow2", "-F", "qcow2", path("top.qcow2")});
}

TEST_F(manage, an_image_is_not_put_above_itself) {
  create("base.qcow2", "cluster_size=64k", "4M");
  create("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "4M");
  for (const std::string image : {"base.qcow2", "top.qcow2"}) {
    const auto before = test::read_file(path(image));
    const Outcome outcome = drydock({"rebase", "-b", "top.qcow2", "-F", "qcow2", path(image)});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("the chain would have no end"));
    EXPECT_EQ(test::read_file(path(image)), before);
  }
}

TEST_F(manage, ended_by_ctrl_c_commit_leaves_the_image_as_it_was_and_can_be_run_again) {
  create("base.qcow2", "cluster_size=64k", "64M");
  create("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "64M");
  write("top.qcow2", {"write -P 1 0 64M"});
  remember("top.qcow2", "expected.qcow2");
  test::Process commit({test::drydock_program(), "commit", "-p", "-r", "16M", path("top.qcow2")});
  // Once something was written.
  ASSERT_TRUE(test::wait_until([&] { return fs::file_size(path("base.qcow2")) > 4U << 20; }));
  commit.signal(SIGUSR1);
  commit.signal(SIGINT);
  EXPECT_EQ(commit.wait(), 128 + SIGINT);
  EXPECT_THAT(commit.errors(), HasSubstr("interrupted at "));
  EXPECT_THAT(commit.errors(), HasSubstr("the image still has all of its data, its base a part of that; run it again"));
  expect_same("top.qcow2", "expected.qcow2");
  expect_clean("top.qcow2");
  expect_clean("base.qcow2");
  expect_done({"commit", path("top.qcow2")});
  expect_same("base.qcow2", "expected.qcow2");
}

TEST_F(manage, ended_by_ctrl_c_rebase_leaves_the_old_backing_file) {
  create("base.qcow2", "cluster_size=64k", "256M");
  write("base.qcow2", {"write -P 1 0 256M"});
  create("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "256M");
  remember("top.qcow2", "expected.qcow2");
  test::Process rebase({test::drydock_program(), "rebase", "-c", "-p", "-b", "", path("top.qcow2")});
  ASSERT_TRUE(rebase.wait_for_output("0.00/100%"));
  rebase.signal(SIGUSR1);
  rebase.signal(SIGINT);
  EXPECT_EQ(rebase.wait(), 128 + SIGINT);
  EXPECT_THAT(rebase.errors(),
              HasSubstr("the backing file is the old one still, and the image is sound; run it again"));
  EXPECT_THAT(run_ok({"qemu-img", "info", path("top.qcow2")}), HasSubstr("backing file: base.qcow2"));
  expect_same("top.qcow2", "expected.qcow2");
  expect_clean("top.qcow2");
  expect_done({"rebase", "-b", "", path("top.qcow2")});
  expect_same("top.qcow2", "expected.qcow2");
}

TEST_F(manage, ended_by_ctrl_c_preallocation_leaves_the_old_size) {
  create("guest.qcow2", "cluster_size=64k", "4M");
  write("guest.qcow2", {"write -P 1 0 4M"});
  remember("guest.qcow2", "expected.qcow2");
  test::Process resize(
      {test::drydock_program(), "resize", "-p", "--preallocation=metadata", path("guest.qcow2"), "100T"});
  ASSERT_TRUE(resize.wait_for_output("0.00/100%"));
  resize.signal(SIGINT);
  EXPECT_EQ(resize.wait(), 128 + SIGINT);
  EXPECT_THAT(resize.errors(), HasSubstr("the image has its old size"));
  expect_same("guest.qcow2", "expected.qcow2");
  expect_clean("guest.qcow2");
}

TEST_F(manage, a_check_shows_how_far_it_has_come) {
  create("guest.qcow2", "cluster_size=4k", "64M");
  write("guest.qcow2", {"write -P 1 0 64M"});
  const std::string plain = drydock({"check", path("guest.qcow2")}).out;
  const Outcome shown = drydock({"check", "-p", path("guest.qcow2")});
  EXPECT_THAT(shown.out, testing::StartsWith("    (0.00/100%)\r"));
  EXPECT_THAT(shown.out, testing::EndsWith("    (100.00/100%)\r\n" + plain));
  EXPECT_THAT(drydock({"check", "-p", "-r", "all", path("guest.qcow2")}).out,
              testing::EndsWith("    (100.00/100%)\r\n" + plain));
}

TEST_F(manage, a_hash_stands_for_the_contents_of_a_whole_chain) {
  create("base.qcow2", "cluster_size=64k", "40M");
  write("base.qcow2", {"write -P 1 0 2M"});
  create("top.qcow2", "extended_l2=on,backing_file=base.qcow2,backing_fmt=qcow2", "40M");
  write("top.qcow2", {"write -P 2 1M 100k", "write -P 3 30M 1k"});
  const auto hash = [&](const std::string& name) {
    return json::parse(drydock({"info", "--hash", "--output=json", path(name)}).out)
        .at("content-hash")
        .get<std::string>();
  };
  const std::string expected = hash("top.qcow2");
  EXPECT_THAT(expected, MatchesRegex("sha256-tree-1:[0-9a-f]+"));
  run_ok({"qemu-img", "convert", "-O", "raw", path("top.qcow2"), path("flat.raw")});
  run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", path("top.qcow2"), path("compressed.qcow2")});
  EXPECT_EQ(hash("flat.raw"), expected);
  EXPECT_EQ(hash("compressed.qcow2"), expected);
  EXPECT_NE(hash("base.qcow2"), expected);
  const Outcome chain = drydock({"info", "--hash", "-p", "--backing-chain", path("top.qcow2")});
  EXPECT_THAT(chain.out, testing::StartsWith("    (0.00/100%)\r"));
  EXPECT_THAT(chain.out, HasSubstr("content hash: " + expected + "\n\nimage: "));
  EXPECT_THAT(chain.out, HasSubstr("content hash: " + hash("base.qcow2") + "\n"));
  write("base.qcow2", {"write -P 4 20M 1"});
  EXPECT_NE(hash("top.qcow2"), expected);
}

TEST_F(manage, a_bitmap_is_worked_on_without_opening_the_backing_file) {
  run_ok(
      {"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "gone.qcow2", "-F", "qcow2", path("orphan.qcow2"), "4M"});
  expect_done({"bitmap", "--add", path("orphan.qcow2"), "b"});
  EXPECT_THAT(run_ok({"qemu-img", "info", path("orphan.qcow2")}), HasSubstr("name: b"));
}

TEST_F(manage, every_command_answers_in_json) {
  create("base.qcow2", "cluster_size=64k", "4M");
  create("top.qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "4M");
  write("top.qcow2", {"write -P 1 0 1M"});
  const auto answer = [&](std::vector<std::string> words) {
    words.insert(words.begin() + 1, "--output=json");
    const Outcome outcome = drydock(words);
    EXPECT_EQ(outcome.err, "") << words[0];
    return json::parse(outcome.out);
  };
  const std::string top = path("top.qcow2");
  EXPECT_EQ(answer({"create", "-f", "qcow2", path("new.qcow2"), "1M"}).at("virtual-size"), 1 << 20);
  EXPECT_EQ(answer({"info", top}).at("filename"), top);
  EXPECT_EQ(answer({"map", top})[0].at("length"), 1 << 20);
  EXPECT_EQ(answer({"check", top}).at("check-errors"), 0);
  EXPECT_EQ(answer({"resize", top, "8M"}).at("old-size"), 4 << 20);
  EXPECT_EQ(answer({"snapshot", "-c", "one", top})[0].at("name"), "one");
  EXPECT_EQ(answer({"snapshot", "-l", top})[0].at("name"), "one");
  EXPECT_EQ(answer({"snapshot", "-d", "one", top}), json::array());
  EXPECT_EQ(answer({"bitmap", "--add", top, "b"})[0].at("name"), "b");
  EXPECT_EQ(answer({"amend", "-o", "lazy_refcounts=on", top}).at("format-specific").at("data").at("lazy-refcounts"),
            true);
  EXPECT_EQ(answer({"commit", top}).at("emptied"), true);
  EXPECT_FALSE(answer({"rebase", "-b", "", top}).contains("backing-filename"));
}

TEST_F(manage, safety_11_shrinking_holds_no_memory_for_each_cluster_that_it_frees) {
  constexpr uint64_t most = 40 << 10;  // KiB; a million freed clusters took 60 MiB and more
  ASSERT_EQ(run({test::drydock_program(), "create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,preallocation=metadata",
                 path("large.qcow2"), "4G"})
                .status,
            0);
  const test::Outcome outcome =
      run({test::drydock_program(), "resize", "-q", "--cache-size=2M", "--shrink", path("large.qcow2"), "1M"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_LT(outcome.peak_memory, most);
  expect_clean("large.qcow2");
}

}  // namespace
}  // namespace drydock
