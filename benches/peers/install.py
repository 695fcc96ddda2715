"""Gets what the comparison needs: packages of Debian and two builds."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "memcached": "memcached",
    "strace": "strace",
}

POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def packages(programs):
    """Installs the packages of those `programs` that are missing, without starting any service."""
    missing = [PACKAGES[name] for name in programs if not find(name)]
    if not missing:
        return
    print("installing", *missing, file=sys.stderr)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    # Debian starts a service as soon as it is installed, unless this script says no (101).
    keep_services_off = not POLICY.exists()
    if keep_services_off:
        script = "printf '#!/bin/sh\\nexit 101\\n' > %s && chmod +x %s" % (POLICY, POLICY)
        subprocess.run([*sudo, "sh", "-c", script], check=True)
    try:
        subprocess.run([*sudo, "apt-get", "update", "-q"], check=True, stdout=sys.stderr)
        command = ["apt-get", "install", "-qy", "--no-install-recommends", *missing]
        subprocess.run([*sudo, *command], check=True, stdout=sys.stderr)
    finally:
        if keep_services_off:
            subprocess.run([*sudo, "rm", "-f", str(POLICY)], check=True)


def find(program):
    """The path of `program`; services of Debian lie where the PATH of a user may not look."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def build(manifest, binary):
    """Builds the release of `manifest` and returns the path of its `binary`."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    command = ["cargo", "build", "--release", "--locked", "--quiet"]
    command += ["--manifest-path", str(manifest), "--target-dir", str(target)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return target / "release" / binary
