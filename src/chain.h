// SPDX-License-Identifier: GPL-3.0-or-later
//
// A backing chain while it is being opened: what its layers share, and the guards against chains that do not end.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/error.h"
#include "src/image.h"
#include "src/qcow2/table_cache.h"

namespace drydock {

// More than anyone stacks, few enough to open without running out of descriptors (1024 by default).
inline constexpr size_t max_backing_depth = 200;

// A file is in its own backing chain; in QEMU's words.
class ChainLoop : public Error {
 public:
  explicit ChainLoop(const std::string& path)
      : Error(ErrorKind::invalid, fmt::format("Backing file '{}' creates an infinite loop.", printable(path))) {}
};

// Locks a file as lock_for_use() does, where these options have it locked at all: one whose metadata alone is looked
// at, whoever writes to it, is not in use.
void lock_as_opened(const Storage& storage, const OpenOptions& options, const std::string& image = {});

struct Chain {
  explicit Chain(const OpenOptions& open_options);

  const OpenOptions& options;
  std::shared_ptr<const OpenGate> gate;
  std::shared_ptr<qcow2::TableCache> tables;
  std::vector<std::string> identities;  // of the files opened so far, see Storage::identity()
  std::string image;                    // the name of the first: what the others are opened for

  // Whether a file is one of them.
  bool holds(const Storage& storage) const;

  // Locks a file of the chain. Throws invalid, with `twice` behind its name, for one that is in the chain already;
  // busy.
  void take_into_use(const Storage& storage, std::string_view twice);
};

// Opens the next layer down, and locks it. Throws ChainLoop for a file that is in the chain already, invalid for too
// long a chain. `driver` is QEMU's name of it where that is not the format's.
std::shared_ptr<Image> open_layer(std::shared_ptr<Storage> storage, Format format, RawOrigin origin, Chain& chain,
                                  std::string_view driver = {});

}  // namespace drydock
