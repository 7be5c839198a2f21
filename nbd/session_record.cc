// SPDX-License-Identifier: GPL-3.0-or-later

#include "nbd/session_record.h"

#include "nbd/exports.h"
#include "nbd/peer.h"
#include "src/error.h"

namespace drydock::nbd {

namespace {

// A client may go on asking for what it does not get; the log is not its to fill.
constexpr unsigned max_refusals = 8;

}  // namespace

SessionRecord::SessionRecord(const Log& log, Metrics* metrics, uint64_t number, int socket)
    : log_(log), metrics_(metrics), number_(number) {
  if (metrics_ != nullptr) metrics_->count_connection();
  if (log_) say(fmt::format("{} is here", describe_peer(socket)));
}

SessionRecord::~SessionRecord() {
  if (metrics_ != nullptr) {
    metrics_->count_end_of_connection();
    if (!served_) metrics_->count_turned_away(reason_);
  }
  if (!log_) return;
  try {
    say_goodbye();
  } catch (const std::exception&) {
    // Out of memory: a line of the log is missing.
  }
}

void SessionRecord::say_goodbye() const {
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin_;
  const std::string why = why_.empty() ? "the connection ended" : why_;
  if (!served_) {
    say(fmt::format("gone without an export after {:.1f} s: {}", time.count(), why));
    return;
  }
  say(fmt::format("gone after {:.1f} s: {}; {} requests, {} of them failed, {} bytes read, {} written", time.count(),
                  why, requests_.load(std::memory_order_relaxed), failed_.load(std::memory_order_relaxed),
                  read_.load(std::memory_order_relaxed), written_.load(std::memory_order_relaxed)));
}

void SessionRecord::came_by_tls(const std::string& name) {
  if (log_) say(name.empty() ? "TLS, without a name" : fmt::format("TLS as '{}'", printable_in_quotes(name)));
}

void SessionRecord::refused(OptionReply error, const std::string& message) {
  // The others are questions of what the server can do.
  const bool worth_it = error == OptionReply::error_unknown || error == OptionReply::error_policy ||
                        error == OptionReply::error_tls_required;
  if (!worth_it) return;
  {
    const std::lock_guard lock(mutex_);
    if (error == OptionReply::error_policy) reason_ = TurnedAway::not_allowed;
    if (error == OptionReply::error_tls_required) reason_ = TurnedAway::tls;
    if (++refusals_ > max_refusals) return;
  }
  if (log_) say(fmt::format("turned away: {}", printable(message)));
}

void SessionRecord::chose(const Export& chosen) {
  {
    const std::lock_guard lock(mutex_);
    served_ = true;
  }
  if (log_)
    say(fmt::format("export '{}', {}", printable_in_quotes(chosen.name), chosen.writable() ? "writable" : "read-only"));
}

void SessionRecord::ends(std::string_view why, TurnedAway reason) {
  const std::lock_guard lock(mutex_);
  if (!why_.empty()) return;
  try {
    why_ = why;
  } catch (const std::bad_alloc&) {
    // It ends nevertheless, without a reason.
  }
  if (reason != TurnedAway::protocol) reason_ = reason;
}

void SessionRecord::done(const Reply& reply) {
  const ReplyAccount& account = reply.account;
  const bool wanted = log_ || metrics_ != nullptr;
  if (!account.is_request || !wanted) return;
  requests_.fetch_add(1, std::memory_order_relaxed);
  if (account.failed) {
    failed_.fetch_add(1, std::memory_order_relaxed);
  } else if (account.type == static_cast<uint16_t>(CommandType::read)) {
    read_.fetch_add(account.bytes, std::memory_order_relaxed);
  } else if (account.type == static_cast<uint16_t>(CommandType::write)) {
    written_.fetch_add(account.bytes, std::memory_order_relaxed);
  }
  if (metrics_ == nullptr) return;
  metrics_->count({.type = account.type,
                   .failed = account.failed,
                   .bytes = account.bytes,
                   .duration = std::chrono::steady_clock::now() - account.arrived});
}

void SessionRecord::say(const std::string& what) const { log_(fmt::format("client {}: {}", number_, what)); }

}  // namespace drydock::nbd
