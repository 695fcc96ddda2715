#!/usr/bin/env python3
"""The waits of lock_wait.rs and a web farm with few threads, in virtual time.

What locks.py measures depends on what else the machine does; this does not, and it has pages of
other sessions on the same threads besides. Web servers have a few threads at first and get one more
every half second while pages wait for one. Sessions get bursts of pages at once, each of which holds
its lock for a while; a page that is told that the session is locked gives its thread back and polls
after 500 ms. A load is a part of what the threads carry at first. All rules meet the same pages at the
same times. Figures are milliseconds, means over some seeds; those in parentheses are parts of what
polling takes. A page that has not ended counts with the time that it has taken so far: without it, who
keeps pages waiting for longest looks quick.
"""

import argparse
import heapq
import math
import multiprocessing
import random
import statistics
from collections import deque

POLL_S = 0.5
GROWTH_S = 0.5
ROUND_TRIP_S = 0.001
OTHER_PAGE_S = 0.022
MAX_LOCK_AGE_S = 1
FORGET_S = 60
WEIGHT = 0.25


class WebServer:
    """Threads, pages that wait for one, and what the proxy sees: locks, requests, pages that poll."""

    def __init__(self, threads, random):
        self.free, self.pages, self.random = threads, deque(), random
        self.waiters, self.under_way, self.connections = [], 0, 0
        self.held, self.most_busy, self.moments, self.moments_s = 0, 0, deque(), 0

    def asks(self, change):
        self.under_way += change
        self.connections = max(self.connections, self.under_way)

    def has_thread_for(self, seconds, now):
        self.moments.append((now, seconds))
        self.moments_s += seconds

    def in_passing(self, now):
        """Threads that pages had for a moment without a lock, lately."""
        while self.moments and self.moments[0][0] <= now - POLL_S:
            self.moments_s -= self.moments.popleft()[1]
        return self.moments_s / POLL_S


class Session:
    def __init__(self):
        self.holder, self.since, self.queue = None, 0, deque()
        self.pace, self.learned = None, 0


class Page:
    def __init__(self, session, web_server, begun):
        self.session, self.web_server, self.begun = session, web_server, begun
        self.wait = None


class Farm:
    def __init__(self, options, rule, load, burst, hold, seed):
        self.rule, self.burst, self.hold, self.options = rule, burst, hold, options
        self.random, self.now, self.events, self.number = random.Random(f"{seed}"), 0, [], 0
        self.servers = [WebServer(options.threads, random.Random(f"{seed}, {n}")) for n in range(options.servers)]
        self.sessions = [Session() for _ in range(options.sessions)]
        self.open, self.pages, self.open_others, self.others = set(), [], {}, []
        page_s = hold + 2 * ROUND_TRIP_S
        self.bursts_per_s = load * options.threads * options.servers / (burst * page_s)
        self.next_session = 0
        self.after(self.random.expovariate(self.bursts_per_s), self.begin_burst)
        for server in self.servers:
            self.after(GROWTH_S, self.grow, server)
            self.after(server.random.expovariate(options.others), self.begin_other, server)

    def run(self):
        while self.events and self.events[0][0] < self.options.seconds:
            self.now, _, act, args = heapq.heappop(self.events)
            act(*args)
        self.pages += [self.options.seconds - page.begun for page in self.open]
        self.others += [self.options.seconds - begun for begun in self.open_others.values()]
        return self.pages, self.others

    def after(self, seconds, act, *args):
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, act, args))

    # Threads.

    def take_thread(self, server, act, *args):
        server.pages.append((act, args))
        self.use_threads(server)

    def give_thread(self, server):
        server.free += 1
        self.use_threads(server)

    def use_threads(self, server):
        while server.free and server.pages:
            server.free -= 1
            act, args = server.pages.popleft()
            act(*args)

    def grow(self, server):
        if server.pages:
            self.give_thread(server)
        self.after(GROWTH_S, self.grow, server)

    # Pages of other sessions, which find no lock.

    def begin_other(self, server):
        self.number += 1
        self.open_others[self.number] = self.now
        self.take_thread(server, self.run_other, server, self.number)
        self.after(server.random.expovariate(self.options.others), self.begin_other, server)

    def run_other(self, server, number):
        server.asks(1)
        if not self.options.unseen:
            self.after(ROUND_TRIP_S / 2, self.takes_lock, server)
        self.after(ROUND_TRIP_S, server.asks, -1)
        self.after(OTHER_PAGE_S, self.end_other, server, number)

    def end_other(self, server, number):
        self.others.append(self.now - self.open_others.pop(number))
        server.held -= not self.options.unseen
        self.give_thread(server)

    # Pages of contended sessions.

    def begin_burst(self):
        session = self.sessions[self.next_session % len(self.sessions)]
        self.next_session += 1
        for _ in range(self.burst):
            page = Page(session, self.random.choice(self.servers), self.now)
            self.open.add(page)
            self.take_thread(page.web_server, self.ask, page)
        self.after(self.random.expovariate(self.bursts_per_s), self.begin_burst)

    def ask(self, page):
        page.web_server.asks(1)
        self.after(ROUND_TRIP_S / 2, self.arrive, page)

    def arrive(self, page):
        session = page.session
        is_free = session.holder is None and not session.queue
        if is_free:
            return self.grant(page)
        if self.rule.may_wait(self, page):
            self.wait(page)
        else:
            self.refuse(page)

    def wait(self, page):
        page.wait = (self.now, len(page.session.queue))
        page.web_server.waiters.append(page)
        page.session.queue.append(page)
        self.after(self.rule.wait_s, self.expire, page, page.wait)

    def leave_queue(self, page):
        """How many were in front of it, and how many still are."""
        session, (_, ahead) = page.session, page.wait
        still_ahead = session.queue.index(page)
        session.queue.remove(page)
        page.web_server.waiters.remove(page)
        page.wait = None
        return ahead, still_ahead

    def learn(self, session, sample):
        known = session.pace if self.now - session.learned < FORGET_S else None
        session.pace = sample if known is None else known + WEIGHT * (sample - known)
        session.learned = self.now

    def called(self, page):
        """It is its turn."""
        since, _ = page.wait
        ahead, _ = self.leave_queue(page)
        self.learn(page.session, (self.now - since) / (ahead + 1))
        self.grant(page)

    def expire(self, page, wait):
        if page.wait is not wait:
            return
        if page.session.holder is None:
            return self.called(page)
        ahead, still_ahead = self.leave_queue(page)
        self.learn(page.session, 2 * self.rule.wait_s / (ahead - still_ahead + 1))
        self.refuse(page)

    def call_off(self, page):
        self.leave_queue(page)
        self.refuse(page)

    def refuse(self, page):
        page.web_server.asks(-1)
        page.web_server.has_thread_for(self.rule.PER_POLL_S, self.now)
        self.after(ROUND_TRIP_S / 2, self.poll_later, page)

    def poll_later(self, page):
        self.give_thread(page.web_server)
        self.after(POLL_S, self.take_thread, page.web_server, self.ask, page)

    def grant(self, page):
        page.web_server.asks(-1)
        page.session.holder, page.session.since = page, self.now
        self.takes_lock(page.web_server)
        self.after(ROUND_TRIP_S + self.hold, self.release, page)

    def takes_lock(self, server):
        server.held += 1
        server.has_thread_for(self.rule.PER_LOCK_S, self.now)
        while server.waiters and self.rule.calls_off(self, server):
            self.call_off(server.waiters[-1])

    def release(self, page):
        session = page.session
        session.holder = None
        page.web_server.held -= 1
        if session.queue:
            self.called(session.queue[0])
        self.after(ROUND_TRIP_S / 2, self.end, page)

    def end(self, page):
        self.open.remove(page)
        self.pages.append(self.now - page.begun)
        self.give_thread(page.web_server)


class Rule:
    """Who may wait: nobody, everybody, or those that the bounds allow."""

    MIN_THREADS = 4
    ONE_IDLE_IN = 8
    WAITING_OF_EIGHT = 5
    PER_POLL_S = 0.002
    PER_LOCK_S = 0.001

    def __init__(self, wait_s, has_bounds=False, has_idle=False, can_call_off=False):
        self.wait_s, self.has_bounds, self.has_idle, self.can_call_off = wait_s, has_bounds, has_idle, can_call_off

    def may_wait(self, farm, page):
        session, server = page.session, page.web_server
        if self.wait_s == 0 or farm.now - session.since >= MAX_LOCK_AGE_S:
            return False
        if not self.has_bounds:
            return True
        is_known = session.pace is not None and farm.now - session.learned < FORGET_S
        if is_known and (len(session.queue) + 1) * session.pace > self.wait_s:
            return False
        if len(server.waiters) >= max(1, server.connections * self.WAITING_OF_EIGHT // 8):
            return False
        return not self.has_idle or not self.lack(farm, server, len(server.waiters) + 1)

    def calls_off(self, farm, server):
        return self.can_call_off and self.lack(farm, server, len(server.waiters))

    def lack(self, farm, server, waiting):
        """Whether too few threads are idle while so many requests wait."""
        busy = server.held + waiting
        server.most_busy = max(server.most_busy, busy)
        threads = max(server.most_busy, server.connections, self.MIN_THREADS)
        idle = math.ceil(threads / self.ONE_IDLE_IN)
        return busy + idle + int(server.in_passing(farm.now) + 1 / 2) > threads


RULES = {
    "polling": Rule(0),
    "waiting for every lock": Rule(0.25),
    "not in vain, five of eight connections": Rule(0.25, True),
    "while threads are idle": Rule(0.25, True, True),
    "and called off when they are not: as it is": Rule(0.25, True, True, True),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loads", default="0.25,0.5,0.8,1,1.5,2", help="parts of what the threads carry at first")
    parser.add_argument("--bursts", default="1,4,16", help="pages at once for one session")
    parser.add_argument("--holds", default="1,20,100", help="how long a page holds its lock, in ms")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4, help="of a web server at first")
    parser.add_argument("--others", type=float, default=20, help="pages of other sessions, per second and web server")
    parser.add_argument("--unseen", action="store_true", help="these take no lock, so the proxy does not know of their threads")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="runs at the same time")
    return parser.parse_args()


def played(task):
    """Mean page, mean page of others and 99th percentile of these, of one run."""
    options, name, load, burst, hold, seed = task
    pages, others = Farm(options, RULES[name], load, burst, hold / 1000, seed).run()
    return statistics.mean(pages), statistics.mean(others), sorted(others)[int(len(others) * 0.99)]


def main():
    options = arguments()
    numbers = lambda text, kind: [kind(number) for number in text.split(",")]
    cases = [
        (load, burst, hold)
        for hold in numbers(options.holds, float)
        for burst in numbers(options.bursts, int)
        for load in numbers(options.loads, float)
    ]
    tasks = [(options, name, *case, seed) for case in cases for name in RULES for seed in range(options.seeds)]
    worst = {name: [0] * 3 for name in RULES}
    print("| hold, at once, load | rule | page, mean | of others, mean | p99 |")
    print("|---|---|---|---|---|")
    with multiprocessing.Pool(options.jobs) as pool:
        runs = pool.imap(played, tasks)
        for load, burst, hold in cases:
            polling = None
            for name in RULES:
                figures = [statistics.mean(values) for values in zip(*(next(runs) for _ in range(options.seeds)))]
                polling = polling or figures
                parts = [mine / its for mine, its in zip(figures, polling)]
                worst[name] = [max(pair) for pair in zip(worst[name], parts)]
                cells = [f"{figure * 1000:.0f} ({part:.2f})" for figure, part in zip(figures, parts)]
                print(f"| {hold:g} ms, {burst}, {load:g} | {name} | " + " | ".join(cells) + " |", flush=True)
    for name, parts in worst.items():
        print(f"| the worst | {name} | " + " | ".join(f"({part:.3f})" for part in parts) + " |")


if __name__ == "__main__":
    main()
