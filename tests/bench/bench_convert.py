# SPDX-License-Identifier: GPL-3.0-or-later
"""convert, compare and measure beside qemu-img, and beside cp where the bytes are only copied.

Neither side waits for the disk (-t unsafe, qemu-img's default). Each run makes its target anew; what was there is
removed before, outside the time. After each line drydock's target is compared with the source by qemu-img, and its
size is told beside the peer's where both compress.
"""

import os
import pathlib
import random

import lib

# qemu-img's default, and its best documented setting for parallel work.
QEMU_SETTINGS = [[], ["-W", "-m", "16"]]


class Copy(lib.Side):
    """A program that makes `target`."""

    def __init__(self, name, command, target):
        self.target = target
        super().__init__(name, lambda: self._run(command))

    def _run(self, command):
        pathlib.Path(self.target).unlink(missing_ok=True)
        return lib.timed_program([*command, self.target])


def check_target(source, ours, peer, compressed):
    lib.timed(["qemu-img", "compare", source, ours.target])
    if compressed:
        sizes = [os.stat(side.target).st_size for side in (ours, peer)]
        print(f"#   size: ours {sizes[0]}, {peer.name} {sizes[1]}: {sizes[0] / sizes[1] - 1:+.2%}", flush=True)


def convert_line(bench, work, source, options, peers=()):
    """drydock convert beside qemu-img convert in each of its settings, and beside `peers`."""
    bench.data.warm(source)
    folder = bench.data.folder
    words = ["convert", *options]
    ours = Copy("drydock", [bench.drydock, *words, "-t", "unsafe", source], f"{folder}/ours.img")
    others = [Copy(" ".join(["qemu-img", *settings]), ["qemu-img", *words, *settings, source], f"{folder}/theirs.img")
              for settings in QEMU_SETTINGS] + list(peers)
    for peer in others:
        bench.compare(work, ours, peer)
        check_target(source, ours, peer, "-c" in options)
        for side in (ours, peer):
            pathlib.Path(side.target).unlink(missing_ok=True)


def plain(bench):
    data, folder = bench.data, bench.data.folder
    raw = data.raw()
    data.warm(raw)
    copies = [Copy("cp of the raw file", ["cp", raw], f"{folder}/theirs.img")]
    convert_line(bench, "qcow2 to raw", data.qcow2(), ["-f", "qcow2", "-O", "raw"], copies)
    convert_line(bench, "qcow2 to raw, -C", data.qcow2(), ["-C", "-f", "qcow2", "-O", "raw"], copies)
    convert_line(bench, "raw to qcow2", raw, ["-f", "raw", "-O", "qcow2"])
    convert_line(bench, "chain to qcow2", data.chain(), ["-f", "qcow2", "-O", "qcow2"])


def decompress(bench):
    for kind, source in (("zlib", bench.data.zlib()), ("zstd", bench.data.zstd())):
        convert_line(bench, f"{kind} qcow2 to raw", source, ["-f", "qcow2", "-O", "raw"])


def compress(bench):
    raw = bench.data.raw()
    for kind in ("zlib", "zstd"):
        options = ["-c", "-f", "raw", "-O", "qcow2", "-o", f"compression_type={kind}"]
        convert_line(bench, f"raw to {kind} qcow2", raw, options)


def both_programs(bench, work, words):
    """One line for what both answer to the same words."""
    sides = [lib.Side(name, lambda program=program: lib.timed_program([program, *words]))
             for name, program in (("drydock", bench.drydock), ("qemu-img", "qemu-img"))]
    bench.compare(work, *sides)


def compare(bench):
    data = bench.data
    pairs = [("qcow2 and raw", data.qcow2(), data.raw()), ("zlib qcow2 and raw", data.zlib(), data.raw()),
             ("chain and itself", data.chain(), data.chain())]
    for work, first, second in pairs:
        data.warm(first, second)
        both_programs(bench, f"compare {work}", ["compare", first, second])


def fragmented(bench):
    """1 TiB with 4 GiB of clusters that were allocated in random order; they hold no bytes, for none are read."""

    def make(path):
        lib.timed(["qemu-img", "create", "-f", "qcow2", str(path), "1T"])
        clusters = (1 << 40) // lib.BLOCK
        chosen = random.Random(1).sample(range(clusters), (4 << 30) // lib.BLOCK)
        script = "".join(f"write -P 1 {cluster * lib.BLOCK} 512\n" for cluster in chosen)
        lib.timed(["qemu-io", "-f", "qcow2", "--cache=unsafe", str(path)], input=script)

    return bench.data.made("fragmented.qcow2", make)


def measure(bench):
    image = fragmented(bench)
    bench.data.warm(image)
    for words in (["info"], ["measure", "-O", "qcow2"], ["map", "--output=json"]):
        both_programs(bench, f"{words[0]}, fragmented 1 TiB", [*words, image])


BENCHMARKS = {"convert-plain": plain, "convert-decompress": decompress, "convert-compress": compress,
              "compare": compare, "measure": measure}
