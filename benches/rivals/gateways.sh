#!/bin/bash
# Installs rival gateways for `make bench-gateway`: gateways.sh CACHE
#
# They land in CACHE/gateways: a virtual environment with the routers that ship as wheels, and
# Debian's nginx, unpacked and not installed, so that no service is started. Running this again is
# free while the recipe is the same. Prints the folder's path, and nothing else, on standard output.
set -euo pipefail
exec 3>&1 1>&2

[ $# -eq 1 ] || { echo "usage: gateways.sh CACHE"; exit 64; }
mkdir -p "$1"
cache=$(cd "$1" && pwd)
home=$cache/gateways
stamp=$home/installed.stamp
exec 9>"$cache/gateways.lock"
flock 9

want=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    echo "$home" >&3
    exit 0
fi
rm -rf "$home"
python3 -m venv "$home"
"$home/bin/pip" install -q --no-cache-dir smg==1.13.0 vllm-router==0.1.17 sglang-router==0.3.2
mkdir "$home/debian"
(cd "$home/debian" && apt-get download -q nginx >&2 && dpkg -x nginx_*.deb . && rm nginx_*.deb)
printf '%s' "$want" > "$stamp"
echo "$home" >&3
