// SPDX-License-Identifier: GPL-3.0-or-later
//
// Moving bytes out of the guest: libguestfs writes to a pipe on a thread of its own, and the reader judges what comes.

#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <exception>
#include <thread>

#include "inspect/appliance_files.h"
#include "inspect/pipe.h"
#include "inspect/tar_reader.h"

namespace drydock {

namespace {

// tar's pipe and libguestfs's messages share one emulated processor: without KVM 15 MB/s arrive, of a single file 35.
// So what is large is taken out of the archive, as long as finding it costs little.
constexpr uint64_t large_tree = 256 << 20;  // bytes
constexpr uint64_t large_file = 32 << 20;   // bytes
constexpr size_t most_folders_searched = 1000;

// A pipe whose reader is gone answers EPIPE on this thread instead of killing the process.
void block_broken_pipe_signal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
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
  // A FIFO would be waited for, and a device read to its end.
  const uint32_t mode = stat(path).mode;
  if (!S_ISREG(mode)) {
    throw Error(ErrorKind::invalid, fmt::format("{}: is {}, not a regular file", printable(path), type_in_words(mode)));
  }
  pump_out(
      printable(path), [&](const char* pipe) { return guestfs_download(g(), path.c_str(), pipe); },
      [&](int fd) { read_pipe(fd, sink); });
}

void ApplianceFiles::tar_out(const std::string& folder, const std::vector<std::string>& excluded, TreeSink& sink) {
  const CStringList patterns(excluded);
  struct guestfs_tar_out_opts_argv arguments {};
  arguments.bitmask = GUESTFS_TAR_OUT_OPTS_NUMERICOWNER_BITMASK | GUESTFS_TAR_OUT_OPTS_XATTRS_BITMASK |
                      GUESTFS_TAR_OUT_OPTS_ACLS_BITMASK | GUESTFS_TAR_OUT_OPTS_EXCLUDES_BITMASK;
  arguments.numericowner = arguments.xattrs = arguments.acls = 1;
  arguments.excludes = const_cast<char**>(patterns.get());
  pump_out(
      printable(folder),
      [&](const char* pipe) { return guestfs_tar_out_opts_argv(g(), folder.c_str(), pipe, &arguments); },
      [&](int fd) {
        read_tar(fd, sink);
        read_pipe(fd, [](auto) {});  // the padding behind the archive's end
      });
}

std::vector<ApplianceFiles::LargeFile> ApplianceFiles::large_files(const std::string& folder) {
  const int64_t kibibytes = guestfs_du(g(), folder.c_str());
  if (kibibytes < static_cast<int64_t>(large_tree >> 10)) return {};
  std::vector<LargeFile> found;
  std::vector<std::string> folders{""};  // below `folder`, with a slash behind each
  for (size_t next = 0; next < folders.size() && next < most_folders_searched; ++next) {
    const std::string below = folders[next];
    std::vector<DirectoryEntry> entries;
    try {
      entries = list_with_stat(join_path(folder, below));
    } catch (const Error&) {
      continue;  // tar meets the same, and says so
    }
    for (const DirectoryEntry& entry : entries) {
      const std::string path = below + entry.name;
      if (S_ISDIR(entry.stat.mode)) folders.push_back(path + "/");
      // Names that tar would take for a pattern, or that have a second name in the archive, stay in the archive.
      const bool plain = entry.name.find_first_of("*?[]\\\n") == std::string::npos &&
                         below.find_first_of("*?[]\\\n") == std::string::npos;
      const bool large = S_ISREG(entry.stat.mode) && entry.stat.size >= large_file && entry.stat.links == 1;
      if (plain && large) found.push_back({path, entry.stat});
    }
  }
  return found;
}

void ApplianceFiles::copy_tree_out(const std::string& folder, TreeSink& sink) {
  const std::vector<LargeFile> large = large_files(folder);
  std::vector<std::string> excluded;
  for (const LargeFile& file : large) excluded.push_back("./" + file.path);
  // The first failure is told when all that can be copied is.
  std::exception_ptr failure;
  const auto attempt = [&](const std::function<void()>& step) {
    try {
      step();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::no_space || error.kind() == ErrorKind::interrupted) throw;
      if (!failure) failure = std::current_exception();
    }
  };
  attempt([&] { tar_out(folder, excluded, sink); });
  for (const LargeFile& file : large) {
    attempt([&] {
      const std::string path = join_path(folder, file.path);
      sink.begin(file_entry(file.path, file.stat, attributes(path)));
      read(path, [&](std::span<const std::byte> bytes) { sink.data(bytes); });
      sink.end();
    });
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace drydock
