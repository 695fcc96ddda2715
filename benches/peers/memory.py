#!/usr/bin/env python3
"""What a state server holds in memory beside what its --max-memory counts: full, after sessions
have expired, and while they change their size.

    benches/peers/memory.py target/release/staterouter
"""

import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request

TARGET = "%2fLM%2fW3SVC%2f1%2fROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2f"
DONE = b"200 OK\r\nX-AspNet-Version: 4.0.30319\r\nCache-Control: private\r\nContent-Length: 0\r\n\r\n"
BYTES = b"x" * 1_200_000
CONNECTIONS = 16


class Server:
    def __init__(self, binary):
        command = [binary, "state-server", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command + ["--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.address = self.process.stdout.readline().split()[-1].rsplit(":", 1)
        self.admin = self.process.stdout.readline().split()[-1]

    def connect(self):
        host, port = self.address
        connection = socket.create_connection((host, int(port)))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def status(self):
        return json.load(urllib.request.urlopen(f"http://{self.admin}/status"))

    def report(self, what):
        status = self.status()
        counted, held = status["memory_bytes"] / 1e6, status["process_bytes"] / 1e6
        print(f"{what}: counted {counted:.0f} MB, resident {held:.0f} MB", flush=True)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def put(number, length, minutes=20):
    head = (
        f"PUT {TARGET}{number:024d} HTTP/1.1\r\nHost: x\r\nTimeout:{minutes}\r\n"
        f"Content-Length:{length}\r\nExtraFlags:0\r\nLockCookie:0\r\n\r\n"
    )
    return head.encode() + BYTES[:length]


def await_done(connection, count):
    left = count * len(DONE)
    while left > 0:
        left -= len(connection.recv(min(left, 1 << 16)))


def fill(server, count, length, minutes=20):
    connections = [server.connect() for _ in range(8)]
    for first in range(0, count, 400):
        for place, connection in enumerate(connections):
            numbers = range(first + place * 50, first + place * 50 + 50)
            connection.sendall(b"".join(put(number, length(), minutes) for number in numbers))
        for connection in connections:
            await_done(connection, 50)


def over_all_connections(server, work):
    threads = [
        threading.Thread(target=work, args=(place, server.connect())) for place in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def expiring(server):
    fill(server, 400_000, lambda: 1024, minutes=1)
    server.report("400,000 of 1 KB, full")
    while server.status()["sessions"] > 0:
        time.sleep(1)
    time.sleep(10)
    server.report("the same, ten seconds after they expired")


def changing(server):
    def work(place, connection):
        chance = random.Random(place)
        for _ in range(1000):
            connection.sendall(put(chance.randrange(1000), chance.randrange(700_000, 1_000_000)))
            await_done(connection, 1)

    over_all_connections(server, work)
    time.sleep(12)
    server.report("1,000 of 0.7 to 1 MB, stored again and again")


def growing(server):
    lengths = [1000.0] * 12_000

    def work(place, connection):
        chance = random.Random(place)
        numbers = list(range(place, len(lengths), CONNECTIONS))
        for _ in range(33):
            chance.shuffle(numbers)
            for number in numbers:
                lengths[number] *= 1.15
                connection.sendall(put(number, int(lengths[number])))
                await_done(connection, 1)

    over_all_connections(server, work)
    time.sleep(12)
    server.report("12,000 that grow by 15 % at each write")


def full(server):
    fill(server, 200_000, lambda: 2048)
    server.report("200,000 of 2,048 bytes")


def mixed(server):
    chance = random.Random(3)
    fill(server, 200_000, lambda: chance.randrange(500, 8000))
    server.report("200,000 of 0.5 to 8 KB")


if __name__ == "__main__":
    for measure in [expiring, changing, growing, full, mixed]:
        server = Server(sys.argv[1])
        measure(server)
        server.stop()
