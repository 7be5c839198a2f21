// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/repair.h"

#include <algorithm>
#include <cerrno>

#include "src/qcow2/bitmap_check.h"
#include "src/qcow2/header_fields.h"
#include "src/qcow2/refcount_compare.h"
#include "src/qcow2/refcount_rebuild.h"
#include "src/qcow2/refcount_update.h"
#include "src/qcow2/table_repair.h"
#include "src/qcow2/unshare.h"

namespace drydock::qcow2 {

namespace {

class Repair {
 public:
  Repair(Storage& image, const RepairOptions& options) : image_(image), options_(options) {}

  RepairOutcome run() {
    try {
      if (repairs_all()) drop_damaged_bitmaps();
      look();
      outcome_.before = report_;
      for (const Finding& finding : dropped_) outcome_.before.add(finding);
      add_copied_flags(outcome_.before);
      if (!outcome_.before.clean()) mend();
    } catch (const Error& error) {
      if (wrote_) throw;
      if (!survey_) outcome_.before = report_;
      outcome_.before.failure = error;
    }
    if (outcome_.before.failure) {
      outcome_.after = outcome_.before;
      return std::move(outcome_);
    }
    look_at_result();
    if (repairs_all() && report_.mapping_damaged && !outcome_.after.mapping_damaged && !outcome_.after.clean()) {
      // What kept lost space from being freed is gone: an entry of the snapshot table was dropped.
      look();
      mend();
      look_at_result();
    }
    if (!outcome_.after.failure && outcome_.after.corruptions == 0 && outcome_.after.check_errors == 0) mark_clean();
    return std::move(outcome_);
  }

 private:
  bool repairs_all() const { return options_.mode == RepairMode::all; }

  // Reads everything anew, into header_, survey_ and report_.
  void look() {
    header_ = read_header_for_check(image_);
    report_ = {};
    survey_.reset();
    survey_.emplace(image_, header_, repairs_all() ? SurveyFor::repair : SurveyFor::check, report_);
    counts_missing_ = compare_refcounts(*survey_, header_, report_);
  }

  void look_at_result() {
    survey_.reset();  // two of them may be too much
    outcome_.after = wrote_ ? check(image_) : outcome_.before;
  }

  // Damaged bitmaps keep an image from being opened. Without their autoclear bit they count as absent, which says to
  // whoever makes backups that the next must be a full one; their clusters are lost space then.
  void drop_damaged_bitmaps() {
    header_ = read_header_for_check(image_);
    CheckReport found;
    ReferenceTally tally(header_, image_.size(), found);
    try {
      check_bitmaps(image_, header_, tally);
    } catch (const Error&) {
      if (found.corruptions == 0) throw;
    }
    if (found.corruptions == 0) return;
    dropped_ = std::move(found.findings);
    outcome_.corruptions_fixed += found.corruptions;
    begin_writing();
    HeaderFields(image_).set_autoclear_features(header_.autoclear_features & ~autoclear::bitmaps).store();
    image_.flush();
  }

  // Of two bitmaps with one cluster neither is to be believed.
  void drop_bitmaps_that_share() {
    if (!header_.bitmaps) return;
    const ReferenceCounts& counts = survey_->tally.counts();
    bool found = false;
    for (auto next = counts.skip_empty(0); next && !found; next = counts.skip_empty(*next)) {
      found = counts.owners(*next) == owner::other_table && counts.count(*next) > 1;
      ++*next;
    }
    if (!found) return;
    begin_writing();
    HeaderFields(image_).set_autoclear_features(header_.autoclear_features & ~autoclear::bitmaps).store();
    image_.flush();
    look_again();
  }

  // What is seen now is what was seen before, less what was repaired meanwhile.
  void look_again() {
    const uint64_t corruptions = report_.corruptions;
    const uint64_t leaks = report_.leaks;
    look();
    outcome_.corruptions_fixed += corruptions - std::min(corruptions, report_.corruptions);
    outcome_.leaks_fixed += leaks - std::min(leaks, report_.leaks);
  }

  void unshare() {
    std::optional<Unsharing> unsharing(std::in_place, image_, header_, *survey_);
    if (unsharing->clusters() == 0 && !unsharing->changes_snapshot_table()) return;
    const auto needed = [&] {
      return unsharing->clusters() + (unsharing->changes_snapshot_table() ? clusters_of_snapshot_table() : 0);
    };
    if (survey_->refcounts_damaged || !counts_have_blocks() || !can_place(needed())) {
      make_new_refcounts(needed());  // which may have been what shared a place
      unsharing.emplace(image_, header_, *survey_);
    }
    if (needed() == 0 || !has_room_for(needed())) return;
    begin_writing();
    const uint64_t first = free_cluster();
    unsharing->write_copies(first);
    TableRepair tables(image_, header_, *survey_);
    if (unsharing->changes_snapshot_table()) tables.write_snapshot_table(first + unsharing->clusters());
    update_refcounts(image_, header_, *survey_, RefcountChange::raise);
    image_.flush();
    unsharing->switch_over();
    tables.switch_snapshot_table();
    image_.flush();
    look_again();
  }

  void add_copied_flags(CheckResult& result) const {
    check_copied_flags(
        image_, header_, [&](uint64_t cluster) { return survey_->refcounts.count(cluster); }, result);
  }

  void mend() {
    if (!repairs_all()) return mend_leaks();
    drop_bitmaps_that_share();
    unshare();
    const uint64_t table_clusters = snapshot_table_clusters();
    if (survey_->refcounts_damaged || !counts_have_blocks() || !can_place(table_clusters)) {
      make_new_refcounts(table_clusters);
    }
    begin_writing();
    TableRepair tables(image_, header_, *survey_);
    if (survey_->snapshots.repairable > 0) tables.write_snapshot_table(free_cluster());
    outcome_.corruptions_fixed += update_refcounts(image_, header_, *survey_, RefcountChange::raise);
    image_.flush();
    outcome_.corruptions_fixed += tables.switch_snapshot_table();
    outcome_.corruptions_fixed += tables.replace_bad_reservations();
    outcome_.corruptions_fixed += tables.clear_copied_flags(!report_.mapping_damaged);
    image_.flush();
    if (!report_.mapping_damaged) lower_refcounts();
    outcome_.corruptions_fixed += tables.set_copied_flags();
    image_.flush();
  }

  void mend_leaks() {
    if (survey_->refcounts_damaged || counts_missing_) {
      const Place table{.table = "header", .offset = header_.refcount_table_offset};
      report_.add(FindingKind::refcount_table_entry, Severity::check_error, table,
                  "ERROR need to rebuild refcount structures");
      outcome_.before = report_;
      throw Error(ErrorKind::io, EIO,
                  fmt::format("{}: the refcounts must be made anew, which only a repair of all does",
                              printable(image_.name())));
    }
    if (report_.mapping_damaged) return;
    begin_writing();
    lower_refcounts();
    // With all counts right the flags can be told, and are put right too.
    if (report_.corruptions > 0 || report_.check_errors > 0) return;
    TableRepair tables(image_, header_, *survey_);
    outcome_.corruptions_fixed += tables.clear_copied_flags(true);
    outcome_.corruptions_fixed += tables.set_copied_flags();
    image_.flush();
  }

  void lower_refcounts() {
    outcome_.leaks_fixed += update_refcounts(image_, header_, *survey_, RefcountChange::lower);
    image_.flush();
  }

  // An image's unknown autoclear features do not survive a write.
  void begin_writing() {
    if (wrote_) return;
    wrote_ = true;
    const uint64_t known = header_.autoclear_features & (autoclear::bitmaps | autoclear::data_file_raw);
    if (known == header_.autoclear_features) return;
    HeaderFields(image_).set_autoclear_features(known).store();
    image_.flush();
    header_.autoclear_features = known;
  }

  uint64_t snapshot_table_clusters() const {
    return survey_->snapshots.repairable == 0 ? 0 : clusters_of_snapshot_table();
  }

  uint64_t clusters_of_snapshot_table() const {
    return divide_up(encoded_snapshot_table_bytes(survey_->snapshots), header_.cluster_size());
  }

  uint64_t free_cluster() const {
    return first_free_cluster(image_, header_, report_.statistics.image_end_offset, options_.can_grow);
  }

  bool has_block(uint64_t cluster) const {
    const DiskRefcounts& refcounts = survey_->refcounts;
    const uint64_t index = cluster / refcounts.clusters_per_block();
    return refcounts.block_offset(index) != HostOffset(0) && !refcounts.misaligned(index);
  }

  bool has_room_for(uint64_t clusters) const {
    return options_.can_grow || free_cluster() + clusters <= image_.size() / header_.cluster_size();
  }

  bool can_place(uint64_t clusters) const {
    const uint64_t first = free_cluster();
    for (uint64_t i = 0; i < clusters; ++i) {
      if (!has_block(first + i)) return false;
    }
    return true;
  }

  bool counts_have_blocks() const {
    const ReferenceCounts& counts = survey_->tally.counts();
    for (auto next = counts.skip_empty(0); next; next = counts.skip_empty(*next)) {
      if (counts.count(*next) > 0 && !has_block(*next)) return false;
      ++*next;
    }
    return true;
  }

  void make_new_refcounts(uint64_t extra_clusters) {
    const uint64_t first = free_cluster();
    begin_writing();
    {
      CheckReport ignored;
      const Survey survey(image_, header_, SurveyFor::new_refcounts, ignored);
      rebuild_refcounts(image_, header_, survey, first, extra_clusters, report_.mapping_damaged);
    }
    look_again();
  }

  void mark_clean() {
    HeaderFields fields(image_);
    const uint64_t features = fields.incompatible_features();
    const uint64_t clean = features & ~(incompatible::dirty | incompatible::corrupt);
    if (clean == features) return;
    fields.set_incompatible_features(clean).store();
    image_.flush();
  }

  Storage& image_;
  RepairOptions options_;
  Header header_;
  CheckResult report_;
  std::optional<Survey> survey_;
  bool counts_missing_ = false;
  bool wrote_ = false;
  std::vector<Finding> dropped_;  // of bitmaps that are damaged
  RepairOutcome outcome_;
};

}  // namespace

RepairOutcome repair(Storage& image, const RepairOptions& options) { return Repair(image, options).run(); }

void recover_refcounts(Storage& image) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorKind::corrupt,
                fmt::format("{}: the image was not closed cleanly, and its refcounts cannot be recovered: {}; see what "
                            "'drydock check' says",
                            printable(image.name()), why));
  };
  const CheckResult found = check(image);
  if (found.failure) refuse(found.failure->what());
  if (found.tables_damaged) refuse("it has other damage");
  const RepairOutcome outcome = repair(image, {.mode = RepairMode::all, .can_grow = image.can_grow()});
  if (outcome.after.failure) refuse(outcome.after.failure->what());
  if (outcome.after.corruptions > 0 || outcome.after.check_errors > 0) refuse("some remain wrong");
}

}  // namespace drydock::qcow2
