// SPDX-License-Identifier: GPL-3.0-or-later
//
// SalvagingReader: reads a disk for a copy, around what cannot be read if that is wanted.
//
// Thread-safe.

#pragma once

#include <functional>
#include <mutex>

#include "src/disk.h"

namespace drydock {

class Error;

class SalvagingReader {
 public:
  // With `unreadable`, sectors that cannot be read become zeros, and it is told which, by one thread at a time.
  SalvagingReader(const Disk& disk, std::function<void(GuestOffset, const Error&)> unreadable)
      : disk_(disk), unreadable_(std::move(unreadable)) {}

  // Throws what the disk throws, with "error while reading at byte N: " before it.
  void read(GuestOffset offset, std::span<std::byte> buffer);

 private:
  void read_around(GuestOffset offset, std::span<std::byte> buffer);

  const Disk& disk_;
  std::function<void(GuestOffset, const Error&)> unreadable_;
  std::mutex mutex_;  // held while unreadable_ is called
};

}  // namespace drydock
