// SPDX-License-Identifier: GPL-3.0-or-later
//
// crash_replay [--seed N] [--images N] [--jobs N] [--qemu PERCENT] [--fail] [--crash N] [--keep FOLDER] [--trace]
//
// Replays seeds from N on until so many crash images were examined; with --fail, operations of the storages fail, too;
// with --crash, that power cut of one seed alone.
// Exit status 0 when every image kept every promise. README.md says more.

#include <fcntl.h>
#include <getopt.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "src/error.h"
#include "tests/crash/replay.h"

namespace drydock::crash {
namespace {

struct Arguments {
  uint64_t seed = 1;
  uint64_t images = 1000;
  unsigned jobs = 1;
  bool trace = false;
  ReplayOptions options;
};

// What the jobs, which are processes so that one that dies takes no other with it, tell each other.
struct Shared {
  std::atomic<uint64_t> next_seed;
  std::atomic<uint64_t> images;
  std::atomic<uint64_t> images_by_qemu;
  std::atomic<uint64_t> steps;
  std::atomic<uint64_t> failed;
  std::atomic<uint64_t> refused;
  std::atomic<uint64_t> seeds;
  std::atomic<uint64_t> failures;
};

constexpr uint64_t most_failures = 5;          // after which no further seed is begun
constexpr unsigned seconds_of_patience = 300;  // with one seed, which takes less than one second

Arguments parse(int argc, char** argv) {
  static const option table[] = {{"seed", required_argument, nullptr, 's'},
                                 {"images", required_argument, nullptr, 'n'},
                                 {"jobs", required_argument, nullptr, 'j'},
                                 {"qemu", required_argument, nullptr, 'q'},
                                 {"crash", required_argument, nullptr, 'c'},
                                 {"keep", required_argument, nullptr, 'k'},
                                 {"trace", no_argument, nullptr, 't'},
                                 {"fail", no_argument, nullptr, 'f'},
                                 {nullptr, 0, nullptr, 0}};
  Arguments arguments;
  for (int letter = 0; (letter = getopt_long(argc, argv, "", table, nullptr)) != -1;) {
    const auto number = [] { return std::stoull(optarg); };
    switch (letter) {
      case 's':
        arguments.seed = number();
        break;
      case 'n':
        arguments.images = number();
        break;
      case 'j':
        arguments.jobs = static_cast<unsigned>(number());
        break;
      case 'q':
        arguments.options.qemu_percent = static_cast<unsigned>(number());
        break;
      case 'f':
        arguments.options.operations_fail = true;
        break;
      case 'c':
        arguments.options.only_crash = number();
        arguments.images = 1;
        break;
      case 'k':
        arguments.options.keep_folder = optarg;
        break;
      case 't':
        arguments.options.trace = [](const std::string& line) { std::cout << line << '\n' << std::flush; };
        break;
      default:
        std::exit(2);
    }
  }
  return arguments;
}

void work(const Arguments& arguments, Shared& shared) {
  while (shared.images < arguments.images && shared.failures < most_failures) {
    const uint64_t seed = shared.next_seed++;
    if (arguments.options.only_crash && seed != arguments.seed) return;
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(seconds_of_patience);
      const ReplayResult result = replay(seed, arguments.options);
      shared.images += result.images;
      shared.images_by_qemu += result.images_by_qemu;
      shared.steps += result.steps;
      shared.failed += result.failed;
      shared.refused += result.refused;
      if (result.failure) std::cerr << "FAILED " + *result.failure + '\n' << std::flush;
      ::_exit(result.failure ? 1 : 0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ++shared.seeds;
    if (status == 0) continue;
    ++shared.failures;
    if (WIFSIGNALED(status)) std::cerr << fmt::format("FAILED seed {}: died of signal {}\n", seed, WTERMSIG(status));
  }
}

int run(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw system_error(errno, "mmap");
  auto& shared = *new (memory) Shared{};
  shared.next_seed = arguments.seed;
  const auto start = std::chrono::steady_clock::now();
  for (unsigned job = 0; job < arguments.jobs; ++job) {
    if (::fork() != 0) continue;
    work(arguments, shared);
    ::_exit(0);
  }
  while (::wait(nullptr) > 0) {
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::cout << fmt::format(
      "{} crash images ({} checked by qemu-img, too) of {} workloads, seeds {} to {}: {} steps, {} of them refused, "
      "{} struck by faults; {} failures; {:.0f} s\n",
      shared.images.load(), shared.images_by_qemu.load(), shared.seeds.load(), arguments.seed,
      shared.next_seed.load() - 1, shared.steps.load(), shared.refused.load(), shared.failed.load(),
      shared.failures.load(), seconds.count());
  return shared.failures == 0 && shared.images > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace drydock::crash

int main(int argc, char** argv) {
  try {
    return drydock::crash::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "crash_replay: " << error.what() << '\n';
    return EXIT_FAILURE;
  }
}
