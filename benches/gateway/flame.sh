#!/bin/bash
# Where the gateway's CPU time goes, as flame graphs: flame.sh TOOL CACHE
#
# TOOL is the bench's own engines and clients. The gateway is built with frame pointers; `perf` is
# the system's (Debian: linux-perf), and inferno is installed in CACHE. Writes
# benches/plots/gateway_{request,event}.svg.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: flame.sh TOOL CACHE"; exit 64; }
tool=$1 cache=$2
plots=benches/plots
command -v perf >/dev/null || { echo "perf is missing: install linux-perf"; exit 1; }
[ -x "$cache/inferno/bin/inferno-flamegraph" ] || cargo install -q inferno --root "$cache/inferno"
RUSTFLAGS="-C force-frame-pointers=yes" \
    cargo build -q --release -p llmd-bodies --bin llmd-sched --target-dir target/flame

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -r "$work"' EXIT
# One core for the gateway, another for both of its ends.
on=(taskset -c 1)
endpoints=()
for engine in 1 2 3 4; do
    mkfifo "$work/engine"
    "${on[@]}" "$tool" upstream 100 10000 > "$work/engine" &
    read -r port < "$work/engine"
    rm "$work/engine"
    endpoints+=(--endpoint "http://127.0.0.1:$port")
done
mkfifo "$work/gateway"
taskset -c 0 target/flame/release/llmd-sched serve --listen 127.0.0.1:0 --threads 1 \
    "${endpoints[@]}" > "$work/gateway" &
gateway=$!
read -r said < "$work/gateway"
address=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["url"][7:])' "$said")
until curl -sf -o "$work/ready" "http://$address/ready"; do sleep 0.1; done

# NAME TITLE CONNECTIONS REQUESTS KIND
draw() {
    "${on[@]}" "$tool" load "$address" "$3" "$4" 200 64 "$5" > "$work/load" &
    local load=$!
    perf record -q -g -F 1999 -p "$gateway" -o "$work/perf" -- sleep 5
    wait "$load"
    perf script -i "$work/perf" 2>/dev/null | "$cache/inferno/bin/inferno-collapse-perf" -q |
        "$cache/inferno/bin/inferno-flamegraph" -q --minwidth 0.4 --title "$2" > "$plots/gateway_$1.svg"
}
draw request "A request of 200 B, by CPU time" 32 60000 whole
draw event "An event of a stream, by CPU time" 64 512 stream
ls "$plots"/gateway_*.svg
