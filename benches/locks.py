#!/usr/bin/env python3
"""Pages that want a locked session: ASP.NET's polling against waiting in the proxy.

One state server, one proxy for each run, `staterouter bench` as the web farm. The columns compare
values of `locks.wait`, of which 0s is stock polling. Each row is a load: a part of the pages per second that
the threads which the web servers have at first would carry if no page waited for a lock (without
--web-threads: the sessions, one page at a time), or `closed`, where a browser asks for its next page
as soon as it has one. All values of `locks.wait` take turns in each round; a ratio is the median of
the ratios within rounds. The mean page counts pages that still wait for a lock when the run ends, and
what they have waited by then: polling leaves more of them. In a closed loop, pages per second say how well users are served, and times
do not: a browser that gets a lock again and again at the expense of others has many short pages.
"""

import argparse
import concurrent.futures
import contextlib
import json
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/staterouter", help="what is measured")
    parser.add_argument("--waits", default="0s,250ms", help="values of locks.wait; the others are compared with the first")
    parser.add_argument("--at-once", default="1,2,4,8,16", help="pages at once for one session")
    parser.add_argument("--hold", default="20ms", help="how long a page holds its lock; several with commas")
    parser.add_argument("--loads", default="closed", help="parts of what the threads carry at first, or closed")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--clients", type=int, default=0, help="browsers; 0 is sessions x pages at once")
    parser.add_argument("--web-threads", type=int, help="threads of a web server at first")
    parser.add_argument("--web-servers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="loads that are measured at the same time")
    parser.add_argument("--mix", default="change=90,keep=10,read=0,touch=0,abandon=0")
    parser.add_argument("--json", help="file for every report")
    return parser.parse_args()


@contextlib.contextmanager
def started(command):
    """The address of a running server; it has ended afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def farm(options, at_once, hold, load, seed):
    """The arguments of `staterouter bench`."""
    clients = options.clients or options.sessions * at_once
    bench = ["--sessions", options.sessions, "--duration", f"{options.seconds}s", "--seed", seed]
    bench += ["--hold", hold, "--mix", options.mix, "--threads", options.web_servers, "--no-sweep", "--json"]
    bench += ["--web-threads", options.web_threads] if options.web_threads else []
    if load == "closed":
        return bench + ["--clients", clients]
    # What limits them: threads, or as many pages as there are locks.
    at_a_time = options.web_threads * options.web_servers if options.web_threads else options.sessions
    carried = at_a_time * 1000 / float(hold.removesuffix("ms"))
    # Pages that come too early for a browser come in vain: there are more of them than a run asks for.
    return bench + ["--clients", max(clients, 2000), "--rate", float(load) * carried, "--burst", at_once]


def measured(options, wait, bench):
    """The report of one run."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        server = [options.binary, "state-server", "--listen", "127.0.0.1:0", "--workers", "1"]
        backend = stack.enter_context(started(server))
        folder = pathlib.Path(folder)
        folder.joinpath("map.yaml").write_text(f"version: 1\nbackends:\n  - {{name: a, id: 1, address: \"{backend}\"}}\n")
        config = folder / "main.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\nadmin: {{listen: off}}\npartition_map: map.yaml\nworkers: 2\nlocks: {{wait: {wait}}}\n"
        )
        proxy = stack.enter_context(started([options.binary, "serve", "--config", config]))
        command = [options.binary, "bench", "--target", proxy, *map(str, bench)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(ran.stdout)


def figures(report):
    page, lock = report["page_latency"], report["lock_wait"]
    return {
        "pages/s": report["pages_per_s"],
        "mean": report["begun_page_latency"].get("mean_us", 0) / 1000,
        "p50": page["p50_us"] / 1000,
        "p90": page["p90_us"] / 1000,
        "lock wait": lock["p50_us"] / 1000,
        "of the hold": report["lock_wait_per_page_ahead"]["p50_us"] / max(1, report["lock_hold"]["p50_us"]),
        "wrong": sum(found["count"] for found in report["violations"].values()),
        "failed": report["failed_pages"],
    }


def row(options, case):
    """All rounds of one load, and their figures: {wait: [figures of a round]}."""
    waits, found, reports = options.waits.split(","), {}, []
    for round in range(options.rounds):
        # Who begins changes.
        for wait in waits[round % len(waits) :] + waits[: round % len(waits)]:
            report = measured(options, wait, farm(options, *case, 1 + round))
            found.setdefault(wait, []).append(figures(report))
            reports.append({"case": case, "round": round, "wait": wait, "report": report})
    return found, reports


def spread(values, digits):
    least, most = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    median = f"{statistics.median(values):.{digits}f}"
    return median if least == most else f"{median} ({least}-{most})"


def lines(case, found):
    at_once, hold, load = case
    stock = next(iter(sorted(found)))
    for wait in sorted(found):
        rounds = found[wait]
        of = lambda name: [figures[name] for figures in rounds]
        ratio = lambda name: spread([mine[name] / max(0.001, its[name]) for mine, its in zip(rounds, found[stock])], 2)
        cells = [f"{statistics.median(of(name)):.0f}" for name in ("pages/s", "mean", "p50", "p90", "lock wait")]
        cells += [f"{statistics.median(of('of the hold')):.2f}", f"{sum(of('wrong'))}, {sum(of('failed'))}"]
        cells += ["", ""] if wait == stock else [ratio("pages/s"), ratio("mean")]
        yield f"| {at_once} | {hold} | {load} | {wait} | " + " | ".join(cells) + " |"


def main():
    options = arguments()
    print("| at once | hold | load | wait | pages/s | page ms, mean | p50 | p90 | lock wait ms, p50 | of the hold, per page ahead | wrong, failed | pages/s, ratio | mean, ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    cases = [
        (at_once, hold, load)
        for hold in options.hold.split(",")
        for load in options.loads.split(",")
        for at_once in map(int, options.at_once.split(","))
    ]
    everything = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for case, (found, reports) in zip(cases, pool.map(lambda case: row(options, case), cases)):
            everything += reports
            print("\n".join(lines(case, found)), flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
