// SPDX-License-Identifier: GPL-3.0-or-later
//
// convert, compare, measure and dd beside qemu-img: the same text, JSON and exit status, the same images made.

#include <gmock/gmock.h>

#include <sstream>

#include "tests/interop/beside_qemu_img.h"
#include "tests/support/in_process.h"

namespace drydock {
namespace {

using test::good_images;
using Words = std::vector<std::string>;

Words split(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

// A line of a table: the words behind "qemu-img", and how drydock's own message begins where it has one.
struct Text {
  std::string words;
  std::string instead = {};
};

class copying_text : public test::BesideQemuImg {
 protected:
  static void expect_the_same_texts(const std::vector<Text>& texts) {
    for (const Text& text : texts) expect_the_same({{split(text.words), text.instead}});
  }

  // The images that a line makes are called new.*.
  static void expect_the_same_copies(const std::vector<Text>& texts) {
    images_->make_copies();
    for (const Text& text : texts) {
      const Words words = split(text.words);
      Words made;
      for (const std::string& word : words) {
        const std::string name = word.starts_with("of=") ? word.substr(3) : word;
        if (name.starts_with("new.")) made.push_back(name);
      }
      expect_the_same_new({words, text.instead}, made);
    }
  }
};

// Every image, with some of the ways to convert it each.
TEST_F(copying_text, all_kinds_of_images_convert_to_the_same) {
  const Words ways{
      "-O raw new.raw",
      "-O qcow2 new.qcow2",
      "-c -O qcow2 new.qcow2",
      "-O qcow2 -o compat=0.10,cluster_size=4k new.qcow2",
      "-S 0 -O raw new.raw",
      "-O qcow2 -o preallocation=metadata new.qcow2",
      "-m 16 -W -O qcow2 -o extended_l2=on,cluster_size=2M,refcount_bits=1 new.qcow2",
      "-C -O raw new.raw",
      "-O qcow2 -o preallocation=full new.qcow2",
      "-c -O qcow2 -o compression_type=zstd,cluster_size=512 new.qcow2",
  };
  std::vector<Text> texts;
  for (size_t i = 0; i < good_images.size(); ++i) {
    if (good_images[i] == "orphan.qcow2" || good_images[i] == "lazy.qcow2") continue;
    for (size_t way = i % 5; way < ways.size(); way += 5) {
      texts.push_back({"convert " + good_images[i] + " " + ways[way]});
    }
  }
  expect_the_same_copies(texts);
}

TEST_F(copying_text, convert_takes_the_same_words) {
  expect_the_same_copies({
      {"convert"},
      {"convert plain.qcow2"},
      {"convert -q plain.qcow2 new.qcow2 -O qcow2"},
      {"convert -f vax plain.qcow2 new.raw"},
      {"convert -O vax plain.qcow2 new.raw"},
      {"convert nothing new.raw"},
      {"convert plain.qcow2 none/new.raw"},
      {"convert -O qcow2 plain.qcow2 none/new.raw"},
      {"convert -m 17 plain.qcow2 new.raw"},
      {"convert -m 0 plain.qcow2 new.raw"},
      {"convert -m x plain.qcow2 new.raw"},
      {"convert -S 100 plain.qcow2 new.raw"},
      {"convert -S x plain.qcow2 new.raw"},
      {"convert -S 32M plain.qcow2 new.raw"},
      {"convert -S 16M plain.qcow2 new.raw"},
      {"convert -c plain.qcow2 new.raw"},
      {"convert -c -O raw plain.qcow2 new.raw"},
      {"convert -c -O qcow2 -o preallocation=full plain.qcow2 new.qcow2"},
      {"convert -c -O qcow2 -o data_file=x.data plain.qcow2 new.qcow2", "error while writing at byte "},
      {"convert --target-is-zero plain.qcow2 new.raw"},
      {"convert --target-image-opts plain.qcow2 driver=raw,file.filename=new.raw"},
      {"convert --skip-broken-bitmaps plain.qcow2 new.raw"},
      {"convert --bitmaps plain.qcow2 new.raw"},
      {"convert --bitmaps disk.raw new.raw"},
      {"convert --bitmaps -O qcow2 disk.raw new.qcow2"},
      {"convert --bitmaps -O qcow2 plain.qcow2 old.qcow2 new.qcow2"},
      {"convert --bitmaps -O qcow2 -o compat=0.10 bitmaps.qcow2 new.qcow2"},
      {"convert --bitmaps -O qcow2 bitmaps.qcow2 new.qcow2"},
      {"convert -l nothing snapshots.qcow2 new.raw"},
      {"convert -l snapshot.foo=1 snapshots.qcow2 new.raw"},
      {"convert -l snapshot.id=9 snapshots.qcow2 new.raw"},
      {"convert -l snapshot.id=1 snapshots.qcow2 new.raw"},
      {"convert -l snapshot.name=one snapshots.qcow2 new.raw"},
      {"convert -l one snapshots.qcow2 plain.qcow2 new.raw"},
      {"convert -B base.qcow2 -O qcow2 top.qcow2 new.qcow2"},
      {"convert -B base.qcow2 -F qcow2 -O qcow2 middle.qcow2 new.qcow2"},
      {"convert -B base.qcow2 -F vax -O qcow2 middle.qcow2 new.qcow2",
       "new.qcow2: error while converting qcow2: Unknown driver 'vax'"},
      {"convert -B nothing -F qcow2 -O qcow2 middle.qcow2 new.qcow2",
       "new.qcow2: error while converting qcow2: Could not open 'nothing': No such file or directory"},
      {"convert -B base.qcow2 -F qcow2 -O raw middle.qcow2 new.raw"},
      {"convert -B base.qcow2 -F qcow2 -O qcow2 middle.qcow2 plain.qcow2 new.qcow2"},
      {"convert -F qcow2 -O qcow2 middle.qcow2 new.qcow2"},
      {"convert -o backing_file=base.qcow2,backing_fmt=qcow2 -O qcow2 middle.qcow2 new.qcow2"},
      {"convert -o backing_file=base.qcow2 -O qcow2 middle.qcow2 new.qcow2"},
      {"convert -o backing_file=base.qcow2 -F qcow2 -O qcow2 middle.qcow2 new.qcow2"},
      {"convert -o backing_file=base.qcow2,backing_fmt=qcow2 -B base.qcow2 -F qcow2 -O qcow2 middle.qcow2 new.qcow2"},
      {"convert -B plain.qcow2 -F qcow2 -O qcow2 plain.qcow2 new.qcow2"},
      {"convert -C -S 4k plain.qcow2 new.raw"},
      {"convert -C -c -O qcow2 plain.qcow2 new.qcow2"},
      {"convert -C --salvage plain.qcow2 new.raw"},
      {"convert -t vax plain.qcow2 new.raw"},
      {"convert -T vax plain.qcow2 new.raw"},
      {"convert -t none plain.qcow2 new.raw"},
      {"convert -T none -t writethrough plain.qcow2 new.raw"},
      {"convert -r x plain.qcow2 new.raw"},
      {"convert -r 1G plain.qcow2 new.raw"},
      {"convert -O qcow2 -o nothing=1 plain.qcow2 new.qcow2"},
      {"convert -O qcow2 -o cluster_size=3 plain.qcow2 new.qcow2"},
      {"convert -O qcow2 -o size=1M plain.qcow2 new.qcow2"},
      {"convert -O qcow2 -o size=8M plain.qcow2 new.qcow2"},
      {"convert -O qcow2 -o compat=0.10,extended_l2=on plain.qcow2 new.qcow2"},
      {"convert -O qcow2 -o compression_type=zstd -c plain.qcow2 new.qcow2"},
      {"convert -O qcow2 -o encryption=on plain.qcow2 new.qcow2",
       "new.qcow2: error while converting qcow2: encrypted images are not made"},
      {"convert -O qcow2 -o compat=0.10 lazy.qcow2 new.qcow2"},
      {"convert orphan.qcow2 new.raw", "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
      {"convert version.qcow2 new.raw", "Could not open 'version.qcow2': Unsupported qcow2 version 9"},
      {"convert --image-opts driver=qcow2,file.filename=plain.qcow2 new.raw"},
      {"convert --image-opts -f qcow2 driver=qcow2,file.filename=plain.qcow2 new.raw"},
      {"convert --image-opts plain.qcow2 new.raw"},
      {"convert --image-opts driver=raw,offset=1M,size=1M,file.filename=disk.raw new.raw"},
      {"convert --object secret,id=x,data=y plain.qcow2 new.raw"},
      {"convert --object nothing,id=x plain.qcow2 new.raw"},
      {"convert -U plain.qcow2 new.raw"},
      {"convert --foo plain.qcow2 new.raw"},
      {"convert -x plain.qcow2 new.raw"},
      {"convert -l"},
      {"convert -s x plain.qcow2 new.raw"},
      {"convert -p -q plain.qcow2 new.raw"},
      {"convert plain.qcow2 top.qcow2 disk.raw new.raw"},
      {"convert plain.qcow2 plain.qcow2", "plain.qcow2: the target is also a source"},
      {"convert -O qcow2 odd.raw odd.raw odd.raw new.qcow2"},
      {"convert -6 plain.qcow2 new.raw"},
      {"convert -e plain.qcow2 new.raw"},
      {"convert -D plain.qcow2 new.raw"},
      {"convert empty new.raw"},
      {"convert -O qcow2 empty new.qcow2"},
      {"convert plain.qcow2 folder"},
      {"convert folder new.raw", "Could not open 'folder': Could not open 'folder': it is a directory"},
  });
}

TEST_F(copying_text, convert_writes_into_images_alike) {
  const std::vector<Text> refused{
      {"convert -n plain.qcow2 new.raw"},
      {"convert -n -O qcow2 plain.qcow2 nothing.qcow2"},
      {"convert -n -O raw plain.qcow2 odd.raw"},
      {"convert -n -O qcow2 plain.qcow2 small.qcow2"},
      {"convert -n -o size=1M -O raw plain.qcow2 disk.raw"},
      {"convert -n --target-image-opts disk.raw driver=qcow2,file.filename=none.qcow2"},
      {"convert -n --target-image-opts disk.raw none.qcow2"},
      {"convert -n --target-image-opts -O raw disk.raw driver=qcow2,file.filename=plain.qcow2",
       "--target-image-opts and -O are mutually exclusive"},
  };
  for (const Text& text : refused) expect_the_same_change({split(text.words), text.instead}, {});
  expect_the_same_change({split("convert -n -O raw odd.raw disk.raw")}, {"disk.raw"});
  expect_the_same_change({split("convert -n -O qcow2 disk.raw plain.qcow2")}, {"plain.qcow2"});
  expect_the_same_change({split("convert -n --target-image-opts disk.raw driver=qcow2,file.filename=plain.qcow2")},
                         {"plain.qcow2"});
  expect_the_same_change({split("convert -n --target-is-zero -O qcow2 disk.raw lazy.qcow2")}, {"lazy.qcow2"});
  expect_the_same_change({split("convert -n -O qcow2 disk.raw top.qcow2")}, {"top.qcow2"});
  expect_the_same_change({split("convert -n -B base.qcow2 -F qcow2 -O qcow2 middle.qcow2 folder/over.qcow2")},
                         {"folder/over.qcow2"});
}

TEST_F(copying_text, compare_says_the_same) {
  expect_the_same_texts({
      {"compare"},
      {"compare plain.qcow2"},
      {"compare plain.qcow2 plain.qcow2 plain.qcow2"},
      {"compare nothing plain.qcow2"},
      {"compare plain.qcow2 nothing"},
      {"compare -f vax plain.qcow2 plain.qcow2"},
      {"compare -F vax plain.qcow2 plain.qcow2"},
      {"compare -f raw plain.qcow2 plain.qcow2"},
      {"compare -F raw -f raw plain.qcow2 plain.qcow2"},
      {"compare -T vax plain.qcow2 plain.qcow2"},
      {"compare -T none plain.qcow2 plain.qcow2"},
      {"compare -q plain.qcow2 base.qcow2"},
      {"compare -q plain.qcow2 plain.qcow2"},
      {"compare -p -q plain.qcow2 plain.qcow2"},
      {"compare --image-opts driver=qcow2,file.filename=plain.qcow2 driver=qcow2,file.filename=plain.qcow2"},
      {"compare --image-opts driver=qcow2,file.filename=plain.qcow2 plain.qcow2"},
      {"compare --image-opts -f raw driver=qcow2,file.filename=plain.qcow2 plain.qcow2"},
      {"compare -U plain.qcow2 compressed.qcow2"},
      {"compare orphan.qcow2 plain.qcow2", "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
      {"compare plain.qcow2 orphan.qcow2", "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
      {"compare --object secret,id=x plain.qcow2 plain.qcow2"},
      {"compare -x plain.qcow2 plain.qcow2"},
      {"compare --foo"},
      {"compare -q nothing plain.qcow2"},
  });
}

TEST_F(copying_text, compare_finds_the_same) {
  for (size_t i = 0; i < good_images.size(); ++i) {
    if (good_images[i] == "orphan.qcow2" || good_images[i] == "corrupt.qcow2") continue;
    for (size_t j = i % 4; j < good_images.size(); j += 4) {
      if (good_images[j] == "orphan.qcow2" || good_images[j] == "corrupt.qcow2") continue;
      expect_the_same(
          {{{"compare", good_images[i], good_images[j]}}, {{"compare", "-s", good_images[i], good_images[j]}}});
    }
  }
}

TEST_F(copying_text, measure_says_the_same) {
  expect_the_same_texts({
      {"measure"},
      {"measure plain.qcow2"},
      {"measure -O raw plain.qcow2"},
      {"measure -O vax plain.qcow2"},
      {"measure -f vax plain.qcow2"},
      {"measure nothing"},
      {"measure --size 1G"},
      {"measure --size 1G plain.qcow2"},
      {"measure --size x"},
      {"measure --size -1"},
      {"measure --size 9999P"},
      {"measure --size 8E"},
      {"measure --size 7E -O qcow2", "The image size is too large for file format 'qcow2'"},
      {"measure --size 300T -O qcow2"},
      {"measure --size 2E -O qcow2 -o cluster_size=2M"},
      {"measure --size 1G -f raw"},
      {"measure --size 1G -l x"},
      {"measure --size 1G --image-opts"},
      {"measure -O qcow2 -o cluster_size=3 --size 1G"},
      {"measure -O qcow2 -o nothing=3 --size 1G"},
      {"measure -O qcow2 -o compat=0.10,extended_l2=on --size 1G"},
      {"measure -O qcow2 -o size=3G --size 1G"},
      {"measure -O qcow2 -o size=3G plain.qcow2"},
      {"measure -O qcow2 -o backing_file=x plain.qcow2"},
      {"measure -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 plain.qcow2"},
      {"measure -O qcow2 -o data_file=x plain.qcow2"},
      {"measure -O qcow2 -o data_file=x,data_file_raw=on plain.qcow2"},
      {"measure -O qcow2 -o lazy_refcounts=on,compat=0.10 plain.qcow2"},
      {"measure -O qcow2 -o refcount_bits=3 plain.qcow2"},
      {"measure -O qcow2 -o preallocation=vax plain.qcow2", "Parameter 'preallocation' does not accept value 'vax'"},
      {"measure -O qcow2 -o preallocation=metadata plain.qcow2"},
      {"measure -O qcow2 -o preallocation=falloc plain.qcow2"},
      {"measure -O raw -o preallocation=full plain.qcow2"},
      {"measure -O raw -o nothing=full plain.qcow2"},
      {"measure -l one -O qcow2 snapshots.qcow2"},
      {"measure -l 3 -O qcow2 snapshots.qcow2"},
      {"measure -l nothing -O qcow2 snapshots.qcow2"},
      {"measure -l snapshot.name=one -O qcow2 snapshots.qcow2"},
      {"measure -l snapshot.x=one -O qcow2 snapshots.qcow2"},
      {"measure -l one disk.raw", "Failed to load snapshot: disk.raw: a raw image has no snapshots"},
      {"measure --image-opts driver=qcow2,file.filename=plain.qcow2"},
      {"measure --image-opts -f qcow2 driver=qcow2,file.filename=plain.qcow2"},
      {"measure --output=xml plain.qcow2"},
      {"measure --output json plain.qcow2"},
      {"measure -U -O qcow2 plain.qcow2"},
      {"measure a b"},
      {"measure orphan.qcow2", "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
  });
}

// It answers a wrong option with its help, and says that all went well.
TEST_F(copying_text, measure_shows_the_help_for_wrong_options_alike) {
  for (const std::string words : {"-x", "-q a.qcow2", "--foo", "-f", "--output"}) {
    const std::string line = "measure " + words;
    const test::Outcome own = test::as_qemu_img(split(line));
    const test::Outcome qemu = test::qemu_img(split(line));
    EXPECT_EQ(own.status, qemu.status) << line;
    EXPECT_EQ(own.err, qemu.err) << line;
    EXPECT_THAT(own.out, testing::HasSubstr("\nusage: qemu-img [standard options] command")) << line;
  }
  EXPECT_EQ(test::drydock({"measure", "-x"}).status, 1);
}

TEST_F(copying_text, measure_counts_the_same) {
  for (const std::string& image : good_images) {
    if (image == "orphan.qcow2") continue;
    expect_the_same_texts({
        {"measure " + image},
        {"measure -O qcow2 " + image},
        {"measure -O qcow2 --output=json " + image},
        {"measure -O qcow2 -o cluster_size=2M,extended_l2=on,refcount_bits=1 " + image},
        {"measure -O qcow2 -o cluster_size=8k,compat=0.10 " + image},
    });
  }
}

TEST_F(copying_text, dd_does_the_same) {
  expect_the_same_copies({
      {"dd"},
      {"dd if=plain.qcow2"},
      {"dd of=new.raw"},
      {"dd if=plain.qcow2 of=new.raw"},
      {"dd if=plain.qcow2 of=new.raw bs=1M"},
      {"dd if=plain.qcow2 of=new.raw bs=1M count=2"},
      {"dd if=plain.qcow2 of=new.raw bs=1M count=2 skip=1"},
      {"dd if=plain.qcow2 of=new.raw bs=1M count=0"},
      {"dd if=plain.qcow2 of=new.raw bs=1M skip=4"},
      {"dd if=plain.qcow2 of=new.raw bs=1M skip=5"},
      {"dd if=plain.qcow2 of=new.raw bs=1M skip=5 count=2"},
      {"dd if=plain.qcow2 of=new.raw bs=1M skip=2 count=1"},
      {"dd if=plain.qcow2 of=new.raw bs=1000 skip=3 count=10"},
      {"dd if=plain.qcow2 of=new.raw bs=x"},
      {"dd if=plain.qcow2 of=new.raw bs=0"},
      {"dd if=plain.qcow2 of=new.raw bs=4G"},
      {"dd if=plain.qcow2 of=new.raw count=x"},
      {"dd if=plain.qcow2 of=new.raw skip=-1"},
      {"dd if=plain.qcow2 of=new.raw bs=9999P"},
      {"dd if=plain.qcow2 of=new.raw count=7E bs=1M"},
      {"dd if=plain.qcow2 of=new.raw skip=7E bs=1M"},
      {"dd if=plain.qcow2 of=new.raw foo=1"},
      {"dd if=plain.qcow2 of=new.raw foo"},
      {"dd if=plain.qcow2 of=new.raw if"},
      {"dd if=plain.qcow2 of=new.raw bs"},
      {"dd if= of=new.raw", "Must specify both input and output files"},
      {"dd -f vax if=plain.qcow2 of=new.raw"},
      {"dd -O vax if=plain.qcow2 of=new.raw", "Unknown file format 'vax'"},
      {"dd -O qcow2 if=plain.qcow2 of=new.qcow2"},
      {"dd -O qcow2 if=plain.qcow2 of=new.qcow2 bs=700 count=10"},
      {"dd -f raw -O qcow2 if=plain.qcow2 of=new.qcow2"},
      {"dd -U if=plain.qcow2 of=new.raw"},
      {"dd --image-opts if=driver=qcow2,file.filename=plain.qcow2 of=new.raw"},
      {"dd --image-opts -f qcow2 if=driver=qcow2,file.filename=plain.qcow2 of=new.raw"},
      {"dd --image-opts if=plain.qcow2 of=new.raw"},
      {"dd if=nothing of=new.raw"},
      {"dd if=plain.qcow2 of=none/new.raw"},
      {"dd if=top.qcow2 of=new.raw bs=64k"},
      {"dd if=odd.raw of=new.raw"},
      {"dd if=odd.raw of=new.raw bs=100 count=7"},
      {"dd if=odd.raw of=new.raw bs=100 skip=7"},
      {"dd if=empty of=new.raw"},
      {"dd if=none.qcow2 of=new.qcow2 -O qcow2"},
      {"dd if=compressed.qcow2 of=new.raw"},
      {"dd if=orphan.qcow2 of=new.raw", "Could not open 'orphan.qcow2': Could not open backing file 'gone.qcow2'"},
      {"dd if=snapshots.qcow2 of=new.raw"},
      {"dd -x if=plain.qcow2 of=new.raw"},
      {"dd plain.qcow2 new.raw"},
      {"dd if=lazy.qcow2 of=new.raw bs=1M count=1"},
      {"dd if=disk.raw of=folder"},
      {"dd if=plain.qcow2 of=new.raw if=disk.raw"},
  });
}

}  // namespace
}  // namespace drydock
