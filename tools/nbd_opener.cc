// SPDX-License-Identifier: GPL-3.0-or-later
//
// The opener of the complete program; front.cc has none in its place.

#include <algorithm>

#include "inspect/interruption.h"
#include "nbd/client/nbd_storage.h"
#include "src/error.h"
#include "tools/nbd_servers.h"
#include "tools/remote.h"

namespace drydock::cli {

namespace {

class NbdOpener final : public RemoteOpener {
 public:
  explicit NbdOpener(const std::vector<std::string>& allowed) {
    for (const std::string& uri : allowed) {
      allowed_.push_back(nbd::parse_address(uri));
      remember_nbd_server(allowed_.back());
    }
  }

  std::shared_ptr<Storage> open(const std::string& name, bool writable) const override {
    return connect(name, nbd::parse_address(name), writable);
  }

  // From the image comes the export's name alone: how its server is reached, and with which keys, is the user's word.
  std::shared_ptr<Storage> open_allowed(const std::string& name, bool writable) const override {
    const nbd::Address named = nbd::parse_address(name);
    const auto found =
        std::ranges::find_if(allowed_, [&](const nbd::Address& address) { return nbd::same_server(address, named); });
    if (found == allowed_.end()) return nullptr;
    nbd::Address address = *found;
    address.export_name = named.export_name;
    return connect(name, address, writable);
  }

 private:
  static std::shared_ptr<Storage> connect(const std::string& name, const nbd::Address& address, bool writable) {
    try {
      remember_nbd_server(address);
      nbd::ClientOptions options;
      options.connect_unix = connect_to_nbd_server;
      options.patience.interrupted = InterruptionGuard::anything_caught;
      return nbd::NbdStorage::open(address, writable, options);
    } catch (const Error& error) {
      throw error.within(printable(name));
    }
  }

  std::vector<nbd::Address> allowed_;
};

}  // namespace

std::shared_ptr<const RemoteOpener> make_remote_opener(const std::vector<std::string>& allowed) {
  return std::make_shared<NbdOpener>(allowed);
}

}  // namespace drydock::cli
