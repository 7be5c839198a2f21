// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/qcow2_image.h"

#include "src/error.h"
#include "src/file_driver.h"
#include "src/qcow2/l1_table.h"
#include "src/qcow2/refcounts.h"
#include "src/qcow2/repair.h"
#include "src/units.h"

namespace drydock::qcow2 {

namespace {

const char* crypt_method_name(CryptMethod method) { return method == CryptMethod::luks ? "LUKS" : "AES"; }

}  // namespace

Qcow2Image::Qcow2Image(std::shared_ptr<Storage> storage, Chain& chain, std::shared_ptr<const Image> backing)
    : backing_(std::move(backing)) {
  Header header = read_header(*storage);
  const std::string name = printable(storage->name());
  if (storage->writable() && !chain.options.metadata_only && header.is(incompatible::dirty)) {
    recover_refcounts(*storage);
    header = read_header(*storage);
  }
  if (header.refcount_table_clusters == 0) {
    throw Error(ErrorKind::invalid, fmt::format("{}: Image does not contain a reference count table", name));
  }
  layer_ = std::make_shared<Layer>(std::move(storage), header, chain.tables);
  layer_->interrupted = chain.options.interrupted;
  set_snapshots(read_snapshot_table(*layer_->storage, layer_->header));
  if (chain.options.metadata_only) return;

  if (header.crypt_method != CryptMethod::none) {
    throw Error(ErrorKind::unsupported, fmt::format("{}: the image is encrypted ({}); encrypted images cannot be read",
                                                    name, crypt_method_name(header.crypt_method)));
  }
  std::vector<uint64_t> l1 = read_active_l1_table(*layer_->storage, header);
  check_refcount_blocks();
  check_snapshot_tables();
  open_data_file(chain);
  if (!backing_ && !chain.options.without_backing) backing_ = open_backing_file(layer_->header, path(), chain);
  if (backing_) layer_->backing = backing_->disk();
  if (layer_->storage->writable()) prepare_for_writing();
  open_disk(std::move(l1), chain.options);
}

void Qcow2Image::open_disk(std::vector<uint64_t> l1, const OpenOptions& options) {
  if (!layer_->storage->writable()) {
    auto map = std::make_shared<FrozenClusterMap>(layer_, std::move(l1));
    disk_ = std::make_shared<Qcow2Disk>(layer_, std::move(map), size_in_header());
    return;
  }
  auto gate = std::make_shared<IoGate>();
  auto metadata = std::make_shared<Metadata>(layer_, std::move(l1), snapshots_, options.metadata_cache_size, gate);
  writable_disk_ = std::make_shared<WritableDisk>(layer_, std::move(metadata), std::move(gate), size_in_header(),
                                                  snapshots_, options.discard_keeps_place);
  disk_ = writable_disk_;
}

void Qcow2Image::close() {
  if (writable_disk_) writable_disk_->close();
  give_up_files();
}

void Qcow2Image::check_not_corrupt() const {
  if (!header().is(incompatible::corrupt)) return;
  throw Error(ErrorKind::corrupt, fmt::format("{}: the image is marked corrupt: it can be opened for reading only; "
                                              "'drydock check -r all' repairs it",
                                              printable(path())));
}

// What a writer does to the header before anything else ("Autoclear features": bits that it does not know are to be
// cleared).
void Qcow2Image::prepare_for_writing() {
  check_not_corrupt();
  // What was read may be newer than what the disk has: of one who was killed, or whose flush failed. Clusters that only
  // the older state uses must not be written to before it is gone.
  layer_->storage->flush();
  if ((header().autoclear_features & ~autoclear::kept_by_writers) == 0) return;
  layer_->header_owner.change([](HeaderFields& fields) {
    fields.set_autoclear_features(fields.autoclear_features() & autoclear::kept_by_writers);
  });
  layer_->header.autoclear_features &= autoclear::kept_by_writers;
}

void Qcow2Image::set_snapshots(std::vector<Snapshot> snapshots) {
  snapshots_ = std::move(snapshots);
  snapshot_infos_.clear();
  for (const Snapshot& snapshot : snapshots_) snapshot_infos_.push_back(snapshot.info);
}

// A size that is no multiple of a sector loses its tail, as under QEMU: no disk has half a sector.
uint64_t Qcow2Image::size_in_header() const { return round_down(layer_->header.size, sector_size); }

std::shared_ptr<Disk> Qcow2Image::disk() const {
  if (!disk_) throw Error(ErrorKind::usage, fmt::format("{}: was opened for its metadata only", path()));
  return disk_;
}

std::shared_ptr<Disk> Qcow2Image::snapshot_disk(size_t index) const {
  const Snapshot& snapshot = snapshots_.at(index);
  const std::string what = fmt::format("the L1 table of snapshot '{}'", printable_in_quotes(snapshot.info.name));
  const uint64_t size = round_down(snapshot.info.disk_size, sector_size);
  std::vector<uint64_t> l1 =
      read_l1_table(*layer_->storage, header(), snapshot.l1_offset, snapshot.l1_entries, size, what);
  return std::make_shared<Qcow2Disk>(layer_, std::make_shared<FrozenClusterMap>(layer_, std::move(l1)), size);
}

std::vector<std::string> Qcow2Image::warnings() const {
  std::vector<std::string> warnings;
  const std::string name = printable(path());
  if (header().is(incompatible::corrupt)) {
    warnings.push_back(fmt::format("{}: the image is marked corrupt; what is read may be wrong", name));
  }
  if (header().is(incompatible::dirty)) {
    warnings.push_back(
        fmt::format("{}: the image was not closed cleanly; its reference counts may be out of date", name));
  }
  return warnings;
}

void Qcow2Image::check_refcount_blocks() const {
  const Storage& storage = *layer_->storage;
  const uint64_t file_size = storage.size();
  for (const HostOffset block : read_refcount_table(storage, header())) {
    if (block != HostOffset(0))
      check_within_file(storage, file_size, block, header().cluster_size(), "a refcount block");
  }
}

// Their offsets and sizes are checked further when one is opened. Tables that do not overlap have at most the file's
// size in all.
void Qcow2Image::check_snapshot_tables() const {
  const uint64_t file_size = storage().size();
  uint64_t all_bytes = 0;
  for (const Snapshot& snapshot : snapshots_) {
    const uint64_t bytes = uint64_t{snapshot.l1_entries} * sizeof(uint64_t);
    check_within_file(storage(), file_size, snapshot.l1_offset, bytes, "the L1 table of a snapshot");
    all_bytes += bytes;
  }
  if (all_bytes / max_l1_bytes_per_file_byte <= file_size) return;
  throw Error(ErrorKind::invalid,
              fmt::format("{}: the L1 tables of the snapshots overlap so much that they have {} times the file's size",
                          printable(path()), max_l1_bytes_per_file_byte));
}

std::vector<const Storage*> Qcow2Image::files() const {
  std::vector<const Storage*> files{layer_->storage.get()};
  if (layer_->data_storage != layer_->storage) files.push_back(layer_->data_storage.get());
  return files;
}

void Qcow2Image::open_data_file(Chain& chain) {
  if (!header().has_data_file()) return;
  if (!header().data_file) {
    throw Error(ErrorKind::invalid,
                fmt::format("{}: the image needs an external data file, but names none", printable(path())));
  }
  layer_->data_storage =
      chain.gate->open({*header().data_file, path(), FileRole::data_file}, layer_->storage->writable());
  chain.take_into_use(*layer_->data_storage,
                      fmt::format("is the data file of '{}', and an image of its chain or a data file there as well",
                                  printable_in_quotes(path())));
}

std::shared_ptr<const Image> open_backing_file(const Header& header, const std::string& path, Chain& chain) {
  if (!header.backing_file) return nullptr;
  const FileReference reference{*header.backing_file, path, FileRole::backing_file};
  std::optional<Format> format = chain.options.backing_format;
  std::string_view driver;
  if (header.backing_format) {
    format = format_of_driver(*header.backing_format);
    driver = *header.backing_format;
    if (!format) {
      throw Error(ErrorKind::unsupported,
                  fmt::format("{}: backing file '{}' has the format '{}'; raw and qcow2 are known", printable(path),
                              printable_in_quotes(reference.name), printable_in_quotes(*header.backing_format)));
    }
  }
  if (!format) {
    throw Error(ErrorKind::refused,
                fmt::format("{}: does not record the format of its backing file '{}', and guessing it is "
                            "not safe; give it with --backing-format",
                            printable(path), printable_in_quotes(reference.name)));
  }
  return open_layer(chain.gate->open(reference, false), *format, RawOrigin::given, chain, driver);
}

}  // namespace drydock::qcow2
