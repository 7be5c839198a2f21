// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/guest_options.h"

#include "src/error.h"
#include "tools/guest_words.h"
#include "tools/nbd_servers.h"
#include "tools/passphrase.h"
#include "tools/remote.h"

namespace drydock::cli {

namespace {

unsigned parse_sector_size(const std::string& text) {
  if (text.empty()) return 0;
  if (text == "512") return 512;
  if (text == "4096") return 4096;
  usage_error(fmt::format("--blocksize={}: 512 or 4096 is expected", printable(text)));
}

std::shared_ptr<Image> open_drive(const Invocation& invocation, const Drive& drive, bool writable,
                                  std::vector<std::string>& warnings) {
  OpenOptions options;
  options.format = drive.format;
  options.writable = writable;
  options.beside_writers = !writable;  // a guest may be looked at while it runs
  options.scratch = invocation.options.has("snapshot");
  if (const auto format = invocation.options.value("backing-format")) options.backing_format = parse_format(*format);
  options.remote = remote_opener_for(invocation);
  options.gate = std::make_shared<LocalFilesGate>(invocation.options.values("allow-dir"), options.remote);
  auto image = Image::open(drive.path, options);
  for (const std::string& warning : image->warnings()) {
    warnings.push_back(fmt::format("{}: {}", printable(drive.path), warning));
  }
  return image;
}

// In the process that serves the disks.
ServedDisks open_drives(const Invocation& invocation, const std::vector<MountRequest>& mounts, bool writable,
                        Confinement& confinement) {
  ServedDisks served;
  std::vector<std::shared_ptr<Image>> images;
  for (const Drive& drive : parse_drives(invocation.options)) {
    images.push_back(open_drive(invocation, drive, writable, served.warnings));
    served.disks.push_back({.disk = images.back()->disk(), .sector_size = drive.sector_size});
  }
  require_mountable(mounts, images);
  keep_nbd_servers(confinement);
  served.close = [images] {
    for (const auto& image : images) image->close();
  };
  return served;
}

ApplianceOptions appliance_options(Invocation& invocation, bool writable) {
  ApplianceOptions options;
  options.writable = writable;
  options.verbose = invocation.options.has("verbose");
  options.trace = invocation.options.has("x");
  options.network = invocation.options.has("network");
  for (const std::string& key : invocation.options.values("key")) options.keys.push_back(parse_key(key));
  options.ask_passphrase = [&invocation](const std::string& device) {
    return ask_passphrase(invocation.io, device, invocation.options.has("keys-from-stdin"),
                          invocation.options.has("echo-keys"));
  };
  return options;
}

}  // namespace

std::vector<OptionSpec> disk_options() {
  return {
      {'a', "add", "IMAGE", "add the disk image IMAGE; a guest's further disks: -a again"},
      {0, "allow-dir", "DIR", "also open backing and data files that lie below DIR (may be repeated)"},
      allow_nbd_option(),
      {0, "backing-format", "FORMAT", "format of backing files whose overlay does not record it"},
      {0, "blocksize", "512|4096", "sector size of the disks of following -a options", true},
      {'c', "connect", "URI", "of libvirt: taken for the sake of scripts, not used"},
      {'d', "domain", "GUEST", "of libvirt: refused, give the domain's disks with -a"},
      {0, "format", "FORMAT", "format of following -a options: raw or qcow2; without a value: found", true},
      guest_progress_options()[0],
      {'v', "verbose", "", "let libguestfs tell what it does"},
      {'x', "", "", "let libguestfs trace its calls"},
  };
}

std::vector<OptionSpec> mount_options() {
  return {
      {0, "echo-keys", "", "show passphrases as they are typed"},
      {0, "key", "SELECTOR", "passphrase of a LUKS device: DEVICE:key:TEXT or DEVICE:file:FILE; all: of any device"},
      {0, "keys-from-stdin", "", "read passphrases from standard input"},
      {'m', "mount", "DEV[:MNT[:OPTS[:TYPE]]]", "mount DEV on MNT (default: /) instead of looking for the system"},
      {0, "root", "DEVICE", "of several operating systems, the one whose root filesystem is on DEVICE"},
  };
}

std::vector<OptionSpec> write_options() { return {{0, "snapshot", "", "only try it: the image stays as it is"}}; }

std::vector<OptionSpec> guestfish_options() {
  return {
      {'i', "inspector", "", "mount the guest's system (the default)"},
      {0, "network", "", "give the appliance a network"},
      {'n', "no-sync", "", "taken for the sake of scripts; changes are always synced"},
      {0, "no-progress-bars", "", "show no progress"},
      {0, "progress-bars", "", "show progress, where a terminal is there, also under the incumbent's name"},
      {0, "selinux", "", "taken for the sake of scripts; no policy is loaded"},
  };
}

std::vector<Drive> parse_drives(const ParsedOptions& options) {
  std::vector<Drive> drives;
  Drive next;
  for (const ParsedOptions::Given& given : options.in_order()) {
    if (given.is("format")) {
      next.format = given.value.empty() ? std::nullopt : std::optional(parse_format(given.value));
    } else if (given.is("blocksize")) {
      next.sector_size = parse_sector_size(given.value);
    } else if (given.is("domain")) {
      usage_error(
          fmt::format("libvirt is not used: give the disks of '{0}' with -a ('virsh domblklist {0}' lists them)",
                      printable(given.value)));
    } else if (given.is("add")) {
      if (given.value.find("://") != std::string::npos && !is_remote_name(given.value)) {
        throw Error(ErrorKind::refused,
                    fmt::format("{}: of URIs only those of NBD are opened", printable(given.value)));
      }
      drives.push_back({given.value, next.format, next.sector_size});
    }
  }
  if (drives.empty()) usage_error("at least one image is needed: -a IMAGE");
  return drives;
}

MountRequest parse_mount(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t start = 0; parts.size() < 3;) {
    const size_t colon = text.find(':', start);
    if (colon == std::string::npos) {
      parts.push_back(text.substr(start));
      start = text.size() + 1;
      break;
    }
    parts.push_back(text.substr(start, colon - start));
    start = colon + 1;
    if (parts.size() == 3) parts.push_back(text.substr(start));
  }
  parts.resize(4);
  if (!parts[0].starts_with("/dev/")) {
    usage_error(fmt::format("-m {}: a device of the guest is expected first, as in '/dev/sda1'", printable(text)));
  }
  if (!parts[1].empty() && !parts[1].starts_with('/')) {
    usage_error(fmt::format("-m {}: the folder to mount on starts with a slash", printable(text)));
  }
  return {.device = parts[0],
          .mountpoint = parts[1].empty() ? std::string("/") : parts[1],
          .options = parts[2],
          .type = parts[3]};
}

GuestKey parse_key(const std::string& text) {
  const size_t first = text.find(':');
  const size_t second = first == std::string::npos ? first : text.find(':', first + 1);
  if (second == std::string::npos) usage_error("--key: SELECTOR:key:PASSPHRASE or SELECTOR:file:FILENAME is expected");
  const std::string kind = text.substr(first + 1, second - first - 1);
  const std::string value = text.substr(second + 1);
  if (kind == "key") return {.selector = text.substr(0, first), .passphrase = value};
  if (kind == "file") return {.selector = text.substr(0, first), .passphrase = read_passphrase_file(value)};
  usage_error(fmt::format("--key: '{}' is neither key nor file", printable(kind)));
}

void tell_nothing_found(const Invocation& invocation, std::string_view what) {
  if (invocation.as_incumbent) return;
  invocation.warn(fmt::format("found {} on the guest's disks; `drydock filesystems --all` lists what there is", what));
}

OpenedGuest::OpenedGuest(Invocation& invocation, bool writable) : invocation_(invocation), progress_(invocation) {
  for (const std::string& text : invocation.options.values("mount")) mounts_.push_back(parse_mount(text));
  if (!mounts_.empty() && invocation.options.has("root")) usage_error("--root and -m do not go together");
  ApplianceOptions appliance = appliance_options(invocation, writable);
  appliance.progress = [this](const ApplianceProgress& progress) { progress_.show(progress); };
  appliance.notice = [this](const std::string& text) {
    progress_.clear();
    invocation_.warn(text);
  };
  auto disks = std::make_unique<DiskServer>(
      [&](Confinement& confinement) { return open_drives(invocation, mounts_, writable, confinement); }, writable);
  for (const std::string& warning : disks->warnings()) invocation.warn(warning);
  try {
    files_ = open_appliance(std::move(disks), appliance);
  } catch (...) {
    progress_.end(guard_.caught() != 0 ? "interrupted" : "failed");
    throw;
  }
}

OpenedGuest::~OpenedGuest() {
  files_.reset();
  const bool failed = std::uncaught_exceptions() > exceptions_;
  progress_.end(guard_.caught() != 0 ? "interrupted" : failed ? "failed" : "finished");
}

void OpenedGuest::finish() { files_->finish(); }

void OpenedGuest::mount() {
  for (const MountRequest& request : mounts_) mount_by_hand(request);
  if (!mounts_.empty()) return;
  const std::string root = invocation_.options.value("root").value_or("");
  for (const std::string& warning : files_->mount_inspected(root)) invocation_.warn(warning);
}

void OpenedGuest::mount_by_hand(const MountRequest& request) {
  try {
    files_->mount(request);
  } catch (const Error& error) {
    if (guard_.caught() != 0) throw;
    std::string known;
    for (const Filesystem& filesystem : files_->filesystems()) {
      if (!filesystem.is_mountable()) continue;
      known += fmt::format("{}{} ({})", known.empty() ? "; there are: " : ", ", printable(filesystem.device),
                           printable(filesystem.type));
    }
    throw Error(error.kind(), error.errno_value(), error.what() + known);
  }
}

}  // namespace drydock::cli
