#!/usr/bin/env python3
"""Shows how cost grows with records, value size, connections and threads: tables and plots in docs/performance.

    cargo build --release
    benches/growth.py [--quick] [--series records,values,connections,network,readers,writers]

Each series starts a server of its own that owns everything. The records series fills one store further and further;
the others load 200,000 records, or a million where the cache must not hold them. Each figure is the median of some
rounds, each of which begins when the server rests. A full run takes about twelve minutes and writes
docs/performance/growth.md; --quick takes two, and writes elsewhere: it shows that everything works, its figures mean
nothing.
"""

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import fixture
import plot

MIB = fixture.MIB
SIZES = [16, 128, 1024, 8192, 65536, MIB // 4, MIB]
# Bytes of values in the store of the values series.
VALUES_TOTAL = 256 * MIB
OUT = fixture.ROOT / "docs/performance"
QUICK_OUT = fixture.ROOT / "target/growth-quick"


@dataclass
class Point:
    """One value of what grows, and the load at it."""

    label: str
    keys: int
    shape: str
    value_size: int
    # The server's flags; points that have the same ones in a row share a server.
    flags: tuple = ()


@dataclass
class Series:
    title: str
    axis: str
    # What a reader should see in it.
    expected: str
    works: list
    points: list
    # Whether rates differ so much that their axis is logarithmic.
    log_rates: bool = False
    rows: list = field(default_factory=list)


def all_series(args):
    size = args.value_size
    counts = [1000, 10_000, 100_000] if args.quick else [10_000, 100_000, 1_000_000, 5_000_000, 10_000_000]
    some, many = (20_000, 50_000) if args.quick else (200_000, 1_000_000)
    small_cache = ("--cache", "16")
    return {
        "records": Series(
            "Number of records", "records",
            "Flat while memory holds the records (some millions with the default cache), then gets read pages.",
            ["get", "set"], [Point(f"{count:,}", count, "8x16", size) for count in counts]),
        "values": Series(
            "Size of values", "bytes",
            "Requests a second fall as bytes a second rise, until copying and the disk are all there is.",
            ["get", "set"],
            [Point(f"{each:,}", min(some, VALUES_TOTAL // each), "8x4", each) for each in SIZES], log_rates=True),
        "connections": Series(
            "Connections, no pipelining", "connections",
            "Rising until the cores are busy, then flat: latency grows in proportion, throughput does not fall.",
            ["get", "set"],
            [Point(f"{count:,}", some, f"{count}x1", size) for count in (1, 4, 8, 16, 64, 256, 1000)]),
        "network": Series(
            "Network threads", "--network-threads",
            "The load generator shares the cores: more threads than idle cores only take turns.",
            ["get", "set"],
            [Point(str(count), some, "8x16", size, ("--network-threads", str(count))) for count in (1, 2, 4)]),
        "readers": Series(
            "Read threads, records on disk", "-TR",
            "Gets beyond the cache (16 MiB); sets do not use these threads.",
            ["get", "set"],
            [Point(str(count), many, "8x16", size, (*small_cache, "-TR", str(count))) for count in (1, 2, 4, 32)]),
        "writers": Series(
            "Write threads, records on disk", "-TW",
            "Swaps read what they compare with when the cache (16 MiB) does not hold it; sets do not.",
            ["cas", "set"],
            [Point(str(count), many, "8x16", size, (*small_cache, "-TW", str(count))) for count in (1, 2, 4, 16)]),
    }


def main():
    parser = fixture.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run whose figures mean nothing")
    parser.add_argument("--rounds", type=int, help="default 3, --quick 1")
    parser.add_argument("--seconds", type=float, help="of each round; default 2, --quick 0.3")
    parser.add_argument("--series", type=lambda text: text.split(","), help="default: all")
    parser.add_argument("--out", type=Path, help="folder to write to; default docs/performance, all series needed")
    # Ten million records with their pages twice, and the logs.
    args = fixture.parse(parser, need_mib=8192)
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.seconds = args.seconds or (0.3 if args.quick else 2.0)
    series = all_series(args)
    if unknown := set(args.series or ()) - set(series):
        parser.error(f"no such series: {', '.join(sorted(unknown))}")
    args.out = args.out or (QUICK_OUT if args.quick or args.series else OUT)
    series = {name: each for name, each in series.items() if name in (args.series or series)}
    for name, each in series.items():
        measure_series(args, name, each)
    write(args, series)


def measure_series(args, name, series):
    with ExitStack() as stack:
        flags = server = None
        for point in series.points:
            if point.flags != flags or name == "values":
                stack.close()
                flags = point.flags
                home = stack.enter_context(fixture.folder(args))
                _, [server] = stack.enter_context(fixture.cluster(args, home, flags=flags))
                loaded = 0
            if point.keys != loaded:
                server.load(point.keys, point.value_size)
                loaded = point.keys
            row = [point.label]
            for work in series.works:
                row.append(measure(args, server, point, work))
            series.rows.append((row, server.resident_mib()))
            fixture.progress(f"{name} {point.label}: " + ", ".join(
                f"{work} {rate:,.0f}/s p99 {tail:.2f} ms" for work, (rate, tail, _) in zip(series.works, row[1:])))


def command(point, work, seconds):
    connections, pipeline = point.shape.split("x")
    return ["-c", connections, "-P", pipeline, "--mode", work, "-n", str(point.keys), "-d", str(point.value_size),
            "--loaded", "--duration", f"{seconds:g}"]


def measure(args, server, point, work):
    """Medians of requests a second, their p99 in ms, and the server's processor time for one, in microseconds."""
    figures = []
    for _ in range(args.rounds):
        before = server.settled_cpu_seconds()
        report = server.bench(*command(point, work, args.seconds), seconds=args.seconds)
        cost = (server.settled_cpu_seconds() - before) / max(1, report["requests"]) * 1e6
        figures.append((report["requests_per_second"], report["latency_us"]["p99"] / 1000, cost))
    return tuple(statistics.median(column) for column in zip(*figures))


def write(args, series):
    args.out.mkdir(parents=True, exist_ok=True)
    text = ["# Growth", "",
            "How cost grows with the number of records, the size of values, connections and threads. Made by",
            f"`benches/growth.py`; medians of {args.rounds} rounds of {args.seconds:g} s. Server and load generator",
            "share the cores. Each round begins when the server rests; processor time is the server's for one request, its",
            "merging afterwards included.", "",
            f"{fixture.heading(args)}.", ""]
    for name, each in series.items():
        text += section(args, name, each)
    (args.out / "growth.md").write_text("\n".join(text), encoding="utf-8")
    fixture.progress(f"written to {args.out}")


def section(args, name, series):
    picture = f"growth-{name}.svg"
    labels = [point.label for point in series.points]
    rates, tails = ([(work, [row[0][1 + at][which] for row in series.rows]) for at, work in enumerate(series.works)]
                    for which in (0, 1))
    panels = [plot.Panel("requests/s", rates, series.log_rates), plot.Panel("p99 ms", tails, True)]
    (args.out / picture).write_text(plot.draw(series.title, series.axis, labels, panels), encoding="utf-8")
    headings = [series.axis, *(f"{work} {what}" for work in series.works for what in ("/s", "p99 ms", "CPU µs")),
                "resident MiB"]
    shapes = (",.0f", ".2f", ".2f")
    rows = [[row[0], *(format(*pair) for measured in row[1:] for pair in zip(measured, shapes)), f"{resident:,.0f}"]
            for row, resident in series.rows]
    last = series.points[-1]
    return [f"## {series.title}", "", series.expected, "", f"![{series.title}]({picture})", "",
            fixture.table(headings, rows), "", "```", " ".join(["kumo-server -m MANAGER -l ADDR -s STORE", *last.flags]),
            f"kumo-server bench -s ADDR {' '.join(command(last, series.works[0], args.seconds))}", "```", ""]


if __name__ == "__main__":
    main()
