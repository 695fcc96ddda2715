#!/usr/bin/env python3
"""What it costs to keep sessions: in memory, on disk, on Redis through the proxy and on Redis alone.
See benches/README.md."""

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import install
import processes
import report
import stores
import subjects
from measure import Measure, figures, rounds

HERE = pathlib.Path(__file__).resolve().parent
BODY_BYTES = 2048
# The part of a store that is judged, if it has it.
FIRST = ("state server", "proxy", "relay", "redis")
CONNECTIONS = 64
SYNC = ["shutdown", "off", "everysec", "always"]
DIRECT, SAME, RELAYED, PROXIED = "redis alone", "same scripts", "relayed", "redis"
NAMES = ["memory", *SYNC, PROXIED, DIRECT, SAME, RELAYED]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    names = lambda text: text.split(",")
    numbers = lambda text: [int(part) for part in text.split(",")]
    add("--only", type=names, default=["cost", "latency", "in-process", "memory", "recovery"])
    add("--subjects", type=names, default=NAMES, help="some of " + ",".join(NAMES)
        + "; NAME@BINARY for that of another binary")
    add("--rounds", type=int, default=7)
    add("--requests", type=int, default=40_000, help="measured requests of one run")
    add("--sessions", type=int, default=10_000, help="that requests are about")
    add("--rate", type=int, default=4000, help="requests/s of the open loop for the latency")
    add("--memory", type=int, default=200_000, help="sessions for the memory")
    add("--recovery", type=numbers, default=[100_000, 300_000, 1_000_000], help="sessions to load")
    add("--staterouter", help="a built binary; it is built when left out")
    add("--json", help="where to write all figures")
    options = parser.parse_args()
    processes.run_in_folder(lambda folder: Run(options, folder).all(), options.json)


class Stack:
    """A store and whatever stands before it: whom the load asks, and whose CPU time counts."""

    def __init__(self, name, subject, parts):
        self.name = name
        self.subject = subject
        # By name of the part; the first is the one that is judged.
        self.parts = parts

    def end(self):
        for process in self.parts.values():
            processes.end(process)


class Run:
    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        install.packages(["redis-server"])
        peers = install.build(HERE / "Cargo.toml", "peers")
        self.program = options.staterouter or install.build(
            install.ROOT / "Cargo.toml", "staterouter"
        )
        cores = sorted(os.sched_getaffinity(0))
        self.cores = {cores[-1]}
        self.measure = Measure(peers, {cores[0]}, BODY_BYTES)
        self.count = 0
        scripts = f"{stores.digest(stores.ACQUIRE)},{stores.digest(stores.STORE)}"
        self.more = ["--sessions", options.sessions, "--scripts", scripts]
        same = ",".join(stores.digest(script) for script in stores.OURS)
        same = ["--sessions", options.sessions, "--scripts", same]
        self.more_by_name = {SAME: same, RELAYED: same}

    def more_of(self, stack):
        return self.more_by_name.get(stack.name, self.more)

    def all(self):
        results = {}
        print("median (least-most) of the rounds; ratio: the row over the one named, within rounds\n")
        if {"cost", "latency"} & set(self.options.only):
            stacks = {name: self.start(name) for name in self.options.subjects}
            for stack in stacks.values():
                self.fill(stack, *self.more)
            if "cost" in self.options.only:
                run = lambda name: self.cost(stacks[name])
                results["cost"] = rounds(list(stacks), self.options.rounds, run)
                print(cost_table(results["cost"]) + "\n", flush=True)
            if "latency" in self.options.only:
                results["alone"] = rounds(list(stacks), self.options.rounds, lambda name:
                    self.measure.run(stacks[name].subject, 1, "--time", 0.5,
                                     *self.more_of(stacks[name])))
                print("one connection, request after request\n"
                      + latency_table(results["alone"]) + "\n", flush=True)
                rate = ["--rate", self.options.rate, "--time", 1.0]
                results["latency"] = rounds(list(stacks), self.options.rounds, lambda name:
                    self.measure.run(stacks[name].subject, CONNECTIONS, *rate,
                                     *self.more_of(stacks[name])))
                print(f"{CONNECTIONS} connections, {self.options.rate} requests/s\n"
                      + latency_table(results["latency"]) + "\n", flush=True)
            for stack in stacks.values():
                stack.end()
        if "in-process" in self.options.only:
            results["in process"] = self.in_process()
            print("one connection, without the proxy's own listener\n"
                  + in_process_table(results["in process"]) + "\n", flush=True)
        if "memory" in self.options.only:
            results["memory"] = {name: self.memory(name) for name in self.options.subjects}
            rows = [("", "bytes per session")]
            rows += [(name, f"{size:.0f}") for name, size in results["memory"].items()]
            print(f"{self.options.memory} sessions of {BODY_BYTES} bytes\n"
                  + report.text_table(rows) + "\n", flush=True)
        if "recovery" in self.options.only:
            rows = [("sessions", "files MB", "start s", "CPU s")]
            results["recovery"] = {}
            for sessions in self.options.recovery:
                found = results["recovery"][sessions] = self.recovery(sessions)
                rows.append((f"{sessions:,}", f"{found['file_mb']:.0f}", f"{found['seconds']:.2f}",
                             f"{found['cpu_s']:.2f}"))
            print("a start after SIGKILL, files in the system's cache\n" + report.text_table(rows))
        return results

    def fill(self, stack, *more):
        self.measure.fill(stack.subject, CONNECTIONS, *more)
        if stack.name in self.more_by_name:
            stores.run(stack.subject.ports[0], "EVAL", stores.AS_OURS, "0")

    def start(self, name):
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        kind, _, program = name.partition("@")
        return self.start_kind(name, kind, folder, program or self.program)

    def start_kind(self, name, kind, folder, program):
        if kind == "memory":
            subject = subjects.start_state_server(program, folder, self.cores)
            return Stack(name, subject, {"state server": subject.process})
        if kind in SYNC:
            subject = self.start_on_disk(folder, kind, program)
            return Stack(name, subject, {"state server": subject.process})
        port, redis = start_redis(folder, self.cores)
        if kind in (DIRECT, SAME):
            subject = subjects.Subject(name, "redis", [port], redis)
            stores.load_scripts(port)
            return Stack(name, subject, {"redis": redis})
        if kind == RELAYED:
            stores.load_scripts(port)
            programs = {"peers": self.measure.peers}
            bench = subjects.Bench(folder, programs, 1, [port], BODY_BYTES, self.cores)
            relay = bench.relay()
            subject = subjects.Subject(name, "redis", relay.ports, relay.process)
            return Stack(name, subject, {"relay": relay.process, "redis": redis})
        (folder / "map.yaml").write_text(
            "version: 1\nbackends:\n  - name: redis\n    id: 1\n"
            f'    redis: {{urls: ["redis://127.0.0.1:{port}"]}}\n'
        )
        subject = subjects.start_staterouter(program, folder, 1, self.cores)
        return Stack(name, subject, {"proxy": subject.process, "redis": redis})

    def start_on_disk(self, folder, sync, program):
        out = folder / f"out-{time.monotonic_ns()}"
        command = [program, "state-server", "--listen", "127.0.0.1:0", "--workers", "1"]
        command += ["--data", folder / "data", "--sync", sync]
        log = open(folder / "log", "a")
        process = processes.start(command, self.cores, stdout=open(out, "w"), stderr=log)
        while not (line := subjects.first_line(out)):
            if process.poll() is not None:
                raise SystemExit(f"the state server ended with {process.returncode} at its start")
            time.sleep(0.002)
        return subjects.Subject(sync, "aspnet", [int(line.rsplit(":", 1)[1])], process)

    def cost(self, stack):
        """CPU time of each part while requests are answered as fast as they can be."""
        options = self.options
        command = self.measure.command(
            stack.subject, CONNECTIONS, "--requests", options.requests, *self.more_of(stack)
        )
        pipe = subprocess.PIPE
        load = processes.start(command, self.measure.cores, stdin=pipe, stdout=pipe)
        load.stdout.readline()
        before = {part: processes.cpu_ms(process) for part, process in stack.parts.items()}
        load.stdin.write("go\n")
        load.stdin.flush()
        done = figures(json.loads(load.stdout.readline()))
        for part, process in stack.parts.items():
            spent_us = 1e3 * (processes.cpu_ms(process) - before[part])
            done[part] = spent_us / done["requests"]
        load.communicate("over\n")
        processes.end(load)
        return done

    def in_process(self):
        """The state server in the process of who asks it, beside a client of the same Redis: a list of
        rounds."""
        bench = ["cargo", "bench", "--locked", "--quiet", "--bench", "in_process"]
        bench += ["--manifest-path", install.ROOT / "Cargo.toml"]
        subprocess.run([*bench, "--no-run"], check=True, stdout=sys.stderr)
        folder = self.folder / "in-process"
        folder.mkdir()
        port, redis = start_redis(folder, self.cores)
        command = [*bench, "--", "--port", port, "--rounds", self.options.rounds]
        asking = processes.start(command, self.measure.cores, stdout=subprocess.PIPE)
        lines, _ = asking.communicate()
        processes.end(redis)
        if asking.returncode != 0:
            raise SystemExit(f"in_process ended with {asking.returncode}")
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]

    def memory(self, name):
        stack = self.start(name)
        process = list(stack.parts.values())[-1]
        before = processes.memory_kb(process)
        more = ["--sessions", self.options.memory, *self.more[2:]]
        self.fill(stack, *more)
        grown = processes.memory_kb(process) - before
        stack.end()
        return grown * 1024 / self.options.memory

    def recovery(self, sessions):
        folder = self.folder / f"recovery-{sessions}"
        folder.mkdir()
        subject = self.start_on_disk(folder, "everysec", self.program)
        self.measure.fill(subject, CONNECTIONS, "--sessions", sessions)
        os.killpg(subject.process.pid, signal.SIGKILL)
        processes.end(subject.process)
        files = sum(file.stat().st_size for file in (folder / "data").iterdir())
        begun = time.monotonic()
        subject = self.start_on_disk(folder, "everysec", self.program)
        seconds = time.monotonic() - begun
        cpu_s = processes.cpu_ms(subject.process) / 1e3
        processes.end(subject.process)
        shutil.rmtree(folder)
        return {"file_mb": files / 1e6, "seconds": seconds, "cpu_s": cpu_s}


def start_redis(folder, cores):
    """One thread, nothing on disk."""
    port = subjects.free_port()
    command = [install.find("redis-server"), "--bind", "127.0.0.1", "--port", port]
    command += ["--save", "", "--appendonly", "no", "--logfile", folder / "redis.log"]
    command += ["--dir", folder, "--maxmemory-policy", "noeviction"]
    process = processes.start(command, cores)
    subjects.wait_for(lambda: subjects.can_connect(port), process, "redis")
    return port, process


def cost_table(results):
    rows = [("", "CPU us/operation", "of Redis", "ratio to memory", "ratio to its Redis", "operations/s")]
    first = lambda found: next(found[part] for part in FIRST if part in found)
    for name, found in results.items():
        cpu = [first(run) for run in found]
        memory = [first(run) for run in results.get("memory", [])]
        redis = [run["redis"] for run in found if "redis" in run]
        rows.append((
            name,
            report.spread(cpu, 1),
            report.spread(redis, 1) if "proxy" in found[0] else "",
            within(cpu, memory),
            within(cpu, redis) if "proxy" in found[0] else "",
            report.spread([run["requests_per_s"] for run in found], 0),
        ))
    return report.text_table(rows)


def in_process_table(found):
    rows = [("", "in process us", "plain client us", "ratio")]
    for kind in ("read", "write", "pair"):
        ours, theirs = ([run[who][f"{kind}_us"] for run in found] for who in ("in process", "plain client"))
        rows.append((kind, report.spread(ours, 1), report.spread(theirs, 1), within(ours, theirs)))
    return report.text_table(rows)


def latency_table(results):
    rows = [("", "p50 us", "p99 us", "p50 to redis alone", "p99 to redis alone", "p50 to same scripts")]
    for name, found in results.items():
        p50, p99 = ([run[key] for run in found] for key in ("p50_us", "p99_us"))
        alone, same = results.get(DIRECT, []), results.get(SAME, [])
        rows.append((
            name, report.spread(p50, 0), report.spread(p99, 0),
            within(p50, [run["p50_us"] for run in alone]),
            within(p99, [run["p99_us"] for run in alone]),
            within(p50, [run["p50_us"] for run in same]),
        ))
    return report.text_table(rows)


def within(ours, theirs):
    """The ratio in each round, where there are both."""
    ratios = [one / other for one, other in zip(ours, theirs) if other]
    return report.spread(ratios, 2) if ratios else ""


if __name__ == "__main__":
    main()
