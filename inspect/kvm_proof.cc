// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/kvm_proof.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "inspect/interruption.h"
#include "src/error.h"
#include "src/unique_fd.h"

namespace drydock {

namespace {

namespace fs = std::filesystem;

// The guest: a boot sector for address 0x7c00.
constexpr std::array<unsigned char, 164> boot_code = {
    0xfa,                                                        // cli
    0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,              // ax, ds, es, ss = 0
    0xbc, 0x00, 0x7c,                                            // mov sp, 0x7c00
    0xcd, 0x12,                                                  // int 0x12: a BIOS call
    0xfc, 0xbf, 0x00, 0x10, 0x66, 0x31, 0xc0, 0xb9, 0x00, 0x0c,  // page tables at 0x1000 to 0x3fff:
    0x66, 0xf3, 0xab,                                            //   cleared
    0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0x00, 0x00,        //   [0x1000] = 0x2003
    0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x00, 0x00,        //   [0x2000] = 0x3003
    0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00,        //   [0x3000] = 0x83: the first 2 MiB
    0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x0f, 0x22, 0xd8,        // cr3 = 0x1000
    0x0f, 0x20, 0xe0, 0x66, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0,  // cr4 |= PAE
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32,              // EFER |= LME
    0x66, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30,              //
    0x66, 0x0f, 0x01, 0x16, 0xa0, 0x7c,                          // lgdt [0x7ca0]
    0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80,        // cr0 |= PG | PE
    0x0f, 0x22, 0xc0,                                            //
    0x66, 0xea, 0x73, 0x7c, 0x00, 0x00, 0x08, 0x00,              // jmp 8:0x7c73: 64-bit code from here
    0x48, 0xb8, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01,  // mov rax, 0x0123456789abcdef
    0xb9, 0x00, 0x00, 0x10, 0x00,                                // mov ecx, 0x100000
    0xff, 0xc9, 0x75, 0xfc,                                      // loop: dec ecx; jnz loop
    0xba, 0xf4, 0x00, 0x00, 0x00, 0xb0, 0x10, 0xee,              // out 0xf4, 0x10: report
    0xf4, 0x90,                                                  // hlt; nop
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,              // 0x7c90: the GDT: null,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x9a, 0x20, 0x00,              //   64-bit code
    0x0f, 0x00, 0x90, 0x7c,                                      // 0x7ca0: its limit and address,
};                                                               // continued by zeros

// QEMU's isa-debug-exit leaves with 2 * value + 1.
constexpr int reported = 2 * 0x10 + 1;

// In memory: a full disk says nothing about KVM.
UniqueFd make_boot_disk() {
  std::array<char, 1 << 20> disk{};
  std::memcpy(disk.data(), boot_code.data(), boot_code.size());
  disk[510] = '\x55';
  disk[511] = '\xaa';
  UniqueFd file(::memfd_create("drydock-kvm-proof", MFD_CLOEXEC));
  if (!file || ::pwrite(file.get(), disk.data(), disk.size(), 0) != static_cast<ssize_t>(disk.size())) {
    throw system_error(errno, "memory for a boot disk");
  }
  return file;
}

std::string last_line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

std::string why(const ChildResult& result) {
  if (result.timed_out) {
    return fmt::format("a guest of 512 bytes did not boot within {} s", kvm_proof_limit.count() / 1000);
  }
  const std::string detail = result.err.empty() ? "" : ": " + printable(last_line(result.err));
  return fmt::format("QEMU ended with status {}{}", result.status, detail);
}

// Whether KVM itself has ended the guest: QEMU says so and stops it, or gives up in its code for KVM.
bool ended_by_kvm(const ChildResult& result) {
  const bool told = result.err.find("KVM internal error") != std::string::npos ||
                    result.err.find("kvm run failed") != std::string::npos;
  const bool gave_up = result.status == 128 + SIGABRT && result.err.find("kvm") != std::string::npos;
  return told || gave_up;
}

// Where the answer is kept; empty where there is no place for it.
fs::path cache_file(const std::string& emulator) {
  std::ifstream boot_id_file("/proc/sys/kernel/random/boot_id");
  std::string boot_id;
  struct stat program {};
  if (!(boot_id_file >> boot_id) || ::stat(emulator.c_str(), &program) != 0) return {};
  fs::path folder;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && cache[0] == '/') {
    folder = cache;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/') {
    folder = fs::path(home) / ".cache";
  } else {
    return {};
  }
  return folder / "drydock" /
         fmt::format("kvm-{}-{}-{}", boot_id, program.st_ino, static_cast<int64_t>(program.st_mtim.tv_sec));
}

std::optional<KvmProof> recall(const fs::path& file) {
  std::ifstream stream(file);
  std::string verdict;
  std::string reason;
  if (!std::getline(stream, verdict) || (verdict != "works" && verdict != "fails")) return {};
  std::getline(stream, reason);
  return KvmProof{.works = verdict == "works", .reason = printable(reason), .lasts = true};
}

void remember(const fs::path& file, const KvmProof& proof) {
  std::error_code failure;
  fs::create_directories(file.parent_path(), failure);
  // Answers of earlier boots are of no use any more.
  for (const auto& old : fs::directory_iterator(file.parent_path(), failure)) {
    if (old.path().filename().string().starts_with("kvm-")) fs::remove(old.path(), failure);
  }
  const fs::path fresh = file.string() + ".new";
  std::ofstream stream(fresh);
  stream << (proof.works ? "works" : "fails") << '\n' << proof.reason << '\n';
  stream.close();
  if (stream) fs::rename(fresh, file, failure);
}

// Why /dev/kvm cannot even be opened; nothing when it can. Costs nothing, and may change while the machine is up.
std::optional<std::string> device_trouble() {
  const UniqueFd device(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (device) return {};
  const std::string hint = errno == EACCES ? " (sudo adduser $USER kvm, then log in again)" : "";
  return fmt::format("/dev/kvm: {}{}", std::strerror(errno), hint);
}

KvmProof boot_guest(const std::string& emulator) {
  const UniqueFd disk = make_boot_disk();
  // The processor model is the one that libguestfs asks for.
  const ChildResult result =
      run_child({emulator, "-accel", "kvm", "-cpu", "max", "-nodefaults", "-no-user-config", "-display", "none", "-m",
                 "16", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive", "file=/dev/stdin,format=raw,if=ide"},
                {.in = disk.get(), .limit = kvm_proof_limit});
  if (InterruptionGuard::anything_caught()) throw Error(ErrorKind::interrupted, "interrupted");
  return judge_kvm(result);
}

}  // namespace

KvmProof judge_kvm(const ChildResult& result) {
  if (result.status == reported && !result.timed_out) return {.works = true, .lasts = true, .fresh = true};
  const bool had_its_time = result.timed_out && result.cpu_time >= kvm_proof_cpu_time;
  return {.works = false, .reason = why(result), .lasts = had_its_time || ended_by_kvm(result), .fresh = true};
}

KvmProof prove_kvm(const std::string& emulator) {
  // Kept only so that it is told once: whether the device opens is looked at each time.
  if (const auto trouble = device_trouble()) return {.works = false, .reason = *trouble, .lasts = true, .fresh = true};
  try {
    return boot_guest(emulator);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    return {.works = false, .reason = error.what(), .fresh = true};
  }
}

KvmProof remembered_kvm_proof(const std::string& emulator) {
  const fs::path file = cache_file(emulator);
  const std::optional<KvmProof> known = file.empty() ? std::nullopt : recall(file);
  const std::optional<std::string> trouble = device_trouble();
  if (known && trouble && known->reason == *trouble) return *known;
  if (known && !trouble && !known->reason.starts_with("/dev/kvm:")) return *known;
  KvmProof proof = prove_kvm(emulator);
  if (!file.empty() && proof.lasts) remember(file, proof);
  return proof;
}

}  // namespace drydock
