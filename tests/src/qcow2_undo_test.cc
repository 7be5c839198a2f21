// SPDX-License-Identifier: GPL-3.0-or-later
//
// Repairs that are undone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "src/memory_storage.h"
#include "src/qcow2/undo_file.h"
#include "src/qcow2/undo_format.h"
#include "src/qcow2/undo_restore.h"
#include "tests/src/handmade_image.h"
#include "tests/support/crash_storage.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using test::Qcow2Bytes;
using testing::HasSubstr;

// A repair with an undo file, both in memory.
struct Undoable {
  std::vector<std::byte> image;
  std::vector<std::byte> undo;
};

Undoable repair_with_undo(const std::vector<std::byte>& bytes) {
  MemoryStorage image(bytes, "test.qcow2", true);
  const auto file = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "test.undo", true);
  UndoFile undo(file, image);
  UndoingStorage undoing(image, undo);
  repair(undoing, {});
  undoing.flush();
  undo.finish();
  return {bytes_of_storage(image), bytes_of_storage(*file)};
}

std::vector<std::byte> restored(const Undoable& files) {
  MemoryStorage image(files.image, "test.qcow2", true);
  MemoryStorage undo(files.undo, "test.undo", true);
  restore_from_undo_file(undo, image);
  return bytes_of_storage(image);
}

std::string restore_failure(const Undoable& files) {
  MemoryStorage image(files.image, "test.qcow2", true);
  MemoryStorage undo(files.undo, "test.undo", true);
  const Error error = test::error_of([&] { restore_from_undo_file(undo, image); });
  EXPECT_EQ(error.kind(), ErrorKind::invalid);
  EXPECT_EQ(bytes_of_storage(image), files.image);
  return error.what();
}

TEST(qcow2_undo, restores_the_image_to_the_byte) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const Undoable files = repair_with_undo(image.bytes());
    EXPECT_NE(files.image, image.bytes());
    EXPECT_EQ(files.image, repair_bytes(image.bytes()).bytes);
    EXPECT_EQ(restored(files), image.bytes());
  }
}

TEST(qcow2_undo, restores_an_image_that_ends_within_a_sector) {
  std::vector<std::byte> bytes = image_with_data(3).set64(refcount_table, 0).bytes();
  bytes.resize(bytes.size() - 100);
  EXPECT_EQ(restored(repair_with_undo(bytes)), bytes);
}

TEST(qcow2_undo, restores_after_a_repair_that_was_interrupted_anywhere) {
  for (const auto& [name, image] : repairable()) {
    SCOPED_TRACE(name);
    const std::vector<std::byte> damaged = image.bytes();
    test::CrashStorage storage(damaged);
    const auto file = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "test.undo", true);
    storage.on_crash([&](const std::vector<std::byte>& left) {
      ASSERT_EQ(restored({left, bytes_of_storage(*file)}), damaged);
    });
    UndoFile undo(file, storage);
    UndoingStorage undoing(storage, undo);
    repair(undoing, {});
  }
}

TEST(qcow2_undo, is_on_the_disk_before_the_image_is_touched) {
  // What the undo file's disk holds is what was flushed, when anything at all is written to the image.
  const Qcow2Bytes damaged = repairable()[3].image;
  test::CrashStorage storage(damaged.bytes());
  std::vector<std::byte> flushed;
  class Flushed final : public Storage {
   public:
    explicit Flushed(std::vector<std::byte>& flushed) : inner_({}, "test.undo", true), flushed_(flushed) {}
    const std::string& name() const override { return inner_.name(); }
    bool writable() const override { return true; }
    uint64_t size() const override { return inner_.size(); }
    uint64_t allocated_size() const override { return inner_.size(); }
    size_t read(HostOffset offset, std::span<std::byte> buffer) const override { return inner_.read(offset, buffer); }
    void write(HostOffset offset, std::span<const std::byte> data) override { inner_.write(offset, data); }
    void zero(HostOffset, uint64_t, bool) override {}
    void discard(HostOffset, uint64_t) override {}
    void truncate(uint64_t size) override { inner_.truncate(size); }
    void flush_now() override { flushed_ = bytes_of_storage(inner_); }
    StorageExtent extent_at(HostOffset, uint64_t limit) const override { return {limit, false}; }

   private:
    MemoryStorage inner_;
    std::vector<std::byte>& flushed_;
  };
  storage.on_crash([&](const std::vector<std::byte>& left) { ASSERT_EQ(restored({left, flushed}), damaged.bytes()); });
  UndoFile undo(std::make_shared<Flushed>(flushed), storage);
  UndoingStorage undoing(storage, undo);
  repair(undoing, {});
}

TEST(qcow2_undo, refuses_an_image_that_was_changed_since) {
  Undoable files = repair_with_undo(repairable()[3].image.bytes());
  files.image[refcount_block + 5] ^= std::byte{1};
  EXPECT_THAT(restore_failure(files), HasSubstr("is not the image as this repair left it"));
}

TEST(qcow2_undo, refuses_an_image_that_grew_since) {
  Undoable files = repair_with_undo(repairable()[3].image.bytes());
  files.image.resize(files.image.size() + 512);
  EXPECT_THAT(restore_failure(files), HasSubstr("bytes, and had"));
}

TEST(qcow2_undo, refuses_another_image) {
  Undoable files = repair_with_undo(repairable()[3].image.bytes());
  files.image = image_with_data(9).bytes();
  EXPECT_THAT(restore_failure(files), HasSubstr("is not the image as this repair left it"));
}

TEST(qcow2_undo, refuses_a_damaged_undo_file_wherever_the_damage_is) {
  const Undoable files = repair_with_undo(repairable()[3].image.bytes());
  for (size_t i = 0; i < files.undo.size(); i += 7) {
    Undoable damaged = files;
    damaged.undo[i] ^= std::byte{0x10};
    // The last frame says that the repair was completed. Without it the file is one of an interrupted repair.
    if (i >= files.undo.size() - undo::frame_header_bytes - undo::checksum_bytes) break;
    EXPECT_THAT(restore_failure(damaged), HasSubstr("undo file")) << i;
  }
  EXPECT_THAT(restore_failure({files.image, test::random_bytes(1, 5000)}), HasSubstr("is not an undo file"));
}

TEST(qcow2_undo, works_once_and_can_be_repeated_when_it_was_interrupted) {
  const Qcow2Bytes damaged = repairable()[3].image;
  const Undoable files = repair_with_undo(damaged.bytes());
  test::CrashStorage image(files.image);
  MemoryStorage undo(files.undo, "test.undo", true);
  image.on_crash([&](const std::vector<std::byte>& left) {
    ASSERT_EQ(restored({left, bytes_of_storage(undo)}), damaged.bytes());
  });
  restore_from_undo_file(undo, image);
  EXPECT_THAT(restore_failure({image.bytes(), bytes_of_storage(undo)}), HasSubstr("has been used"));
}

TEST(qcow2_undo, a_file_that_exists_is_not_overwritten) {
  const test::TempDir dir;
  test::write_file(dir.file("undo"), std::string("precious"));
  EXPECT_THAT(test::error_of([&] { UndoFile::create(dir.file("undo")); }).what(),
              HasSubstr("Could not create the undo file"));
}

}  // namespace
}  // namespace drydock::qcow2
