// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every kind of qcow2 image that qemu-img makes, read through the library, NBD and FUSE: the bytes are those of
// `qemu-img convert -O raw`, the extents those of `qemu-img map`.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/image.h"
#include "tests/support/in_process.h"
#include "tests/support/process.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using test::run_ok;
using testing::HasSubstr;

struct Kind {
  std::string name;     // of the test
  std::string options;  // qemu-img create -o
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (const std::string compat : {"0.10", "1.1"}) {
    for (const std::string cluster :
         {"512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M"}) {
      all.push_back(
          {fmt::format("v{}_{}", compat[0], cluster), fmt::format("compat={},cluster_size={}", compat, cluster)});
    }
  }
  for (const std::string cluster : {"16k", "64k", "512k", "2M"}) {
    all.push_back({"extended_" + cluster, "extended_l2=on,cluster_size=" + cluster});
  }
  for (const std::string bits : {"1", "2", "4", "8", "32", "64"}) {
    all.push_back({"refcount_" + bits, "refcount_bits=" + bits});
  }
  all.push_back({"lazy", "lazy_refcounts=on"});
  return all;
}

// A view of an image ("disk", "snapshots/NAME") as it comes out of `serve` and `export`, compared with a raw file.
void expect_served_and_exported(const test::TempDir& dir, const std::string& image, const std::string& view,
                                const std::string& raw) {
  test::Process server({test::drydock_program(), "serve", "--socket", dir.file("one.sock"), image});
  ASSERT_TRUE(server.wait_for_output("socket=")) << server.errors();
  run_ok({"nbdcopy", "nbd+unix:///" + view + "?socket=" + dir.file("one.sock"), dir.file("one.raw")});
  EXPECT_EQ(test::run({"cmp", raw, dir.file("one.raw")}).status, 0);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0) << server.errors();

  const std::string mountpoint = dir.file("one.mnt");
  std::filesystem::create_directory(mountpoint);
  run_ok({test::drydock_program(), "export", image, mountpoint});
  EXPECT_EQ(test::run({"cmp", raw, mountpoint + "/" + view + ".raw"}).status, 0);
  run_ok({test::drydock_program(), "unmount", mountpoint});
}

class Qcow2 : public testing::TestWithParam<Kind> {
 protected:
  // The image, written to in all the ways there are. `compression`: "", "zlib" or "zstd"; `base`: "", "raw" or "qcow2".
  std::string make(const std::string& compression, const std::string& base) {
    std::string path = dir_.file(fmt::format("image-{}-{}.qcow2", compression, base));
    std::vector<std::string> create{"qemu-img", "create", "-q", "-f", "qcow2", "-o"};
    create.push_back(GetParam().options +
                     (compression.empty() || is_version_2() ? "" : ",compression_type=" + compression));
    if (!base.empty()) {
      make_base(base);
      create.insert(create.end(), {"-b", "base." + base, "-F", base});
    }
    create.insert(create.end(), {path, "9M"});
    run_ok(create);
    if (!compression.empty()) {
      run_ok({"qemu-io", "-c", "write -c -P 5 2M 2M", "-c", "write -c -P 6 8M 1M", path});
    }
    run_ok({"qemu-io", "-c", "write -P 1 0 3k", "-c", "write -P 2 10k 70k", "-c", "write -P 3 5500k 1M",  //
            "-c", "write -z 4500k 300k", "-c", "write -z -u 7M 200k", "-c", "write -P 4 7777k 5k", "-c",
            "discard 16k 16k", path});
    return path;
  }

  static bool is_version_2() { return GetParam().options.find("0.10") != std::string::npos; }

  // One base is shorter than the overlays, the other longer.
  void make_base(const std::string& format) {
    const std::string path = dir_.file("base." + format);
    if (std::filesystem::exists(path)) return;
    run_ok({"qemu-img", "create", "-q", "-f", format, path, format == "raw" ? "7M" : "12M"});
    run_ok({"qemu-io", "-f", format, "-c", "write -P 7 100k 900k", "-c", "write -P 9 5M 1M", path});
  }

  std::vector<std::string> make_all() {
    std::vector<std::string> images;
    for (const std::string compression : {"", "zlib", "zstd"}) {
      // Version 2 has zlib only, and no field to say so.
      if (compression == "zstd" && is_version_2()) continue;
      for (const std::string base : {"", "raw", "qcow2"}) images.push_back(make(compression, base));
    }
    return images;
  }

  // What qemu-img reads of it.
  std::string reference(const std::string& image) const {
    std::string raw = image + ".raw";
    if (!std::filesystem::exists(raw)) run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
    return raw;
  }

  test::TempDir dir_;
};

TEST_P(Qcow2, bytes_equal_qemus_through_library_nbd_and_fuse_and_extents_equal_its_map) {
  const std::vector<std::string> images = make_all();
  std::vector<std::string> serve{test::drydock_program(), "serve", "--socket", dir_.file("sock")};
  serve.insert(serve.end(), images.begin(), images.end());
  test::Process server(serve);
  ASSERT_TRUE(server.wait_for_output(std::filesystem::path(images.back()).filename().string())) << server.errors();
  const std::string mountpoint = dir_.file("mnt");
  std::filesystem::create_directory(mountpoint);

  for (const std::string& image : images) {
    SCOPED_TRACE(image);
    const std::string raw = reference(image);
    EXPECT_TRUE(test::bytes_of(*Image::open(image, {})->disk()) == test::read_file(raw));
    for (const std::string output : {"--output=json", "--output=human"}) {
      const test::Outcome theirs = test::run({"qemu-img", "map", output, image});
      const test::Outcome ours = test::drydock({"map", output, image});
      EXPECT_EQ(ours.status, theirs.status);
      if (theirs.status == 0) {
        EXPECT_EQ(ours.out, theirs.out);
      }
    }
    const std::string name = std::filesystem::path(image).filename().string();
    run_ok({"nbdcopy", "nbd+unix:///" + name + "?socket=" + dir_.file("sock"), dir_.file("nbd.raw")});
    run_ok({"cmp", raw, dir_.file("nbd.raw")});
    run_ok({test::drydock_program(), "export", image, mountpoint});
    EXPECT_EQ(test::run({"cmp", raw, mountpoint + "/disk.raw"}).status, 0);
    run_ok({test::drydock_program(), "unmount", mountpoint});
  }
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0) << server.errors();
}

TEST_P(Qcow2, internal_snapshots_read_as_they_were) {
  if (GetParam().name == "refcount_1") return;  // one bit cannot count two users: QEMU makes no snapshot there
  const std::string image = make("", "qcow2");
  run_ok({"qemu-img", "snapshot", "-c", "one", image});
  run_ok({"qemu-io", "-c", "write -P 21 0 2M", "-c", "write -z 5M 1M", image});
  run_ok({"qemu-img", "snapshot", "-c", "two", image});
  run_ok({"qemu-io", "-c", "write -P 22 1M 3M", image});
  const auto opened = Image::open(image, {});
  ASSERT_EQ(opened->snapshots().size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    const std::string raw = dir_.file("snapshot.raw");
    run_ok({"qemu-img", "convert", "-l", "snapshot.name=" + opened->snapshots()[i].name, "-O", "raw", image, raw});
    EXPECT_TRUE(test::bytes_of(*opened->snapshot_disk(i)) == test::read_file(raw)) << i;
    expect_served_and_exported(dir_, image, "snapshots/" + opened->snapshots()[i].name, raw);
  }
  EXPECT_TRUE(test::bytes_of(*opened->disk()) == test::read_file(reference(image)));
}

INSTANTIATE_TEST_SUITE_P(every, Qcow2, testing::ValuesIn(kinds()), [](const auto& kind) { return kind.param.name; });

class Qcow2Special : public testing::Test {
 protected:
  void expect_like_qemu(const std::string& image) {
    SCOPED_TRACE(image);
    const std::string raw = image + ".raw";
    run_ok({"qemu-img", "convert", "-O", "raw", image, raw});
    EXPECT_TRUE(test::bytes_of(*Image::open(image, {})->disk()) == test::read_file(raw));
    expect_served_and_exported(dir_, image, "disk", raw);
    EXPECT_EQ(test::drydock({"map", "--output=json", image}).out, run_ok({"qemu-img", "map", "--output=json", image}));
    EXPECT_EQ(test::drydock({"info", image}).out, run_ok({"qemu-img", "info", image}));
    EXPECT_EQ(nlohmann::json::parse(test::drydock({"info", "--output=json", image}).out),
              nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", image})));
  }

  void create(const std::string& name, const std::string& options, const std::string& size = "9M") {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, dir_.file(name), size});
  }
  void write(const std::string& name) {
    run_ok({"qemu-io", "-c", "write -P 1 0 3k", "-c", "write -P 2 100k 700k", "-c", "write -z 3M 1M", dir_.file(name)});
  }

  test::TempDir dir_;
};

TEST_F(Qcow2Special, external_data_files_with_and_without_raw) {
  for (const std::string raw : {"on", "off"}) {
    create("ext-" + raw + ".qcow2", fmt::format("data_file={},data_file_raw={}", dir_.file("data-" + raw), raw));
    write("ext-" + raw + ".qcow2");
    expect_like_qemu(dir_.file("ext-" + raw + ".qcow2"));
  }
}

TEST_F(Qcow2Special, preallocation_modes) {
  for (const std::string mode : {"off", "metadata", "falloc", "full"}) {
    create(mode + ".qcow2", "preallocation=" + mode);
    write(mode + ".qcow2");
    expect_like_qemu(dir_.file(mode + ".qcow2"));
    create(mode + "-ext.qcow2", "extended_l2=on,preallocation=" + mode);
    expect_like_qemu(dir_.file(mode + "-ext.qcow2"));
  }
}

TEST_F(Qcow2Special, bitmaps_snapshots_and_backing_names_in_info) {
  create("base.qcow2", "compat=1.1");
  write("base.qcow2");
  run_ok({"qemu-img", "bitmap", "--add", dir_.file("base.qcow2"), "bitmap-a"});
  run_ok({"qemu-img", "bitmap", "--add", "--disable", "-g", "128k", dir_.file("base.qcow2"), "bitmap-b"});
  run_ok({"qemu-img", "snapshot", "-c", "a snapshot", dir_.file("base.qcow2")});
  expect_like_qemu(dir_.file("base.qcow2"));
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", dir_.file("overlay.qcow2")});
  expect_like_qemu(dir_.file("overlay.qcow2"));
  EXPECT_EQ(test::drydock({"info", "--backing-chain", dir_.file("overlay.qcow2")}).out,
            run_ok({"qemu-img", "info", "--backing-chain", dir_.file("overlay.qcow2")}));
}

TEST_F(Qcow2Special, a_chain_of_four_layers) {
  create("0.qcow2", "cluster_size=64k");
  write("0.qcow2");
  for (int i = 1; i < 4; ++i) {
    const std::string name = fmt::format("{}.qcow2", i);
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", fmt::format("cluster_size={}", 1024 << i), "-b",
            fmt::format("{}.qcow2", i - 1), "-F", "qcow2", dir_.file(name)});
    run_ok({"qemu-io", "-c", fmt::format("write -P {} {}k 300k", 40 + i, 500 * i), "-c",
            fmt::format("write -z {}k 10k", 90 * i), dir_.file(name)});
  }
  expect_like_qemu(dir_.file("3.qcow2"));
}

TEST_F(Qcow2Special, maps_of_a_part) {
  create("part.qcow2", "cluster_size=4k");
  write("part.qcow2");
  const std::vector<std::string> words{"map", "--output=json", "--start-offset=101k", "--max-length=3M",
                                       dir_.file("part.qcow2")};
  std::vector<std::string> theirs{"qemu-img"};
  theirs.insert(theirs.end(), words.begin(), words.end());
  EXPECT_EQ(test::drydock(words).out, run_ok(theirs));
}

TEST_F(Qcow2Special, a_sparse_two_tebibyte_image) {
  create("huge.qcow2", "cluster_size=64k", "2T");
  run_ok({"qemu-io", "-c", "write -P 1 1T 64k", "-c", "write -P 2 2199023190016 64k", dir_.file("huge.qcow2")});
  EXPECT_EQ(test::drydock({"map", "--output=json", dir_.file("huge.qcow2")}).out,
            run_ok({"qemu-img", "map", "--output=json", dir_.file("huge.qcow2")}));
  std::vector<std::byte> byte(1);
  Image::open(dir_.file("huge.qcow2"), {})->disk()->read(GuestOffset(2199023190016), byte);
  EXPECT_EQ(byte[0], std::byte{2});
}

TEST_F(Qcow2Special, an_image_left_dirty_by_a_crash) {
  create("dirty.qcow2", "lazy_refcounts=on");
  const test::Outcome crash = test::run({"qemu-io", "-c", "write -P 9 0 1M", "-c", "abort", dir_.file("dirty.qcow2")});
  ASSERT_NE(crash.status, 0);
  EXPECT_THAT(test::drydock({"info", dir_.file("dirty.qcow2")}).out, HasSubstr("cleanly shut down: no"));
  const auto before = test::read_file(dir_.file("dirty.qcow2"));
  std::vector<std::byte> byte(1);
  Image::open(dir_.file("dirty.qcow2"), {})->disk()->read(GuestOffset(4096), byte);
  EXPECT_EQ(byte[0], std::byte{9});
  EXPECT_TRUE(before == test::read_file(dir_.file("dirty.qcow2")));  // safety 1: no dirty bit cleared, nothing replayed
}

TEST_F(Qcow2Special, encrypted_images_are_refused_with_their_method) {
  // AES, because making a LUKS image measures the processor, which fails on a busy machine.
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o",
          "encrypt.format=aes,encrypt.key-secret=s", dir_.file("aes.qcow2"), "1M"});
  EXPECT_THAT(test::drydock({"info", dir_.file("aes.qcow2")}).out, HasSubstr("encrypted: yes"));
  const test::Outcome outcome = test::drydock({"map", dir_.file("aes.qcow2")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("AES"));
}

TEST_F(Qcow2Special, a_file_cut_in_its_data_is_an_error_and_not_zeros) {
  create("cut.qcow2", "cluster_size=64k");
  run_ok({"qemu-io", "-c", "write -P 1 0 4M", dir_.file("cut.qcow2")});
  run_ok({"truncate", "-s", "-1M", dir_.file("cut.qcow2")});
  const auto disk = Image::open(dir_.file("cut.qcow2"), {})->disk();
  EXPECT_THAT(test::error_of([&] { test::bytes_of(*disk); }).what(), HasSubstr("truncated"));
  test::Process server({test::drydock_program(), "serve", "--socket", dir_.file("sock"), dir_.file("cut.qcow2")});
  ASSERT_TRUE(server.wait_for_output("socket=")) << server.errors();
  const test::Outcome copy = test::run({"nbdcopy", "nbd+unix:///?socket=" + dir_.file("sock"), "null:"});
  EXPECT_NE(copy.status, 0);
  EXPECT_THAT(copy.err, HasSubstr("Input/output error"));
}

// Zero clusters only: the whole file is metadata, so that every cut takes some of it away.
TEST_F(Qcow2Special, truncated_metadata_is_one_clear_error_at_every_512_bytes) {
  create("whole.qcow2", "cluster_size=512", "1M");
  run_ok({"qemu-io", "-c", "write -z 0 1M", dir_.file("whole.qcow2")});
  run_ok({"qemu-img", "snapshot", "-c", "s", dir_.file("whole.qcow2")});
  const auto whole = test::read_file(dir_.file("whole.qcow2"));
  for (uint64_t length = 0; length < whole.size(); length += 512) {
    test::write_file(dir_.file("cut.qcow2"), std::span(whole).first(length));
    const test::Outcome outcome = test::drydock({"map", "-f", "qcow2", dir_.file("cut.qcow2")});
    EXPECT_EQ(outcome.status, 1) << length;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << length << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("cut.qcow2")) << length;
  }
}

}  // namespace
}  // namespace drydock
