#!/usr/bin/env python3
"""The waits of lock_wait.rs and a web farm with few threads, in virtual time.

What locks.py measures depends on what else the machine does; this does not, and it has pages of
other sessions on the same threads besides. Web servers have a few threads at first and get one more
every half second while pages wait for one. Sessions get bursts of pages at once, each of which holds
its lock for a while; a page that is told that the session is locked gives its thread back and polls
after 500 ms. Figures are milliseconds, means over some seeds.
"""

import argparse
import heapq
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
    """Threads, pages that wait for one, requests under way at the proxy and the most of them."""

    def __init__(self, threads):
        self.free, self.pages, self.waiting = threads, deque(), 0
        self.under_way = self.connections = 0

    def asks(self, change):
        self.under_way += change
        self.connections = max(self.connections, self.under_way)


class Session:
    def __init__(self):
        self.holder, self.since, self.queue = None, 0, deque()
        self.pace, self.learned = None, 0


class Page:
    def __init__(self, session, web_server, begun):
        self.session, self.web_server, self.begun = session, web_server, begun
        self.was_contended, self.wait = False, None


class Farm:
    def __init__(self, options, rule, burst, hold, seed):
        self.rule, self.burst, self.hold, self.options = rule, burst, hold, options
        self.random, self.now, self.events, self.number = random.Random(seed), 0, [], 0
        self.servers = [WebServer(options.threads) for _ in range(options.servers)]
        self.sessions = [Session() for _ in range(options.sessions)]
        self.begun, self.pages, self.contended, self.others = 0, [], [], []
        self.bursts_per_s = options.load * options.sessions / (burst * hold)
        self.next_session = 0
        self.after(self.random.expovariate(self.bursts_per_s), self.begin_burst)
        for server in self.servers:
            self.after(GROWTH_S, self.grow, server)
            self.after(self.random.expovariate(options.others), self.begin_other, server)

    def run(self):
        while self.events and self.events[0][0] < self.options.seconds:
            self.now, _, act, args = heapq.heappop(self.events)
            act(*args)
        return self

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
        self.take_thread(server, self.run_other, server, self.now)
        self.after(self.random.expovariate(self.options.others), self.begin_other, server)

    def run_other(self, server, begun):
        server.asks(1)
        self.after(ROUND_TRIP_S, server.asks, -1)
        self.after(OTHER_PAGE_S, self.end_other, server, begun)

    def end_other(self, server, begun):
        self.others.append(self.now - begun)
        self.give_thread(server)

    # Pages of contended sessions.

    def begin_burst(self):
        session = self.sessions[self.next_session % len(self.sessions)]
        self.next_session += 1
        for _ in range(self.burst):
            page = Page(session, self.random.choice(self.servers), self.now)
            self.begun += 1
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
        page.was_contended = True
        if self.rule.may_wait(self, page):
            self.wait(page)
        else:
            self.refuse(page)

    def wait(self, page):
        page.wait = (self.now, len(page.session.queue))
        page.web_server.waiting += 1
        page.session.queue.append(page)
        self.after(self.rule.wait_s, self.expire, page, page.wait)

    def leave_queue(self, page, has_expired):
        session, (since, ahead) = page.session, page.wait
        still_ahead = session.queue.index(page)
        session.queue.remove(page)
        page.web_server.waiting -= 1
        page.wait = None
        pages = ahead + 1 if not has_expired else ahead - still_ahead + 1
        waited = self.now - since if not has_expired else 2 * self.rule.wait_s
        sample = waited / pages
        known = session.pace if self.now - session.learned < FORGET_S else None
        session.pace = sample if known is None else known + WEIGHT * (sample - known)
        session.learned = self.now

    def expire(self, page, wait):
        if page.wait is wait:
            self.leave_queue(page, page.session.holder is not None)
            if page.session.holder is None:
                self.grant(page)
            else:
                self.refuse(page)

    def refuse(self, page):
        page.web_server.asks(-1)
        self.after(ROUND_TRIP_S / 2, self.poll_later, page)

    def poll_later(self, page):
        self.give_thread(page.web_server)
        self.after(POLL_S, self.take_thread, page.web_server, self.ask, page)

    def grant(self, page):
        page.web_server.asks(-1)
        page.session.holder, page.session.since = page, self.now
        self.after(ROUND_TRIP_S + self.hold, self.release, page)

    def release(self, page):
        session = page.session
        session.holder = None
        if session.queue:
            first = session.queue[0]
            self.leave_queue(first, False)
            self.grant(first)
        self.after(ROUND_TRIP_S / 2, self.end, page)

    def end(self, page):
        self.pages.append(self.now - page.begun)
        if page.was_contended:
            self.contended.append(self.now - page.begun)
        self.give_thread(page.web_server)


class Rule:
    """Who may wait: nobody, or those under the bounds that are given."""

    TURNS_OF_QUICK = 8

    def __init__(self, wait_s, share=None, has_pace=False):
        self.wait_s, self.share, self.has_pace = wait_s, share, has_pace

    def may_wait(self, farm, page):
        session, server = page.session, page.web_server
        if self.wait_s == 0 or farm.now - session.since >= MAX_LOCK_AGE_S:
            return False
        is_known = session.pace is not None and farm.now - session.learned < FORGET_S
        share = self.share
        if self.has_pace and is_known:
            if (len(session.queue) + 1) * session.pace > self.wait_s:
                return False
            share = 1 / 2 if session.pace * self.TURNS_OF_QUICK <= self.wait_s else share
        return share is None or server.waiting < max(1, int(share * server.connections))


def milliseconds(times, quantile=None):
    if not times:
        return "-"
    value = statistics.mean(times) if quantile is None else sorted(times)[int(len(times) * quantile)]
    return f"{value * 1000:.0f}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", default="1,2,4,8,16", help="pages at once for one session")
    parser.add_argument("--holds", default="20,100,300,600", help="how long a page holds its lock, in ms")
    parser.add_argument("--load", type=float, default=0.4, help="part of the time that sessions are locked")
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4, help="of a web server at first")
    parser.add_argument("--others", type=float, default=20, help="pages of other sessions, per second and web server")
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--seeds", type=int, default=4)
    return parser.parse_args()


def main():
    options = arguments()
    rules = {
        "polling": Rule(0),
        "waiting, without these two bounds": Rule(0.25),
        "a third of the connections": Rule(0.25, 1 / 3),
        "and not in vain: as it is": Rule(0.25, 1 / 3, True),
    }
    print("| hold, at once | rule | page, mean | p50 | p90 | contended, p50 | of others, mean | p90 | p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for hold in map(int, options.holds.split(",")):
        for burst in map(int, options.bursts.split(",")):
            for name, rule in rules.items():
                farms = [Farm(options, rule, burst, hold / 1000, seed).run() for seed in range(options.seeds)]
                every = lambda what: [time for farm in farms for time in getattr(farm, what)]
                cells = [
                    milliseconds(every("pages")),
                    milliseconds(every("pages"), 0.5),
                    milliseconds(every("pages"), 0.9),
                    milliseconds(every("contended"), 0.5),
                    milliseconds(every("others")),
                    milliseconds(every("others"), 0.9),
                    milliseconds(every("others"), 0.99),
                ]
                print(f"| {hold} ms, {burst} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
