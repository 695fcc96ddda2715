#!/usr/bin/env python3
"""Compares staterouter with other proxies on this machine: see benches/README.md."""

import argparse
import itertools
import os
import pathlib
import platform
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True

import install
import processes
import report
import stores
import subjects
from measure import Measure, rounds

HERE = pathlib.Path(__file__).resolve().parent
SUBJECTS = ["staterouter", "haproxy", "nginx", "relay", "none"]


def main():
    options = parse()
    processes.run_in_folder(lambda folder: Run(options, folder).all(), options.json)


def parse():
    numbers = lambda text: [int(part) for part in text.split(",")]
    sizes = lambda text: [round(float(part) * 1024) for part in text.split(",")]
    names = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--workers", type=numbers, default=[1], help="threads of each proxy, such as 1,2")
    add("--connections", type=numbers, default=[64, 512], help="such as 8,64,512")
    add("--body", type=sizes, default=[2048], help="KB of a session, such as 0.5,2,20,200")
    add("--backends", type=numbers, default=[3], help="1 to 127, such as 3,64")
    add("--modes", type=names, default=["apart", "together"])
    add("--subjects", type=names, default=SUBJECTS)
    add("--rounds", type=int, default=5, help="of each closed loop")
    add("--seconds", type=float, default=0.7, help="measured time of one run")
    add("--idle", type=int, default=5000, help="idle connections for the memory; 0 for none")
    add("--requests", type=int, default=20000, help="counted under strace; 0 for none")
    add("--open-rounds", type=int, default=3, help="of the open loop; 0 for none")
    add("--sessions", type=int, default=100_000,
        help="of 1 KB in the embedded state server, Redis and memcached; 0 for none of these")
    add("--staterouter", help="a built binary; it is built when left out")
    add("--json", help="where to write all figures")
    options = parser.parse_args()
    for name, allowed in (("modes", ["apart", "together"]), ("subjects", SUBJECTS)):
        if set(getattr(options, name)) - set(allowed):
            parser.error(f"--{name} are some of {','.join(allowed)}")
    if not all(1 <= count <= 127 for count in options.backends):
        parser.error("--backends are 1 to 127: a partition map holds no more")
    return options


class Run:
    """One run of the comparison; `results` becomes the JSON."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        wanted = [name for name in ("haproxy", "nginx") if name in options.subjects]
        if options.sessions:
            wanted += ["redis-server", "memcached"]
        install.packages(wanted + (["strace"] if options.requests else []))
        self.programs = {
            "peers": install.build(HERE / "Cargo.toml", "peers"),
            "staterouter": options.staterouter
            or install.build(install.ROOT / "Cargo.toml", "staterouter"),
        }
        self.cores = sorted(os.sched_getaffinity(0))
        self.results = {
            "machine": {
                "cores": len(self.cores),
                "kernel": platform.release(),
                "load_before": os.getloadavg()[0],
            },
            "versions": {name: version(name) for name in wanted},
            "settings": vars(options),
            "closed": [],
            "open": None,
            "syscalls": {},
            "memory": {},
            "stores": None,
        }

    def all(self):
        for line in self.results["versions"].values():
            print(line)
        print(f"cores {len(self.cores)}, load before {os.getloadavg()[0]:.1f}; "
              "median (least-most); sr ratio: staterouter over the row, round by round\n")
        options = self.options
        for body, backends in itertools.product(options.body, options.backends):
            backend, ports = subjects.start_backend(
                self.programs["peers"], backends, body, self.load_cores(1), self.folder
            )
            for workers in options.workers:
                self.combination(workers, body, ports, backend)
            processes.end(backend)
        if options.sessions:
            self.results["stores"] = stores.compare(
                self.folder, self.programs, options,
                self.load_cores(1), self.proxy_cores(1),
            )
            print(f"{options.sessions} sessions of 1 KB, locked reads and writes by turns, "
                  f"store on a core of its own; ratio: state server over the row\n"
                  + stores.table(self.results["stores"]) + "\n", flush=True)
        print("goals\n" + report.goal_table(self.results))
        return self.results

    def combination(self, workers, body, ports, backend):
        """All that is measured with one set of started subjects."""
        options = self.options
        bench = subjects.Bench(
            self.folder, self.programs, workers, ports, body, self.proxy_cores(workers)
        )
        processes.pin(backend, self.load_cores(workers))
        measure = Measure(self.programs["peers"], self.load_cores(workers), body)
        first = not self.results["closed"]
        if first and options.idle:
            self.memory(measure, bench)
        started = [bench.start(name) for name in options.subjects]
        for mode, connections in itertools.product(options.modes, options.connections):
            self.place(mode, workers, backend, started, measure)
            shared = mode == "apart" and workers >= len(self.cores)
            cell = {"mode": "shared" if shared else mode, "workers": workers, "connections": connections,
                    "body_bytes": body, "backends": len(ports)}
            cell["rounds"] = self.rounds(
                started, options.rounds,
                lambda subject: measure.run(subject, connections, "--time", options.seconds),
            )
            self.results["closed"].append(cell)
            print(report.cell_title(cell) + "\n" + report.closed_table(cell) + "\n", flush=True)
        self.place("apart", workers, backend, started, measure)
        if first and options.requests:
            self.syscalls(measure, started)
        if first and options.open_rounds:
            self.open_loop(measure, started, self.results["closed"][0])
        for subject in started:
            if subject.process:
                processes.end(subject.process)

    def rounds(self, started, count, run):
        by_name = {subject.name: subject for subject in started}
        return rounds(list(by_name), count, lambda name: run(by_name[name]))

    def memory(self, measure, bench):
        for name in self.options.subjects:
            if name != "none":
                self.results["memory"][name] = measure.idle(bench, name, self.options.idle)
        print(f"memory of the process, {self.options.idle} idle connections\n"
              + report.memory_table(self.results["memory"]) + "\n", flush=True)

    def syscalls(self, measure, started):
        for subject in started:
            if subject.process:
                counts = measure.syscalls(subject, 64, self.options.requests)
                self.results["syscalls"][subject.name] = counts
        print("system calls, 64 connections, under strace\n"
              + report.syscall_table(self.results["syscalls"]) + "\n", flush=True)

    def open_loop(self, measure, started, cell):
        """At half of the peak that HAProxy reached in `cell`, or of the first subject."""
        name = "haproxy" if "haproxy" in cell["rounds"] else self.options.subjects[0]
        rate = statistics.median(report.values(cell, name, report.RATE)) / 2
        opened = {"rate": rate, "of": name, "connections": cell["connections"]}
        more = ["--rate", rate, "--time", 2 * self.options.seconds]
        opened["rounds"] = self.rounds(
            started, self.options.open_rounds,
            lambda subject: measure.run(subject, cell["connections"], *more),
        )
        self.results["open"] = opened
        print(f"open loop at {rate:.0f} requests/s, half of the peak of {name}, "
              f"connections {cell['connections']}\n" + report.open_table(opened))
        if rate < report.LEAST_RATE:
            print(f"Below {report.LEAST_RATE} requests/s this is mostly how the machine wakes up from "
                  "idling: not to be compared.")
        print(flush=True)

    def place(self, mode, workers, backend, started, measure):
        """Moves everybody to the cores of a mode."""
        last = {self.cores[-1]}
        proxy = last if mode == "together" else self.proxy_cores(workers)
        load = last if mode == "together" else self.load_cores(workers)
        processes.pin(backend, load)
        measure.cores = load
        for subject in started:
            if subject.process:
                processes.pin(subject.process, proxy)

    def proxy_cores(self, workers):
        """The last ones, or all where none would remain for the load."""
        return set(self.cores[-workers:] if workers < len(self.cores) else self.cores)

    def load_cores(self, workers):
        return set(self.cores[:-workers] if workers < len(self.cores) else self.cores)


def version(program):
    """What a program says of itself; nginx says it on stderr."""
    flag = "-v" if program in ("haproxy", "nginx") else "--version"
    command = [install.find(program), flag]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0]


if __name__ == "__main__":
    main()
