#!/usr/bin/env bash
# The wheel as a user gets it: under 15 MB, manylinux_2_28, and importable with numpy alone.
set -euo pipefail
wheel=$1
root=$(pwd)
limit_bytes=$((15 * 1024 * 1024))

size_bytes=$(stat -c %s "$wheel")
[ "$size_bytes" -lt "$limit_bytes" ] || {
  echo "the wheel has $size_bytes bytes, the limit is $limit_bytes" >&2
  exit 1
}
# Read whole before it is searched: a reader that stops early would kill the writer.
platform=$("$root/.venv/bin/auditwheel" show "$wheel")
grep -qE 'manylinux_2_28_(x86_64|aarch64)' <<<"$platform" || {
  echo "the wheel is not manylinux_2_28: $platform" >&2
  exit 1
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q "$wheel"
installed=$("$scratch/venv/bin/pip" list --format=freeze | grep -viE '^(pip|setuptools|wheel)==' | cut -d= -f1 | sort | tr '\n' ' ')
[ "$installed" = "llmd-sched numpy " ] || [ "$installed" = "llmd_sched numpy " ] || {
  echo "the wheel brought more than numpy: $installed" >&2
  exit 1
}
cd "$scratch"
venv/bin/python - <<'PY'
import sys
import threading

import llmd_sched

assert threading.active_count() == 1, "importing started a thread"
heavy = {"ray", "vllm", "torch", "matplotlib"} & set(sys.modules)
assert not heavy, f"importing pulled in {heavy}"
router = llmd_sched.Router()
router.add_endpoint("http://127.0.0.1:1", model="m")
decision = router.route(list(range(64)), model="m")
print("wheel alone:", decision)

from llmd_sched import sim

workload = sim.Workload(range(8), [640] * 8, [8] * 8, keys=[[1, 2]] * 8)
served = sim.run(workload, sim.World(replicas=2, warmup_share=0.0)).summary.served
assert served == 8, f"{served} of 8 simulated requests were served"
PY
venv/bin/llmd-sched --version
echo "wheel: $size_bytes bytes, installs with: $installed"
