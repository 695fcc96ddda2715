"""Tables of what was measured: medians, spread, and ratios within rounds."""

import statistics

# An open loop below this rate measures how the machine wakes up from idling.
LEAST_RATE = 10_000

# Name of the goal, in which table, of what, against whom, and the most (or, negative, the least)
# that the ratio may be. `None` against whom: the figure itself.
CPU, RATE = "cpu_us_per_request", "requests_per_s"
GOALS = [
    ("CPU, 2 KB, 64 connections, apart", ("apart", 64, 2048), CPU, "haproxy", 0.71),
    ("CPU, 2 KB, 64 connections, apart", ("apart", 64, 2048), CPU, "nginx", 0.65),
    ("CPU, 2 KB, 64 connections, apart", ("apart", 64, 2048), CPU, "relay", 1.12),
    ("CPU, 2 KB, 64 connections, one core", ("together", 64, 2048), CPU, "haproxy", 0.55),
    ("CPU, 2 KB, 64 connections, one core", ("together", 64, 2048), CPU, "nginx", 0.50),
    ("CPU, 2 KB, 512 connections, apart", ("apart", 512, 2048), CPU, "haproxy", 0.60),
    ("CPU, 20 KB, 64 connections, apart", ("apart", 64, 20480), CPU, "haproxy", 0.55),
    ("CPU, 200 KB, 64 connections, apart", ("apart", 64, 204800), CPU, "haproxy", 1.0),
    ("requests/s, 2 KB, 64 connections, apart", ("apart", 64, 2048), RATE, "haproxy", -1.3),
]


def cell_title(cell):
    place = {
        "apart": "proxy on cores of its own",
        "together": "everything on one core",
        "shared": "everything on all cores",
    }[cell["mode"]]
    return (
        f"{place}; workers {cell['workers']}, connections {cell['connections']}, "
        f"body {cell['body_bytes'] / 1024:g} KB, backends {cell['backends']}"
    )


def closed_table(cell):
    """Of a closed loop: CPU and rate of each subject, and staterouter's share of it."""
    rows = [("", "CPU us/request", "sr ratio", "requests/s", "sr ratio")]
    for name in cell["rounds"]:
        bare = name == "none"
        rows.append((
            name,
            "-" if bare else spread(values(cell, name, CPU), 1),
            "-" if bare else ratio(cell, name, CPU),
            spread(values(cell, name, RATE), 0),
            ratio(cell, name, RATE),
        ))
    return text_table(rows)


def open_table(cell):
    """Of an open loop: latencies of each subject."""
    keys = ["p50_us", "p99_us", "p999_us"]
    rows = [("", "p50 us", "p99 us", "sr ratio", "p99.9 us", "CPU us/request")]
    for name in cell["rounds"]:
        p50, p99, p999 = (spread(values(cell, name, key), 0) for key in keys)
        cpu = "-" if name == "none" else spread(values(cell, name, CPU), 1)
        rows.append((name, p50, p99, ratio(cell, name, "p99_us"), p999, cpu))
    return text_table(rows)


def syscall_table(calls):
    rows = [("", "system calls/request", "most frequent")]
    for name, counts in calls.items():
        most = sorted(counts.items(), key=lambda pair: -pair[1])[:6]
        shown = ", ".join(f"{call} {count:.2f}" for call, count in most if count >= 0.01)
        rows.append((name, f"{sum(counts.values()):.2f}", shown))
    return text_table(rows)


def memory_table(memory):
    rows = [("", "at start MB", "per idle connection KB")]
    for name, figures in memory.items():
        start, each = figures["start_kb"] / 1024, figures["connection_kb"]
        rows.append((name, f"{start:.1f}", f"{each:.2f}"))
    return text_table(rows)


def goal_table(results):
    """What was reached of the goals that this run measured."""
    rows = [("goal", "of", "is", "wanted", "")]
    for title, where, key, other, bound in GOALS:
        cells = [cell for cell in results["closed"] if first_of(results, cell, where)]
        if cells and {"staterouter", other} <= cells[0]["rounds"].keys():
            rows.append(goal_row(title, other, middle_ratio(cells[0], other, key), bound))
    opened, calls, memory = results["open"], results["syscalls"], results["memory"]
    if opened and opened["of"] == "haproxy" and opened["rate"] >= LEAST_RATE:
        is_now = middle_ratio(opened, "haproxy", "p99_us")
        rows.append(goal_row("p99 at half of HAProxy's peak", "haproxy", is_now, 1.0))
    if "staterouter" in calls:
        count = sum(calls["staterouter"].values())
        rows.append(goal_row("system calls/request", "", count, 4.3))
    if "staterouter" in memory:
        mine = memory["staterouter"]
        rows.append(goal_row("KB per idle connection", "", mine["connection_kb"], 2.0))
        rows.append(goal_row("MB at start", "", mine["start_kb"] / 1024, 11.0))
        if "haproxy" in memory:
            share = mine["start_kb"] / memory["haproxy"]["start_kb"]
            rows.append(goal_row("memory at start", "haproxy", share, 1.0))
    return text_table(rows)


def first_of(results, cell, where):
    """Whether a goal for `where` is measured in `cell`: with the fewest workers and backends."""
    fewest = results["settings"]
    return (
        (cell["mode"], cell["connections"], cell["body_bytes"]) == where
        and cell["workers"] == min(fewest["workers"])
        and cell["backends"] == min(fewest["backends"])
    )


def goal_row(title, other, is_now, bound):
    met = is_now >= -bound if bound < 0 else is_now <= bound
    wanted = f">= {-bound:g}" if bound < 0 else f"<= {bound:g}"
    return title, other, f"{is_now:.2f}", wanted, "met" if met else "missed"


def values(cell, name, key):
    return [figures[key] for figures in cell["rounds"][name]]


def middle_ratio(cell, other, key, own="staterouter"):
    """`own` over `other`, each within one round, which both met under the same conditions."""
    return statistics.median(ratios(cell, other, key, own))


def ratio(cell, other, key, own="staterouter"):
    if other == own or own not in cell["rounds"]:
        return ""
    return spread(ratios(cell, other, key, own), 2)


def ratios(cell, other, key, own):
    pairs = zip(values(cell, own, key), values(cell, other, key))
    return [mine / max(theirs, 1e-9) for mine, theirs in pairs]


def spread(numbers, digits):
    """`median (least-most)`"""
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def text_table(rows):
    """Rows as a table of Markdown, aligned; the first is its head."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    line = lambda row: "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])
