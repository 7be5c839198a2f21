// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/mount.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/statfs.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <thread>

#include "fuse/control.h"
#include "fuse/kernel_mount.h"
#include "fuse/mount_point.h"
#include "fuse/operations.h"
#include "src/error.h"

namespace drydock::fuse {

namespace {

// Two for the kernel's read-ahead of one reader, and more for readers that block on the image's disk.
constexpr unsigned max_threads = 16;

void ignore_log(fuse_log_level, const char*, va_list) {}

fuse_session* new_session(Filesystem& filesystem) {
  // What libfuse has to say would go to a terminal that is the caller's; everything that counts arrives as an errno.
  fuse_set_log_func(ignore_log);
  std::string name = "drydock";
  std::array<char*, 2> argv{name.data(), nullptr};
  fuse_args arguments{.argc = 1, .argv = argv.data(), .allocated = 0};
  fuse_session* session = fuse_session_new(&arguments, &operations(), sizeof(fuse_lowlevel_ops), &filesystem);
  if (session == nullptr) throw Error(ErrorKind::io, "libfuse did not start a session");
  return session;
}

KernelMount mount_at(const std::string& directory, const MountOptions& options) {
  const MountPoint point(directory);
  return {point.path(), {options.source, options.writable, options.allow_other}};
}

struct LoopConfig {
  fuse_loop_config* config = fuse_loop_cfg_create();
  LoopConfig() { fuse_loop_cfg_set_max_threads(config, max_threads); }
  LoopConfig(const LoopConfig&) = delete;
  LoopConfig& operator=(const LoopConfig&) = delete;
  ~LoopConfig() { fuse_loop_cfg_destroy(config); }
};

// Looks after what is not a FUSE request while libfuse's loop runs: the wish to stop, and who waits for the end.
class Watcher {
 public:
  Watcher(int stop, ControlServer& control, fuse_session* session, const std::string& point)
      : done_(::eventfd(0, EFD_CLOEXEC)),
        thread_([=, this, &control, &point] { watch(stop, control, session, point); }) {}
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  ~Watcher() {
    ::eventfd_write(done_.get(), 1);
    thread_.join();
  }

 private:
  void watch(int stop, ControlServer& control, fuse_session* session, const std::string& point) const {
    std::array<pollfd, 3> polled{pollfd{done_.get(), POLLIN, 0}, pollfd{control.descriptor(), POLLIN, 0},
                                 pollfd{stop, POLLIN, 0}};
    while (polled[0].revents == 0) {
      if (::poll(polled.data(), polled.size(), -1) < 0) continue;
      if (polled[1].revents != 0) control.accept_waiting();
      if (polled[2].revents == 0) continue;
      polled[2].fd = -1;
      polled[2].revents = 0;
      fuse_session_exit(session);
      // The workers sleep in read(2) and look at the session's state only between two requests: here is one.
      struct statfs ignored {};
      ::statfs(point.c_str(), &ignored);
    }
  }

  UniqueFd done_;
  std::thread thread_;
};

}  // namespace

class Mount::Server {
 public:
  Server(const std::string& directory, Tree tree, const MountOptions& options);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() { kernel_mount_.unmount_lazily(); }

  KernelMount& kernel_mount() { return kernel_mount_; }
  void serve(int stop, const std::function<bool()>& ready);

 private:
  struct SessionCloser {
    void operator()(fuse_session* session) const { fuse_session_destroy(session); }
  };

  void run_loop(int stop);

  ControlServer control_;
  Filesystem filesystem_;
  KernelMount kernel_mount_;
  std::unique_ptr<fuse_session, SessionCloser> session_;
};

Mount::Server::Server(const std::string& directory, Tree tree, const MountOptions& options)
    : filesystem_{.tree = std::move(tree),
                  .modified = options.modified,
                  .control_address = control_.address(),
                  .ready = {}},
      kernel_mount_(mount_at(directory, options)),
      session_(new_session(filesystem_)) {
  filesystem_.session = session_.get();
  // libfuse takes an open descriptor of /dev/fuse under this name, and closes it with the session.
  const std::string device = fmt::format("/dev/fd/{}", kernel_mount_.descriptor());
  if (fuse_session_mount(session_.get(), device.c_str()) != 0) {
    throw Error(ErrorKind::io, "libfuse did not take the mount over");
  }
  kernel_mount_.release_descriptor();
}

void Mount::Server::run_loop(int stop) {
  const LoopConfig loop;
  const Watcher watcher(stop, control_, session_.get(), kernel_mount_.point());
  const int result = fuse_session_loop_mt(session_.get(), loop.config);
  // Out of the table first, so that nobody walks into a mount without a server; then the device is closed, which ends
  // every request that still waits, the watcher's own too.
  const bool was_mounted = kernel_mount_.unmount_lazily();
  session_.reset();
  if (result != 0 && was_mounted) throw system_error(result < 0 ? -result : EIO, "serving FUSE requests");
}

void Mount::Server::serve(int stop, const std::function<bool()>& ready) {
  filesystem_.ready = ready;
  std::string failure;
  try {
    run_loop(stop);
  } catch (const Error& error) {
    failure = error.what();
  }
  try {
    filesystem_.tree.flush();
  } catch (const Error& error) {
    failure = error.what();
  }
  control_.announce(failure);
  if (!failure.empty()) throw Error(ErrorKind::io, failure);
}

Mount::Mount(const std::string& directory, Tree tree, const MountOptions& options)
    : server_(std::make_unique<Server>(directory, std::move(tree), options)) {}

Mount::~Mount() = default;

std::function<bool()> Mount::unmounter() const { return server_->kernel_mount().unmounter(); }

void Mount::unmount_through(std::function<bool()> unmount) {
  server_->kernel_mount().unmount_through(std::move(unmount));
}

void Mount::serve(int stop, const std::function<bool()>& ready) { server_->serve(stop, ready); }

}  // namespace drydock::fuse
