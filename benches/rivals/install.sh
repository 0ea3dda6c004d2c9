#!/bin/bash
# Installs the rivals' wheels for the benches: install.sh CACHE
#
# They land in CACHE/peers, a virtual environment; running this again is free while the versions and
# this recipe are the same. Prints the environment's path, and nothing else, on its standard output.
set -euo pipefail
exec 3>&1 1>&2

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -eq 1 ] || { echo "usage: install.sh CACHE"; exit 64; }
mkdir -p "$1"
cache=$(cd "$1" && pwd)
venv=$cache/peers
stamp=$venv/installed.stamp
exec 9>"$cache/peers.lock"
flock 9

# A version manager may leave a python3.12 on PATH that refuses to run, so ask it instead of looking
# for the name. Ray has no wheel for every Python; the interface itself is for 3.10 and newer.
python=""
for candidate in python3.12 python3 python3.11 python3.13; do
    if "$candidate" -c 'import sys, ssl, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "install.sh: no working Python 3.11 to 3.13 with ssl and venv on PATH"; exit 69; }

want="$("$python" -V) $(cat "${BASH_SOURCE[0]}" "$here/requirements.txt" | sha256sum | cut -c1-16)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    echo "$venv" >&3
    exit 0
fi
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/pip" install -q --no-cache-dir -r "$here/requirements.txt"
# One file of it is measured, which needs none of what Ray depends on.
"$venv/bin/pip" install -q --no-cache-dir --no-deps ray==2.50.0
printf '%s' "$want" > "$stamp"
echo "$venv" >&3
