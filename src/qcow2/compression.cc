// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/compression.h"

#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>

#include "src/qcow2/compressibility.h"

namespace drydock::qcow2 {

namespace {

constexpr int usual_level = 6;  // zlib's default, and QEMU's

struct FreeDeflate {
  void operator()(libdeflate_decompressor* decoder) const { libdeflate_free_decompressor(decoder); }
};
struct FreeZstd {
  void operator()(ZSTD_DCtx* decoder) const { ZSTD_freeDCtx(decoder); }
  void operator()(ZSTD_CCtx* encoder) const { ZSTD_freeCCtx(encoder); }
};

// The slow way for streams that libdeflate refuses: those that do not end with the cluster. QEMU takes the first
// cluster's worth of bytes from them, and so do we.
bool inflate_prefix(std::span<const std::byte> input, std::span<std::byte> cluster) {
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return false;  // negative: raw deflate
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input.data()));
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = reinterpret_cast<Bytef*>(cluster.data());
  stream.avail_out = static_cast<uInt>(cluster.size());
  inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  return stream.avail_out == 0;
}

// Deflate with a 12-bit window, without zlib's header and trailer.
bool decompress_zlib(std::span<const std::byte> input, std::span<std::byte> cluster) {
  thread_local const std::unique_ptr<libdeflate_decompressor, FreeDeflate> decoder(libdeflate_alloc_decompressor());
  if (!decoder) return inflate_prefix(input, cluster);
  const libdeflate_result result =
      libdeflate_deflate_decompress(decoder.get(), input.data(), input.size(), cluster.data(), cluster.size(), nullptr);
  return result == LIBDEFLATE_SUCCESS || (result == LIBDEFLATE_INSUFFICIENT_SPACE && inflate_prefix(input, cluster));
}

// One frame, or several that make up the cluster. Decoding whole frames straight into the cluster needs no window
// buffer, however large a window the frame asks for.
bool decompress_zstd(std::span<const std::byte> input, std::span<std::byte> cluster) {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> decoder(ZSTD_createDCtx());
  if (!decoder) return false;
  while (!cluster.empty()) {
    const size_t frame = ZSTD_findFrameCompressedSize(input.data(), input.size());
    if (ZSTD_isError(frame) != 0) return false;
    const size_t got = ZSTD_decompressDCtx(decoder.get(), cluster.data(), cluster.size(), input.data(), frame);
    if (ZSTD_isError(got) != 0) return false;
    input = input.subspan(frame);
    cluster = cluster.subspan(got);
  }
  return true;
}

// zlib's levels: as QEMU's, for what has nothing to be found in it, and for what needs no looking.
int level_for(Compressibility piece) {
  switch (piece) {
    case Compressibility::none:
      return Z_NO_COMPRESSION;
    case Compressibility::zeros:
      return Z_BEST_SPEED;
    default:
      return usual_level;
  }
}

// libdeflate, which decodes so well, cannot keep its window to 12 bits; zlib can.
class Deflater {
 public:
  Deflater() {
    constexpr int window_bits = -12;  // negative: raw deflate
    constexpr int most_memory = 9;
    usable_ = deflateInit2(&stream_, usual_level, Z_DEFLATED, window_bits, most_memory, Z_DEFAULT_STRATEGY) == Z_OK;
  }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;
  ~Deflater() {
    if (usable_) deflateEnd(&stream_);
  }

  std::optional<size_t> encode(std::span<const std::byte> cluster, std::span<std::byte> output) {
    if (!usable_ || deflateReset(&stream_) != Z_OK) return std::nullopt;
    stream_.avail_in = 0;
    stream_.next_out = reinterpret_cast<Bytef*>(output.data());
    stream_.avail_out = static_cast<uInt>(output.size());
    judge_.begin(cluster);
    size_t done = 0;
    Compressibility now = judge_.judge(0);
    while (done < cluster.size()) {
      // Pieces of one kind in a row.
      size_t end = done + CompressibilityJudge::piece_size;
      Compressibility next = now;
      while (end < cluster.size() && (next = judge_.judge(end)) == now) end += CompressibilityJudge::piece_size;
      end = std::min(end, cluster.size());
      if (!add(cluster.subspan(done, end - done), level_for(now), end == cluster.size())) return std::nullopt;
      done = end;
      now = next;
    }
    return output.size() - stream_.avail_out;
  }

 private:
  // False where there is no room left.
  bool add(std::span<const std::byte> bytes, int level, bool last) {
    if (level != level_ && deflateParams(&stream_, level, Z_DEFAULT_STRATEGY) != Z_OK) return false;
    level_ = level;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    if (last) return deflate(&stream_, Z_FINISH) == Z_STREAM_END;
    return deflate(&stream_, Z_NO_FLUSH) == Z_OK && stream_.avail_out > 0;
  }

  CompressibilityJudge judge_;
  int level_ = usual_level;
  z_stream stream_{};
  bool usable_ = false;
};

std::optional<size_t> compress_zlib(std::span<const std::byte> cluster, std::span<std::byte> output) {
  thread_local Deflater encoder;
  return encoder.encode(cluster, output);
}

std::optional<size_t> compress_zstd(std::span<const std::byte> cluster, std::span<std::byte> output) {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeZstd> encoder(ZSTD_createCCtx());
  if (!encoder) return std::nullopt;
  const size_t size = ZSTD_compressCCtx(encoder.get(), output.data(), output.size(), cluster.data(), cluster.size(),
                                        ZSTD_CLEVEL_DEFAULT);
  if (ZSTD_isError(size) != 0) return std::nullopt;
  return size;
}

}  // namespace

std::optional<size_t> compress(CompressionType type, std::span<const std::byte> cluster, std::span<std::byte> output) {
  if (cluster.empty()) return std::nullopt;
  const std::span<std::byte> smaller = output.first(std::min(output.size(), cluster.size() - 1));
  switch (type) {
    case CompressionType::zlib:
      return compress_zlib(cluster, smaller);
    case CompressionType::zstd:
      return compress_zstd(cluster, smaller);
  }
  return std::nullopt;
}

bool decompress(CompressionType type, std::span<const std::byte> input, std::span<std::byte> cluster) {
  switch (type) {
    case CompressionType::zlib:
      return decompress_zlib(input, cluster);
    case CompressionType::zstd:
      return decompress_zstd(input, cluster);
  }
  return false;
}

}  // namespace drydock::qcow2
