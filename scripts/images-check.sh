#!/usr/bin/env bash
# Checks the images that scripts/images.sh made: what is in them, and that each program runs in its own image's file system as a
# container would, as user 65532, with a read-only root, without capabilities. Needs root for that, but no container engine.
#
#   scripts/images-check.sh FOLDER
set -euo pipefail

folder="${1:?folder with the images}"
if ! unshare --mount true 2>/dev/null; then
    echo "SKIPPED: images-check mounts the images' file systems, which this user, or this container, may not"
    exit 0
fi
work="$(mktemp -d)"
server=
trap '[[ -z "$server" ]] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
fail() {
    echo "images-check: $*" >&2
    exit 1
}

# unpack NAME: the image's root, and its configuration beside it
unpack() {
    local name="$1" layout="$work/$1.layout" root="$work/$1"
    mkdir -p "$layout" "$root"
    tar -xf "$folder/$name.tar" -C "$layout"
    python3 - "$layout" >"$work/$name.files" <<'P'
import hashlib, json, pathlib, sys
layout = pathlib.Path(sys.argv[1])
blob = lambda digest: layout / "blobs" / digest.replace(":", "/")
for path in layout.glob("blobs/sha256/*"):
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
index = json.loads((layout / "index.json").read_text())
manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
config = json.loads(blob(manifest["config"]["digest"]).read_text())
(docker,) = json.loads((layout / "manifest.json").read_text())
assert docker["Layers"] == ["blobs/" + one["digest"].replace(":", "/") for one in manifest["layers"]]
(layout / "config.json").write_text(json.dumps(config["config"]))
print(*[blob(one["digest"]) for one in manifest["layers"]], sep="\n")
P
    while read -r layer; do
        tar -xzf "$layer" -C "$root" --no-same-owner
    done <"$work/$name.files"
    grep -q '"User": "65532:65532"' "$layout/config.json" || fail "$name does not run as 65532"
    grep -q '"Entrypoint"' "$layout/config.json" || fail "$name starts nothing"
    local found
    found="$(find "$root" -perm /6000 -o -perm -0002 ! -type l ! -path "$root/tmp")"
    [[ -z "$found" ]] || fail "$name: set-user-id, or writable by all: $found"
    found="$(find "$root" \( -name 'libcuda*' -o -name 'libcudart*' -o -name 'libnv*' -o -name '*.key' -o -name sh -o -name bash \))"
    [[ -z "$found" ]] || fail "$name: $found is none of its business"
}

# enter NAME COMMAND...: becomes the command, as a container of this image
enter() {
    local name="$1"
    shift
    exec unshare --mount bash -c '
        set -e
        root="$1" && shift
        mount --bind "$root" "$root"
        mount --bind /proc "$root/proc"
        mount --bind /dev "$root/dev"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        mount -o remount,bind,ro "$root"
        # Changing to a user who is not root drops all capabilities.
        exec setpriv --no-new-privs env -i PATH=/usr/local/bin "$(command -v chroot)" --userspec=65532:65532 "$root" "$@"
    ' bash "$work/$name" "$@"
}

in_image() {
    (enter "$@")
}

for name in operator upgrader prover-pod; do
    unpack "$name"
done
in_image operator /usr/local/bin/operator --version
in_image upgrader /usr/local/bin/upgrader --version
in_image prover-pod /usr/local/bin/prover-pod --version
in_image prover-pod /usr/local/bin/prover-proxy --version

# A pod on mock proofs, and the question of `helm test`, asked from the other image.
port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
enter prover-pod /usr/local/bin/prover-pod serve --listen "127.0.0.1:$port" --network regtest --backend mock >"$work/log" 2>&1 &
server=$!
ready() {
    in_image operator /usr/local/bin/operator check "http://127.0.0.1:$port/readyz"
}
for _ in $(seq 100); do
    ready >"$work/ready" 2>&1 && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
done
ready >"$work/ready" 2>&1 || { cat "$work/log" "$work/ready" >&2; fail "the prover pod does not get ready in its image"; }
echo "images-check: all is well"
