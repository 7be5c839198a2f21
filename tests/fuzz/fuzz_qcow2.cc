// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: a qcow2 image, as it would lie in a file. Opened, mapped and read with its snapshots; the files that it names
// are small ones in memory.

#include "src/error.h"
#include "src/image.h"
#include "src/memory_storage.h"
#include "tests/fuzz/fuzz.h"

namespace drydock {
namespace {

constexpr size_t max_snapshots = 4;

// Never the file system. "base" and "data" are there, an image may name itself as "self", everything else is refused.
class MemoryGate final : public OpenGate {
 public:
  explicit MemoryGate(std::vector<std::byte> self) : self_(std::move(self)) {}

  std::shared_ptr<Storage> open(const FileReference& reference, bool) const override {
    if (reference.name == "self") return std::make_shared<MemoryStorage>(self_, "self", false);
    if (reference.name != "base" && reference.name != "data") throw Error(ErrorKind::refused, "refused");
    constexpr size_t size = 20000;  // no multiple of anything
    return std::make_shared<MemoryStorage>(std::vector<std::byte>(size, std::byte{0xB5}), reference.name, false);
  }

 private:
  std::vector<std::byte> self_;
};

void open_and_read(const std::vector<std::byte>& bytes, bool metadata_only) {
  OpenOptions options;
  options.format = Format::qcow2;
  options.backing_format = Format::raw;
  options.metadata_only = metadata_only;
  options.metadata_cache_size = min_metadata_cache_size;
  options.gate = std::make_shared<MemoryGate>(bytes);
  const auto image = Image::open(std::make_shared<MemoryStorage>(bytes, "fuzz.qcow2", false), options);
  for (const std::string& warning : image->warnings()) fuzz::require(printable(warning) == warning, "a raw warning");
  if (metadata_only) return;
  fuzz::explore(*image->disk());
  for (size_t i = 0; i < std::min(image->snapshots().size(), max_snapshots); ++i) {
    try {
      fuzz::explore(*image->snapshot_disk(i));
    } catch (const Error&) {
      // This snapshot is corrupt; another may not be.
    }
  }
}

}  // namespace
}  // namespace drydock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  for (const bool metadata_only : {true, false}) {
    drydock::fuzz::try_input(data, size, [metadata_only](const std::vector<std::byte>& bytes) {
      drydock::open_and_read(bytes, metadata_only);
    });
  }
  return 0;
}
