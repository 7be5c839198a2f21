# SPDX-License-Identifier: GPL-3.0-or-later
"""Peak memory for random reads all over a 2 TiB qcow2 image with all its L2 tables (256 MiB of them): it should stay at
the metadata cache's size plus 64 MiB. Beside qemu-img bench, whose cache of L2 tables has 32 MiB at most by itself."""

import tempfile

import bench_write
import lib

# Every request goes to another L2 table than the one before; 4096 of them later all have had a turn, and the next ones
# go on from there.
STEP = (3 << 29) + 4096
REQUESTS = 200000
CACHES = ["64K", "32M", "256M"]


def large_image(bench):
    lib.need("qemu-img")
    with tempfile.TemporaryDirectory(dir=bench.data.folder, prefix="memory-") as folder:
        image = f"{folder}/large.qcow2"
        lib.timed([bench.drydock, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "2T"])
        requests = ["-c", str(REQUESTS), "-d", "32", "-s", "4k", "-S", str(STEP), "-f", "qcow2", image]
        peer = lib.Side("qemu-img bench", lambda: bench_write.timed_by_itself(["qemu-img", "bench", *requests]))
        for cache in CACHES:
            command = [bench.drydock, "bench", f"--cache-size={cache}", *requests]
            ours = lib.Side("drydock bench", lambda command=command: bench_write.timed_by_itself(command))
            bench.compare(f"2 TiB, cache of {cache}", ours, peer)


BENCHMARKS = {"memory": large_image}
