"""What the scripts of this folder share: a cluster of their own on free ports, the load generator, the machine's name.

Everything runs on 127.0.0.1 and keeps its data in a folder that is removed at the end.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 20.0
# One answer of `ctl`.
CTL_TIMEOUT = 30.0
# How long a server may take to end: it merges first.
END_TIMEOUT = 60.0
# What a run of the load generator may take beyond its own duration: loading, and its own time-outs.
RUN_SLACK = 600.0
# A server rests when it uses the processor for less than a twentieth of this.
REST = 0.4
SETTLE_TIMEOUT = 120.0
MIB = 1 << 20


def parser(doc, **defaults):
    """A parser with the flags that every script has; `doc` is the script's own text."""
    flags = argparse.ArgumentParser(description=doc.split("\n", maxsplit=1)[0])
    flags.add_argument("--binary", type=Path, default=ROOT / "target/release/kumo-server")
    flags.add_argument("--dir", type=Path, default=os.environ.get("TMPDIR", "/var/tmp"), help="where data is kept")
    flags.add_argument("--value-size", type=int, default=100)
    flags.add_argument("--flags", default="", help="more flags for kumo-server")
    flags.set_defaults(**defaults)
    return flags


def parse(flags, *programs, need_mib=1024):
    """The arguments; ends with an error if a program is missing or the disk has too little room."""
    args = flags.parse_args()
    for program in (args.binary, *programs):
        if not shutil.which(program):
            flags.error(f"{program} is missing")
    free = shutil.disk_usage(args.dir).free // MIB
    if free < need_mib:
        flags.error(f"{args.dir} has {free} MiB left, and this takes up to {need_mib}; choose another --dir")
    return args


@contextmanager
def folder(args):
    """A folder of its own in --dir, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="kumo-bench-", dir=args.dir) as path:
        yield Path(path)


class Processes:
    """Processes that end with the block they were started in."""

    def __init__(self, home, stack):
        self.home = home
        self.stack = stack
        self.log = stack.enter_context(open(home / "log", "a", encoding="utf-8"))

    def start(self, *command):
        process = subprocess.Popen([str(part) for part in command], cwd=self.home, stdout=self.log, stderr=self.log,
                                   stdin=subprocess.DEVNULL)
        self.stack.callback(end, process)
        return process


@contextmanager
def processes(home):
    with ExitStack() as stack:
        yield Processes(home, stack)


class Server:
    """A server that owns everything, or a part, of a cluster of its own."""

    def __init__(self, args, process, address, store):
        self.args = args
        self.process = process
        self.address = address
        self.store = store

    def bench(self, *flags, seconds=0.0):
        """A run of the load generator against this server; its report. Ends the script if an answer was wrong."""
        return bench(self.args, "-s", self.address, *flags, seconds=seconds)

    def load(self, keys, value_size):
        """Every key once; the report of that."""
        return self.bench("-n", keys, "-d", value_size, "--load", "--requests", "1")["load"]

    def cpu_seconds(self):
        """Processor time of all its threads, in user and kernel mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settled_cpu_seconds(self):
        """The same once the server rests: what it put off, merging above all, is paid by whoever caused it."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        used = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(REST)
            before, used = used, self.cpu_seconds()
            if used - before <= REST / 20:
                return used
        sys.exit(f"the server does not come to rest within {SETTLE_TIMEOUT:g} s")

    def resident_mib(self):
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

    def file_mib(self, kind):
        """Size of the write-ahead log ("-wal"), or of the redo log ("-redo", in several files)."""
        return sum(size(path) for path in self.store.parent.glob(f"{self.store.name}{kind}*")) / MIB


def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def cluster(args, home, servers=1, flags=(), manager_flags=()):
    """A manager and attached servers, empty and ready."""
    with processes(home) as running:
        ports = free_ports(1 + 2 * servers)
        manager = f"127.0.0.1:{ports[0]}"
        running.start(args.binary, "manager", "-v", "-l", manager, *manager_flags)
        wait_for(ports[0], "the manager")
        started = []
        for number in range(servers):
            port, stream = ports[1 + 2 * number:3 + 2 * number]
            store = home / f"{number}.db"
            process = running.start(args.binary, "-v", "-m", manager, "-l", f"127.0.0.1:{port}", "-L", stream, "-s",
                                    store, *flags, *args.flags.split())
            started.append(Server(args, process, f"127.0.0.1:{port}", store))
            wait_for(port, "a server")
        attach(args, manager, servers)
        yield manager, started


def attach(args, manager, count):
    """Makes the servers owners, and waits until they have shared the records out."""
    def known():
        return len(status(args, manager).partition("not attached node:")[2].split()) == count
    wait_until(known, "the manager does not know the servers")
    run([str(args.binary), "ctl", manager, "attach", "--wait"], CTL_TIMEOUT)


def status(args, manager):
    asked = subprocess.run([args.binary, "ctl", manager, "status"], capture_output=True, text=True, check=False,
                           timeout=CTL_TIMEOUT)
    return asked.stdout


def bench(args, *flags, seconds=0.0):
    command = [str(args.binary), "bench", *map(str, flags), "--json"]
    return json.loads(run(command, seconds + RUN_SLACK))


def run(command, timeout=RUN_SLACK):
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {finished.returncode}\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def heading(args):
    """Date, machine and commit, for the head of a table."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8")
                if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    disk = run(["stat", "-f", "-c", "%T", str(args.dir)]).strip()
    version = run([str(args.binary), "--version"]).splitlines()[0]
    return (f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores of {cpu}, {memory} GiB, Linux {platform.release()}, "
            f"{disk}; {version}, commit {commit()}")


def commit():
    """The commit of this checkout, marked if files differ from it."""
    asked = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"],
                           capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(port, what):
    def listens():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            return False
    wait_until(listens, f"{what} does not listen")


def wait_until(condition, complaint):
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"after {START_TIMEOUT:g} s: {complaint}")
        time.sleep(0.05)


def end(process):
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def table(headings, rows):
    """A table in Markdown; figures stand on the right. Headings that begin with "<" are words."""
    marks = ["---" if heading.startswith("<") else "---:" for heading in headings]
    lines = [[heading.lstrip("<") for heading in headings], marks, *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def progress(text):
    print(text, file=sys.stderr, flush=True)
