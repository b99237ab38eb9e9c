#!/usr/bin/env bash
# Tests and benchmarks of the CUDA prover on a GPU host, in one call.
#
#   scripts/gpu-session.sh build       here: build and strip the two binaries into ../.gpu (needs Rust and nvcc)
#   scripts/gpu-session.sh run [OUT]   there: parity of every kernel, byte-identical proofs, rates, benchmark.
#                                      Needs the NVIDIA driver and ../.gpu, no Rust. Results go to OUT (default .gpu/out).
#
# The binaries run on any x86-64 host whose glibc is at least as new as the build host's.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
bin="$root/.gpu"

build() {
    cd "$root"
    cargo build --release -p gpu-prover --bin gpu-test --bin gpu-bench
    local target
    target="$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"
    mkdir -p "$bin"
    for name in gpu-test gpu-bench; do strip -o "$bin/$name" "$target/release/$name"; done
    ls -l "$bin"
}

run() {
    local out="${1:-$bin/out}"
    local failed=0
    mkdir -p "$out"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader | tee "$out/device.txt"
    # Each part has its own log, and one that fails does not keep the others from running.
    "$bin/gpu-test" kernels 2>&1 | tee "$out/kernels.log" || failed=1
    "$bin/gpu-test" proofs 12 2>&1 | tee "$out/proofs.log" | grep -E '^(FAILED|[0-9]+ failures)' || true
    grep -q '^0 failures' "$out/proofs.log" || failed=1
    "$bin/gpu-test" rates 20 2>&1 | tee "$out/rates.log" || failed=1
    "$bin/gpu-bench" 10 22 5 2>&1 | tee "$out/bench.log" || failed=1
    "$bin/gpu-bench" 20 20 2 --profile 2>&1 | tee "$out/profile-20.log" || failed=1
    "$bin/gpu-bench" 22 22 2 --profile 2>&1 | tee "$out/profile-22.log" || failed=1
    return "$failed"
}

case "${1:-}" in
build) build ;;
run) REQUIRE_GPU=1 run "${2:-}" ;;
*)
    sed -n '2,8p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
