// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/crash/workload.h"

#include <algorithm>
#include <numeric>

#include "src/byteorder.h"
#include "tests/crash/crash_image.h"
#include "tests/crash/violation.h"

namespace drydock::crash {

namespace {

constexpr uint64_t largest_write = 256 << 10;  // bytes, unless a cluster is larger
constexpr size_t most_snapshots = 4;
constexpr size_t most_bitmaps = 3;

constexpr std::array<std::string_view, step_kind_count> kind_names{
    "write",          "write compressed", "zero",   "discard",    "read",          "flush",        "create snapshot",
    "apply snapshot", "delete snapshot",  "resize", "add bitmap", "remove bitmap", "clear bitmap", "enable bitmap",
    "disable bitmap", "merge bitmap",     "reopen"};

// How often each kind comes at most, against the others.
constexpr std::array<unsigned, step_kind_count> usual_weights{40, 8, 10, 14, 4, 14, 3, 2, 3, 3, 3, 1, 2, 2, 2, 2, 3};

// Kinds of Error by which an image says that it cannot do this at all.
bool is_refusal(const Error& error) {
  return error.kind() == ErrorKind::unsupported || error.kind() == ErrorKind::refused ||
         error.kind() == ErrorKind::usage;
}

}  // namespace

bool is_of_snapshot(StepKind kind) {
  return kind == StepKind::create_snapshot || kind == StepKind::apply_snapshot || kind == StepKind::delete_snapshot;
}

bool is_of_bitmap(StepKind kind) { return kind >= StepKind::add_bitmap && kind <= StepKind::merge_bitmap; }

std::string Step::describe() const {
  std::string text = fmt::format("{}: {}", number, kind_names[static_cast<size_t>(kind)]);
  if (kind == StepKind::merge_bitmap) return text + fmt::format(" {} into {}", source, name);
  if (kind == StepKind::add_bitmap) return text + fmt::format(" {}{}", name, enabled ? "" : ", disabled");
  if (is_of_snapshot(kind) || is_of_bitmap(kind)) return text + " " + name;
  if (kind == StepKind::flush || kind == StepKind::reopen) return text;
  if (kind == StepKind::resize) return text + fmt::format(" to {}", length);
  text += fmt::format(" {} bytes at {}", length, offset);
  if (keep_space) text += ", keeping the space";
  if (repetitive) text += ", repetitive";
  return text;
}

std::vector<std::byte> Step::contents() const {
  std::vector<std::byte> bytes;
  if (repetitive) {
    bytes.assign(length, static_cast<std::byte>(number));
  } else {
    bytes = test::random_bytes(number, length);
  }
  for (uint64_t sector = divide_up(offset, sector_size); (sector + 1) * sector_size <= offset + length; ++sector) {
    store_le<uint64_t>(bytes, sector * sector_size - offset, (uint64_t{number} << 32) | sector);
  }
  return bytes;
}

StepSource::StepSource(const Configuration& configuration, Random random, uint32_t first)
    : configuration_(configuration), random_(random), next_number_(first) {
  for (size_t kind = 0; kind < weights_.size(); ++kind) {
    weights_[kind] = static_cast<unsigned>(random_.below(usual_weights[kind] + 1));
  }
  if (configuration.data_file != DataFileKind::none) {
    weights_[static_cast<size_t>(StepKind::write_compressed)] = 0;  // these have their clusters in the image alone
  }
  weights_[static_cast<size_t>(StepKind::write)] += 10;
  weights_[static_cast<size_t>(StepKind::flush)] += 1;
}

StepKind StepSource::random_kind() {
  uint64_t choice = random_.below(std::accumulate(weights_.begin(), weights_.end(), 0U));
  size_t kind = 0;
  while (choice >= weights_[kind]) choice -= weights_[kind++];
  return static_cast<StepKind>(kind);
}

Step StepSource::next(const GuestModel& model) {
  Step step{.kind = random_kind(), .number = next_number_++};
  if (is_of_snapshot(step.kind)) {
    name_snapshot(step, model);
  } else if (is_of_bitmap(step.kind)) {
    name_bitmap(step, model);
  } else if (step.kind == StepKind::resize) {
    step.length = random_new_size(model.disk().size());
  } else if (step.kind == StepKind::write_compressed) {
    place_compressed(step, model.disk().size());
  } else {
    place(step, model.disk().size());
  }
  if (step.kind == StepKind::zero) step.keep_space = random_.chance(40);
  if (step.kind == StepKind::write) step.repetitive = random_.chance(50);
  if (step.kind == StepKind::write_compressed) step.repetitive = random_.chance(85);
  return step;
}

uint64_t StepSource::random_length() {
  const uint64_t cluster = configuration_.cluster_size();
  const uint64_t most = std::max(largest_write, cluster);
  switch (random_.below(6)) {
    case 0:
      return random_.between(1, 2000);
    case 1:
      return 512 * random_.between(1, 32);
    case 2:
      return 4096 * random_.between(1, 8);
    case 3:
    case 4:
      return std::min(most, cluster * random_.between(1, 20));
    default:
      return random_.between(1, most);
  }
}

void StepSource::place(Step& step, uint64_t disk_size) {
  step.length = std::min(random_length(), disk_size);
  const uint64_t room = disk_size - step.length;
  const uint64_t alignment = random_.pick({uint64_t{1}, uint64_t{512}, uint64_t{4096}, configuration_.cluster_size()});
  // The first stretch oftener, so that steps meet each other.
  const uint64_t limit =
      random_.chance(60) ? std::min(room, std::max(largest_write, 4 * configuration_.cluster_size())) : room;
  step.offset = round_down(random_.between(0, limit), alignment);
  if (random_.chance(5)) step.offset = room;
  if (random_.chance(2) && step.kind != StepKind::write) step.offset = 0, step.length = disk_size;
}

void StepSource::place_compressed(Step& step, uint64_t disk_size) {
  const uint64_t cluster = configuration_.cluster_size();
  const uint64_t clusters = disk_size / cluster;
  if (clusters == 0) {
    step.kind = StepKind::write;
    return place(step, disk_size);
  }
  const uint64_t count = std::min(clusters, random_.between(1, std::max<uint64_t>(1, largest_write / cluster / 4)));
  step.length = count * cluster;
  step.offset = random_.between(0, clusters - count) * cluster;
}

uint64_t StepSource::random_new_size(uint64_t disk_size) {
  const uint64_t unit = random_.chance(50) ? configuration_.cluster_size() : 512;
  const uint64_t change = random_.between(1, 40) * unit;
  if (random_.chance(50) && change < disk_size) return round_up(disk_size - change, 512);
  const uint64_t most = 2 * configuration_.disk_size + configuration_.cluster_size();
  if (random_.chance(10)) return std::max(disk_size, most);
  return std::max(disk_size, std::min(disk_size + change, most));
}

void StepSource::name_snapshot(Step& step, const GuestModel& model) {
  const std::vector<std::string> names = model.snapshot_names();
  if (names.empty()) step.kind = StepKind::create_snapshot;
  if (step.kind == StepKind::create_snapshot && names.size() >= most_snapshots) step.kind = StepKind::delete_snapshot;
  step.name = step.kind == StepKind::create_snapshot ? fmt::format("at-step-{}", step.number)
                                                     : names[random_.below(names.size())];
}

void StepSource::name_bitmap(Step& step, const GuestModel& model) {
  const std::vector<std::string> names = model.bitmaps().names();
  if (names.empty()) step.kind = StepKind::add_bitmap;
  if (step.kind == StepKind::add_bitmap && names.size() >= most_bitmaps) step.kind = StepKind::remove_bitmap;
  if (step.kind == StepKind::add_bitmap) {
    step.name = fmt::format("since-step-{}", step.number);
    step.length = uint64_t{512} << random_.below(9);
    step.enabled = random_.chance(70);
    return;
  }
  step.name = names[random_.below(names.size())];
  step.source = names[random_.below(names.size())];
}

size_t Guest::snapshot_index(const std::string& name) const {
  const auto& snapshots = image_->snapshots();
  const auto found = std::ranges::find(snapshots, name, &SnapshotInfo::name);
  if (found == snapshots.end()) throw Violation("there is no snapshot " + name);
  return static_cast<size_t>(found - snapshots.begin());
}

void Guest::change_snapshots(const Step& step) {
  switch (step.kind) {
    case StepKind::create_snapshot:
      model_.create_snapshot(step.name);
      return image_->create_snapshot(step.name);
    case StepKind::apply_snapshot:
      model_.apply_snapshot(step.name);
      image_->apply_snapshot(snapshot_index(step.name));
      return model_.bitmaps().resized();
    default:
      model_.delete_snapshot(step.name);
      return image_->delete_snapshot(snapshot_index(step.name));
  }
}

void Guest::change_bitmaps(const Step& step) {
  BitmapModel& bitmaps = model_.bitmaps();
  bitmaps.touching(step.name);
  switch (step.kind) {
    case StepKind::add_bitmap:
      image_->add_bitmap(step.name, step.length, step.enabled);
      return bitmaps.added(step.name, step.enabled, model_.disk());
    case StepKind::remove_bitmap:
      image_->remove_bitmap(step.name);
      return bitmaps.removed(step.name);
    case StepKind::clear_bitmap:
      image_->clear_bitmap(step.name);
      return bitmaps.cleared(step.name, model_.disk());
    case StepKind::enable_bitmap:
      image_->enable_bitmap(step.name);
      return bitmaps.enabled(step.name, model_.disk());
    case StepKind::disable_bitmap:
      image_->disable_bitmap(step.name);
      return bitmaps.disabled(step.name, model_.disk());
    default:
      image_->merge_bitmap(step.name, *image_, step.source);
      return bitmaps.merged(step.name, step.source, model_.disk());
  }
}

void Guest::perform_or_refuse(const Step& step) {
  const GuestModel before = model_;
  try {
    if (step.kind == StepKind::resize) {
      model_.resize(step.length);
      image_->resize(step.length, Preallocation::off);
      model_.bitmaps().resized();
    } else if (is_of_bitmap(step.kind)) {
      change_bitmaps(step);
    } else {
      change_snapshots(step);
    }
  } catch (const Error& error) {
    const bool bitmaps_cannot_follow =
        step.kind == StepKind::resize && error.kind() == ErrorKind::invalid && !before.bitmaps().empty();
    if (!is_refusal(error) && !bitmaps_cannot_follow) throw;
    model_ = before;
    ++refused_;
  }
}

void Guest::perform(const Step& step) {
  const Image& image = *image_;  // its disk is held by nobody when it is closed
  const GuestOffset offset(step.offset);
  switch (step.kind) {
    case StepKind::write:
    case StepKind::write_compressed: {
      const std::vector<std::byte> contents = step.contents();
      model_.disk().write(step.offset, contents);
      if (step.kind == StepKind::write) return image.disk()->write(offset, contents);
      return image.disk()->write_compressed(offset, contents);
    }
    case StepKind::zero:
      model_.disk().zero(step.offset, step.length);
      return image.disk()->zero({offset, step.length}, step.keep_space);
    case StepKind::discard:
      model_.disk().begin_discard(step.offset, step.length);
      image.disk()->discard({offset, step.length});
      return model_.disk().end_discard(*image.disk());
    case StepKind::read: {
      std::vector<std::byte> found(step.length);
      image.disk()->read(offset, found);
      const auto expected = model_.disk().now().subspan(step.offset, step.length);
      if (!std::ranges::equal(found, expected)) throw Violation("step " + step.describe() + ": reads wrong bytes");
      return;
    }
    case StepKind::flush:
      image.disk()->flush();
      return model_.flushed();
    case StepKind::create_snapshot:
    case StepKind::apply_snapshot:
    case StepKind::delete_snapshot:
    case StepKind::resize:
    case StepKind::add_bitmap:
    case StepKind::remove_bitmap:
    case StepKind::clear_bitmap:
    case StepKind::enable_bitmap:
    case StepKind::disable_bitmap:
    case StepKind::merge_bitmap:
      return perform_or_refuse(step);
    case StepKind::reopen:
      close();
      return open_again();
  }
}

void Guest::open_again() {
  if (!image_) image_ = open_();
}

void Guest::close() {
  image_->close();
  model_.flushed();
  model_.bitmaps().resized();
  image_.reset();
}

}  // namespace drydock::crash
