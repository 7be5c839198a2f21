// SPDX-License-Identifier: GPL-3.0-or-later
//
// drydock ls: the files in a guest's folders, as virt-ls lists them: plain, -l like ls, -R names only, -lR with fields.

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <utility>

#include "inspect/long_listing.h"
#include "src/error.h"
#include "tools/commands.h"
#include "tools/guest_options.h"
#include "tools/guest_output.h"
#include "tools/guest_words.h"

namespace drydock::cli {

namespace {

enum class TimeForm { date, epoch, seconds_ago, days_ago };

// Which fields -lR shows, and how.
struct Fields {
  bool csv = false;
  bool human = false;
  bool owners = false;
  bool times = false;
  bool extra = false;
  TimeForm time_form = TimeForm::date;
  std::string checksum;  // empty: none
  int64_t now = 0;
};

Fields parse_fields(const ParsedOptions& options) {
  Fields fields{.csv = options.has("csv"), .human = options.has("human-readable")};
  fields.owners = options.has("uids") || options.has("uid");
  fields.extra = options.has("extra-stats") || options.has("extra-stat");
  for (const ParsedOptions::Given& given : options.in_order()) {
    if (given.is("times") || given.is("time")) fields.times = true;
    if (given.is("time-t")) fields.time_form = TimeForm::epoch;
    if (given.is("time-relative")) fields.time_form = TimeForm::seconds_ago;
    if (given.is("time-days")) fields.time_form = TimeForm::days_ago;
    if (given.is("checksum") || given.is("checksums")) fields.checksum = given.value.empty() ? "md5" : given.value;
  }
  fields.times = fields.times || fields.time_form != TimeForm::date;
  fields.now = std::time(nullptr);
  constexpr std::array<std::string_view, 7> known{"crc", "md5", "sha1", "sha224", "sha256", "sha384", "sha512"};
  if (!fields.checksum.empty() && std::ranges::find(known, fields.checksum) == known.end()) {
    usage_error(fmt::format("--checksum={}: crc, md5, sha1, sha224, sha256, sha384 or sha512 is expected",
                            printable(fields.checksum)));
  }
  return fields;
}

char type_letter(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return '-';
    case S_IFDIR:
      return 'd';
    case S_IFCHR:
      return 'c';
    case S_IFBLK:
      return 'b';
    case S_IFIFO:
      return 'p';
    case S_IFLNK:
      return 'l';
    case S_IFSOCK:
      return 's';
    default:
      return 'u';
  }
}

std::string time_text(const Timestamp& time, const Fields& fields) {
  const int64_t age = fields.now - time.seconds;
  constexpr int64_t day = 86400;
  switch (fields.time_form) {
    case TimeForm::epoch:
      return fmt::format("{:10}", time.seconds);
    case TimeForm::seconds_ago:
      return fmt::format("{:8}", age);
    case TimeForm::days_ago:
      return fmt::format("{:3}", age / day);
    case TimeForm::date:
      break;
  }
  const std::time_t seconds = time.seconds;
  std::tm parts{};
  if (::localtime_r(&seconds, &parts) == nullptr) return fmt::format("{}", time.seconds);
  std::array<char, 64> buffer{};
  const size_t length = std::strftime(buffer.data(), buffer.size(), "%F %T", &parts);
  return {buffer.data(), length};
}

std::string device_text(uint64_t device) { return fmt::format("{}:{}", major(device), minor(device)); }

std::string size_text(uint64_t size, const Fields& fields) {
  const std::string text = fields.human ? short_size(size) : fmt::format("{}", size);
  return fields.csv ? text : fmt::format("{:>10}", text);
}

std::vector<std::string> stat_fields(const FileStat& stat, const Fields& fields) {
  std::vector<std::string> row{std::string(1, type_letter(stat.mode)), fmt::format("{:04o}", stat.mode & 07777),
                               size_text(stat.size, fields)};
  if (fields.owners) row.insert(row.end(), {fmt::format("{:4}", stat.uid), fmt::format("{:4}", stat.gid)});
  if (fields.times) {
    for (const Timestamp& time : {stat.accessed, stat.modified, stat.changed}) row.push_back(time_text(time, fields));
  }
  if (fields.extra) {
    row.insert(row.end(), {device_text(stat.device), fmt::format("{}", stat.inode), fmt::format("{}", stat.links),
                           device_text(stat.rdev), fmt::format("{}", stat.blocks)});
  }
  return row;
}

// Names are quoted where CSV needs it; dates are not, as the incumbent has it.
std::string name_field(const Streams& io, const std::string& name, const Fields& fields) {
  return fields.csv ? csv_field(shown(io, name)) : shown(io, name);
}

void list_with_fields(Invocation& invocation, GuestFiles& files, const std::string& folder, const Fields& fields) {
  walk(files, folder, [&](const std::string& path, const FileStat& stat) {
    std::vector<std::string> row = stat_fields(stat, fields);
    if (!fields.checksum.empty()) {
      if (S_ISREG(stat.mode)) {
        row.push_back(files.checksum(path, fields.checksum));
      } else if (fields.csv) {
        row.emplace_back();
      }
    }
    row.push_back(name_field(invocation.io, path, fields));
    if (S_ISLNK(stat.mode)) {
      row.push_back((fields.csv ? "" : "-> ") + name_field(invocation.io, files.read_link(path), fields));
    }
    invocation.io.out << fmt::format("{}\n", fmt::join(row, fields.csv ? "," : " "));
  });
}

nlohmann::ordered_json json_of(GuestFiles& files, const std::string& path, const FileStat& stat, const Fields& fields) {
  auto object = nlohmann::ordered_json::object();
  add_text(object, "path", path);
  object["type"] = std::string(1, type_letter(stat.mode));
  object["mode"] = fmt::format("{:04o}", stat.mode & 07777);
  object["size"] = stat.size;
  object["uid"] = stat.uid;
  object["gid"] = stat.gid;
  object["atime"] = stat.accessed.seconds;
  object["mtime"] = stat.modified.seconds;
  object["ctime"] = stat.changed.seconds;
  object["device"] = device_text(stat.device);
  object["inode"] = stat.inode;
  object["nlink"] = stat.links;
  object["rdev"] = device_text(stat.rdev);
  object["blocks"] = stat.blocks;
  if (S_ISLNK(stat.mode)) add_text(object, "link", files.read_link(path));
  if (S_ISREG(stat.mode) && !fields.checksum.empty()) object[fields.checksum] = files.checksum(path, fields.checksum);
  return object;
}

void add_json(nlohmann::ordered_json& document, GuestFiles& files, const std::string& folder, bool recursive,
              const Fields& fields) {
  if (recursive) {
    walk(files, folder, [&](const std::string& path, const FileStat& stat) {
      document.push_back(json_of(files, path, stat, fields));
    });
    return;
  }
  for (const DirectoryEntry& entry : files.list_with_stat(folder)) {
    document.push_back(json_of(files, join_path(folder, entry.name), entry.stat, fields));
  }
}

// Of several folders each has its name above it, as ls(1) shows them, where names alone do not tell which folder they
// are in. virt-ls leaves that out.
class Headings {
 public:
  explicit Headings(const Invocation& invocation)
      : io_(invocation.io), wanted_(invocation.arguments.size() > 1 && !invocation.as_incumbent) {}

  void print(const std::string& folder) {
    if (wanted_) io_.out << (first_ ? "" : "\n") << shown(io_, folder) << ":\n";
    first_ = false;
  }

 private:
  const Streams& io_;
  bool wanted_;
  bool first_ = true;
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find('\n', start), text.size());
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

// `ls -l` from the appliance escapes nothing. What is no folder is a row of its own.
std::vector<std::string> listed_rows(GuestFiles& files, const std::string& folder, const std::string& listing) {
  std::vector<std::string> names;
  if (listing.starts_with("total ")) names = files.list(folder);
  const auto link_target = [&](const std::string& name) { return files.read_link(join_path(folder, name)); };
  return rows_of_listing(listing, std::move(names), link_target).value_or(lines_of(listing));
}

void print_listing(const Streams& io, GuestFiles& files, const std::string& folder, const std::string& listing) {
  if (!is_terminal(io)) {
    io.out << listing;
    return;
  }
  for (const std::string& row : listed_rows(files, folder, listing)) io.out << shown(io, row) << '\n';
}

void list_plain(Invocation& invocation, GuestFiles& files, const std::string& folder, Headings& headings) {
  const ParsedOptions& options = invocation.options;
  if (options.has("long")) {
    const std::string listing = files.long_listing(folder);
    headings.print(folder);
    print_listing(invocation.io, files, folder, listing);
    return;
  }
  const std::vector<std::string> names = options.has("recursive") ? files.find(folder) : files.list(folder);
  headings.print(folder);
  for (const std::string& name : names) {
    invocation.io.out << shown(invocation.io, name) << '\n';
  }
}

int list(Invocation& invocation) {
  const ParsedOptions& options = invocation.options;
  if (invocation.arguments.empty()) usage_error("which directory? A path inside the guest is expected");
  const Fields fields = parse_fields(options);
  if (fields.human && fields.csv) usage_error("-h and --csv do not go together");
  const bool with_fields = options.has("long") && options.has("recursive");

  require_guest_paths(invocation.arguments);
  OpenedGuest guest(invocation, false);
  guest.mount();
  bool failed = false;
  auto document = nlohmann::ordered_json::array();
  Headings headings(invocation);
  for (const std::string& folder : invocation.arguments) {
    try {
      if (options.has("json")) {
        add_json(document, guest.files(), folder, options.has("recursive"), fields);
      } else if (with_fields) {
        list_with_fields(invocation, guest.files(), folder, fields);
      } else {
        list_plain(invocation, guest.files(), folder, headings);
      }
    } catch (const Error& error) {
      if (guest.interruption().caught() != 0) throw;
      invocation.warn(error.what());
      failed = true;
    }
  }
  if (options.has("json")) invocation.io.out << json_text(document);
  return failed ? 1 : 0;
}

}  // namespace

const Command& ls_command() {
  static const Command command{
      .name = "ls",
      .group = "guests",
      .summary = "list files of a guest",
      .synopsis = "[OPTION...] -a IMAGE DIRECTORY...",
      .incumbent = "virt-ls",
      .options = join(join(disk_options(), mount_options()),
                      {
                          {0, "checksum", "TYPE", "with -lR: a checksum of each file (default: md5)", true},
                          {0, "checksums", "TYPE", "the same as --checksum", true},
                          {0, "csv", "", "with -lR: comma-separated values"},
                          {0, "extra-stat", "", "the same as --extra-stats"},
                          {0, "extra-stats", "", "with -lR: device, inode, links, special device, blocks"},
                          {'h', "human-readable", "", "with -lR: sizes for people"},
                          {0, "json", "", "print JSON, with all fields"},
                          {'l', "long", "", "long listing"},
                          {'R', "recursive", "", "list what is below, too"},
                          {0, "time", "", "the same as --times"},
                          {0, "time-days", "", "with -lR: times as days before now"},
                          {0, "time-relative", "", "with -lR: times as seconds before now"},
                          {0, "time-t", "", "with -lR: times as seconds since 1970"},
                          {0, "times", "", "with -lR: times of access, modification and change"},
                          {0, "uid", "", "the same as --uids"},
                          {0, "uids", "", "with -lR: numeric owner and group"},
                      }),
      .run = list,
  };
  return command;
}

}  // namespace drydock::cli
