#!/usr/bin/env bash
# Builds the images of operator, upgrader and prover pod from binaries that are built already. No container engine, no registry
# and no root are needed: what the binaries need beside themselves comes from Debian's packages, by apt. They are those of the
# system that compiled the binaries, so glibc is never too old for them.
#
#   scripts/images.sh BINARIES REGISTRY VERSION FOLDER [dev-node]
#
# dev-node: that of the tests' node, too.
# Writes FOLDER/NAME.tar, for `docker load`, `podman load`, `ctr images import` and `skopeo copy oci-archive:` or
# `crane push`, and loads them into docker or podman where there is one. Pushes nothing. Equal binaries and equal packages give
# equal images, to the byte.
set -euo pipefail
cd "$(dirname "$0")/.."

binaries="${1:?folder with the binaries}" registry="${2:?registry, for example ghcr.io/upgrader-fleet}" version="${3:?version}"
target="${4:?folder for the images}"

command -v apt-get >/dev/null || { echo "images: needs Debian or Ubuntu, for its packages" >&2; exit 1; }
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
umask 022
mkdir -p "$work/packages" "$work/unpacked" "$work/context/rootfs" "$target"

# gcc-12-base, or what it is called here, has the licence of libgcc-s1.
packages=(base-files ca-certificates libc6 libgcc-s1)
download() {
    mapfile -t -O 4 packages < <(apt-cache depends libgcc-s1 | sed -n 's/^ *Depends: \(gcc-[0-9]*-base\)$/\1/p')
    (cd "$work/packages" && apt-get download -qq -o APT::Sandbox::User=root "${packages[@]}")
}
# A fresh container has no lists; only root can fetch them.
download || { [[ $(id -u) -eq 0 ]] && apt-get update -qq && download; } ||
    { echo "images: cannot fetch ${packages[*]}; run apt-get update" >&2; exit 1; }

root="$work/context/rootfs"
mkdir -p "$root"/{etc/ssl/certs,tmp,proc,sys,dev,run,usr/lib,var/lib/dpkg/status.d}
chmod 1777 "$root/tmp"
versions=()
for package in "$work"/packages/*.deb; do
    dpkg-deb -x "$package" "$work/unpacked"
done
for package in "$work"/packages/*.deb; do
    # Where scanners look in images without a package manager.
    name="$(dpkg-deb -f "$package" Package)"
    dpkg-deb -f "$package" >"$root/var/lib/dpkg/status.d/$name"
    install -Dm644 "$work/unpacked/usr/share/doc/$name/copyright" "$root/usr/share/doc/$name/copyright"
    versions+=("$name=$(dpkg-deb -f "$package" Version)")
done
# Libraries and the loader. Not gconv, which converts character sets, and makes two thirds of glibc.
for folder in lib lib64; do
    for from in "$work/unpacked/$folder" "$work/unpacked/usr/$folder"; do
        [[ -d "$from" && ! -L "$from" ]] && mkdir -p "$root/usr/$folder" && cp -a "$from/." "$root/usr/$folder/"
    done
    [[ -d "$root/usr/$folder" ]] && ln -sfn "usr/$folder" "$root/$folder"
done
find "$root/usr/lib" \( -name gconv -o -name audit \) -prune -exec rm -r {} +
find "$root/usr/lib" -mindepth 1 -maxdepth 1 ! -name '*-linux-gnu*' ! -name os-release -exec rm -r {} +
# The loader's link names its target by the full path of the package.
for link in "$root"/usr/lib64/*; do
    [[ -L "$link" ]] && ln -sfn "../lib/${link##*/}" "$link" && ln -sfn "$(uname -m)-linux-gnu/${link##*/}" "$root/usr/lib/${link##*/}"
done
cp -P "$work/unpacked/etc/debian_version" "$work/unpacked/etc/os-release" "$root/etc/"
# The list that update-ca-certificates would make.
find "$work/unpacked/usr/share/ca-certificates" -name '*.crt' | LC_ALL=C sort | xargs cat >"$root/etc/ssl/certs/ca-certificates.crt"
printf 'root:x:0:0:root:/:/usr/sbin/nologin\nfleet:x:65532:65532:fleet:/tmp:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nfleet:x:65532:\n' >"$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"

engine=
for tool in docker podman; do
    # The command alone is not enough: its service may not run.
    if "$tool" info >/dev/null 2>&1; then
        engine="$tool"
        break
    fi
done
build() { # build NAME BINARY...: one image
    local name="$1" binary
    shift
    for binary; do
        [[ -x "$binaries/$binary" ]] || { echo "images: $binaries/$binary is missing; make build makes it" >&2; exit 1; }
        # Without symbols: they are three quarters of the size.
        strip -o "$work/context/$binary" "$binaries/$binary"
        chmod 0755 "$work/context/$binary"
    done
    scripts/oci.py "images/$name.Dockerfile" "$work/context" "$registry/$name:$version" "$target/$name.tar" \
        "org.opencontainers.image.version=$version" "dev.upgrader-fleet.packages=${versions[*]}"
    if [[ -n "$engine" ]]; then
        "$engine" load -q -i "$target/$name.tar"
    fi
}
build operator operator
build upgrader upgrader
build prover-pod prover-pod prover-proxy
for extra in "${@:5}"; do
    build "$extra" "$extra"
done
echo "images: in $target"
