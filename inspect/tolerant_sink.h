// SPDX-License-Identifier: GPL-3.0-or-later
//
// TolerantSink: passes a tree on to another sink, and goes on after an entry that this one does not take.
//
// Thread-safety: none. Errors: those after which no entry can be taken (a full disk, an I/O error) come out.

#pragma once

#include <functional>
#include <string>

#include "inspect/tree.h"

namespace drydock {

class TolerantSink final : public TreeSink {
 public:
  // `failed` is told of each entry that was not taken, and why; of a folder once, and not of what is in it.
  TolerantSink(TreeSink& sink, std::function<void(const std::string&)> failed)
      : sink_(sink), failed_(std::move(failed)) {}

  void begin(const TreeEntry& entry) override;
  void data(std::span<const std::byte> bytes) override;
  void end() override;

 private:
  void attempt(const std::function<void()>& step);

  TreeSink& sink_;
  std::function<void(const std::string&)> failed_;
  bool skipping_ = false;
  TreeEntry current_;
  std::string failed_folder_;  // the last that failed, with a slash behind it
};

}  // namespace drydock
