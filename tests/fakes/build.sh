#!/usr/bin/env bash
# Compiles the fakes into the folder given, where they are not newer than their sources.
#
#   libkernels_on_host.so   the kernels of kernels/ for the CPU
#   libcuda.so.1            the fake CUDA driver
set -euo pipefail
out=$1
fakes=$(cd "$(dirname "$0")" && pwd)
kernels=$fakes/../../kernels
mkdir -p "$out"
# Tests that start together wait for each other.
exec 9>"$out/lock"
flock 9

# compile LIBRARY FLAGS AND SOURCES...
compile() {
  local library=$out/$1
  shift
  if [ -f "$library" ] && [ -z "$(find "$fakes" "$kernels" -type f -newer "$library" -print -quit)" ]; then
    return
  fi
  "${CXX:-c++}" -std=c++17 -O2 -g1 -U_FORTIFY_SOURCE -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unknown-pragmas \
    -Wno-sign-compare -ffp-contract=off -fPIC -shared -o "$library.new" "$@"
  mv "$library.new" "$library"
}

compile libkernels_on_host.so -I "$fakes/cuda_host" -I "$kernels" "$fakes/cuda_host/kernels.cpp"
compile libcuda.so.1 -Wl,-soname,libcuda.so.1 "$fakes"/fake_cuda/*.cpp
