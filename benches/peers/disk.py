#!/usr/bin/env python3
"""What keeping sessions on disk costs: CPU of a state server per request, and the time of a write.
Half of the requests are reads that lock, half are writes that unlock.

    benches/peers/disk.py target/release/staterouter [SECONDS] [ROUNDS]
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

TARGET = "%2fLM%2fW3SVC%2f1%2fROOT(cAHkmVhipCLv%2fQnONQmPsKL%2bq%2fAjnK%2fnYS9aV3Zlad8%3d)%2f"
BODY = os.urandom(2048)
CONNECTIONS = 32
SESSIONS = 2000


def acquire(number):
    return f"GET {TARGET}{number:024d} HTTP/1.1\r\nHost: x\r\nExclusive: acquire\r\n\r\n".encode()


def put(number, cookie):
    head = (
        f"PUT {TARGET}{number:024d} HTTP/1.1\r\nHost: x\r\nTimeout:20\r\n"
        f"Content-Length:{len(BODY)}\r\nExtraFlags:0\r\nLockCookie:{cookie}\r\n\r\n"
    )
    return head.encode() + BODY


def answer(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, body = received.split(b"\r\n\r\n", 1)
    length = int(head.split(b"Content-Length: ")[1].split(b"\r")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Load:
    def __init__(self, address):
        self.address = address
        self.counts = [0] * CONNECTIONS
        self.times = []
        self.stopped = False
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(CONNECTIONS)]
        for thread in self.threads:
            thread.start()

    def work(self, place):
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        chance = random.Random(place)
        numbers = range(place, SESSIONS, CONNECTIONS)
        for number in numbers:
            connection.sendall(put(number, 0))
            answer(connection)
        while not self.stopped:
            number = chance.choice(numbers)
            connection.sendall(acquire(number))
            cookie = answer(connection).split(b"LockCookie: ")[1].split(b"\r")[0].decode()
            began = time.perf_counter()
            connection.sendall(put(number, cookie))
            answer(connection)
            self.times.append(time.perf_counter() - began)
            self.counts[place] += 2

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()


def measure(binary, mode, seconds):
    folder = tempfile.mkdtemp()
    data = ["--data", folder, "--sync", mode] if mode != "memory" else []
    command = [binary, "state-server", "--listen", "127.0.0.1:0", "--workers", "1"] + data
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    host, port = server.stdout.readline().split()[-1].rsplit(":", 1)
    load = Load((host, int(port)))
    time.sleep(1.5)
    cpu, requests, began = cpu_s(server.pid), sum(load.counts), time.time()
    time.sleep(seconds)
    cpu, requests = cpu_s(server.pid) - cpu, sum(load.counts) - requests
    rate = requests / (time.time() - began)
    load.stop()
    times = sorted(load.times)
    median, late = times[len(times) // 2], times[len(times) * 99 // 100]
    print(
        f"{mode:9} {rate:8.0f} requests/s  CPU {1e6 * cpu / requests:6.1f} us per request  "
        f"write: median {1e3 * median:.2f} ms, 99 % below {1e3 * late:.2f} ms",
        flush=True,
    )
    server.terminate()
    server.wait()
    shutil.rmtree(folder)


if __name__ == "__main__":
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    for _ in range(int(sys.argv[3]) if len(sys.argv) > 3 else 3):
        for mode in ["memory", "off", "everysec", "always", "shutdown"]:
            measure(sys.argv[1], mode, seconds)
