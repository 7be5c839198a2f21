// SPDX-License-Identifier: GPL-3.0-or-later
//
// The same words for qemu-img and for drydock under that name: the same text, JSON and exit status.

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <regex>

#include "tests/interop/beside_qemu_img.h"
#include "tests/support/in_process.h"

namespace drydock {
namespace {

using test::as_qemu_img;
using test::good_images;
using test::joined;
using test::Outcome;
using test::qemu_img;

class qemu_img_text : public test::BesideQemuImg {};

TEST_F(qemu_img_text, info_is_equal) {
  for (const std::string& image : good_images) {
    expect_the_same({{{"info", image}}, {{"info", "--output=json", image}}, {{"info", "-U", "-f", "raw", image}}});
    if (image == "orphan.qcow2" || image == "corrupt.qcow2") continue;
    expect_the_same({{{"info", "--backing-chain", image}}, {{"info", "--output", "json", "--backing-chain", image}}});
  }
  expect_the_same({{{"info", "--output=json", "a \"strange\" n\xc3\xa4me\x01\xff.qcow2"}}});
}

TEST_F(qemu_img_text, map_is_equal) {
  for (const std::string& image : good_images) {
    if (image == "orphan.qcow2") continue;
    expect_the_same({{{"map", "--output=json", image}},
                     {{"map", "--output=json", "--start-offset=100k", "--max-length=1M", image}},
                     {{"map", "-s", "64k", "-l", "2M", "--output=json", image}}});
    if (image == "compressed.qcow2") continue;
    expect_the_same({{{"map", image}}, {{"map", "--start-offset", "1M", image}}});
  }
  expect_the_same(
      {{{"map", "compressed.qcow2"}},
       {{"map", "orphan.qcow2"}, "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"}});
}

TEST_F(qemu_img_text, check_is_equal) {
  for (const std::string& image : good_images) {
    if (image == "corrupt.qcow2" || image == "orphan.qcow2") continue;
    expect_the_same({{{"check", image}}, {{"check", "--output=json", image}}, {{"check", "-q", "-U", image}}});
  }
  expect_the_same({{{"check", "leak.qcow2"}}});
}

TEST_F(qemu_img_text, wrong_words_are_refused_alike) {
  expect_the_same({
      {{}},
      {{"nothing"}},
      {{"help"}},
      {{"-x"}},
      {{"--nothing"}},
      {{"-T"}},
      {{"info"}},
      {{"info", "a", "b"}},
      {{"info", "-q", "plain.qcow2"}},
      {{"info", "--nothing", "plain.qcow2"}},
      {{"info", "-f"}},
      {{"info", "--output=xml", "plain.qcow2"}},
      {{"info", "-f", "vax", "plain.qcow2"}},
      {{"info", "nothing"}},
      {{"info", "--image-opts", "-f", "qcow2", "driver=qcow2,file.filename=plain.qcow2"}},
      {{"map"}},
      {{"map", "nothing"}},
      {{"map", "--start-offset=x", "plain.qcow2"}},
      {{"map", "--max-length=1z", "plain.qcow2"}},
      {{"map", "--max-length=9999P", "plain.qcow2"}},
      {{"check"}},
      {{"check", "nothing"}},
      {{"check", "disk.raw"}},
      {{"check", "-f", "qcow2", "disk.raw"}},
      {{"check", "-r", "some", "plain.qcow2"}},
      {{"check", "-T", "foo", "plain.qcow2"}},
      {{"create"}},
      {{"create", "-f", "qcow2", "new"}},
      {{"create", "new", "1x"}},
      {{"create", "-f", "vax", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "nothing=1", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "cluster_size=3", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "", "new", "1M"}},
      {{"create", "a", "1M", "b"}},
      {{"resize"}},
      {{"resize", "plain.qcow2"}},
      {{"resize", "plain.qcow2", "1M", "2M"}},
      {{"resize", "plain.qcow2", "x"}},
      {{"resize", "plain.qcow2", "+"}},
      {{"resize", "plain.qcow2", "-9G"}},
      {{"resize", "plain.qcow2", "-1M"}},
      {{"resize", "plain.qcow2", "1M"}},
      {{"resize", "--preallocation=foo", "plain.qcow2", "+1M"}},
      {{"resize", "--preallocation=full", "--shrink", "plain.qcow2", "256k"}},
      {{"resize", "nothing", "1M"}},
      {{"snapshot"}},
      {{"snapshot", "-l", "-c", "a", "plain.qcow2"}},
      {{"snapshot", "-c", "plain.qcow2"}},
      {{"snapshot", "-d", "nothing", "snapshots.qcow2"}},
      {{"snapshot", "-a", "nothing", "snapshots.qcow2"}},
      {{"snapshot", "-l", "nothing"}},
      {{"bitmap"}},
      {{"bitmap", "--add"}},
      {{"bitmap", "--add", "plain.qcow2"}},
      {{"bitmap", "--clear", "-g", "64k", "plain.qcow2", "b"}},
      {{"bitmap", "--add", "-F", "raw", "plain.qcow2", "b"}},
      {{"bitmap", "--add", "-b", "base.qcow2", "plain.qcow2", "b"}},
      {{"bitmap", "--remove", "plain.qcow2", "b"}},
      {{"bitmap", "--add", "bitmaps.qcow2", "first"}},
      {{"bitmap", "--add", "-g", "3", "plain.qcow2", "b"}},
      {{"bench"}},
      {{"rebase"}},
      {{"rebase", "top.qcow2"}},
      {{"rebase", "-b", "base.qcow2", "nothing"}},
      {{"rebase", "-b", "base.qcow2", "top.qcow2"}},
      {{"rebase", "-u", "-b", "base.qcow2", "top.qcow2"}},
      {{"rebase", "-b", "base.qcow2", "-F", "vax", "top.qcow2"}},
      {{"rebase", "-u", "-b", "base.qcow2", "-F", "vax", "top.qcow2"}},
      {{"rebase", "-b", "nothing", "-F", "qcow2", "top.qcow2"}},
      {{"rebase", "-t", "vax", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"}},
      {{"rebase", "-T", "vax", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"}},
      {{"rebase", "-f", "raw", "-b", "base.qcow2", "-F", "qcow2", "disk.raw"}},
      {{"commit"}},
      {{"commit", "nothing"}},
      {{"commit", "base.qcow2"}},
      {{"commit", "disk.raw"}},
      {{"commit", "-b", "nothing", "top.qcow2"}},
      {{"commit", "-t", "vax", "top.qcow2"}},
      {{"commit", "-r", "x", "top.qcow2"}},
      {{"amend"}},
      {{"amend", "plain.qcow2"}},
      {{"amend", "-o", "help"}},
      {{"amend", "-f", "raw", "-o", "help"}},
      {{"amend", "-o", "help", "disk.raw"}},
      {{"amend", "-o", "help", "nothing"}},
      {{"amend", "-o", "size=1M", "nothing"}},
      {{"amend", "-o", "", "plain.qcow2"}},
      {{"amend", "-o", "nothing=1", "plain.qcow2"}},
      {{"amend", "-o", "cluster_size=4k", "plain.qcow2"}},
      {{"amend", "-o", "preallocation=full", "plain.qcow2"}},
      {{"amend", "-o", "compat=2", "plain.qcow2"}},
      {{"amend", "-o", "refcount_bits=3", "plain.qcow2"}},
      {{"amend", "-o", "compat=0.10,refcount_bits=8", "plain.qcow2"}},
      {{"amend", "-o", "compat=0.10,lazy_refcounts=on", "plain.qcow2"}},
      {{"amend", "-o", "data_file=x", "plain.qcow2"}},
      {{"amend", "-o", "data_file_raw=on", "plain.qcow2"}},
      {{"amend", "-o", "compat=0.10", "data.qcow2"}},
      {{"amend", "-o", "compat=0.10", "extended.qcow2"}},
      {{"amend", "-o", "backing_file=base.qcow2", "top.qcow2"}},
      {{"amend", "-o", "backing_file=middle.qcow2", "top.qcow2"}},
      {{"amend", "-o", "backing_file=middle.qcow2,backing_fmt=qcow2", "top.qcow2"}},
      {{"amend", "-o", "backing_fmt=qcow2", "top.qcow2"}},
      {{"amend", "-o", "backing_fmt=", "plain.qcow2"}},
      {{"amend", "-o", "compat=", "plain.qcow2"}},
      {{"amend", "-o", "size=1000", "plain.qcow2"}},
      {{"amend", "-f", "raw", "-o", "size=1M", "disk.raw"}},
  });
}

// What is told once the image is to be made comes behind the line that tells so, and in the words of who makes it.
TEST_F(qemu_img_text, values_that_an_image_cannot_be_made_with_are_refused_alike) {
  expect_the_same({
      {{"create", "-f", "qcow2", "-o", "preallocation=vax", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "compat=2", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "compression_type=lzo", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "encrypt.format=vax", "new", "1M"}},
      {{"create", "-f", "raw", "-o", "preallocation=vax", "new", "1M"}},
      {{"create", "-f", "qcow2", "-b", "nothing", "-F", "qcow2", "-o", "compat=2", "new"}},
      {{"create", "-f", "qcow2", "-b", "base.qcow2", "-F", "vax", "new"}},
      {{"create", "-f", "qcow2", "-u", "-b", "base.qcow2", "-F", "vax", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "size=16E", "new"}},
      {{"create", "-f", "raw", "-o", "size=18446744073709551615", "new"}},
      {{"convert", "-O", "qcow2", "-o", "preallocation=vax", "plain.qcow2", "new"}},
      {{"convert", "-O", "qcow2", "-o", "compat=2", "plain.qcow2", "new"}},
      {{"convert", "-O", "raw", "-o", "preallocation=vax", "plain.qcow2", "new"}},
      {{"resize", "plain.qcow2", "9223372036854775807"}},
      {{"resize", "-f", "raw", "disk.raw", "9223372036854775807"}},
  });
}

TEST_F(qemu_img_text, a_guessed_raw_image_is_warned_of_by_whatever_opens_it_for_writing) {
  expect_the_same({
      {{"check", "-r", "all", "disk.raw"}},
      {{"amend", "-o", "size=2M", "disk.raw"}},
      {{"snapshot", "disk.raw"}},
      {{"check", "-r", "all", "-f", "raw", "disk.raw"}},
  });
}

TEST_F(qemu_img_text, what_bench_cannot_do_is_refused_alike) {
  expect_the_same({
      {{"bench", "-c", "1K", "plain.qcow2"}},
      {{"bench", "-c", "-1", "plain.qcow2"}},
      {{"bench", "-c", "4294967296", "plain.qcow2"}},
      {{"bench", "-d", "x", "plain.qcow2"}},
      {{"bench", "-n", "plain.qcow2"}},
      {{"bench", "-i", "native", "plain.qcow2"}},
  });
}

TEST_F(qemu_img_text, what_cannot_be_done_is_refused_alike) {
  expect_the_same({
      {{"info", "-dash"}},
      {{"snapshot", "-U", "plain.qcow2"}},
      {{"info", ""}},
      {{"map", ""}},
      {{"map", "--max-length=0", "--output=json", "top.qcow2"}},
      {{"map", "--start-offset=9M", "--output=json", "top.qcow2"}},
      {{"create", "-f", "qcow2", "new", "1Z"}},
      {{"create", "-f", "qcow2", "new", "99E"}},
      {{"create", "-f", "qcow2", "new", "-5"}},
      {{"create", "-f", "qcow2", "nofolder/new", "1M"}},
      {{"create", "-f", "qcow2", "folder", "1M"}},
      {{"create", "-f", "qcow2", "vax:new", "1M"}},
      {{"create", "-f", "qcow2", "json:{}", "1M"}},
      {{"create", "new.raw", ".5M"}},
      {{"info", "vax:plain.qcow2"}},
      {{"info", "file:gone"}},
      {{"convert", "-O", "qcow2", "plain.qcow2", "vax:new"}},
      {{"dd", "if=plain.qcow2", "of=vax:new"}},
      {{"info", "--back", "gone"}},
      {{"bitmap", "--a", "gone", "b"}},
      {{"convert", "--f", "gone", "new"}},
      {{"bench", "-i", "vax", "plain.qcow2"}},
      {{"create", "-f", "raw", "-o", "preallocation=metadata", "new", "1M"}},
      {{"create", "-f", "raw", "-b", "base.qcow2", "-F", "raw", "new"}},
      {{"create", "-f", "qcow2", "-o", "size=1G", "new", "2G"}},
      {{"create", "-f", "qcow2", "-o", "cluster_size=4M", "new", "1G"}},
      {{"create", "-f", "qcow2", "-o", "refcount_bits=7", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "compat=0.10,refcount_bits=8", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "compat=0.10,lazy_refcounts=on", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "compat=0.10,extended_l2=on", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "compat=0.10,compression_type=zstd", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=8k", "new", "1M"}},
      {{"create", "-f", "qcow2", "-o", "data_file_raw=on", "new", "1M"}},
      {{"create", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "new"}},
      {{"create", "-f", "raw", "-o", "help"}},
      {{"create", "-f", "raw", "-o", "?", "new"}},
      {{"create", "-f", "vax", "-o", "help"}},
      {{"create", "-f", "vax", "-o", "help", "new"}},
      {{"create", "-f", "vax"}},
      {{"create", "-f", "vax", "new", "1M"}},
      {{"convert", "-O", "raw", "-o", "help"}},
      {{"convert", "-O", "raw", "-o", "?", "disk.raw", "new"}},
      {{"convert", "-O", "vax", "-o", "help"}},
      {{"resize", "plain.qcow2", "0"}},
      {{"resize", "plain.qcow2", ""}},
      {{"resize", "plain.qcow2", "4200000"}},
      {{"resize", "plain.qcow2", "+100"}},
      {{"resize", "plain.qcow2", "9E"}},
      {{"resize", "old_snapshot.qcow2", "8M"}},
      {{"snapshot", "plain.qcow2"}},
      {{"snapshot", "snapshots.qcow2"}},
      {{"snapshot", "-l", "a", "b"}},
      {{"snapshot", "-l", "-l", "snapshots.qcow2"}},
      {{"snapshot", "-d", "--obj", "snapshots.qcow2"}},
      {{"snapshot", "-qd", "--obj", "snapshots.qcow2"}},
      {{"snapshot", "-d", "a", "-d", "b", "snapshots.qcow2"}},
      {{"snapshot", "-c", "new", "-f", "raw", "disk.raw"}, "Could not create snapshot 'new': "},
      {{"snapshot", "-c", "new", "data.qcow2"}, "Could not create snapshot 'new': "},
      {{"bitmap", "--add", "-g", "x", "plain.qcow2", "b"}},
      {{"bitmap", "--add", "-g", "1", "plain.qcow2", "b"}},
      {{"bitmap", "--clear", "bitmaps.qcow2", "none"}},
      {{"bitmap", "--enable", "bitmaps.qcow2", "none"}},
      {{"bitmap", "--merge", "none", "bitmaps.qcow2", "first"}},
      {{"bitmap", "--merge", "first", "-b", "nothing", "plain.qcow2", "b"}},
      {{"bitmap", "--merge", "none", "bitmaps.qcow2", "nothing"}},
      {{"rebase", "-U", "-b", "base.qcow2", "-F", "vax", "top.qcow2"}},
      {{"rebase", "-b", "disk.raw", "-F", "qcow2", "top.qcow2"}},
      {{"rebase", "-b", "", "empty"}},
      {{"rebase", "-b", "base.qcow2", "-F", "qcow2", "orphan.qcow2"},
       "Could not open 'orphan.qcow2': Could not open backing file"},
      {{"rebase", "-b", "base.qcow2", "-F", "qcow2", "corrupt.qcow2"}, "Could not open 'corrupt.qcow2': "},
      {{"commit", "orphan.qcow2"}, "Could not open 'orphan.qcow2': Could not open backing file"},
      {{"commit", "corrupt.qcow2"}, "Could not open 'corrupt.qcow2': "},
      {{"commit", "-b", "top.qcow2", "top.qcow2"}},
      {{"commit", "-f", "raw", "top.qcow2"}},
      {{"commit", "a", "b"}},
      {{"amend", "-o", "compat=v2", "lazy.qcow2"}},
      {{"amend", "-o", "refcount_bits=0", "plain.qcow2"}},
      {{"amend", "-o", "refcount_bits=1", "snapshots.qcow2"}},
      {{"amend", "-o", "lazy_refcounts=maybe", "plain.qcow2"}},
      {{"amend", "-o", "size=8M", "old_snapshot.qcow2"}},
      {{"amend", "-o", "encrypt.format=luks", "plain.qcow2"}},
      {{"amend", "-o", "size=8M", "orphan.qcow2"}, "Could not open 'orphan.qcow2': Could not open backing file"},
  });
}

TEST_F(qemu_img_text, json_names_are_taken_alike) {
  images_->make_copies();
  const std::string file = R"({"driver":"file","filename":"plain.qcow2"})";
  for (const std::string& name : {
           R"({"driver":"qcow2","file":)" + file + "}",
           R"({"file":)" + file + "}",
           std::string(R"({"driver":"qcow2","file.driver":"file","file.filename":"plain.qcow2"})"),
           R"({"driver":"raw","file":)" + file + "}",
           file,
           R"({"driver":"qcow2","lazy-refcounts":true,"file":)" + file + "}",
           std::string(R"({"driver":"null-co"})"),
           std::string(R"({"driver":"null-co","size":1048576})"),
           std::string(R"({"driver":"qcow2","file":"x"})"),
           std::string(R"({"driver":"qcow2","file":{"driver":"file"}})"),
           std::string(R"({"driver":"qcow2","file":{"driver":"host_device","filename":"plain.qcow2"}})"),
           R"({"driver":"qcow2","bogus":1,"file":)" + file + "}",
           std::string(R"({"driver":"qcow2"})"),
           std::string("{}"),
           std::string("{"),
           std::string("[1]"),
       }) {
    expect_the_same({{{"info", "json:" + name}}, {{"map", "json:" + name}}, {{"snapshot", "-l", "json:" + name}}});
  }
  const std::string plain = R"(json:{"driver":"qcow2","file":)" + file + "}";
  expect_the_same({{{"info", "-f", "raw", plain}},
                   {{"info", "-f", "qcow2", R"(json:{"file":)" + file + "}"}},
                   {{"check", plain}},
                   {{"compare", plain, "plain.qcow2"}},
                   {{"measure", "-O", "qcow2", plain}}});
  expect_the_same_new({{"convert", "-O", "raw", plain, "made"}}, {"made"});
}

TEST_F(qemu_img_text, drivers_of_files_are_raw_alike) {
  images_->make_copies();
  expect_the_same({{{"info", "-f", "file", "plain.qcow2"}},
                   {{"info", "--output=json", "-f", "file", "plain.qcow2"}},
                   {{"info", "-f", "host_device", "plain.qcow2"}},
                   {{"check", "-f", "file", "plain.qcow2"}},
                   {{"compare", "-f", "file", "-F", "raw", "plain.qcow2", "plain.qcow2"}},
                   {{"measure", "-f", "file", "-O", "qcow2", "plain.qcow2"}}});
  expect_the_same_new({{"convert", "-f", "file", "-O", "file", "plain.qcow2", "made"}}, {"made"});
  expect_the_same_new({{"create", "-f", "qcow2", "-b", "disk.raw", "-F", "file", "made"}}, {"made"});
  expect_the_same_new({{"create", "-f", "qcow2", "-b", "disk.raw", "-F", "host_device", "made"}}, {});
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "file", "over-file.qcow2"});
  expect_the_same({{{"info", "--backing-chain", "over-file.qcow2"}}, {{"map", "--output=json", "over-file.qcow2"}}});
}

TEST_F(qemu_img_text, names_with_a_colon_and_chains_that_loop_are_told_alike) {
  std::filesystem::copy_file("plain.qcow2", "a:b");
  expect_the_same({{{"info", "file:a:b"}}, {{"info", "--output=json", "file:./a:b"}}, {{"info", "./a:b"}}});
  std::filesystem::remove("a:b");
  for (const std::string name : {"one.qcow2", "two.qcow2"}) {
    test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", name, "1M"});
  }
  test::run_ok({"qemu-img", "rebase", "-u", "-b", "two.qcow2", "-F", "qcow2", "one.qcow2"});
  test::run_ok({"qemu-img", "rebase", "-u", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2"});
  expect_the_same({{{"info", "one.qcow2"}}, {{"info", "--backing-chain", "one.qcow2"}}});
  test::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "small.qcow2", "1M"});
  expect_the_same({{{"resize", "small.qcow2", "4E"}}});
}

TEST_F(qemu_img_text, measure_of_a_small_disk_is_what_convert_then_writes) {
  for (const size_t size : {size_t{1}, size_t{512}, size_t{1000}, size_t{4096}, size_t{70000}}) {
    test::write_file("small.raw", test::random_bytes(size, size));
    for (const std::string options : {"cluster_size=512", "cluster_size=64k", "cluster_size=2M,compat=0.10"}) {
      expect_the_same({{{"measure", "-f", "raw", "-O", "qcow2", "-o", options, "small.raw"}}});
      ASSERT_EQ(as_qemu_img({"convert", "-f", "raw", "-O", "qcow2", "-o", options, "small.raw", "made"}).status, 0);
      const std::string measured = as_qemu_img({"measure", "-f", "raw", "-O", "qcow2", "-o", options, "small.raw"}).out;
      EXPECT_THAT(measured,
                  testing::StartsWith(fmt::format("required size: {}\n", std::filesystem::file_size("made"))));
    }
  }
}

TEST_F(qemu_img_text, what_is_wrong_with_an_image_is_told_alike) {
  expect_the_same({
      {{"info", "version.qcow2"}, "Could not open 'version.qcow2': Unsupported qcow2 version 9"},
      {{"info", "feature.qcow2"}},
      {{"map", "l1.qcow2"}, "Could not open 'l1.qcow2': "},
      {{"info", "clusters.qcow2"}, "Could not open 'clusters.qcow2': Unsupported cluster size"},
      {{"info", "countless.qcow2"}},
      {{"snapshot", "-l", "countless.qcow2"}},
      {{"info", "-f", "qcow2", "disk.raw"}},
      {{"map", "-f", "qcow2", "empty"}, "Could not open 'empty': "},
      {{"info", "folder"}, "Could not open 'folder': Could not open 'folder': it is a directory"},
      {{"info", "--backing-chain", "orphan.qcow2"},
       "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
      {{"info", "in_use.qcow2"}},
      {{"measure", "-O", "qcow2", "in_use.qcow2"}},
      {{"convert", "-O", "qcow2", "--bitmaps", "in_use.qcow2", "new"}},
      {{"resize", "in_use.qcow2", "8M"}, "Bitmap 'second' is inconsistent and cannot be used: "},
      {{"resize", "--shrink", "in_use.qcow2", "2M"}, "Bitmap 'second' is inconsistent and cannot be used: "},
  });
}

TEST_F(qemu_img_text, a_missing_base_ends_the_same_verbs) {
  const std::string cause = "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'";
  expect_the_same({
      {{"check", "orphan.qcow2"}, cause},
      {{"check", "--output=json", "orphan.qcow2"}, cause},
      {{"check", "-r", "all", "orphan.qcow2"}, cause},
      {{"snapshot", "-l", "orphan.qcow2"}, cause},
      {{"snapshot", "orphan.qcow2"}, cause},
      {{"snapshot", "-c", "x", "orphan.qcow2"}, cause},
      {{"snapshot", "-a", "x", "orphan.qcow2"}, cause},
      {{"snapshot", "-d", "x", "orphan.qcow2"}, cause},
      {{"resize", "orphan.qcow2", "8M"}, cause},
      {{"amend", "-o", "help", "orphan.qcow2"}, cause},
      {{"bench", "-c", "1", "orphan.qcow2"}, cause},
  });
  EXPECT_EQ(test::drydock({"check", "orphan.qcow2"}).status, 0);
  EXPECT_THAT(test::drydock({"snapshot", "-l", "orphan.qcow2"}).err, testing::HasSubstr("gone.qcow2"));
}

TEST_F(qemu_img_text, images_may_be_described_by_options) {
  expect_the_same({
      {{"info", "--image-opts", "driver=qcow2,file.filename=plain.qcow2"}},
      {{"info", "--image-opts", "driver=qcow2,file.driver=file,file.filename=plain.qcow2,file.locking=off"}},
      {{"info", "--image-opts", "file.filename=plain.qcow2"}},
      {{"info", "--image-opts", "driver=raw,file.filename=plain.qcow2"}},
      {{"info", "--object", "secret,id=x,data=foo", "plain.qcow2"}},
      {{"info", "--image-opts", "filename=plain.qcow2"}},
      {{"info", "--image-opts", "driver=qcow2,file.filename=plain.qcow2,foo=1"}},
      {{"info", "--image-opts", "driver=qcow2,file.filename=plain.qcow2,file.foo=1"}},
      {{"info", "--image-opts", "driver=qcow2"}},
      {{"info", "--image-opts", "driver=vax,file.filename=plain.qcow2"}},
      {{"info", "--image-opts", "driver=qcow2,file=x"}},
      {{"info", "--image-opts", "plain.qcow2"}},
      {{"info", "--image-opts", "driver=qcow2,file.filename=no,,thing"}},
      {{"map", "--image-opts", "driver=raw,offset=1M,size=128k,file.filename=disk.raw", "--output=json"}},
      {{"map", "--image-opts", "driver=raw,offset=1M,file.filename=disk.raw"}},
      {{"check", "--image-opts", "driver=qcow2,file.filename=top.qcow2"}},
      {{"snapshot", "--image-opts", "-l", "driver=qcow2,file.filename=snapshots.qcow2"}},
      {{"info", "--object", "nothing,id=x", "plain.qcow2"}},
      {{"info", "--object", "secret,data=x", "plain.qcow2"}},
      {{"info", "--object", "secret,id=x", "plain.qcow2"}},
  });
}

TEST_F(qemu_img_text, changes_are_told_and_made_alike) {
  expect_the_same_change({{"snapshot", "-c", "", "plain.qcow2"}}, {"plain.qcow2"});
  expect_the_same_change({{"create", "-f", "qcow2", "new.qcow2", "1G"}}, {"new.qcow2"});
  expect_the_same_change({{"create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "new.qcow2"}}, {"new.qcow2"});
  expect_the_same_change({{"create", "-q", "new.raw", "1.5M"}}, {"new.raw"});
  expect_the_same_change({{"create", "-q", "new.raw", "0.3M"}}, {"new.raw"});
  expect_the_same_change({{"create", "-q", "file:new.raw", "1M"}}, {"new.raw"});
  expect_the_same_change({{"resize", "plain.qcow2", "+1M"}}, {"plain.qcow2"});
  expect_the_same_change({{"resize", "--shrink", "plain.qcow2", "-512k"}}, {"plain.qcow2"});
  expect_the_same_change({{"resize", "disk.raw", "8M"}}, {"disk.raw"});
  expect_the_same_change({{"resize", "-q", "-f", "raw", "disk.raw", "8M"}}, {"disk.raw"});
  expect_the_same_change({{"snapshot", "-c", "new", "snapshots.qcow2"}}, {"snapshots.qcow2"});
  expect_the_same_change({{"snapshot", "-a", "one", "snapshots.qcow2"}}, {"snapshots.qcow2"});
  expect_the_same_change({{"snapshot", "-d", "one", "snapshots.qcow2"}}, {"snapshots.qcow2"});
  expect_the_same_change({{"bitmap", "--add", "plain.qcow2", "b"}}, {"plain.qcow2"});
  expect_the_same_change({{"bitmap", "--disable", "bitmaps.qcow2", "first"}}, {"bitmaps.qcow2"});
  expect_the_same_change({{"check", "-r", "leaks", "leak.qcow2"}}, {"leak.qcow2"});
  expect_the_same_change({{"check", "-r", "all", "plain.qcow2"}}, {"plain.qcow2"});
  expect_the_same_change({{"rebase", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"}}, {"top.qcow2"});
  expect_the_same_change({{"rebase", "-b", "", "top.qcow2"}}, {"top.qcow2"});
  expect_the_same_change({{"rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", "orphan.qcow2"}}, {"orphan.qcow2"});
  expect_the_same_change({{"rebase", "-b", "../plain.qcow2", "-F", "qcow2", "folder/over.qcow2"}},
                         {"folder/over.qcow2"});
  expect_the_same_change({{"commit", "top.qcow2"}}, {"top.qcow2", "middle.qcow2"});
  expect_the_same_change({{"commit", "-q", "-b", "base.qcow2", "top.qcow2"}}, {"top.qcow2", "base.qcow2"});
  expect_the_same_change({{"amend", "-o", "compat=0.10", "plain.qcow2"}}, {"plain.qcow2"});
  expect_the_same_change({{"amend", "-o", "compat=v3", "old.qcow2"}}, {"old.qcow2"});
  expect_the_same_change({{"amend", "-o", "refcount_bits=8,lazy_refcounts=on,size=6M", "plain.qcow2"}},
                         {"plain.qcow2"});
  expect_the_same_change({{"amend", "-o", "refcount_bits=16", "lazy.qcow2"}}, {"lazy.qcow2"});
}

TEST_F(qemu_img_text, chains_of_every_kind_are_changed_alike) {
  expect_the_same_change({{"rebase", "-b", "plain.qcow2", "-F", "qcow2", "over_v2.qcow2"}}, {"over_v2.qcow2"});
  expect_the_same_change({{"rebase", "-b", "disk.raw", "-F", "raw", "over_ext.qcow2"}}, {"over_ext.qcow2"});
  expect_the_same_change({{"rebase", "-b", "top.qcow2", "-F", "qcow2", "bitmaps.qcow2"}}, {"bitmaps.qcow2"});
  expect_the_same_change({{"rebase", "-u", "orphan.qcow2"}}, {"orphan.qcow2"});
  expect_the_same_change(
      {{"rebase", "-f", "qcow2", "-t", "none", "-T", "writeback", "-b", "odd.raw", "-F", "raw", "over_raw.qcow2"}},
      {"over_raw.qcow2"});
  expect_the_same_change({{"commit", "over_v2.qcow2"}}, {"over_v2.qcow2", "base.qcow2"});
  expect_the_same_change({{"commit", "over_ext.qcow2"}}, {"over_ext.qcow2", "base.qcow2"});
  expect_the_same_change({{"commit", "over_raw.qcow2"}}, {"over_raw.qcow2", "disk.raw"});
  expect_the_same_change({{"commit", "-d", "top.qcow2"}}, {"top.qcow2", "middle.qcow2"});
  expect_the_same_change({{"commit", "-r", "100M", "-b", "./base.qcow2", "top.qcow2"}}, {"top.qcow2", "base.qcow2"});
  expect_the_same_change({{"amend", "-o", "compat=v2", "middle.qcow2"}}, {"middle.qcow2"});
  expect_the_same_change({{"amend", "-o", "compat=v2", "metadata.qcow2"}}, {"metadata.qcow2"});
  expect_the_same_change({{"amend", "-o", "compat=1.1,lazy_refcounts=on", "over_v2.qcow2"}}, {"over_v2.qcow2"});
  expect_the_same_change({{"amend", "-o", "refcount_bits=64", "snapshots.qcow2"}}, {"snapshots.qcow2"});
  expect_the_same_change({{"amend", "-o", "refcount_bits=64", "bitmaps.qcow2"}}, {"bitmaps.qcow2"});
}

TEST_F(qemu_img_text, sizes_snapshots_and_bitmaps_of_every_kind_are_changed_alike) {
  expect_the_same_change({{"resize", "--preallocation=full", "top.qcow2", "8M"}}, {"top.qcow2"});
  expect_the_same_change({{"resize", "--preallocation=metadata", "over_ext.qcow2", "8M"}}, {"over_ext.qcow2"});
  expect_the_same_change({{"resize", "--preallocation=falloc", "-f", "raw", "disk.raw", "8M"}}, {"disk.raw"});
  expect_the_same_change({{"resize", "-f", "raw", "odd.raw", "2000"}}, {"odd.raw"});
  expect_the_same_change({{"resize", "-f", "raw", "--shrink", "odd.raw", "100"}}, {"odd.raw"});
  expect_the_same_change({{"resize", "--shrink", "over_v2.qcow2", "2M"}}, {"over_v2.qcow2"});
  expect_the_same_change({{"resize", "bitmaps.qcow2", "8M"}}, {"bitmaps.qcow2"});
  expect_the_same_change({{"snapshot", "-c", "new", "over_ext.qcow2"}}, {"over_ext.qcow2"});
  expect_the_same_change({{"snapshot", "-a", "old", "old_snapshot.qcow2"}}, {"old_snapshot.qcow2"});
  expect_the_same_change({{"bitmap", "--add", "orphan.qcow2", "b"}}, {});
  expect_the_same_change(
      {{"bitmap", "--add", "--merge", "first", "-b", "bitmaps.qcow2", "-F", "qcow2", "top.qcow2", "x"}}, {"top.qcow2"});
  expect_the_same_change({{"bitmap", "--merge", "second", "--disable", "bitmaps.qcow2", "first"}}, {"bitmaps.qcow2"});
  expect_the_same_change(
      {{"create", "-f", "qcow2", "-o", "compat=v3,refcount_bits=8,lazy_refcounts=on", "new.qcow2", "1M"}},
      {"new.qcow2"});
  expect_the_same_change({{"create", "-f", "qcow2", "-o", "preallocation=falloc,cluster_size=4k", "new.qcow2", "4M"}},
                         {"new.qcow2"});
}

// The numbers that -p shows.
std::vector<double> percentages(const std::string& output) {
  std::vector<double> numbers;
  const std::regex shown("([0-9.]+)/100%");
  for (std::sregex_iterator at(output.begin(), output.end(), shown), end; at != end; ++at) {
    numbers.push_back(std::stod((*at)[1]));
  }
  return numbers;
}

TEST_F(qemu_img_text, progress_begins_and_ends_alike_and_never_goes_back) {
  for (const std::vector<std::string>& line :
       {std::vector<std::string>{"convert", "-p", "-O", "qcow2", "top.qcow2", "new.qcow2"},
        {"convert", "-p", "-c", "-O", "qcow2", "plain.qcow2", "new.qcow2"},
        {"compare", "-p", "plain.qcow2", "compressed.qcow2"},
        {"commit", "-p", "top.qcow2"},
        {"rebase", "-p", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"},
        {"rebase", "-p", "-b", "", "top.qcow2"},
        {"rebase", "-p", "-u", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"},
        {"amend", "-p", "-o", "refcount_bits=64", "plain.qcow2"}}) {
    images_->make_copies();
    images_->enter("a");
    const std::vector<double> own = percentages(as_qemu_img(line).out);
    images_->enter("b");
    const std::vector<double> qemu = percentages(qemu_img(line).out);
    ASSERT_FALSE(own.empty() || qemu.empty()) << joined(line);
    EXPECT_EQ(own.front(), 0) << joined(line);
    EXPECT_EQ(qemu.front(), 0) << joined(line);
    EXPECT_EQ(own.back(), qemu.back()) << joined(line);
    EXPECT_TRUE(std::ranges::is_sorted(own)) << joined(line);
  }
}

TEST_F(qemu_img_text, the_program_itself_answers_as_scripts_expect) {
  EXPECT_THAT(as_qemu_img({"--version"}).out, testing::StartsWith("qemu-img version 7.2."));
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--help"}, {"-h"}, {"info", "--help"}, {"-T", "events=x", "map", "-h"}}) {
    const Outcome help = as_qemu_img(words);
    EXPECT_EQ(help.status, 0) << joined(words);
    EXPECT_THAT(help.out, testing::HasSubstr("\nusage: qemu-img [standard options] command [command options]\n"));
    EXPECT_THAT(help.out, testing::HasSubstr("\nSupported formats: "));
  }
  EXPECT_EQ(as_qemu_img({"-T", "enable=x", "info", "plain.qcow2"}).out, qemu_img({"info", "plain.qcow2"}).out);
}

}  // namespace
}  // namespace drydock
