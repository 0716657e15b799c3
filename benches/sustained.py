#!/usr/bin/env python3
"""Sets random keys for minutes and prints, for each ten seconds, throughput, latency, memory and the size of the logs.

    cargo build --release
    benches/sustained.py [--keys 5000000] [--seconds 300] [--interval 10] [--shape 8x1,8x16]

One server that owns everything, filled once before the first run. What is sampled every second beside the load, memory
and the sizes of the redo log and the write-ahead log, is shown with its greatest value of the interval.
"""

import threading
import time

import fixture

SAMPLE_INTERVAL = 1.0


def main():
    parser = fixture.parser(__doc__)
    parser.add_argument("--keys", type=int, default=5_000_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="of each run")
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--shape", type=lambda text: text.split(","), default=["8x1", "8x16"],
                        help="connections x pipelined requests")
    args = fixture.parse(parser)
    # A record takes its value and about 100 bytes, twice while pages are rewritten; logs come on top.
    need = args.keys * (args.value_size + 100) * 2 // fixture.MIB + 2048
    fixture.parse(parser, need_mib=need)
    with fixture.folder(args) as home, fixture.cluster(args, home) as (_, [server]):
        load = server.load(args.keys, args.value_size)
        fixture.progress(f"filled with {args.keys} keys: {load['requests_per_second']:,.0f}/s")
        print(f"{fixture.heading(args)}. {args.keys} keys, values of {args.value_size} bytes.")
        for shape in args.shape:
            report, samples = measure(args, server, shape)
            print_report(args, shape, report, samples)


def command(args, shape):
    connections, pipeline = shape.split("x")
    return ["-c", connections, "-P", pipeline, "--mode", "set", "-n", str(args.keys), "-d", str(args.value_size),
            "--duration", f"{args.seconds:g}", "--interval", f"{args.interval:g}"]


def measure(args, server, shape):
    """The load generator's report, and what was sampled meanwhile."""
    samples = []
    over = threading.Event()

    def sample():
        while not over.wait(SAMPLE_INTERVAL):
            samples.append((time.time(), server.resident_mib(), server.file_mib(".redo"), server.file_mib("-wal")))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        report = server.bench(*command(args, shape), seconds=args.seconds)
    finally:
        over.set()
        sampler.join()
    return report, samples


def print_report(args, shape, report, samples):
    rows = []
    for part in report["intervals"]:
        begin = report["began"] + part["from"]
        during = [sample[1:] for sample in samples if begin <= sample[0] < begin + part["seconds"]]
        sizes = [f"{max(column):,.0f}" for column in zip(*during)] or ["", "", ""]
        rows.append([f"{part['from']:.0f}", *figures(part), *sizes])
    print(f"\n{shape.replace('x', ' x ')}:\n")
    print(fixture.table(["from s", "sets/s", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", "resident MiB", "redo log MiB",
                     "WAL MiB"], rows))
    minute = max(1, round(60 / args.interval))
    first, last = (mean_rate(report["intervals"][part]) for part in (slice(minute), slice(-minute, None)))
    print(f"\nAll: {', '.join(figures(report))}. Last minute to first: {last / first:.2f}.")
    print(f"\n```\nkumo-server bench -s ADDR {' '.join(command(args, shape))} --json\n```", flush=True)


def figures(part):
    latency = part["latency_us"]
    return [f"{part['requests_per_second']:,.0f}",
            *(f"{latency[name] / 1000:.2f}" for name in ("p50", "p99", "p99.9", "max"))]


def mean_rate(parts):
    return sum(part["requests"] for part in parts) / sum(part["seconds"] for part in parts)


if __name__ == "__main__":
    main()
