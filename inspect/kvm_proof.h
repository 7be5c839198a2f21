// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whether KVM really runs guests on this machine.
//
// /dev/kvm may open, answer every question and even run an instruction, and yet no guest ever boots: the appliance then
// hangs for ever. So a guest of 512 bytes is booted, with the same emulator and processor model as the appliance's; it
// goes from the BIOS to 64-bit mode with paging on and reports back. It has `kvm_proof_limit` for that; a working KVM
// needs a tenth of a second.
//
// The answer holds until the next boot, so it is kept in the user's cache folder, by boot and emulator.

#pragma once

#include <chrono>
#include <string>

namespace drydock {

inline constexpr std::chrono::milliseconds kvm_proof_limit{3'000};

struct KvmProof {
  bool works = false;
  std::string reason;  // why it does not work: one line
  bool fresh = false;  // proven just now, not remembered
};

// Boots the guest. `emulator`: the path of qemu-system-x86_64.
KvmProof prove_kvm(const std::string& emulator);

// The remembered answer, or prove_kvm()'s. A cache that cannot be read or written only costs time.
KvmProof remembered_kvm_proof(const std::string& emulator);

}  // namespace drydock
