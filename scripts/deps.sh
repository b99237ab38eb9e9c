#!/usr/bin/env bash
# What the build needs beside Rust, and a bare Debian may lack. Installs it by apt when it is missing and we are root;
# says what to type otherwise. Does nothing, silently, when all is there.
#
#   scripts/deps.sh build     a C compiler and make: for ring, zstd and the linker
#   scripts/deps.sh node      and what the nodes of `make e2e` need: ip and nft
#   scripts/deps.sh neptune   and what neptune-cash needs: clang (its LevelDB does not compile with g++ 12) and cmake
set -euo pipefail

case "${1:-build}" in
build) needed=(cc:gcc make:make) ;;
node) needed=(cc:gcc make:make ip:iproute2 nft:nftables) ;;
neptune) needed=(cc:gcc make:make clang:clang clang++:clang cmake:cmake pkg-config:pkg-config) ;;
*)
    echo "usage: scripts/deps.sh build|node|neptune" >&2
    exit 2
    ;;
esac

packages=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || packages+=("${pair#*:}")
done
# cc without libc's headers is no C compiler; the package libc6-dev is only recommended by gcc.
if command -v cc >/dev/null && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
    packages+=(libc6-dev)
elif ((${#packages[@]})) && [[ " ${packages[*]} " == *" gcc "* ]]; then
    packages+=(libc6-dev)
fi
((${#packages[@]})) || exit 0

mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
if ! command -v apt-get >/dev/null; then
    echo "deps: missing ${packages[*]}. Install what your system calls them, then run make again." >&2
    exit 1
fi
if [[ $(id -u) -ne 0 ]]; then
    echo "deps: missing ${packages[*]}. Run: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 1
fi
echo "deps: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${packages[@]}"
