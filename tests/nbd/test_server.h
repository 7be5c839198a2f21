// SPDX-License-Identifier: GPL-3.0-or-later
//
// A running server for a test: "disk" (read-only, a file with a hole), "scratch" (writable, in memory) and whatever
// else a test adds.

#pragma once

#include <fstream>
#include <memory>
#include <vector>

#include "nbd/server.h"
#include "src/file_storage.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/support/support.h"

namespace drydock::nbd {

// Data, a hole, data: 1 MiB each.
inline constexpr uint64_t test_disk_part = 1 << 20;

class TestServer {
 public:
  explicit TestServer(const Limits& limits = {}, std::vector<Export> more = {}, const TlsOptions& tls = {}) {
    content = test::random_bytes(7, 3 * test_disk_part);
    std::fill_n(content.begin() + test_disk_part, test_disk_part, std::byte{0});
    const std::string path = dir.file("disk.raw");
    test::run_ok({"truncate", "-s", std::to_string(content.size()), path});
    auto file = FileStorage::open(path, true);
    const std::span<const std::byte> bytes(content);
    file->write(HostOffset(0), bytes.first(test_disk_part));
    file->write(HostOffset(2 * test_disk_part), bytes.subspan(2 * test_disk_part));
    file = FileStorage::open(path, false);

    Exports exports;
    exports.add({"disk", "a test disk", std::make_shared<RawDisk>(file, RawOrigin::given), true});
    scratch = std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(test_disk_part)),
                                        RawOrigin::given);
    exports.add({"scratch", "", scratch, false});
    exports.add({"guarded", "writable below, read-only by word", scratch, true});
    for (Export& added : more) exports.add(std::move(added));
    exports.set_default("disk");
    ServerOptions options;
    options.socket_path = dir.file("socket");
    options.limits = limits;
    options.tls = tls;
    server = std::make_unique<Server>(std::move(exports), options);
    server->start();
  }

  test::TempDir dir;
  std::vector<std::byte> content;
  std::shared_ptr<Disk> scratch;
  std::unique_ptr<Server> server;
};

// Bytes of memory that this process has now.
inline uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total = 0;
  uint64_t resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

}  // namespace drydock::nbd
