#!/usr/bin/env bash
# Installs NVIDIA's compiler for the tests of kernels/: nvcc.sh CACHE
#
# It needs no GPU, no driver and no root: its parts are wheels of the Python package index, which
# land in CACHE/nvcc-<version>/ (370 MB). Running this again is free. Prints the path of nvcc, and
# nothing else, on its standard output.
set -euo pipefail
exec 3>&1 1>&2

version=13.5.37
[ $# -eq 1 ] || { echo "usage: nvcc.sh CACHE"; exit 64; }
mkdir -p "$1"
environment=$(cd "$1" && pwd)/nvcc-$version
exec 9>"$environment.lock"
flock 9
if [ ! -f "$environment/.stamp" ]; then
  "${PYTHON:-python3}" -m venv --clear "$environment"
  "$environment/bin/pip" install -q "nvidia-cuda-nvcc==$version" "nvidia-cuda-crt==$version" \
    "nvidia-nvvm==$version" "nvidia-cuda-runtime==$version" "nvidia-cuda-cccl==13.3.5.0.6"
  touch "$environment/.stamp"
fi
echo "$environment"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc >&3
