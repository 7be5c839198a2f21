// SPDX-License-Identifier: GPL-3.0-or-later
//
// Caching. Of a read-only disk nothing ever changes, so the kernel keeps pages from one open to the next, attributes
// and names for ever. Files of a writable disk overlap (p1.raw lies within disk.raw): a page that the kernel keeps for
// one would hide a write through the other, so they are opened for direct I/O and every request arrives here.

#include "fuse/operations.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "fuse/control.h"
#include "src/error.h"

namespace drydock::fuse {

namespace {

constexpr double for_ever = 1e9;        // seconds
constexpr double while_changing = 1.0;  // attributes of writable disks: blocks and times
constexpr size_t largest_read = 1 << 20;

const Filesystem& filesystem_of(fuse_req_t request) {
  return *static_cast<const Filesystem*>(fuse_req_userdata(request));
}

void reply_error(fuse_req_t request, int errno_value) { fuse_reply_err(request, errno_value); }

// Runs a handler's body; whatever it throws becomes the answer.
template <class Body>
void answer(fuse_req_t request, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    reply_error(request, error.errno_value());
  } catch (const std::bad_alloc&) {
    reply_error(request, ENOMEM);
  } catch (const std::exception&) {
    reply_error(request, EIO);
  }
}

const Node& node_of(fuse_req_t request, fuse_ino_t number) {
  const Node* node = filesystem_of(request).tree.find(number);
  if (node == nullptr) throw Error(ErrorKind::not_found, "no such node");
  return *node;
}

DiskFile& file_of(fuse_req_t request, fuse_ino_t number) {
  const Node& node = node_of(request, number);
  if (node.is_folder()) throw Error(ErrorKind::usage, EISDIR, "a folder");
  return *node.file;
}

struct stat attributes(const Filesystem& filesystem, fuse_ino_t number, const Node& node) {
  struct stat result {};
  result.st_ino = number;
  result.st_uid = ::geteuid();
  result.st_gid = ::getegid();
  result.st_mtim = result.st_ctim = result.st_atim = filesystem.modified();
  if (node.is_folder()) {
    result.st_mode = S_IFDIR | 0555;
    result.st_nlink = 2;
    return result;
  }
  result.st_mode = S_IFREG | (node.file->writable() ? 0644U : 0444U);
  result.st_nlink = 1;
  result.st_size = static_cast<off_t>(node.file->size());
  result.st_blocks = static_cast<blkcnt_t>(node.file->blocks());
  return result;
}

double attribute_timeout(const Node& node) {
  return !node.is_folder() && node.file->writable() ? while_changing : for_ever;
}

fuse_entry_param entry_of(const Filesystem& filesystem, fuse_ino_t number) {
  const Node& node = *filesystem.tree.find(number);
  fuse_entry_param entry{};
  entry.ino = number;
  entry.attr = attributes(filesystem, number, node);
  entry.attr_timeout = attribute_timeout(node);
  entry.entry_timeout = for_ever;
  return entry;
}

void on_init(void* userdata, fuse_conn_info* connection) {
  const auto& filesystem = *static_cast<const Filesystem*>(userdata);
  // Without KILLPRIV the kernel asks for security.capability before every write.
  const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                          FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_WRITE;
  connection->want |= connection->capable & wanted;
  connection->max_readahead = largest_read;
  if (!filesystem.ready()) fuse_session_exit(filesystem.session);
}

void on_lookup(fuse_req_t request, fuse_ino_t folder, const char* name) {
  answer(request, [&] {
    const Filesystem& filesystem = filesystem_of(request);
    const auto number = filesystem.tree.lookup(folder, name);
    // Number 0 lets the kernel remember that there is no such file.
    fuse_entry_param entry{};
    entry.entry_timeout = for_ever;
    if (number) entry = entry_of(filesystem, *number);
    fuse_reply_entry(request, &entry);
  });
}

void on_getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
  answer(request, [&] {
    const Node& node = node_of(request, number);
    const struct stat status = attributes(filesystem_of(request), number, node);
    fuse_reply_attr(request, &status, attribute_timeout(node));
  });
}

// Only a truncation to the size that the disk has is no change.
void on_setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which, fuse_file_info*) {
  answer(request, [&] {
    const int changes_of_write = FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME;
    if ((which & ~(FUSE_SET_ATTR_SIZE | changes_of_write)) != 0 || (which & FUSE_SET_ATTR_SIZE) == 0) {
      throw Error(ErrorKind::refused, "owner, mode and times are the image's");
    }
    file_of(request, number).check_resize(static_cast<uint64_t>(wanted->st_size));
    const Node& node = node_of(request, number);
    const struct stat status = attributes(filesystem_of(request), number, node);
    fuse_reply_attr(request, &status, attribute_timeout(node));
  });
}

void on_open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  answer(request, [&] {
    const DiskFile& file = file_of(request, number);
    file.check_open(info->flags);
    info->keep_cache = !file.writable();
    info->direct_io = file.writable();
    fuse_reply_open(request, info);
  });
}

// One for each of libfuse's threads, kept from request to request.
std::span<std::byte> read_buffer(size_t size) {
  thread_local std::unique_ptr<std::byte[]> buffer;
  thread_local size_t capacity = 0;
  if (capacity < size) {
    capacity = std::max(size, largest_read);
    buffer.reset(new std::byte[capacity]);
  }
  return {buffer.get(), size};
}

void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info*) {
  answer(request, [&] {
    const std::span<std::byte> buffer = read_buffer(std::min(size, largest_read));
    const size_t count = file_of(request, number).read(static_cast<uint64_t>(offset), buffer);
    fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), count);
  });
}

void on_write(fuse_req_t request, fuse_ino_t number, const char* data, size_t size, off_t offset, fuse_file_info*) {
  answer(request, [&] {
    const auto bytes = std::as_bytes(std::span(data, size));
    fuse_reply_write(request, file_of(request, number).write(static_cast<uint64_t>(offset), bytes));
  });
}

void on_flush(fuse_req_t request, fuse_ino_t, fuse_file_info*) { reply_error(request, 0); }

void on_release(fuse_req_t request, fuse_ino_t, fuse_file_info*) { reply_error(request, 0); }

void on_fsync(fuse_req_t request, fuse_ino_t number, int, fuse_file_info*) {
  answer(request, [&] {
    file_of(request, number).flush();
    reply_error(request, 0);
  });
}

void on_fallocate(fuse_req_t request, fuse_ino_t number, int mode, off_t offset, off_t length, fuse_file_info*) {
  answer(request, [&] {
    file_of(request, number).allocate(mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length));
    reply_error(request, 0);
  });
}

void on_lseek(fuse_req_t request, fuse_ino_t number, off_t offset, int whence, fuse_file_info*) {
  answer(request, [&] {
    const uint64_t found = file_of(request, number).seek(static_cast<uint64_t>(offset), whence);
    fuse_reply_lseek(request, static_cast<off_t>(found));
  });
}

void on_opendir(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  info->keep_cache = 1;
  info->cache_readdir = 1;
  fuse_reply_open(request, info);
}

struct ListedName {
  const char* name;
  fuse_ino_t number;
};

// Position 0 is ".", 1 is "..", the children follow.
ListedName name_at(const Tree& tree, fuse_ino_t folder, size_t position) {
  const Node& node = *tree.find(folder);
  if (position == 0) return {".", folder};
  if (position == 1) return {"..", node.parent};
  const NodeNumber child = node.children[position - 2];
  return {tree.find(child)->name.c_str(), child};
}

// libfuse's add functions return the size of an entry, and write it only where it fits.
template <class Add>
void list(fuse_req_t request, fuse_ino_t folder, size_t size, off_t offset, Add&& add) {
  answer(request, [&] {
    const Node& node = node_of(request, folder);
    if (!node.is_folder()) throw Error(ErrorKind::usage, ENOTDIR, "not a folder");
    std::vector<char> buffer(size);
    size_t used = 0;
    for (auto position = static_cast<size_t>(offset); position < node.children.size() + 2; ++position) {
      const ListedName listed = name_at(filesystem_of(request).tree, folder, position);
      const size_t needed = add(buffer.data() + used, size - used, listed, static_cast<off_t>(position + 1));
      if (needed > size - used) break;
      used += needed;
    }
    fuse_reply_buf(request, buffer.data(), used);
  });
}

void on_readdir(fuse_req_t request, fuse_ino_t folder, size_t size, off_t offset, fuse_file_info*) {
  list(request, folder, size, offset, [&](char* to, size_t room, const ListedName& listed, off_t next) {
    struct stat status {};
    status.st_ino = listed.number;
    status.st_mode = filesystem_of(request).tree.find(listed.number)->is_folder() ? S_IFDIR : S_IFREG;
    return fuse_add_direntry(request, to, room, listed.name, &status, next);
  });
}

void on_readdirplus(fuse_req_t request, fuse_ino_t folder, size_t size, off_t offset, fuse_file_info*) {
  list(request, folder, size, offset, [&](char* to, size_t room, const ListedName& listed, off_t next) {
    const fuse_entry_param entry = entry_of(filesystem_of(request), listed.number);
    return fuse_add_direntry_plus(request, to, room, listed.name, &entry, next);
  });
}

void on_statfs(fuse_req_t request, fuse_ino_t) {
  const Tree& tree = filesystem_of(request).tree;
  struct statvfs status {};
  status.f_bsize = status.f_frsize = 4096;
  status.f_namemax = max_name_length;
  status.f_files = tree.count();
  for (NodeNumber number = root_node; const Node* node = tree.find(number); ++number) {
    if (!node->is_folder()) status.f_blocks += divide_up(node->file->size(), status.f_bsize);
  }
  fuse_reply_statfs(request, &status);
}

void on_getxattr(fuse_req_t request, fuse_ino_t number, const char* name, size_t size) {
  const std::string& value = filesystem_of(request).control_address;
  if (number != root_node || std::strcmp(name, control_attribute) != 0) {
    reply_error(request, ENODATA);
  } else if (size == 0) {
    fuse_reply_xattr(request, value.size());
  } else if (size < value.size()) {
    reply_error(request, ERANGE);
  } else {
    fuse_reply_buf(request, value.data(), value.size());
  }
}

fuse_lowlevel_ops make_operations() {
  fuse_lowlevel_ops table{};
  table.init = on_init;
  table.lookup = on_lookup;
  table.getattr = on_getattr;
  table.setattr = on_setattr;
  table.open = on_open;
  table.read = on_read;
  table.write = on_write;
  table.flush = on_flush;
  table.release = on_release;
  table.fsync = on_fsync;
  table.fallocate = on_fallocate;
  table.lseek = on_lseek;
  table.opendir = on_opendir;
  table.readdir = on_readdir;
  table.readdirplus = on_readdirplus;
  table.statfs = on_statfs;
  table.getxattr = on_getxattr;
  // The tree is what the image makes it: no name comes or goes.
  table.mknod = [](fuse_req_t request, fuse_ino_t, const char*, mode_t, dev_t) { reply_error(request, EPERM); };
  table.mkdir = [](fuse_req_t request, fuse_ino_t, const char*, mode_t) { reply_error(request, EPERM); };
  table.unlink = [](fuse_req_t request, fuse_ino_t, const char*) { reply_error(request, EPERM); };
  table.rmdir = [](fuse_req_t request, fuse_ino_t, const char*) { reply_error(request, EPERM); };
  table.rename = [](fuse_req_t request, fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned) {
    reply_error(request, EPERM);
  };
  return table;
}

}  // namespace

const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops table = make_operations();
  return table;
}

}  // namespace drydock::fuse
