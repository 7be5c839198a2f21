// SPDX-License-Identifier: GPL-3.0-or-later
//
// Input: what a client says in the negotiation, and how it arrives:
//
//     u8   mode          bits 0 to 1: no TLS, TLS on, TLS required, or so and the client may not come in
//     u8   steps         number of bytes that follow here: sizes of the pieces, in turn; 0 stands for 256
//     u8   size, ...
//     then the client's bytes: 32 bits of flags, then options
//
// What follows NBD_OPT_STARTTLS stands for what comes through TLS.
//
// Beside the handshake runs a reading of the protocol of its own, which knows what each answer must look like.

#include <algorithm>

#include "nbd/handshake.h"
#include "src/error.h"
#include "src/memory_storage.h"
#include "src/raw_disk.h"
#include "tests/fuzz/fuzz.h"

namespace drydock::nbd {
namespace {

using fuzz::require;

constexpr uint64_t disk_size = 64 << 10;
// More than any option is answered with here: every export and every context listed, each with its name.
constexpr size_t longest_answer = 64 << 10;
constexpr uint32_t error_bit = uint32_t{1} << 31;

class EverySecond final : public DirtyRanges {
 public:
  GuestRange next_dirty(GuestRange within) const override { return {within.end(), 0}; }
};

Exports make_exports() {
  const auto disk =
      std::make_shared<RawDisk>(std::make_shared<MemoryStorage>(std::vector<std::byte>(disk_size)), RawOrigin::given);
  const auto bitmap = std::make_shared<EverySecond>();
  Exports exports;
  exports.add({.name = "disk", .description = "a disk", .disk = disk, .read_only = true});
  exports.add({.name = "p1",
               .description = "",
               .disk = disk,
               .read_only = false,
               .allocation_depth = true,
               .bitmaps = {{"b0", bitmap}, {"b1", bitmap}}});
  exports.add({.name = "snapshots/\xc3\xa9", .description = std::string(200, 'd'), .disk = disk, .read_only = true});
  exports.add({.name = std::string(max_string_length, 'n'), .description = "", .disk = disk, .read_only = true});
  exports.set_default("disk");
  return exports;
}

const Exports& all_exports() {
  static const Exports exports = make_exports();
  return exports;
}

struct Mode {
  TlsMode tls = TlsMode::off;
  std::string refusal;
};

// All that came out of a conversation.
struct Outcome {
  Bytes output;
  Handshake::Phase phase = Handshake::Phase::negotiating;
  size_t used = 0;
  Agreement agreement;

  bool same_as(const Outcome& other) const {
    const bool same_contexts =
        std::ranges::equal(agreement.contexts, other.agreement.contexts, {}, &MetaContext::id, &MetaContext::id);
    return output == other.output && phase == other.phase && used == other.used && same_contexts &&
           agreement.chosen == other.agreement.chosen && agreement.framing == other.agreement.framing &&
           agreement.no_zeroes == other.agreement.no_zeroes;
  }
};

// As a session does it: bytes arrive, and what is complete is consumed.
template <class NextSize>
Outcome converse(const Mode& mode, std::span<const std::byte> said, const NextSize& next_size) {
  Handshake handshake(all_exports(), mode.tls);
  Outcome outcome;
  size_t arrived = 0;
  while (handshake.phase() == Handshake::Phase::negotiating) {
    const size_t before = outcome.output.size();
    const size_t used = handshake.consume(said.subspan(outcome.used, arrived - outcome.used), outcome.output);
    require(used <= arrived - outcome.used, "more was used than is there");
    require(outcome.output.size() - before <= longest_answer, "an option was answered at length");
    outcome.used += used;
    if (handshake.phase() == Handshake::Phase::starting_tls) {
      handshake.finish_tls(mode.refusal);
      const Agreement& agreement = handshake.agreement();
      require(agreement.contexts.empty() && !agreement.context_export && !agreement.structured(),
              "what was agreed upon before TLS is not forgotten");
    }
    if (used > 0) continue;
    require(outcome.output.size() == before, "an answer to nothing");
    require(arrived - outcome.used < option_header_size + max_option_length, "a whole option was not enough");
    if (arrived == said.size()) break;
    arrived += std::min(next_size(), said.size() - arrived);
  }
  outcome.phase = handshake.phase();
  outcome.agreement = handshake.agreement();
  return outcome;
}

// Reads client's and server's side of a conversation together.
class Reading {
 public:
  Reading(Mode mode, std::span<const std::byte> said, const Outcome& outcome)
      : mode_(std::move(mode)), said_(said), outcome_(outcome), answers_(outcome.output) {}

  void check() {
    const auto flags = said_.number<uint32_t>();
    if (!flags) return check_end(Handshake::Phase::negotiating);
    if (*flags > 3) return check_end(Handshake::Phase::closed);
    no_zeroes_ = (*flags & client_flag_no_zeroes) != 0;
    while (!ended_) check_option();
  }

 private:
  void check_end(Handshake::Phase phase) {
    ended_ = true;
    require(outcome_.phase == phase, "the negotiation ends in another phase than it should");
    require(answers_.at_end(), "there are answers to what was not asked");
    require((phase == Handshake::Phase::transmission) == (outcome_.agreement.chosen != nullptr),
            "transmission of what?");
    const Agreement& agreement = outcome_.agreement;
    require(agreement.contexts.empty() || (agreement.structured() && agreement.context_export != nullptr),
            "contexts without what they need");
    for (size_t i = 1; i < agreement.contexts.size(); ++i) {
      require(agreement.contexts[i - 1].id < agreement.contexts[i].id, "contexts are not in order");
    }
  }

  void check_option() {
    const auto magic = said_.number<uint64_t>();
    if (!magic) return check_end(Handshake::Phase::negotiating);
    if (*magic != option_magic) return check_end(Handshake::Phase::closed);
    const auto option = said_.number<uint32_t>();
    const auto length = said_.number<uint32_t>();
    if (!option || !length) return check_end(Handshake::Phase::negotiating);
    if (*length > max_skipped_option_length) return check_end(Handshake::Phase::closed);
    const auto data = said_.text(*length);
    if (!data) return check_end(Handshake::Phase::negotiating);
    if (*option == static_cast<uint32_t>(Option::export_name)) return check_export_name();
    const uint32_t verdict = check_answers(*option);
    if (*option == static_cast<uint32_t>(Option::starttls) && check_starttls(verdict, *length)) return;
    if (*option != static_cast<uint32_t>(Option::abort) && check_turned_away(*option, verdict)) return;
    const bool known = *option >= 1 && *option <= 11 && *option != 4;
    require(known || verdict == static_cast<uint32_t>(OptionReply::error_unsupported),
            "an unknown option is not refused");
    require(!known || *length <= max_option_length || verdict == static_cast<uint32_t>(OptionReply::error_too_big),
            "an oversized option was looked at");
    const bool acknowledged = verdict == static_cast<uint32_t>(OptionReply::ack);
    if (*option == static_cast<uint32_t>(Option::abort)) {
      if (*length <= max_option_length) check_end(Handshake::Phase::closed);
    } else if (*option == static_cast<uint32_t>(Option::go) && acknowledged) {
      check_end(Handshake::Phase::transmission);
    }
  }

  // Whose answer has no header and no errors.
  void check_export_name() {
    if (answers_.at_end()) return check_end(Handshake::Phase::closed);
    require(!turned_away(Option::export_name), "an export for one who may not have it");
    const auto size = answers_.number<uint64_t>();
    require(size && *size == disk_size && answers_.number<uint16_t>(), "the answer to EXPORT_NAME is malformed");
    if (!no_zeroes_) require(answers_.text(export_name_padding).has_value(), "the padding is too short");
    check_end(Handshake::Phase::transmission);
  }

  bool turned_away(Option option) const {
    if (through_tls_) return !mode_.refusal.empty();
    return mode_.tls == TlsMode::require && option != Option::starttls;
  }

  // Whether that explains the answer.
  bool check_turned_away(uint32_t option, uint32_t verdict) const {
    if (!turned_away(static_cast<Option>(option))) return false;
    const auto refusal = through_tls_ ? OptionReply::error_policy : OptionReply::error_tls_required;
    require(verdict == static_cast<uint32_t>(refusal), "an option is answered that must not be");
    return true;
  }

  // Whether TLS begins.
  bool check_starttls(uint32_t verdict, uint32_t length) {
    const bool begins = verdict == static_cast<uint32_t>(OptionReply::ack);
    require(begins == (mode_.tls != TlsMode::off && !through_tls_ && length == 0), "TLS begins, or does not");
    through_tls_ = through_tls_ || begins;
    return begins;
  }

  // The last one's type.
  uint32_t check_answers(uint32_t option) {
    for (;;) {
      const auto magic = answers_.number<uint64_t>();
      const auto answered = answers_.number<uint32_t>();
      const auto type = answers_.number<uint32_t>();
      const auto data = answers_.counted_text();
      require(data.has_value(), "an option has no final answer, or an incomplete one");
      require(magic == option_reply_magic && answered == option, "an answer to another option, or none");
      if ((*type & error_bit) != 0) {
        require(data->size() <= max_string_length && printable(*data) == *data, "an unprintable message");
        return *type;
      }
      if (*type == static_cast<uint32_t>(OptionReply::ack)) {
        require(data->empty(), "an acknowledgement with data");
        return *type;
      }
      check_data(static_cast<OptionReply>(*type), *data);
    }
  }

  static void check_data(OptionReply type, std::string_view data) {
    WireReader reader(std::as_bytes(std::span(data)));
    if (type == OptionReply::server) {
      const auto name = reader.counted_text();
      require(name && !name->empty() && name->size() <= max_string_length, "an export without a proper name");
    } else if (type == OptionReply::meta_context) {
      require(reader.number<uint32_t>() && data.find(':') != std::string_view::npos, "a context without a proper name");
    } else {
      require(type == OptionReply::info, "an answer of an unknown type");
      const auto info = reader.number<uint16_t>();
      require(info && *info <= 3, "an unknown piece of information");
      const size_t size = data.size() - sizeof *info;
      require(*info != static_cast<uint16_t>(Info::export_) || size == 10, "NBD_INFO_EXPORT has another size");
      require(*info != static_cast<uint16_t>(Info::block_size) || size == 12, "NBD_INFO_BLOCK_SIZE has another size");
    }
  }

  Mode mode_;
  bool through_tls_ = false;
  WireReader said_;
  const Outcome& outcome_;
  WireReader answers_;
  bool no_zeroes_ = false;
  bool ended_ = false;
};

void check(std::span<const std::byte> input) {
  const auto bits = static_cast<unsigned>(input[0]) & 3U;
  const Mode mode{.tls = static_cast<TlsMode>(std::min(bits, 2U)), .refusal = bits == 3 ? "not you" : ""};
  input = input.subspan(1);
  const size_t steps = std::min(static_cast<size_t>(input[0]), input.size() - 1);
  const auto sizes = input.subspan(1, steps);
  const auto said = input.subspan(1 + steps);

  const Outcome whole = converse(mode, said, [] { return SIZE_MAX; });
  Reading(mode, said, whole).check();
  if (sizes.empty()) return;
  size_t next = 0;
  const Outcome pieces = converse(mode, said, [&] {
    const auto step = static_cast<size_t>(sizes[next++ % sizes.size()]);
    return step == 0 ? size_t{256} : step;
  });
  // What follows the end may have arrived already or not.
  const bool both_closed = whole.phase == Handshake::Phase::closed && pieces.phase == whole.phase;
  require(pieces.same_as(whole) || (both_closed && pieces.output == whole.output),
          "how the bytes arrive makes a difference");
}

}  // namespace
}  // namespace drydock::nbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 1) drydock::nbd::check(std::as_bytes(std::span(data, size)));
  return 0;
}
