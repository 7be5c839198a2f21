// SPDX-License-Identifier: GPL-3.0-or-later
//
// What convert, dd and compare do when it goes wrong: the cause is told, the sources are as they were, and nothing
// half written stands under the target's name or beside it.

#include <csignal>

#include "src/image.h"
#include "tests/interop/copying_fixture.h"
#include "tests/support/process.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;

using test::Outcome;
using test::run;
using test::run_ok;
using test::Words;
using testing::HasSubstr;
using testing::IsEmpty;

class FailedCopies : public test::CopyingVerbs {
 protected:
  void SetUp() override {
    raw_before_ = test::read_file(raw_);
    qcow2_before_ = test::read_file(qcow2_);
  }
  void TearDown() override {
    EXPECT_EQ(test::read_file(raw_), raw_before_);
    EXPECT_EQ(test::read_file(qcow2_), qcow2_before_);
    EXPECT_THAT(unfinished_files(), IsEmpty());
  }

  std::vector<std::byte> raw_before_;
  std::vector<std::byte> qcow2_before_;
};

TEST_F(FailedCopies, safety_7_a_target_has_its_name_only_when_it_is_whole) {
  const std::string target = dir_.file("target.qcow2");
  test::write_file(target, "what was there");
  fs::permissions(target, fs::perms::owner_read | fs::perms::owner_write);
  // 1 MiB is as much as a file may grow to.
  const Outcome full = run({"sh", "-c",
                            fmt::format("ulimit -f 1024; trap '' XFSZ; exec {} convert -O qcow2 {} {}",
                                        test::drydock_program(), raw_, target)});
  EXPECT_EQ(full.status, 1);
  EXPECT_THAT(full.err, HasSubstr("error while writing at byte "));
  EXPECT_THAT(full.err, HasSubstr("File too large"));
  EXPECT_EQ(test::read_file(target).size(), std::string("what was there").size());
  EXPECT_THAT(unfinished_files(), IsEmpty());

  convert({"-O", "qcow2", raw_}, target);
  expect_copy(raw_, target);
  EXPECT_EQ(fs::status(target).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(FailedCopies, safety_7_a_data_file_is_replaced_only_when_the_copy_is_whole) {
  const std::string target = dir_.file("target.qcow2");
  const std::string data = dir_.file("target.data");
  const Words words{"-O", "qcow2", "-o", "data_file=" + data, raw_};
  test::write_file(data, "what was there");
  for (const std::string& limited :
       {"convert -O qcow2 -o data_file=target.data " + raw_ + " " + target, "convert -O raw " + raw_ + " " + data,
        "create -f raw -o preallocation=full " + data + " 12M",
        "create -f qcow2 -o preallocation=full,data_file=target.data " + target + " 12M",
        "dd -O raw bs=1M if=" + raw_ + " of=" + data}) {
    // SIGXFSZ is not ignored here by whoever starts it.
    const Outcome full = run({"sh", "-c", fmt::format("ulimit -f 1024; exec {} {}", test::drydock_program(), limited)});
    EXPECT_EQ(full.status, 1) << limited;
    EXPECT_THAT(full.err, testing::AnyOf(HasSubstr("File too large"), HasSubstr("size is too large"))) << limited;
    EXPECT_FALSE(fs::exists(target)) << limited;
    EXPECT_EQ(fs::file_size(data), std::string("what was there").size()) << limited;
    EXPECT_THAT(unfinished_files(), IsEmpty()) << limited;
  }
  convert(words, target);
  expect_copy(raw_, target);
  EXPECT_EQ(fs::file_size(data), fs::file_size(raw_));
  EXPECT_EQ(ours("convert", {"--verify", "-O", "qcow2", "-o", "data_file=" + data + ",data_file_raw=on", raw_, target})
                .status,
            0);
  EXPECT_EQ(test::read_file(data), raw_before_);
  // What another reads or writes stays, and so does the source.
  const auto reader = Image::open(target, {.format = Format::qcow2, .writable = true});
  EXPECT_THAT(ours("convert", {"-O", "qcow2", "-o", "data_file=target.data", raw_, dir_.file("x.qcow2")}).err,
              HasSubstr("in use by process"));
  EXPECT_EQ(ours("convert", {"-O", "qcow2", "-o", "data_file=" + raw_, raw_, dir_.file("x.qcow2")}).status, 1);
  EXPECT_FALSE(fs::exists(dir_.file("x.qcow2")));
  EXPECT_EQ(test::read_file(data), raw_before_);
}

TEST_F(FailedCopies, safety_5_a_full_disk_is_told_and_leaves_no_target) {
  // A filesystem of 3 MiB, which has been used up when the copy begins to fail.
  const std::string disk = dir_.file("disk");
  fs::create_directory(disk);
  const std::string drydock = test::drydock_program();
  for (const std::string& work :
       {drydock + " convert -O qcow2 " + raw_ + " target", drydock + " convert " + qcow2_ + " target",
        drydock + " convert -S 0 " + qcow2_ + " target", drydock + " convert -C " + raw_ + " target",
        drydock + " convert -O qcow2 -o preallocation=full " + qcow2_ + " target",
        drydock + " convert -t unsafe -m 8 -O qcow2 " + raw_ + " target",
        drydock + " dd -O qcow2 bs=1M if=" + raw_ + " of=target"}) {
    const Outcome full = run({"unshare", "-rm", "sh", "-c",
                              fmt::format("mount -t tmpfs -o size=3m x {} && cd {} && echo old > other && {}; echo $?; "
                                          "ls -A; cat other",
                                          disk, disk, work)});
    EXPECT_EQ(full.out, "1\nother\nold\n") << work << full.err;
    EXPECT_THAT(full.err, HasSubstr("No space left on device")) << work;
  }
}

TEST_F(FailedCopies, an_existing_image_on_a_full_disk_stays_what_it_was) {
  const std::string disk = dir_.file("disk");
  fs::create_directory(disk);
  const Outcome full = run({"unshare", "-rm", "sh", "-c",
                            fmt::format("mount -t tmpfs -o size=3m x {} && cd {} && echo old > target && {} convert {} "
                                        "target; echo $?; ls -A; cat target",
                                        disk, disk, test::drydock_program(), raw_)});
  EXPECT_EQ(full.out, "1\ntarget\nold\n") << full.err;
}

TEST_F(FailedCopies, a_truncated_source_is_never_taken_for_a_whole_one) {
  const std::string whole = dir_.file("whole.qcow2");
  const std::string cut = dir_.file("cut.qcow2");
  const std::string target = dir_.file("target.raw");
  for (const Words& kind : std::vector<Words>{{}, {"-c"}, {"-o", "cluster_size=4k"}, {"-o", "extended_l2=on"}}) {
    Words words{"qemu-img", "convert", "-O", "qcow2"};
    words.insert(words.end(), kind.begin(), kind.end());
    words.insert(words.end(), {raw_, whole});
    run_ok(words);
    const uint64_t size = fs::file_size(whole);
    for (uint64_t part = 1; part < 12; ++part) {
      fs::copy_file(whole, cut, fs::copy_options::overwrite_existing);
      fs::resize_file(cut, size * part / 12);
      const Outcome outcome = ours("convert", {cut, target});
      EXPECT_EQ(outcome.status, 1) << fmt::format("{} of {} bytes", size * part / 12, size);
      EXPECT_THAT(outcome.err, HasSubstr("cut.qcow2")) << "the message names the file";
      EXPECT_FALSE(fs::exists(target));
      EXPECT_EQ(ours("dd", {"if=" + cut, "of=" + target}).status, 1);
      EXPECT_FALSE(fs::exists(target));
    }
  }
}

// Holes in what is left of the file make it look as if its metadata alone had been allocated: what lies behind the file
// is lost all the same.
TEST_F(FailedCopies, a_truncated_source_with_holes_is_never_taken_for_a_whole_one) {
  const std::string cut = dir_.file("cut.qcow2");
  const std::string over = dir_.file("over.qcow2");
  const std::string base = dir_.file("base.raw");
  const std::string target = dir_.file("target.raw");
  run_ok({"truncate", "-s", "4M", base});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", cut});
  run_ok({"qemu-io", "-c", "write -P 7 0 4M", cut});
  run_ok({"fallocate", "--punch-hole", "--offset", "1M", "--length", "512k", cut});
  fs::resize_file(cut, 2 << 20);
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", cut, "-F", "qcow2", over});
  for (const Words& words : std::vector<Words>{{"convert", cut, target},
                                               {"convert", "-S", "0", cut, target},
                                               {"dd", "if=" + cut, "of=" + target},
                                               {"info", "--hash", cut},
                                               {"rebase", "-b", "", over},
                                               {"commit", cut}}) {
    const Outcome outcome = ours(words[0], {words.begin() + 1, words.end()});
    EXPECT_EQ(outcome.status, 1) << words[0];
    EXPECT_THAT(outcome.err, HasSubstr("cut.qcow2: the file ")) << words[0];
    EXPECT_FALSE(fs::exists(target));
  }
}

TEST_F(FailedCopies, convert_salvages_what_it_can_read) {
  const std::string broken = dir_.file("broken.qcow2");
  run_ok({"qemu-img", "convert", "-O", "qcow2", "-c", raw_, broken});
  // The second cluster's compressed data, which no decoder takes.
  std::vector<std::byte> bytes = test::read_file(broken);
  std::fill(bytes.begin() + 0x50000, bytes.begin() + 0x50200, std::byte{0xff});
  test::write_file(broken, bytes);
  const std::string target = dir_.file("target.raw");
  const Outcome refused = ours("convert", {broken, target});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("error while reading at byte "));
  EXPECT_FALSE(fs::exists(target));

  const Outcome salvaged = ours("convert", {"--salvage", broken, target});
  EXPECT_EQ(salvaged.status, 0) << salvaged.err;
  EXPECT_THAT(salvaged.err, HasSubstr("warning: error while reading offset "));
  EXPECT_EQ(ours("convert", {"-q", "--salvage", broken, target}).err, "");
  const std::string theirs = dir_.file("theirs.raw");
  run_ok({"qemu-img", "convert", "--salvage", broken, theirs});
  EXPECT_EQ(test::read_file(target), test::read_file(theirs));

  EXPECT_EQ(run({"qemu-img", "compare", raw_, broken}).status, 4);
  const Outcome compared = ours("compare", {raw_, broken});
  EXPECT_EQ(compared.status, 4);
  EXPECT_THAT(compared.err, HasSubstr("Error while reading offset "));
}

TEST_F(FailedCopies, safety_1_a_target_that_is_read_is_refused) {
  const std::string top = dir_.file("top.qcow2");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", raw_, "-F", "raw", top});
  const std::string hard = dir_.file("hard.raw");
  fs::create_hard_link(raw_, hard);
  const std::string link = dir_.file("link.raw");
  fs::create_symlink(raw_, link);
  const std::string around = (dir_.path() / "." / "source.raw").string();
  for (const std::string& target : {raw_, hard, link, around}) {
    for (const Words& words :
         std::vector<Words>{{raw_, target}, {"-n", raw_, target}, {top, target}, {qcow2_, raw_, target}}) {
      const Outcome outcome = ours("convert", words);
      EXPECT_EQ(outcome.status, 1);
      EXPECT_THAT(outcome.err, HasSubstr("the target is also a source"));
    }
    EXPECT_EQ(ours("dd", {"if=" + top, "of=" + target}).status, 1);
    EXPECT_EQ(ours("dd", {"if=" + raw_, "of=" + target}).status, 1);
  }
  const std::string image = dir_.file("image.qcow2");
  const std::string data = dir_.file("image.data");
  run_ok({"qemu-img", "convert", "-O", "qcow2", "-o", "data_file=" + data, raw_, image});
  const auto before = test::read_file(data);
  EXPECT_THAT(ours("convert", {image, data}).err, HasSubstr("the target is also a source"));
  EXPECT_EQ(ours("dd", {"if=" + image, "of=" + data}).status, 1);
  EXPECT_EQ(test::read_file(data), before);
}

TEST_F(FailedCopies, safety_2_a_target_that_another_writes_is_refused) {
  const std::string target = dir_.file("target.qcow2");
  fs::copy_file(qcow2_, target);
  const auto writer = Image::open(target, {.format = Format::qcow2, .writable = true});
  const auto held = test::read_file(target);
  for (const Outcome& outcome :
       {ours("convert", {"-O", "qcow2", raw_, target}), ours("convert", {"-n", "-O", "qcow2", raw_, target}),
        ours("dd", {"-O", "qcow2", "if=" + raw_, "of=" + target})}) {
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("in use by process"));
  }
  EXPECT_EQ(test::read_file(target), held);
}

TEST_F(FailedCopies, a_missing_backing_file_is_named) {
  const std::string orphan = dir_.file("orphan.qcow2");
  run_ok({"qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "gone.raw", "-F", "raw", orphan, "1M"});
  const std::string target = dir_.file("target.raw");
  for (const Outcome& outcome : {ours("convert", {orphan, target}), ours("convert", {orphan, "-"}),
                                 ours("dd", {"if=" + orphan, "of=" + target}), ours("measure", {orphan})}) {
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.err, HasSubstr("gone.raw"));
    EXPECT_THAT(outcome.err, HasSubstr("No such file or directory"));
  }
  EXPECT_EQ(ours("compare", {orphan, raw_}).status, 2);
  const Outcome below = ours("convert", {"-O", "qcow2", "-B", dir_.file("gone.raw"), "-F", "raw", raw_, target});
  EXPECT_EQ(below.status, 1);
  EXPECT_THAT(below.err, HasSubstr("gone.raw"));
  EXPECT_FALSE(fs::exists(target));
}

TEST_F(FailedCopies, an_interrupted_conversion_leaves_nothing) {
  const std::string target = dir_.file("target.raw");
  for (const int signal : {SIGINT, SIGTERM}) {
    test::Process slow({test::drydock_program(), "convert", "-p", "-r", "1M", "-S", "0", raw_, target});
    ASSERT_TRUE(slow.wait_for_output("(8.33/100%)"));
    EXPECT_THAT(unfinished_files(), testing::SizeIs(1));
    slow.signal(SIGUSR1);
    slow.signal(signal);
    EXPECT_EQ(slow.wait(), 128 + signal);
    EXPECT_THAT(slow.errors(), HasSubstr("drydock convert: interrupted at "));
    EXPECT_THAT(slow.errors(), HasSubstr("nothing is left of the conversion"));
    EXPECT_THAT(unfinished_files(), IsEmpty());
    EXPECT_FALSE(fs::exists(target));
  }
}

// A piece of the copy takes longer than the patience of whoever pressed Ctrl-C.
TEST_F(FailedCopies, safety_7_a_slow_conversion_is_interrupted_at_once) {
  const std::string target = dir_.file("target.raw");
  test::Process slow({test::drydock_program(), "convert", "-p", "-r", "64k", "-S", "0", raw_, target});
  ASSERT_TRUE(slow.wait_for_output("(8.33/100%)"));
  slow.signal(SIGINT);
  EXPECT_EQ(slow.wait(), 128 + SIGINT);
  EXPECT_THAT(slow.errors(), HasSubstr("nothing is left of the conversion"));
  EXPECT_THAT(unfinished_files(), IsEmpty());
}

// The input's end comes late: the disk is large, and its data lies at its end.
TEST_F(FailedCopies, an_interrupted_dd_leaves_nothing) {
  const std::string large = dir_.file("large.raw");
  run_ok({"qemu-img", "create", "-q", large, "1G"});
  const std::string noise = dir_.file("noise");
  for (int i = 0; i < 64; ++i) {
    run_ok(
        {"dd", "if=" + noise, "of=" + large, "bs=1M", fmt::format("seek={}", 16 * i), "conv=notrunc", "status=none"});
  }
  const std::string target = dir_.file("target.qcow2");
  test::Process dd({test::drydock_program(), "dd", "-p", "-O", "qcow2", "if=" + large, "of=" + target});
  ASSERT_TRUE(dd.wait_for_output("0.00/100%"));
  dd.signal(SIGUSR1);
  dd.signal(SIGINT);
  EXPECT_EQ(dd.wait(), 128 + SIGINT);
  EXPECT_THAT(dd.errors(), HasSubstr("drydock dd: interrupted at "));
  EXPECT_THAT(dd.errors(), HasSubstr("nothing is left of the copy"));
  EXPECT_FALSE(fs::exists(target));
  EXPECT_THAT(unfinished_files(), IsEmpty());
}

TEST_F(FailedCopies, sigusr1_asks_how_far_a_conversion_is) {
  test::Process slow({test::drydock_program(), "convert", "-r", "4M", "-S", "0", raw_, dir_.file("target.raw")});
  ASSERT_TRUE(test::wait_until([&] { return !unfinished_files().empty(); }));
  slow.signal(SIGUSR1);
  EXPECT_EQ(slow.wait(), 0);
  EXPECT_THAT(slow.errors(), testing::MatchesRegex(" +\\([0-9.]+/100%\\)\n"));
  EXPECT_EQ(slow.output(), "");
  fs::remove(dir_.file("target.raw"));
}

TEST_F(FailedCopies, an_interrupted_conversion_into_an_image_says_that_it_is_written_in_part) {
  const std::string target = dir_.file("target.raw");
  run_ok({"qemu-img", "create", "-q", target, "12M"});
  test::Process slow({test::drydock_program(), "convert", "-p", "-n", "-r", "1M", "-S", "0", raw_, target});
  ASSERT_TRUE(slow.wait_for_output("(8.33/100%)"));
  slow.signal(SIGINT);
  EXPECT_EQ(slow.wait(), 128 + SIGINT);
  EXPECT_THAT(slow.errors(), HasSubstr("target.raw is written in part"));
  test::Process stream({test::drydock_program(), "convert", "--progress-fd", "1", "-r", "1M", "-S", "0", raw_, "-"});
  ASSERT_TRUE(stream.wait_for_output("\"running\""));
  stream.signal(SIGINT);
  EXPECT_EQ(stream.wait(), 128 + SIGINT);
  EXPECT_THAT(stream.errors(), HasSubstr("the stream ends before the disk does"));
}

}  // namespace
}  // namespace drydock
