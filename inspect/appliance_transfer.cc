// SPDX-License-Identifier: GPL-3.0-or-later
//
// Moving bytes out of the guest and into it.
//
// Out: libguestfs writes to a pipe on a thread of its own, and the reader judges what comes. In: new files are made
// under a name of our own beside where they go, then renamed over what was there, so that a guest's file is at every
// moment the old one or the new one (safety.md, 6).

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <exception>
#include <filesystem>
#include <thread>

#include "inspect/appliance_files.h"
#include "inspect/child_process.h"
#include "inspect/tar_reader.h"
#include "src/unique_fd.h"

namespace drydock {

namespace {

constexpr size_t pipe_size = 1 << 20;  // bytes: the kernel's limit for ordinary users
constexpr const char* staging_name = ".drydock-XXXXXX";

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw system_error(errno, "pipe");
  ::fcntl(ends[0], F_SETPIPE_SZ, static_cast<int>(pipe_size));  // fails harmlessly where pipes are rationed
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::string descriptor_path(int fd) { return fmt::format("/dev/fd/{}", fd); }

// A pipe whose reader is gone answers EPIPE on this thread instead of killing the process.
void block_broken_pipe_signal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

void read_pipe(int fd, const ByteSink& sink) {
  std::vector<std::byte> buffer(256 << 10);
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error(errno, "pipe");
    if (got == 0) return;
    sink(std::span(buffer).first(static_cast<size_t>(got)));
  }
}

}  // namespace

void ApplianceFiles::pump_out(const std::string& what, const std::function<int(const char*)>& call,
                              const std::function<void(int)>& consume) {
  Pipe pipe = make_pipe();
  std::exception_ptr call_failure;
  std::thread caller([&] {
    block_broken_pipe_signal();
    handle().adopt_thread();
    if (call(descriptor_path(pipe.write_end.get()).c_str()) == -1) {
      call_failure = std::make_exception_ptr(handle().error());
    }
    pipe.write_end.reset();
  });
  std::exception_ptr consumer_failure;
  try {
    consume(pipe.read_end.get());
  } catch (...) {
    consumer_failure = std::current_exception();
    guestfs_user_cancel(g());
  }
  pipe.read_end.reset();
  caller.join();
  // Half an archive is the consequence of a failed call, a broken pipe that of a failed consumer: the cause is told.
  const bool consequence = consumer_failure && call_failure;
  if (consequence) {
    try {
      std::rethrow_exception(call_failure);
    } catch (const Error& error) {
      if (error.errno_value() != EPIPE && error.errno_value() != EINTR) throw error.within(what);
    }
  }
  if (consumer_failure) std::rethrow_exception(consumer_failure);
  if (call_failure) std::rethrow_exception(call_failure);
}

void ApplianceFiles::read(const std::string& path, const ByteSink& sink) {
  pump_out(
      printable(path), [&](const char* pipe) { return guestfs_download(g(), path.c_str(), pipe); },
      [&](int fd) { read_pipe(fd, sink); });
}

void ApplianceFiles::copy_tree_out(const std::string& folder, TreeSink& sink) {
  struct guestfs_tar_out_opts_argv arguments {};
  arguments.bitmask = GUESTFS_TAR_OUT_OPTS_NUMERICOWNER_BITMASK;
  arguments.numericowner = 1;
  pump_out(
      printable(folder),
      [&](const char* pipe) { return guestfs_tar_out_opts_argv(g(), folder.c_str(), pipe, &arguments); },
      [&](int fd) {
        read_tar(fd, sink);
        read_pipe(fd, [](auto) {});  // the padding behind the archive's end
      });
}

void ApplianceFiles::keep_attributes(const std::string& old_file, const std::string& new_file) {
  struct guestfs_copy_attributes_argv arguments {};
  arguments.bitmask = GUESTFS_COPY_ATTRIBUTES_ALL_BITMASK;
  arguments.all = 1;
  handle().check(guestfs_copy_attributes_argv(g(), old_file.c_str(), new_file.c_str(), &arguments));
}

void ApplianceFiles::replace(const std::string& path, const std::string& source, const std::string& backup_suffix) {
  const std::string target = real_path(path);
  if (!S_ISREG(stat(target).mode)) {
    throw Error(ErrorKind::invalid, fmt::format("{}: not a regular file", printable(path)));
  }
  expect_visible(target);
  const std::string staged =
      handle().check_string(guestfs_mktemp(g(), join_path(parent_folder(target), staging_name).c_str(), -1));
  try {
    handle().check(guestfs_upload(g(), source.c_str(), staged.c_str()));
    keep_attributes(target, staged);
    // The new bytes are on the disk before the name points at them.
    handle().check(guestfs_sync(g()));
    if (!backup_suffix.empty()) {
      const std::string backup = target + backup_suffix;
      // A second name for the old file; on filesystems without hard links a copy.
      if (guestfs_ln_f(g(), target.c_str(), backup.c_str()) == -1) {
        handle().check(guestfs_cp_a(g(), target.c_str(), backup.c_str()));
      }
    }
    handle().check(guestfs_rename(g(), staged.c_str(), target.c_str()));
  } catch (...) {
    guestfs_rm_f(g(), staged.c_str());
    throw;
  }
}

void ApplianceFiles::copy_in(const std::string& source, const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code failure;
  // "dir/", "." and ".." have a last name only in their absolute form.
  const std::string last_name = base_name(source);
  const fs::path absolute =
      last_name == "." || last_name == ".." ? fs::canonical(source, failure) : fs::path(source).lexically_normal();
  if (!failure && !fs::exists(fs::symlink_status(absolute, failure)) && !failure)
    failure.assign(ENOENT, std::system_category());
  if (failure) throw system_error(failure.value(), printable(source));
  const std::string name = base_name(absolute.string());
  const std::string source_folder = absolute.string().starts_with('/') ? parent_folder(absolute.string())
                                    : absolute.string().find('/') == std::string::npos
                                        ? "."
                                        : parent_folder(absolute.string());

  if (!is_folder(folder))
    throw Error(ErrorKind::not_found, fmt::format("target '{}' is not a directory", printable(folder)));
  const std::string target_folder = real_path(folder);
  expect_visible(join_path(target_folder, name));
  const std::string stage = handle().check_string(guestfs_mkdtemp(g(), join_path(target_folder, staging_name).c_str()));
  try {
    upload_tree(source_folder, name, stage);
    handle().check(guestfs_sync(g()));
    merge(join_path(stage, name), join_path(target_folder, name));
  } catch (...) {
    guestfs_rm_rf(g(), stage.c_str());
    throw;
  }
  handle().check(guestfs_rm_rf(g(), stage.c_str()));
}

void ApplianceFiles::upload_tree(const std::string& source_folder, const std::string& name,
                                 const std::string& guest_folder) {
  Pipe pipe = make_pipe();
  ChildResult packed;
  std::exception_ptr failure;
  std::thread packer([&] {
    try {
      packed = run_child({"tar", "-C", source_folder, "-cf", "-", "--", name}, {.out = pipe.write_end.get()});
    } catch (...) {
      failure = std::current_exception();
    }
    pipe.write_end.reset();
  });
  const int answer = guestfs_tar_in(g(), descriptor_path(pipe.read_end.get()).c_str(), guest_folder.c_str());
  std::exception_ptr upload_failure;
  if (answer == -1) upload_failure = std::make_exception_ptr(handle().error());
  pipe.read_end.reset();  // ends a packer whose archive nobody takes any more
  packer.join();
  if (failure) std::rethrow_exception(failure);
  if (upload_failure) std::rethrow_exception(upload_failure);
  if (packed.status != 0) {
    throw Error(ErrorKind::io, fmt::format("packing {}: {}", printable(name), printable(packed.err)));
  }
}

// Moves `staged`, which is new, to `target`.
void ApplianceFiles::merge(const std::string& staged, const std::string& target) {
  expect_visible(target);
  const bool staged_folder = S_ISDIR(lstat(staged).mode);
  if (!exists(target)) return move_over(staged, target);
  // A guest's link to a folder (/bin -> usr/bin) stands for the folder.
  if (staged_folder && is_folder(target)) {
    const std::string real = real_path(target);
    for (const std::string& name : list(staged)) merge(join_path(staged, name), join_path(real, name));
    return;
  }
  const FileStat old = lstat(target);
  if (staged_folder || S_ISDIR(old.mode)) {
    throw Error(ErrorKind::invalid, fmt::format("{}: {}", printable(target),
                                                staged_folder ? "exists and is not a directory" : "is a directory"));
  }
  if (S_ISREG(old.mode) && S_ISREG(lstat(staged).mode)) keep_attributes(target, staged);
  move_over(staged, target);
}

void ApplianceFiles::move_over(const std::string& staged, const std::string& target) {
  if (guestfs_rename(g(), staged.c_str(), target.c_str()) == 0) return;
  if (handle().last_errno() != EXDEV) throw handle().error();
  // Another filesystem is mounted there: copied beside first, so that the last step is a rename again.
  const std::string beside =
      handle().check_string(guestfs_mkdtemp(g(), join_path(parent_folder(target), staging_name).c_str()));
  const std::string copy = join_path(beside, base_name(target));
  try {
    handle().check(guestfs_cp_a(g(), staged.c_str(), copy.c_str()));
    handle().check(guestfs_rename(g(), copy.c_str(), target.c_str()));
  } catch (...) {
    guestfs_rm_rf(g(), beside.c_str());
    throw;
  }
  handle().check(guestfs_rm_rf(g(), beside.c_str()));
}

}  // namespace drydock
