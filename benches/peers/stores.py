"""The embedded state server beside Redis and memcached: reads that lock, writes that unlock."""

import hashlib
import pathlib
import socket

import install
import processes
import report
from measure import Measure, rounds
from subjects import Subject, can_connect, free_port, start_state_server, wait_for

BODY_BYTES = 1024
CONNECTIONS = 64

# What a session provider on Redis needs: a lock by session with an owner and an end of its own.
# KEYS: the session, its lock. ARGV of the first: owner, seconds; of the second: owner, seconds that
# the session lives, body.
ACQUIRE = """
local mine = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', ARGV[2])
if not mine then return {0, redis.call('GET', KEYS[2])} end
return {1, redis.call('GETEX', KEYS[1], 'EX', 1200)}
"""
STORE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1
"""

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "src" / "redis" / "scripts"


def ours(name, arguments, *changes):
    """A script of staterouter for the arguments and the answers of the two above."""
    text = (FOLDER / name).read_text()
    for before, after in changes:
        if before not in text:
            raise SystemExit(f"{name} has changed: {before}")
        text = text.replace(before, after)
    shebang, _, rest = text.rpartition("#!lua flags=allow-oom\n")
    return f"#!lua flags=allow-oom\nlocal ARGV = {{{arguments}}}\n{shebang}{rest}"


# Nobody is late; the counter is always beyond the one cookie, which costs as much to find out.
OURS = (
    ours("read.lua", "ARGV[1], 17, '9999999999999', 65536",
         ("return {200, tonumber(item[1]), counter, first, redis.call('HGET', key, 'b')}",
          "return {1, redis.call('HGET', key, 'b')}")),
    ours("put.lua", "ARGV[1], '20', '1', '0', '0', '0', '9999999999999', ARGV[3]",
         # An owner stores more than once.
         ("item[5] == nonce", "item[5] == ''"),
         ("cookie ~= counter", "cookie > counter"),
         ("redis.call('PEXPIRE', key, minutes * 60000)\nreturn {200}",
          "redis.call('PEXPIRE', key, minutes * 60000)\nreturn 1")),
)

# Makes the sessions that were stored for the two above sessions of staterouter.
AS_OURS = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  local body = redis.call('GET', key)
  redis.call('DEL', key)
  if not key:find('.lock', 1, true) then
    redis.call('HSET', key, 'b', body, 't', 20, 'c', 1)
    redis.call('PEXPIRE', key, 1200000)
  end
end
"""


def start_all(folder, staterouter, cores):
    """One thread each, nothing on disk, no log of requests."""
    yield start_state_server(staterouter, folder, cores)

    port = free_port()
    command = [install.find("redis-server"), "--bind", "127.0.0.1", "--port", port]
    command += ["--save", "", "--appendonly", "no", "--logfile", folder / "redis.log"]
    command += ["--dir", folder]
    process = processes.start(command, cores)
    wait_for(lambda: can_connect(port), process, "redis")
    load_scripts(port)
    yield Subject("redis", "redis", [port], process)

    port = free_port()
    command = [install.find("memcached"), "-l", "127.0.0.1", "-p", port, "-t", 1, "-m", 4096]
    process = processes.start([*command, "-u", "root"], cores)
    wait_for(lambda: can_connect(port), process, "memcached")
    yield Subject("memcached", "memcached", [port], process)


def load_scripts(port):
    for script in (ACQUIRE, STORE, *OURS):
        answer = run(port, "SCRIPT", "LOAD", script)
        if digest(script).encode() not in answer:
            raise SystemExit(f"redis does not take a script: {answer!r}")


def run(port, *words):
    """The answer to one command, if it is short."""
    words = [word.encode() for word in words]
    parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(w), w) for w in words]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"".join(parts))
        return connection.recv(1000)


def digest(script):
    return hashlib.sha1(script.encode()).hexdigest()


def compare(folder, programs, options, load_cores, store_cores):
    """Memory of `options.sessions` sessions of 1 KB, then CPU time in rounds."""
    measure = Measure(programs["peers"], load_cores, BODY_BYTES)
    started = list(start_all(folder, programs["staterouter"], store_cores))
    scripts = f"{digest(ACQUIRE)},{digest(STORE)}"
    more = ["--sessions", options.sessions, "--scripts", scripts]
    memory, by_name = {}, {subject.name: subject for subject in started}
    for subject in started:
        before = processes.memory_kb(subject.process)
        measure.fill(subject, CONNECTIONS, *more)
        grown = processes.memory_kb(subject.process) - before
        memory[subject.name] = grown * 1024 / options.sessions
    run = lambda name: measure.run(by_name[name], CONNECTIONS, "--time", options.seconds, *more)
    figures = rounds(list(by_name), options.rounds, run)
    for subject in started:
        processes.end(subject.process)
    return {
        "sessions": options.sessions,
        "body_bytes": BODY_BYTES,
        "connections": CONNECTIONS,
        "bytes_per_session": memory,
        "rounds": figures,
    }


def table(results):
    rows = [("", "CPU us/operation", "ratio", "operations/s", "bytes per session")]
    own = "state server"
    for name, size in results["bytes_per_session"].items():
        rows.append((
            name,
            report.spread(report.values(results, name, report.CPU), 1),
            report.ratio(results, name, report.CPU, own),
            report.spread(report.values(results, name, report.RATE), 0),
            f"{size:.0f}",
        ))
    return report.text_table(rows)
