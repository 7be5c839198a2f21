// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock bench: many equal requests to an image's disk, several at a time, and how long they took; as qemu-img bench.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>

#include "src/error.h"
#include "tools/cache_mode.h"
#include "tools/commands.h"
#include "tools/image_words.h"
#include "tools/output_format.h"
#include "tools/qemu_json.h"
#include "tools/size_argument.h"

namespace drydock::cli {

namespace {

constexpr uint64_t max_request = 1 << 30;  // bytes
constexpr uint64_t max_depth = 1024;

struct Plan {
  bool write = false;
  uint64_t count = 75000;
  uint64_t depth = 64;
  uint64_t bytes = 4096;
  uint64_t step = 4096;
  uint64_t offset = 0;
  uint64_t flush_interval = 0;  // requests; 0: no flushes
  std::byte pattern{0};
};

uint64_t number(const ParsedOptions& options, std::string_view name, uint64_t otherwise, uint64_t most) {
  const auto text = options.value(name);
  if (!text) return otherwise;
  const uint64_t value = parse_size(*text, name);
  if (value > most) usage_error(fmt::format("Invalid {} specified: at most {} is possible", name, most));
  return value;
}

uint64_t whole_number(const ParsedOptions& options, std::string_view name, uint64_t otherwise, uint64_t most) {
  const auto text = options.value(name);
  if (!text) return otherwise;
  const SizeArgument value = read_number(*text);
  if (value.problem == SizeArgument::Problem::none && value.bytes <= most) return value.bytes;
  throw Error(ErrorKind::invalid,
              fmt::format("Invalid {} specified", name == "count" ? "request count" : "queue depth"));
}

// How qemu-img waits for the kernel is no business of ours, but its scripts are to fail where they fail with it.
void check_aio(const Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  const std::string aio = options.value("i").value_or("threads");
  if (aio != "threads" && aio != "native" && aio != "io_uring") {
    throw Error(ErrorKind::invalid, fmt::format("Invalid aio option: {}", printable(aio)));
  }
  const std::string cache = options.value("t").value_or("writeback");
  const bool native = aio == "native" || options.has("native");
  if (invocation.as_incumbent && native && cache != "none" && cache != "directsync") {
    throw Error(ErrorKind::invalid,
                fmt::format("Could not open '{}': aio=native was specified, but it requires cache.direct=on, which was "
                            "not specified.",
                            printable(invocation.arguments[0])));
  }
}

Plan parse_plan(const ParsedOptions& options) {
  Plan plan;
  plan.write = options.has("write");
  plan.count = whole_number(options, "count", plan.count, INT32_MAX);
  plan.depth = whole_number(options, "depth", plan.depth, max_depth);
  plan.bytes = number(options, "buffer-size", plan.bytes, max_request);
  plan.step = number(options, "step-size", 0, INT64_MAX);
  if (plan.step == 0) plan.step = plan.bytes;
  plan.offset = number(options, "offset", 0, INT64_MAX);
  plan.flush_interval = number(options, "flush-interval", 0, INT64_MAX);
  plan.pattern = static_cast<std::byte>(number(options, "pattern", 0, 255));
  if (plan.depth == 0) usage_error("depth must be at least 1");
  const auto distance = checked_mul(plan.count, plan.step);
  if (!distance || !checked_add(*distance, plan.offset)) usage_error("so many steps go too far");
  if (plan.flush_interval > 0 && !plan.write) usage_error("--flush-interval is only available in write tests");
  if (plan.flush_interval > 0 && plan.flush_interval < plan.depth) {
    usage_error("Flush interval can't be smaller than depth");
  }
  return plan;
}

// Where request `index` goes: on from the offset by steps, around the disk's end; one that would reach past it ends
// there. So requests stay as aligned as offset and step are, and go where qemu-img bench's go.
GuestOffset place_of(const Plan& plan, uint64_t index, uint64_t disk_size) {
  return GuestOffset(std::min((index * plan.step + plan.offset) % disk_size, disk_size - plan.bytes));
}

// Sends a plan's requests. They are synchronous, so that as many threads as there may be requests under way could share
// them; but threads that write one file wait for each other in the kernel, and switching costs more than a write into
// the page cache takes. So more threads come only where requests take long, up to a few for each processor.
class Run {
 public:
  Run(Disk& disk, const Plan& plan) : disk_(disk), plan_(plan) {
    const uint64_t processors = std::max(1U, std::thread::hardware_concurrency());
    most_threads_ = std::min(plan.depth, 2 * processors);
    if (!plan.write) {
      for (uint64_t i = 1; i < std::min(plan.depth, processors); ++i) add_thread();
    }
  }

  void finish() {
    work();
    for (size_t i = 0;; ++i) {  // while they run, threads may add others
      std::jthread thread;
      {
        const std::lock_guard lock(mutex_);
        if (i == others_.size()) break;
        thread = std::move(others_[i]);
      }
      thread.join();
    }
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static constexpr uint64_t sample = 32;                          // requests
  static constexpr std::chrono::microseconds worth_sharing{500};  // for one request: it waits for more than the kernel

  void work() {
    using Clock = std::chrono::steady_clock;
    std::vector<std::byte> buffer(plan_.bytes, plan_.pattern);
    try {
      Clock::time_point since = Clock::now();
      uint64_t done = 0;
      for (uint64_t index = next_++; index < plan_.count; index = next_++) {
        send(index, buffer);
        if (++done % sample != 0) continue;
        const Clock::time_point now = Clock::now();
        if (now - since > sample * worth_sharing) add_thread();
        since = now;
      }
    } catch (const Error&) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      next_ = plan_.count;
    }
  }

  void send(uint64_t index, std::span<std::byte> buffer) {
    const GuestOffset offset = place_of(plan_, index, disk_.size());
    if (!plan_.write) return disk_.read(offset, buffer);
    disk_.write(offset, buffer);
    if (plan_.flush_interval > 0 && (index + 1) % plan_.flush_interval == 0) disk_.flush();
  }

  void add_thread() {
    const std::lock_guard lock(mutex_);
    if (others_.size() + 1 < most_threads_) others_.emplace_back([this] { work(); });
  }

  Disk& disk_;
  const Plan& plan_;
  uint64_t most_threads_ = 1;
  std::atomic<uint64_t> next_ = 0;
  std::mutex mutex_;  // guards what follows
  std::vector<std::jthread> others_;
  std::exception_ptr failure_;
};

void announce(const Invocation& invocation, const Plan& plan) {
  invocation.io.out << fmt::format(
      "Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})\n", plan.count,
      plan.write ? "write" : "read", plan.bytes, plan.depth, plan.offset, plan.step);
  if (plan.flush_interval > 0) {
    invocation.io.out << fmt::format("Sending flush every {} requests\n", plan.flush_interval);
  }
  invocation.io.out.flush();
}

int run_bench(Invocation& invocation) {
  if (invocation.arguments.size() != 1) usage_error("Expecting one image file name");
  const Plan plan = parse_plan(invocation.options);
  check_aio(invocation);
  const bool json_output = wants_json(invocation.options);
  const bool quiet = invocation.options.has("quiet") && !invocation.as_incumbent;  // qemu-img is not
  check_cache_option(invocation.options, "t", "cache");
  OpenOptions options = read_image_options(invocation);
  options.writable = plan.write;
  if (options.writable) refuse_force_share(invocation, invocation.arguments[0]);
  const auto image = open_image(invocation, invocation.arguments[0], options);
  if (image->disk()->size() < plan.bytes) {
    throw Error(ErrorKind::usage, fmt::format("{}: the disk has {} bytes, fewer than one request of {}",
                                              printable(image->path()), image->disk()->size(), plan.bytes));
  }
  if (plan.offset >= image->disk()->size()) {
    throw Error(ErrorKind::usage, fmt::format("{}: the disk ends at byte {}, before the first request at {}",
                                              printable(image->path()), image->disk()->size(), plan.offset));
  }
  if (!json_output && !quiet) announce(invocation, plan);
  const auto start = std::chrono::steady_clock::now();
  Run(*image->disk(), plan).finish();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  image->close();
  if (json_output) {
    const nlohmann::json result{
        {"requests", plan.count}, {"bytes", plan.count * plan.bytes}, {"seconds", took.count()}};
    invocation.io.out << qemu_json(result) << '\n';
  } else if (!quiet) {
    invocation.io.out << fmt::format("Run completed in {:.3f} seconds.\n", took.count());
  }
  return 0;
}

}  // namespace

const Command& bench_command() {
  static const Command command{
      .name = "bench",
      .group = "images",
      .summary = "time many equal requests to an image's disk",
      .synopsis = "[OPTION...] IMAGE",
      .incumbent = "",
      .options = join(image_options(),
                      {
                          {'c', "count", "N", "send N requests (default 75000)"},
                          {'d', "depth", "N", "so many of them in parallel (default 64)"},
                          {'s', "buffer-size", "SIZE", "bytes of each (default 4k)"},
                          {'S', "step-size", "SIZE", "how far each is from the one before (default: their size)"},
                          {'o', "offset", "SIZE", "where the first one goes (default 0)"},
                          {'w', "write", "", "write instead of reading: the disk's contents are lost"},
                          {0, "pattern", "BYTE", "the byte to write (default 0)"},
                          {0, "flush-interval", "N", "with --write: flush after every N requests"},
                          {'q', "quiet", "", "print nothing but errors"},
                          {'t', "", "CACHE", "cache mode of qemu-img; taken for the sake of scripts"},
                          {'i', "", "AIO", "how qemu-img waits for the kernel; taken for the sake of scripts"},
                          {'n', "native", "", "the same, of old"},
                          {0, "no-drain", "", "taken for the sake of scripts: no flush waits for requests"},
                          output_option(),
                          force_share_option(),
                      }),
      .run = run_bench,
  };
  return command;
}

}  // namespace drydock::cli
