# SPDX-License-Identifier: GPL-3.0-or-later
"""What benchmarks share: the data, pairs of measurements in turns, the table.

A figure is a ratio against a peer on the same work, in the same run, in turns (peer, ours, peer, ours ...): machines
are shared and noisy, and an absolute time proves nothing. A benchmark module (bench_*.py) has a dictionary BENCHMARKS
of name -> function; the function takes a Bench and calls bench.compare() once per line of the table.
"""

import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

BLOCK = 64 << 10


def parse_size(text):
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    return int(text[:-1]) << units[text[-1].upper()] if text[-1].upper() in units else int(text)


def find_program():
    """The drydock to measure: $DRYDOCK, or the newest build in the source tree."""
    if "DRYDOCK" in os.environ:
        return os.environ["DRYDOCK"]
    root = pathlib.Path(__file__).resolve().parents[2]
    built = sorted(root.glob("build*/tools/drydock"), key=lambda path: path.stat().st_mtime)
    if not built:
        sys.exit("tests/bench: no build found; build drydock first, or set DRYDOCK=/path/to/drydock")
    return str(built[-1])


@dataclass
class Measure:
    """One run of one side."""

    seconds: float
    cpu: float = 0.0  # seconds of CPU of the program under test (not of the client), where known
    rss: int = 0  # its peak resident memory in bytes, where known
    output: str = ""  # what it printed, where kept


@dataclass
class Side:
    """A peer, or drydock: `run` does the work once and returns a Measure."""

    name: str
    run: object


@dataclass
class Row:
    work: str
    peer: str
    peer_runs: list = field(default_factory=list)
    our_runs: list = field(default_factory=list)

    def ratios(self):
        return [peer.seconds / ours.seconds for peer, ours in zip(self.peer_runs, self.our_runs)]


def usage_of(pid):
    """CPU seconds and peak RSS in bytes of a live process, as (cpu, rss)."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    cpu = (int(fields[11]) + int(fields[12])) / ticks
    peak = 0
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            peak = int(line.split()[1]) << 10
    return cpu, peak


def timed(command, **options):
    """Runs a command to its end, which must be a success; wall-clock seconds."""
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return seconds


def timed_program(command, script=""):
    """Runs a program that does all the work itself: a Measure with its own CPU, memory and standard output. `script` is
    its standard input."""
    with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+") as output:
        source.write(script)
        source.seek(0)
        start = time.monotonic()
        process = subprocess.Popen(command, stdin=source, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        printed = output.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}: {printed.strip()[:1000]}")
    return Measure(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, printed)


def wait_for(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: did not happen within {seconds} s")
        time.sleep(0.01)


class Data:
    """The disks that the benchmarks read, made once in a folder and kept there."""

    def __init__(self, folder, size):
        self.folder = pathlib.Path(folder)
        self.size = size
        self.folder.mkdir(parents=True, exist_ok=True)

    def made(self, name, make):
        path = self.folder / f"{self.size >> 20}M-{name}"
        if not path.exists():
            print(f"# making {path}", file=sys.stderr)
            unfinished = path.with_name(path.name + ".part")
            unfinished.unlink(missing_ok=True)
            make(unfinished)
            unfinished.rename(path)
        return str(path)

    def raw(self):
        """plain: of every eight 64 KiB blocks seven hold data, half random and half zeros; one is a hole."""

        def make(path):
            generator = random.Random(1)
            with open(path, "wb") as file:
                file.truncate(self.size)
                for block in range(self.size // BLOCK):
                    if block % 8 == 7:
                        continue
                    file.seek(block * BLOCK)
                    file.write(generator.randbytes(BLOCK // 2) + bytes(BLOCK // 2))

        return self.made("plain.raw", make)

    def _converted(self, name, options):
        raw = self.raw()
        return self.made(name, lambda path: timed(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw,
                                                    str(path)]))

    def qcow2(self):
        return self._converted("plain.qcow2", [])

    def zlib(self):
        return self._converted("zlib.qcow2", ["-c"])

    def zstd(self):
        return self._converted("zstd.qcow2", ["-c", "-o", "compression_type=zstd"])

    def chain(self):
        """plain.qcow2 with 30% of its clusters rewritten at random in each of two overlays."""
        below = self.qcow2()
        for layer in (1, 2):
            below = self.made(f"chain{layer}.qcow2", lambda path: self._overlay(path, below, layer))
        return below

    def _overlay(self, path, below, seed):
        timed(["qemu-img", "create", "-f", "qcow2", "-F", "qcow2", "-b", below, str(path)])
        clusters = self.size // BLOCK
        chosen = random.Random(seed).sample(range(clusters), clusters * 3 // 10)
        script = "".join(f"write -P {1 + cluster % 255} {cluster * BLOCK} {BLOCK}\n" for cluster in chosen)
        timed(["qemu-io", "-f", "qcow2", "--cache=unsafe", str(path)], input=script)

    def warm(self, *paths):
        """Brings files into the page cache, so that every side starts from the same place."""
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.read(8 << 20):
                    pass


class Bench:
    def __init__(self, data, pairs):
        self.data = data
        self.pairs = pairs
        self.drydock = find_program()
        self.rows = []

    def compare(self, work, ours, *peers):
        """One line per peer: a warm-up of each side, then `pairs` pairs in turns."""
        for peer in peers:
            row = Row(work, peer.name)
            peer.run()
            ours.run()
            for turn in range(self.pairs):
                # Who goes first changes too, so that neither has the warmer cache each time.
                sides = [(peer, row.peer_runs), (ours, row.our_runs)]
                for side, runs in sides if turn % 2 == 0 else reversed(sides):
                    runs.append(side.run())
            self.rows.append(row)
            print_row(row)


HEADER = (f"{'work':<34} {'peer':<26} {'peer':>8} {'ours':>8}  {'ratio [min..max]':<19} "
          f"{'CPU s peer/ours':>15} {'peak MiB peer/ours':>18}")


def print_header(bench):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"# {os.cpu_count()} x {cpu}, Linux {os.uname().release}, {bench.data.size >> 20} MiB disks in "
          f"{bench.data.folder}, {bench.pairs} pairs")
    print(f"# {bench.drydock}; seconds are medians, a ratio is peer / ours: above 1.00 drydock is faster")
    print(HEADER, flush=True)


def print_row(row):
    ratios = row.ratios()
    middle = statistics.median

    def both(pick):
        return middle(map(pick, row.peer_runs)), middle(map(pick, row.our_runs))

    seconds, cpu, rss = both(lambda m: m.seconds), both(lambda m: m.cpu), both(lambda m: m.rss >> 20)
    spread = f"{middle(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"
    print(f"{row.work:<34} {row.peer:<26} {seconds[0]:>8.3f} {seconds[1]:>8.3f}  {spread:<19} "
          f"{cpu[0]:>8.2f}/{cpu[1]:<6.2f} {rss[0]:>10.0f}/{rss[1]:<7.0f}", flush=True)


def need(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"tests/bench: not found on PATH: {', '.join(missing)} (all are Debian packages)")
