#!/usr/bin/env python3
"""Builds an image from a Dockerfile that only copies, without a container engine, a registry or root.

    oci.py DOCKERFILE CONTEXT NAME:TAG OUTPUT.tar [LABEL=VALUE...]

Knows FROM scratch, COPY, ENV, LABEL, USER, ENTRYPOINT and CMD, each on one line, and refuses all else: what it builds is what
`docker build` would. Equal contents give an equal image, to the byte: order, owners and times are fixed (SOURCE_DATE_EPOCH).
The archive is an OCI layout (skopeo, ctr, podman) and what `docker load` takes, both in one.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import shlex
import sys
import tarfile
import time

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sources(context: pathlib.Path, names: list[str], target: str) -> dict[str, pathlib.Path]:
    """What a COPY puts where: path in the image -> file, folder or link."""
    found = {}
    if len(names) > 1 and not target.endswith("/"):
        sys.exit(f"oci: several files need a folder, not {target}")
    for name in names:
        source = context / name
        if source.is_dir():
            found |= {f"{target.strip('/')}/{path.relative_to(source)}".lstrip("/"): path for path in source.rglob("*")}
        elif source.exists():
            found[(target + name if target.endswith("/") else target).strip("/")] = source
        else:
            sys.exit(f"oci: {source} is missing")
    return found


def layer(files: dict[str, pathlib.Path]) -> bytes:
    """A layer, not compressed. Parent folders that the layer makes itself are root's, as Docker makes them."""
    parents = {str(parent) for name in files for parent in pathlib.PurePosixPath(name).parents} - {"."}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(parents | files.keys()):
            entry = tarfile.TarInfo(name)
            if name in files:
                entry = tar.gettarinfo(str(files[name]), name)
                # A second name of one file would be a link whose target depends on the order of the file system.
                if entry.islnk():
                    entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", files[name].stat().st_size
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = EPOCH
            if entry.isreg():
                with files[name].open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
    return data.getvalue()


def build(dockerfile: pathlib.Path, context: pathlib.Path, labels: list[str]) -> tuple[dict, list[bytes]]:
    """The image's configuration and its layers."""
    config: dict = {"Env": [], "Labels": dict(label.split("=", 1) for label in labels)}
    layers, history = [], []
    for line in dockerfile.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM" and rest == "scratch":
            continue
        if instruction == "COPY" and not rest.startswith("--"):
            *names, target = rest.split()
            layers.append(layer(sources(context, names, target)))
        elif instruction == "ENV":
            config["Env"] += shlex.split(rest)
        elif instruction == "LABEL":
            config["Labels"] |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif instruction == "USER":
            config["User"] = rest
        elif instruction in ("ENTRYPOINT", "CMD"):
            config[instruction.capitalize()] = json.loads(rest)
        else:
            sys.exit(f"oci: {dockerfile}: {line}: not known here")
        history.append({"created": CREATED, "created_by": line} | ({} if instruction == "COPY" else {"empty_layer": True}))
    machine = platform.machine()
    image = {
        "created": CREATED,
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        "history": history,
    }
    return image, layers


def main() -> None:
    dockerfile, context, tag, output, *labels = sys.argv[1:]
    image, layers = build(pathlib.Path(dockerfile), pathlib.Path(context), labels)
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict:
        blobs[digest(data)] = data
        return {"mediaType": f"{OCI}.{kind}", "digest": digest(data), "size": len(data)}

    text = lambda value: json.dumps(value, sort_keys=True).encode()  # noqa: E731
    packed = [blob(gzip.compress(data, compresslevel=6, mtime=0), "layer.v1.tar+gzip") for data in layers]
    config = blob(text(image), "config.v1+json")
    manifest = blob(text({"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": packed}), "manifest.v1+json")
    names = {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag.rpartition(":")[2]}
    path = lambda one: "blobs/" + one["digest"].replace(":", "/")  # noqa: E731
    files = {
        "oci-layout": text({"imageLayoutVersion": "1.0.0"}),
        "index.json": text({"schemaVersion": 2, "manifests": [manifest | {"annotations": names}]}),
        "manifest.json": text([{"Config": path(config), "RepoTags": [tag], "Layers": [path(one) for one in packed]}]),
    } | {"blobs/" + name.replace(":", "/"): data for name, data in blobs.items()}
    with tarfile.open(output, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(data), EPOCH, 0o644
            tar.addfile(entry, io.BytesIO(data))
    print(f"{tag} {manifest['digest']} {sum(one['size'] for one in packed) / 1e6:.1f} MB compressed, {sum(map(len, layers)) / 1e6:.1f} MB")


main()
