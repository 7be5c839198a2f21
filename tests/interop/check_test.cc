// SPDX-License-Identifier: GPL-3.0-or-later
//
// `drydock check` beside `qemu-img check`: the same words, figures and exit status; and what a repair of either makes
// of images whose metadata is damaged field by field.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/byteorder.h"
#include "src/memory_storage.h"
#include "src/qcow2/repair.h"
#include "src/qcow2/undo_file.h"
#include "src/qcow2/undo_restore.h"
#include "tests/src/handmade_image.h"
#include "tests/support/in_process.h"
#include "tests/support/process.h"
#include "tests/support/qcow2_fields.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

using nlohmann::json;
using test::drydock;
using test::run;
using test::run_ok;
using testing::HasSubstr;

constexpr uint64_t disk_size = 64 << 10;

struct Kind {
  std::string name;
  std::string options;  // qemu-img create -o
  bool snapshot = false;
  bool bitmap = false;
  bool compressed = false;
};

std::ostream& operator<<(std::ostream& out, const Kind& kind) { return out << kind.name; }

// A small image with data, zeros and what its kind asks for.
std::string make_image(const test::TempDir& dir, const Kind& kind) {
  std::string path = dir.file("image.qcow2");
  run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", kind.options, path, std::to_string(disk_size)});
  const auto io = [&](const std::string& command) { run_ok({"qemu-io", "-f", "qcow2", "-c", command, path}); };
  io("write -P 1 0 5k");
  if (kind.options.find("0.10") == std::string::npos) io("write -z 8k 4k");
  if (kind.compressed) io("write -c -P 3 32k 16k");
  if (kind.snapshot) {
    run_ok({"qemu-img", "snapshot", "-c", "one", path});
    io("write -P 2 2k 8k");
  }
  if (kind.bitmap) {
    run_ok({"qemu-img", "bitmap", "--add", "-g", "512", path, "changes"});
    io("write -P 4 20k 2k");
  }
  return path;
}

// qemu-img's own word for what it found, or exit status 1.
struct Verdict {
  int status = 0;
  json figures;
  bool operator==(const Verdict&) const = default;
};

void PrintTo(const Verdict& verdict, std::ostream* out) {
  *out << "exit status " << verdict.status << " " << verdict.figures.dump();
}

Verdict verdict_of(const test::Outcome& outcome) {
  Verdict verdict{outcome.status, {}};
  if (outcome.out.empty()) return verdict;
  verdict.figures = json::parse(outcome.out);
  verdict.figures.erase("findings");
  return verdict;
}

Verdict qemu_verdict(const std::string& path) {
  return verdict_of(run({"qemu-img", "check", "-f", "qcow2", "--output", "json", path}));
}
Verdict our_verdict(const std::string& path) {
  return verdict_of(drydock({"check", "-f", "qcow2", "--output", "json", path}));
}

class Check : public testing::TestWithParam<Kind> {
 protected:
  test::TempDir dir_;
};

std::vector<Kind> clean_kinds() {
  return {{.name = "v2", .options = "compat=0.10"},
          {.name = "v3", .options = "compat=1.1,cluster_size=4k", .snapshot = true, .compressed = true},
          {.name = "zstd", .options = "compression_type=zstd,cluster_size=4k", .compressed = true},
          {.name = "extended", .options = "extended_l2=on", .snapshot = true},
          {.name = "bitmap", .options = "cluster_size=4k", .bitmap = true},
          {.name = "metadata", .options = "preallocation=metadata"},
          {.name = "lazy", .options = "lazy_refcounts=on"},
          {.name = "refcount_1", .options = "refcount_bits=1,cluster_size=512", .compressed = true},
          {.name = "refcount_64", .options = "refcount_bits=64,cluster_size=512", .snapshot = true},
          {.name = "large_clusters", .options = "cluster_size=2M"}};
}

class CleanCheck : public Check {};

TEST_P(CleanCheck, says_what_qemu_img_says) {
  const std::string image = make_image(dir_, GetParam());
  for (const std::string form : {"human", "json"}) {
    const test::Outcome qemu = run({"qemu-img", "check", "--output", form, image});
    const test::Outcome ours = drydock({"check", "--output", form, image});
    EXPECT_EQ(ours.status, 0);
    EXPECT_EQ(ours.status, qemu.status);
    EXPECT_EQ(ours.err, "");
    if (form == "human") {
      EXPECT_EQ(ours.out, qemu.out);
    } else {
      EXPECT_EQ(verdict_of(ours), verdict_of(qemu));
      EXPECT_EQ(json::parse(ours.out)["findings"], json::array());
    }
  }
  EXPECT_EQ(drydock({"check", "-q", image}).out, "");
}

TEST_P(CleanCheck, a_repair_of_a_clean_image_leaves_its_bytes) {
  const std::string image = make_image(dir_, GetParam());
  const auto before = test::read_file(image);
  EXPECT_EQ(drydock({"check", "-r", "all", image}).status, 0);
  EXPECT_EQ(test::read_file(image), before);
}

INSTANTIATE_TEST_SUITE_P(Kinds, CleanCheck, testing::ValuesIn(clean_kinds()),
                         [](const auto& kind) { return kind.param.name; });

// Damage by hand, for whole outputs: the offsets are those of a fresh image with 64 KiB clusters.
class DamagedCheck : public testing::Test {
 protected:
  DamagedCheck() : image_(make_image(dir_, {.name = "", .options = "cluster_size=64k"})) {}

  void poke(uint64_t offset, uint64_t value, unsigned bytes) {
    auto image = test::read_file(image_);
    test::set_field(image, {"", offset, bytes}, value);
    test::write_file(image_, image);
  }

  // The same on both streams, and the same exit status. qemu-img names itself in front of its own failures.
  void expect_the_same() const {
    const test::Outcome qemu = run({"qemu-img", "check", image_});
    const test::Outcome ours = drydock({"check", image_});
    EXPECT_EQ(ours.out, qemu.out);
    EXPECT_EQ(ours.err, qemu.err);
    EXPECT_EQ(ours.status, qemu.status);
  }

  static constexpr uint64_t cluster = 64 << 10;
  test::TempDir dir_;
  const std::string image_;
};

TEST_F(DamagedCheck, leaks) {
  poke(4 * cluster, 0, 8);
  expect_the_same();
  EXPECT_EQ(drydock({"check", image_}).status, 3);
  const json output = json::parse(drydock({"check", "--output", "json", image_}).out);
  EXPECT_EQ(output["leaks"], 1);
  EXPECT_EQ(output["findings"][0]["kind"], "refcount-too-high");
  EXPECT_EQ(output["findings"][0]["severity"], "leak");
  EXPECT_EQ(output["findings"][0]["offset"], 5 * cluster);
}

TEST_F(DamagedCheck, missing_counts) {
  poke(2 * cluster + 5 * 2, 0, 2);
  expect_the_same();
  EXPECT_EQ(drydock({"check", image_}).status, 2);
}

TEST_F(DamagedCheck, l1_and_l2_entries) {
  poke(3 * cluster, 4 * cluster, 8);  // not marked copied
  poke(4 * cluster + 8, 0x1234567800, 8);
  poke(4 * cluster + 16, uint64_t{0xC0} << 56 | uint64_t{1} << 40, 8);
  expect_the_same();
}

TEST_F(DamagedCheck, an_image_that_was_not_closed) {
  poke(72, 1, 8);
  poke(2 * cluster + 5 * 2, 0, 2);
  expect_the_same();
  EXPECT_EQ(drydock({"check", "-r", "all", image_}).status, 0);
  EXPECT_EQ(json::parse(run_ok({"qemu-img", "info", "--output", "json", image_}))["dirty-flag"], false);
}

TEST_F(DamagedCheck, a_repair_says_what_qemu_img_says_on_its_output) {
  poke(2 * cluster + 5 * 2, 0, 2);
  poke(2 * cluster + 9 * 2, 1, 2);
  std::filesystem::copy_file(image_, dir_.file("copy.qcow2"));
  const test::Outcome ours = drydock({"check", "-r", "leaks", image_});
  const test::Outcome qemu = run({"qemu-img", "check", "-r", "leaks", dir_.file("copy.qcow2")});
  EXPECT_EQ(ours.status, qemu.status);
  poke(2 * cluster + 5 * 2, 2, 2);
  test::write_file(dir_.file("copy.qcow2"), test::read_file(image_));
  EXPECT_EQ(drydock({"check", "-r", "all", image_}).out,
            run_ok({"qemu-img", "check", "-r", "all", dir_.file("copy.qcow2")}));
}

TEST_F(DamagedCheck, a_repair_can_be_undone_from_the_command_line) {
  poke(2 * cluster + 5 * 2, 0, 2);
  const auto before = test::read_file(image_);
  const std::string undo = dir_.file("undo");
  const test::Outcome repaired = drydock({"check", "-r", "all", "--undo", undo, image_});
  EXPECT_EQ(repaired.status, 0) << repaired.err;
  EXPECT_NE(test::read_file(image_), before);
  EXPECT_EQ(run({"qemu-img", "check", image_}).status, 0);
  EXPECT_THAT(drydock({"check", "-r", "all", "--undo", undo, image_}).err, HasSubstr("Could not create the undo file"));
  const test::Outcome restored = drydock({"check", "--undo-restore", undo, image_});
  EXPECT_EQ(restored.status, 0) << restored.err;
  EXPECT_THAT(restored.out, HasSubstr("The image is as it was before the repair"));
  EXPECT_EQ(test::read_file(image_), before);
}

TEST_F(DamagedCheck, what_is_repaired_qemu_img_finds_clean_with_the_same_disk) {
  for (const auto& [name, image] : qcow2::repairable()) {
    SCOPED_TRACE(name);
    test::write_file(image_, image.bytes());
    const test::Outcome repaired = drydock({"check", "-r", "all", "--undo", dir_.file(name), image_});
    EXPECT_EQ(repaired.status, 0) << repaired.err;
    const test::Outcome found = run({"qemu-img", "check", image_});
    EXPECT_EQ(found.status, 0) << found.out << found.err;
    const auto bytes = test::read_file(image_);
    run_ok({"qemu-img", "convert", "-O", "raw", image_, dir_.file("disk.raw")});
    EXPECT_EQ(test::read_file(dir_.file("disk.raw")), qcow2::guest_bytes(bytes));
    EXPECT_EQ(drydock({"check", "--undo-restore", dir_.file(name), image_}).status, 0);
    EXPECT_EQ(test::read_file(image_), image.bytes());
  }
}

TEST_F(DamagedCheck, safety_11_snapshots_with_the_longest_names_cost_little) {
  constexpr uint32_t snapshots = 500;
  constexpr uint32_t longest = 65535;
  constexpr double most_seconds = 4;  // of a processor, without optimisation
  std::vector<std::byte> table;
  for (uint32_t i = 0; i < snapshots; ++i) {
    std::vector<std::byte> entry(round_up(56 + 2 * longest, 8), std::byte{'n'});
    std::fill_n(entry.begin(), 56, std::byte{0});
    store_be<uint32_t>(entry, 12, longest << 16 | longest);
    store_be<uint32_t>(entry, 36, 16);
    store_be<uint32_t>(entry, 56, 0x3030'3030 + (i / 100 << 16) + (i / 10 % 10 << 8) + i % 10);
    table.insert(table.end(), entry.begin(), entry.end());
  }
  test::Qcow2Bytes image = qcow2::image_with_data(1);
  image.set32(60, snapshots).set64(64, image.append(table));
  test::write_file(image_, image.bytes());
  const test::Outcome outcome = run({test::drydock_program(), "check", "-r", "all", image_});
  EXPECT_EQ(outcome.status, 0) << outcome.err.substr(0, 1000);
  EXPECT_LT(outcome.cpu_seconds, most_seconds);
}

TEST_F(DamagedCheck, safety_2_an_image_in_use_is_not_repaired) {
  poke(2 * cluster + 5 * 2, 3, 2);
  const test::ImageWriter qemu("driver=file,filename=" + image_);
  const auto before = test::read_file(image_);
  const test::Outcome outcome = drydock({"check", "-r", "all", image_});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("is in use by process"));
  EXPECT_EQ(test::read_file(image_), before);
}

TEST_F(DamagedCheck, an_undo_after_a_guest_has_written_is_refused) {
  poke(2 * cluster + 5 * 2, 3, 2);
  drydock({"check", "-r", "all", "--undo", dir_.file("undo"), image_});
  run_ok({"qemu-io", "-f", "qcow2", "-c", "write -P 9 60k 1k", image_});
  const auto before = test::read_file(image_);
  // The write allocated nothing where clusters are as large as the disk; discarding does.
  run_ok({"qemu-io", "-f", "qcow2", "-c", "discard 0 64k", image_});
  const auto discarded = test::read_file(image_);
  EXPECT_NE(before, discarded);
  const test::Outcome outcome = drydock({"check", "--undo-restore", dir_.file("undo"), image_});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.err, HasSubstr("is not the image as this repair left it"));
  EXPECT_EQ(test::read_file(image_), discarded);
}

TEST(check_command, has_nothing_to_check_in_a_raw_image) {
  const test::TempDir dir;
  run_ok({"truncate", "-s", "1M", dir.file("disk.raw")});
  const test::Outcome ours = drydock({"check", dir.file("disk.raw")});
  EXPECT_EQ(ours.status, run({"qemu-img", "check", "-f", "raw", dir.file("disk.raw")}).status);
  EXPECT_EQ(ours.err, "drydock check: This image format does not support checks\n");
}

TEST(check_command, refuses_options_that_make_no_sense) {
  EXPECT_THAT(drydock({"check", "-r", "some", "x"}).err, HasSubstr("expecting 'leaks' or 'all'"));
  EXPECT_THAT(drydock({"check", "--undo", "x", "x"}).err, HasSubstr("--undo needs --repair"));
  EXPECT_THAT(drydock({"check", "--undo-restore", "x", "-r", "all", "x"}).err, HasSubstr("exclude each other"));
  EXPECT_THAT(drydock({"check", "-T", "often", "x"}).err, HasSubstr("Invalid source cache option"));
}

// What qemu-io reads of each cluster; "" where it cannot.
std::vector<std::string> readable(const std::string& path) {
  constexpr uint64_t step = 4096;
  std::vector<std::string> words{"qemu-io", "-r", "-f", "qcow2"};
  for (uint64_t offset = 0; offset < disk_size; offset += step) {
    words.insert(words.end(), {"-c", fmt::format("read -v {} {}", offset, step)});
  }
  words.push_back(path);
  std::istringstream lines(run(words).out);
  std::vector<std::string> parts;
  std::string part;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("read ")) {
      parts.push_back(line.starts_with("read failed") ? "" : part);
      part.clear();
    } else if (line.find(" ops; ") == std::string::npos) {
      part += line;
    }
  }
  parts.resize(disk_size / step);
  return parts;
}

class FieldByField : public Check {
 protected:
  // Whether our findings are of a sort that qemu-img does not have, or words in another way.
  static bool beyond_qemu(const qcow2::CheckResult& result) {
    return result.failure || result.mapping_damaged ||
           std::ranges::any_of(result.findings, [](const qcow2::Finding& finding) {
             return (finding.kind == qcow2::FindingKind::overlap && finding.occurrences > 0) ||
                    finding.kind == qcow2::FindingKind::refcount_overflow;
           });
  }

  static void expect_the_same_check(const std::string& path, const qcow2::CheckResult& found) {
    if (beyond_qemu(found)) return;
    const Verdict qemu = qemu_verdict(path);
    // What qemu-img does not open, or gives up on, is a finding here.
    if (qemu.status == 1) {
      EXPECT_FALSE(found.clean());
    } else {
      EXPECT_EQ(our_verdict(path), qemu);
    }
  }

  void expect_a_good_repair(const std::vector<std::byte>& damaged, const std::string& path) {
    MemoryStorage image(damaged, path, true);
    const auto undo_file = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "undo", true);
    qcow2::UndoFile undo(undo_file, image);
    qcow2::UndoingStorage undoing(image, undo);
    const qcow2::RepairOutcome outcome = qcow2::repair(undoing, {});
    undoing.flush();
    undo.finish();
    std::vector<std::byte> repaired(image.size());
    image.read(HostOffset(0), repaired);

    const auto before = repaired != damaged ? readable(path) : std::vector<std::string>{};
    test::write_file(path, repaired);
    if (repaired != damaged) expect_no_less(before, readable(path));
    if (outcome.after.clean() && !outcome.after.failure) {
      EXPECT_EQ(qemu_verdict(path).status, 0);
    } else {
      expect_clean_if_qemu_mends(damaged, repaired, outcome.after, path);
    }
    qcow2::restore_from_undo_file(*undo_file, image);
    std::vector<std::byte> restored(image.size());
    image.read(HostOffset(0), restored);
    EXPECT_EQ(restored, damaged);
  }

  static void expect_no_less(const std::vector<std::string>& before, const std::vector<std::string>& after) {
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_TRUE(before[i].empty() || after[i] == before[i]) << "4 KiB at " << i * 4096;
    }
  }

  static void expect_clean_if_qemu_mends(const std::vector<std::byte>& damaged, const std::vector<std::byte>& repaired,
                                         const qcow2::CheckResult& left, const std::string& path) {
    // A table that also is data of a snapshot stays as it is: qemu-img writes to it.
    if (std::ranges::find(left.findings, qcow2::FindingKind::overlap, &qcow2::Finding::kind) != left.findings.end()) {
      return;
    }
    test::write_file(path, damaged);
    run({"qemu-img", "check", "-q", "-f", "qcow2", "-r", "all", path});
    if (qemu_verdict(path).status != 0) return;
    // When it has bitmaps to save, qemu-img 7.2 loses all snapshots: no repair to go by.
    const test::MetadataField snapshots{"snapshots", 60, 4};
    if (test::field_value(damaged, snapshots) > 0 && test::field_value(test::read_file(path), snapshots) == 0) return;
    test::write_file(path, repaired);
    EXPECT_EQ(qemu_verdict(path).status, 0) << "qemu-img mends it";
  }
};

// Images whose other fields are tried in another kind: only those that count references.
bool skipped(const Kind& kind, const test::MetadataField& field) {
  return kind.name.starts_with("refcount_") && field.name.find("refcount") == std::string::npos &&
         !field.name.starts_with("L2 entry");
}

TEST_P(FieldByField, checks_as_qemu_img_and_repairs_at_least_as_well_and_never_makes_worse) {
  const std::string path = make_image(dir_, GetParam());
  const std::vector<std::byte> image = test::read_file(path);
  size_t cases = 0;
  for (const test::MetadataField& field : test::metadata_fields(image)) {
    if (skipped(GetParam(), field)) continue;
    for (const uint64_t value : test::wrong_values(image, field)) {
      SCOPED_TRACE(fmt::format("{} at {:#x}: {:#x} for {:#x}", field.name, field.offset, value,
                               test::field_value(image, field)));
      std::vector<std::byte> damaged = image;
      test::set_field(damaged, field, value);
      test::write_file(path, damaged);
      ++cases;
      try {
        const qcow2::CheckResult found = qcow2::check(MemoryStorage(damaged, path, false));
        // QEMU opens no image whose bitmaps have extra data, which the specification allows.
        if (field.name == "bitmap's extra bytes" && found.clean()) continue;
        expect_the_same_check(path, found);
        expect_a_good_repair(damaged, path);
      } catch (const Error& error) {
        // The header cannot be read: there is nothing that a check could do, for qemu-img either.
        EXPECT_EQ(qemu_verdict(path).status, 1) << error.what();
      }
      if (HasFailure()) return;
    }
  }
  EXPECT_GT(cases, 90U);
}

INSTANTIATE_TEST_SUITE_P(Kinds, FieldByField,
                         testing::ValuesIn(std::vector<Kind>{
                             {.name = "snapshot", .options = "cluster_size=512", .snapshot = true},
                             {.name = "v2", .options = "compat=0.10,cluster_size=1k", .compressed = true},
                             {.name = "extended", .options = "cluster_size=16k,extended_l2=on", .compressed = true},
                             {.name = "refcount_1", .options = "cluster_size=512,refcount_bits=1", .compressed = true},
                             {.name = "refcount_4", .options = "cluster_size=512,refcount_bits=4"},
                             {.name = "refcount_64", .options = "cluster_size=4k,refcount_bits=64"},
                             {.name = "bitmap", .options = "cluster_size=512", .bitmap = true},
                         }),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace drydock
