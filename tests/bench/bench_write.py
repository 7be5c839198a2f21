# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes to a qcow2 image, and the memory that a large one takes: drydock bench beside qemu-img bench and qemu-io.

The time of a run is what the program itself says that its requests took: neither side flushes within it, and both do
when they close the image, which is not counted; with "flushed" both flush after every 64 requests. Every run of an
overwrite begins with a clean image in the page cache, every run of an allocating write with a new, empty one. The peer
"pwrite" is the limit: the same number of bytes, to the same places, by a bare loop of pwrite in one thread on a raw
file.
"""

import os
import re
import subprocess
import tempfile

import lib

# Of 4 KiB pages an odd number: all places of a disk of 2^n pages take their turn before one comes again.
STEP = 18691 * 4096
OVERWRITES = 100000
DEPTH = 32

# The settings of qemu-img bench that may be its best; -n is O_DIRECT's.
QEMU_SETTINGS = [["-t", "writeback", "-i", "threads"], ["-t", "writeback", "-i", "io_uring"],
                 ["-t", "unsafe", "-i", "io_uring"]]

LIMIT = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
/* FILE COUNT BYTES STEP SIZE AHEAD: pwrite in a loop; with AHEAD > 0 the space is taken so many bytes ahead */
int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const int fd = open(argv[1], O_RDWR);
  const long count = atol(argv[2]), bytes = atol(argv[3]), step = atol(argv[4]), size = atol(argv[5]);
  const long ahead = atol(argv[6]);
  char* buffer = calloc(1, bytes);
  long taken = 0;
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long i = 0; i < count; ++i) {
    const long offset = i * step % size;
    if (ahead > 0 && offset + bytes > taken) {
      if (fallocate(fd, 0, taken, ahead) != 0) return 1;
      taken += ahead;
    }
    if (pwrite(fd, buffer, bytes, offset) != bytes) return 1;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("Run completed in %.3f seconds.\n", (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9);
  return 0;
}
"""


def timed_by_itself(command):
    """A Measure with the seconds that the program says its requests took."""
    measure = lib.timed_program(command)
    measure.seconds = float(re.search(r"Run completed in ([0-9.]+) seconds", measure.output).group(1))
    return measure


class Work:
    """Equal requests to an image: `prepare` brings the files into the state that every run begins with."""

    def __init__(self, bench, folder, count, bytes_each, step, flush_interval=0):
        self.drydock, self.size = bench.drydock, bench.data.size
        self.image, self.raw, self.limit = f"{folder}/image.qcow2", f"{folder}/image.raw", f"{folder}/limit"
        self.count, self.bytes_each, self.step = count, bytes_each, step
        self.flush_interval = flush_interval
        compiler = ["gcc", "-O2", "-D_GNU_SOURCE", "-x", "c", "-", "-o", self.limit]
        subprocess.run(compiler, input=LIMIT, text=True, check=True)

    def _requests(self):
        requests = ["-w", "-c", str(self.count), "-d", str(DEPTH), "-s", str(self.bytes_each), "-S", str(self.step)]
        return requests + ([f"--flush-interval={self.flush_interval}"] if self.flush_interval else [])

    def ours(self):
        def run():
            self.prepare(self.image)
            return timed_by_itself([self.drydock, "bench", "-f", "qcow2", *self._requests(), self.image])

        return lib.Side("drydock bench", run)

    def qemu_img(self, settings):
        def run():
            self.prepare(self.image)
            return timed_by_itself(["qemu-img", "bench", "-f", "qcow2", *settings, *self._requests(), self.image])

        return lib.Side("qemu-img " + " ".join(settings[1::2]), run)

    def qemu_io(self):
        """All requests in one script; its time is from the first to the last, which it tells nowhere, so that of the
        whole run less that of opening and closing the image."""
        word = "aio_write" if self.bytes_each < lib.BLOCK else "write"
        places = (index * self.step % self.size for index in range(self.count))
        script = "".join(f"{word} -q {place} {self.bytes_each}\n" for place in places)

        def run():
            self.prepare(self.image)
            command = ["qemu-io", "-f", "qcow2", "-t", "unsafe", "-i", "io_uring", self.image]
            idle = lib.timed_program(command, script="")
            self.prepare(self.image)
            measure = lib.timed_program(command, script=script + "aio_flush\n" * (word == "aio_write"))
            measure.seconds -= idle.seconds
            return measure

        return lib.Side("qemu-io unsafe", run)

    def pwrite(self, ahead):
        def run():
            self.prepare(self.raw)
            return timed_by_itself([self.limit, self.raw, str(self.count), str(self.bytes_each), str(self.step),
                                    str(self.size), str(ahead)])

        return lib.Side("limit: pwrite", run)

    def compare(self, bench, name, ahead=0):
        # "unsafe" is no flush at all.
        peers = [self.qemu_img(settings) for settings in QEMU_SETTINGS if not (self.flush_interval and "unsafe" in settings)]
        if not self.flush_interval:
            peers += [self.qemu_io(), self.pwrite(ahead)]
        bench.compare(name, self.ours(), *peers)


class Overwrites(Work):
    """Of an image whose clusters all are its own. Its pages come into the cache one by one (`large_folios` False), as
    they do when a guest reads here and there, or by read-ahead, in large folios: there ext4's writes cost as much as
    the folio is large, whoever makes them."""

    def __init__(self, *arguments, large_folios=False, **options):
        super().__init__(*arguments, **options)
        self.large_folios = large_folios
        for path, image_format in ((self.image, "qcow2"), (self.raw, "raw")):
            lib.timed(["qemu-img", "create", "-f", image_format, path, str(self.size)])
            lib.timed(["qemu-img", "bench", "-w", "-t", "unsafe", "-f", image_format, "-d", "4", "-s", "1M", "-c",
                       str(self.size >> 20), "--pattern=85", path])
            self._into_cache(path)

    def _into_cache(self, path):
        with open(path, "rb", buffering=0) as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not self.large_folios:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            while file.read((1 << 20) if self.large_folios else 4096):
                pass

    def prepare(self, path):
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())


class Allocating(Work):
    def prepare(self, path):
        if os.path.exists(path):
            os.unlink(path)
        image_format = "raw" if path == self.raw else "qcow2"
        lib.timed(["qemu-img", "create", "-f", image_format, path, "0" if path == self.raw else str(self.size)])
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _folder(bench):
    return tempfile.TemporaryDirectory(dir=bench.data.folder, prefix="write-")


def overwrites(bench):
    lib.need("qemu-img", "qemu-io", "gcc")
    with _folder(bench) as folder:
        Overwrites(bench, folder, OVERWRITES, 4096, STEP).compare(bench, "4 KiB random overwrites")
    with _folder(bench) as folder:
        Overwrites(bench, folder, OVERWRITES // 4, 4096, STEP, large_folios=True).compare(
            bench, "4 KiB overwrites, large folios")
    with _folder(bench) as folder:
        Overwrites(bench, folder, OVERWRITES // 50, 4096, STEP, flush_interval=64).compare(
            bench, "4 KiB overwrites, flushed")


def allocating(bench):
    lib.need("qemu-img", "qemu-io", "gcc")
    with _folder(bench) as folder:
        Allocating(bench, folder, bench.data.size >> 20, 1 << 20, 1 << 20).compare(bench, "1 MiB allocating writes",
                                                                                   ahead=8 << 20)
        Allocating(bench, folder, bench.data.size >> 20, 1 << 20, 1 << 20, flush_interval=64).compare(
            bench, "1 MiB allocating, flushed")


BENCHMARKS = {"write-overwrites": overwrites, "write-allocating": allocating}
