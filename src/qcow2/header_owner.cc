// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/header_owner.h"

namespace drydock::qcow2 {

void HeaderOwner::change(const std::function<void(HeaderFields&)>& set) {
  const std::lock_guard lock(mutex_);
  restore_locked();
  HeaderFields now(storage_);
  const HeaderFields before = now;
  set(now);
  old_.emplace(before);
  now.store();
  storage_.flush();
  old_.reset();
}

void HeaderOwner::mark_corrupt() {
  const std::lock_guard lock(mutex_);
  const auto mark = [](HeaderFields& fields) {
    fields.set_incompatible_features(fields.incompatible_features() | incompatible::corrupt);
  };
  if (old_) {
    mark(*old_);
    return restore_locked();
  }
  HeaderFields fields(storage_);
  mark(fields);
  fields.store();
  storage_.flush();
}

void HeaderOwner::restore() {
  const std::lock_guard lock(mutex_);
  restore_locked();
}

void HeaderOwner::restore_locked() {
  if (!old_) return;
  old_->store();
  storage_.flush();
  old_.reset();
}

void HeaderOwner::alone(const std::function<void()>& work) {
  const std::lock_guard lock(mutex_);
  restore_locked();
  work();
}

}  // namespace drydock::qcow2
