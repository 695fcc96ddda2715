"""The subjects of the comparison: how each is configured and started."""

import os
import pathlib
import resource
import socket
import time

import install
import processes

# Loads of seconds end long before any of these.
IDLE_S = 60


class Subject:
    """A started proxy, or what stands in its place."""

    def __init__(self, name, dialect, ports, process, folder=None, admin=None):
        self.name = name
        self.dialect = dialect
        self.ports = ports
        self.process = process
        # Of staterouter: where its files are, and the address of its admin server.
        self.folder = folder
        self.admin = admin

    def pids(self):
        return processes.family(self.process) if self.process else []


class Bench:
    """Starts subjects for one number of workers, one list of backends and one size of sessions."""

    def __init__(self, folder, programs, workers, backends, body_bytes, cores):
        self.folder = pathlib.Path(folder)
        self.programs = programs
        self.workers = workers
        self.backends = backends
        # Whether a session comes in several reads: then larger buffers pay for themselves.
        self.large = body_bytes > 8 * 1024
        self.cores = cores

    def start(self, name, *more):
        return getattr(self, name)(*more)

    def staterouter(self, more=""):
        folder = self.new_folder("staterouter")
        write_map(folder, self.backends)
        program = self.programs["staterouter"]
        return start_staterouter(program, folder, self.workers, self.cores, more)

    def haproxy(self):
        """Hash ring over the URL, which here is the session; every backend connection is reused by
        whoever comes next; no log."""
        port = free_port()
        servers = "".join(
            f"  server s{n} 127.0.0.1:{backend} check inter 2s\n"
            for n, backend in enumerate(self.backends)
        )
        config = self.new_folder("haproxy") / "haproxy.cfg"
        buffers = "  tune.bufsize 32768\n" if self.large else ""
        config.write_text(f"""global
  nbthread {self.workers}
  maxconn {min(8000, (open_files() - 1000) // 2)}
{buffers}defaults
  mode http
  option http-keep-alive
  http-reuse always
  timeout connect 2s
  timeout client {IDLE_S}s
  timeout server {IDLE_S}s
  timeout http-keep-alive {IDLE_S}s
frontend farm
  bind 127.0.0.1:{port} backlog 4096
  default_backend pool
backend pool
  balance uri whole
  hash-type consistent
{servers}""")
        # -db: in the foreground, one process.
        process = processes.start([install.find("haproxy"), "-db", "-f", config], self.cores)
        return self.listening("haproxy", port, process)

    def nginx(self):
        """Hash ring over the URL; a pool of backend connections in each worker; no files, no log."""
        port = free_port()
        folder = self.new_folder("nginx")
        servers = "".join(f"    server 127.0.0.1:{backend};\n" for backend in self.backends)
        user = "user root;\n" if os.geteuid() == 0 else ""
        # Passing small bodies on as they come, and large ones once they are whole, is cheapest.
        passing = "client_body_buffer_size 256k" if self.large else "proxy_request_buffering off"
        config = folder / "nginx.conf"
        config.write_text(f"""{user}daemon off;
worker_processes {self.workers};
worker_rlimit_nofile {open_files()};
pid {folder}/pid;
error_log stderr crit;
events {{
  worker_connections 16384;
  multi_accept on;
}}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout {IDLE_S}s;
  client_max_body_size 0;
  client_header_buffer_size 8k;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream pool {{
    hash $request_uri consistent;
{servers}    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout {IDLE_S}s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 reuseport;
    location / {{
      proxy_pass http://pool;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      {passing};
      proxy_buffer_size 8k;
      proxy_buffers 8 32k;
      proxy_busy_buffers_size 64k;
      proxy_max_temp_file_size 0;
    }}
  }}
}}
""")
        command = [install.find("nginx"), "-e", "stderr", "-p", folder, "-c", config]
        return self.listening("nginx", port, processes.start(command, self.cores))

    def relay(self):
        """Bytes from socket to socket: what no proxy can do without."""
        folder = self.new_folder("relay")
        ports = ",".join(str(port) for port in self.backends)
        command = [self.programs["peers"], "relay", "--backends", ports]
        command += ["--threads", self.workers]
        process = processes.start(command, self.cores, stdout=open(folder / "out", "w"))
        line = wait_for(lambda: first_line(folder / "out"), process, "relay")
        return Subject("relay", "aspnet", [int(line.split()[1])], process)

    def none(self):
        """The load goes to the backends directly."""
        return Subject("none", "aspnet", self.backends, None)

    def new_folder(self, name):
        n = 1
        while (self.folder / f"{name}-{n}").exists():
            n += 1
        folder = self.folder / f"{name}-{n}"
        folder.mkdir()
        return folder

    def listening(self, name, port, process):
        wait_for(lambda: can_connect(port), process, name)
        return Subject(name, "http", [port], process)


def start_staterouter(program, folder, workers, cores, more=""):
    """Everything on: metrics, accounting, health and limits are, by default. The partition map is
    in `folder` already; `more` are lines of the main file."""
    config = folder / "staterouter.yaml"
    config.write_text(
        "listen: 127.0.0.1:0\npartition_map: map.yaml\n"
        f"workers: {workers}\nadmin:\n  listen: 127.0.0.1:0\n{more}"
    )
    log = open(folder / "log", "w")
    command = [program, "serve", "--config", config]
    process = processes.start(command, cores, stdout=open(folder / "out", "w"), stderr=log)
    lines = wait_for(lambda: whole_lines(folder / "out", 2), process, "staterouter")
    port, admin = int(lines[0].rsplit(":", 1)[1]), lines[1].rsplit(" ", 1)[1]
    return Subject("staterouter", "aspnet", [port], process, folder, admin)


def write_map(folder, ports, version=1, weights=None):
    """A partition map of backends on `ports`; `weights` of those that do not weigh 100, by number
    from 1 on."""
    backends = "".join(
        f"  - name: state-{n}\n    id: {n}\n    address: 127.0.0.1:{port}\n"
        f"    weight: {(weights or {}).get(n, 100)}\n"
        for n, port in enumerate(ports, 1)
    )
    # Renamed over the old one: nobody sees half a map.
    (folder / "map.new").write_text(f"version: {version}\nbackends:\n{backends}")
    (folder / "map.new").replace(folder / "map.yaml")


def start_state_server(program, folder, cores, name="state-server"):
    """The embedded state server: one thread."""
    out = folder / name
    command = [program, "state-server", "--listen", "127.0.0.1:0", "--workers", "1"]
    log = open(folder / f"{name}.log", "w")
    process = processes.start(command, cores, stdout=open(out, "w"), stderr=log)
    line = wait_for(lambda: first_line(out), process, "the state server")
    return Subject("state server", "aspnet", [int(line.rsplit(":", 1)[1])], process)


def start_backend(peers, count, body_bytes, cores, folder):
    """The responder behind all subjects; returns the process and its ports."""
    out = pathlib.Path(folder) / f"backend-{count}-{body_bytes}-{time.monotonic_ns()}"
    command = [peers, "backend", "--listeners", count, "--body", body_bytes]
    process = processes.start(command, cores, stdout=open(out, "w"))
    line = wait_for(lambda: first_line(out), process, "the backend")
    return process, [int(port) for port in line.split()[1].split(",")]


def first_line(path):
    lines = whole_lines(path, 1)
    return lines[0] if lines else None


def whole_lines(path, count):
    """The first `count` lines, or none if they are not there yet."""
    lines = path.read_text().split("\n")[:-1]
    return lines[:count] if len(lines) >= count else None


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def open_files():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def wait_for(condition, process, name):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode} at its start")
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"{name} did not start within 20 s")
