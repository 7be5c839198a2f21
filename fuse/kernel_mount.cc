// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/kernel_mount.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "fuse/mount_table.h"
#include "src/descriptor_passing.h"
#include "src/error.h"

extern char** environ;

namespace drydock::fuse {

namespace {

constexpr const char* device_path = "/dev/fuse";
constexpr unsigned max_read = 1 << 20;  // the most that the kernel asks for at once (256 pages)

UniqueFd open_device() {
  UniqueFd device(::open(device_path, O_RDWR | O_CLOEXEC));
  if (device) return device;
  const int error = errno;
  if (error == EACCES || error == EPERM) {
    throw Error(
        ErrorKind::permission, error,
        fmt::format("you have no permission to open {}; as root, `chmod 666 {}` lets every user mount with FUSE "
                    "(a container also has to be given the device)",
                    device_path, device_path));
  }
  throw system_error(error, fmt::format("{} cannot be opened (`modprobe fuse` as root loads the kernel's FUSE; a "
                                        "container has to be given the device)",
                                        device_path));
}

// Options that mount(2) and fusermount3 share.
std::string common_options(const KernelMountOptions& options) {
  return fmt::format("default_permissions,max_read={}{}", max_read, options.allow_other ? ",allow_other" : "");
}

// False where the operating system reserves mount(2) for others.
bool mount_directly(const std::string& point, int device, const KernelMountOptions& options) {
  if (::geteuid() != 0) return false;
  const std::string data = fmt::format("fd={},rootmode={:o},user_id={},group_id={},{}", device, S_IFDIR, ::geteuid(),
                                       ::getegid(), common_options(options));
  const unsigned long flags = MS_NOSUID | MS_NODEV | (options.writable ? 0UL : static_cast<unsigned long>(MS_RDONLY));
  const std::string type(mount_type);
  if (::mount(options.source.c_str(), point.c_str(), type.c_str(), flags, data.c_str()) == 0) return true;
  if (errno == EPERM) return false;
  const int error = errno;
  throw system_error(error, fmt::format("mounting on '{}'", printable(point)));
}

// In the list that fusermount3 takes, a comma would end the value.
std::string escaped_value(const std::string& value) {
  std::string result;
  for (const char c : value) {
    if (c == ',' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

UniqueFd receive_descriptor(int socket) {
  std::byte byte{};
  UniqueFd descriptor;
  receive_with_descriptor(socket, {&byte, 1}, descriptor);
  return descriptor;
}

UniqueFd mount_through_fusermount(const std::string& point, const KernelMountOptions& options) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) throw system_error(errno, "socketpair");
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const std::string list = fmt::format("{},nosuid,nodev,subtype=drydock,fsname={},{}", options.writable ? "rw" : "ro",
                                       escaped_value(options.source), common_options(options));
  const std::string complaint = run_fusermount({"-o", list, "--", point}, theirs.get());
  theirs.reset();
  UniqueFd device = complaint.empty() ? receive_descriptor(ours.get()) : UniqueFd();
  if (!device) {
    throw Error(ErrorKind::permission,
                fmt::format("mounting on '{}': {}", printable(point),
                            complaint.empty() ? "fusermount3 handed no descriptor over" : complaint));
  }
  return device;
}

std::string read_to_end(int fd) {
  std::string text;
  std::array<char, 1024> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
}

// The first line, printable.
std::string one_line(const std::string& text) { return printable(text.substr(0, text.find('\n'))); }

}  // namespace

std::string run_fusermount(const std::vector<std::string>& words, int socket) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  const UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  std::vector<std::string> copies{"fusermount3"};
  copies.insert(copies.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& copy : copies) argv.push_back(copy.data());
  argv.push_back(nullptr);
  constexpr int socket_there = 3;
  std::string variable = fmt::format("_FUSE_COMMFD={}", socket_there);
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  if (socket >= 0) environment.push_back(variable.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  if (socket >= 0) posix_spawn_file_actions_adddup2(&actions, socket, socket_there);
  pid_t child = 0;
  const int failure = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failure == ENOENT) return "fusermount3 is not installed (on Debian: `apt install fuse3`)";
  if (failure != 0) return fmt::format("fusermount3: {}", std::strerror(failure));
  write_end.reset();
  const std::string said = read_to_end(read_end.get());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
  return said.empty() ? "fusermount3 failed without a word" : one_line(said);
}

KernelMount::KernelMount(std::string point, const KernelMountOptions& options)
    : point_(std::move(point)), device_(open_device()) {
  if (!mount_directly(point_, device_.get(), options)) device_ = mount_through_fusermount(point_, options);
  if (const auto entry = find_mount(point_)) id_ = entry->id;
  unmount_ = unmounter();
}

KernelMount::~KernelMount() { unmount_lazily(); }

std::function<bool()> KernelMount::unmounter() const {
  return [point = point_, id = id_] {
    const auto entry = find_mount(point);
    if (!entry || entry->id != id || entry->type != mount_type) return false;
    if (::umount2(point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
      run_fusermount({"-u", "-z", "-q", "--", point}, -1);
    }
    return true;
  };
}

}  // namespace drydock::fuse
