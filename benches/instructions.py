#!/usr/bin/env python3
"""Instructions, or system calls, that a proxy spends on one request.

The release binary runs under callgrind (or strace) in front of one state server, and `staterouter
bench` drives it twice: the difference of the two runs leaves out what starting costs, the first look
at each session included, which comes once a minute. Counted is the one worker thread; everything is
on as it is by default.
"""

import argparse
import contextlib
import json
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=ROOT / "target/release/staterouter", help="what is measured")
    parser.add_argument("--clients", type=int, default=64, help="web requests in progress at the same time")
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--pages", type=int, default=5000, help="pages of the short run; the long one has five times as many")
    parser.add_argument("--config", default="", help="lines to add to the configuration")
    parser.add_argument("--functions", type=int, default=25, help="how many of the dearest functions to show")
    parser.add_argument("--only", default="", help="count functions alone whose name has this regular expression")
    parser.add_argument("--syscalls", action="store_true", help="count system calls instead of instructions")
    return parser.parse_args()


@contextlib.contextmanager
def started(command):
    """A running server and its address; it has ended afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.wait()


def instructions_by_function(directory):
    """Of the thread that serves requests."""
    for file in directory.glob("callgrind*"):
        text = file.read_text()
        if "Exchange" not in text:
            continue
        names, counts, current, is_call = {}, {}, None, False
        for line in text.splitlines():
            if line.startswith("fn="):
                number, _, name = line[3:].partition(" ")
                if name:
                    names[number] = name
                current = number
            elif match := re.match(r"c?f[nile]+=(\(\d+\)) (.+)", line):
                if line.startswith("cfn="):
                    names[match[1]] = match[2]
            elif line.startswith("calls="):
                is_call = True
            elif match := re.match(r"[+*\-\d]\S* (\d+)$", line):
                if not is_call:
                    counts[current] = counts.get(current, 0) + int(match[1])
                is_call = False
        return {names.get(number, number): count for number, count in counts.items()}
    raise SystemExit("no thread has served a request")


def calls_by_name(file):
    """Of the thread that sends most."""
    calls = {}
    for line in file.read_text().splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            of_thread = calls.setdefault(match[1], {})
            of_thread[match[2]] = of_thread.get(match[2], 0) + 1
    return max(calls.values(), key=lambda of_thread: of_thread.get("sendto", 0))


def run(options, pages):
    """What one run costs, by function or call, and its number of requests."""
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Empty in both runs: the sessions of the first would spare the second their creation.
        listen = ["--listen", "127.0.0.1:0", "--workers", "1"]
        _, backend = stack.enter_context(started([options.binary, "state-server", *listen]))
        (directory / "map.yaml").write_text(
            f'version: 1\nbackends:\n  - {{name: a, id: 1, address: "{backend}"}}\n'
        )
        config = directory / "main.yaml"
        config.write_text(
            "listen: 127.0.0.1:0\nworkers: 1\npartition_map: map.yaml\nadmin: {listen: 127.0.0.1:0}\n" + options.config + "\n"
        )
        command = [options.binary, "serve", "--config", config]
        if not options.syscalls:
            out = f"--callgrind-out-file={directory}/callgrind"
            command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", out, *command]
        with started(command) as (proxy, address):
            if options.syscalls:
                trace = ["strace", "-f", "-o", directory / "strace", "-p", str(proxy.pid)]
                tracer = subprocess.Popen(trace, stderr=subprocess.PIPE, text=True)
                tracer.stderr.readline()
            bench = [options.binary, "bench", "--target", address, "--no-sweep", "--json", "--seed", "5"]
            bench += ["--clients", str(options.clients), "--sessions", str(options.sessions)]
            report = subprocess.run([*bench, "--pages", str(pages)], capture_output=True, text=True)
        if options.syscalls:
            tracer.wait()
            costs = calls_by_name(directory / "strace")
        else:
            costs = instructions_by_function(directory)
        return costs, json.loads(report.stdout)["operations"]


def main():
    options = arguments()
    short, few = run(options, options.pages)
    long, many = run(options, 5 * options.pages)
    requests = many - few
    costs = {name: (cost - short.get(name, 0)) / requests for name, cost in long.items() if re.search(options.only, name)}
    digits = 2 if options.syscalls else 0
    print(f"{sum(costs.values()):.{digits}f} per request, {requests} requests, {options.clients} clients")
    for name, cost in sorted(costs.items(), key=lambda item: -item[1])[: options.functions]:
        print(f"{cost:9.{digits}f}  {name}")


if __name__ == "__main__":
    main()
