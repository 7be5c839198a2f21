// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/copy/copy_disk.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "src/copy/kernel_copy.h"
#include "src/copy/parallel.h"
#include "src/copy/rate_limit.h"
#include "src/copy/salvage.h"
#include "src/copy/work_feed.h"
#include "src/copy/zeros.h"
#include "src/error.h"
#include "src/units.h"

namespace drydock {

namespace {

constexpr uint64_t page_size = 4096;
// Small enough for a processor's own cache, which the bytes pass through twice.
constexpr uint64_t data_chunk = 1 << 20;
constexpr uint64_t compressed_chunk = 64 << 10;

class Copy {
 public:
  Copy(const Disk& source, Disk& target, const CopyOptions& options)
      : source_(source),
        target_(target),
        options_(options),
        zero_rule_(zero_rule(options)),
        inherited_(round_down(options.backing_size.value_or(0), options.alignment)),
        limit_(options.bytes_per_second),
        reader_(source, options.unreadable),
        kernel_(options.plain_target, options.copy_in_kernel || options.sparse_size == 0),
        feed_(
            source, [this](const Extent& extent) { return classify(extent); }, shape(options, inherited_)) {}

  void run() {
    const unsigned threads = options_.threads == 0 ? default_threads() : options_.threads;
    run_in_parallel(threads, [this](const std::atomic<bool>& stop) { work(stop); });
  }

 private:
  static ZeroRule zero_rule(const CopyOptions& options) {
    const uint64_t unit = options.sparse_size < page_size ? sector_size : page_size;
    return {.unit = std::max(unit, options.alignment), .shortest = options.sparse_size};
  }

  // Compressed data is written by whole clusters, few at a time, so that they come to lie in order.
  static WorkFeed::Shape shape(const CopyOptions& options, uint64_t inherited) {
    const uint64_t chunk = options.compressed ? compressed_chunk : data_chunk;
    return {.alignment = options.alignment, .data_chunk = std::max(chunk, options.alignment), .border = inherited};
  }

  bool keeps_zeros_unwritten() const { return options_.sparse_size > 0; }

  WorkKind classify(const Extent& extent) const {
    if (extent.range.start.value() < inherited_ && extent.depth > 0) return WorkKind::skip;
    if (!extent.zero || !keeps_zeros_unwritten()) return WorkKind::data;
    return options_.target_is_zero && !options_.backing_size ? WorkKind::skip : WorkKind::zero;
  }

  void work(const std::atomic<bool>& stop) {
    std::vector<std::byte> buffer;
    while (!stop) {
      const std::optional<Work> piece = feed_.next();
      if (!piece) return;
      if (piece->kind == WorkKind::zero) zero(piece->range);
      if (piece->kind == WorkKind::data) {
        const auto go_on = [&] {
          options_.advance(0);
          return !stop;
        };
        if (!limit_.take(piece->range.length, go_on)) return;
        copy(piece->range, buffer);
      }
      options_.advance(piece->range.length);
    }
  }

  void copy(GuestRange range, std::vector<std::byte>& buffer) {
    if (!options_.compressed && kernel_.usable()) {
      range = copy_in_kernel(range);
      if (range.length == 0) return;
    }
    buffer.resize(std::max<size_t>(buffer.size(), range.length));
    const std::span<std::byte> bytes = std::span(buffer).first(range.length);
    reader_.read(range.start, bytes);
    if (!keeps_zeros_unwritten()) return write(range.start, bytes);
    for_each_run(bytes, zero_rule_, [&](size_t offset, size_t length, bool is_zero) {
      const GuestRange part{range.start + offset, length};
      if (!is_zero) {
        write(part.start, bytes.subspan(offset, length));
      } else if (!options_.target_is_zero || options_.backing_size) {
        zero(part);
      }
    });
  }

  // Returns what is left to do in the ordinary way.
  GuestRange copy_in_kernel(GuestRange range) {
    while (range.length > 0) {
      const Extent extent = source_.map(range, 1).front();
      const uint64_t done = extent.file != nullptr && extent.data ? kernel_.copy(extent) : 0;
      if (done == 0) break;
      range = {range.start + done, range.length - done};
    }
    return range;
  }

  void write(GuestOffset offset, std::span<const std::byte> bytes) try {
    if (options_.compressed) {
      target_.write_compressed(offset, bytes);
    } else {
      target_.write(offset, bytes);
    }
  } catch (const Error& error) {
    throw error.within(fmt::format("error while writing at byte {}", offset.value()));
  }

  void zero(GuestRange range) try { target_.zero(range, false); } catch (const Error& error) {
    throw error.within(fmt::format("error while writing at byte {}", range.start.value()));
  }

  const Disk& source_;
  Disk& target_;
  const CopyOptions& options_;
  ZeroRule zero_rule_;
  uint64_t
      inherited_;  // bytes from the start on that the target has from its backing disk, where it has none of its own
  RateLimit limit_;
  SalvagingReader reader_;
  KernelCopy kernel_;
  WorkFeed feed_;
};

}  // namespace

void copy_disk(const Disk& source, Disk& target, const CopyOptions& options) {
  if (target.size() < source.size()) {
    throw Error(ErrorKind::out_of_range, "output file is smaller than input file");
  }
  Copy(source, target, options).run();
}

}  // namespace drydock
