// SPDX-License-Identifier: GPL-3.0-or-later

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/error.h"
#include "tests/nbd/raw_client.h"
#include "tests/nbd/test_server.h"

namespace drydock::nbd {
namespace {

using testing::HasSubstr;

constexpr uint32_t all_options = 16;  // those of the protocol, and some that it does not know

class nbd_handshake : public testing::Test {
 protected:
  TestServer test;
  const Server& server = *test.server;
};

TEST_F(nbd_handshake, lists_every_export_with_its_description) {
  RawClient client(server);
  const auto answers = client.ask(Option::list);
  ASSERT_EQ(answers.size(), 4U);
  EXPECT_EQ(answers[0].text(), std::string("\0\0\0\4disk", 8) + "a test disk");
  EXPECT_EQ(answers[1].text(), std::string("\0\0\0\7scratch", 11));
  EXPECT_EQ(answers[3].type, OptionReply::ack);
  EXPECT_EQ(client.verdict(Option::list, text_data("x")), OptionReply::error_invalid);
}

TEST_F(nbd_handshake, go_tells_size_flags_and_block_sizes) {
  RawClient client(server);
  const auto answers = client.ask(Option::go, info_data("", {1, 2, 3, 77}));
  ASSERT_EQ(answers.size(), 5U);
  EXPECT_EQ(load_be<uint64_t>(answers[0].data, 2), test.content.size());
  const auto flags = load_be<uint16_t>(answers[0].data, 10);
  EXPECT_EQ(flags, transmission_has_flags | transmission_read_only | transmission_send_flush | transmission_send_fua |
                       transmission_can_multi_conn | transmission_send_cache);
  EXPECT_EQ(load_be<uint32_t>(answers[1].data, 2), min_block_size);
  EXPECT_EQ(load_be<uint32_t>(answers[1].data, 6), preferred_block_size);
  EXPECT_EQ(load_be<uint32_t>(answers[1].data, 10), max_payload);
  EXPECT_EQ(answers[2].text(), std::string("\0\1disk", 6));
  EXPECT_EQ(answers[3].text(), std::string("\0\2a test disk", 13));
}

TEST_F(nbd_handshake, export_name_ends_with_zeroes_unless_declined) {
  for (const bool no_zeroes : {false, true}) {
    RawClient client(server, client_flag_fixed_newstyle | (no_zeroes ? client_flag_no_zeroes : 0));
    client.send_option(Option::export_name, text_data("disk"));
    const Bytes answer = client.receive(no_zeroes ? 10 : 134);
    EXPECT_EQ(load_be<uint64_t>(answer), test.content.size());
    client.send_request(CommandType::read, 0, 512);
    EXPECT_EQ(client.receive_simple().first, 0U);
    EXPECT_EQ(client.receive(512), Bytes(test.content.begin(), test.content.begin() + 512));
  }
}

TEST_F(nbd_handshake, unknown_exports_are_refused_by_name) {
  RawClient client(server);
  const auto answers = client.ask(Option::go, info_data("p7\x1b"));
  EXPECT_EQ(answers.back().type, OptionReply::error_unknown);
  EXPECT_THAT(answers.back().text(), HasSubstr("'p7\\x1b'"));
  EXPECT_EQ(client.verdict(Option::info, info_data("disk")), OptionReply::ack);
  client.send_option(Option::export_name, text_data("p7"));
  EXPECT_TRUE(client.is_closed());
}

TEST_F(nbd_handshake, meta_contexts_follow_their_rules) {
  RawClient client(server);
  EXPECT_EQ(client.verdict(Option::list_meta_context, context_data("disk", {})), OptionReply::error_invalid);
  ASSERT_EQ(client.verdict(Option::structured_reply), OptionReply::ack);
  EXPECT_EQ(client.ask(Option::list_meta_context, context_data("disk", {})).size(), 2U);
  EXPECT_EQ(client.ask(Option::list_meta_context, context_data("disk", {"base:"})).size(), 2U);
  EXPECT_EQ(client.ask(Option::list_meta_context, context_data("disk", {"qemu:", "x-me:y"})).size(), 1U);
  EXPECT_EQ(client.ask(Option::set_meta_context, context_data("disk", {"base:"})).size(), 1U);
  EXPECT_EQ(client.ask(Option::set_meta_context, context_data("disk", {"base:other", "base:allocation"})).size(), 2U);
  EXPECT_EQ(client.verdict(Option::set_meta_context, context_data("gone", {})), OptionReply::error_unknown);
  EXPECT_EQ(client.verdict(Option::set_meta_context, context_data("disk", {"colonless"})), OptionReply::error_invalid);
}

TEST_F(nbd_handshake, block_status_needs_the_context_of_the_chosen_export) {
  RawClient client(server);
  client.ask(Option::structured_reply);
  client.ask(Option::set_meta_context, context_data("scratch", {"base:allocation"}));
  client.ask(Option::go, info_data("disk"));
  const auto chunks = client.request(CommandType::block_status, 0, 512);
  EXPECT_EQ(chunks[0].error(), static_cast<uint32_t>(WireError::invalid));
  EXPECT_THAT(chunks[0].message(), HasSubstr("metadata context"));
}

TEST_F(nbd_handshake, safety_15_every_option_with_garbage_gets_an_answer_and_the_next_one_works) {
  for (uint32_t option = 0; option < all_options; ++option) {
    if (option == 1 || option == 2) continue;  // these end the negotiation
    for (const size_t length : {1U, 3U, 4U, 5U, 8U, 17U, 4096U, 5000U, 65536U}) {
      SCOPED_TRACE(fmt::format("option {}, {} bytes", option, length));
      RawClient client(server);
      client.ask(Option::structured_reply);
      const auto garbage = test::random_bytes(option * 1000 + length, length);
      const auto answers = client.ask(option, garbage);
      const bool known = (option == 3) || (option >= 5 && option <= 11);
      EXPECT_TRUE(answers.back().type == (known ? OptionReply::error_invalid : OptionReply::error_unsupported));
      EXPECT_EQ(client.verdict(Option::list), OptionReply::ack);
    }
  }
}

TEST_F(nbd_handshake, safety_15_a_message_is_not_cut_within_a_character) {
  RawClient client(server);
  std::string name = "x";
  while (name.size() + 2 <= max_string_length) name += "\u00e9";
  const auto refusal = client.ask(Option::info, info_data(name)).back();
  EXPECT_EQ(refusal.type, OptionReply::error_unknown);
  EXPECT_EQ(refusal.data.size(), max_string_length - 1);
  EXPECT_EQ(printable(refusal.text()), refusal.text());
}

TEST_F(nbd_handshake, safety_15_lengths_within_options_are_not_believed) {
  RawClient client(server);
  client.ask(Option::structured_reply);
  for (const Option option : {Option::info, Option::go, Option::list_meta_context, Option::set_meta_context}) {
    Bytes data;
    append_be<uint32_t>(data, 0xFFFFFFFF);  // of the name
    append_text(data, "disk");
    EXPECT_EQ(client.verdict(option, data), OptionReply::error_invalid);
    data.clear();
    append_be<uint32_t>(data, 4);
    append_text(data, "disk");
    append_be<uint32_t>(data, 0xFFFFFFFF);  // of the list behind it
    EXPECT_EQ(client.verdict(option, data), OptionReply::error_invalid);
  }
}

TEST_F(nbd_handshake, safety_15_oversized_options_are_read_over_or_cut_off) {
  RawClient client(server);
  const Bytes big(max_option_length + 1);
  EXPECT_EQ(client.ask(Option::list, big).back().type, OptionReply::error_too_big);
  EXPECT_EQ(client.ask(99, big).back().type, OptionReply::error_unsupported);
  EXPECT_EQ(client.verdict(Option::list), OptionReply::ack);
  client.send_option(3, {}, max_skipped_option_length + 1);
  EXPECT_TRUE(client.is_closed());
}

TEST_F(nbd_handshake, safety_15_options_come_in_any_order_and_number) {
  RawClient client(server);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client.verdict(Option::list), OptionReply::ack);
    EXPECT_EQ(client.verdict(Option::info, info_data("scratch")), OptionReply::ack);
    EXPECT_EQ(client.verdict(Option::structured_reply), OptionReply::ack);
    EXPECT_EQ(client.verdict(Option::set_meta_context, context_data("disk", {"base:allocation"})), OptionReply::ack);
    EXPECT_EQ(client.verdict(Option::starttls), OptionReply::error_unsupported);
  }
  EXPECT_EQ(client.verdict(Option::abort), OptionReply::ack);
  EXPECT_TRUE(client.is_closed());
}

TEST_F(nbd_handshake, safety_15_pipelined_options_are_answered_in_order) {
  RawClient client(server);
  for (int i = 0; i < 50; ++i) client.send_option(Option::list);
  for (int i = 0; i < 50; ++i) {
    while (client.receive_answer().type != OptionReply::ack) {
    }
  }
}

TEST_F(nbd_handshake, safety_15_unknown_client_flags_and_magics_end_the_connection) {
  RawClient flags(server, 0x80000000);
  EXPECT_TRUE(flags.is_closed());
  RawClient garbage(server);
  garbage.send(text_data("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_TRUE(garbage.is_closed());
}

TEST_F(nbd_handshake, cve_2017_7539_and_2017_9524_hanging_up_at_any_byte_harms_nobody) {
  Bytes whole;
  append_be<uint32_t>(whole, client_flag_fixed_newstyle | client_flag_no_zeroes);
  append_be<uint64_t>(whole, option_magic);
  append_be<uint32_t>(whole, static_cast<uint32_t>(Option::go));
  const Bytes data = info_data("disk");
  append_be<uint32_t>(whole, static_cast<uint32_t>(data.size()));
  whole.insert(whole.end(), data.begin(), data.end());
  append_be<uint32_t>(whole, request_magic);
  for (size_t count = 0; count <= whole.size(); ++count) {
    RawClient client(server, std::nullopt);
    client.send(std::span(whole).first(count));
  }
  RawClient(server).go();
}

TEST_F(nbd_handshake, cve_2017_15118_long_names_are_refused_in_every_option) {
  RawClient client(server);
  client.ask(Option::structured_reply);
  for (const size_t length : {257UL, 4096UL, 4097UL, 60000UL}) {
    const std::string name(length, 'n');
    const auto expected = length > max_string_length ? OptionReply::error_invalid : OptionReply::error_unknown;
    EXPECT_EQ(client.verdict(Option::info, info_data(name)), expected);
    EXPECT_EQ(client.verdict(Option::go, info_data(name)), expected);
    EXPECT_EQ(client.verdict(Option::set_meta_context, context_data(name, {})), expected);
    RawClient old(server);
    old.send_option(Option::export_name, text_data(name));
    EXPECT_TRUE(old.is_closed());
  }
}

TEST_F(nbd_handshake, cve_2017_15119_gigabytes_of_option_data_are_not_read) {
  for (uint32_t option = 0; option < all_options; ++option) {
    RawClient client(server);
    client.send_option(option, {}, 0xFFFFFFFF);
    EXPECT_TRUE(client.is_closed());
  }
}

TEST_F(nbd_handshake, cve_2021_3716_starttls_is_refused_and_what_follows_it_is_plain_negotiation) {
  RawClient client(server);
  client.send_option(Option::starttls);
  client.send_option(Option::list);  // injected behind it
  const auto refusal = client.receive_answer();
  EXPECT_EQ(refusal.type, OptionReply::error_unsupported);
  EXPECT_THAT(refusal.text(), HasSubstr("no TLS"));
  EXPECT_EQ(client.receive_answer().type, OptionReply::server);
}

TEST(nbd_limits, safety_16_a_handshake_has_a_time_limit) {
  const TestServer test({.handshake = std::chrono::seconds(2)});
  RawClient silent(*test.server, std::nullopt);
  RawClient partial(*test.server);
  partial.send(text_data("IHAVE"));
  RawClient finished(*test.server);
  finished.go();
  silent.receive(18);
  EXPECT_TRUE(silent.is_closed());
  EXPECT_TRUE(partial.is_closed());
  EXPECT_EQ(finished.read(0, 512), Bytes(test.content.begin(), test.content.begin() + 512));
}

TEST(nbd_limits, safety_16_connections_are_capped_and_a_place_that_is_left_is_free_again) {
  const TestServer test({.connections = 2});
  RawClient first(*test.server);
  first.go();
  {
    RawClient second(*test.server);
    second.go();
    RawClient third(*test.server, std::nullopt);
    EXPECT_TRUE(third.is_closed());
  }
  EXPECT_TRUE(test::wait_until([&] {
    try {
      RawClient(*test.server).go();
      return true;
    } catch (const std::runtime_error&) {
      return false;
    }
  }));
}

}  // namespace
}  // namespace drydock::nbd
