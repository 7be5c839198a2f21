// SPDX-License-Identifier: GPL-3.0-or-later

#include "fuse/tree.h"

#include "src/error.h"

namespace drydock::fuse {

namespace {

bool starts_inside_a_character(std::string_view text, size_t position) {
  return (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80;  // a continuation byte of UTF-8
}

// The kernel fails the listing of a whole folder for one name that is too long. `number` keeps cut names apart.
std::string fitting_name(const std::string& name, size_t number) {
  if (name.size() <= max_name_length) return name;
  const size_t dot = name.rfind('.');
  const bool has_extension = dot != std::string::npos && name.size() - dot <= 8;
  const std::string end = fmt::format("~{}{}", number, has_extension ? name.substr(dot) : "");
  size_t keep = max_name_length - end.size();
  while (keep > 0 && starts_inside_a_character(name, keep)) --keep;
  return name.substr(0, keep) + end;
}

void check_name(std::string_view name, std::string_view path) {
  if (!name.empty() && name != "." && name != "..") return;
  throw Error(ErrorKind::usage, fmt::format("'{}' is not a path that a file can have", printable_in_quotes(path)));
}

}  // namespace

Tree::Tree(const std::vector<TreeFile>& files) {
  nodes_.emplace_back();
  size_t number = 0;
  for (const TreeFile& file : files) {
    ++number;
    NodeNumber folder = root_node;
    std::string_view rest = file.path;
    for (size_t slash = rest.find('/'); slash != std::string_view::npos; slash = rest.find('/')) {
      const std::string name(rest.substr(0, slash));
      check_name(name, file.path);
      const auto known = lookup(folder, name);
      folder = known ? *known : add(folder, name, nullptr);
      rest.remove_prefix(slash + 1);
    }
    check_name(rest, file.path);
    const std::string name = fitting_name(std::string(rest), number);
    if (!find(folder)->is_folder() || lookup(folder, name)) {
      throw Error(ErrorKind::usage, fmt::format("two files would be called '{}'", printable_in_quotes(file.path)));
    }
    add(folder, name, std::make_unique<DiskFile>(file.disk));
  }
}

NodeNumber Tree::add(NodeNumber folder, const std::string& name, std::unique_ptr<DiskFile> file) {
  Node& node = nodes_.emplace_back();
  node.name = name;
  node.parent = folder;
  node.file = std::move(file);
  const NodeNumber number = nodes_.size();
  Node& parent = nodes_[folder - 1];
  parent.children.push_back(number);
  parent.by_name.emplace(name, number);
  return number;
}

const Node* Tree::find(NodeNumber number) const {
  return number >= 1 && number <= nodes_.size() ? &nodes_[number - 1] : nullptr;
}

std::optional<NodeNumber> Tree::lookup(NodeNumber folder, std::string_view name) const {
  const Node* node = find(folder);
  if (node == nullptr) return std::nullopt;
  const auto found = node->by_name.find(std::string(name));
  return found == node->by_name.end() ? std::nullopt : std::optional(found->second);
}

void Tree::flush() const {
  std::optional<Error> failure;
  for (const Node& node : nodes_) {
    if (node.is_folder()) continue;
    try {
      node.file->flush();
    } catch (const Error& error) {
      if (!failure) failure = error;
    }
  }
  if (failure) throw Error(*failure);
}

}  // namespace drydock::fuse
