// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/image_info.h"

#include <array>
#include <ctime>

#include "src/error.h"
#include "src/human_size.h"
#include "src/qcow2/bitmap_directory.h"
#include "src/qcow2/qcow2_image.h"

namespace drydock::cli {

namespace {

using nlohmann::json;

const qcow2::Qcow2Image* as_qcow2(const Image& image) { return dynamic_cast<const qcow2::Qcow2Image*>(&image); }

std::vector<std::string> bitmap_flags(const BitmapInfo& bitmap) {
  std::vector<std::string> flags;
  if (bitmap.in_use) flags.emplace_back("in-use");
  if (bitmap.automatic) flags.emplace_back("auto");
  return flags;
}

std::string compression_name(const qcow2::Header& header) {
  return header.compression == qcow2::CompressionType::zstd ? "zstd" : "zlib";
}

const char* crypt_format(const qcow2::Header& header) {
  return header.crypt_method == qcow2::CryptMethod::luks ? "luks" : "aes";
}

json list_of(const std::vector<BitmapInfo>& bitmaps) {
  json list = json::array();
  for (const BitmapInfo& bitmap : bitmaps) {
    list.push_back({{"name", bitmap.name}, {"granularity", bitmap.granularity}, {"flags", bitmap_flags(bitmap)}});
  }
  return list;
}

json qcow2_specific_json(const qcow2::Qcow2Image& image) {
  const qcow2::Header& header = image.header();
  json data{{"compat", header.version == 2 ? "0.10" : "1.1"},
            {"compression-type", compression_name(header)},
            {"refcount-bits", header.refcount_bits()}};
  if (json bitmaps = list_of(qcow2::read_bitmap_directory(image.storage(), header)); !bitmaps.empty()) {
    data["bitmaps"] = std::move(bitmaps);
  }
  if (header.crypt_method != qcow2::CryptMethod::none) data["encrypt"] = {{"format", crypt_format(header)}};
  if (header.version >= 3) {
    data["lazy-refcounts"] = (header.compatible_features & qcow2::compatible::lazy_refcounts) != 0;
    data["corrupt"] = header.is(qcow2::incompatible::corrupt);
    data["extended-l2"] = header.extended_l2();
  }
  if (header.has_data_file()) {
    if (header.data_file) data["data-file"] = *header.data_file;
    data["data-file-raw"] = header.data_file_raw();
  }
  return {{"type", "qcow2"}, {"data", data}};
}

json snapshot_json(const SnapshotInfo& snapshot) {
  json result{{"id", snapshot.id},
              {"name", snapshot.name},
              {"vm-state-size", snapshot.vm_state_size},
              {"date-sec", snapshot.date_seconds},
              {"date-nsec", snapshot.date_nanoseconds},
              {"vm-clock-sec", snapshot.vm_clock_nanoseconds / 1'000'000'000},
              {"vm-clock-nsec", snapshot.vm_clock_nanoseconds % 1'000'000'000}};
  if (snapshot.instruction_count) result["icount"] = *snapshot.instruction_count;
  return result;
}

std::string date_text(uint32_t seconds) {
  const std::time_t time = seconds;
  std::tm local{};
  localtime_r(&time, &local);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &local);
  return text.data();
}

std::string clock_text(uint64_t nanoseconds) {
  const uint64_t seconds = nanoseconds / 1'000'000'000;
  return fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60,
                     nanoseconds / 1'000'000 % 1000);
}

std::string bitmaps_text(const qcow2::Qcow2Image& image) {
  const auto bitmaps = qcow2::read_bitmap_directory(image.storage(), image.header());
  std::string text = bitmaps.empty() ? "" : "    bitmaps:\n";
  for (size_t i = 0; i < bitmaps.size(); ++i) {
    const auto flags = bitmap_flags(bitmaps[i]);
    text += fmt::format("        [{}]:\n            flags:\n", i);
    for (size_t j = 0; j < flags.size(); ++j) text += fmt::format("                [{}]: {}\n", j, flags[j]);
    text += fmt::format("            name: {}\n            granularity: {}\n", printable(bitmaps[i].name),
                        bitmaps[i].granularity);
  }
  return text;
}

std::string qcow2_specific_text(const qcow2::Qcow2Image& image) {
  const qcow2::Header& header = image.header();
  const auto yes_no = [](bool value) { return value ? "true" : "false"; };
  std::string text = "Format specific information:\n";
  text += fmt::format("    compat: {}\n    compression type: {}\n", header.version == 2 ? "0.10" : "1.1",
                      compression_name(header));
  if (header.version >= 3) {
    text += fmt::format("    lazy refcounts: {}\n",
                        yes_no((header.compatible_features & qcow2::compatible::lazy_refcounts) != 0));
  }
  text += bitmaps_text(image);
  text += fmt::format("    refcount bits: {}\n", header.refcount_bits());
  if (header.crypt_method != qcow2::CryptMethod::none) {
    text += fmt::format("    encrypt:\n        format: {}\n", crypt_format(header));
  }
  if (header.has_data_file()) {
    if (header.data_file) text += fmt::format("    data file: {}\n", printable(*header.data_file));
    text += fmt::format("    data file raw: {}\n", yes_no(header.data_file_raw()));
  }
  if (header.version >= 3) {
    text += fmt::format("    corrupt: {}\n    extended l2: {}\n", yes_no(header.is(qcow2::incompatible::corrupt)),
                        yes_no(header.extended_l2()));
  }
  return text;
}

// By bytes, as qemu-img counts them, and not by the width that they have on a terminal.
std::string padded(std::string text, size_t bytes) {
  text.resize(std::max(text.size(), bytes), ' ');
  return text;
}

}  // namespace

std::string snapshot_list_text(const std::vector<SnapshotInfo>& snapshots) {
  std::string text =
      fmt::format("{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const SnapshotInfo& snapshot : snapshots) {
    text += fmt::format("{} {} {:>8}{:>20}{:>13}{:>11}\n", padded(printable(snapshot.id), 9),
                        padded(printable(snapshot.name), 16), human_size(snapshot.vm_state_size),
                        date_text(snapshot.date_seconds), clock_text(snapshot.vm_clock_nanoseconds),
                        snapshot.instruction_count ? std::to_string(*snapshot.instruction_count) : "");
  }
  return text;
}

json bitmaps_json(const Image& image) { return list_of(image.bitmaps()); }

json image_info_json(const Image& image) {
  json result{{"filename", image.path()}, {"format", image.driver()}, {"virtual-size", image.virtual_size()}};
  const bool measurable = image.storage().tells_allocated_size();
  if (measurable) result["actual-size"] = image.storage().allocated_size();
  if (measurable || as_qcow2(image) != nullptr) result["dirty-flag"] = false;
  for (const SnapshotInfo& snapshot : image.snapshots()) result["snapshots"].push_back(snapshot_json(snapshot));
  if (const auto* qcow2_image = as_qcow2(image)) {
    const qcow2::Header& header = qcow2_image->header();
    result["cluster-size"] = header.cluster_size();
    result["dirty-flag"] = header.is(qcow2::incompatible::dirty);
    if (header.crypt_method != qcow2::CryptMethod::none) result["encrypted"] = true;
    if (header.backing_file) {
      result["backing-filename"] = *header.backing_file;
      result["full-backing-filename"] = resolve_name({*header.backing_file, image.path(), FileRole::backing_file});
    }
    if (header.backing_format) result["backing-filename-format"] = *header.backing_format;
    result["format-specific"] = qcow2_specific_json(*qcow2_image);
  }
  return result;
}

std::string image_info_text(const Image& image) {
  std::string text = fmt::format(
      "image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n", printable(image.path()),
      image.driver(), human_size(image.virtual_size()), image.virtual_size(),
      image.storage().tells_allocated_size() ? human_size(image.storage().allocated_size()) : "unavailable");
  const auto* qcow2_image = as_qcow2(image);
  if (qcow2_image == nullptr) return text;

  const qcow2::Header& header = qcow2_image->header();
  if (header.crypt_method != qcow2::CryptMethod::none) text += "encrypted: yes\n";
  text += fmt::format("cluster_size: {}\n", header.cluster_size());
  if (header.is(qcow2::incompatible::dirty)) text += "cleanly shut down: no\n";
  if (header.backing_file) {
    const std::string actual = resolve_name({*header.backing_file, image.path(), FileRole::backing_file});
    text += fmt::format("backing file: {}", printable(*header.backing_file));
    if (actual != *header.backing_file) text += fmt::format(" (actual path: {})", printable(actual));
    text += '\n';
    if (header.backing_format) text += fmt::format("backing file format: {}\n", printable(*header.backing_format));
  }
  if (!image.snapshots().empty()) text += "Snapshot list:\n" + snapshot_list_text(image.snapshots());
  return text + qcow2_specific_text(*qcow2_image);
}

}  // namespace drydock::cli
