// SPDX-License-Identifier: GPL-3.0-or-later
//
// A disk that tries, whenever it is read, what a confined server must not be able to do, and whose bytes tell what came
// of it: so a server is tried from inside, on the thread that answers its client.

#pragma once

#include <string>
#include <vector>

#include "src/disk.h"
#include "src/unique_fd.h"

namespace drydock::test {

class SandboxProbe final : public Disk {
 public:
  static constexpr uint64_t bytes = 4096;

  // To be made in the process that will be confined, before it is. `folder` gets a file to attack.
  explicit SandboxProbe(const std::string& folder);
  ~SandboxProbe() override;

  uint64_t size() const override { return bytes; }
  void read(GuestOffset offset, std::span<std::byte> buffer) const override;
  std::vector<Extent> map(GuestRange range, size_t max_extents) const override;

  // What its report says: a line for each attempt.
  struct Result {
    std::string attempt;
    int error = 0;  // an errno; 0: it was possible
    bool operator==(const Result&) const = default;
  };
  static std::vector<Result> results(std::span<const std::byte> report);

 private:
  std::string attempt_all() const;

  std::string file_;
  std::string other_;
  std::string bus_path_;
  UniqueFd bus_;       // of somebody else, who listens
  UniqueFd client_;    // made before the sandbox was entered
  int terminal_ = -1;  // which controls this process
  int controller_ = -1;
};

// Those attempts that were not denied.
std::vector<std::string> possible(const std::vector<SandboxProbe::Result>& results);

// What the sandbox leaves on this kernel: nothing, or what Landlock alone denies where there is none.
std::vector<std::string> possible_in_sandbox();

}  // namespace drydock::test
