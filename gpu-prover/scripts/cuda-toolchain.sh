#!/usr/bin/env bash
# Puts CUDA's compiler into the cache folder from NVIDIA's wheels on PyPI: no root, no GPU, about 110 MB to download.
# build.rs looks there last, after NVCC, CUDA_HOME and PATH. Running it again costs nothing.
#
#   scripts/cuda-toolchain.sh            nvcc 13.0
#   scripts/cuda-toolchain.sh --disasm   and cuobjdump, nvdisasm (for instruction counts)
set -euo pipefail

# 13.0 and no newer: drivers of the 580 series refuse the PTX of a later compiler.
compiler=(
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96
)
disassembler=(nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.2.86)

cache="${UPGRADER_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/upgrader-fleet}/cuda"
wanted=("${compiler[@]}")
if [[ "${1:-}" == --disasm ]]; then wanted+=("${disassembler[@]}"); fi

# One stamp file per wheel, written last: an interrupted run starts that wheel again.
mkdir -p "$cache/stamps"
missing=()
for wheel in "${wanted[@]}"; do
    [[ -e "$cache/stamps/$wheel" ]] || missing+=("$wheel")
done
if ((${#missing[@]})); then
    # All wheels share the folder nvidia/cu13, and pip replaces a folder that it finds in its target: so each batch goes to a
    # folder of its own first.
    batch="$(mktemp -d "$cache/batch.XXXXXX")"
    trap 'rm -rf "$batch"' EXIT
    python3 -m pip install --quiet --no-deps --no-compile --disable-pip-version-check \
        --root-user-action=ignore --target "$batch" "${missing[@]}"
    mkdir -p "$cache/wheels"
    cp -a "$batch/." "$cache/wheels/"
    for wheel in "${missing[@]}"; do : >"$cache/stamps/$wheel"; done
fi

home="$cache/wheels/nvidia/cu13"
[[ -x "$home/bin/nvcc" ]] || { echo "cuda-toolchain: no nvcc under $home" >&2; exit 1; }
# nvcc asks for lib64 when it links host programs; the wheels only have lib.
[[ -e "$home/lib64" ]] || ln -s lib "$home/lib64"
"$home/bin/nvcc" --version | tail -2
echo "CUDA_HOME=$home"
