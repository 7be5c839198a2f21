// SPDX-License-Identifier: GPL-3.0-or-later

#include "tests/interop/qemu_guest.h"

#include <algorithm>

#include "src/units.h"

namespace drydock::test {

using crash::StepKind;

crash::Step on_whole_clusters(crash::Step step, uint64_t cluster_size, uint64_t disk_size) {
  const uint64_t start = round_down(step.offset, cluster_size);
  const uint64_t end = std::min(disk_size, round_up(step.offset + std::max<uint64_t>(step.length, 1), cluster_size));
  step.offset = start;
  step.length = end - start;
  return step;
}

// QEMU refuses to compress over a cluster that has a place; so that goes first, where a discard can do it.
void QemuGuest::write(const crash::Step& step) {
  const std::vector<std::byte> contents = step.contents();
  model_.disk().write(step.offset, contents);
  const std::string file = dir_.file(fmt::format("contents-{}", step.number));
  write_file(file, contents);
  const bool compressed = step.kind == StepKind::write_compressed && can_discard();
  if (compressed) add(fmt::format("discard -q {} {}", step.offset, step.length));
  add(fmt::format("write -q {} -s {} {} {}", compressed ? "-c" : "", file, step.offset, step.length));
}

// In version 2 there is no cluster that reads as zeros above a backing file, and QEMU leaves alone what is there.
bool QemuGuest::can_discard() const {
  return configuration_.version >= 3 || configuration_.backing == crash::BackingKind::none;
}

void QemuGuest::discard(const crash::Step& step) {
  if (can_discard()) model_.disk().zero(step.offset, step.length);
  add(fmt::format("discard -q {} {}", step.offset, step.length));
}

bool QemuGuest::perform(const crash::Step& step) {
  switch (step.kind) {
    case StepKind::write:
    case StepKind::write_compressed:
      write(step);
      return true;
    case StepKind::zero:
      model_.disk().zero(step.offset, step.length);
      add(fmt::format("write -q -z {} {} {}", step.keep_space ? "" : "-u", step.offset, step.length));
      return true;
    case StepKind::discard:
      discard(step);
      return true;
    case StepKind::read:
      return true;
    case StepKind::flush:
      add("flush");
      return true;
    case StepKind::reopen:
      finish();
      return true;
    default:
      finish();
      return change_image(step);
  }
}

// Images of version 2 hold no bitmaps. Making a snapshot may be refused: for some images QEMU makes none, in others a
// count would not fit its bits.
bool QemuGuest::change_image(const crash::Step& step) {
  const std::string image = dir_.file("image");
  if (is_of_bitmap(step.kind) && configuration_.version < 3) return false;
  switch (step.kind) {
    case StepKind::create_snapshot:
      if (run({"qemu-img", "snapshot", "-c", step.name, image}).status != 0) return false;
      model_.create_snapshot(step.name);
      break;
    case StepKind::apply_snapshot:
      run_ok({"qemu-img", "snapshot", "-a", step.name, image});
      model_.apply_snapshot(step.name);
      break;
    case StepKind::delete_snapshot:
      run_ok({"qemu-img", "snapshot", "-d", step.name, image});
      model_.delete_snapshot(step.name);
      break;
    case StepKind::add_bitmap:
      run_ok({"qemu-img", "bitmap", "--add", step.enabled ? "--enable" : "--disable", "-g", std::to_string(step.length),
              image, step.name});
      model_.bitmaps().added(step.name, step.enabled, model_.disk());
      break;
    case StepKind::remove_bitmap:
      run_ok({"qemu-img", "bitmap", "--remove", image, step.name});
      model_.bitmaps().removed(step.name);
      break;
    case StepKind::clear_bitmap:
      run_ok({"qemu-img", "bitmap", "--clear", image, step.name});
      model_.bitmaps().cleared(step.name, model_.disk());
      break;
    case StepKind::enable_bitmap:
      run_ok({"qemu-img", "bitmap", "--enable", image, step.name});
      model_.bitmaps().enabled(step.name, model_.disk());
      break;
    case StepKind::disable_bitmap:
      run_ok({"qemu-img", "bitmap", "--disable", image, step.name});
      model_.bitmaps().disabled(step.name, model_.disk());
      break;
    case StepKind::merge_bitmap:
      run_ok({"qemu-img", "bitmap", "--merge", step.source, image, step.name});
      model_.bitmaps().merged(step.name, step.source, model_.disk());
      break;
    default:
      run_ok({"qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", image, std::to_string(step.length)});
      model_.resize(step.length);
  }
  model_.bitmaps().resized();
  model_.flushed();
  return true;
}

void QemuGuest::finish() {
  if (!commands_.empty()) {
    std::vector<std::string> argv{"qemu-io", "-f", "qcow2", "-d", "unmap"};
    for (const std::string& command : commands_) argv.insert(argv.end(), {"-c", command});
    argv.push_back(dir_.file("image"));
    run_ok(argv);
    commands_.clear();
  }
  model_.flushed();
}

}  // namespace drydock::test
