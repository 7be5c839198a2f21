// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/tolerant_sink.h"

#include "inspect/guest_files.h"
#include "src/error.h"

namespace drydock {

void TolerantSink::attempt(const std::function<void()>& step) {
  if (skipping_) return;
  try {
    step();
  } catch (const Error& error) {
    if (stops_copying(error)) throw;
    skipping_ = true;
    if (current_.kind == EntryKind::directory) failed_folder_ = current_.path + "/";
    failed_(error.what());
  }
}

void TolerantSink::begin(const TreeEntry& entry) {
  current_ = entry;
  skipping_ = !failed_folder_.empty() && entry.path.starts_with(failed_folder_);
  attempt([&] { sink_.begin(entry); });
}

void TolerantSink::data(std::span<const std::byte> bytes) {
  attempt([&] { sink_.data(bytes); });
}

void TolerantSink::end() {
  attempt([&] { sink_.end(); });
}

}  // namespace drydock
