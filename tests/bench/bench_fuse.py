# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequential reads of a disk shown as a file: drydock export beside qemu-storage-daemon's FUSE export.

Each run mounts afresh, so that the mount's own page cache is empty; the image's is warm. Mounting is not timed.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import tempfile

import lib

CLIENTS = {"dd bs=1M": lambda path: ["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"],
         "cat": lambda path: ["sh", "-c", 'cat "$0" > /dev/null', path],
         "fio psync 128k": lambda path: ["fio", "--name=read", f"--filename={path}", "--readonly", "--rw=read", "--bs=128k",
                                         "--ioengine=psync", "--invalidate=0", "--allow_file_create=0",
                                         "--output=/dev/null"]}


def mounted(point):
    return any(line.split()[1] == str(point) for line in open("/proc/mounts"))


def stop(process, point):
    process.send_signal(signal.SIGTERM)
    process.wait()
    if mounted(point):
        raise RuntimeError(f"{point} is still mounted")


@contextlib.contextmanager
def ours(bench, image, folder):
    point = pathlib.Path(folder, "mnt")
    point.mkdir()
    process = subprocess.Popen([bench.drydock, "export", "--foreground", image, str(point)])
    try:
        lib.wait_for(lambda: mounted(point), "drydock export")
        yield str(point / "disk.raw"), process.pid
    finally:
        stop(process, point)


@contextlib.contextmanager
def storage_daemon(image, folder):
    point = pathlib.Path(folder, "file")
    point.touch()
    layers = ["--blockdev", f"driver=file,node-name=file,read-only=on,filename={image}"]
    node = "file"
    if image.endswith(".qcow2"):
        layers += ["--blockdev", "driver=qcow2,node-name=disk,read-only=on,file=file"]
        node = "disk"
    process = subprocess.Popen(["qemu-storage-daemon", *layers, "--export",
                                f"type=fuse,id=export,node-name={node},mountpoint={point}"])
    try:
        lib.wait_for(lambda: mounted(point), "qemu-storage-daemon")
        yield str(point), process.pid
    finally:
        stop(process, point)


def measured(server, client):
    """One run: mount, read with `client`, look at what it cost the server, unmount."""
    with tempfile.TemporaryDirectory() as folder, server(folder) as (path, pid):
        seconds = lib.timed(client(path))
        return lib.Measure(seconds, *lib.usage_of(pid))


def compare(bench, work, image, client):
    bench.data.warm(image)
    bench.compare(work, lib.Side("drydock", lambda: measured(lambda folder: ours(bench, image, folder), client)),
                  lib.Side("qemu-storage-daemon", lambda: measured(lambda folder: storage_daemon(image, folder), client)))


def sequential(bench):
    lib.need("qemu-storage-daemon", "qemu-img", "fio", "dd")
    images = {"raw": bench.data.raw(), "qcow2": bench.data.qcow2(), "zlib": bench.data.zlib(), "zstd": bench.data.zstd()}
    for name, image in images.items():
        for client, command in CLIENTS.items():
            compare(bench, f"fuse {name}, {client}", image, command)


def copies(bench):
    """cp reads sparse files by their holes, into memory: a disk's write-back would drown what is measured."""
    lib.need("qemu-storage-daemon", "qemu-img", "cp")
    target = f"/dev/shm/drydock-bench-{os.getpid()}"
    for name, image in {"raw": bench.data.raw(), "qcow2": bench.data.qcow2()}.items():
        compare(bench, f"fuse {name}, cp", image, lambda path: ["cp", "--sparse=always", path, target])
    os.unlink(target)


BENCHMARKS = {"fuse-sequential": sequential, "fuse-copy": copies}
