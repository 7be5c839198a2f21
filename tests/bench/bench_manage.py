# SPDX-License-Identifier: GPL-3.0-or-later
"""Work on whole images: commit, rebase, info, map, check, beside qemu-img.

commit and rebase change what they work on, so each run gets copies of its own; copying is not timed. qemu-img's own best
for both is its default: cache=writeback on the target, and no option that would let it use more than one thread.
"""

import os
import pathlib
import random
import shutil
import tempfile

import lib

FRAGMENTED_DISK = 1 << 40
FRAGMENTED_CLUSTERS = 65536  # 4 GiB
QUICK_RUNS = 20  # of a program that takes milliseconds, for one measurement


def fragmented(data):
    """fragmented: a 1 TiB qcow2 with 4 GiB allocated in random order of clusters."""

    def make(path):
        lib.timed(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(FRAGMENTED_DISK)])
        chosen = random.Random(1).sample(range(FRAGMENTED_DISK // lib.BLOCK), FRAGMENTED_CLUSTERS)
        script = "".join(f"write -q -P {1 + cluster % 255} {cluster * lib.BLOCK} {lib.BLOCK}\n" for cluster in chosen)
        lib.timed(["qemu-io", "-f", "qcow2", "--cache=unsafe", str(path)], input=script)

    return data.made("fragmented.qcow2", make)


def chain_files(data):
    """The chain's files, the base first."""
    top = pathlib.Path(data.chain())
    return [data.qcow2(), str(top.with_name(top.name.replace("chain2", "chain1"))), str(top)]


def on_copies(command, files):
    """Runs `command` in a folder that holds copies of `files`, whose backing files are named without one."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(files[0])) as folder:
        for name in files:
            shutil.copy(name, folder)
            lib.timed(["chmod", "u+w", os.path.join(folder, os.path.basename(name))])
        for below, name in zip(files, files[1:]):
            lib.timed(["qemu-img", "rebase", "-u", "-F", "qcow2", "-b", os.path.basename(below),
                       os.path.join(folder, os.path.basename(name))])
        return lib.timed_program([word.replace("{folder}", folder) for word in command])


def compare_changes(bench, work, words, files):
    bench.data.warm(*files)
    bench.compare(work, lib.Side("drydock", lambda: on_copies([bench.drydock, *words], files)),
                  lib.Side("qemu-img", lambda: on_copies(["qemu-img", *words], files)))


def commit(bench):
    lib.need("qemu-img", "qemu-io")
    files = chain_files(bench.data)
    base, top = (os.path.basename(files[index]) for index in (0, -1))
    compare_changes(bench, "commit, 30% of the disk", ["commit", "-q", "{folder}/" + os.path.basename(files[1])],
                    files[:2])
    compare_changes(bench, "commit -b, two layers", ["commit", "-q", "-b", "{folder}/" + base, "{folder}/" + top], files)


def rebase(bench):
    lib.need("qemu-img", "qemu-io")
    files = chain_files(bench.data)
    base, top = (os.path.basename(files[index]) for index in (0, -1))
    compare_changes(bench, "rebase past one layer", ["rebase", "-b", base, "-F", "qcow2", "{folder}/" + top], files)
    compare_changes(bench, "rebase to none", ["rebase", "-b", "", "{folder}/" + top], files)


def quick(command):
    """The mean of several runs: one alone is too short to measure."""
    runs = [lib.timed_program(command) for _ in range(QUICK_RUNS)]
    return lib.Measure(sum(run.seconds for run in runs) / QUICK_RUNS, sum(run.cpu for run in runs) / QUICK_RUNS,
                       max(run.rss for run in runs))


def compare_looks(bench, work, words, image, measure):
    bench.compare(work, lib.Side("drydock", lambda: measure([bench.drydock, *words, image])),
                  lib.Side("qemu-img", lambda: measure(["qemu-img", *words, image])))


def looks(bench):
    lib.need("qemu-img", "qemu-io")
    image = fragmented(bench.data)
    bench.data.warm(image)
    compare_looks(bench, "info, fragmented 1 TiB", ["info"], image, quick)
    compare_looks(bench, "map, fragmented 1 TiB", ["map"], image, lib.timed_program)
    compare_looks(bench, "map JSON, fragmented 1 TiB", ["map", "--output=json"], image, lib.timed_program)
    compare_looks(bench, "check, fragmented 1 TiB", ["check"], image, lib.timed_program)


BENCHMARKS = {"manage-commit": commit, "manage-rebase": rebase, "manage-look": looks}
