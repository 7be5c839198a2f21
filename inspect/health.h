// SPDX-License-Identifier: GPL-3.0-or-later
//
// What of this machine drydock needs, and whether it is there: the checks of `drydock doctor`, and the advice in the
// messages of those who miss something.
//
// Thread-safety: any thread. Errors: none; what cannot be found out is a failed check.

#pragma once

#include <string>
#include <vector>

namespace drydock {

enum class CheckState {
  ok,
  slow,    // works, with a drawback
  failed,  // what needs it does not work
};

struct HealthCheck {
  std::string name;  // "KVM"
  CheckState state = CheckState::ok;
  std::string detail;  // what was found
  std::string advice;  // what to do about it; empty when ok
};

// Takes a few seconds at most. `fresh_kvm`: prove KVM anew instead of remembering the proof.
std::vector<HealthCheck> check_health(bool fresh_kvm);

// Launches the appliance on an empty disk and times it: up to a minute.
HealthCheck check_appliance();

// Why the appliance may not start, with the way out; empty when nothing is known against it.
std::string appliance_advice();

}  // namespace drydock
