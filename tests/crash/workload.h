// SPDX-License-Identifier: GPL-3.0-or-later
//
// Random work on an image, and a guest that does it while a model keeps account.
//
// A step is a plain value, so that it can be printed, done again, and done by other engines. Not thread-safe.

#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/image.h"
#include "tests/crash/configuration.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/random.h"

namespace drydock::crash {

enum class StepKind {
  write,
  write_compressed,
  zero,
  discard,
  read,
  flush,
  create_snapshot,
  apply_snapshot,
  delete_snapshot,
  resize,
  add_bitmap,
  remove_bitmap,
  clear_bitmap,
  enable_bitmap,
  disable_bitmap,
  merge_bitmap,
  reopen,  // closes the image and opens it again
};
inline constexpr unsigned step_kind_count = 17;

bool is_of_snapshot(StepKind kind);
bool is_of_bitmap(StepKind kind);

struct Step {
  StepKind kind = StepKind::flush;
  uint32_t number = 0;      // from 1 on
  uint64_t offset = 0;      // bytes
  uint64_t length = 0;      // bytes; of a resize: the new size
  bool keep_space = false;  // of zero
  bool repetitive = false;  // of writes: bytes that compress well
  std::string name;         // of a snapshot or bitmap
  std::string source;       // of a merge: the bitmap whose marks are taken
  bool enabled = true;      // of a new bitmap: records

  std::string describe() const;
  // What a write writes: every whole sector begins with the step's number and its own.
  std::vector<std::byte> contents() const;
};

// Makes up steps; how often each kind comes differs from one workload to the next.
class StepSource {
 public:
  // Steps are numbered from `first` on: no two with the same number may be done to one image.
  StepSource(const Configuration& configuration, Random random, uint32_t first = 1);

  Step next(const GuestModel& model);

 private:
  StepKind random_kind();
  void place(Step& step, uint64_t disk_size);
  void place_compressed(Step& step, uint64_t disk_size);
  uint64_t random_length();
  uint64_t random_new_size(uint64_t disk_size);
  void name_snapshot(Step& step, const GuestModel& model);
  void name_bitmap(Step& step, const GuestModel& model);

  const Configuration& configuration_;
  Random random_;
  std::array<unsigned, step_kind_count> weights_{};
  uint32_t next_number_;
};

class Guest {
 public:
  using Opener = std::function<std::shared_ptr<Image>()>;

  // `model` describes what `open` opens, and must outlive the guest.
  Guest(Opener open, GuestModel& model) : open_(std::move(open)), model_(model), image_(open_()) {}

  // Tells the model, then does it. What the image cannot do at all (a snapshot where references are counted in one
  // bit, ...) is left undone and counted. Throws Violation, and what the image throws.
  void perform(const Step& step);
  // Closes the image. A failure leaves it open, to be closed again.
  void close();
  // Lets go of the image: whatever it has not brought into the file by now, the model takes for possible.
  void abandon() { image_.reset(); }
  // After a failure to open the image again.
  bool is_open() const { return image_ != nullptr; }
  void open_again();

  const Image& image() const { return *image_; }
  unsigned refused() const { return refused_; }

 private:
  void perform_or_refuse(const Step& step);
  void change_snapshots(const Step& step);
  void change_bitmaps(const Step& step);
  size_t snapshot_index(const std::string& name) const;

  Opener open_;
  GuestModel& model_;
  std::shared_ptr<Image> image_;
  unsigned refused_ = 0;
};

}  // namespace drydock::crash
