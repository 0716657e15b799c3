#!/usr/bin/env python3
"""Compares compare-and-swap and copies (ReplicateSet) with sets, and prints a table of ratios in Markdown.

    cargo build --release
    benches/ratios.py [--rounds 5] [--seconds 3] [--shape 8x1,8x16,32x16]

Sets and swaps go to a server that owns everything alone, copies to one of two, in the name of the other, which is idle:
none of them sends anything on. The kinds alternate in short rounds within the same minutes and are compared by the
medians; each round writes every key first, so that swaps know what they compare with, and begins when the server rests.
The processor time of a request is the server's, the loading and the merging included: other programs disturb it less
than they do the rates.
"""

import statistics

import fixture

KINDS = {"set": "set", "cas": "compare-and-swap", "replicate": "copy (ReplicateSet)"}


def main():
    parser = fixture.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--shape", type=lambda text: text.split(","), default=["8x1", "8x16", "32x16"],
                        help="connections x pipelined requests")
    args = fixture.parse(parser, need_mib=4096)
    with (fixture.folder(args) as one, fixture.folder(args) as two, fixture.cluster(args, one) as (_, [alone]),
          fixture.cluster(args, two, servers=2) as (_, [copied, idle])):
        servers = {"set": alone, "cas": alone, "replicate": copied}
        results = {shape: alternate(args, servers, idle.address, shape) for shape in args.shape}
    print(f"{fixture.heading(args)}. {args.keys} keys, values of {args.value_size} bytes; medians of {args.rounds} "
          f"alternating rounds of {args.seconds:g} s.\n")
    headings = ["<connections x pipeline", "<work", "requests/s", "p99 ms", "server CPU µs", "ratio to set",
                "<ratios of rounds"]
    print(fixture.table(headings, [row for shape, measured in results.items() for row in rows(shape, measured)]))
    commands = [" ".join(command(args, kind, "8x16", "OTHER")) for kind in ("cas", "replicate")]
    print("\n```\n" + "\n".join(commands) + "\n```")


def command(args, kind, shape, node):
    connections, pipeline = shape.split("x")
    what = ["--replicate-as", node] if kind == "replicate" else ["--mode", kind]
    return ["kumo-server", "bench", "-s", "ADDR", "-c", connections, "-P", pipeline, *what, "-n", str(args.keys), "-d",
            str(args.value_size), "--load", "--duration", f"{args.seconds:g}"]


def alternate(args, servers, node, shape):
    """The reports of each kind, one a round."""
    reports = {kind: [] for kind in KINDS}
    for _ in range(args.rounds):
        for kind, measured in reports.items():
            server = servers[kind]
            before = server.settled_cpu_seconds()
            report = server.bench(*command(args, kind, shape, node)[4:], seconds=args.seconds)
            requests = report["requests"] + report["load"]["keys"]
            report["cpu_us"] = (server.settled_cpu_seconds() - before) / requests * 1e6
            measured.append(report)
    fixture.progress(f"{shape}: " + ", ".join(f"{kind} {[round(report['requests_per_second']) for report in measured]}"
                                          for kind, measured in reports.items()))
    return reports


def rows(shape, measured):
    rates = {kind: [report["requests_per_second"] for report in reports] for kind, reports in measured.items()}
    base = statistics.median(rates["set"])
    for kind, reports in measured.items():
        rate = statistics.median(rates[kind])
        tail = statistics.median(report["latency_us"]["p99"] for report in reports) / 1000
        cpu = statistics.median(report["cpu_us"] for report in reports)
        rounds = sorted(mine / other for mine, other in zip(rates[kind], rates["set"]))
        yield [shape.replace("x", " x "), KINDS[kind], f"{rate:,.0f}", f"{tail:.2f}", f"{cpu:.2f}",
               f"**{rate / base:.2f}**", f"{rounds[0]:.2f} to {rounds[-1]:.2f}"]


if __name__ == "__main__":
    main()
