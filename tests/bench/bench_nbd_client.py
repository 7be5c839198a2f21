# SPDX-License-Identifier: GPL-3.0-or-later
"""Images on NBD servers: drydock convert from a URI beside qemu-img convert -W -m 16 and nbdcopy, from the same server.

Neither side waits for the disk. Each run makes its target anew; what was there is removed before, outside the time. The
target of the last run of each side is compared with the source.
"""

import pathlib
import shlex
import signal
import subprocess
import tempfile

import lib


class Server:
    """Somebody's server on a Unix socket; ends with the block."""

    def __init__(self, name, socket, command):
        self.name, self.socket, self.command = name, socket, command

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        lib.wait_for(lambda: self.process.poll() is not None or pathlib.Path(self.socket).exists(), self.name)
        if self.process.poll() is not None:
            raise RuntimeError(f"{shlex.join(self.command)} ended with status {self.process.returncode}")
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"


class Copy(lib.Side):
    """A program that makes `target`."""

    def __init__(self, name, command, target):
        self.target = target
        super().__init__(name, lambda: self._run(command))

    def _run(self, command):
        pathlib.Path(self.target).unlink(missing_ok=True)
        return lib.timed_program(command)


def compare(bench, work, source, server):
    folder = bench.data.folder
    mine, theirs = f"{folder}/ours.img", f"{folder}/theirs.img"
    words = ["convert", "-f", "raw", "-O", "raw"]
    ours = Copy("drydock", [bench.drydock, *words, "-t", "unsafe", server.uri(), mine], mine)
    peers = [Copy("qemu-img -W -m 16", ["qemu-img", *words, "-W", "-m", "16", server.uri(), theirs], theirs),
             Copy("nbdcopy", ["nbdcopy", server.uri(), theirs], theirs)]
    for peer in peers:
        bench.compare(f"{work} from {server.name}", ours, peer)
        for side in (ours, peer):
            lib.timed(["qemu-img", "compare", "-F", "raw", source, side.target])
            pathlib.Path(side.target).unlink(missing_ok=True)


def from_servers(bench, work, path, image_format, servers):
    bench.data.warm(path)
    with tempfile.TemporaryDirectory() as folder:
        commands = {"qemu-nbd": ["qemu-nbd", "-r", "-t", "-e", "16", "-f", image_format, "-k", f"{folder}/qemu-nbd", path],
                    "nbdkit": ["nbdkit", "-f", "-r", "-U", f"{folder}/nbdkit", "file", path],
                    "drydock": [bench.drydock, "serve", "-f", image_format, "--socket", f"{folder}/drydock", path]}
        for name in servers:
            with Server(name, f"{folder}/{name}", commands[name]) as server:
                compare(bench, work, path, server)


def raw(bench):
    lib.need("nbdcopy", "nbdkit", "qemu-img", "qemu-nbd")
    from_servers(bench, "raw", bench.data.raw(), "raw", ["qemu-nbd", "nbdkit", "drydock"])


def qcow2(bench):
    lib.need("nbdcopy", "qemu-img", "qemu-nbd")
    from_servers(bench, "qcow2", bench.data.qcow2(), "qcow2", ["qemu-nbd", "drydock"])


BENCHMARKS = {"nbd-client-raw": raw, "nbd-client-qcow2": qcow2}
