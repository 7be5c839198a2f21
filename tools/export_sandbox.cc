// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/export_sandbox.h"

#include <cerrno>

#include "src/error.h"
#include "src/process/confinement.h"
#include "tools/nbd_servers.h"

namespace drydock::cli {

namespace {

// An error is the broker's "no".
std::function<bool()> through_broker(Confinement& confinement, std::function<bool()> unmount) {
  const auto ask = confinement.brokered([unmount = std::move(unmount)] {
    if (!unmount()) throw system_error(ENOENT, "unmounting");
    return UniqueFd();
  });
  return [ask] {
    try {
      ask();
      return true;
    } catch (const Error&) {
      return false;
    }
  };
}

}  // namespace

void confine_export(fuse::Mount& mount) {
  Confinement confinement;
  mount.unmount_through(through_broker(confinement, mount.unmounter()));
  keep_nbd_servers(confinement);
  confinement.enter();
}

}  // namespace drydock::cli
