// SPDX-License-Identifier: GPL-3.0-or-later
//
// The same words for qemu-img and for drydock under that name: the same text, JSON and exit status.
//
// Each line of the tables below is run by both in a folder of its own that holds the same images. Where drydock means
// to differ the line says so, with what it says instead.

#include <gmock/gmock.h>

#include <regex>

#include "tests/support/in_process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using test::drydock_as;
using test::Outcome;
using test::run;
using test::run_ok;
using test::write_file;

// A folder of images, and the working directory while it is in use.
class Images {
 public:
  Images() : previous_(fs::current_path()) {
    fs::current_path(dir_.path());
    make();
  }
  Images(const Images&) = delete;
  Images& operator=(const Images&) = delete;
  ~Images() { fs::current_path(previous_); }

  // Two folders with the same images, to be changed by two programs.
  void make_copies() const {
    for (const char* side : {"a", "b"}) {
      fs::remove_all(dir_.path() / side);
      fs::create_directory(dir_.path() / side);
    }
    for (const auto& entry : fs::directory_iterator(dir_.path())) {
      if (entry.is_directory() && (entry.path().filename() == "a" || entry.path().filename() == "b")) continue;
      for (const char* side : {"a", "b"}) {
        run_ok({"cp", "-r", "--sparse=always", entry.path().string(), (dir_.path() / side).string()});
      }
    }
  }
  void enter(const std::string& folder) const { fs::current_path(dir_.path() / folder); }

 private:
  static void qemu_io(const std::string& image, const std::vector<std::string>& commands) {
    std::vector<std::string> argv{"qemu-io"};
    for (const std::string& command : commands) argv.insert(argv.end(), {"-c", command});
    argv.push_back(image);
    run_ok(argv);
  }
  static void create(const std::string& image, const std::string& options, const std::string& size) {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, size});
  }
  static void overlay(const std::string& image, const std::string& below) {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", image});
  }
  static void patch(const std::string& from, const std::string& to, uint64_t offset, const std::string& bytes) {
    auto content = test::read_file(from);
    std::memcpy(content.data() + offset, bytes.data(), bytes.size());
    write_file(to, content);
  }
  void make() const;

  test::TempDir dir_;
  fs::path previous_;
};

void Images::make() const {
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
  for (const std::string name : {"one", "a longer name than fits", "3"}) {
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
  // Not what they should be.
  write_file("empty", std::string());
  patch("plain.qcow2", "version.qcow2", 4, std::string("\0\0\0\x09", 4));
  patch("plain.qcow2", "feature.qcow2", 72, "\x80");
  patch("plain.qcow2", "corrupt.qcow2", 79, "\x02");
  patch("plain.qcow2", "dirty.qcow2", 79, "\x01");
  patch("plain.qcow2", "l1.qcow2", 46, "\x03\x01");
  patch("plain.qcow2", "leak.qcow2", 0x20000 + 2 * 30, std::string("\0\1", 2));
  patch("plain.qcow2", "clusters.qcow2", 23, "\x40");
}

// What a line is expected to do where it is not the same.
struct Line {
  std::vector<std::string> words;
  // How drydock's standard error begins behind "qemu-img: ", where its words are others for the same cause.
  std::string instead = {};
};

std::string joined(const std::vector<std::string>& words) {
  std::string line = "qemu-img";
  for (const std::string& word : words) line += " '" + word + "'";
  return line;
}

Outcome ours(std::vector<std::string> words) {
  words.insert(words.begin(), "/usr/libexec/drydock/bin/qemu-img");
  return drydock_as(words);
}

Outcome theirs(std::vector<std::string> words) {
  words.insert(words.begin(), "qemu-img");
  return run(words);
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

class qemu_img_text : public testing::Test {
 protected:
  static void SetUpTestSuite() { images_ = std::make_unique<Images>(); }
  static void TearDownTestSuite() { images_.reset(); }
  void TearDown() override { images_->enter("."); }

  static void expect_the_same(const std::vector<Line>& lines) {
    for (const Line& line : lines) expect_equal(ours(line.words), theirs(line.words), line);
  }

  // Each program changes images of its own, and then they are the same.
  static void expect_the_same_change(const Line& line, const std::vector<std::string>& changed) {
    images_->make_copies();
    images_->enter("a");
    const Outcome own = ours(line.words);
    std::vector<std::string> own_infos;
    for (const std::string& image : changed) own_infos.push_back(state_of(image));
    images_->enter("b");
    const Outcome qemu = theirs(line.words);
    expect_equal(own, qemu, line);
    for (size_t i = 0; i < changed.size(); ++i) EXPECT_EQ(own_infos[i], state_of(changed[i])) << joined(line.words);
    images_->enter(".");
    for (const std::string& image : changed) {
      const Outcome compared = run({"qemu-img", "compare", "-U", "a/" + image, "b/" + image});
      EXPECT_EQ(compared.status, 0) << joined(line.words) << compared.out << compared.err;
      EXPECT_NE(run({"qemu-img", "check", "-U", "a/" + image}).status, 2) << joined(line.words);
    }
  }

  // What qemu-img tells of an image, without the hour and the space that it takes.
  static std::string state_of(const std::string& image) {
    const Outcome info = run({"qemu-img", "info", "--output=json", image});
    return std::regex_replace(info.out + info.err, std::regex("\"(actual-size|date-n?sec)\": [0-9]+"), "$1");
  }

  static std::unique_ptr<Images> images_;
};

std::unique_ptr<Images> qemu_img_text::images_;

const std::vector<std::string> good_images{
    "plain.qcow2",   "small.qcow2",   "extended.qcow2",     "old.qcow2",        "lazy.qcow2", "data.qcow2",
    "base.qcow2",    "middle.qcow2",  "top.qcow2",          "snapshots.qcow2",  "disk.raw",   "odd.raw",
    "bitmaps.qcow2", "orphan.qcow2",  "folder/over.qcow2",  "compressed.qcow2", "empty",      "dirty.qcow2",
    "corrupt.qcow2", "./plain.qcow2", "folder/../top.qcow2"};

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
      {{"amend", "-f", "raw", "-o", "size=1M", "disk.raw"}},
  });
}

TEST_F(qemu_img_text, what_is_wrong_with_an_image_is_told_alike) {
  expect_the_same({
      {{"info", "version.qcow2"}, "Could not open 'version.qcow2': Unsupported qcow2 version 9"},
      {{"info", "feature.qcow2"},
       "Could not open 'feature.qcow2': Unsupported qcow2 feature(s): Unknown incompatible feature:"},
      {{"map", "l1.qcow2"}, "Could not open 'l1.qcow2': "},
      {{"info", "clusters.qcow2"}, "Could not open 'clusters.qcow2': Unsupported cluster size"},
      {{"info", "-f", "qcow2", "disk.raw"}},
      {{"map", "-f", "qcow2", "empty"}, "Could not open 'empty': "},
      {{"info", "folder"}, "Could not open 'folder': Could not open 'folder': it is a directory"},
      {{"info", "--backing-chain", "orphan.qcow2"},
       "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
  });
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
  expect_the_same_change({{"create", "-f", "qcow2", "new.qcow2", "1G"}}, {"new.qcow2"});
  expect_the_same_change({{"create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "new.qcow2"}}, {"new.qcow2"});
  expect_the_same_change({{"create", "-q", "new.raw", "1.5M"}}, {"new.raw"});
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

TEST_F(qemu_img_text, the_program_itself_answers_as_scripts_expect) {
  EXPECT_THAT(ours({"--version"}).out, testing::StartsWith("qemu-img version 7.2."));
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--help"}, {"-h"}, {"info", "--help"}, {"-T", "events=x", "map", "-h"}}) {
    const Outcome help = ours(words);
    EXPECT_EQ(help.status, 0) << joined(words);
    EXPECT_THAT(help.out, testing::HasSubstr("\nusage: qemu-img [standard options] command [command options]\n"));
    EXPECT_THAT(help.out, testing::HasSubstr("\nSupported formats: "));
  }
  EXPECT_EQ(ours({"-T", "enable=x", "info", "plain.qcow2"}).out, theirs({"info", "plain.qcow2"}).out);
}

}  // namespace
}  // namespace drydock
