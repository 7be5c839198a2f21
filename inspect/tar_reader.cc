// SPDX-License-Identifier: GPL-3.0-or-later

#include "inspect/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "inspect/posix_acl.h"
#include "src/error.h"

namespace drydock {

namespace {

using Archive = std::unique_ptr<archive, int (*)(archive*)>;

constexpr size_t block_size = 256 << 10;

Error failure(archive* reader) {
  const char* message = archive_error_string(reader);
  return {ErrorKind::corrupt, fmt::format("the guest's files: {}", printable(message ? message : "damaged archive"))};
}

std::string text(const char* raw, const char* utf8) { return raw != nullptr ? raw : utf8 != nullptr ? utf8 : ""; }

// "./etc/passwd" and "./": relative to the tree's root.
std::string relative(std::string path) {
  if (path == "." || path == "./") return "";
  if (path.starts_with("./")) path.erase(0, 2);
  if (path.ends_with('/')) path.pop_back();
  return path;
}

std::optional<EntryKind> kind_of(archive_entry* entry) {
  if (archive_entry_hardlink(entry) != nullptr || archive_entry_hardlink_utf8(entry) != nullptr) {
    return EntryKind::hard_link;
  }
  switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
      return EntryKind::file;
    case AE_IFDIR:
      return EntryKind::directory;
    case AE_IFLNK:
      return EntryKind::symlink;
    case AE_IFCHR:
      return EntryKind::character_device;
    case AE_IFBLK:
      return EntryKind::block_device;
    case AE_IFIFO:
      return EntryKind::fifo;
    case AE_IFSOCK:
      return EntryKind::socket;
    default:
      return {};
  }
}

std::optional<AclTag> acl_tag_of(int tag) {
  switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
      return AclTag::owner;
    case ARCHIVE_ENTRY_ACL_USER:
      return AclTag::user;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
      return AclTag::group;
    case ARCHIVE_ENTRY_ACL_GROUP:
      return AclTag::named_group;
    case ARCHIVE_ENTRY_ACL_MASK:
      return AclTag::mask;
    case ARCHIVE_ENTRY_ACL_OTHER:
      return AclTag::other;
    default:
      return {};
  }
}

// An ACL of more than what the mode says anyway.
void add_acl(archive_entry* entry, int type, const char* name, std::vector<ExtendedAttribute>& attributes) {
  std::vector<AclEntry> acl;
  bool extended = type == ARCHIVE_ENTRY_ACL_TYPE_DEFAULT;
  if (archive_entry_acl_reset(entry, type) == 0) return;
  for (;;) {
    int entry_type = 0;
    int permissions = 0;
    int tag = 0;
    int id = 0;
    const char* who = nullptr;
    if (archive_entry_acl_next(entry, type, &entry_type, &permissions, &tag, &id, &who) != ARCHIVE_OK) break;
    const std::optional<AclTag> kind = acl_tag_of(tag);
    if (!kind) continue;
    const bool named = *kind == AclTag::user || *kind == AclTag::named_group;
    extended = extended || named || *kind == AclTag::mask;
    acl.push_back({*kind, static_cast<uint16_t>(permissions & 7), named ? static_cast<uint32_t>(id) : UINT32_MAX});
  }
  if (extended && !acl.empty()) attributes.push_back({name, encode_posix_acl(std::move(acl))});
}

std::vector<ExtendedAttribute> attributes_of(archive_entry* entry) {
  std::vector<ExtendedAttribute> attributes;
  archive_entry_xattr_reset(entry);
  const char* name = nullptr;
  const void* value = nullptr;
  size_t size = 0;
  while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK) {
    attributes.push_back({name, std::string(static_cast<const char*>(value), size)});
  }
  add_acl(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, access_acl_name, attributes);
  add_acl(entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, default_acl_name, attributes);
  return attributes;
}

TreeEntry entry_of(archive_entry* entry, EntryKind kind) {
  TreeEntry result{.path = relative(text(archive_entry_pathname(entry), archive_entry_pathname_utf8(entry))),
                   .kind = kind,
                   .permissions = static_cast<uint32_t>(archive_entry_perm(entry)),
                   .uid = static_cast<uint64_t>(archive_entry_uid(entry)),
                   .gid = static_cast<uint64_t>(archive_entry_gid(entry)),
                   .modified = archive_entry_mtime(entry),
                   .size = static_cast<uint64_t>(archive_entry_size(entry)),
                   .link = {},
                   .device_major = static_cast<uint32_t>(archive_entry_rdevmajor(entry)),
                   .device_minor = static_cast<uint32_t>(archive_entry_rdevminor(entry)),
                   .modified_nanoseconds = static_cast<uint32_t>(archive_entry_mtime_nsec(entry)),
                   .attributes = attributes_of(entry)};
  if (kind == EntryKind::symlink) {
    result.link = text(archive_entry_symlink(entry), archive_entry_symlink_utf8(entry));
  } else if (kind == EntryKind::hard_link) {
    result.link = relative(text(archive_entry_hardlink(entry), archive_entry_hardlink_utf8(entry)));
  }
  return result;
}

void read_data(archive* reader, TreeSink& sink) {
  std::vector<std::byte> buffer(block_size);
  for (;;) {
    const la_ssize_t got = archive_read_data(reader, buffer.data(), buffer.size());
    if (got < 0) throw failure(reader);
    if (got == 0) return;
    sink.data(std::span(buffer).first(static_cast<size_t>(got)));
  }
}

}  // namespace

void read_tar(int fd, TreeSink& sink) {
  const Archive reader(archive_read_new(), archive_read_free);
  archive_read_support_format_tar(reader.get());
  if (archive_read_open_fd(reader.get(), fd, block_size) != ARCHIVE_OK) throw failure(reader.get());
  for (;;) {
    archive_entry* raw = nullptr;
    const int answer = archive_read_next_header(reader.get(), &raw);
    if (answer == ARCHIVE_EOF) return;
    if (answer != ARCHIVE_OK && answer != ARCHIVE_WARN) throw failure(reader.get());
    const std::optional<EntryKind> kind = kind_of(raw);
    if (!kind) continue;
    sink.begin(entry_of(raw, *kind));
    if (*kind == EntryKind::file) read_data(reader.get(), sink);
    sink.end();
  }
}

}  // namespace drydock
