// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/exports.h"

#include <algorithm>
#include <set>

#include "nbd/failures.h"
#include "nbd/protocol.h"
#include "src/error.h"

namespace drydock::nbd {

void Exports::add(Export added) {
  if (added.name.size() > max_string_length || added.name.find('\0') != std::string::npos) {
    throw Error(ErrorKind::usage,
                fmt::format("'{}' cannot be an export's name: it takes at most {} bytes other than NUL",
                            printable_in_quotes(added.name.substr(0, 64)), max_string_length));
  }
  if (added.description.size() > max_string_length) {
    throw Error(ErrorKind::usage, fmt::format("export description '{}...' too long: it takes at most {} bytes",
                                              printable_in_quotes(added.description.substr(0, 64)), max_string_length));
  }
  if (find(added.name) != nullptr) {
    throw Error(ErrorKind::usage, fmt::format("two exports are called '{}'", printable_in_quotes(added.name)));
  }
  all_.push_back(std::make_shared<const Export>(std::move(added)));
}

void Exports::set_default(std::string_view name) { default_name_ = name; }

std::vector<ExportCatalog::Entry> Exports::list() const {
  std::vector<Entry> entries;
  for (const auto& each : all_) entries.push_back({each->name, each->description});
  return entries;
}

std::shared_ptr<const Export> Exports::find(std::string_view name) const {
  const std::string_view wanted = name.empty() ? default_name_ : name;
  const auto found = std::ranges::find(all_, wanted, [](const auto& each) -> std::string_view { return each->name; });
  return found == all_.end() ? nullptr : *found;
}

// Exports of one disk are flushed once.
void Exports::flush() const {
  std::set<Disk*> flushed;
  Failures failures;
  for (const auto& each : all_) {
    if (!each->writable() || !flushed.insert(each->disk.get()).second) continue;
    failures.attempt([&] {
      try {
        each->disk->flush();
      } catch (const Error& error) {
        throw error.within(fmt::format("export '{}'", printable_in_quotes(each->name)));
      }
    });
  }
  failures.throw_if_any();
}

}  // namespace drydock::nbd
