// SPDX-License-Identifier: GPL-3.0-or-later
//
// A program that runs beside a test: started, listened to, signalled, waited for; killed when the test lets go of it.

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "src/unique_fd.h"
#include "tests/support/support.h"

namespace drydock::test {

class Process {
 public:
  // Found on PATH; standard input from /dev/null, standard output and error to pipes that this object reads.
  explicit Process(const std::vector<std::string>& argv);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }
  // Reads standard output until `text` was seen; false when it ended, or 20 s went by, before that.
  bool wait_for_output(const std::string& text);
  // What was read of standard output so far.
  const std::string& output() const { return output_; }
  void signal(int number) const;
  // Waits for the end, 20 s at most; exit status, 128 + signal, or -1 when it did not end. Reads all of the output.
  int wait();
  // Standard error, whole; after wait().
  const std::string& errors() const { return errors_; }

 private:
  bool read_some(int timeout_ms);

  pid_t pid_ = -1;
  bool reaped_ = false;
  UniqueFd out_;
  UniqueFd err_;
  std::string output_;
  std::string errors_;
};

// qemu as a process that writes an image: qemu-storage-daemon with a writable NBD export of it, which nobody reads. Its
// locks are taken when the constructor returns; it is killed with the object.
class ImageWriter {
 public:
  // `blockdev`: what opens the image, as --blockdev takes it, without the name of the node.
  explicit ImageWriter(const std::string& blockdev);

  pid_t pid() const { return process_.pid(); }

 private:
  TempDir dir_;
  Process process_;
};

}  // namespace drydock::test
