// SPDX-License-Identifier: GPL-3.0-or-later
//
// Clients at work at the same time, on several connections to several exports: a raw file, a slice of the same file,
// and a qcow2 image. Each has its own part of each export, cut within clusters; what it wrote is there in the end.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "src/image.h"
#include "src/image_create.h"
#include "src/slice_disk.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

constexpr size_t client_count = 4;
constexpr uint64_t part_size = (256 << 10) + 512;  // bytes of each export that belong to one client
constexpr uint64_t export_size = client_count * part_size;
constexpr int steps = 150;
const std::vector<std::string> export_names{"raw", "slice", "qcow2"};

// One client's part of one export, on a connection of its own.
class Part {
 public:
  Part(const Server& server, const std::string& name, uint64_t start, Framing framing)
      : client_(server), start_(start), extended_(framing == Framing::extended), content_(part_size) {
    client_.go(name, framing, {});
  }

  void step(std::mt19937& random) {
    const uint64_t length = 1 + random() % (40 << 10);
    const uint64_t at = random() % (part_size - length);
    const auto begin = content_.begin() + static_cast<std::ptrdiff_t>(at);
    const unsigned fua = random() % 8 == 0 ? command_flag_fua : 0;
    switch (random() % 8) {
      case 0:
      case 1:
      case 2: {
        const Bytes data = test::random_bytes(random(), length);
        run(CommandType::write, at, length, fua | (extended_ ? command_flag_payload_length : 0), data);
        std::ranges::copy(data, begin);
        break;
      }
      case 3:
        run(CommandType::write_zeroes, at, length, fua | (random() % 2 == 0 ? command_flag_no_hole : 0));
        std::fill_n(begin, length, std::byte{0});
        break;
      case 4:
        // What it reads as afterwards is not promised: overwritten at once.
        run(CommandType::trim, at, length, fua);
        run(CommandType::write_zeroes, at, length, 0);
        std::fill_n(begin, length, std::byte{0});
        break;
      case 5:
        run(CommandType::flush, 0, 0, 0, {}, 0);
        break;
      default:
        EXPECT_EQ(client_.read(start_ + at, static_cast<uint32_t>(length)),
                  Bytes(begin, begin + static_cast<std::ptrdiff_t>(length)));
    }
  }

  const Bytes& content() const { return content_; }

 private:
  void run(CommandType type, uint64_t at, uint64_t length, unsigned flags, const Bytes& payload = {}) {
    run(type, at, length, flags, payload, start_);
  }
  void run(CommandType type, uint64_t at, uint64_t length, unsigned flags, const Bytes& payload, uint64_t start) {
    const auto chunks = client_.request(type, start + at, length, static_cast<uint16_t>(flags), payload);
    if (!chunks[0].is(ChunkType::none)) throw std::runtime_error(chunks[0].message());
  }

  RawClient client_;
  uint64_t start_;
  bool extended_;
  Bytes content_;
};

class nbd_load : public testing::Test {
 protected:
  nbd_load() {
    test::run_ok({"truncate", "-s", std::to_string(2 * export_size), dir_.file("raw")});
    create_image(dir_.file("qcow2"), {.format = Format::qcow2, .size = export_size, .qcow2 = {.cluster_size = 4096}});
    OpenOptions options;
    options.writable = true;
    options.format = Format::qcow2;
    image_ = Image::open(dir_.file("qcow2"), options);
    const auto raw = std::make_shared<RawDisk>(FileStorage::open(dir_.file("raw"), true), RawOrigin::given);
    Exports exports;
    exports.add({"raw", "", std::make_shared<SliceDisk>(raw, GuestRange{GuestOffset(0), export_size}), false});
    exports.add(
        {"slice", "", std::make_shared<SliceDisk>(raw, GuestRange{GuestOffset(export_size), export_size}), false});
    exports.add({"qcow2", "", image_->disk(), false});
    server_ = std::make_unique<Server>(std::move(exports), ServerOptions{});
    server_->start();
  }

  test::TempDir dir_;
  std::shared_ptr<Image> image_;
  std::unique_ptr<Server> server_;
};

TEST_F(nbd_load, what_each_client_wrote_is_there_in_the_end) {
  std::vector<Bytes> expected(export_names.size(), Bytes(export_size));
  std::vector<std::string> failures(client_count);
  {
    std::vector<std::jthread> clients;
    for (size_t number = 0; number < client_count; ++number) {
      clients.emplace_back([&, number] {
        try {
          std::mt19937 random(static_cast<unsigned>(number));
          const uint64_t start = number * part_size;
          std::vector<std::unique_ptr<Part>> parts;
          const Framing framing = number % 2 == 0 ? Framing::structured : Framing::extended;
          for (const std::string& name : export_names) {
            parts.push_back(std::make_unique<Part>(*server_, name, start, framing));
          }
          for (int i = 0; i < steps; ++i) parts[random() % parts.size()]->step(random);
          for (size_t e = 0; e < parts.size(); ++e) {
            std::ranges::copy(parts[e]->content(), expected[e].begin() + static_cast<std::ptrdiff_t>(start));
          }
        } catch (const std::exception& error) {
          failures[number] = error.what();
        }
      });
    }
  }
  EXPECT_EQ(failures, std::vector<std::string>(client_count));
  for (size_t e = 0; e < export_names.size(); ++e) {
    RawClient reader(*server_);
    reader.go(export_names[e]);
    EXPECT_EQ(reader.read(0, export_size), expected[e]) << export_names[e];
  }
  server_->stop();
  server_->wait();
  image_->close();
  Bytes file = expected[0];
  file.insert(file.end(), expected[1].begin(), expected[1].end());
  EXPECT_EQ(test::read_file(dir_.file("raw")), file);
  Bytes read(export_size);
  Image::open(dir_.file("qcow2"), {})->disk()->read(GuestOffset(0), read);
  EXPECT_EQ(read, expected[2]);
}

}  // namespace
}  // namespace drydock::nbd
