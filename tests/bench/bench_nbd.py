# SPDX-License-Identifier: GPL-3.0-or-later
"""The NBD server on a Unix socket, beside qemu-nbd, qemu-storage-daemon and, for raw files, nbdkit's file plugin:
sequential reads (nbdcopy URI null:), random reads and writes (fio's nbd engine), and memory under many requests.

Every server of a comparison runs for the whole of it, so that each side's caches are as warm as the others'; its CPU
seconds are those of one run, its memory the peak of its life.
"""

import json
import pathlib
import shlex
import shutil
import signal
import socket as sockets
import struct
import subprocess
import tempfile
import time

import lib

# nbdcopy's own: requests in flight per connection stay at its default of 64.
CLIENTS = [(connections, size) for connections in (1, 4) for size in (256 << 10, 1 << 20)]


# Requests of fio: enough for seconds of work at the speeds of a page cache.
RANDOM_READS = 200_000
RANDOM_WRITES = 60_000

# What 64 clients ask for at once, and do not take.
CONNECTIONS, REQUESTS, REQUEST_SIZE = 64, 32, 1 << 20


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
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _answers(self):
        return pathlib.Path(self.socket).exists() and subprocess.run(
            ["nbdinfo", "--size", self.uri()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def measured(self, work):
        """What `work`, which returns its seconds, costs the server."""
        before, _ = lib.usage_of(self.process.pid)
        seconds = work()
        after, rss = lib.usage_of(self.process.pid)
        return lib.Measure(seconds, after - before, rss)

    def copy(self, connections, size):
        command = ["nbdcopy", f"--connections={connections}", f"--request-size={size}", self.uri(), "null:"]
        return self.measured(lambda: lib.timed(command))

    def fio(self, pattern, block, depth, total):
        """`total` bytes by requests of `block`; the seconds are fio's own, without its start."""
        command = ["fio", "--name=nbd", "--ioengine=nbd", f"--uri={self.uri()}", f"--rw={pattern}", f"--bs={block}",
                   f"--iodepth={depth}", f"--io_size={total}", "--randrepeat=1", "--norandommap", "--zero_buffers=0",
                   "--output-format=json", "--thread"]

        def work():
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")
            job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
            return job["read" if "read" in pattern else "write"]["runtime"] / 1000

        return self.measured(work)


def our_server(drydock, path, image_format, folder, *words):
    socket = f"{folder}/drydock"
    return NbdServer("drydock", socket, [drydock, "serve", "-f", image_format, *words, "--socket", socket, path])


def bare_loop(drydock, path, folder):
    """What no server can beat (tests/bench/bare_server.cc), which is built here; raw files alone."""
    build = pathlib.Path(drydock).resolve().parents[1]
    if not (build / "build.ninja").exists():
        return []
    lib.timed(["ninja", "-C", str(build), "tests/bench/bench-bare-server"])
    socket = f"{folder}/bare"
    return [NbdServer("(bare loop)", socket, [str(build / "tests/bench/bench-bare-server"), socket, path])]


def readers(drydock, path, image_format, folder):
    """The peers, each in its documented settings that could be its best."""
    chain = ["-f", image_format]
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
    if image_format == "raw":
        socket = f"{folder}/nbdkit"
        peers.append(NbdServer("nbdkit file", socket, ["nbdkit", "-f", "-r", "-U", socket, "file", path]))
        peers += bare_loop(drydock, path, folder)
    return peers


def compare(bench, work, path, image_format, warm):
    lib.need("nbdcopy", "nbdinfo", "nbdkit", "qemu-nbd", "qemu-storage-daemon")
    bench.data.warm(*warm)
    with tempfile.TemporaryDirectory() as folder:
        ours = our_server(bench.drydock, path, image_format, folder)
        peers = readers(bench.drydock, path, image_format, folder)
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


def random_reads(bench):
    lib.need("fio", "nbdinfo", "nbdkit", "qemu-nbd", "qemu-storage-daemon")
    for image_format, path in (("raw", bench.data.raw()), ("qcow2", bench.data.qcow2())):
        bench.data.warm(path)
        with tempfile.TemporaryDirectory() as folder:
            ours = our_server(bench.drydock, path, image_format, folder)
            with ours:
                for peer in readers(bench.drydock, path, image_format, folder):
                    with peer:
                        for depth in (1, 32):
                            total = RANDOM_READS * 4096 // (4 if depth == 1 else 1)
                            bench.compare(f"nbd {image_format}, 4 KiB random reads, depth {depth}",
                                          lib.Side("drydock", lambda: ours.fio("randread", 4096, depth, total)),
                                          lib.Side(peer.name, lambda: peer.fio("randread", 4096, depth, total)))


def allocated(bench, path):
    """A qcow2 image all of whose clusters are there."""
    lib.timed(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(bench.data.size)])
    step = 64 << 20
    script = "".join(f"write -P {1 + offset // step % 255} {offset} {step}\n"
                     for offset in range(0, bench.data.size, step))
    lib.timed(["qemu-io", "-f", "qcow2", "--cache=unsafe", str(path)], input=script)


def writes(bench):
    lib.need("fio", "nbdinfo", "qemu-nbd", "qemu-io")
    image = bench.data.made("allocated.qcow2", lambda path: allocated(bench, path))
    with tempfile.TemporaryDirectory(dir=bench.data.folder) as folder:
        copies = [f"{folder}/{name}.qcow2" for name in ("ours", "threads", "io_uring")]
        for copy in copies:
            shutil.copyfile(image, copy)
        bench.data.warm(*copies)
        ours = our_server(bench.drydock, copies[0], "qcow2", folder, "--rw")
        peers = [NbdServer(f"qemu-nbd aio={aio}", f"{folder}/{aio}",
                           ["qemu-nbd", "-t", "-e", "16", "-f", "qcow2", f"--aio={aio}", "-k", f"{folder}/{aio}", copy])
                 for aio, copy in (("threads", copies[1]), ("io_uring", copies[2]))]
        with ours:
            for peer in peers:
                with peer:
                    for name, pattern, block, depth, total in (
                            ("4 KiB random writes", "randwrite", 4096, 32, RANDOM_WRITES * 4096),
                            ("1 MiB sequential writes", "write", 1 << 20, 16, bench.data.size)):
                        bench.compare(f"nbd qcow2, {name}",
                                      lib.Side("drydock", lambda: ours.fio(pattern, block, depth, total)),
                                      lib.Side(peer.name, lambda: peer.fio(pattern, block, depth, total)))


def asking_client(path):
    """A connection with all its requests under way, none of whose answers are taken."""
    client = sockets.socket(sockets.AF_UNIX)
    client.connect(path)
    client.recv(18, sockets.MSG_WAITALL)
    client.sendall(struct.pack(">L8sLL", 3, b"IHAVEOPT", 1, 0))
    client.recv(10, sockets.MSG_WAITALL)
    for number in range(REQUESTS):
        client.sendall(struct.pack(">LHHQQL", 0x25609513, 0, 0, number, number * REQUEST_SIZE, REQUEST_SIZE))
    return client


def memory(bench):
    """The limit is 256 MiB. Seconds are those of the asking, and tell nothing."""
    lib.need("nbdinfo", "qemu-nbd")
    path = bench.data.zlib()
    bench.data.warm(path)
    with tempfile.TemporaryDirectory() as folder:
        peer_socket = f"{folder}/qemu-nbd"

        def once(server):
            with server:
                def work():
                    clients = [asking_client(server.socket) for _ in range(CONNECTIONS)]
                    start = time.monotonic()
                    while time.monotonic() - start < 3:  # until the peak is reached
                        time.sleep(0.1)
                    for client in clients:
                        client.close()
                    return 3.0
                return server.measured(work)

        bench.compare(f"nbd zlib, {CONNECTIONS} conn. of {REQUESTS} requests, 1 MiB",
                      lib.Side("drydock", lambda: once(our_server(bench.drydock, path, "qcow2", folder))),
                      lib.Side("qemu-nbd", lambda: once(NbdServer("qemu-nbd", peer_socket, [
                          "qemu-nbd", "-r", "-t", "-e", "0", "-f", "qcow2", "-k", peer_socket, path]))))


BENCHMARKS = {"nbd-raw": raw, "nbd-qcow2": qcow2, "nbd-zlib": zlib, "nbd-zstd": zstd, "nbd-chain": chain,
              "nbd-random": random_reads, "nbd-write": writes, "nbd-memory": memory}
