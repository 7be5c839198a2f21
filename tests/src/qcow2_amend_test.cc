// SPDX-License-Identifier: GPL-3.0-or-later
//
// Changes of an image that is made: its options, its backing file, its emptiness. The power fails behind every write,
// and every write fails once: the guest must find the same disk each time.

#include "src/qcow2/amend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/error.h"
#include "src/qcow2/check.h"
#include "src/qcow2/create.h"
#include "src/qcow2/header_rewrite.h"
#include "src/qcow2/qcow2_image.h"
#include "tests/crash/configuration.h"
#include "tests/support/crash_storage.h"
#include "tests/support/qcow2_bytes.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::CrashStorage;
using test::error_of;
using testing::HasSubstr;

constexpr uint64_t amended_disk_size = 96 << 10;  // bytes

// An overlay with data, zeros and what shows of its backing file, and the changes that are made of it.
class Overlay {
 public:
  explicit Overlay(CreateOptions options, bool with_snapshot = false) {
    options.size = amended_disk_size;
    options.backing_file = "base";
    options.backing_format = "raw";
    backing_ = std::make_shared<MemoryStorage>(test::random_bytes(7, amended_disk_size / 2), "base", false);
    auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "made.qcow2");
    create(*storage, options);
    const auto image = open(storage, true);
    const auto disk = image->disk();
    disk->write(GuestOffset(3000), test::random_bytes(1, 9000));
    if (with_snapshot) image->create_snapshot("before");
    disk->write(GuestOffset(amended_disk_size - 9000), test::random_bytes(2, 7000));
    if (!with_snapshot) disk->zero({GuestOffset(20 << 10), 4096}, false);
    if (!with_snapshot) disk->zero({GuestOffset(64 << 10), 8192}, false);
    contents_ = test::bytes_of(*disk);
    image->close();
    bytes_ = crash::bytes_of(*storage);
  }

  const std::vector<std::byte>& bytes() const { return bytes_; }
  // The same disk in another file.
  Overlay with_bytes(std::vector<std::byte> bytes) const {
    Overlay other = *this;
    other.bytes_ = std::move(bytes);
    return other;
  }

  void let_go_of_base() { backing_ = nullptr; }
  // Another disk over the same base.
  Overlay with_contents_of(const std::shared_ptr<MemoryStorage>& storage) const {
    Overlay other = with_bytes(crash::bytes_of(*storage));
    other.contents_ = test::bytes_of(*open(storage, false)->disk());
    return other;
  }

  std::shared_ptr<Image> open(const std::shared_ptr<Storage>& storage, bool writable) const {
    return Image::open(storage, crash::open_options(crash::Configuration{}, nullptr, backing_, writable));
  }

  void expect_sound(const std::vector<std::byte>& bytes, const std::string& what) const {
    const auto storage = std::make_shared<MemoryStorage>(bytes, "left.qcow2", false);
    const CheckResult found = check(*storage);
    ASSERT_EQ(found.corruptions + found.check_errors, 0U) << what << ": " << found.findings.front().message;
    ASSERT_FALSE(found.failure) << what << ": " << found.failure->what();
    ASSERT_EQ(test::bytes_of(*open(storage, false)->disk()), contents_) << what;
  }

  using Change = std::function<void(const std::shared_ptr<Storage>&)>;

  // The guest sees no difference whenever the power fails, nor when any write fails; doing it again then works.
  void expect_safe(const std::string& what, const Change& change) const {
    const auto storage = std::make_shared<CrashStorage>(bytes_);
    unsigned crashes = 0;
    storage->on_crash([&](const std::vector<std::byte>& left) {
      if (++crashes % 3 == 0) expect_sound(left, what + ", crash " + std::to_string(crashes));
    });
    change(storage);
    storage->on_crash(nullptr);
    EXPECT_GT(crashes, 0U) << what;
    expect_sound(storage->bytes(), what);
    for (size_t at = 1; at <= storage->operations() && !testing::Test::HasFailure(); ++at) {
      expect_safe_to_fail(what + ", failure " + std::to_string(at), at, change);
    }
  }

 private:
  void expect_safe_to_fail(const std::string& what, size_t at, const Change& change) const {
    const auto storage = std::make_shared<CrashStorage>(bytes_);
    storage->fail_after(at);
    try {
      change(storage);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("Input/output error")) << what;
    }
    expect_sound(storage->bytes(), what);
    const auto opened_anew = std::make_shared<CrashStorage>(storage->bytes());
    change(opened_anew);
    expect_sound(opened_anew->bytes(), what + ", again");
  }

  std::shared_ptr<MemoryStorage> backing_;
  std::vector<std::byte> bytes_;
  std::vector<std::byte> contents_;
};

void amend_header(Storage& storage, const AmendOptions& options) { amend(storage, options, nullptr); }

TEST(qcow2_amend, safety_3_another_refcount_width_survives_a_crash_anywhere) {
  for (const uint64_t bits : {2U, 64U}) {
    const Overlay overlay({.cluster_size = 4096}, true);
    overlay.expect_safe(std::to_string(bits) + " bits", [&](const auto& storage) {
      amend_header(*storage, {.refcount_bits = bits});
      EXPECT_EQ(read_header(*storage).refcount_bits(), bits);
    });
  }
}

TEST(qcow2_amend, keeps_the_old_width_where_a_count_does_not_fit) {
  const Overlay overlay({.cluster_size = 4096}, true);
  MemoryStorage storage(overlay.bytes(), "image.qcow2");
  const Error error = error_of([&] { amend_header(storage, {.refcount_bits = 1}); });
  EXPECT_EQ(error.kind(), ErrorKind::unsupported);
  EXPECT_THAT(error.what(), HasSubstr("Cannot decrease refcount entry width to 1 bits: Cluster at offset"));
  EXPECT_EQ(crash::bytes_of(storage), overlay.bytes());
}

TEST(qcow2_amend, can_be_interrupted_while_counts_are_written) {
  const Overlay overlay({.cluster_size = 512});
  MemoryStorage storage(overlay.bytes(), "image.qcow2");
  const auto interrupt = [](uint64_t done, uint64_t total) {
    if (done == total) throw Error(ErrorKind::interrupted, "interrupted");
  };
  EXPECT_EQ(error_of([&] { amend(storage, {.refcount_bits = 64}, interrupt); }).kind(), ErrorKind::interrupted);
  overlay.expect_sound(crash::bytes_of(storage), "interrupted");
  EXPECT_EQ(read_header(storage).refcount_bits(), 16U);
}

TEST(qcow2_amend, safety_3_a_version_up_and_down_survives_a_crash_anywhere) {
  const Overlay old({.version = 2, .cluster_size = 4096});
  old.expect_safe("to version 3", [](const auto& storage) {
    amend_header(*storage, {.version = 3, .refcount_bits = 8, .lazy_refcounts = true});
    EXPECT_EQ(read_header(*storage).version, 3U);
  });
  const Overlay young({.cluster_size = 4096});
  young.expect_safe("to version 2", [&](const std::shared_ptr<Storage>& storage) {
    const auto image = young.open(storage, true);
    dynamic_cast<Qcow2Image&>(*image).expand_zero_clusters();
    image->close();
    downgrade(*storage);
    EXPECT_EQ(read_header(*storage).version, 2U);
  });
}

TEST(qcow2_amend, safety_3_snapshots_lose_their_zero_clusters_whenever_the_power_fails) {
  for (const bool on_base : {false, true}) {
    Overlay plain({.cluster_size = 4096});
    const auto made = std::make_shared<MemoryStorage>(plain.bytes(), "image");
    if (!on_base) {
      store_backing_file(*made, std::nullopt, std::nullopt);
      plain.let_go_of_base();
    }
    {
      const auto image = plain.open(made, true);
      image->create_snapshot("one");
      image->create_snapshot("two");
      image->disk()->zero({GuestOffset(0), 8192}, false);
      image->disk()->write(GuestOffset(64 << 10), test::random_bytes(3, 4096));
      image->close();
    }
    const Overlay overlay = plain.with_contents_of(made);
    const auto snapshot = test::bytes_of(*overlay.open(made, false)->snapshot_disk(1));
    overlay.expect_safe(on_base ? "on a base" : "alone", [&](const std::shared_ptr<Storage>& storage) {
      const auto image = overlay.open(storage, true);
      dynamic_cast<Qcow2Image&>(*image).expand_zero_clusters();
      image->close();
      downgrade(*storage);
      EXPECT_EQ(read_header(*storage).version, 2U);
      const auto old = overlay.open(storage, false);
      EXPECT_EQ(test::bytes_of(*old->snapshot_disk(0)), snapshot);
      EXPECT_EQ(test::bytes_of(*old->snapshot_disk(1)), snapshot);
    });
  }
}

TEST(qcow2_amend, a_cluster_of_zeros_is_shared_no_more_often_than_its_count_can_tell) {
  constexpr uint64_t size = 512 * 70'000;
  const auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
  const auto base = std::make_shared<MemoryStorage>(test::random_bytes(1, size), "base", false);
  create(*storage, {.size = size, .cluster_size = 512, .backing_file = "base", .backing_format = "raw"});
  const auto image =
      Image::open(std::shared_ptr<Storage>(storage), crash::open_options(crash::Configuration{}, nullptr, base, true));
  image->disk()->zero({GuestOffset(0), size}, false);
  dynamic_cast<Qcow2Image&>(*image).expand_zero_clusters();
  std::vector<std::byte> read(size);
  image->disk()->read(GuestOffset(0), read);
  EXPECT_EQ(read, std::vector<std::byte>(size));
  image->close();
  const CheckResult found = check(*storage);
  EXPECT_EQ(found.corruptions + found.check_errors + found.leaks, 0U);
  EXPECT_LT(storage->size(), 2U << 20);
}

TEST(qcow2_amend, downgrades_nothing_that_needs_version_3) {
  const auto refusal = [](const CreateOptions& options) {
    MemoryStorage storage({}, "image");
    create(storage, options);
    return std::string(error_of([&] { downgrade(storage); }).what());
  };
  EXPECT_THAT(refusal({.size = amended_disk_size, .refcount_bits = 8}),
              HasSubstr("compat=0.10 requires refcount_bits=16"));
  EXPECT_THAT(refusal({.size = amended_disk_size, .compression = CompressionType::zstd}),
              HasSubstr("incompatible features"));
  EXPECT_THAT(refusal({.size = amended_disk_size, .extended_l2 = true}), HasSubstr("incompatible features"));
  test::Qcow2Bytes dirty;
  dirty.set64(72, incompatible::dirty);
  MemoryStorage storage(dirty.bytes(), "dirty");
  EXPECT_THAT(error_of([&] { downgrade(storage); }).what(), HasSubstr("not closed cleanly"));

  const Overlay overlay({.cluster_size = 4096}, true);
  const auto other_size = std::make_shared<MemoryStorage>(overlay.bytes(), "image");
  overlay.open(other_size, true)->resize(2 * amended_disk_size, Preallocation::off);
  EXPECT_THAT(error_of([&] { check_downgrade(*other_size); }).what(),
              HasSubstr("Internal snapshots prevent downgrade of image"));
  const auto with_bitmap = std::make_shared<MemoryStorage>(overlay.bytes(), "image");
  overlay.open(with_bitmap, true)->add_bitmap("bitmap", std::nullopt, true);
  check_downgrade(*with_bitmap);
  EXPECT_THAT(error_of([&] { downgrade(*with_bitmap); }).what(), HasSubstr("has persistent dirty bitmaps"));
}

TEST(qcow2_backing, safety_3_another_backing_file_survives_a_crash_anywhere) {
  for (const size_t length : {10U, 600U, 1023U}) {
    for (const uint64_t cluster_size : {1024U, 4096U, 65536U}) {
      if (length > 600 && cluster_size == 1024) continue;
      const Overlay overlay({.cluster_size = cluster_size});
      const std::string name(length, 'n');
      overlay.expect_safe(std::to_string(length) + " bytes of name", [&](const auto& storage) {
        store_backing_file(*storage, name, "raw");
        const Header header = read_header(*storage);
        EXPECT_EQ(header.backing_file, name);
        EXPECT_EQ(header.backing_format, "raw");
      });
    }
  }
}

TEST(qcow2_backing, safety_3_a_name_that_made_way_for_bitmaps_is_changed_as_safely) {
  const Overlay overlay({.cluster_size = 4096});
  const auto storage = std::make_shared<MemoryStorage>(overlay.bytes(), "image");
  overlay.open(storage, true)->add_bitmap("bitmap", std::nullopt, true);
  const Overlay with_bitmap = overlay.with_bytes(crash::bytes_of(*storage));
  for (const size_t length : {4U, 1000U}) {
    const std::string name(length, 'n');
    with_bitmap.expect_safe(name, [&](const auto& changed) {
      store_backing_file(*changed, name, "raw");
      EXPECT_EQ(read_header(*changed).backing_file, name);
      EXPECT_TRUE(read_header(*changed).bitmaps);
    });
  }
}

TEST(qcow2_backing, a_name_that_has_no_room_beside_the_old_one_changes_nothing) {
  const Overlay overlay({.cluster_size = 1024});
  MemoryStorage storage(overlay.bytes(), "image");
  store_backing_file(storage, std::string(600, 'o'), "raw");
  const auto before = crash::bytes_of(storage);
  const Error error = error_of([&] { store_backing_file(storage, std::string(600, 'n'), "raw"); });
  EXPECT_EQ(error.kind(), ErrorKind::no_space);
  EXPECT_THAT(error.what(), HasSubstr("no room for the old and the new at once"));
  EXPECT_EQ(crash::bytes_of(storage), before);
  store_backing_file(storage, "short", "raw");
  EXPECT_EQ(read_header(storage).backing_file, "short");
}

TEST(qcow2_backing, keeps_fields_and_extensions_that_it_does_not_know) {
  test::Qcow2Bytes bytes;
  bytes.extension(0x12345678, "kept as it is");
  MemoryStorage storage(bytes.bytes(), "image");
  store_backing_file(storage, "base", "raw");
  store_backing_file(storage, std::nullopt, std::nullopt);
  const auto left = crash::bytes_of(storage);
  EXPECT_THAT(std::string(reinterpret_cast<const char*>(left.data()), 512), HasSubstr("kept as it is"));
  EXPECT_EQ(read_header(storage).backing_file, std::nullopt);
  EXPECT_EQ(read_header(storage).backing_format, std::nullopt);
}

TEST(qcow2_backing, clears_what_it_does_not_know_of_the_autoclear_features) {
  test::Qcow2Bytes bytes;
  bytes.set64(88, uint64_t{1} << 40);
  const auto storage = std::make_shared<MemoryStorage>(bytes.bytes(), "image");
  OpenOptions options{.format = Format::qcow2, .writable = true};
  options.metadata_only = true;
  dynamic_cast<Qcow2Image&>(*Image::open(storage, options)).change_backing_file("base", "raw");
  EXPECT_EQ(read_header(*storage).autoclear_features, 0U);
}

TEST(qcow2_empty, safety_3_emptying_an_overlay_survives_a_crash_anywhere) {
  // Its base has the same contents, as commit leaves it: at no moment does the guest see a difference.
  for (const uint64_t cluster_size : {512U, 4096U}) {
    const auto contents = test::random_bytes(3, amended_disk_size);
    const auto base = std::make_shared<MemoryStorage>(contents, "base", false);
    const auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "image");
    create(*storage,
           {.size = amended_disk_size, .cluster_size = cluster_size, .backing_file = "base", .backing_format = "raw"});
    const auto options = [&](bool writable) {
      return crash::open_options(crash::Configuration{}, nullptr, base, writable);
    };
    {
      const auto image = Image::open(storage, options(true));
      image->disk()->write(GuestOffset(0), contents);
      image->close();
    }
    const auto expect_same = [&](const std::vector<std::byte>& bytes) {
      const auto left = std::make_shared<MemoryStorage>(bytes, "left", false);
      ASSERT_EQ(check(*left).corruptions, 0U);
      ASSERT_EQ(test::bytes_of(*Image::open(left, options(false))->disk()), contents);
    };
    const auto crashing = std::make_shared<CrashStorage>(crash::bytes_of(*storage));
    unsigned crashes = 0;
    crashing->on_crash([&](const std::vector<std::byte>& left) {
      if (++crashes % 5 == 0) expect_same(left);
    });
    const auto image = Image::open(std::static_pointer_cast<Storage>(crashing), options(true));
    dynamic_cast<Qcow2Image&>(*image).make_empty();
    image->close();
    crashing->on_crash(nullptr);
    EXPECT_GT(crashes, 20U);
    expect_same(crashing->bytes());
    EXPECT_LT(crashing->bytes().size(), storage->size() / 2) << "the file keeps its size";
  }
}

}  // namespace
}  // namespace drydock::qcow2
