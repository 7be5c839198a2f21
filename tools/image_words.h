// SPDX-License-Identifier: GPL-3.0-or-later
//
// The words by which the image commands are told of images, and how they open them.
//
// Under drydock's own name an image's chain is opened as drydock-security(7) says. Under the name qemu-img, where
// scripts bring chains that lie all over a host, backing files may be anywhere on it, unless DRYDOCK_ALLOW_DIR or
// --allow-dir tell where.

#pragma once

#include <limits>

#include "src/error.h"
#include "tools/cli.h"
#include "tools/image_opts.h"

namespace drydock::cli {

// open_options(), --image-opts, --object.
std::vector<OptionSpec> image_options();

// The folders below which chains may reach besides their images' own: of --allow-dir and DRYDOCK_ALLOW_DIR.
std::vector<std::string> allowed_trees(const Invocation& invocation);

// How images are to be opened, without the format, which is for open_image() to find. Throws usage for words that
// contradict each other.
OpenOptions read_image_options(const Invocation& invocation);
// What else than the image itself may be opened, as far as the words of `invocation` go.
void add_access(const Invocation& invocation, OpenOptions& options);

// How a format that the user does not give is guessed: under an incumbent's name as QEMU guesses it.
ProbeRule probe_rule(const Invocation& invocation);

// The policy of the words, and of the environment under an incumbent's name, for what images name.
std::shared_ptr<const OpenGate> gate_for(const Invocation& invocation,
                                         const std::shared_ptr<const RemoteOpener>& remote);

// Opens what `word` names: a file, an NBD URI, or with --image-opts what its options describe. -f counts unless
// `options` has a format. As QEMU does it, no other process may write to what is opened for reading, unless -U says
// that it may: throws LockError.
std::shared_ptr<Image> open_image(const Invocation& invocation, const std::string& word, const OpenOptions& options);
// The same for a file that has its own words: `format` as the user spelt it, nothing to probe.
std::shared_ptr<Image> open_image_file(const Invocation& invocation, const std::string& path,
                                       const std::optional<std::string>& format, const OpenOptions& options);

// Tells what is to be told of an opened image. Under the name qemu-img nothing: scripts take words for a failure.
void warn_of(const Invocation& invocation, const Image& image);
// For commands that are about to write to `word`: throws invalid with -U, which would share it with its other users.
void refuse_force_share(const Invocation& invocation, const std::string& word);

// Sees to it that nobody writes to `layer` and what is below it while they are open; not with -U. Throws busy. For
// those that were opened to be locked_later.
void lock_layers(const Invocation& invocation, std::shared_ptr<const Image> layer);

// What qemu-img opens, and locks, below a qcow2 image before it does anything, for a command that needs nothing of it
// but fails where it fails. A backing file whose format is not recorded is opened for its name alone. To be kept until
// the command is done; null where nothing is below.
std::shared_ptr<const Image> open_chain_below(const Invocation& invocation, const Storage& image);

// What is below an image with internal snapshots is about to change for them too, and they cannot take in what they
// need. Not under the name qemu-img, which says nothing.
void warn_of_snapshots(const Invocation& invocation, const Image& image);

// What the options in `word` describe. Errors name the word; under an incumbent's name that is for told_in_its_words()
// to do. Throws read_only as describe_image() does.
ImageDescription read_image_opts(const Invocation& invocation, const std::string& word, bool writable);
// What `word` names, for those who open the file themselves: without --image-opts the file of that name in the format
// of -f. Throws read_only where it is to be `writable`, and the words have read-only=on.
ImageDescription describe_image(const Invocation& invocation, const std::string& word, bool writable);

// Throws `error`, met while `word` was being opened, as qemu-img tells of it.
[[noreturn]] void tell_as_qemu_img(const Error& error, const std::string& word);
// Throws `error`, which is about the file `name`, as what happened within `context`; where `as_incumbent`, with
// qemu-img's words for an image that another process uses.
[[noreturn]] void tell_within(const Error& error, const std::string& name, const std::string& context,
                              bool as_incumbent);

// What qemu-img says once it has guessed that the image at `path` is raw, before it writes; under its name alone.
void warn_of_guess(const Invocation& invocation, const std::string& path, Format guessed);

// Without "name: " at its start.
Error without_name(const Error& error, const std::string& name);

// Runs `open`. Under the name qemu-img its errors are told as such of opening `word`.
template <class Open>
auto told_in_its_words(const Invocation& invocation, const std::string& word, const Open& open) {
  if (!invocation.as_incumbent) return open();
  try {
    return open();
  } catch (const Error& error) {
    tell_as_qemu_img(error, word);
  }
}

struct SizeRange {
  uint64_t least = 0;
  uint64_t most = std::numeric_limits<int64_t>::max();
};

// A size with qemu-img's words for what is none; `what` is "start offset", say.
uint64_t read_named_size(std::string_view text, std::string_view what, SizeRange range = {});

// -O, raw without it. Throws invalid for a format that is not known.
Format read_target_format(const ParsedOptions& options);

}  // namespace drydock::cli
