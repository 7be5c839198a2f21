// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/appliance_launch.h"

#include <cstdlib>

#include "inspect/health.h"
#include "inspect/kvm_proof.h"

namespace drydock {

LaunchedAppliance::LaunchedAppliance(std::unique_ptr<DiskServer> disks, const ApplianceOptions& options)
    : disks_(std::move(disks)), progress_(options.progress) {
  handle_.read_environment();
  guestfs_set_verbose(handle_.get(), options.verbose || guestfs_get_verbose(handle_.get()) == 1 ? 1 : 0);
  guestfs_set_trace(handle_.get(), options.trace || guestfs_get_trace(handle_.get()) == 1 ? 1 : 0);
  handle_.check(guestfs_set_network(handle_.get(), options.network ? 1 : 0));
  choose_backend(options);
  add_disks(options);
  launch();
  launched_ = true;
}

void LaunchedAppliance::on_progress(guestfs_h* /*handle*/, void* appliance, uint64_t /*event*/, int /*event_handle*/,
                                    int /*flags*/, const char* /*buffer*/, size_t /*buffer_size*/,
                                    const uint64_t* array, size_t array_size) {
  constexpr size_t position = 2;  // behind the call's number and that of its message
  constexpr size_t total = 3;
  const auto& self = *static_cast<const LaunchedAppliance*>(appliance);
  if (array_size > total) {
    self.progress_({.launching = !self.launched_, .done = array[position], .total = array[total]});
  }
}

void LaunchedAppliance::choose_backend(const ApplianceOptions& options) {
  if (std::getenv("LIBGUESTFS_BACKEND") == nullptr) handle_.check(guestfs_set_backend(handle_.get(), "direct"));
  const std::string backend = handle_.check_string(guestfs_get_backend(handle_.get()));
  if (backend != "direct") return;
  handle_.check(guestfs_set_tmpdir(handle_.get(), folder_.path().c_str()));
  if (std::getenv("LIBGUESTFS_BACKEND_SETTINGS") != nullptr) return;
  const KvmProof proof = remembered_kvm_proof(handle_.check_string(guestfs_get_hv(handle_.get())));
  if (proof.works) return;
  if (proof.fresh) {
    options.notice(fmt::format(
        "KVM does not work here ({}); using software emulation, where the appliance takes 10 to 60 s to start",
        proof.reason));
  }
  handle_.check(guestfs_set_backend_setting(handle_.get(), "force_tcg", "1"));
}

void LaunchedAppliance::add_disks(const ApplianceOptions& options) {
  const std::vector<std::string> servers{"unix:" + disks_->socket_path()};
  const CStringList server_list(servers);
  const std::vector<unsigned>& sector_sizes = disks_->sector_sizes();
  for (size_t i = 0; i < sector_sizes.size(); ++i) {
    struct guestfs_add_drive_opts_argv arguments {};
    arguments.bitmask = GUESTFS_ADD_DRIVE_OPTS_READONLY_BITMASK | GUESTFS_ADD_DRIVE_OPTS_FORMAT_BITMASK |
                        GUESTFS_ADD_DRIVE_OPTS_PROTOCOL_BITMASK | GUESTFS_ADD_DRIVE_OPTS_SERVER_BITMASK;
    arguments.readonly = options.writable ? 0 : 1;
    arguments.format = "raw";
    arguments.protocol = "nbd";
    arguments.server = const_cast<char**>(server_list.get());
    if (sector_sizes[i] != 0) {
      arguments.bitmask |= GUESTFS_ADD_DRIVE_OPTS_BLOCKSIZE_BITMASK;
      arguments.blocksize = static_cast<int>(sector_sizes[i]);
    }
    handle_.check(guestfs_add_drive_opts_argv(handle_.get(), DiskServer::export_name(i).c_str(), &arguments));
  }
}

void LaunchedAppliance::launch() {
  if (progress_) {
    handle_.check(guestfs_set_event_callback(handle_.get(), on_progress, GUESTFS_EVENT_PROGRESS, 0, this));
    progress_({.launching = true});
  }
  if (guestfs_launch(handle_.get()) == 0) {
    if (progress_) progress_({.launching = true, .done = 1, .total = 1});
    return;
  }
  const Error failure = handle_.error();
  const std::string advice = appliance_advice();
  throw Error(failure.kind(), failure.errno_value(),
              fmt::format("the libguestfs appliance does not start: {} ({})", failure.what(),
                          advice.empty() ? "`drydock doctor` looks for the cause, -v shows the details" : advice));
}

void LaunchedAppliance::shut_down() {
  handle_.check(guestfs_shutdown(handle_.get()));
  disks_->finish();
}

}  // namespace drydock
