"""What a change of the partition map costs those who use their sessions meanwhile: latencies and
CPU time of a proxy before four embedded state servers, of which its map has three at first."""

import http.client
import json
import random
import re
import subprocess
import time

import processes
import report
import subjects
from measure import WARM_S, rounds

CONNECTIONS = 64

# Sessions in use while latencies are measured.
SESSIONS = 10_000

# Short stages: the handover is in move 2 after three times `settle`, for twenty minutes.
SETTINGS = """timeouts:
  connect: 500ms
  answer: 1s
handover:
  settle: 1500ms
"""
MOVE2_S = 20

# Arguments of one command: Linux allows 2 MB.
IDS_AT_ONCE = 20_000
LETTERS = "abcdefghijklmnopqrstuvwxyz012345"

# Of the latencies: what happens, to which sessions.
QUIET = "no change"
RELOADS = "map rewritten every second"
OTHERS = "handover, sessions that stay"
ALL = "handover, all sessions"


class Bench:
    """Starts pools, and knows which sessions the fourth backend takes over."""

    def __init__(self, folder, programs, measure, proxy_cores, load_cores):
        self.folder = folder
        self.programs = programs
        self.measure = measure
        self.proxy_cores = proxy_cores
        self.load_cores = load_cores
        self.pools = 0

    def start(self):
        self.pools += 1
        folder = self.folder / f"pool-{self.pools}"
        folder.mkdir()
        return Pool(self, folder)

    def sessions(self, enough):
        """Ids that stay where they are when a fourth backend comes, and ids that move to it; as
        many as it takes for `enough(stay, move)`."""
        folder = self.folder / "route"
        folder.mkdir(exist_ok=True)
        (folder / "staterouter.yaml").write_text("partition_map: map.yaml\n")
        draw = random.Random(1)
        stay, move = [], []
        while not enough(stay, move):
            ids = ["".join(draw.choices(LETTERS, k=24)) for _ in range(IDS_AT_ONCE)]
            places = [self.places(folder, ids, backends) for backends in (3, 4)]
            for session, before, after in zip(ids, *places):
                (stay if before == after else move).append(session)
        return stay, move

    def places(self, folder, ids, backends):
        """The backend of each id."""
        subjects.write_map(folder, range(20001, 20001 + backends))
        config = folder / "staterouter.yaml"
        command = [self.programs["staterouter"], "route", "--config", config, *ids]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return re.findall(r"slot +\d+  (\S+)", done.stdout)

    def listed(self, name, ids):
        """The options of the load for these sessions."""
        path = self.folder / f"ids-{name}"
        path.write_text("\n".join(ids) + "\n")
        return ["--ids", path]


class Pool:
    """Four state servers and a proxy whose map has three of them."""

    def __init__(self, bench, folder):
        program = bench.programs["staterouter"]
        self.servers = [
            subjects.start_state_server(program, folder, bench.load_cores, f"server-{n}")
            for n in range(1, 5)
        ]
        self.ports = [server.ports[0] for server in self.servers]
        self.version = 1
        subjects.write_map(folder, self.ports[:3])
        self.proxy = subjects.start_staterouter(program, folder, 1, bench.proxy_cores, SETTINGS)

    def change(self, backends, weights=None):
        self.version += 1
        subjects.write_map(self.proxy.folder, self.ports[:backends], self.version, weights)

    def add_fourth(self):
        self.change(4)

    def status(self):
        """What the proxy says, which must have the newest map in force."""
        status = json.loads(get(self.proxy.admin, "/status"))
        if status["map_version"] != self.version:
            raise SystemExit(f"the proxy did not take a map: {status['last_reload']}")
        return status

    def wait_for_move2(self):
        deadline = time.monotonic() + MOVE2_S
        while time.monotonic() < deadline:
            slots = json.loads(get(self.proxy.admin, "/status"))["slots"]
            if slots["move2"] and not slots["settle"] + slots["move1"]:
                return
            time.sleep(0.1)
        raise SystemExit(f"no handover in move 2 within {MOVE2_S} s")

    def end(self):
        for subject in (self.proxy, *self.servers):
            processes.end(subject.process)


def latency(bench, options):
    """Latencies at a fixed rate; every run has a pool of its own, and a change half a second after
    the measured time has begun."""
    stay, move = bench.sessions(lambda stay, move: len(stay) >= SESSIONS)
    mixed = stay + move
    random.Random(1).shuffle(mixed)
    share = len(move) / len(mixed)
    lists = {
        QUIET: bench.listed("stay", stay[:SESSIONS]),
        RELOADS: bench.listed("mixed", mixed[:SESSIONS]),
        OTHERS: bench.listed("stay", stay[:SESSIONS]),
        ALL: bench.listed("mixed", mixed[:SESSIONS]),
    }
    figures = rounds(
        list(lists), options.latency_rounds,
        lambda case: latency_run(bench, options, case, lists[case]),
    )
    cell = {"rate": options.rate, "moving_share": share, "rounds": figures}
    rows = [("", "p50 us", "p99 us", f"over {QUIET}", "p99.9 us", "most us", "CPU us/request")]
    for case in lists:
        p50, p99, p999, most = (
            report.spread(report.values(cell, case, key), 0)
            for key in ("p50_us", "p99_us", "p999_us", "max_us")
        )
        ratio = report.ratio(cell, QUIET, "p99_us", case) if case != QUIET else ""
        cpu = report.spread(report.values(cell, case, report.CPU), 1)
        rows.append((case, p50, p99, ratio, p999, most, cpu))
    print(f"latency: open loop at {options.rate:.0f} requests/s for {options.window:g} s, "
          f"{CONNECTIONS} connections, 2 KB, {SESSIONS} sessions; a fourth state server takes "
          f"{100 * share:.0f} % of all\n" + report.text_table(rows))
    return cell


def latency_run(bench, options, case, ids):
    pool = bench.start()
    measure = bench.measure
    measure.fill(pool.proxy, CONNECTIONS, *ids)

    def reloads(load):
        time.sleep(WARM_S + 0.5)
        while load.poll() is None:
            pool.change(3, {1: 100 + pool.version % 2})
            time.sleep(1)

    def addition(_load):
        time.sleep(WARM_S + 0.5)
        pool.add_fourth()

    during = {QUIET: None, RELOADS: reloads, OTHERS: addition, ALL: addition}[case]
    more = ["--rate", options.rate, "--time", options.window, *ids]
    figures = measure.run(pool.proxy, CONNECTIONS, *more, during=during)
    # The last map of all may have come after the load had ended.
    time.sleep(0.3)
    status = pool.status()
    figures["slots"] = status["slots"]
    figures["maps"] = pool.version - 1
    figures["moved"] = sum(backend["moved_here"] for backend in status["backends"])
    pool.end()
    return figures


def handover(bench, options):
    """CPU time in a closed loop: what the move of a session costs, and what it costs afterwards to
    use one that has moved or one that stays."""
    wanted = options.moving
    stay, move = bench.sessions(lambda stay, move: len(move) >= wanted)
    stay_ids = bench.listed("stay", stay[:wanted])
    move_ids = bench.listed("move", move[:wanted])
    each_once = [*move_ids, "--order", "in-turn"]
    figures = {"steady, each session once": [], "moving, each session once": []}
    moved = None
    for _ in range(options.latency_rounds):
        if moved:
            moved.end()
        moved = bench.start()
        for ids in (stay_ids, move_ids):
            bench.measure.fill(moved.proxy, CONNECTIONS, *ids)
        before = bench.measure.count(moved.proxy, CONNECTIONS, 2 * wanted, *each_once)
        figures["steady, each session once"].append(before)
        moved.add_fourth()
        moved.wait_for_move2()
        after = bench.measure.count(moved.proxy, CONNECTIONS, 2 * wanted, *each_once)
        figures["moving, each session once"].append(after)
        # The proxy's figures are up to a second old.
        time.sleep(1)
        here = moved.status()["backends"][3]["moved_here"]
        if here < 0.99 * wanted:
            raise SystemExit(f"only {here} of {wanted} sessions have moved")
    steady = bench.start()
    for ids in (stay_ids, move_ids):
        bench.measure.fill(steady.proxy, CONNECTIONS, *ids)
    runs = {
        "steady, sessions that stay": (steady, stay_ids),
        "move 2, sessions that stay": (moved, stay_ids),
        "steady, sessions that move": (steady, move_ids),
        "move 2, sessions that moved": (moved, move_ids),
    }
    figures |= rounds(list(runs), options.rounds, lambda name: bench.measure.run(
        runs[name][0].proxy, CONNECTIONS, "--time", options.seconds, *runs[name][1]
    ))
    for pool in (steady, moved):
        pool.end()
    cell = {"sessions": wanted, "rounds": figures}
    print(f"handover: {CONNECTIONS} connections, 2 KB, {wanted} sessions that move, {wanted} that "
          "stay; ratio: to the row above\n" + report.text_table(handover_rows(cell)))
    return cell


def handover_rows(cell):
    rows = [("", "CPU us/request", "ratio", "requests/s")]
    names = list(cell["rounds"])
    for n, name in enumerate(names):
        rows.append((
            name,
            report.spread(report.values(cell, name, report.CPU), 1),
            report.ratio(cell, names[n - 1], report.CPU, name) if n % 2 else "",
            report.spread(report.values(cell, name, report.RATE), 0),
        ))
    return rows


def pool_use(proxy):
    """From the metrics: requests answered, connections to backends that were opened, and those
    that are open now."""
    text = get(proxy.admin, "/metrics")
    total = lambda name: sum(
        float(value) for value in re.findall(rf"^{name}\{{[^}}]*\}} (\S+)", text, re.MULTILINE)
    )
    return {
        "requests": total("staterouter_requests_total"),
        "opened": total("staterouter_backend_connections_opened_total"),
        "connections": total("staterouter_backend_connections"),
    }


def get(address, path):
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"GET {path}: {answer.status}")
        return answer.read().decode()
    finally:
        connection.close()
