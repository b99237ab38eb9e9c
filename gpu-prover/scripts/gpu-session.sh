#!/usr/bin/env bash
# Tests and benchmarks of the CUDA prover on a GPU host, in one call.
#
#   scripts/gpu-session.sh build       here: build and strip the binaries, packed into ../.gpu (needs Rust and nvcc)
#   scripts/gpu-session.sh run [OUT]   there: kernels, byte-identical proofs, faults, rates, benchmarks, the pod.
#                                      Needs the NVIDIA driver and ../.gpu, no Rust. Results go to OUT (default .gpu/out).
#
# The binaries run on any x86-64 host whose glibc is at least as new as the build host's. Job files (`*.json.zst`, as
# `upgrade-jobs` writes them) in ../.gpu are measured too.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
bin="$root/.gpu"

programs=(gpu-test gpu-bench prover-pod)

build() {
    cd "$root"
    cargo build --release -p gpu-prover -p prover-pod --bins
    local target stripped
    target="$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')"
    stripped="$(mktemp -d)"
    trap "rm -rf '$stripped'" EXIT # now: the variable is gone when the trap runs
    mkdir -p "$bin"
    for name in "${programs[@]}"; do strip -o "$stripped/$name" "$target/release/$name"; done
    tar -cJf "$bin/programs.tar.xz" -C "$stripped" "${programs[@]}"
    ls -l "$bin"
}

run() {
    local out="${1:-$bin/out}" failed=0 here
    here="$(mktemp -d)"
    trap "rm -rf '$here'" EXIT
    tar -xJf "$bin/programs.tar.xz" -C "$here"
    mkdir -p "$out"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader | tee "$out/device.txt"
    # One that fails does not keep the others from running.
    "$here/prover-pod" doctor 2>&1 | tee "$out/doctor.log" || failed=1
    "$here/gpu-test" kernels proofs random 200 mixed 18 ahead faults processes >"$out/tests.log" 2>&1 || failed=1
    grep -v '^ok' "$out/tests.log"
    "$here/gpu-test" rates 20 2>&1 | tee "$out/rates.log" || failed=1
    "$here/gpu-bench" 10 22 5 --cpu 20 2>&1 | tee "$out/heights.log" || failed=1
    local jobs=()
    for job in "$bin"/*.json.zst; do [[ -e "$job" ]] && jobs+=(--job "$job"); done
    if ((${#jobs[@]})); then "$here/gpu-bench" "${jobs[@]}" --runs 5 2>&1 | tee "$out/jobs.log" || failed=1; fi
    for log2 in 20 22; do "$here/gpu-bench" "$log2" "$log2" 2 --profile 2>&1 | tee -a "$out/steps.log" || failed=1; done
    return "$failed"
}

case "${1:-}" in
build) build ;;
run) REQUIRE_GPU=1 run "${2:-}" ;;
*)
    sed -n '2,9p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
