"""Processes under test: started on their cores, measured from outside, ended with the run."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import tempfile

STARTED = []


def run_in_folder(measure, json_path):
    """Calls `measure` with an empty folder, ends whatever it has started, Ctrl-C or not, and writes
    its results to `json_path`, if there is one."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            try:
                results = measure(pathlib.Path(folder))
            finally:
                end_all()
    except KeyboardInterrupt:
        raise SystemExit(130)
    if json_path:
        pathlib.Path(json_path).write_text(json.dumps(results, indent=1) + "\n")


def start(command, cores, **options):
    """Starts `command` on `cores`. It gets no Ctrl-C of its own: `end_all` ends it."""
    def before():
        os.sched_setaffinity(0, cores)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    process = subprocess.Popen(
        [str(word) for word in command],
        preexec_fn=before,
        start_new_session=True,
        text=True,
        **options,
    )
    STARTED.append(process)
    return process


def end(process):
    """Ends a process and its children, and waits for it."""
    for name in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, name)
        except ProcessLookupError:
            pass
        try:
            process.wait(timeout=3)
            break
        except subprocess.TimeoutExpired:
            continue
    if process in STARTED:
        STARTED.remove(process)


def end_all():
    """Ends everything that was started, and lets nobody interrupt that."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    # The load, started last, ends before the proxy that it would miss.
    for process in reversed(STARTED.copy()):
        end(process)


def family(process):
    """The process ids of a process and its children."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [process.pid, *(int(pid) for pid in path.read_text().split())]


def pin(process, cores):
    """Moves all threads of a process and its children to `cores`."""
    for pid in family(process):
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), cores)


def cpu_ms(process):
    """CPU time of a process and its children so far."""
    tasks = [task for pid in family(process) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def memory_kb(process):
    """Resident memory in kB; what the processes of a family share counts once."""
    private, shared = 0, 0
    for pid in family(process):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        sizes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
        private += int(sizes["RssAnon"])
        shared = max(shared, int(sizes["RssFile"]) + int(sizes["RssShmem"]))
    return private + shared
