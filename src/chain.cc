// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/chain.h"

#include <algorithm>

#include "src/error.h"
#include "src/image_lock.h"
#include "src/qcow2/qcow2_image.h"
#include "src/raw_image.h"

namespace drydock {

void lock_as_opened(const Storage& storage, const OpenOptions& options, const std::string& image) {
  const bool looked_at = options.metadata_only && options.beside_writers && !storage.writable();
  if (!looked_at && !options.locked_later) lock_for_use(storage, options.beside_writers, image);
}

Chain::Chain(const OpenOptions& open_options)
    : options(open_options),
      gate(options.gate ? options.gate : std::make_shared<LocalFilesGate>()),
      tables(std::make_shared<qcow2::TableCache>(options.metadata_cache_size)) {}

bool Chain::holds(const Storage& storage) const {
  const std::string identity = storage.identity();
  return !identity.empty() && std::ranges::find(identities, identity) != identities.end();
}

void Chain::take_into_use(const Storage& storage, std::string_view twice) {
  if (holds(storage)) throw Error(ErrorKind::invalid, fmt::format("{}: {}", printable(storage.name()), twice));
  if (identities.empty()) image = storage.name();
  lock_as_opened(storage, options, image);
  identities.push_back(storage.identity());
}

std::shared_ptr<Image> open_layer(std::shared_ptr<Storage> storage, Format format, RawOrigin origin, Chain& chain,
                                  std::string_view driver) {
  if (chain.holds(*storage)) throw ChainLoop(storage->name());
  if (chain.identities.size() >= max_backing_depth) {
    throw Error(ErrorKind::invalid, fmt::format("{}: the backing chain is longer than {} images",
                                                printable(storage->name()), max_backing_depth));
  }
  chain.take_into_use(*storage, "this file is in the backing chain already");
  switch (format) {
    case Format::raw:
      return std::make_shared<RawImage>(std::move(storage), origin, driver);
    case Format::qcow2:
      return std::make_shared<qcow2::Qcow2Image>(std::move(storage), chain);
  }
  throw Error(ErrorKind::usage, "unknown image format");
}

}  // namespace drydock
