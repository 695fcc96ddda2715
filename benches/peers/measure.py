"""Measurements of one subject. All figures come from the load generator, `strace` and /proc."""

import json
import subprocess
import time

import processes

WARM_S = 0.2


class Measure:
    """`cores` are those of the load generator, `peers` is its program."""

    def __init__(self, peers, cores, body_bytes):
        self.peers = peers
        self.cores = cores
        self.body_bytes = body_bytes

    def command(self, subject, connections, *more):
        command = [self.peers, "load", "--dialect", subject.dialect]
        command += ["--ports", ",".join(str(port) for port in subject.ports)]
        command += ["--connections", connections, "--body", self.body_bytes, "--warm", WARM_S]
        if subject.pids():
            command += ["--cpu-of", ",".join(str(pid) for pid in subject.pids())]
        return [*command, *more]

    def run(self, subject, connections, *more, during=None):
        """One run of the load generator, as its JSON and what follows from it. `during` is called
        with its process while it runs."""
        command = self.command(subject, connections, *more)
        load = processes.start(command, self.cores, stdout=subprocess.PIPE)
        if during:
            during(load)
        out, _ = load.communicate()
        processes.end(load)
        if load.returncode != 0:
            raise SystemExit(f"the load on {subject.name} failed")
        return figures(json.loads(out))

    def fill(self, subject, connections, *more):
        """Writes every session once."""
        command = self.command(subject, connections, "--order", "fill", *more)
        load = processes.start(command, self.cores, stdout=subprocess.PIPE)
        out, _ = load.communicate()
        processes.end(load)
        if out != "filled\n":
            raise SystemExit(f"{subject.name} does not take all sessions")

    def count(self, subject, connections, requests, *more):
        """As `run`, but until `requests` are answered, without warming up."""
        command = self.command(subject, connections, "--requests", requests, *more)
        pipe = subprocess.PIPE
        load = processes.start(command, self.cores, stdin=pipe, stdout=pipe)
        load.stdout.readline()
        load.stdin.write("go\n")
        load.stdin.flush()
        done = load.stdout.readline()
        load.communicate("over\n")
        processes.end(load)
        if load.returncode != 0:
            raise SystemExit(f"the load on {subject.name} failed")
        return figures(json.loads(done))

    def syscalls(self, subject, connections, requests):
        """System calls per request by name, counted while `requests` are answered."""
        command = self.command(subject, connections, "--requests", requests)
        pipe = subprocess.PIPE
        load = processes.start(command, self.cores, stdin=pipe, stdout=pipe)
        load.stdout.readline()
        pids = [word for pid in subject.pids() for word in ("-p", pid)]
        strace = processes.start(["strace", "-c", "-f", *pids], self.cores, stderr=pipe)
        # One line for each thread; the count begins with the last.
        time.sleep(0.5)
        load.stdin.write("go\n")
        load.stdin.flush()
        done = json.loads(load.stdout.readline())["requests"]
        strace.send_signal(2)
        table = strace.stderr.read()
        processes.end(strace)
        load.communicate("over\n")
        processes.end(load)
        return {name: calls / done for name, calls in summary(table).items()}

    def idle(self, bench, name, connections):
        """Memory of a fresh subject in kB: at its start, and by connection that idles."""
        subject = bench.start(name)
        time.sleep(0.5)
        at_start = processes.memory_kb(subject.process)
        self.run(subject, 64, "--time", 0.3)
        warm = processes.memory_kb(subject.process)
        command = self.command(subject, connections, "--hold", 1)
        pipe = subprocess.PIPE
        load = processes.start(command, self.cores, stdin=pipe, stdout=pipe)
        if not load.stdout.readline():
            raise SystemExit(f"{name} does not take {connections} connections")
        full = processes.memory_kb(subject.process)
        load.communicate("over\n")
        processes.end(load)
        processes.end(subject.process)
        return {"start_kb": at_start, "connection_kb": (full - warm) / connections}


def rounds(names, count, run):
    """What `run` measures of every name, once in every round, each round beginning with another."""
    figures = {name: [] for name in names}
    for n in range(count):
        shift = n % len(names)
        for name in names[shift:] + names[:shift]:
            figures[name].append(run(name))
    return figures


def figures(raw):
    """Adds rates to what the load generator counted."""
    requests = max(raw["requests"], 1)
    raw["requests_per_s"] = raw["requests"] / raw["seconds"]
    raw["cpu_us_per_request"] = raw["cpu_us"] / requests
    return raw


def summary(table):
    """Calls by name from the table that `strace -c` prints."""
    calls = {}
    for line in table.splitlines():
        words = line.split()
        # % time, seconds, usecs/call, calls, [errors,] name
        if len(words) in (5, 6) and words[3].isdigit() and words[-1] != "total":
            calls[words[-1]] = calls.get(words[-1], 0) + int(words[3])
    return calls
