// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/image_exports.h"

#include <algorithm>
#include <mutex>

#include "src/error.h"
#include "src/views.h"

namespace drydock::nbd {

namespace {

// Bitmaps may take hundreds of MiB, and most clients ask for none.
class LateRanges final : public DirtyRanges {
 public:
  LateRanges(std::shared_ptr<const Image> image, std::string name) : image_(std::move(image)), name_(std::move(name)) {}

  GuestRange next_dirty(GuestRange within) const override { return ranges().next_dirty(within); }

 private:
  const DirtyRanges& ranges() const {
    const std::lock_guard lock(mutex_);
    if (!loaded_) loaded_ = image_->dirty_ranges(name_);
    return *loaded_;
  }

  std::shared_ptr<const Image> image_;
  std::string name_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const DirtyRanges> loaded_;
};

std::vector<ExportedBitmap> bitmaps_of(const std::shared_ptr<const Image>& image) {
  std::vector<ExportedBitmap> exported;
  for (const BitmapInfo& bitmap : image->bitmaps()) {
    if (!bitmap.in_use) exported.push_back({bitmap.name, std::make_shared<LateRanges>(image, bitmap.name)});
  }
  return exported;
}

}  // namespace

ExportedBitmap exported_bitmap(const std::shared_ptr<const Image>& image, const std::string& name) {
  const auto all = image->bitmaps();
  const auto found = std::ranges::find(all, name, &BitmapInfo::name);
  if (found == all.end()) {
    throw Error(ErrorKind::not_found, fmt::format("Bitmap '{}' is not found", printable_in_quotes(name)));
  }
  if (found->in_use) {
    throw Error(ErrorKind::invalid,
                fmt::format("Bitmap '{}' is inconsistent and cannot be used", printable_in_quotes(name)));
  }
  return {name, std::make_shared<LateRanges>(image, name)};
}

std::shared_ptr<Disk> ruled(std::shared_ptr<Disk> disk, const ExportRules& rules) {
  if (rules.read_only || !disk->writable() || rules.policy == WritePolicy{}) return disk;
  return std::make_shared<WritePolicyDisk>(std::move(disk), rules.policy);
}

ImageExports image_exports(const std::shared_ptr<const Image>& image, const std::string& prefix,
                           const ExportRules& rules) {
  Views views = list_views(*image);
  ImageExports result;
  result.warnings = std::move(views.warnings);
  std::ranges::move(layer_views(*image), std::back_inserter(views.views));
  const auto share = std::make_shared<RequestShare>();
  for (View& view : views.views) {
    const bool can_change = view.kind == ViewKind::disk || view.kind == ViewKind::partition;
    Export added{.name = prefix.empty() ? view.name : fmt::format("{}/{}", prefix, view.name),
                 .description = view.description,
                 .disk = can_change ? ruled(std::move(view.disk), rules) : std::move(view.disk),
                 .read_only = rules.read_only || !can_change,
                 .multi_conn = rules.multi_conn,
                 .allocation_depth = true,
                 .share = share};
    if (view.kind == ViewKind::disk) {
      added.bitmaps = bitmaps_of(image);
      if (!prefix.empty()) {
        Export bare = added;
        bare.name = prefix;
        result.exports.push_back(std::move(bare));
      }
    }
    result.exports.push_back(std::move(added));
  }
  return result;
}

}  // namespace drydock::nbd
