// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/chain.h"

#include <algorithm>

#include "src/error.h"
#include "src/qcow2/qcow2_image.h"
#include "src/raw_image.h"

namespace drydock {

Chain::Chain(const OpenOptions& open_options)
    : options(open_options),
      gate(options.gate ? options.gate : std::make_shared<LocalFilesGate>()),
      tables(std::make_shared<qcow2::TableCache>(options.metadata_cache_size)) {}

std::shared_ptr<Image> open_layer(std::shared_ptr<Storage> storage, Format format, RawOrigin origin, Chain& chain,
                                  std::string_view driver) {
  const std::string identity = storage->identity();
  if (!identity.empty() && std::ranges::find(chain.identities, identity) != chain.identities.end()) {
    throw ChainLoop(storage->name());
  }
  if (chain.identities.size() >= max_backing_depth) {
    throw Error(ErrorKind::invalid, fmt::format("{}: the backing chain is longer than {} images",
                                                printable(storage->name()), max_backing_depth));
  }
  chain.identities.push_back(identity);
  switch (format) {
    case Format::raw:
      return std::make_shared<RawImage>(std::move(storage), origin, driver);
    case Format::qcow2:
      return std::make_shared<qcow2::Qcow2Image>(std::move(storage), chain);
  }
  throw Error(ErrorKind::usage, "unknown image format");
}

}  // namespace drydock
