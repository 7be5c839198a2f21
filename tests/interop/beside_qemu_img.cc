// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/interop/beside_qemu_img.h"

#include <cstring>
#include <regex>
#include <set>

#include "tests/support/in_process.h"

namespace drydock::test {

namespace fs = std::filesystem;

namespace {

void qemu_io(const std::string& image, const std::vector<std::string>& commands) {
  std::vector<std::string> argv{"qemu-io"};
  for (const std::string& command : commands) argv.insert(argv.end(), {"-c", command});
  argv.push_back(image);
  run_ok(argv);
}

void create(const std::string& image, const std::string& options, const std::string& size) {
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, size});
}

void overlay(const std::string& image, const std::string& below) {
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", image});
}

void patch(const std::string& from, const std::string& to, uint64_t offset, const std::string& bytes) {
  auto content = read_file(from);
  std::memcpy(content.data() + offset, bytes.data(), bytes.size());
  write_file(to, content);
}

// What qemu-img tells of an image, without the hour and the space that it takes.
std::string state_of(const std::string& image) {
  const Outcome info = run({"qemu-img", "info", "--output=json", image});
  return std::regex_replace(info.out + info.err, std::regex("\"(actual-size|date-n?sec)\": [0-9]+"), "$1");
}

void expect_equal(const Outcome& own, const Outcome& qemu, const Line& line) {
  EXPECT_EQ(own.status, qemu.status) << joined(line.words) << own.err << qemu.err;
  EXPECT_EQ(own.out, qemu.out) << joined(line.words);
  if (!line.instead.empty()) {
    EXPECT_THAT(own.err, testing::StartsWith("qemu-img: " + line.instead)) << joined(line.words) << qemu.err;
  } else {
    EXPECT_EQ(own.err, qemu.err) << joined(line.words);
  }
}

std::set<std::string> files_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) names.insert(entry.path().string());
  return names;
}

void expect_the_same_image(const std::string& image, const Line& line) {
  ASSERT_TRUE(fs::exists("a/" + image)) << joined(line.words);
  const Outcome compared = run({"qemu-img", "compare", "-U", "a/" + image, "b/" + image});
  EXPECT_EQ(compared.status, 0) << joined(line.words) << compared.out << compared.err;
  if (!image.ends_with(".qcow2")) return;
  EXPECT_EQ(run({"qemu-img", "check", "-U", "a/" + image}).status, 0) << joined(line.words);
}

}  // namespace

ImageFolder::ImageFolder() : previous_(fs::current_path()) {
  fs::current_path(dir_.path());
  make();
  make_overlays();
  make_broken();
}

ImageFolder::~ImageFolder() { fs::current_path(previous_); }

void ImageFolder::enter(const std::string& folder) const { fs::current_path(dir_.path() / folder); }

void ImageFolder::make_copies() const {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir_.path())) names.push_back(entry.path().filename().string());
  for (const std::string side : {"a", "b"}) {
    fs::remove_all(dir_.path() / side);
    fs::create_directory(dir_.path() / side);
    std::vector<std::string> copy{"cp", "-r", "--sparse=always", "-t", (dir_.path() / side).string()};
    for (const std::string& name : names) {
      if (name != "a" && name != "b") copy.push_back((dir_.path() / name).string());
    }
    run_ok(copy);
  }
}

void ImageFolder::make() const {
  create("plain.qcow2", "cluster_size=64k", "4M");
  qemu_io("plain.qcow2", {"write -P 1 0 1M", "write -z 1M 512k", "discard 64k 64k", "write -P 2 3M 100k"});
  create("small.qcow2", "cluster_size=512", "1M");
  qemu_io("small.qcow2", {"write -P 1 3k 5k", "write -P 3 700k 9k"});
  create("extended.qcow2", "cluster_size=64k,extended_l2=on", "4M");
  qemu_io("extended.qcow2", {"write -P 1 2k 2k", "write -z 8k 4k", "write -P 1 1M 300k"});
  create("old.qcow2", "compat=0.10", "4M");
  qemu_io("old.qcow2", {"write -P 1 64k 640k"});
  create("lazy.qcow2", "lazy_refcounts=on,refcount_bits=64,compression_type=zstd", "5T");
  create("data.qcow2", "data_file=data.raw,data_file_raw=on", "2M");
  qemu_io("data.qcow2", {"write -P 1 64k 640k"});
  create("base.qcow2", "cluster_size=64k", "4M");
  qemu_io("base.qcow2", {"write -P 1 0 2M"});
  overlay("middle.qcow2", "base.qcow2");
  qemu_io("middle.qcow2", {"write -P 2 512k 1M", "write -z 128k 64k"});
  overlay("top.qcow2", "middle.qcow2");
  qemu_io("top.qcow2", {"write -P 3 1M 256k", "write -P 4 3M 64k"});
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "gone.qcow2", "-F", "qcow2", "orphan.qcow2", "1M"});
  create("snapshots.qcow2", "cluster_size=4k", "1M");
  for (const std::string name : {"one", "a longer name than fits", "3", "sp\xc3\xa4ter"}) {
    qemu_io("snapshots.qcow2", {"write -P 7 " + std::to_string(name.size()) + "k 40k"});
    run_ok({"qemu-img", "snapshot", "-c", name, "snapshots.qcow2"});
  }
  create("bitmaps.qcow2", "cluster_size=64k", "4M");
  run_ok({"qemu-img", "bitmap", "--add", "bitmaps.qcow2", "first"});
  run_ok({"qemu-img", "bitmap", "--add", "--disable", "-g", "1M", "bitmaps.qcow2", "second"});
  fs::create_directory("folder");
  overlay("folder/over.qcow2", "../base.qcow2");
  run_ok({"qemu-img", "convert", "-c", "-O", "qcow2", "plain.qcow2", "compressed.qcow2"});
  run_ok({"qemu-img", "create", "-q", "-f", "raw", "disk.raw", "3M"});
  qemu_io("disk.raw", {"write -P 5 1M 1M"});
  write_file("odd.raw", test::random_bytes(1, 1000));
  fs::copy_file("plain.qcow2", "a \"strange\" n\xc3\xa4me\x01\xff.qcow2");
  create("none.qcow2", "compat=1.1", "0");
  create("odd.qcow2", "cluster_size=2M", "1000k");
  qemu_io("odd.qcow2", {"write -P 9 999k 512"});
  create("metadata.qcow2", "preallocation=metadata", "3M");
  qemu_io("metadata.qcow2", {"write -P 9 999k 512"});
  create("falloc.qcow2", "preallocation=falloc", "3M");
  create("full.qcow2", "preallocation=full", "1M");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "large.qcow2", "6M"});
  qemu_io("large.qcow2", {"write -P 4 5M 64k"});
}

// Over base.qcow2 and disk.raw.
void ImageFolder::make_overlays() const {
  create("over_v2.qcow2", "compat=0.10,backing_file=base.qcow2,backing_fmt=qcow2", "6M");
  qemu_io("over_v2.qcow2", {"write -P 3 5M 256k"});
  create("over_ext.qcow2", "extended_l2=on,backing_file=base.qcow2,backing_fmt=qcow2", "6M");
  qemu_io("over_ext.qcow2", {"write -P 3 5M 6k", "write -z 1M 4k"});
  create("over_raw.qcow2", "backing_file=disk.raw,backing_fmt=raw", "4M");
  qemu_io("over_raw.qcow2", {"write -P 6 2M 2M"});
  create("old_snapshot.qcow2", "compat=0.10", "4M");
  run_ok({"qemu-img", "snapshot", "-c", "old", "old_snapshot.qcow2"});
}

void ImageFolder::make_broken() const {
  write_file("empty", std::string());
  patch("plain.qcow2", "version.qcow2", 4, std::string("\0\0\0\x09", 4));
  patch("plain.qcow2", "feature.qcow2", 72, "\x80");
  patch("plain.qcow2", "corrupt.qcow2", 79, "\x02");
  patch("plain.qcow2", "dirty.qcow2", 79, "\x01");
  patch("plain.qcow2", "l1.qcow2", 46, "\x03\x01");
  patch("plain.qcow2", "leak.qcow2", 0x20000 + 2 * 30, std::string("\0\1", 2));
  patch("plain.qcow2", "clusters.qcow2", 23, "\x40");
  patch("plain.qcow2", "countless.qcow2", 56, std::string(4, '\0'));
  // Of a bitmap's entry in the directory, whose name is its end, the flags lie 12 bytes before the name.
  const std::vector<std::byte> bytes = read_file("bitmaps.qcow2");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  patch("bitmaps.qcow2", "in_use.qcow2", text.rfind("second") - 12, std::string("\0\0\0\x01", 4));
}

const std::vector<std::string> good_images{
    "plain.qcow2",       "small.qcow2",   "extended.qcow2",      "old.qcow2",        "lazy.qcow2",     "data.qcow2",
    "base.qcow2",        "middle.qcow2",  "top.qcow2",           "snapshots.qcow2",  "disk.raw",       "odd.raw",
    "bitmaps.qcow2",     "orphan.qcow2",  "folder/over.qcow2",   "compressed.qcow2", "empty",          "dirty.qcow2",
    "corrupt.qcow2",     "none.qcow2",    "odd.qcow2",           "metadata.qcow2",   "falloc.qcow2",   "full.qcow2",
    "large.qcow2",       "./plain.qcow2", "folder/../top.qcow2", "over_v2.qcow2",    "over_ext.qcow2", "over_raw.qcow2",
    "old_snapshot.qcow2"};

std::string joined(const std::vector<std::string>& words) {
  std::string line = "qemu-img";
  for (const std::string& word : words) line += " '" + word + "'";
  return line;
}

Outcome as_qemu_img(std::vector<std::string> words) {
  words.insert(words.begin(), "/usr/libexec/drydock/bin/qemu-img");
  return drydock_as(words);
}

Outcome qemu_img(std::vector<std::string> words) {
  words.insert(words.begin(), "qemu-img");
  return run(words);
}

std::unique_ptr<ImageFolder> BesideQemuImg::images_;

void BesideQemuImg::expect_the_same(const std::vector<Line>& lines) {
  for (const Line& line : lines) expect_equal(as_qemu_img(line.words), qemu_img(line.words), line);
}

void BesideQemuImg::expect_the_same_change(const Line& line, const std::vector<std::string>& changed) {
  images_->make_copies();
  images_->enter("a");
  const Outcome own = as_qemu_img(line.words);
  std::vector<std::string> own_infos;
  for (const std::string& image : changed) own_infos.push_back(state_of(image));
  images_->enter("b");
  const Outcome qemu = qemu_img(line.words);
  expect_equal(own, qemu, line);
  for (size_t i = 0; i < changed.size(); ++i) EXPECT_EQ(own_infos[i], state_of(changed[i])) << joined(line.words);
  images_->enter(".");
  for (const std::string& image : changed) {
    const Outcome compared = run({"qemu-img", "compare", "-U", "a/" + image, "b/" + image});
    EXPECT_EQ(compared.status, 0) << joined(line.words) << compared.out << compared.err;
    EXPECT_NE(run({"qemu-img", "check", "-U", "a/" + image}).status, 2) << joined(line.words);
  }
}

void BesideQemuImg::expect_the_same_new(const Line& line, const std::vector<std::string>& made) {
  const std::set<std::string> before = files_in("a");
  images_->enter("a");
  const Outcome own = as_qemu_img(line.words);
  std::vector<std::string> own_states;
  for (const std::string& image : made) own_states.push_back(own.status == 0 ? state_of(image) : "");
  images_->enter("b");
  const Outcome qemu = qemu_img(line.words);
  expect_equal(own, qemu, line);
  for (size_t i = 0; i < made.size() && own.status == 0; ++i)
    EXPECT_EQ(own_states[i], state_of(made[i])) << joined(line.words);
  images_->enter(".");
  for (const std::string& image : made) {
    if (own.status == 0 && qemu.status == 0) expect_the_same_image(image, line);
    if (own.status == 0) fs::remove("a/" + image);
    fs::remove("b/" + image);
  }
  EXPECT_EQ(files_in("a"), before) << joined(line.words);
}

}  // namespace drydock::test
