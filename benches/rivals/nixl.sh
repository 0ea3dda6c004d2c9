#!/bin/bash
# Installs NIXL for `make bench-transfer`: nixl.sh CACHE
#
# Without its dependencies: it would pull PyTorch, and needs only numpy to move host memory. Running
# this again is free while the recipe is the same. Prints the environment's path on standard output.
set -euo pipefail
exec 3>&1 1>&2

[ $# -eq 1 ] || { echo "usage: nixl.sh CACHE"; exit 64; }
mkdir -p "$1"
home=$(cd "$1" && pwd)/nixl
stamp=$home/installed.stamp
exec 9>"$1/nixl.lock"
flock 9

want=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
if ! { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; }; then
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/pip" install -q --no-cache-dir --no-deps nixl-cu12==1.5.1 numpy
    printf '%s' "$want" > "$stamp"
fi
echo "$home" >&3
