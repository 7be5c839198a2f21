// SPDX-License-Identifier: GPL-3.0-or-later

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "fuse/mount.h"
#include "src/error.h"
#include "src/process/background.h"
#include "src/unique_fd.h"
#include "src/views.h"
#include "tools/commands.h"
#include "tools/export_sandbox.h"
#include "tools/output_format.h"

namespace drydock::cli {

namespace {

// While it lives, the signals that end a service are read from a descriptor and do nothing else. To be made before
// other threads are, which inherit what is blocked.
class StopSignals {
 public:
  StopSignals() {
    sigset_t signals;
    ::sigemptyset(&signals);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&signals, number);
    ::pthread_sigmask(SIG_BLOCK, &signals, &before_);
    fd_.reset(::signalfd(-1, &signals, SFD_CLOEXEC));
    if (!fd_) throw system_error(errno, "signalfd");
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals() {
    signalfd_siginfo taken{};
    // One that arrived is answered for, and must not strike again as soon as it is unblocked.
    ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
    while (::read(fd_.get(), &taken, sizeof taken) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  int descriptor() const { return fd_.get(); }

 private:
  sigset_t before_{};
  UniqueFd fd_;
};

std::vector<fuse::TreeFile> files_of(const Views& views) {
  std::vector<fuse::TreeFile> files;
  for (const View& view : views.views) files.push_back({view.name + ".raw", view.disk});
  return files;
}

std::function<timespec()> modification_time_of(const std::shared_ptr<const Image>& image) {
  return [image] {
    struct stat status {};
    const int fd = image->storage().descriptor();
    return fd >= 0 && ::fstat(fd, &status) == 0 ? status.st_mtim : timespec{};
  };
}

// Until the end, once `ready` was told that the files are there. The image is opened by the process that serves it: a
// parent that had it open, too, would end the writing as it goes.
void serve(const Invocation& invocation, const std::string& directory, const ReadyCallback& ready) {
  const std::string& path = invocation.arguments[0];
  OpenOptions open_options = parse_open_options(invocation.options);
  open_options.beside_writers = invocation.options.has("force-share");
  if (open_options.beside_writers && invocation.options.has("rw")) {
    throw_invalid("force-share=on can only be used with read-only images");
  }
  open_options.scratch = invocation.options.has("snapshot");
  open_options.writable = invocation.options.has("rw") || open_options.scratch;

  const std::shared_ptr<Image> image = Image::open(path, open_options);
  const Views views = list_views(*image);
  for (const std::string& warning : image->warnings()) invocation.warn(warning);
  for (const std::string& warning : views.warnings) invocation.warn(warning);

  const fuse::MountOptions options{
      .source = printable(is_remote_name(path) ? path : std::filesystem::absolute(path).lexically_normal().string()),
      .writable = open_options.writable,
      .allow_other = invocation.options.has("allow-other"),
      .modified = modification_time_of(image),
  };
  const StopSignals signals;
  {
    fuse::Mount mount(directory, fuse::Tree(files_of(views)), options);
    if (!invocation.options.has("no-sandbox")) confine_export(mount);
    mount.serve(signals.descriptor(), ready);
  }
  image->close();
}

int run_export(Invocation& invocation) {
  if (invocation.arguments.size() != 2) usage_error("Expecting an image file name and a folder to mount on");
  // The background's working folder is another one.
  const std::string directory = std::filesystem::absolute(invocation.arguments[1]).string();
  if (invocation.options.has("foreground")) {
    serve(invocation, directory, [] { return true; });
  } else {
    run_in_background({}, [&](const ReadyCallback& ready) { serve(invocation, directory, ready); });
  }
  return 0;
}

}  // namespace

const Command& export_command() {
  static const Command command{
      .name = "export",
      .group = "exports",
      .summary = "show an image's disk, partitions and snapshots as files (FUSE)",
      .synopsis = "[OPTION...] IMAGE DIR",
      .incumbent = "",
      .options = join(open_options(),
                      {
                          {0, "rw", "", "let the files be written to"},
                          {0, "snapshot", "", "let them be written to; the changes are gone at the end"},
                          {0, "foreground", "", "serve until unmounted or interrupted, instead of in the background"},
                          force_share_option(),
                          {0, "allow-other", "", "let other users see the files, too"},
                          {0, "no-sandbox", "", "keep the privileges, system calls and files that it does not need"},
                      }),
      .run = run_export,
  };
  return command;
}

}  // namespace drydock::cli
