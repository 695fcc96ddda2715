#!/usr/bin/env python3
"""Measures how the cost of a request grows with backends, connections, sessions and changes of
the partition map: see benches/README.md."""

import argparse
import os
import pathlib
import platform
import sys
import time

sys.dont_write_bytecode = True

import changes
import install
import processes
import report
import subjects
from measure import Measure, rounds

HERE = pathlib.Path(__file__).resolve().parent
PARTS = ["backends", "connections", "items", "latency", "handover"]

BODY_BYTES = 2048
ITEM_BYTES = 1024
CONNECTIONS = 64

# How long a proxy is watched at rest, and for each of how many new maps.
REST_S = 3
MAP_S = 1
NEW_MAPS = 5

# Open files of a proxy besides two for each connection that it carries.
MORE_FILES = 1000
# What an item of 1 KB takes in the state server, with room to spare.
ITEM_ROOM_BYTES = 1400


# Subjects at many connections. The narrow pool keeps fewer idle connections to backends than there
# are requests in one turn of the event loop.
OWN, NARROW, RELAY = "staterouter", "narrow pool", "relay"
NARROW_POOL = "limits:\n  idle_backend_connections: 256\n"


def main():
    options = parse()
    processes.run_in_folder(lambda folder: Growth(options, folder).all(), options.json)


def parse():
    numbers = lambda text: [int(part) for part in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--only", type=lambda text: text.split(","), default=PARTS,
        help="parts to run: " + ",".join(PARTS))
    add("--backends", type=numbers, default=[3, 16, 64, 127], help="1 to 127")
    add("--connections", type=numbers, default=[10, 64, 512, 2000, 10000])
    add("--items", type=numbers, default=[10_000, 100_000, 1_000_000],
        help="sessions in the embedded state server; 5000000 take 7 GB")
    add("--rate", type=float, default=10_000, help="requests/s of the latencies")
    add("--window", type=float, default=6, help="seconds of one run of the latencies")
    add("--latency-rounds", type=int, default=3)
    add("--moving", type=int, default=20_000, help="sessions that a handover moves")
    add("--rounds", type=int, default=5, help="of each closed loop")
    add("--seconds", type=float, default=0.5, help="measured time of one closed loop")
    add("--staterouter", help="a built binary; it is built when left out")
    add("--json", help="where to write all figures")
    options = parser.parse_args()
    if set(options.only) - set(PARTS):
        parser.error("--only are some of " + ",".join(PARTS))
    if not all(1 <= count <= 127 for count in options.backends):
        parser.error("--backends are 1 to 127: a partition map holds no more")
    return options


class Growth:
    """One run; `results` becomes the JSON."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = folder
        self.programs = {
            "peers": install.build(HERE / "Cargo.toml", "peers"),
            "staterouter": options.staterouter
            or install.build(install.ROOT / "Cargo.toml", "staterouter"),
        }
        cores = sorted(os.sched_getaffinity(0))
        self.proxy_cores = {cores[-1]}
        self.load_cores = set(cores[:-1] or cores)
        # This program shares the cores of the load: it rewrites maps while proxies are measured.
        os.sched_setaffinity(0, self.load_cores)
        self.measure = Measure(self.programs["peers"], self.load_cores, BODY_BYTES)
        self.change_bench = changes.Bench(
            folder, self.programs, self.measure, self.proxy_cores, self.load_cores
        )
        self.results = {
            "machine": {
                "cores": len(cores),
                "kernel": platform.release(),
                "load_before": os.getloadavg()[0],
            },
            "settings": vars(options),
        }

    def all(self):
        cores = self.results["machine"]["cores"]
        print(f"cores {cores}, load before {os.getloadavg()[0]:.1f}; one worker on a core of its "
              "own; median (least-most), ratios within rounds\n")
        for part in PARTS:
            if part in self.options.only:
                self.results[part] = getattr(self, part)()
                print(flush=True)
        return self.results

    def backends(self):
        """CPU time by the number of backends: one proxy for each, one responder behind all."""
        counts = self.options.backends
        backend, ports = self.responder(max(counts))
        proxies = {}
        for count in counts:
            proxies[count] = self.bench(ports[:count]).start("staterouter")
            # So that its connections to backends are there.
            self.run(proxies[count], CONNECTIONS)
        figures = rounds(
            counts, self.options.rounds, lambda count: self.run(proxies[count], CONNECTIONS)
        )
        without = self.without_load(proxies, ports)
        cell = {"connections": CONNECTIONS, "body_bytes": BODY_BYTES, "without_load": without,
                "rounds": figures}
        rows = [("backends", "CPU us/request", f"over {counts[0]}", "requests/s",
                 "opened/1000 requests", "connections", "at rest, CPU ms/s",
                 "new map, CPU ms")]
        for count in counts:
            rows.append((
                str(count),
                spread(cell, count, report.CPU, 1),
                report.ratio(cell, counts[0], report.CPU, count) if count != counts[0] else "",
                spread(cell, count, report.RATE, 0),
                spread(cell, count, "opened_per_1000", 1),
                spread(cell, count, "backend_connections", 0),
                f"{without[count]['rest_ms_per_s']:.1f}",
                report.spread(without[count]["map_ms"], 0),
            ))
        print(f"backends: {CONNECTIONS} client connections, 2 KB; opened and connections: to "
              "backends\n" + report.text_table(rows))
        self.end(*proxies.values(), backend=backend)
        return cell

    def without_load(self, proxies, ports):
        """CPU time of proxies that carry nothing, per second and for a new map."""
        spent = {count: [processes.cpu_ms(proxy.process)] for count, proxy in proxies.items()}
        time.sleep(REST_S)
        for version in range(2, 3 + NEW_MAPS):
            for count, proxy in proxies.items():
                spent[count].append(processes.cpu_ms(proxy.process))
                if version < 2 + NEW_MAPS:
                    weights = {1: 100 + version % 2}
                    subjects.write_map(proxy.folder, ports[:count], version, weights)
            time.sleep(MAP_S)
        without = {}
        for count, (start, *later) in spent.items():
            rest = (later[0] - start) / REST_S
            maps = [after - before - rest * MAP_S for before, after in zip(later, later[1:])]
            without[count] = {"rest_ms_per_s": rest, "map_ms": maps}
        return without

    def connections(self):
        """CPU time by the number of client connections, with the bare relay beside it."""
        counts = []
        for count in self.options.connections:
            if 2 * count + MORE_FILES <= subjects.open_files():
                counts.append(count)
            else:
                print(f"skipped: {count} connections take {2 * count + MORE_FILES} open files of a "
                      f"proxy, ulimit -n allows {subjects.open_files()}")
        if not counts:
            return None
        backend, ports = self.responder(3)
        started = {
            OWN: self.bench(ports).start("staterouter"),
            NARROW: self.bench(ports).start("staterouter", NARROW_POOL),
            RELAY: self.bench(ports).start("relay"),
        }
        figures = rounds(
            [(name, count) for count in counts for name in started], self.options.rounds,
            lambda key: self.run(started[key[0]], key[1]),
        )
        self.end(*started.values(), backend=backend)
        cells = {
            name: {"rounds": {count: figures[name, count] for count in counts}} for name in started
        }
        base = CONNECTIONS if CONNECTIONS in counts else counts[0]
        growth = lambda name, count: report.ratio(cells[name], base, report.CPU, count)
        rows = [("connections", "CPU us/request", f"over {base}", "over the relay",
                 "opened/1000 requests", "narrow pool", f"over {base}", "over the relay",
                 "opened/1000 requests", "relay", f"over {base}")]
        for count in counts:
            row = [str(count)]
            for name in (OWN, NARROW):
                both = {"rounds": {name: figures[name, count], RELAY: figures[RELAY, count]}}
                row += [
                    spread(cells[name], count, report.CPU, 1), growth(name, count),
                    report.ratio(both, RELAY, report.CPU, name),
                    spread(cells[name], count, "opened_per_1000", 1),
                ]
            rows.append((*row, spread(cells[RELAY], count, report.CPU, 1), growth(RELAY, count)))
        print("connections: 3 backends, 2 KB; narrow pool: " + NARROW_POOL.split(":", 1)[1].strip()
              + "; opened: connections to backends\n" + report.text_table(rows))
        return {"backends": 3, "body_bytes": BODY_BYTES, "subjects": cells}

    def items(self):
        """CPU time of the embedded state server by the number of sessions that it holds."""
        counts = []
        for count in sorted(self.options.items):
            if (sum(counts) + count) * ITEM_ROOM_BYTES <= available_bytes():
                counts.append(count)
            else:
                print(f"skipped: no memory for {count} sessions")
        if not counts:
            return None
        measure = Measure(self.programs["peers"], self.load_cores, ITEM_BYTES)
        stores, memory = {}, {}
        for count in counts:
            store = subjects.start_state_server(
                self.programs["staterouter"], self.folder, self.proxy_cores, f"items-{count}"
            )
            before = processes.memory_kb(store.process)
            measure.fill(store, CONNECTIONS, "--sessions", count)
            memory[count] = (processes.memory_kb(store.process) - before) * 1024 / count
            stores[count] = store
        figures = rounds(counts, self.options.rounds, lambda count: measure.run(
            stores[count], CONNECTIONS, "--time", self.options.seconds, "--sessions", count
        ))
        cell = {"body_bytes": ITEM_BYTES, "bytes_per_session": memory, "rounds": figures}
        rows = [("sessions", "CPU us/operation", f"over {counts[0]}", "operations/s",
                 "bytes per session")]
        for count in counts:
            rows.append((
                f"{count:,}",
                spread(cell, count, report.CPU, 1),
                report.ratio(cell, counts[0], report.CPU, count) if count != counts[0] else "",
                spread(cell, count, report.RATE, 0),
                f"{memory[count]:.0f}",
            ))
        print("state server: 64 connections, 1 KB\n" + report.text_table(rows))
        self.end(*stores.values())
        return cell

    def latency(self):
        return changes.latency(self.change_bench, self.options)

    def handover(self):
        return changes.handover(self.change_bench, self.options)

    def run(self, subject, connections):
        """A closed loop. Many connections take longer to get their turns."""
        seconds = self.options.seconds * max(1, connections / 1000)
        before = changes.pool_use(subject) if subject.admin else None
        figures = self.measure.run(subject, connections, "--time", seconds)
        if before:
            after = changes.pool_use(subject)
            requests = max(after["requests"] - before["requests"], 1)
            figures["opened_per_1000"] = (after["opened"] - before["opened"]) * 1000 / requests
            figures["backend_connections"] = after["connections"]
        return figures

    def responder(self, count):
        return subjects.start_backend(
            self.programs["peers"], count, BODY_BYTES, self.load_cores, self.folder
        )

    def bench(self, ports):
        return subjects.Bench(self.folder, self.programs, 1, ports, BODY_BYTES, self.proxy_cores)

    def end(self, *started, backend=None):
        for subject in started:
            processes.end(subject.process)
        if backend:
            processes.end(backend)


def spread(cell, name, key, digits):
    return report.spread(report.values(cell, name, key), digits)


def available_bytes():
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    kb = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return kb * 1024


if __name__ == "__main__":
    main()
