// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock doctor: what works on this machine, what does not, and what to do about it.

#include <algorithm>

#include "inspect/health.h"
#include "inspect/interruption.h"
#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_output.h"
#include "version.h"

namespace drydock::cli {

namespace {

std::string_view state_name(CheckState state) {
  return state == CheckState::ok ? "ok" : state == CheckState::slow ? "limited" : "FAILED";
}

std::vector<HealthCheck> examine(bool launch) {
  std::vector<HealthCheck> checks{{"drydock", CheckState::ok, DRYDOCK_VERSION, ""}};
  std::ranges::move(check_health(true), std::back_inserter(checks));
  if (launch) checks.push_back(check_appliance());
  return checks;
}

void print_text(const Streams& io, const std::vector<HealthCheck>& checks) {
  size_t width = 0;
  for (const HealthCheck& check : checks) width = std::max(width, check.name.size());
  for (const HealthCheck& check : checks) {
    io.out << fmt::format("{:<{}}  {:<7}  {}\n", check.name, width, state_name(check.state), printable(check.detail));
    if (!check.advice.empty()) io.out << fmt::format("{:{}}  -> {}\n", "", width + 9, printable(check.advice));
  }
}

void print_json(const Streams& io, const std::vector<HealthCheck>& checks) {
  auto document = nlohmann::ordered_json::array();
  for (const HealthCheck& check : checks) {
    document.push_back({{"check", check.name},
                        {"state", state_name(check.state)},
                        {"detail", check.detail},
                        {"advice", check.advice}});
  }
  io.out << json_text(document);
}

int doctor(Invocation& invocation) {
  if (!invocation.arguments.empty()) {
    usage_error(fmt::format("extra argument '{}'", printable(invocation.arguments[0])));
  }
  const InterruptionGuard guard;
  const std::vector<HealthCheck> checks = examine(invocation.options.has("appliance"));
  invocation.options.has("json") ? print_json(invocation.io, checks) : print_text(invocation.io, checks);
  return std::ranges::any_of(checks, [](const auto& check) { return check.state == CheckState::failed; }) ? 1 : 0;
}

}  // namespace

const Command& doctor_command() {
  static const Command command{
      .name = "doctor",
      .group = "trust and help",
      .summary = "say what works on this machine, and what to do about the rest",
      .synopsis = "[OPTION...]",
      .incumbent = "",
      .options =
          {
              {0, "appliance", "", "also start the libguestfs appliance: up to a minute"},
              {0, "json", "", "print JSON"},
          },
      .run = doctor,
  };
  return command;
}

}  // namespace drydock::cli
