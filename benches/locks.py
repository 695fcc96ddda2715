#!/usr/bin/env python3
"""Pages that want a locked session: ASP.NET's polling against waiting in the proxy.

One state server, one proxy for each wait, `staterouter bench` as the web farm. Each row is a load;
the columns are values of `locks.wait`, 0s being stock polling. With --web-threads the web servers
have as few threads as ASP.NET gives them at first.
"""

import argparse
import contextlib
import json
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/staterouter", help="what is measured")
    parser.add_argument("--waits", default="0s,100ms,250ms,500ms", help="values of locks.wait")
    parser.add_argument("--at-once", default="1,2,4,8,16", help="pages at once for one session")
    parser.add_argument("--hold", default="20ms", help="how long a page holds its lock; several with commas")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--clients", type=int, default=0, help="browsers; 0 is sessions x pages at once")
    parser.add_argument("--rate", type=float, help="pages per second; without it a browser asks again at once")
    parser.add_argument("--burst", action="store_true", help="the pages at once are for one session, then for the next")
    parser.add_argument("--web-threads", type=int, help="threads of a web server at first")
    parser.add_argument("--web-servers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=20)
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


def measured(options, wait, at_once, hold):
    """The report of one run."""
    clients = options.clients or options.sessions * at_once
    bench = ["--clients", clients, "--sessions", options.sessions, "--duration", f"{options.seconds}s"]
    bench += ["--hold", hold, "--mix", options.mix, "--threads", options.web_servers, "--no-sweep", "--json"]
    bench += ["--burst", at_once] if options.burst else []
    bench += ["--rate", options.rate] if options.rate else []
    bench += ["--web-threads", options.web_threads] if options.web_threads else []
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


def cells(report):
    ms = lambda latency, quantile: f"{report[latency][quantile] / 1000:.0f}"
    wrong = sum(found["count"] for found in report["violations"].values())
    return [
        f"{report['pages_per_s']:.0f}",
        f"{ms('page_latency', 'p50_us')} / {ms('page_latency', 'p99_us')}",
        f"{ms('contended_page_latency', 'p50_us')} / {ms('contended_page_latency', 'p99_us')}",
        f"{ms('lock_wait', 'p50_us')}",
        f"{report['lock_wait_per_page_ahead']['p50_us'] / max(1, report['lock_hold']['p50_us']):.2f}",
        f"{wrong}, {report['failed_pages']}",
    ]


def main():
    options = arguments()
    print("| at once | hold | wait | pages/s | page ms, p50 / p99 | contended | lock wait ms, p50 | of the hold, per page ahead | wrong, failed |")
    print("|---|---|---|---|---|---|---|---|---|")
    reports = []
    for at_once in map(int, options.at_once.split(",")):
        for hold in options.hold.split(","):
            for wait in options.waits.split(","):
                report = measured(options, wait, at_once, hold)
                reports.append({"at_once": at_once, "hold": hold, "wait": wait, "report": report})
                print(f"| {at_once} | {hold} | {wait} | " + " | ".join(cells(report)) + " |", flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(reports, indent=1))


if __name__ == "__main__":
    main()
