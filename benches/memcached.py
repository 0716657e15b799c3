#!/usr/bin/env python3
"""Compares a gateway on a cluster of three servers with memcached, and prints a table of ratios in Markdown.

    cargo build --release
    benches/memcached.py [--rounds 5] [--seconds 3] [--shape 8x1,8x16,32x16] [--servers 3] [--memcached-threads 1]

Needs memcached (Debian: memcached). Both are measured by `kumo-server bench --memcached`, which checks every answer,
in rounds that alternate, and compared by the medians. A multi-get asks for --multiget keys at once and counts as that
many requests. Everything shares this machine: a set is written by three servers and the gateway, and read by none.
"""

import os
import statistics
from contextlib import contextmanager

import fixture

WORKS = {"get": "get", "multiget": "multi-get", "set": "set, three copies"}


def main():
    parser = fixture.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--multiget", type=int, default=100, help="keys of a multi-get")
    parser.add_argument("--memcached-threads", type=int, default=1)
    parser.add_argument("--gateway-flags", default="", help="more flags for the gateway")
    parser.add_argument("--shape", type=lambda text: text.split(","), default=["8x1", "8x16", "32x16"],
                        help="connections x pipelined requests")
    args = fixture.parse(parser, "memcached", need_mib=4096)
    with fixture.folder(args) as home, fixture.cluster(args, home, servers=args.servers) as (manager, _), \
            front_ends(args, home, manager) as sides:
        for address in sides.values():
            measure(args, address, "--load", "--requests", "1")
        results = {(work, shape): alternate(args, sides, work, shape) for work, shape in works(args)}
    print(f"{fixture.heading(args)}; {version()} with {args.memcached_threads} thread(s). {args.servers} servers, "
          f"{args.keys} keys, values of {args.value_size} bytes; medians of {args.rounds} alternating rounds of "
          f"{args.seconds:g} s.\n")
    print(fixture.table(["<work", "<connections x pipeline", "gateway/s", "memcached/s", "p99 ms", "p99 ms", "ratio", "<ratios of rounds"],
                    [row(*key, measured) for key, measured in results.items()]))


def works(args):
    """Each work with each of its shapes: a multi-get is one batch, of every number of connections."""
    for work in WORKS:
        shapes = args.shape
        if work == "multiget":
            shapes = dict.fromkeys(f"{shape.split('x')[0]}x{args.multiget}" for shape in args.shape)
        for shape in shapes:
            yield work, shape


@contextmanager
def front_ends(args, home, manager):
    """The addresses of a gateway and of memcached."""
    with fixture.processes(home) as running:
        gateway, memcached = fixture.free_ports(2)
        running.start(args.binary, "gateway", "-v", "-m", manager, "-t", f"127.0.0.1:{gateway}", "-F", "-E",
                      *args.gateway_flags.split())
        fixture.wait_for(gateway, "the gateway")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        running.start("memcached", "-l", "127.0.0.1", "-p", memcached, "-m", 1024, "-t", args.memcached_threads, *user)
        fixture.wait_for(memcached, "memcached")
        yield {"gateway": f"127.0.0.1:{gateway}", "memcached": f"127.0.0.1:{memcached}"}


def version():
    return fixture.run(["memcached", "--version"]).strip()


def measure(args, address, *flags, seconds=0.0):
    return fixture.bench(args, "--memcached", address, "-n", args.keys, "-d", args.value_size, *flags, seconds=seconds)


def alternate(args, sides, work, shape):
    """The reports of each side, one a round."""
    connections, pipeline = shape.split("x")
    kind = ["--mode", "get", "--multiget"] if work == "multiget" else ["--mode", work]
    reports = {side: [] for side in sides}
    for _ in range(args.rounds):
        for side, address in sides.items():
            reports[side].append(measure(args, address, "-c", connections, "-P", pipeline, *kind, "--loaded",
                                         "--duration", f"{args.seconds:g}", seconds=args.seconds))
    fixture.progress(f"{work} {shape}: " + ", ".join(
        f"{side} {[round(report['requests_per_second']) for report in measured]}" for side, measured in reports.items()))
    return reports


def row(work, shape, measured):
    rates = {side: [report["requests_per_second"] for report in reports] for side, reports in measured.items()}
    ours, theirs = (statistics.median(rates[side]) for side in ("gateway", "memcached"))
    tails = [statistics.median(report["latency_us"]["p99"] for report in measured[side]) / 1000
             for side in ("gateway", "memcached")]
    rounds = sorted(mine / other for mine, other in zip(rates["gateway"], rates["memcached"]))
    return [WORKS[work], shape.replace("x", " x "), f"{ours:,.0f}", f"{theirs:,.0f}", *(f"{tail:.2f}" for tail in tails),
            f"**{ours / theirs:.2f}**", f"{rounds[0]:.2f} to {rounds[-1]:.2f}"]


if __name__ == "__main__":
    main()
