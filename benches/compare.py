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
import signal
import statistics
import tempfile
from contextlib import contextmanager
from pathlib import Path

import fixture

# What each work asks of each side: kumo-server's --sync, Redis's appendfsync, and the request.
WORKS = {
    "get": ("everysec", "everysec", "get"),
    "set": ("everysec", "everysec", "set"),
    "set-always": ("always", "always", "set"),
}
NAMES = {"get": "get, cached", "set": "set, `--sync everysec`", "set-always": "set, `--sync always`"}
# Redis-benchmark counts requests: a first run of so many tells how many make a round.
TRIAL_REQUESTS = {"get": 100_000, "set": 100_000, "set-always": 5_000}


def main():
    args = arguments()
    with fixture.folder(args) as folder:
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
    parser = fixture.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--work", type=lambda text: text.split(","), default=list(WORKS))
    parser.add_argument("--shape", type=lambda text: text.split(","), default=["8x1", "8x16", "32x16"],
                        help="connections x pipelined requests")
    args = fixture.parse(parser, "redis-server", "redis-benchmark", need_mib=4096)
    if unknown := set(args.work) - set(WORKS):
        parser.error(f"no such work: {', '.join(sorted(unknown))}")
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
    def __init__(self, args, process, address):
        super().__init__(args, process)
        self.address = address

    def command(self, work, shape):
        connections, pipeline = shape.split("x")
        return [str(self.args.binary), "bench", "-s", self.address, "-c", connections, "-P", pipeline, "--mode",
                WORKS[work][2], "-n", str(self.args.keys), "-d", str(self.args.value_size), "--loaded",
                "--duration", f"{self.args.seconds:g}", "--json"]

    def load(self):
        fixture.run([str(self.args.binary), "bench", "-s", self.address, "-n", str(self.args.keys), "-d",
                 str(self.args.value_size), "--load", "--requests", "1"])

    def measure(self, work, shape):
        report = json.loads(fixture.run(self.command(work, shape)))
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
        fixture.run(["redis-benchmark", "-p", str(self.port), "-t", "set", "-c", "50", "-P", "100", "-d",
                 str(self.args.value_size), "-r", str(self.args.keys), "-n", str(requests), "--csv"])

    def measure(self, work, shape):
        rate = self.rates.get((work, shape)) or self.count(work, shape, TRIAL_REQUESTS[work])[0]
        measured = self.count(work, shape, max(1000, round(rate * self.args.seconds)))
        self.rates[work, shape] = measured[0]
        return measured

    def count(self, work, shape, requests):
        lines = fixture.run(self.command(work, shape, requests)).splitlines()
        row = list(csv.DictReader(lines))[0]
        return float(row["rps"]), float(row["p99_latency_ms"])


@contextmanager
def servers(args, folder, kumo_sync, redis_sync):
    """Both servers, empty and ready, on ports of their own."""
    home = Path(tempfile.mkdtemp(dir=folder))
    # Longer intervals than usual: a server that is stopped for a round must not count as lost.
    patience = ("-k", "4")
    with (fixture.cluster(args, home, flags=(*patience, "--sync", kumo_sync), manager_flags=patience) as (_, [kumo]),
          fixture.processes(home) as others):
        [port] = fixture.free_ports(1)
        redis = others.start("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", home, "--save", "",
                             "--appendonly", "yes", "--appendfsync", redis_sync)
        fixture.wait_for(port, "redis-server")
        yield Kumo(args, kumo.process, kumo.address), Redis(args, redis, port)


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
    fixture.progress(f"{work} {shape}: kumo-server {[round(rate) for rate, _ in kumo_result]}, "
                 f"Redis {[round(rate) for rate, _ in redis_result]}")
    return kumo_result, redis_result


def print_report(args, rows):
    redis = fixture.run(["redis-server", "--version"]).split()[2].removeprefix("v=")
    print(f"{fixture.heading(args)}, Redis {redis}. {args.keys} keys, values of {args.value_size} bytes; medians of "
          f"{args.rounds} alternating rounds of {args.seconds:g} s.\n")
    print(fixture.table(["<work", "<connections x pipeline", "kumo-server /s", "p99 ms", "Redis /s", "p99 ms", "ratio",
                     "<ratios of rounds"], [row(*measured) for measured in rows]))
    shown = argparse.Namespace(**{**vars(args), "binary": Path("kumo-server")})
    print("\n```")
    print(f"kumo-server -m MANAGER -l ADDR -s STORE --sync everysec|always {args.flags}".rstrip())
    print(" ".join(Kumo(shown, None, "ADDR").command("get", "8x16")))
    print("redis-server --save '' --appendonly yes --appendfsync everysec|always")
    print(" ".join(Redis(shown, None, "PORT").command("get", "8x16", "N")))
    print("```")


def row(work, shape, kumo, redis):
    rates = [statistics.median(rate for rate, _ in side) for side in (kumo, redis)]
    tails = [statistics.median(tail for _, tail in side) for side in (kumo, redis)]
    rounds = sorted(mine / other for (mine, _), (other, _) in zip(kumo, redis))
    return [NAMES[work], shape.replace("x", " x "), f"{rates[0]:,.0f}", f"{tails[0]:.2f}", f"{rates[1]:,.0f}",
            f"{tails[1]:.2f}", f"**{rates[0] / rates[1]:.2f}**", f"{rounds[0]:.2f} to {rounds[-1]:.2f}"]


if __name__ == "__main__":
    main()
