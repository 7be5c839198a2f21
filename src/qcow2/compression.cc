// SPDX-License-Identifier: GPL-3.0-or-later

#include "src/qcow2/compression.h"

#include <libdeflate.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace drydock::qcow2 {

namespace {

struct FreeDeflate {
  void operator()(libdeflate_decompressor* decoder) const { libdeflate_free_decompressor(decoder); }
};
struct FreeZstd {
  void operator()(ZSTD_DCtx* decoder) const { ZSTD_freeDCtx(decoder); }
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

}  // namespace

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
