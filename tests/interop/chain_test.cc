// SPDX-License-Identifier: GPL-3.0-or-later
//
// rebase, commit and amend on chains that QEMU made; QEMU says what the guest sees before and after.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "tests/support/in_process.h"
#include "tests/support/support.h"

namespace drydock {
namespace {

namespace fs = std::filesystem;
using test::drydock;
using test::Outcome;
using test::run;
using test::run_ok;

// Images in a folder, and what each shows its guest.
struct Chain {
  test::TempDir dir;

  std::string at(const std::string& name) const { return dir.file(name); }
  void create(const std::string& name, const std::string& options, const std::string& size = "8M") const {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, at(name), size});
  }
  void overlay(const std::string& name, const std::string& below, const std::string& options = "cluster_size=64k",
               const std::string& format = "qcow2") const {
    run_ok({"qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", below, "-F", format, at(name)});
  }
  // Writes, zeroes and discards here and there; the same for the same seed.
  void scribble(const std::string& name, uint64_t seed, const std::string& format = "qcow2") const {
    std::mt19937_64 random(seed);
    const uint64_t sectors = virtual_size(name, format) / 512;
    std::vector<std::string> argv{"qemu-io", "-f", format};
    for (int i = 0; i < 24; ++i) {
      const uint64_t first = random() % sectors;
      const uint64_t count = std::min<uint64_t>(sectors - first, 1 + random() % (i % 4 == 0 ? 1024 : 64));
      const char* verb = i % 9 == 7 ? "write -z" : i % 9 == 8 ? "discard" : "write";
      const std::string pattern = i % 9 < 7 ? fmt::format(" -P {}", 1 + random() % 250) : "";
      argv.insert(argv.end(), {"-c", fmt::format("{}{} {} {}", verb, pattern, first * 512, count * 512)});
    }
    argv.push_back(at(name));
    run_ok(argv);
  }
  uint64_t virtual_size(const std::string& name, const std::string& format = "qcow2") const {
    const auto info = nlohmann::json::parse(run_ok({"qemu-img", "info", "-f", format, "--output=json", at(name)}));
    return info.at("virtual-size");
  }
  void remember(const std::string& name, const std::string& as) const {
    run_ok({"qemu-img", "convert", "-O", "raw", at(name), at(as)});
  }
  void expect_shows(const std::string& name, const std::string& remembered, const std::string& what) const {
    const Outcome compared = run({"qemu-img", "compare", "-F", "raw", at(name), at(remembered)});
    EXPECT_EQ(compared.status, 0) << what << ": " << name << ": " << compared.out << compared.err;
    const Outcome checked = run({"qemu-img", "check", at(name)});
    EXPECT_EQ(checked.status, 0) << what << ": " << name << ": " << checked.out << checked.err;
  }
  nlohmann::json info(const std::string& name) const {
    return nlohmann::json::parse(run_ok({"qemu-img", "info", "--output=json", at(name)}));
  }
};

void expect_ok(const Outcome& outcome, const std::string& what) {
  EXPECT_EQ(outcome.status, 0) << what << ": " << outcome.err;
  EXPECT_EQ(outcome.err, "") << what;
}

const std::vector<std::string> kinds{"cluster_size=64k", "cluster_size=512", "cluster_size=2M",
                                     "extended_l2=on",   "compat=0.10",      "lazy_refcounts=on,refcount_bits=32"};

TEST(rebase_command, changes_the_backing_file_and_nothing_that_the_guest_sees) {
  for (const std::string& kind : kinds) {
    const Chain chain;
    chain.create("base", "cluster_size=64k");
    chain.scribble("base", 1);
    chain.create("other", "cluster_size=4k", "6M");
    chain.scribble("other", 2);
    chain.overlay("middle", "base");
    chain.scribble("middle", 3);
    chain.overlay("top", "middle", kind);
    chain.scribble("top", 4);
    chain.remember("top", "before");
    for (const std::string below : {"base", "middle", "other"}) {
      expect_ok(drydock({"rebase", "-b", below, "-F", "qcow2", chain.at("top")}), kind);
      chain.expect_shows("top", "before", fmt::format("{}, onto {}", kind, below));
      EXPECT_EQ(chain.info("top").at("backing-filename"), below);
    }
    expect_ok(drydock({"rebase", "-c", "-b", "", chain.at("top")}), kind);
    chain.expect_shows("top", "before", kind + ", onto nothing");
    EXPECT_FALSE(chain.info("top").contains("backing-filename"));
  }
}

TEST(rebase_command, takes_in_nothing_that_both_chains_share) {
  const Chain chain;
  chain.create("base", "cluster_size=64k", "64M");
  run_ok({"qemu-io", "-c", "write -P 1 0 64M", chain.at("base")});
  chain.overlay("middle", "base");
  run_ok({"qemu-io", "-c", "write -P 2 1M 64k", chain.at("middle")});
  chain.overlay("top", "middle");
  chain.remember("top", "before");
  expect_ok(drydock({"rebase", "-b", "base", "-F", "qcow2", chain.at("top")}), "");
  chain.expect_shows("top", "before", "");
  EXPECT_LT(fs::file_size(chain.at("top")), 1U << 20);
}

TEST(rebase_command, in_name_alone_opens_no_other_file) {
  const Chain chain;
  chain.create("base", "cluster_size=64k");
  chain.scribble("base", 1);
  chain.overlay("top", "base");
  chain.remember("top", "before");
  fs::create_directory(chain.at("pool"));
  fs::rename(chain.at("base"), chain.at("pool/base"));
  expect_ok(drydock({"rebase", "-u", "-b", "pool/base", "-F", "qcow2", chain.at("top")}), "");
  chain.expect_shows("top", "before", "");
  const std::string long_name = "pool/" + std::string(900, '/') + "base";
  expect_ok(drydock({"rebase", "-u", "-b", long_name, "-F", "qcow2", chain.at("top")}), "");
  chain.expect_shows("top", "before", "");
  const Outcome outcome = drydock({"rebase", "-u", "--output=json", "-b", "gone", "-F", "raw", chain.at("top")});
  EXPECT_EQ(nlohmann::json::parse(outcome.out).at("backing-filename"), "gone");
  EXPECT_EQ(drydock({"rebase", "-b", "pool/base", "-F", "qcow2", chain.at("top")}).status, 1);
  expect_ok(drydock({"rebase", "-u", chain.at("top")}), "");
  EXPECT_FALSE(chain.info("top").contains("backing-filename"));
}

TEST(rebase_command, refuses_a_chain_without_end) {
  const Chain chain;
  chain.create("base", "cluster_size=64k");
  chain.overlay("middle", "base");
  chain.overlay("top", "middle");
  const Outcome outcome = drydock({"rebase", "-b", "top", "-F", "qcow2", chain.at("middle")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("the chain would have no end"), std::string::npos) << outcome.err;
  EXPECT_EQ(chain.info("middle").at("backing-filename"), "base");
}

TEST(commit_command, writes_the_overlay_into_its_base_and_empties_it) {
  for (const std::string& kind : kinds) {
    const Chain chain;
    chain.create("base", kind, "5M");
    chain.scribble("base", 1);
    chain.overlay("top", "base", kind);
    run_ok({"qemu-img", "resize", "-q", chain.at("top"), "8M"});
    chain.scribble("top", 2);
    chain.remember("top", "before");
    const Outcome outcome = drydock({"commit", chain.at("top")});
    expect_ok(outcome, kind);
    EXPECT_EQ(outcome.out, "Image committed.\n");
    chain.expect_shows("top", "before", kind);
    chain.expect_shows("base", "before", kind);
    EXPECT_LE(fs::file_size(chain.at("top")), kind == "cluster_size=2M" ? 5U * (2U << 20) : 512U << 10) << kind;
    for (const auto& extent : nlohmann::json::parse(run_ok({"qemu-img", "map", "--output=json", chain.at("top")}))) {
      EXPECT_TRUE(extent.at("depth") == 1 || extent.at("data") == false) << kind << extent;
    }
  }
}

TEST(commit_command, reaches_a_deeper_base_and_keeps_the_image) {
  const Chain chain;
  run_ok({"qemu-img", "create", "-q", "-f", "raw", chain.at("base"), "8M"});
  chain.scribble("base", 1, "raw");
  chain.overlay("middle", "base", "cluster_size=64k", "raw");
  run_ok({"qemu-img", "resize", "-q", "--shrink", chain.at("middle"), "6M"});
  chain.scribble("middle", 2);
  chain.overlay("top", "middle");
  run_ok({"qemu-img", "resize", "-q", chain.at("top"), "8M"});
  chain.scribble("top", 3);
  chain.remember("top", "before");
  expect_ok(drydock({"commit", "-q", "-b", "base", chain.at("top")}), "");
  EXPECT_EQ(run({"qemu-img", "compare", "-f", "raw", "-F", "raw", chain.at("base"), chain.at("before")}).status, 0);
  chain.expect_shows("top", "before", "");
  EXPECT_EQ(drydock({"commit", "-b", "nothing", chain.at("top")}).err,
            fmt::format("drydock commit: Did not find 'nothing' in the backing chain of '{}'\n", chain.at("top")));
  EXPECT_EQ(drydock({"commit", "-d", "--output=json", "-r", "1G", chain.at("top")}).status, 0);
  chain.expect_shows("top", "before", "kept");
}

TEST(commit_command, keeps_snapshots_and_bitmaps_of_both) {
  const Chain chain;
  chain.create("base", "cluster_size=64k");
  chain.scribble("base", 1);
  run_ok({"qemu-img", "snapshot", "-c", "old", chain.at("base")});
  run_ok({"qemu-img", "bitmap", "--add", chain.at("base"), "changes"});
  chain.overlay("top", "base");
  chain.scribble("top", 2);
  run_ok({"qemu-img", "snapshot", "-c", "kept", chain.at("top")});
  chain.remember("top", "before");
  EXPECT_EQ(drydock({"commit", chain.at("top")}).status, 0);  // with a warning, for it has a snapshot
  chain.expect_shows("top", "before", "");
  chain.expect_shows("base", "before", "");
  run_ok({"qemu-img", "snapshot", "-a", "kept", chain.at("top")});
  chain.expect_shows("top", "before", "snapshot");
  EXPECT_EQ(chain.info("base").at("format-specific").at("data").at("bitmaps").size(), 1U);
}

TEST(amend_command, changes_what_qemu_reads) {
  const Chain chain;
  chain.create("base", "cluster_size=64k");
  chain.scribble("base", 1);
  for (const std::string kind : {"cluster_size=64k", "cluster_size=512", "cluster_size=2M"}) {
    chain.overlay("image", "base", kind);
    chain.scribble("image", 2);
    chain.remember("image", "before");
    for (const std::string change :
         {"refcount_bits=64", "refcount_bits=1", "lazy_refcounts=on", "lazy_refcounts=off,refcount_bits=16",
          "compat=0.10", "compat=1.1", "compat=v3,refcount_bits=32", "compat=v2,refcount_bits=16", "compat=v3"}) {
      expect_ok(drydock({"amend", "-o", change, chain.at("image")}), fmt::format("{}, {}", kind, change));
      chain.expect_shows("image", "before", fmt::format("{}, {}", kind, change));
    }
    const auto data = chain.info("image").at("format-specific").at("data");
    EXPECT_EQ(data.at("compat"), "1.1");
    EXPECT_EQ(data.at("refcount-bits"), 16);
    expect_ok(drydock({"amend", "-o", "size=12M", chain.at("image")}), kind);
    EXPECT_EQ(chain.virtual_size("image"), 12U << 20);
    fs::remove(chain.at("image"));
  }
}

TEST(amend_command, refuses_counts_that_a_narrower_width_does_not_hold) {
  const Chain chain;
  chain.create("image", "cluster_size=64k");
  run_ok({"qemu-io", "-c", "write -P 1 0 1M", chain.at("image")});
  run_ok({"qemu-img", "snapshot", "-c", "one", chain.at("image")});
  chain.remember("image", "before");
  const Outcome outcome = drydock({"amend", "-o", "refcount_bits=1", chain.at("image")});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("Cannot decrease refcount entry width to 1 bits: Cluster at offset "), std::string::npos)
      << outcome.err;
  chain.expect_shows("image", "before", "");
  expect_ok(drydock({"amend", "-o", "compat=0.10", chain.at("image")}), "");
  expect_ok(drydock({"amend", "-o", "compat=1.1", chain.at("image")}), "");
  chain.expect_shows("image", "before", "");
}

}  // namespace
}  // namespace drydock
