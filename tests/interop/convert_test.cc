// SPDX-License-Identifier: GPL-3.0-or-later
//
// convert and dd make what they should, whatever the source and the options; read by qemu-img.

#include <nlohmann/json.hpp>

#include "tests/interop/copying_fixture.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;

using test::CopyingVerbs;
using test::Outcome;
using test::run;
using test::run_ok;
using test::Words;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(CopyingVerbs, convert_makes_images_of_every_kind) {
  int count = 0;
  for (const std::string& source : {raw_, qcow2_}) {
    for (const Words& options : std::vector<Words>{{"-O", "raw"},
                                                   {"-O", "raw", "-S", "0"},
                                                   {"-O", "raw", "-C"},
                                                   {"-O", "raw", "-S", "64k", "-m", "3", "-W"},
                                                   {"-O", "qcow2"},
                                                   {"-O", "qcow2", "-S", "0"},
                                                   {"-O", "qcow2", "-c"},
                                                   {"-O", "qcow2", "-c", "-o", "compression_type=zstd"},
                                                   {"-O", "qcow2", "-c", "-o", "cluster_size=512"},
                                                   {"-O", "qcow2", "-c", "-o", "cluster_size=2M"},
                                                   {"-O", "qcow2", "-o", "cluster_size=2M,extended_l2=on"},
                                                   {"-O", "qcow2", "-o", "cluster_size=512,compat=0.10"},
                                                   {"-O", "qcow2", "-o", "preallocation=metadata"},
                                                   {"-O", "qcow2", "-o", "preallocation=falloc", "-t", "unsafe"},
                                                   {"-O", "qcow2", "--verify"}}) {
      Words words = options;
      words.push_back(source);
      const std::string target = dir_.file(fmt::format("{}.{}", ++count, options[1]));
      convert(words, target);
      expect_copy(source, target);
    }
  }
  EXPECT_THAT(unfinished_files(), IsEmpty());
}

TEST_F(CopyingVerbs, convert_leaves_holes_where_zeros_are) {
  const std::string target = dir_.file("target.raw");
  convert({"-O", "raw", raw_}, target);
  const std::string theirs = dir_.file("theirs.raw");
  run_ok({"qemu-img", "convert", "-O", "raw", raw_, theirs});
  EXPECT_LE(disk_usage(target), disk_usage(theirs) + (64 << 10));  // the filesystem's own list of extents
  EXPECT_LT(disk_usage(target), uint64_t{4} << 20);
  convert({"-O", "raw", "-S", "0", raw_}, target);
  EXPECT_GE(disk_usage(target), uint64_t{12} << 20);
}

TEST_F(CopyingVerbs, convert_leaves_subclusters_out_where_zeros_are) {
  const std::string source = dir_.file("source.raw");
  run_ok({"qemu-img", "create", "-q", source, "4M"});
  run_ok({"qemu-io", "-f", "raw", "-c", "write -P 3 0 100k", "-c", "write -P 4 1M 10k", source});
  const auto map_by = [&](const std::string& program) {
    const std::string target = dir_.file("target.qcow2");
    run_ok({program, "convert", "-f", "raw", "-O", "qcow2", "-o", "extended_l2=on", source, target});
    EXPECT_THAT(run_ok({"qemu-img", "check", target}), HasSubstr("No errors were found"));
    std::vector<std::string> kinds;
    for (const auto& extent : nlohmann::json::parse(run_ok({"qemu-img", "map", "--output=json", target}))) {
      kinds.push_back(fmt::format("{} {} {}", extent["start"].dump(), extent["length"].dump(), extent["data"].dump()));
    }
    return kinds;
  };
  const auto mapped = map_by(test::drydock_program());
  EXPECT_THAT(mapped, testing::Contains("0 102400 true"));
  EXPECT_EQ(mapped, map_by("qemu-img"));
}

TEST_F(CopyingVerbs, convert_compresses_no_worse_than_qemu_img) {
  const std::string source = dir_.file("program.raw");  // neither too easy nor too hard
  run_ok({"dd", "if=" + test::drydock_program(), "of=" + source, "bs=1M", "count=8", "status=none"});
  for (const std::string type : {"zlib", "zstd"}) {
    const std::string mine = dir_.file("mine." + type);
    const std::string theirs = dir_.file("theirs." + type);
    const Words options{"-O", "qcow2", "-c", "-o", "compression_type=" + type, source};
    convert(options, mine);
    Words words{"qemu-img", "convert"};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(theirs);
    run_ok(words);
    expect_copy(theirs, mine);
    EXPECT_LE(static_cast<double>(fs::file_size(mine)), 1.02 * static_cast<double>(fs::file_size(theirs))) << type;
  }
}

TEST_F(CopyingVerbs, convert_puts_several_inputs_behind_each_other) {
  const std::string mine = dir_.file("mine.qcow2");
  const std::string theirs = dir_.file("theirs.raw");
  convert({"-O", "qcow2", qcow2_, raw_, qcow2_}, mine);
  run_ok({"qemu-img", "convert", "-O", "raw", qcow2_, raw_, qcow2_, theirs});
  expect_copy(theirs, mine);
}

TEST_F(CopyingVerbs, convert_reads_snapshots) {
  run_ok({"qemu-img", "snapshot", "-c", "before", qcow2_});
  run_ok({"qemu-io", "-c", "write -P 9 1M 1M", qcow2_});
  for (const std::string word : {"before", "1", "snapshot.name=before", "snapshot.id=1,snapshot.name=before"}) {
    const std::string target = dir_.file("target.raw");
    convert({"-l", word, qcow2_}, target);
    expect_copy(raw_, target);
  }
}

TEST_F(CopyingVerbs, convert_copies_the_top_layer_alone_over_a_backing_file) {
  const std::string top = dir_.file("top.qcow2");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-b", qcow2_, "-F", "qcow2", top, "14M"});
  run_ok({"qemu-io", "-c", "write -P 7 200k 3k", "-c", "write -z 6M 64k", "-c", "write -P 8 13M 100k", top});
  const std::string target = dir_.file("target.qcow2");
  convert({"-O", "qcow2", "-B", qcow2_, "-F", "qcow2", top}, target);
  expect_copy(top, target);
  EXPECT_LT(disk_usage(target), uint64_t{1} << 20);
  const std::string flat = dir_.file("flat.qcow2");
  convert({"-O", "qcow2", top}, flat);
  expect_copy(top, flat);
}

// What a source without a backing file does not hold are zeros, and no business of the target's.
TEST_F(CopyingVerbs, convert_hides_a_backing_file_that_the_source_does_not_stand_on) {
  const std::string alone = dir_.file("alone.qcow2");
  const std::string below = dir_.file("below.raw");
  const std::string target = dir_.file("target.qcow2");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", alone, "4M"});
  run_ok({"qemu-io", "-c", "write -P 1 0 64k", alone});
  test::write_file(below, test::random_bytes(9, 4 << 20));
  for (const Words& options : std::vector<Words>{
           {"-B", below, "-F", "raw"}, {"-c", "-B", below, "-F", "raw"}, {"-n", "-B", below, "-F", "raw"}}) {
    Words words{"-O", "qcow2"};
    words.insert(words.end(), options.begin(), options.end());
    words.push_back(alone);
    convert(words, target);
    expect_copy(alone, target);
  }
}

TEST_F(CopyingVerbs, convert_writes_into_an_image_that_exists) {
  for (const std::string format : {"raw", "qcow2"}) {
    const std::string target = dir_.file("existing." + format);
    run_ok({"qemu-img", "create", "-q", "-f", format, target, "16M"});
    run_ok({"qemu-io", "-f", format, "-c", "write -P 5 0 16M", target});
    convert({"-n", "-O", format, "--verify", raw_}, target);
    const std::string theirs = dir_.file("theirs." + format);
    run_ok({"qemu-img", "create", "-q", "-f", format, theirs, "16M"});
    run_ok({"qemu-io", "-f", format, "-c", "write -P 5 0 16M", theirs});
    run_ok({"qemu-img", "convert", "-n", "-O", format, raw_, theirs});
    expect_copy(theirs, target);
  }
}

TEST_F(CopyingVerbs, convert_copies_bitmaps) {
  run_ok({"qemu-img", "bitmap", "--add", qcow2_, "on"});
  run_ok({"qemu-img", "bitmap", "--add", "-g", "4k", "--disable", qcow2_, "off"});
  run_ok({"qemu-io", "-c", "write -P 9 1M 1M", qcow2_});
  const std::string mine = dir_.file("mine.qcow2");
  const std::string theirs = dir_.file("theirs.qcow2");
  convert({"-O", "qcow2", "--bitmaps", qcow2_}, mine);
  run_ok({"qemu-img", "convert", "-O", "qcow2", "--bitmaps", qcow2_, theirs});
  const auto bitmaps = [](const std::string& image) {
    const auto info = nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", image}));
    return info["format-specific"]["data"]["bitmaps"];
  };
  EXPECT_EQ(bitmaps(mine), bitmaps(theirs));
  expect_copy(qcow2_, mine);
}

TEST_F(CopyingVerbs, convert_streams_a_raw_disk) {
  for (const std::string& source : {raw_, qcow2_}) {
    const std::string target = dir_.file("stream.raw");
    run_ok({"sh", "-c", fmt::format("{} convert -O raw {} - | cat > {}", test::drydock_program(), source, target)});
    EXPECT_EQ(test::read_file(target), test::read_file(raw_));
    run_ok({"sh", "-c", fmt::format("{} convert -O raw {} - > {}", test::drydock_program(), source, target)});
    EXPECT_EQ(test::read_file(target), test::read_file(raw_));
    EXPECT_LT(disk_usage(target), uint64_t{5} << 20);  // a file keeps its holes
  }
  const Outcome gone =
      run({"sh", "-c", fmt::format("({} convert -S 0 {} - ; echo $? >&2) | true", test::drydock_program(), raw_)});
  EXPECT_THAT(gone.err, HasSubstr("Broken pipe"));
}

TEST_F(CopyingVerbs, convert_writes_an_external_data_file) {
  const std::string target = dir_.file("target.qcow2");
  const std::string data = dir_.file("target.data");
  convert({"-O", "qcow2", "-o", "data_file=" + data + ",data_file_raw=on", qcow2_}, target);
  expect_copy(raw_, target);
  EXPECT_EQ(test::read_file(data), test::read_file(raw_));
}

TEST_F(CopyingVerbs, json_tells_what_was_made_or_found) {
  const std::string target = dir_.file("target.qcow2");
  const auto converted =
      nlohmann::json::parse(ours("convert", {"--output=json", "--verify", "-O", "qcow2", raw_, target}).out);
  EXPECT_EQ(converted["format"], "qcow2");
  EXPECT_EQ(converted["verified"], true);
  EXPECT_EQ(converted["converted-bytes"], 12 << 20);
  const auto copied =
      nlohmann::json::parse(ours("dd", {"--output=json", "bs=1M", "count=2", "if=" + raw_, "of=" + target}).out);
  EXPECT_EQ(copied["virtual-size"], 2 << 20);
  const auto same = nlohmann::json::parse(ours("compare", {"--output=json", raw_, qcow2_}).out);
  EXPECT_EQ(same["identical"], true);
  run_ok({"qemu-io", "-c", "write -P 9 8800001 3", qcow2_});
  const auto other = nlohmann::json::parse(ours("compare", {"--output=json", raw_, qcow2_}).out);
  EXPECT_EQ(other["identical"], false);
  EXPECT_EQ(other["offset"], 8800001 / 512 * 512);
  const auto size = nlohmann::json::parse(ours("measure", {"--output=json", "-O", "qcow2", raw_}).out);
  EXPECT_EQ(
      size["fully-allocated"],
      nlohmann::json::parse(run_ok({"qemu-img", "measure", "--output=json", "-O", "qcow2", raw_}))["fully-allocated"]);
}

TEST_F(CopyingVerbs, progress_goes_where_it_is_wanted) {
  const std::string target = dir_.file("target.raw");
  for (const std::string verb : {"convert", "dd"}) {
    const std::string words = verb == "dd" ? "if=" + raw_ + " of=" + target : raw_ + " " + target;
    const Outcome lines =
        run({"sh", "-c", fmt::format("{} {} --progress-fd 3 {} 3>&1", test::drydock_program(), verb, words)});
    const std::string last = lines.out.substr(lines.out.rfind('\n', lines.out.size() - 2) + 1);
    EXPECT_EQ(nlohmann::json::parse(last)["state"], "finished") << lines.out;
    EXPECT_EQ(nlohmann::json::parse(last)["done"], 12 << 20);
  }
  EXPECT_THAT(ours("compare", {"-p", raw_, qcow2_}).out, testing::StartsWith("    (0.00/100%)\r"));
}

}  // namespace
}  // namespace drydock
