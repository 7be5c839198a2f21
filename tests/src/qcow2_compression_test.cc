// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/compression.h"

#include <gtest/gtest.h>

#include <zlib.h>

#include <algorithm>
#include <array>
#include <thread>
#include <vector>

#include "src/qcow2/compressibility.h"
#include "tests/support/support.h"

namespace drydock::qcow2 {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::array types{CompressionType::zlib, CompressionType::zstd};

// Text-like bytes: random words of few letters, repeated at all distances.
Bytes compressible(uint64_t seed, size_t size) {
  Bytes bytes = test::random_bytes(seed, size);
  for (std::byte& byte : bytes) byte &= std::byte{0x13};
  std::copy_n(bytes.begin(), size / 4, bytes.begin() + static_cast<std::ptrdiff_t>(size / 2));
  return bytes;
}

// Encodes, decodes, compares; returns the encoded bytes.
Bytes round_trip(CompressionType type, const Bytes& cluster) {
  Bytes encoded(cluster.size());
  const std::optional<size_t> size = compress(type, cluster, encoded);
  if (!size) return {};
  encoded.resize(*size);
  Bytes decoded(cluster.size());
  EXPECT_TRUE(decompress(type, encoded, decoded));
  EXPECT_TRUE(decoded == cluster);
  return encoded;
}

TEST(qcow2_compression, what_is_encoded_decodes_to_the_same_at_every_cluster_size) {
  for (const CompressionType type : types) {
    for (size_t size = 512; size <= 2 << 20; size *= 2) {
      const Bytes zeros = round_trip(type, Bytes(size));
      EXPECT_GT(zeros.size(), 0U);
      EXPECT_LE(zeros.size(), size / 16);
      const Bytes text = round_trip(type, compressible(size, size));
      EXPECT_GT(text.size(), 0U);
      EXPECT_LT(text.size(), size);
    }
  }
}

TEST(qcow2_compression, a_cluster_that_does_not_get_smaller_is_not_encoded) {
  for (const CompressionType type : types) {
    for (const size_t size : {size_t{512}, size_t{65536}, size_t{2 << 20}}) {
      Bytes output(2 * size);
      EXPECT_EQ(compress(type, test::random_bytes(size, size), output), std::nullopt);
    }
  }
}

// Pieces of 4 KiB of every kind, in every order.
TEST(qcow2_compression, what_changes_its_nature_decodes_to_the_same) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Bytes order = test::random_bytes(seed, 16);
    Bytes cluster(65536);
    for (size_t piece = 0; piece < order.size(); ++piece) {
      const auto kind = std::to_integer<unsigned>(order[piece]) % 3;
      if (kind == 0) continue;
      const Bytes bytes =
          kind == 1 ? test::random_bytes(seed * 16 + piece, 4096) : compressible(seed * 16 + piece, 4096);
      std::ranges::copy(bytes, cluster.begin() + static_cast<std::ptrdiff_t>(piece * 4096));
    }
    for (const CompressionType type : types) round_trip(type, cluster);
  }
}

TEST(qcow2_compression, half_random_half_zeros_takes_half_and_repeated_noise_next_to_nothing) {
  Bytes half = test::random_bytes(1, 65536);
  std::fill(half.begin() + 32768, half.end(), std::byte{0});
  const Bytes encoded = round_trip(CompressionType::zlib, half);
  EXPECT_GT(encoded.size(), 32768U);
  EXPECT_LT(encoded.size(), 32768U + 400);

  const Bytes noise = test::random_bytes(2, 2048);
  Bytes repeated;
  for (int i = 0; i < 32; ++i) repeated.insert(repeated.end(), noise.begin(), noise.end());
  EXPECT_LT(round_trip(CompressionType::zlib, repeated).size(), 4096U);
}

TEST(qcow2_compressibility, is_judged_piece_by_piece) {
  Bytes cluster = test::random_bytes(3, 5 * 4096);
  std::fill_n(cluster.begin() + 4096, 4096, std::byte{0});
  std::ranges::copy(compressible(4, 4096), cluster.begin() + 2 * 4096);
  std::copy_n(cluster.begin() + 3 * 4096, 4096, cluster.begin() + 4 * 4096);  // seen a piece ago
  CompressibilityJudge judge;
  for (int twice = 0; twice < 2; ++twice) {
    judge.begin(cluster);
    EXPECT_EQ(judge.judge(0), Compressibility::none);
    EXPECT_EQ(judge.judge(4096), Compressibility::zeros);
    EXPECT_EQ(judge.judge(2 * 4096), Compressibility::some);
    EXPECT_EQ(judge.judge(3 * 4096), Compressibility::none);
    EXPECT_EQ(judge.judge(4 * 4096), Compressibility::some);
  }
  const Bytes small = test::random_bytes(5, 512);
  judge.begin(small);
  EXPECT_EQ(judge.judge(0), Compressibility::none);
}

TEST(qcow2_compression, an_output_that_is_too_small_is_not_overrun) {
  for (const CompressionType type : types) {
    const Bytes cluster = compressible(7, 65536);
    const size_t needed = round_trip(type, cluster).size();
    Bytes output(needed + 16, std::byte{0xEE});
    EXPECT_EQ(compress(type, cluster, std::span(output).first(needed / 2)), std::nullopt);
    EXPECT_TRUE(std::all_of(output.begin() + static_cast<std::ptrdiff_t>(needed / 2), output.end(),
                            [](std::byte b) { return b == std::byte{0xEE}; }));
    // A failure leaves the thread's encoder fit for the next cluster.
    EXPECT_EQ(round_trip(type, cluster).size(), needed);
  }
}

// Readers may inflate with a window of 4 KiB; zlib itself then refuses any distance that is longer.
TEST(qcow2_compression, zlib_never_refers_further_back_than_4_kib) {
  Bytes cluster = test::random_bytes(1, 65536);
  for (size_t i = 0; i < cluster.size(); ++i) {
    if (i >= 5000) cluster[i] = cluster[i - 5000];  // what only a larger window could see
  }
  std::fill_n(cluster.begin(), 20000, std::byte{1});
  const Bytes encoded = round_trip(CompressionType::zlib, cluster);
  ASSERT_FALSE(encoded.empty());
  Bytes decoded(cluster.size());
  z_stream stream{};
  ASSERT_EQ(inflateInit2(&stream, -12), Z_OK);
  // In small pieces: given the whole output at once, inflate would look back into it past its window.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(encoded.data()));
  stream.avail_in = static_cast<uInt>(encoded.size());
  int status = Z_OK;
  std::array<std::byte, 256> piece{};
  for (size_t done = 0; done < decoded.size() && status == Z_OK; done += piece.size()) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = piece.size();
    status = inflate(&stream, Z_NO_FLUSH);
    std::ranges::copy(piece, decoded.begin() + static_cast<std::ptrdiff_t>(done));
  }
  inflateEnd(&stream);
  EXPECT_GE(status, Z_OK) << "inflate refused a distance";
  EXPECT_TRUE(decoded == cluster);
}

TEST(qcow2_compression, threads_encode_at_once) {
  std::vector<std::thread> threads;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    threads.emplace_back([seed] {
      for (uint64_t i = 0; i < 10; ++i) {
        for (const CompressionType type : types)
          EXPECT_FALSE(round_trip(type, compressible(seed * 100 + i, 32768)).empty());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace drydock::qcow2
