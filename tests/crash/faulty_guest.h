// SPDX-License-Identifier: GPL-3.0-or-later
//
// A guest on storages that fail, and what it does then.
//
// Whoever asked for a step is told of the fault that struck it, with its errno. What the failed step left is the truth
// from then on, and work goes on with the same image; but where a flush has failed no later one succeeds, until the
// image is opened anew. Not thread-safe.

#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tests/crash/configuration.h"
#include "tests/crash/faulty_storage.h"
#include "tests/crash/guest_model.h"
#include "tests/crash/workload.h"

namespace drydock::crash {

class FaultyGuest {
 public:
  struct Below {
    std::shared_ptr<Storage> image;
    std::shared_ptr<Storage> data;
    std::shared_ptr<Storage> backing;  // null for none
    // What a failed flush of one or the other loses; empty as in FaultyStorage.
    std::function<void()> lose_image;
    std::function<void()> lose_data;
  };
  // Called when something has failed, before the guest looks at its image again; throws Violation.
  using Examine = std::function<void(const std::string& when)>;

  // `configuration` and `model` outlive it; `model` describes what lies in `below`.
  FaultyGuest(const Configuration& configuration, Below below, GuestModel& model, Examine examine);

  // Of the data file instead of the image.
  FaultyStorage& storage(bool data) { return data ? *data_ : *image_; }
  // Has one of the two fail from then on.
  void arm(bool data, const Fault& fault);
  // Whether a fault that lasts has struck, and was not repaired yet: it goes away after a few failures.
  bool is_failing() const { return fault_.lasting && told_of_this_ > 0; }
  // How many steps have failed.
  unsigned told() const { return told_; }

  Guest& guest() { return guest_; }
  // Does the step, which may fail. Returns whether it was done. Throws Violation.
  bool attempt(const Step& step);
  bool flush_failed() const { return image_->flush_failed() || data_->flush_failed(); }
  // After a failed flush: a few more steps, of whose effects nobody is told that they are safe, then the image is
  // opened anew.
  void go_on_and_open_anew(StepSource& source);
  // Nothing fails any more.
  void repair();

 private:
  std::shared_ptr<Image> open() const;
  void put_faulty_storages();
  void go_on_unflushed(StepSource& source);
  std::optional<int> fault() const { return image_->failed() ? image_->failed() : data_->failed(); }
  uint64_t failures() const { return image_->failures() + data_->failures(); }
  bool must_be_told() const { return image_->must_be_told() || data_->must_be_told(); }

  const Configuration& configuration_;
  Below below_;
  GuestModel& model_;
  Examine examine_;
  std::shared_ptr<FaultyStorage> image_;
  std::shared_ptr<FaultyStorage> data_;
  Guest guest_;
  Fault fault_;
  unsigned told_ = 0;
  unsigned told_of_this_ = 0;
};

}  // namespace drydock::crash
