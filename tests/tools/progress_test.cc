// SPDX-License-Identifier: GPL-3.0-or-later

#include "tools/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "src/error.h"
#include "tests/support/support.h"

namespace drydock::cli {
namespace {

using nlohmann::json;
using test::error_of;

const std::vector<OptionSpec>& specs() {
  static const std::vector<OptionSpec> all = join(progress_options(), {{'q', "quiet", "", "print errors alone"}});
  return all;
}

using Given = std::vector<std::pair<std::string, std::string>>;

// An invocation with options given by name, and what it prints.
struct Work {
  explicit Work(const Given& given = {}) {
    for (const auto& [name, value] : given) {
      for (const OptionSpec& spec : specs()) {
        if (spec.long_name == name) invocation.options.add(&spec, value);
      }
    }
  }

  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Streams io{in, out, err};
  Invocation invocation{.io = io, .program = "drydock work", .options = {}, .arguments = {}};
};

// A pipe whose end for reading gives whole lines of JSON.
class JsonPipe {
 public:
  JsonPipe() {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) throw std::runtime_error("pipe");
    reader_.reset(ends[0]);
    writer_.reset(ends[1]);
  }
  int writer() const { return writer_.get(); }
  void close_reader() { reader_.reset(); }
  std::vector<json> lines() {
    writer_.reset();
    std::string text(65536, '\0');
    text.resize(static_cast<size_t>(std::max<ssize_t>(0, ::read(reader_.get(), text.data(), text.size()))));
    std::vector<json> all;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) all.push_back(json::parse(line));
    return all;
  }

 private:
  UniqueFd reader_;
  UniqueFd writer_;
};

TEST(progress, a_bar_fits_into_a_terminal_of_any_width) {
  for (size_t columns = 1; columns <= 200; ++columns) {
    EXPECT_LT(progress_bar(42.125, "1.17 GiB/s", "1:00:12 left", columns).size(), columns) << columns;
  }
  EXPECT_EQ(progress_bar(50, "1 B/s", "0:02 left", 35), " 50.00% [####    ] 1 B/s 0:02 left");
  EXPECT_EQ(progress_bar(50, "1 B/s", "0:02 left", 29), " 50.00% [####    ] 0:02 left");
  EXPECT_EQ(progress_bar(50, "1 B/s", "0:02 left", 17), " 50.00% [###   ]");
  EXPECT_EQ(progress_bar(50, "1 B/s", "0:02 left", 9), " 50.00%");
}

TEST(progress, prints_percentages_as_qemu_img_does) {
  Work work(Given{{"progress", ""}});
  {
    Progress progress(work.invocation);
    progress.begin(1000);
    progress.advance(5);  // less than one per cent more is not shown
    progress.advance(120);
    progress.advance_to(500);
    progress.advance(500);
    progress.finish();
  }
  EXPECT_EQ(work.out.str(), "    (0.00/100%)\r    (12.50/100%)\r    (50.00/100%)\r    (100.00/100%)\r\n");
  EXPECT_EQ(work.err.str(), "");
}

TEST(progress, has_the_last_words_before_the_end_of_its_line) {
  Work work(Given{{"progress", ""}});
  {
    Progress progress(work.invocation);
    progress.begin(0);
    progress.finish("Images are identical.\n");
  }
  EXPECT_EQ(work.out.str(), "    (0.00/100%)\r    (100.00/100%)\rImages are identical.\n\n");
}

TEST(progress, is_silent_unless_asked_for_and_when_told_to_be_quiet) {
  for (const Given& given : {Given{}, Given{{"progress", ""}, {"quiet", ""}}}) {
    Work work(given);
    {
      Progress progress(work.invocation);
      progress.begin(10);
      progress.advance(10);
      progress.finish();
    }
    EXPECT_EQ(work.out.str(), "");
    EXPECT_EQ(work.err.str(), "");
  }
}

TEST(progress, counts_what_many_threads_do) {
  JsonPipe pipe;
  Work work(Given{{"progress-fd", std::to_string(pipe.writer())}});
  {
    Progress progress(work.invocation);
    progress.begin(4000);
    {
      std::vector<std::jthread> threads;
      for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
          for (int n = 0; n < 1000; ++n) progress.advance(1);
        });
      }
    }
    progress.finish_early("");  // which does not round up
  }
  const json last = pipe.lines().back();
  EXPECT_EQ(last["done"], 4000);
}

TEST(progress, writes_lines_of_json) {
  JsonPipe pipe;
  Work work(Given{{"progress-fd", std::to_string(pipe.writer())}});
  {
    Progress progress(work.invocation);
    progress.begin(1 << 20);
    progress.advance(1 << 18);
    progress.finish();
  }
  const std::vector<json> lines = pipe.lines();
  ASSERT_GE(lines.size(), 2U);
  EXPECT_EQ(lines.front()["state"], "running");
  EXPECT_EQ(lines.front()["percent"], 0);
  EXPECT_EQ(lines.front()["seconds_left"], nullptr);
  EXPECT_EQ(lines.back()["state"], "finished");
  EXPECT_EQ(lines.back()["total"], 1 << 20);
  EXPECT_EQ(lines.back()["percent"], 100);
  EXPECT_EQ(lines.back()["seconds_left"], 0);
  EXPECT_TRUE(lines.back()["bytes_per_second"].is_number_unsigned());
  EXPECT_EQ(work.out.str(), "");
}

TEST(progress, tells_its_reader_of_a_failure) {
  JsonPipe pipe;
  Work work(Given{{"progress-fd", std::to_string(pipe.writer())}});
  {
    Progress progress(work.invocation);
    progress.begin(100);
  }
  EXPECT_EQ(pipe.lines().back()["state"], "failed");
  EXPECT_EQ(work.err.str(), "");
}

TEST(progress, goes_on_when_its_reader_went_away) {
  const auto before = std::signal(SIGPIPE, SIG_IGN);
  JsonPipe pipe;
  Work work(Given{{"progress-fd", std::to_string(pipe.writer())}});
  {
    Progress progress(work.invocation);
    pipe.close_reader();
    progress.begin(100);
    progress.advance(100);
    progress.finish("done\n");
  }
  EXPECT_EQ(work.out.str(), "done\n");
  std::signal(SIGPIPE, before);
}

TEST(progress, refuses_descriptors_that_are_not_open) {
  for (const auto& [value, message] :
       {std::pair<std::string, std::string>{"x", "--progress-fd: 'x' is not the number of a descriptor"},
        {"-1", "--progress-fd: '-1' is not the number of a descriptor"},
        {"987", "--progress-fd: descriptor 987 is not open"}}) {
    const Work work(Given{{"progress-fd", value}});
    EXPECT_STREQ(error_of([&] { const Progress progress(work.invocation); }).what(), message.c_str());
  }
}

// A stream that tells another thread when it has been flushed.
class FlushedBuffer : public std::stringbuf {
 public:
  bool flushed() const { return flushed_; }

 protected:
  int sync() override {
    flushed_ = true;
    return 0;
  }

 private:
  std::atomic<bool> flushed_ = false;
};

TEST(progress, answers_a_signal_without_being_asked_to_show) {
  std::istringstream in;
  std::ostringstream out;
  FlushedBuffer buffer;
  std::ostream err(&buffer);
  Streams io{in, out, err};
  const Invocation invocation{.io = io, .program = "drydock work", .options = {}, .arguments = {}};
  {
    Progress progress(invocation);
    progress.begin(200);
    progress.advance(25);
    ::kill(::getpid(), SIGUSR1);
    EXPECT_TRUE(test::wait_until([&] { return buffer.flushed(); }));
    progress.finish();
  }
  EXPECT_EQ(buffer.str(), "    (12.50/100%)\n");
  EXPECT_EQ(out.str(), "");
}

// Is killed by the signal that it sends itself.
void work_and_interrupt() {
  Streams io{std::cin, std::cerr, std::cerr};
  const Invocation invocation{.io = io, .program = "drydock work", .options = {}, .arguments = {}};
  try {
    Progress progress(invocation);
    progress.when_interrupted("the target is as it was");
    const std::shared_ptr<void> clean_up(nullptr, [](void*) { std::cerr << "cleaned up, "; });
    progress.begin(400);
    progress.advance(1);
    ::kill(::getpid(), SIGTERM);
    if (!test::wait_until([&] { return progress.interrupted(); })) std::abort();
    progress.advance(1);
    std::abort();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::interrupted) std::abort();
  }
}

TEST(ProgressDeathTest, an_interruption_unwinds_and_says_what_is_left) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(work_and_interrupt(), testing::KilledBySignal(SIGTERM),
              "cleaned up, drydock work: interrupted at 0.50%: the target is as it was");
}

}  // namespace
}  // namespace drydock::cli
