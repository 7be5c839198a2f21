// SPDX-License-Identifier: GPL-3.0-or-later
//
// The server speaks twice through a socket: once it serves, or could not, and at its end. Whoever made it says one
// byte: that it is to end. If that does not come, who made it was interrupted or has died, and no disk is waited for
// long.

#include "inspect/disk_server.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <sstream>

#include "inspect/interruption.h"
#include "inspect/temporary_space.h"
#include "nbd/failures.h"
#include "nbd/server.h"
#include "src/error.h"
#include "src/process/standard_streams.h"

namespace drydock {

namespace {

// Before the text.
struct MessageHead {
  ErrorKind kind = ErrorKind::io;
  int errno_value = 0;  // 0: all is well
  uint64_t length = 0;
};

// Of what it says. The server reads images, and may have been taken over by one: it is believed no more than this.
constexpr uint64_t max_text = 1 << 20;

bool send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool receive_all(int socket, std::span<char> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::recv(socket, bytes.data(), bytes.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return true;
}

void tell(int socket, ErrorKind kind, int errno_value, std::string_view text) {
  text = text.substr(0, max_text);
  const MessageHead head{.kind = kind, .errno_value = errno_value, .length = text.size()};
  if (send_all(socket, {reinterpret_cast<const char*>(&head), sizeof head})) send_all(socket, text);
}

// The sizes of sectors on the first line, then the warnings.
std::string description_of(const ServedDisks& served) {
  std::string text;
  for (const GuestDisk& disk : served.disks) text += fmt::format("{} ", disk.sector_size);
  for (const std::string& warning : served.warnings) text += "\n" + warning;
  return text;
}

nbd::Exports exports_of(const ServedDisks& served, bool writable) {
  nbd::Exports exports;
  for (size_t i = 0; i < served.disks.size(); ++i) {
    exports.add(
        {.name = DiskServer::export_name(i), .description = "", .disk = served.disks[i].disk, .read_only = !writable});
  }
  return exports;
}

void wait_for_end(int socket) {
  char end = 0;
  if (!receive_all(socket, {&end, 1})) InterruptionGuard::take_as_caught();
}

void serve_disks(const DiskOpener& open, bool writable, std::vector<UniqueFd> listening, int control) {
  Confinement confinement;
  const ServedDisks served = open(confinement);
  nbd::Server server(std::make_shared<nbd::Exports>(exports_of(served, writable)), {},
                     nbd::Listener::on_inherited(std::move(listening)));
  leave_standard_streams();
  confinement.enter();
  server.start();
  tell(control, ErrorKind::io, 0, description_of(served));
  wait_for_end(control);
  server.stop();
  nbd::Failures failures;
  failures.attempt([&] { server.wait(); });
  failures.attempt([&] { served.close(); });
  failures.throw_if_any();
  tell(control, ErrorKind::io, 0, "");
}

[[noreturn]] void run_server(const DiskOpener& open, bool writable, std::vector<UniqueFd> listening, int control) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(signal, SIG_IGN);
  try {
    serve_disks(open, writable, std::move(listening), control);
  } catch (const Error& error) {
    tell(control, error.kind(), error.errno_value(), error.what());
  } catch (const std::exception& error) {
    tell(control, ErrorKind::io, EIO, error.what());
  }
  // Not exit(): what this process has buffered and registered is its maker's to write and run.
  ::_exit(0);
}

// What stands in the way of a launch is told before anything is opened for it.
nbd::Listener listen_for_appliance() {
  require_temporary_space();
  return nbd::Listener::on_private_socket();
}

}  // namespace

DiskServer::DiskServer(const DiskOpener& open, bool writable) : listener_(listen_for_appliance()) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) throw system_error(errno, "socketpair");
  control_.reset(ends[0]);
  UniqueFd theirs(ends[1]);
  std::vector<UniqueFd> listening = listener_.take_descriptors();
  process_ = ::fork();
  if (process_ < 0) throw system_error(errno, "fork");
  if (process_ == 0) {
    control_.reset();
    run_server(open, writable, std::move(listening), theirs.get());
  }
  theirs.reset();
  try {
    std::istringstream text(receive());
    std::string line;
    std::getline(text, line);
    std::istringstream sizes(line);
    for (unsigned size = 0; sizes >> size;) sector_sizes_.push_back(size);
    while (std::getline(text, line)) warnings_.push_back(line);
  } catch (...) {
    end();
    throw;
  }
  // Until now, a child like others: opening may wait for a disk or a server for ever.
  InterruptionGuard::spare(process_);
}

DiskServer::~DiskServer() { end(); }

std::string DiskServer::export_name(size_t index) { return fmt::format("disk{}", index); }

// Its next message; throws the error in it.
std::string DiskServer::receive() {
  MessageHead head;
  std::string text;
  bool whole = receive_all(control_.get(), {reinterpret_cast<char*>(&head), sizeof head});
  if (whole && head.length <= max_text) {
    text.resize(head.length);
    whole = receive_all(control_.get(), text);
  }
  if (!whole) throw Error(ErrorKind::io, "the process that serves the guest's disks has died");
  if (head.length > max_text) throw Error(ErrorKind::io, "the process that serves the guest's disks talks nonsense");
  if (head.errno_value != 0) throw Error(head.kind, head.errno_value, text);
  return text;
}

void DiskServer::end() {
  if (process_ < 0) return;
  if (!InterruptionGuard::anything_caught()) send_all(control_.get(), "e");
  control_.reset();
  while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) {
  }
  InterruptionGuard::spare(-1);
  process_ = -1;
}

void DiskServer::finish() {
  if (process_ < 0) return;
  try {
    if (!InterruptionGuard::anything_caught()) send_all(control_.get(), "e");
    ::shutdown(control_.get(), SHUT_WR);
    receive();
  } catch (...) {
    end();
    throw;
  }
  end();
}

}  // namespace drydock
