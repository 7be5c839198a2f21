// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images as files, through real mounts: what other people's programs see in them.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <thread>

#include "tests/interop/fuse_fixture.h"
#include "tests/interop/served.h"
#include "tests/support/process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::Outcome;
using testing::HasSubstr;

class Fuse : public test::FuseMount {
 protected:
  // The holes and data of a file as lseek tells them: "hole 0 65536, data 65536 ...".
  static std::string layout_of(const std::string& path) {
    return test::run_ok({"python3", "-c",
                         "import os,sys\n"
                         "f=os.open(sys.argv[1],os.O_RDONLY); end=os.fstat(f).st_size; at=0\n"
                         "while at<end:\n"
                         "  try: data=os.lseek(f,at,os.SEEK_DATA)\n"
                         "  except OSError: data=end\n"
                         "  if data>at: print('hole',at,data)\n"
                         "  if data==end: break\n"
                         "  at=os.lseek(f,data,os.SEEK_HOLE); print('data',data,at)\n",
                         path});
  }

  // The same out of `drydock map`.
  static std::string layout_of_map(const std::string& image) {
    return test::run_ok(
        {"python3", "-c",
         "import json,subprocess,sys\n"
         "spans=[]\n"
         "for e in json.loads(subprocess.check_output([sys.argv[1],'map','--output=json',sys.argv[2]])):\n"
         "  kind='data' if e['data'] and not e['zero'] else 'hole'\n"
         "  if spans and spans[-1][0]==kind: spans[-1][2]+=e['length']\n"
         "  else: spans.append([kind,e['start'],e['start']+e['length']])\n"
         "for s in spans: print(*s)\n",
         test::drydock_program(), image});
  }

  void expect_nothing_mounted(const Outcome& outcome, const std::string& message) const {
    EXPECT_EQ(outcome.status, 1);
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, HasSubstr(message));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_FALSE(is_mounted());
  }
};

TEST_F(Fuse, a_raw_disk_reads_the_same_with_size_mode_and_time_of_the_image) {
  const std::string image = sparse_image("disk.img", 8 * test::mib + 512, {0, 3 * test::mib, 8 * test::mib - 65536});
  test::run_ok({"touch", "-d", "2001-02-03 04:05:06", image});
  mount(image);
  test::run_ok({"cmp", image, at("disk.raw")});
  EXPECT_EQ(test::run_ok({"stat", "-c", "%s %a %Y %u", at("disk.raw")}),
            test::run_ok({"stat", "-c", "%s 444 %Y %u", image}));
  EXPECT_EQ(test::run_ok({"ls", point_}), "disk.raw\n");
  EXPECT_THAT(test::run_ok({"grep", point_, "/proc/mounts"}), HasSubstr(image + " " + point_ + " fuse.drydock ro"));
  unmount();
  EXPECT_FALSE(is_mounted());
}

TEST_F(Fuse, holes_are_where_the_map_says) {
  const std::string image = sparse_image("disk.img", 16 * test::mib, {test::mib, 4 * test::mib, 4 * test::mib + 65536});
  mount(image);
  const std::string layout = layout_of(at("disk.raw"));
  EXPECT_EQ(layout, layout_of_map(image));
  EXPECT_THAT(layout, HasSubstr("hole 0 1048576\ndata 1048576 1114112\n"));
  EXPECT_EQ(test::run_ok({"stat", "-c", "%b", at("disk.raw")}), "384\n");
  test::run_ok({"cp", "--sparse=always", at("disk.raw"), dir_.file("copy")});
  test::run_ok({"cmp", image, dir_.file("copy")});
  EXPECT_EQ(test::run_ok({"stat", "-c", "%b", dir_.file("copy")}), "384\n");
}

TEST_F(Fuse, qcow2_disks_of_every_kind_and_their_snapshots_read_as_qemu_img_converts_them) {
  const std::string raw = sparse_image("disk.img", 8 * test::mib, {0, test::mib, 2 * test::mib, 7 * test::mib});
  const std::vector<std::vector<std::string>> kinds{
      {}, {"-c"}, {"-c", "-o", "compression_type=zstd"}, {"-o", "cluster_size=512"}, {"-o", "extended_l2=on"}};
  for (const auto& options : kinds) {
    const std::string image = dir_.file("disk.qcow2");
    std::vector<std::string> convert{"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image};
    convert.insert(convert.end(), options.begin(), options.end());
    test::run_ok(convert);
    test::run_ok({"qemu-img", "snapshot", "-c", "before it", image});
    test::run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 128k", "-c", "write -z 2M 64k", image});
    test::run_ok({"qemu-img", "convert", "-O", "raw", image, dir_.file("now")});
    mount(image);
    test::run_ok({"cmp", dir_.file("now"), at("disk.raw")});
    test::run_ok({"cmp", raw, at("snapshots/before it.raw")});
    EXPECT_EQ(layout_of(at("disk.raw")), layout_of_map(image));
    unmount();
  }
}

TEST_F(Fuse, partitions_are_files_that_mount_without_offsets) {
  const std::string image = sparse_image("disk.img", 48 * test::mib, {});
  test::run_ok({"sgdisk", "-n", "1:2048:+16M", "-n", "2:0:0", image});
  test::run_ok({"truncate", "-s", "16M", dir_.file("fs")});
  test::write_file(dir_.file("greeting"), std::string("ahoy\n"));
  test::run_ok({"mkfs.ext4", "-q", "-F", "-E", "nodiscard", dir_.file("fs")});
  test::run_ok({"debugfs", "-w", "-R", "write " + dir_.file("greeting") + " greeting", dir_.file("fs")});
  test::run_ok({"dd", "if=" + dir_.file("fs"), "of=" + image, "bs=1M", "seek=1", "conv=notrunc", "status=none"});
  const std::string inner = dir_.file("inner");
  std::filesystem::create_directory(inner);

  mount(image);
  EXPECT_EQ(test::run_ok({"ls", point_}), "disk.raw\np1.raw\np2.raw\n");
  test::run_ok({"cmp", dir_.file("fs"), at("p1.raw")});
  test::run_ok({"mount", "-o", "loop,ro", at("p1.raw"), inner});
  const Outcome seen = test::run({"cat", inner + "/greeting"});
  test::run_ok({"umount", inner});
  EXPECT_EQ(seen.out, "ahoy\n");
  unmount();

  mount(image, {"--rw", "-f", "raw"});
  test::run_ok({"mount", "-o", "loop", at("p1.raw"), inner});
  test::write_file(inner + "/answer", std::string("aye\n"));
  test::run_ok({"umount", inner});
  EXPECT_EQ(test::run_ok({"debugfs", "-R", "cat answer", at("p1.raw")}), "aye\n");
  const std::string loop = test::run_ok({"losetup", "--direct-io=on", "--show", "-f", at("p1.raw")});
  const std::string device = loop.substr(0, loop.find('\n'));
  const Outcome same = test::run({"cmp", "-n", "16777216", device, at("p1.raw")});
  test::run_ok({"losetup", "-d", device});
  EXPECT_EQ(same.status, 0) << same.out << same.err;
  unmount();
  test::run_ok({"dd", "if=" + image, "of=" + dir_.file("fs"), "bs=1M", "skip=1", "count=16", "status=none"});
  test::run_ok({"e2fsck", "-fn", dir_.file("fs")});
  EXPECT_EQ(test::run_ok({"debugfs", "-R", "cat answer", dir_.file("fs")}), "aye\n");
}

TEST_F(Fuse, safety_1_a_read_only_export_leaves_no_trace_in_the_image) {
  const std::string image = sparse_image("disk.img", 4 * test::mib, {0, 2 * test::mib});
  test::run_ok({"touch", "-d", "2001-02-03 04:05:06", image});
  const auto bytes = test::read_file(image);
  test::run_ok({"touch", "-a", "-d", "2001-02-03 04:05:06", image});
  const std::string status = test::run_ok({"stat", "-c", "%x %y %z %s %b", image});
  mount(image);
  test::run_ok({"cat", at("disk.raw")});
  EXPECT_NE(test::run({"dd", "if=/dev/zero", "of=" + at("disk.raw"), "count=1", "conv=notrunc"}).status, 0);
  unmount();
  EXPECT_EQ(test::run_ok({"stat", "-c", "%x %y %z %s %b", image}), status);
  EXPECT_EQ(test::read_file(image), bytes);
}

TEST_F(Fuse, a_read_only_export_refuses_every_change) {
  mount(sparse_image("disk.img", 4 * test::mib, {0}));
  EXPECT_EQ(::open(at("disk.raw").c_str(), O_RDWR), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::truncate(at("disk.raw").c_str(), 1), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::open(at("new").c_str(), O_WRONLY | O_CREAT, 0644), -1);
  EXPECT_EQ(errno, EROFS);
}

TEST_F(Fuse, many_readers_at_once_get_the_same_bytes) {
  const std::string image = dir_.file("disk.img");
  test::write_file(image, test::random_bytes(5, 32 * test::mib));
  mount(image);
  std::vector<std::thread> readers;
  std::vector<int> results(8, -1);
  for (int& result : results) {
    readers.emplace_back([&] { result = test::run({"cmp", image, at("disk.raw")}).status; });
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(results, std::vector<int>(8, 0));
}

TEST_F(Fuse, bad_images_and_bad_folders_give_one_line_and_no_mount) {
  const std::string image = sparse_image("disk.img", test::mib, {0});
  expect_nothing_mounted(drydock_run({"export", "-f", "qcow2", image, point_}), "not in qcow2 format");
  expect_nothing_mounted(drydock_run({"export", dir_.path().string(), point_}), "it is a directory");
  expect_nothing_mounted(drydock_run({"export", dir_.file("gone"), point_}), "No such file");
  expect_nothing_mounted(drydock_run({"export", image, dir_.file("gone")}), "No such file");
  expect_nothing_mounted(drydock_run({"export", image, image}), "is not a folder");
  expect_nothing_mounted(drydock_run({"export", image, dir_.path().string()}), "is not empty");
  const std::string qcow2 = dir_.file("disk.qcow2");
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", qcow2});
  std::filesystem::remove(image);
  expect_nothing_mounted(drydock_run({"export", qcow2, point_}), "disk.img");
  for (const uint64_t length : {100U, 65536U, 70000U}) {
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", qcow2, "1G"});
    test::run_ok({"truncate", "-s", std::to_string(length), qcow2});
    const Outcome outcome = drydock_run({"export", "--foreground", "-f", "qcow2", qcow2, point_});
    expect_nothing_mounted(outcome, qcow2);
  }
}

TEST_F(Fuse, a_second_export_on_the_same_folder_is_refused) {
  const std::string image = sparse_image("disk.img", test::mib, {0});
  mount(image);
  const Outcome second = drydock_run({"export", image, point_});
  EXPECT_EQ(second.status, 1);
  EXPECT_THAT(second.err, HasSubstr("is a mount point already (fuse.drydock of " + image + ")"));
  unmount();
  EXPECT_FALSE(is_mounted());
}

TEST_F(Fuse, the_background_keeps_no_descriptor_of_its_caller) {
  const std::string image = sparse_image("disk.img", test::mib, {0});
  const std::string lock = dir_.file("lock");
  test::run_ok({"sh", "-c",
                "exec 9>" + lock + "; flock 9; exec " + test::drydock_program() + " export " + image + " " + point_});
  test::run_ok({"flock", "-n", lock, "true"});
}

TEST_F(Fuse, an_export_of_an_nbd_server_is_a_file_like_any_other) {
  const std::string image = sparse_image("guest.raw", 8 * test::mib, {0, 3 * test::mib});
  Served served({"-f", "raw", "--socket", dir_.file("socket"), image});
  mount(served.uris().front(), {"-f", "raw"});
  EXPECT_EQ(test::read_file(at("disk.raw")), test::read_file(image));
  EXPECT_EQ(layout_of(at("disk.raw")), layout_of_map(image));
  unmount();
  EXPECT_EQ(served.end(SIGTERM), 0);
}

}  // namespace
}  // namespace drydock
