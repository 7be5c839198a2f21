// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images are changed on a disk that is full before the change is done: the cause is told, the guest's disk is what it
// was, qemu-img finds nothing wrong, no new file stands half written under its name, and with room it works.

#include <gmock/gmock.h>

#include <filesystem>

#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using test::Outcome;
using test::run;
using testing::HasSubstr;

// In the shell that has the small disk as its working directory: `fill N` leaves N KiB of it, `room` makes it large.
constexpr std::string_view prelude = R"(
set -e
mount -t tmpfs -o size=24m x "$1"
cd "$1"
fill() { fallocate -l $(($(df --output=avail -k . | tail -n 1) - $1))k ballast; }
room() { rm ballast; mount -o remount,size=200m x .; }
overlay() { qemu-img create -q -f qcow2 -o backing_fmt=qcow2,backing_file="$@"; }
remember() { qemu-img convert -O raw "$1" ../expected.raw; }
same() { qemu-img compare -q "$1" ../expected.raw || echo "$1 differs"; }
clean() { for image in "$@"; do qemu-img check -q "$image" || echo "$image is not clean"; done; }
)";

class full_disk : public testing::Test {
 protected:
  // `work` ends with the command that the full disk stops; its "status" is the first line of the output.
  Outcome on_small_disk(const std::string& setup, const std::string& work, const std::string& after) const {
    fs::create_directory(dir_.file("disk"));
    const std::string script = fmt::format("{}{}\nset +e\n{}\necho status $?\n{}\n", prelude, setup, work, after);
    return run({"env", "D=" + test::drydock_program(), "unshare", "-rm", "sh", "-c", script, "sh", dir_.file("disk")});
  }

  // A change of top.qcow2, or of another image of `images`, that leaves the guest of top.qcow2 the same disk.
  void expect_no_harm(const std::string& setup, const std::string& work, const std::string& images) const {
    const std::string look = "same top.qcow2; clean " + images;
    const Outcome outcome =
        on_small_disk(setup, work, fmt::format("{}\nroom\n{} || echo failed again\n{}", look, work, look));
    EXPECT_EQ(outcome.out, "status 1\n") << work << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("No space left on device")) << work;
  }

  test::TempDir dir_;
};

// Data below, and half of it again in the overlay, with zeros that hide some.
constexpr std::string_view chain = R"(
qemu-img create -q -f qcow2 base.qcow2 64M
qemu-io -c 'write -q -P 1 0 8M' base.qcow2
overlay base.qcow2 top.qcow2
qemu-io -c 'write -q -P 2 16M 6M' -c 'write -q -z 1M 2M' top.qcow2
remember top.qcow2
)";

TEST_F(full_disk, safety_5_commit_leaves_the_overlay_all_of_its_data) {
  expect_no_harm(fmt::format("{}fill 2000", chain), "$D commit -q top.qcow2", "base.qcow2 top.qcow2");
}

// The tables that lead to the data have their room before the data takes it.
TEST_F(full_disk, safety_5_what_was_written_before_the_disk_was_full_stays) {
  const Outcome outcome = on_small_disk("qemu-img create -q -f qcow2 new.qcow2 64M; fill 4000",
                                        R"($D serve --rw --socket ../socket new.qcow2 >/dev/null & server=$!
while ! [ -S ../socket ]; do sleep 0.1; done
for at in 0 1 2 3 4 5; do qemu-io -f raw -c "write -q -P 1 ${at}M 1M" "nbd+unix:///?socket=$PWD/../socket"; done
kill $server
wait $server)",
                                        "clean new.qcow2; qemu-io -r -c 'read -q -P 1 0 3M' new.qcow2");
  EXPECT_EQ(outcome.out.substr(outcome.out.find("status")), "status 0\n") << outcome.out << outcome.err;
  EXPECT_THAT(outcome.out + outcome.err, HasSubstr("No space left on device"));
}

TEST_F(full_disk, safety_5_rebase_leaves_the_old_backing_file) {
  expect_no_harm(fmt::format("{}fill 2000", chain), "$D rebase -b '' top.qcow2", "top.qcow2");
}

TEST_F(full_disk, safety_5_an_amended_image_is_the_old_one) {
  for (const std::string wish : {"refcount_bits=64", "compat=0.10"}) {
    expect_no_harm(fmt::format("{}fill 16", chain), "$D amend -o " + wish + " top.qcow2", "top.qcow2");
    fs::remove_all(dir_.file("disk"));
  }
}

TEST_F(full_disk, safety_5_snapshots_and_bitmaps_are_there_or_not) {
  for (const std::string work : {"$D snapshot -c one top.qcow2", "$D bitmap --add top.qcow2 b"}) {
    expect_no_harm(fmt::format("{}fill 0", chain), work, "top.qcow2");
    fs::remove_all(dir_.file("disk"));
  }
}

TEST_F(full_disk, safety_5_a_disk_that_cannot_be_made_larger_keeps_its_size) {
  for (const std::string mode : {"full", "falloc"}) {
    const Outcome outcome =
        on_small_disk(fmt::format("{}fill 2000", chain), "$D resize --preallocation=" + mode + " top.qcow2 128M",
                      "same top.qcow2; clean top.qcow2; qemu-img info top.qcow2 | grep virtual; room; truncate -s 128M "
                      "../expected.raw\n"
                      "$D resize --preallocation=" +
                          mode + " top.qcow2 128M; same top.qcow2; clean top.qcow2");
    EXPECT_EQ(outcome.out, "status 1\nvirtual size: 64 MiB (67108864 bytes)\nImage resized.\n") << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("No space left on device"));
    fs::remove_all(dir_.file("disk"));
  }
}

TEST_F(full_disk, safety_5_a_raw_file_that_cannot_be_made_larger_keeps_its_size) {
  for (const std::string mode : {"full", "falloc"}) {
    const Outcome outcome =
        on_small_disk("truncate -s 1M disk.raw; fill 2000",
                      "$D resize -f raw --preallocation=" + mode + " disk.raw 64M", "stat -c %s disk.raw");
    EXPECT_EQ(outcome.out, "status 1\n1048576\n") << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("No space left on device"));
    fs::remove_all(dir_.file("disk"));
  }
}

TEST_F(full_disk, safety_7_an_image_that_cannot_be_made_does_not_have_its_name) {
  for (const std::string words : {"-f raw -o preallocation=full", "-f raw -o preallocation=falloc",
                                  "-f qcow2 -o preallocation=full", "-f qcow2 -o preallocation=falloc"}) {
    const std::string work = "$D create -q " + words + " new 32M";
    const Outcome outcome = on_small_disk("fill 4000", work, "ls -A; room; " + work + "; ls -A");
    EXPECT_EQ(outcome.out, "status 1\nballast\nnew\n") << words << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("No space left on device")) << words;
    fs::remove_all(dir_.file("disk"));
  }
}

}  // namespace
}  // namespace drydock
