// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: a qcow2 image, as it would lie in a file. Checked, and repaired in every way, with the repair undone: whatever
// the image is, a repair that says that all is well is right, what could be read before reads the same behind it, and
// the undo restores every byte.

#include <algorithm>
#include <memory>

#include "src/error.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "src/qcow2/repair.h"
#include "src/qcow2/undo_file.h"
#include "src/qcow2/undo_restore.h"
#include "tests/fuzz/fuzz.h"

namespace drydock {
namespace {

constexpr size_t max_windows = 16;
constexpr size_t window_bytes = 4096;
constexpr size_t max_messages = 100;

std::vector<std::byte> bytes_of(const Storage& storage) {
  std::vector<std::byte> bytes(storage.size());
  storage.read(HostOffset(0), bytes);
  return bytes;
}

void check_report(const qcow2::CheckResult& result) {
  for (size_t i = 0; i < std::min(result.findings.size(), max_messages); ++i) {
    const std::string& message = result.findings[i].message;
    fuzz::require(printable(message) == message, "a raw message");
  }
}

class NoFiles final : public OpenGate {
 public:
  std::shared_ptr<Storage> open(const FileReference&, bool) const override {
    throw Error(ErrorKind::refused, "refused");
  }
};

// The start of the disk, window by window; empty where it cannot be read.
std::vector<std::vector<std::byte>> readable(const std::vector<std::byte>& bytes) {
  std::vector<std::vector<std::byte>> windows(max_windows);
  OpenOptions options;
  options.format = Format::qcow2;
  options.metadata_cache_size = min_metadata_cache_size;
  options.gate = std::make_shared<NoFiles>();
  try {
    const auto disk = Image::open(std::make_shared<MemoryStorage>(bytes, "fuzz.qcow2", false), options)->disk();
    for (size_t i = 0; i < max_windows && i * window_bytes < disk->size(); ++i) {
      std::vector<std::byte> window(std::min<uint64_t>(window_bytes, disk->size() - i * window_bytes));
      try {
        disk->read(GuestOffset(i * window_bytes), window);
        windows[i] = std::move(window);
      } catch (const Error&) {
        // Damaged here.
      }
    }
  } catch (const Error&) {
    // Damaged everywhere.
  }
  return windows;
}

void repair_and_undo(const std::vector<std::byte>& bytes, qcow2::RepairMode mode) {
  MemoryStorage image(bytes, "fuzz.qcow2", true);
  const auto undo_file = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "fuzz.undo", true);
  qcow2::UndoFile undo(undo_file, image);
  qcow2::UndoingStorage undoing(image, undo);
  const qcow2::RepairOutcome outcome = qcow2::repair(undoing, {.mode = mode});
  undoing.flush();
  undo.finish();
  check_report(outcome.before);
  check_report(outcome.after);

  const std::vector<std::byte> repaired = bytes_of(image);
  const qcow2::CheckResult again = qcow2::check(image);
  if (!outcome.after.failure) {
    fuzz::require(!again.failure && again.clean() == outcome.after.clean(), "a second check says something else");
  }
  if (repaired != bytes) {
    const auto before = readable(bytes);
    const auto after = readable(repaired);
    for (size_t i = 0; i < before.size(); ++i) {
      fuzz::require(before[i].empty() || before[i] == after[i], "a repair changed what the guest reads");
    }
  }
  qcow2::restore_from_undo_file(*undo_file, image);
  fuzz::require(bytes_of(image) == bytes, "an undone repair left something behind");
}

}  // namespace
}  // namespace drydock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  drydock::fuzz::try_input(data, size, [](const std::vector<std::byte>& bytes) {
    drydock::check_report(drydock::qcow2::check(drydock::MemoryStorage(bytes, "fuzz.qcow2", false)));
    drydock::repair_and_undo(bytes, drydock::qcow2::RepairMode::leaks);
    drydock::repair_and_undo(bytes, drydock::qcow2::RepairMode::all);
  });
  return 0;
}
