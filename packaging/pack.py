#!/usr/bin/env python3
"""Packs built programs: pack.py VERSION PROGRAM [WINDOWS_PROGRAM], from the root of the repository.

Everything goes to dist/. The same programs give the same bytes: names in order, no owner, every time
that of SOURCE_DATE_EPOCH.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import datetime

EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
ROOT = pathlib.Path.cwd()
DIST = ROOT / "dist"
STATE_FILE = "/var/lib/staterouter/staterouter.state"
SUMMARY = "Makes a pool of ASP.NET state servers behave like one"
# Of the image: nobody in particular, without rights.
IMAGE_USER = 65532


def zipped(data):
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as packed:
        packed.write(data)
    return out.getvalue()


def stage(program):
    """What is installed: path -> (content, mode)."""
    read = lambda path: (ROOT / path).read_bytes()
    files = {"usr/bin/staterouter": (program.read_bytes(), 0o755)}
    # The folder of the configuration is read-only for the service.
    main = read("config/staterouter.yaml").decode()
    assert "state_file: staterouter.state\n" in main
    main = main.replace("state_file: staterouter.state\n", f"state_file: {STATE_FILE}\n")
    files["etc/staterouter/staterouter.yaml"] = (main.encode(), 0o640)
    for name in ["partition-map.yaml", "staterouter.schema.json", "partition-map.schema.json"]:
        mode = 0o640 if name.endswith(".yaml") else 0o644
        files[f"etc/staterouter/{name}"] = (read(f"config/{name}"), mode)
    files["etc/staterouter/state-server-default.env"] = (
        read("packaging/state-server-default.env"), 0o640)
    for unit in sorted((ROOT / "packaging/systemd").iterdir()):
        files[f"usr/lib/systemd/system/{unit.name}"] = (unit.read_bytes(), 0o644)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "manual", folder], check=True)
        for page in sorted(pathlib.Path(folder).iterdir()):
            data = page.read_bytes()
            target = {
                "staterouter.bash": "usr/share/bash-completion/completions/staterouter",
                "_staterouter": "usr/share/zsh/site-functions/_staterouter",
                "staterouter.fish": "usr/share/fish/vendor_completions.d/staterouter.fish",
            }.get(page.name)
            if page.suffix == ".1":
                files[f"usr/share/man/man1/{page.name}.gz"] = (zipped(data), 0o644)
            elif target:
                files[target] = (data, 0o644)
    documents = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"]
    documents += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
    for name in documents:
        files[f"usr/share/doc/staterouter/{name}"] = (read(name), 0o644)
    return files


def tar(files, owner=0, folders=()):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        known = set()

        def folder(path, owner=0, mode=0o755):
            for parent in [*reversed(pathlib.PurePosixPath(path).parents), path]:
                name = str(parent)
                if name not in known and name != ".":
                    known.add(name)
                    entry = tarfile.TarInfo(f"./{name}")
                    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, EPOCH
                    if name == str(path):
                        entry.uid, entry.gid, entry.mode = owner, owner, mode
                    archive.addfile(entry)

        for path in folders:
            folder(path, owner, 0o700)
        for path, (data, mode) in sorted(files.items()):
            folder(pathlib.PurePosixPath(path).parent)
            entry = tarfile.TarInfo(f"./{path}")
            entry.size, entry.mode, entry.mtime = len(data), mode, EPOCH
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def deb(version, files):
    script = lambda name: (ROOT / "packaging" / name).read_bytes()
    size = sum(len(data) for data, _ in files.values()) // 1024
    control = f"""Package: staterouter
Version: {version}
Architecture: amd64
Maintainer: The staterouter authors <staterouter@localhost>
Section: net
Priority: optional
Depends: passwd
Installed-Size: {size}
Description: {SUMMARY}
 A proxy between an ASP.NET web farm and its state servers, and a state server
 that keeps sessions over restarts.
"""
    conffiles = "".join(f"/{path}\n" for path in sorted(files) if path.startswith("etc/"))
    inside = {
        "control": (control.encode(), 0o644),
        "conffiles": (conffiles.encode(), 0o644),
        "postinst": (script("after-install"), 0o755),
        "prerm": (script("before-remove"), 0o755),
    }
    parts = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", zipped(tar(inside))),
        ("data.tar.gz", zipped(tar(files))),
    ]
    out = b"!<arch>\n"
    for name, data in parts:
        out += f"{name:<16}{EPOCH:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        out += data + (b"\n" if len(data) % 2 else b"")
    (DIST / f"staterouter_{version}_amd64.deb").write_bytes(out)


def rpm(version, files):
    if not shutil.which("rpmbuild"):
        print("skipped: no rpm (rpmbuild is missing)")
        return
    with tempfile.TemporaryDirectory() as top:
        root = pathlib.Path(top) / "root"
        for path, (data, mode) in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(mode)
            os.utime(target, (EPOCH, EPOCH))
        listed = [
            f"%config(noreplace) /{path}" if path.startswith("etc/") else f"/{path}"
            for path in sorted(files)
        ]
        script = lambda name: (ROOT / "packaging" / name).read_text()
        spec = pathlib.Path(top) / "staterouter.spec"
        spec.write_text(f"""Name: staterouter
Version: {version}
Release: 1
Summary: {SUMMARY}
License: MIT OR Apache-2.0
Requires(post): shadow-utils
AutoReqProv: no
%description
A proxy between an ASP.NET web farm and its state servers, and a state server that keeps sessions over
restarts.
%install
cp -a {root}/. %{{buildroot}}/
%post
{script('after-install')}
%preun
{script('before-remove')}
%files
%defattr(-,root,root)
{chr(10).join(listed)}
""")
        defines = {
            "_topdir": f"{top}/build",
            "_rpmdir": f"{top}/out",
            "_buildhost": "localhost",
            "_build_id_links": "none",
            "__os_install_post": "%{nil}",
            "use_source_date_epoch_as_buildtime": "1",
            "clamp_mtime_to_source_date_epoch": "1",
            "_binary_payload": "w9.gzdio",
        }
        command = ["rpmbuild", "-bb", "--quiet", "--target", "x86_64", str(spec)]
        for name, value in defines.items():
            command += ["--define", f"{name} {value}"]
        subprocess.run(command, check=True)
        [made] = pathlib.Path(top, "out").rglob("*.rpm")
        shutil.copy(made, DIST / f"staterouter-{version}.x86_64.rpm")


def windows(version, program):
    """The program with the files that it starts from."""
    names = ["config/staterouter.yaml", "config/partition-map.yaml", "config/staterouter.schema.json",
             "config/partition-map.schema.json", "docs/windows.md", "docs/iis.md", "README.md",
             "LICENSE-MIT", "LICENSE-APACHE"]
    entries = {"staterouter.exe": program.read_bytes()}
    entries |= {name: (ROOT / name).read_bytes() for name in names if (ROOT / name).exists()}
    when = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).timetuple()[:6]
    with zipfile.ZipFile(DIST / f"staterouter-{version}-windows-x86_64.zip", "w") as archive:
        for name, data in sorted(entries.items()):
            info = zipfile.ZipInfo(f"staterouter-{version}/{name}", when)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def image(version, program):
    """An OCI image with nothing in it but the program."""
    blobs = {}

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = (data, 0o644)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}",
                "size": len(data)}

    encode = lambda value: json.dumps(value, sort_keys=True).encode()
    layer = tar({"staterouter": (program.read_bytes(), 0o755)}, IMAGE_USER, ["tmp", "var/lib/staterouter"])
    created = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).isoformat()
    config = {
        "architecture": "amd64", "os": "linux", "created": created,
        "config": {
            "User": f"{IMAGE_USER}:{IMAGE_USER}",
            "Entrypoint": ["/staterouter"],
            "Cmd": ["serve", "--config", "/etc/staterouter/staterouter.yaml"],
            "WorkingDir": "/var/lib/staterouter",
            "ExposedPorts": {"42424/tcp": {}, "42480/tcp": {}},
            "Volumes": {"/var/lib/staterouter": {}},
            "StopSignal": "SIGTERM",
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": created, "created_by": "packaging/build"}],
    }
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(encode(config), "config.v1+json"),
        "layers": [blob(zipped(layer), "layer.v1.tar+gzip")],
    }
    entry = blob(encode(manifest), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": version}
    blobs["index.json"] = (encode({"schemaVersion": 2, "manifests": [entry]}), 0o644)
    blobs["oci-layout"] = (encode({"imageLayoutVersion": "1.0.0"}), 0o644)
    (DIST / f"staterouter-{version}-oci.tar").write_bytes(tar(blobs))


def bill_of_materials(version):
    """What is in the program, as CycloneDX."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked",
               "--filter-platform", "x86_64-unknown-linux-musl"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    wanted, found = [metadata["resolve"]["root"]], set()
    while wanted:
        package = wanted.pop()
        if package not in found:
            found.add(package)
            for link in nodes[package]["deps"]:
                if any(kind["kind"] != "dev" for kind in link["dep_kinds"]):
                    wanted.append(link["pkg"])
    components = [
        {"type": "library", "name": package["name"], "version": package["version"],
         "purl": f"pkg:cargo/{package['name']}@{package['version']}",
         "licenses": [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"] or "unknown")}]}
        for package in metadata["packages"]
        if package["id"] in found and package["id"] != metadata["resolve"]["root"]
    ]
    components.sort(key=lambda component: component["purl"])
    bom = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "application", "name": "staterouter", "version": version}},
        "components": components,
    }
    text = json.dumps(bom, indent=1, sort_keys=True) + "\n"
    (DIST / f"staterouter-{version}.cdx.json").write_text(text)


def main():
    version, program, *others = sys.argv[1:]
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    program = pathlib.Path(program).resolve()
    files = stage(program)
    deb(version, files)
    rpm(version, files)
    image(version, program)
    for other in others:
        windows(version, pathlib.Path(other))
    bill_of_materials(version)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(DIST.iterdir())]
    (DIST / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")


main()
