#!/usr/bin/env bash
# Builds the images of operator, upgrader and prover pod from binaries that are built already.
#
#   scripts/images.sh BINARIES REGISTRY VERSION    with the first of docker, podman, buildah that there is
#
# Pushes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

binaries="${1:?folder with the binaries}" registry="${2:?registry, for example ghcr.io/upgrader-fleet}" version="${3:?version}"
for tool in docker podman buildah; do
    command -v "$tool" >/dev/null && break
    tool=
done
[[ -n "$tool" ]] || { echo "images: needs docker, podman or buildah" >&2; exit 1; }

# Fixed times, so that equal binaries make equal layers.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"
context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT
build() { # build NAME BINARY...: one image
    local name="$1" binary
    shift
    rm -f "$context"/*
    for binary; do
        [[ -x "$binaries/$binary" ]] || { echo "images: $binaries/$binary is missing; make build makes it" >&2; exit 1; }
        # Without symbols: they are three quarters of the size.
        strip -o "$context/$binary" "$binaries/$binary"
        touch -d "@$SOURCE_DATE_EPOCH" "$context/$binary"
    done
    "$tool" build -q -f "images/$name.Dockerfile" -t "$registry/$name:$version" "$context"
    echo "images: $registry/$name:$version"
}
build operator operator
build upgrader upgrader
build prover-pod prover-pod prover-proxy
