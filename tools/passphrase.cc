// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/passphrase.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "src/error.h"
#include "src/unique_fd.h"

namespace drydock::cli {

namespace {

// The terminal shows nothing of what is typed, until this goes.
class EchoOff {
 public:
  explicit EchoOff(int terminal) : terminal_(terminal) {
    if (::tcgetattr(terminal, &before_) != 0) return;
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    changed_ = ::tcsetattr(terminal, TCSAFLUSH, &silent) == 0;
  }
  EchoOff(const EchoOff&) = delete;
  EchoOff& operator=(const EchoOff&) = delete;
  ~EchoOff() {
    if (changed_) ::tcsetattr(terminal_, TCSAFLUSH, &before_);
  }

 private:
  int terminal_;
  termios before_{};
  bool changed_ = false;
};

std::string read_line(int terminal) {
  std::string line;
  for (char letter = 0; ::read(terminal, &letter, 1) == 1 && letter != '\n';) line += letter;
  return line;
}

void show(int terminal, const std::string& text) {
  [[maybe_unused]] const ssize_t written = ::write(terminal, text.data(), text.size());
}

}  // namespace

std::string ask_passphrase(Streams& io, const std::string& device, bool from_stdin, bool echo) {
  if (from_stdin) {
    std::string line;
    std::getline(io.in, line);
    return line;
  }
  const UniqueFd terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal) return "";
  show(terminal.get(), fmt::format("Passphrase of {}: ", printable(device)));
  if (echo) return read_line(terminal.get());
  const EchoOff silent(terminal.get());
  std::string line = read_line(terminal.get());
  show(terminal.get(), "\n");
  return line;
}

std::string read_passphrase_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw system_error(errno, path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace drydock::cli
