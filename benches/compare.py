#!/usr/bin/env python3
"""Compares kumo-server with Redis on this machine and prints a table of ratios in Markdown.

    cargo build --release
    benches/compare.py [--rounds 5] [--seconds 3] [--work get,set,set-always] [--shape 8x1,8x16,32x16]

Needs redis-server and redis-benchmark (Debian: redis-server, redis-tools). Both servers hold the same number of keys
and values of the same size, alternate in short rounds within the same minutes, and are compared by the medians. Each
is stopped (SIGSTOP) while the other is measured, so that work put off to the background is done in its owner's time.

kumo-server is measured by `kumo-server bench`, which checks every answer; Redis by redis-benchmark, which does not.
Everything runs on 127.0.0.1, in a directory of its own that is removed at the end.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

# What each work asks of each side: kumo-server's --sync, Redis's appendfsync, and the request.
WORKS = {
    "get": ("everysec", "everysec", "get"),
    "set": ("everysec", "everysec", "set"),
    "set-always": ("always", "always", "set"),
}
NAMES = {"get": "get, cached", "set": "set, `--sync everysec`", "set-always": "set, `--sync always`"}
START_TIMEOUT = 20.0
# Redis-benchmark counts requests: a first run of so many tells how many make a round.
TRIAL_REQUESTS = {"get": 100_000, "set": 100_000, "set-always": 5_000}


def main():
    args = arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kumo-compare-", dir=args.dir)))
        rows = []
        for sync in dict.fromkeys(WORKS[work][:2] for work in args.work):
            with servers(args, folder, *sync) as (kumo, redis):
                kumo.load()
                redis.load()
                for work in (work for work in args.work if WORKS[work][:2] == sync):
                    for shape in args.shape:
                        rows.append((work, shape, *alternate(args, kumo, redis, work, shape)))
    print_report(args, rows)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--binary", type=Path, default=root / "target/release/kumo-server")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/var/tmp"), help="where both keep their data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--value-size", type=int, default=100)
    parser.add_argument("--work", type=lambda text: text.split(","), default=list(WORKS))
    parser.add_argument("--shape", type=lambda text: text.split(","), default=["8x1", "8x16", "32x16"],
                        help="connections x pipelined requests")
    parser.add_argument("--flags", default="", help="more flags for kumo-server")
    args = parser.parse_args()
    if unknown := set(args.work) - set(WORKS):
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
    for program in (args.binary, "redis-server", "redis-benchmark"):
        if not shutil.which(program):
            parser.error(f"{program} is missing")
    return args


class Side:
    """One of the two servers: a process that can be stopped and continued."""

    def __init__(self, args, process):
        self.args = args
        self.process = process

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)


class Kumo(Side):
    def __init__(self, args, process, port):
        super().__init__(args, process)
        self.address = f"127.0.0.1:{port}"

    def command(self, work, shape):
        connections, pipeline = shape.split("x")
        return [str(self.args.binary), "bench", "-s", self.address, "-c", connections, "-P", pipeline, "--mode",
                WORKS[work][2], "-n", str(self.args.keys), "-d", str(self.args.value_size), "--loaded",
                "--duration", f"{self.args.seconds:g}", "--json"]

    def load(self):
        run([str(self.args.binary), "bench", "-s", self.address, "-n", str(self.args.keys), "-d",
             str(self.args.value_size), "--load", "--requests", "1"])

    def measure(self, work, shape):
        report = json.loads(run(self.command(work, shape)))
        return report["requests_per_second"], report["latency_us"]["p99"] / 1000


class Redis(Side):
    def __init__(self, args, process, port):
        super().__init__(args, process)
        self.port = port
        self.rates = {}

    def command(self, work, shape, requests):
        connections, pipeline = shape.split("x")
        return ["redis-benchmark", "-p", str(self.port), "-t", WORKS[work][2], "-c", connections, "-P", pipeline, "-d",
                str(self.args.value_size), "-r", str(self.args.keys), "-n", str(requests), "--csv"]

    def load(self):
        # Keys are drawn at random: twelve times their number leaves six in a million out.
        requests = self.args.keys * 12
        run(["redis-benchmark", "-p", str(self.port), "-t", "set", "-c", "50", "-P", "100", "-d",
             str(self.args.value_size), "-r", str(self.args.keys), "-n", str(requests), "--csv"])

    def measure(self, work, shape):
        rate = self.rates.get((work, shape)) or self.count(work, shape, TRIAL_REQUESTS[work])[0]
        measured = self.count(work, shape, max(1000, round(rate * self.args.seconds)))
        self.rates[work, shape] = measured[0]
        return measured

    def count(self, work, shape, requests):
        lines = run(self.command(work, shape, requests)).splitlines()
        row = list(csv.DictReader(lines))[0]
        return float(row["rps"]), float(row["p99_latency_ms"])


@contextmanager
def servers(args, folder, kumo_sync, redis_sync):
    """Both servers, empty and ready, on ports of their own."""
    with ExitStack() as stack:
        manager_port, kumo_port, redis_port = free_ports(3)
        home = Path(tempfile.mkdtemp(dir=folder))
        log = stack.enter_context(open(home / "log", "w"))

        def start(*command):
            process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            stack.callback(end, process)
            return process

        manager = f"127.0.0.1:{manager_port}"
        # Longer intervals than usual: a server that is stopped for a round must not count as lost.
        start(str(args.binary), "manager", "-v", "-l", manager, "-k", "4")
        wait_for(manager_port, "the manager")
        kumo = start(str(args.binary), "-v", "-m", manager, "-l", f"127.0.0.1:{kumo_port}", "-L", "0", "-s",
                     str(home / "kumo.db"), "-k", "4", "--sync", kumo_sync, *args.flags.split())
        wait_for(kumo_port, "kumo-server")
        attach(args, manager)
        redis = start("redis-server", "--bind", "127.0.0.1", "--port", str(redis_port), "--dir", str(home), "--save", "",
                      "--appendonly", "yes", "--appendfsync", redis_sync)
        wait_for(redis_port, "redis-server")
        yield Kumo(args, kumo, kumo_port), Redis(args, redis, redis_port)


def attach(args, manager):
    """Makes the server the owner of everything; it may take a moment until the manager knows it."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        subprocess.run([str(args.binary), "ctl", manager, "attach"], capture_output=True, check=False, timeout=30)
        status = subprocess.run([str(args.binary), "ctl", manager, "status"], capture_output=True, text=True,
                                check=False, timeout=30)
        if "(active)" in status.stdout:
            return
        if time.monotonic() > deadline:
            sys.exit(f"the server was not attached: {status.stdout}{status.stderr}")
        time.sleep(0.2)


def alternate(args, kumo, redis, work, shape):
    """The measurements of both sides: a list of (requests per second, p99 in ms) each."""
    results = ([], [])
    for _ in range(args.rounds):
        for side, other, result in ((redis, kumo, results[0]), (kumo, redis, results[1])):
            other.pause()
            try:
                result.append(side.measure(work, shape))
            finally:
                other.resume()
    redis_result, kumo_result = results
    print(f"{work} {shape}: kumo-server {[round(rate) for rate, _ in kumo_result]}, "
          f"Redis {[round(rate) for rate, _ in redis_result]}", file=sys.stderr)
    return kumo_result, redis_result


def print_report(args, rows):
    version = run([str(args.binary), "--version"]).splitlines()[0]
    redis = run(["redis-server", "--version"]).split()[2].removeprefix("v=")
    print(f"{time.strftime('%Y-%m-%d')}, {machine(args.dir)}; {version}, Redis {redis}. "
          f"{args.keys} keys, values of {args.value_size} bytes; medians of {args.rounds} alternating rounds of "
          f"{args.seconds:g} s.\n")
    print("| work | connections x pipeline | kumo-server /s | p99 ms | Redis /s | p99 ms | ratio | ratios of rounds |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for work, shape, kumo, redis in rows:
        rates = [statistics.median(rate for rate, _ in side) for side in (kumo, redis)]
        tails = [statistics.median(tail for _, tail in side) for side in (kumo, redis)]
        rounds = sorted(mine / other for (mine, _), (other, _) in zip(kumo, redis))
        print(f"| {NAMES[work]} | {shape.replace('x', ' x ')} | {rates[0]:,.0f} | {tails[0]:.2f} | {rates[1]:,.0f} "
              f"| {tails[1]:.2f} | **{rates[0] / rates[1]:.2f}** | {rounds[0]:.2f} to {rounds[-1]:.2f} |")
    shown = argparse.Namespace(**{**vars(args), "binary": Path("kumo-server")})
    print("\n```")
    print(f"kumo-server -m MANAGER -l ADDR -s STORE --sync everysec|always {args.flags}".rstrip())
    print(" ".join(Kumo(shown, None, "PORT").command("get", "8x16")).replace("127.0.0.1:PORT", "ADDR"))
    print("redis-server --save '' --appendonly yes --appendfsync everysec|always")
    print(" ".join(Redis(shown, None, "PORT").command("get", "8x16", "N")))
    print("```")


def machine(folder):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")),
               platform.machine())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    disk = run(["stat", "-f", "-c", "%T", str(folder)]).strip()
    return f"{os.cpu_count()} cores of {cpu}, {memory} GiB, Linux {platform.release()}, {disk}"


def run(command):
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if finished.returncode != 0:
        sys.exit(f"{' '.join(command)}: status {finished.returncode}\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(port, what):
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"{what} does not listen")
            time.sleep(0.05)


def end(process):
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
