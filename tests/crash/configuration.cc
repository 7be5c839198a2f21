// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/configuration.h"

#include <algorithm>
#include <ostream>

#include "src/qcow2/create.h"

namespace drydock::crash {

namespace {

constexpr uint64_t largest_disk = 12 << 20;  // bytes; a larger one shows nothing new and takes longer

// Hands out what it was given, whatever the names are.
class FixedGate final : public OpenGate {
 public:
  FixedGate(std::shared_ptr<Storage> data, std::shared_ptr<Storage> backing)
      : data_(std::move(data)), backing_(std::move(backing)) {}

  std::shared_ptr<Storage> open(const FileReference& reference, bool) const override {
    const auto& storage = reference.role == FileRole::data_file ? data_ : backing_;
    if (storage == nullptr) throw Error(ErrorKind::not_found, reference.name + " is not part of this test");
    return storage;
  }

 private:
  std::shared_ptr<Storage> data_;
  std::shared_ptr<Storage> backing_;
};

uint32_t random_cluster_bits(Random& random) {
  if (random.chance(40)) return 9;
  if (random.chance(50)) return static_cast<uint32_t>(random.between(10, 12));
  if (random.chance(75)) return static_cast<uint32_t>(random.between(13, 16));
  return static_cast<uint32_t>(random.between(17, 21));
}

uint64_t random_disk_size(Random& random, uint64_t cluster_size) {
  const uint64_t clusters = random.chance(25) ? random.between(500, 6000) : random.between(8, 300);
  const uint64_t size = std::min(clusters * cluster_size, largest_disk + random.below(8) * cluster_size);
  const uint64_t odd = random.chance(30) ? random.below(cluster_size / 512) * 512 : 0;
  return size - odd;
}

void choose_version_3_features(Configuration& configuration, Random& random) {
  if (random.chance(50)) configuration.refcount_bits = 1U << random.below(7);
  configuration.lazy_refcounts = random.chance(25);
  configuration.zstd = random.chance(40);
  configuration.extended_l2 = configuration.cluster_bits >= 14 && random.chance(40);
  if (random.chance(20)) configuration.data_file = random.pick({DataFileKind::plain, DataFileKind::raw});
}

// Any bytes; each stretch of zeros or of nothing that a workload leaves must show through.
std::vector<std::byte> backing_bytes(const Configuration& configuration) {
  const uint64_t size = configuration.backing == BackingKind::raw_shorter
                            ? round_up(configuration.disk_size / 2, 512) + 512
                            : configuration.disk_size + 65536;
  std::vector<std::byte> bytes = test::random_bytes(size, size);
  std::ranges::fill(std::span(bytes).subspan(size / 3, size / 8), std::byte{0});
  return bytes;
}

std::shared_ptr<MemoryStorage> make_backing(const Configuration& configuration,
                                            const std::vector<std::byte>& contents) {
  if (configuration.backing != BackingKind::qcow2) return std::make_shared<MemoryStorage>(contents, "base", false);
  const auto storage = std::make_shared<MemoryStorage>(std::vector<std::byte>{}, "base");
  qcow2::create(*storage, {.size = contents.size(), .cluster_size = 4096});
  const auto image = Image::open(storage, {.format = Format::qcow2, .writable = true});
  image->disk()->write(GuestOffset(0), contents);
  image->close();
  return std::make_shared<MemoryStorage>(bytes_of(*storage), "base", false);
}

std::string_view format_of_backing(const Configuration& configuration) {
  return configuration.backing == BackingKind::qcow2 ? "qcow2" : "raw";
}

qcow2::CreateOptions create_options_of(const Configuration& configuration, const test::TempDir& dir) {
  qcow2::CreateOptions options{.size = configuration.disk_size,
                               .version = configuration.version,
                               .cluster_size = configuration.cluster_size(),
                               .extended_l2 = configuration.extended_l2,
                               .lazy_refcounts = configuration.lazy_refcounts,
                               .refcount_bits = configuration.refcount_bits};
  if (configuration.zstd) options.compression = qcow2::CompressionType::zstd;
  if (configuration.preallocated) options.preallocation = Preallocation::metadata;
  if (configuration.backing != BackingKind::none) {
    options.backing_file = "base";
    options.backing_format = format_of_backing(configuration);
  }
  if (configuration.data_file != DataFileKind::none) options.data_file = dir.file("data");
  options.data_file_raw = configuration.data_file == DataFileKind::raw;
  return options;
}

void create_by_qemu(const Configuration& configuration, const test::TempDir& dir) {
  std::string options = configuration.create_options();
  std::vector<std::string> words{"qemu-img", "create", "-q", "-f", "qcow2"};
  if (configuration.backing != BackingKind::none) {
    words.insert(words.end(), {"-b", "base", "-F", std::string(format_of_backing(configuration))});
  }
  if (configuration.data_file != DataFileKind::none) options += ",data_file=" + dir.file("data");
  words.insert(words.end(), {"-o", options, dir.file("image"), std::to_string(configuration.disk_size)});
  test::run_ok(words);
}

}  // namespace

std::string Configuration::create_options() const {
  std::string options = fmt::format("compat={},cluster_size={}", version == 2 ? "0.10" : "1.1", cluster_size());
  if (refcount_bits != 16) options += fmt::format(",refcount_bits={}", refcount_bits);
  if (extended_l2) options += ",extended_l2=on";
  if (preallocated) options += ",preallocation=metadata";
  if (lazy_refcounts) options += ",lazy_refcounts=on";
  if (zstd) options += ",compression_type=zstd";
  if (data_file == DataFileKind::raw) options += ",data_file_raw=on";
  return options;
}

std::string Configuration::describe() const {
  static constexpr std::string_view backings[]{"", "raw, shorter", "raw, longer", "qcow2"};
  std::string text = fmt::format("{} bytes, {}", disk_size, create_options());
  if (data_file != DataFileKind::none) text += ", data file";
  if (backing != BackingKind::none) text += fmt::format(", backing file ({})", backings[static_cast<size_t>(backing)]);
  if (made_by_qemu) text += ", made by qemu-img";
  if (discard_keeps_place) text += ", discard keeps the place";
  if (discard_reads == DiscardReads::as_before) text += ", holes read as before";
  return text + fmt::format(", cache {}", cache_size);
}

std::ostream& operator<<(std::ostream& out, const Configuration& configuration) {
  return out << configuration.describe();
}

Configuration random_configuration(Random& random) {
  Configuration configuration;
  configuration.cluster_bits = random_cluster_bits(random);
  configuration.disk_size = random_disk_size(random, configuration.cluster_size());
  configuration.version = random.chance(15) ? 2 : 3;
  if (configuration.version == 3) choose_version_3_features(configuration, random);
  if (configuration.data_file != DataFileKind::raw && random.chance(40)) {
    configuration.backing = random.pick({BackingKind::raw_shorter, BackingKind::raw_longer, BackingKind::qcow2});
  }
  configuration.preallocated = configuration.backing == BackingKind::none && random.chance(10);
  configuration.made_by_qemu = random.chance(20);
  configuration.discard_keeps_place = random.chance(25);
  configuration.discard_reads = random.pick({DiscardReads::zeros, DiscardReads::as_before});
  configuration.cache_size = random.chance(70) ? min_metadata_cache_size : default_metadata_cache_size;
  return configuration;
}

std::vector<std::byte> bytes_of(const Storage& storage) {
  std::vector<std::byte> bytes(storage.size());
  storage.read(HostOffset(0), bytes);
  return bytes;
}

std::vector<std::byte> Files::empty_disk(const Configuration& configuration) const {
  std::vector<std::byte> contents = backing_contents;
  contents.resize(configuration.disk_size);
  return contents;
}

Files make_files(const Configuration& configuration, const test::TempDir& dir) {
  Files files;
  if (configuration.backing != BackingKind::none) {
    files.backing_contents = backing_bytes(configuration);
    files.backing = make_backing(configuration, files.backing_contents);
    test::write_file(dir.file("base"), bytes_of(*files.backing));
  }
  if (configuration.made_by_qemu) {
    create_by_qemu(configuration, dir);
    files.image = test::read_file(dir.file("image"));
    if (configuration.data_file != DataFileKind::none) files.data = test::read_file(dir.file("data"));
    return files;
  }
  MemoryStorage image({}, dir.file("image"));
  MemoryStorage data({}, dir.file("data"));
  const bool has_data = configuration.data_file != DataFileKind::none;
  qcow2::create(image, create_options_of(configuration, dir), has_data ? &data : nullptr);
  files.image = bytes_of(image);
  files.data = bytes_of(data);
  test::write_file(dir.file("image"), files.image);
  if (has_data) test::write_file(dir.file("data"), files.data);
  return files;
}

OpenOptions open_options(const Configuration& configuration, std::shared_ptr<Storage> data,
                         std::shared_ptr<Storage> backing, bool writable) {
  OpenOptions options;
  options.format = Format::qcow2;
  options.writable = writable;
  options.discard_keeps_place = configuration.discard_keeps_place;
  options.metadata_cache_size = configuration.cache_size;
  options.gate = std::make_shared<FixedGate>(std::move(data), std::move(backing));
  return options;
}

}  // namespace drydock::crash
