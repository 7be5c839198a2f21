// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/image_catalog.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "src/error.h"
#include "src/local_name.h"
#include "src/remote.h"

namespace drydock::nbd {

namespace fs = std::filesystem;

namespace {

// What tells that another file has taken a name; empty where there is none, or no file at all (a URI).
std::string identity_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return {};
  return fmt::format("{}:{}", status.st_dev, status.st_ino);
}

bool is_within(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

// Whether `name` in `folder` is something to serve. Whoever may write to the folder decides what is in it, but not what
// lies elsewhere.
bool is_image_file(const fs::path& folder, const std::string& name) {
  if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos) return false;
  std::error_code error;
  const fs::path real = fs::canonical(folder / name, error);
  if (error || !is_within(real, fs::canonical(folder, error)) || error) return false;
  const fs::file_status status = fs::status(real, error);
  return !error && (fs::is_regular_file(status) || fs::is_block_file(status));
}

// Who lists exports waits no longer for an image that another client is just opening, or that hangs.
constexpr std::chrono::steady_clock::duration list_patience = std::chrono::seconds(1);

// By the clock whose waiting the thread sanitizer knows: of the steady one's it does not see that the mutex was taken.
std::chrono::system_clock::time_point after(std::chrono::steady_clock::duration patience) {
  return std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::system_clock::duration>(patience);
}

[[noreturn]] void throw_busy(const std::string& name) {
  throw Error(ErrorKind::busy, fmt::format("{}: others have been waiting for this image for long: it may hang", name));
}

// With the file's own name, be it a link's.
fs::path whole_path(const fs::path& file) {
  const fs::path absolute = fs::absolute(file);
  return fs::weakly_canonical(absolute.parent_path()) / absolute.filename();
}

// The part of an export's name behind that of its file; nothing where it is not one of the file's.
std::optional<std::string_view> behind(std::string_view name, std::string_view file) {
  if (!name.starts_with(file)) return std::nullopt;
  name.remove_prefix(file.size());
  return name.empty() || name.front() == '/' ? std::optional(name) : std::nullopt;
}

}  // namespace

ImageCatalog::ImageCatalog(const std::vector<std::string>& sources, Options options) : options_(std::move(options)) {
  std::set<std::string> taken;
  std::set<std::string> known;
  for (const std::string& word : sources) {
    const std::string path = local_path(word);
    std::error_code error;
    const bool is_folder = fs::is_directory(path, error);
    // Whole, so that it counts from "/" as well, and is spelt in one way; a URI stays what it is.
    const fs::path full = is_folder ? fs::canonical(path) : is_remote_name(path) ? fs::path(path) : whole_path(path);
    if (!known.insert(full.string()).second) continue;
    const std::string name = printable(full.filename().string());
    std::string unique = name;
    for (unsigned n = 2; !taken.insert(unique).second; ++n) unique = fmt::format("{}~{}", name, n);
    sources_.push_back({unique, full.string(), is_folder});
  }
  if (sources_.size() == 1 && sources_.front().is_folder) sources_.front().name.clear();
}

void ImageCatalog::warn(const std::string& line) const {
  const std::lock_guard lock(warn_mutex_);
  if (options_.warn) options_.warn(line);
}

bool ImageCatalog::Opened::in_use() const {
  return std::ranges::any_of(exports, [](const auto& each) { return each.use_count() > 1; });
}

bool ImageCatalog::is_hidden(const std::string& path) const {
  const std::string identity = identity_of(path);
  return std::ranges::any_of(options_.hidden, [&](const std::string& each) { return identity_of(each) == identity; });
}

// Sorted within each folder. A name that no export can have, too long or not to be printed, is left out.
std::vector<ImageCatalog::Named> ImageCatalog::files() const {
  std::vector<Named> files;
  for (const Source& source : sources_) {
    if (!source.is_folder) {
      files.push_back({source.name, source.path});
      continue;
    }
    std::set<std::string> names;
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(source.path, error)) {
      const std::string name = entry.path().filename().string();
      if (name != printable(name) || !is_image_file(source.path, name) || is_hidden(entry.path().string())) continue;
      names.insert(name);
    }
    if (error) warn(system_error(error.value(), printable(source.path)).what());
    for (const std::string& name : names) {
      files.push_back({source.name.empty() ? name : fmt::format("{}/{}", source.name, name),
                       (fs::path(source.path) / name).string()});
    }
  }
  return files;
}

std::shared_ptr<ImageCatalog::Slot> ImageCatalog::slot(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Slot>& found = slots_[path];
  if (!found) found = std::make_shared<Slot>();
  return found;
}

std::vector<std::shared_ptr<ImageCatalog::Slot>> ImageCatalog::slots() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Slot>> all;
  for (const auto& [path, slot] : slots_) all.push_back(slot);
  return all;
}

// Opens the file with the slot's lock held.
ImageCatalog::Opened ImageCatalog::open(const Named& file, Slot& slot, bool writable) const {
  Opened opened{.name = file.name, .image = nullptr, .exports = {}};
  opened.image = options_.open(file.path, writable, slot.format);
  slot.format = opened.image->format();
  for (const std::string& warning : opened.image->warnings()) warn(fmt::format("{}: {}", file.name, warning));
  ImageExports found = image_exports(opened.image, file.name, options_.rules);
  for (const std::string& warning : found.warnings) warn(fmt::format("{}: {}", file.name, warning));
  for (Export& each : found.exports) opened.exports.push_back(std::make_shared<const Export>(std::move(each)));
  return opened;
}

// Whether anybody wants to have on stable storage what clients write.
bool ImageCatalog::flushes() const {
  return !options_.rules.read_only && !options_.scratch && !options_.rules.policy.never_flush;
}

void ImageCatalog::flush(const Opened& opened) {
  try {
    opened.image->disk()->flush();
  } catch (const Error& error) {
    throw error.within(opened.name);
  }
}

// What is closed is flushed before, be its format one that has nothing else to do at its end.
void ImageCatalog::end(const Opened& opened) const {
  Failures failures;
  if (flushes() && opened.image->disk()->writable()) failures.attempt([&] { flush(opened); });
  failures.attempt([&] { opened.image->close(); });
  failures.throw_if_any();
}

// With the slot's lock held. Clients that still use the image keep it until they go.
void ImageCatalog::close_slot(Slot& slot) const {
  if (slot.opened) {
    slot.replaced.push_back(std::move(*slot.opened));
    slot.opened.reset();
  }
  close_unused(slot);
}

// With the slot's lock held.
void ImageCatalog::close_unused(Slot& slot) const {
  Failures failures;
  for (auto each = slot.replaced.begin(); each != slot.replaced.end();) {
    if (each->in_use()) {
      ++each;
      continue;
    }
    std::list<Opened> ending;
    ending.splice(ending.end(), slot.replaced, each++);
    failures.attempt([&] { end(ending.front()); });
  }
  failures.throw_if_any();
}

std::shared_ptr<const Export> ImageCatalog::find_in(const Named& file, std::string_view name) const {
  const std::shared_ptr<Slot> slot = this->slot(file.path);
  const std::unique_lock lock(slot->mutex, after(options_.patience));
  if (!lock) throw_busy(file.name);
  if (const std::string identity = identity_of(file.path); identity != slot->identity) {
    close_early([&] { close_slot(*slot); });
    slot->format.reset();
    slot->identity = identity;
  }
  if (!slot->opened) {
    make_room();
    slot->opened = open(file, *slot, !options_.rules.read_only);
  }
  slot->used = std::chrono::steady_clock::now();
  const auto& exports = slot->opened->exports;
  const std::string known = slot->opened->name + std::string(name.substr(file.name.size()));
  const auto found = std::ranges::find(exports, known, [](const auto& each) -> std::string_view { return each->name; });
  return found == exports.end() ? nullptr : *found;
}

std::shared_ptr<const Export> ImageCatalog::find(std::string_view name) const {
  for (const Source& source : sources_) {
    if (!source.is_folder) {
      if (behind(name, source.name)) return find_in({source.name, source.path}, name);
      continue;
    }
    const auto rest = source.name.empty() ? std::optional(name) : behind(name, source.name);
    if (!rest) continue;
    const std::string_view within = rest->substr(source.name.empty() || rest->empty() ? 0 : 1);
    const std::string file(within.substr(0, within.find('/')));
    if (file != printable(file) || !is_image_file(source.path, file)) continue;
    if (is_hidden((fs::path(source.path) / file).string())) continue;
    return find_in(
        {source.name.empty() ? file : fmt::format("{}/{}", source.name, file), (fs::path(source.path) / file).string()},
        name);
  }
  return nullptr;
}

// What is not open is opened for a look, and for reading: who lists exports takes no locks of a writer.
std::vector<ExportCatalog::Entry> ImageCatalog::entries_of(const Named& file) const {
  const std::shared_ptr<Slot> slot = this->slot(file.path);
  const std::unique_lock lock(slot->mutex, after(std::min(options_.patience, list_patience)));
  std::vector<Entry> entries;
  if (!lock) return {{file.name, "is being opened, or does not answer"}};
  try {
    std::optional<Opened> looked_at;
    if (!slot->opened) looked_at = open(file, *slot, false);
    const Opened& opened = slot->opened ? *slot->opened : *looked_at;
    for (const auto& each : opened.exports) {
      entries.push_back({file.name + each->name.substr(opened.name.size()), each->description});
    }
  } catch (const Error& error) {
    entries.push_back({file.name, fmt::format("cannot be opened: {}", error.what())});
  }
  if (slot->identity.empty()) slot->identity = identity_of(file.path);
  return entries;
}

std::vector<ExportCatalog::Entry> ImageCatalog::list() const {
  std::vector<Entry> all;
  for (const Named& file : files()) std::ranges::move(entries_of(file), std::back_inserter(all));
  return all;
}

// Calls `visit` for the slots with open images, their locks held; one that is busy just now is passed over.
void ImageCatalog::for_each_open(const std::function<void(Slot&)>& visit) const {
  for (const auto& slot : slots()) {
    const std::unique_lock lock(slot->mutex, std::try_to_lock);
    if (lock && (slot->opened || !slot->replaced.empty())) visit(*slot);
  }
}

// With a scratch overlay goes what clients have written to it.
bool ImageCatalog::may_close(const Slot& slot) const {
  return !options_.scratch && slot.opened && !slot.opened->in_use();
}

// Closes while the server goes on: what fails is told now, and again at the end.
void ImageCatalog::close_early(const std::function<void()>& close) const {
  try {
    close();
  } catch (const Error& error) {
    warn(fmt::format("closing an image: {}", error.what()));
    const std::lock_guard lock(failures_mutex_);
    failures_.attempt([&] { throw error.within("closing an image"); });
  }
}

void ImageCatalog::make_room() const {
  size_t open = 0;
  for_each_open([&](const Slot& slot) { open += slot.opened ? 1U : 0U; });
  if (open < options_.open_images) return;
  for_each_open([&](Slot& slot) {
    if (!may_close(slot)) return;
    close_early([&] { close_slot(slot); });
    --open;
  });
  if (open >= options_.open_images) {
    throw Error(ErrorKind::busy, fmt::format("{} images are in use, which is as many as may be", open));
  }
}

void ImageCatalog::close_idle() const {
  const auto now = std::chrono::steady_clock::now();
  for_each_open([&](Slot& slot) {
    const bool is_idle = may_close(slot) && now - slot.used >= options_.idle;
    close_early([&] { is_idle ? close_slot(slot) : close_unused(slot); });
  });
}

void ImageCatalog::check_files() const {
  for (const Source& source : sources_) {
    if (!source.is_folder) find_in({source.name, source.path}, source.name);
    if (!source.is_folder) continue;
    std::error_code error;
    const fs::directory_iterator readable(source.path, error);
    if (error) throw system_error(error.value(), printable(source.path));
  }
}

void ImageCatalog::flush() const {
  if (!flushes()) return;
  Failures failures;
  for (const auto& slot : slots()) {
    const std::lock_guard lock(slot->mutex);
    if (slot->opened) failures.attempt([&] { flush(*slot->opened); });
    for (const Opened& each : slot->replaced) failures.attempt([&] { flush(each); });
  }
  failures.throw_if_any();
}

void ImageCatalog::close() const {
  Failures failures;
  for (const auto& slot : slots()) {
    const std::lock_guard lock(slot->mutex);
    failures.attempt([&] { close_slot(*slot); });
  }
  failures.attempt([&] {
    const std::lock_guard lock(failures_mutex_);
    failures_.throw_if_any();
  });
  failures.throw_if_any();
}

}  // namespace drydock::nbd
