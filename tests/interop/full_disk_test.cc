// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images are changed on a disk that is full before the change is done: the cause is told, the guest's disk is what it
// was, qemu-img finds nothing wrong, no new file stands half written under its name, and with room it works.

#include <gmock/gmock.h>

#include <filesystem>
#include <ostream>

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

// Of an image made by drydock, 8 MiB of the host's disk are left: more than a hundred writes of a cluster, each of
// other bytes, and then no more. Everything that was acknowledged is there, flushed or not when the server was killed,
// and no cluster is lost.
constexpr std::string_view until_full = R"(
fill 8192
$D serve --rw --allow-dir .. -f qcow2 --socket ../socket new.qcow2 >/dev/null & server=$!
while ! [ -S ../socket ]; do sleep 0.02; done
words=; i=0
while [ $i -lt 140 ]; do words="$words -c 'write -P $((i + 1)) $((i * 64))k 64k'"; i=$((i + 1)); done
eval qemu-io -f raw $words -c flush "'nbd+unix:///?socket=$PWD/../socket'" >../written 2>&1
[ "$how" = kill ] && kill -KILL $server || kill $server
wait $server
)";
constexpr std::string_view all_is_there = R"(
grep -q 'No space left' ../written || echo the disk was not full
grep -q 'flush failed' ../written && echo the flush failed
sed -n 's|^wrote 65536/65536 bytes at offset ||p' ../written >../places
[ $(wc -l <../places) -gt 100 ] || cat ../written
eval "$recover"
words=
while read place; do words="$words -c 'read -P $((place / 65536 + 1)) $place 64k'"; done <../places
eval qemu-io -r -f qcow2 $words -c "'read -P $below 12M 4M'" new.qcow2 | grep -i -e failed -e error
clean new.qcow2
)";

struct FilledImage {
  std::string name;
  std::string setup;            // makes new.qcow2
  std::string below = "0";      // that reads where nothing was written
  std::string how = "sigterm";  // how the server ends; or "kill"
  std::string recover = ":";    // what a dirty image needs
  int status = 0;
};

std::ostream& operator<<(std::ostream& out, const FilledImage& image) { return out << image.name; }

class full_disk_writes : public full_disk, public testing::WithParamInterface<FilledImage> {};

TEST_P(full_disk_writes, safety_5_what_was_acknowledged_before_the_disk_was_full_is_there) {
  const FilledImage& image = GetParam();
  const Outcome outcome =
      on_small_disk(image.setup, fmt::format("how={}{}", image.how, until_full),
                    fmt::format("below={}; recover='{}'{}", image.below, image.recover, all_is_there));
  EXPECT_EQ(outcome.out, fmt::format("status {}\n", image.status)) << outcome.err;
}

std::vector<FilledImage> filled_images() {
  const auto made_with = [](std::string_view options) {
    return fmt::format("$D create -q -f qcow2 {} new.qcow2 64M", options);
  };
  const std::string base = "qemu-img create -q -f raw ../base 64M; qemu-io -f raw -c 'write -q -P 200 0 64M' ../base\n";
  return {
      {"plain", made_with("")},
      {"made_by_qemu_img", "qemu-img create -q -f qcow2 new.qcow2 64M"},
      {"small_clusters", made_with("-o cluster_size=4096")},
      {"extended_l2", made_with("-o extended_l2=on")},
      {"data_file", made_with("-o data_file=data")},
      {"raw_data_file", made_with("-o data_file=data,data_file_raw=on")},
      {"lazy_refcounts", made_with("-o lazy_refcounts=on,extended_l2=on")},
      {"backing_file", base + made_with("-o extended_l2=on -b ../base -F raw"), "200"},
      {"killed", made_with(""), "0", "kill", ":", 137},
      {"killed_with_lazy_refcounts", made_with("-o lazy_refcounts=on"), "0", "kill", "$D check -q -r all new.qcow2",
       137},
  };
}

INSTANTIATE_TEST_SUITE_P(every, full_disk_writes, testing::ValuesIn(filled_images()),
                         [](const auto& image) { return image.param.name; });

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
