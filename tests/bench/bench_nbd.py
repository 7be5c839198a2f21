# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequential reads over NBD: nbdcopy URI null:, beside qemu-nbd and qemu-storage-daemon.

Every server of a comparison runs for the whole of it, so that each side's caches are as warm as the others'; its CPU
seconds are those of one copy, its memory the peak of its life.
"""

import pathlib
import shlex
import signal
import subprocess
import tempfile

import lib

# nbdcopy's own: requests in flight per connection stay at its default of 64.
CLIENTS = [(connections, size) for connections in (1, 4) for size in (256 << 10, 1 << 20)]


class NbdServer:
    """A server on a Unix socket; ends with the block."""

    def __init__(self, name, socket, command):
        self.name, self.socket, self.command = name, socket, command

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        lib.wait_for(lambda: self.process.poll() is not None or self._answers(), self.name)
        if self.process.poll() is not None:
            raise RuntimeError(f"{shlex.join(self.command)} ended with status {self.process.returncode}")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def _answers(self):
        return pathlib.Path(self.socket).exists() and subprocess.run(
            ["nbdinfo", "--size", self.uri()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def copy(self, connections, size):
        command = ["nbdcopy", f"--connections={connections}", f"--request-size={size}", self.uri(), "null:"]
        before, _ = lib.usage_of(self.process.pid)
        seconds = lib.timed(command)
        after, rss = lib.usage_of(self.process.pid)
        return lib.Measure(seconds, after - before, rss)


def servers(drydock, path, image_format, folder):
    """drydock first, then the peers, each in its documented settings that could be its best."""
    chain = ["-f", image_format]
    ours = NbdServer("drydock", f"{folder}/drydock", [drydock, "serve", *chain, "--socket", f"{folder}/drydock", path])
    peers = []
    for number, settings in enumerate((["--aio=threads"], ["--aio=io_uring"], ["--aio=native", "--cache=none"])):
        socket = f"{folder}/qemu-nbd{number}"
        peers.append(NbdServer("qemu-nbd " + " ".join(settings).replace("--", ""), socket,
                               ["qemu-nbd", "-r", "-t", "-e", "16", *chain, *settings, "-k", socket, path]))
    socket = f"{folder}/storage-daemon"
    peers.append(NbdServer("qemu-storage-daemon", socket, [
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,node-name=file,filename={path},read-only=on,auto-read-only=off",
        "--blockdev", f"driver={image_format},node-name=disk,file=file,read-only=on",
        "--nbd-server", f"addr.type=unix,addr.path={socket},max-connections=16",
        "--export", "type=nbd,id=export,node-name=disk,name=,writable=off"]))
    return ours, peers


def compare(bench, work, path, image_format, warm):
    lib.need("nbdcopy", "nbdinfo", "qemu-nbd", "qemu-storage-daemon")
    bench.data.warm(*warm)
    with tempfile.TemporaryDirectory() as folder:
        ours, peers = servers(bench.drydock, path, image_format, folder)
        with ours:
            for peer in peers:
                with peer:
                    for connections, size in CLIENTS:
                        line = f"{work}, {connections} conn., {size >> 10} KiB"
                        bench.compare(line, lib.Side("drydock", lambda: ours.copy(connections, size)),
                                      lib.Side(peer.name, lambda: peer.copy(connections, size)))


def raw(bench):
    path = bench.data.raw()
    compare(bench, "nbd raw", path, "raw", [path])


def qcow2(bench):
    path = bench.data.qcow2()
    compare(bench, "nbd qcow2", path, "qcow2", [path])


def zlib(bench):
    path = bench.data.zlib()
    compare(bench, "nbd zlib", path, "qcow2", [path])


def zstd(bench):
    path = bench.data.zstd()
    compare(bench, "nbd zstd", path, "qcow2", [path])


def chain(bench):
    path = bench.data.chain()
    compare(bench, "nbd chain", path, "qcow2", [path, path.replace("chain2", "chain1"), bench.data.qcow2()])


BENCHMARKS = {"nbd-raw": raw, "nbd-qcow2": qcow2, "nbd-zlib": zlib, "nbd-zstd": zstd, "nbd-chain": chain}
