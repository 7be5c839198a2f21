// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/health.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "inspect/appliance.h"
#include "inspect/guestfs_handle.h"
#include "inspect/kvm_proof.h"
#include "inspect/temporary_space.h"
#include "src/human_size.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "src/unique_fd.h"

namespace drydock {

namespace {

namespace fs = std::filesystem;

std::optional<std::string> find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  // Debian's ordinary users do not have the sbin folders on their path.
  std::string folders = fmt::format("{}:/usr/sbin:/sbin", path == nullptr ? "/usr/bin:/bin" : path);
  for (size_t start = 0; start <= folders.size();) {
    const size_t colon = std::min(folders.find(':', start), folders.size());
    const std::string file = folders.substr(start, colon - start) + "/" + name;
    if (::access(file.c_str(), X_OK) == 0) return file;
    start = colon + 1;
  }
  return {};
}

HealthCheck program_check(const std::string& title, const std::string& program, const std::string& package) {
  if (const auto file = find_program(program)) return {title, CheckState::ok, *file, ""};
  return {title, CheckState::failed, program + " is not installed", "sudo apt-get install " + package};
}

HealthCheck fuse_device_check() {
  const UniqueFd fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (fd) return {"FUSE device", CheckState::ok, "/dev/fuse opens", ""};
  const std::string advice = errno == ENOENT ? "sudo modprobe fuse; in a container: --device /dev/fuse"
                                             : "sudo chmod 0666 /dev/fuse; in a container: --device /dev/fuse";
  return {"FUSE device", CheckState::failed, fmt::format("/dev/fuse: {}", std::strerror(errno)), advice};
}

HealthCheck fusermount_check() {
  HealthCheck check = program_check("FUSE helper", "fusermount3", "fuse3");
  struct stat info {};
  if (check.state != CheckState::ok || ::stat(check.detail.c_str(), &info) != 0) return check;
  if (::geteuid() == 0 || ((info.st_mode & S_ISUID) != 0 && info.st_uid == 0)) return check;
  return {check.name, CheckState::failed, check.detail + " is not set-uid root: only root can mount",
          "sudo chmod u+s " + check.detail};
}

HealthCheck kvm_check(bool fresh) {
  const auto emulator = find_program("qemu-system-x86_64");
  if (!emulator)
    return {"KVM", CheckState::failed, "cannot be tried without QEMU", "sudo apt-get install qemu-system-x86"};
  const KvmProof proof = fresh ? prove_kvm(*emulator) : remembered_kvm_proof(*emulator);
  if (proof.works) return {"KVM", CheckState::ok, "boots guests", ""};
  return {"KVM", CheckState::slow, proof.reason,
          "software emulation is used: guest commands work, but take 10 to 60 s more"};
}

std::vector<fs::path> kernels() {
  std::vector<fs::path> found;
  if (const char* chosen = std::getenv("SUPERMIN_KERNEL"); chosen != nullptr) return {chosen};
  std::error_code failure;
  for (const auto& file : fs::directory_iterator("/boot", failure)) {
    if (file.path().filename().string().starts_with("vmlinuz-")) found.push_back(file.path());
  }
  std::ranges::sort(found);
  return found;
}

HealthCheck kernel_check() {
  const std::vector<fs::path> all = kernels();
  for (const fs::path& kernel : all) {
    if (::access(kernel.c_str(), R_OK) == 0) return {"appliance kernel", CheckState::ok, kernel.string(), ""};
  }
  if (all.empty()) {
    return {"appliance kernel", CheckState::failed, "there is no kernel in /boot",
            "sudo apt-get install linux-image-cloud-amd64"};
  }
  return {"appliance kernel", CheckState::failed, all.back().string() + " cannot be read",
          fmt::format("sudo chmod 0644 {}", all.back().string())};
}

HealthCheck loop_check() {
  if (::access("/dev/loop-control", F_OK) == 0) return {"loop devices", CheckState::ok, "/dev/loop-control", ""};
  return {"loop devices", CheckState::slow, "/dev/loop-control is missing",
          "sudo modprobe loop; only mounting exported files with the host's kernel needs them"};
}

HealthCheck libguestfs_check() {
  const GuestfsHandle handle;
  const auto version = handle.check_struct(guestfs_version(handle.get()), guestfs_free_version);
  return {"libguestfs", CheckState::ok, fmt::format("{}.{}.{}", version->major, version->minor, version->release), ""};
}

HealthCheck temporary_folder_check(const std::string& title, const TemporaryFolder& folder) {
  if (!folder.trouble.empty()) return {title, CheckState::failed, folder.trouble, folder.advice};
  const std::string choice = folder.chosen_by.empty() ? "" : fmt::format(" ({})", folder.chosen_by);
  return {title, CheckState::ok,
          fmt::format("{}{}: {} free", folder.path.string(), choice, human_size(folder.available)), ""};
}

HealthCheck host_check() {
  utsname name{};
  ::uname(&name);
  return {"host", CheckState::ok, fmt::format("{} {} {}", name.sysname, name.release, name.machine), ""};
}

}  // namespace

std::vector<HealthCheck> check_health(bool fresh_kvm) {
  return {
      host_check(),
      fuse_device_check(),
      fusermount_check(),
      loop_check(),
      libguestfs_check(),
      program_check("appliance builder", "supermin", "supermin"),
      program_check("appliance emulator", "qemu-system-x86_64", "qemu-system-x86"),
      program_check("overlay maker", "qemu-img", "qemu-utils"),
      kernel_check(),
      temporary_folder_check("temporary files", temporary_folder()),
      temporary_folder_check("appliance cache", appliance_folder()),
      kvm_check(fresh_kvm),
      program_check("edit -e", "perl", "perl"),
  };
}

HealthCheck check_appliance() {
  const auto start = std::chrono::steady_clock::now();
  try {
    const auto disk = std::make_shared<RawDisk>(
        std::make_shared<MemoryStorage>(std::vector<std::byte>(1 << 20), "empty disk"), RawOrigin::given);
    const auto open = [&](Confinement& /*needs nothing more*/) {
      return ServedDisks{.disks = {{.disk = disk}}, .warnings = {}};
    };
    open_appliance(std::make_unique<DiskServer>(open, false), {})->finish();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return {"appliance", CheckState::ok, fmt::format("starts and stops in {:.1f} s", took.count()), ""};
  } catch (const Error& error) {
    return {"appliance", CheckState::failed, error.what(), "libguestfs-test-tool shows the details"};
  }
}

std::string appliance_advice() {
  for (const HealthCheck& check :
       {temporary_folder_check("", temporary_folder()), temporary_folder_check("", appliance_folder()),
        program_check("", "supermin", "supermin"), program_check("", "qemu-system-x86_64", "qemu-system-x86"),
        program_check("", "qemu-img", "qemu-utils"), kernel_check()}) {
    if (check.state == CheckState::failed) return fmt::format("{}: {}", check.detail, check.advice);
  }
  return "";
}

}  // namespace drydock
