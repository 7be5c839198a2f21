// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whether KVM really runs guests on this machine.
//
// /dev/kvm may open, answer every question and even run an instruction, and yet no guest ever boots: the appliance then
// hangs for ever. So a guest of 512 bytes is booted, with the same emulator and processor model as the appliance's; it
// goes from the BIOS to 64-bit mode with paging on and reports back. It has `kvm_proof_limit` for that; a working KVM
// needs a tenth of a second.
//
// What a guest that ran has shown holds until the next boot, so it is kept in the user's cache folder, by boot and
// emulator: that it reported, that KVM ended it, or that it had processor time enough and did not report. Whatever else
// kept it from reporting (a busy host, a lack of memory, a signal) may be gone the next time, and is not kept.

#pragma once

#include <chrono>
#include <string>

#include "inspect/child_process.h"

namespace drydock {

inline constexpr std::chrono::milliseconds kvm_proof_limit{3'000};
// Processor time after which a guest that has not reported never will: ten times what it needs.
inline constexpr std::chrono::milliseconds kvm_proof_cpu_time{1'000};

struct KvmProof {
  bool works = false;
  std::string reason;  // why it does not work: one line
  bool lasts = false;  // so it is until the next boot
  bool fresh = false;  // proven just now, not remembered
};

// What it says of KVM that QEMU ended so.
KvmProof judge_kvm(const ChildResult& result);

// Boots the guest. `emulator`: the path of qemu-system-x86_64.
KvmProof prove_kvm(const std::string& emulator);

// The remembered answer, or prove_kvm()'s. A cache that cannot be read or written only costs time. Throws interrupted
// when a signal ended the proof.
KvmProof remembered_kvm_proof(const std::string& emulator);

}  // namespace drydock
