#!/bin/sh
# Everything that needs a CUDA device, in under nine minutes: sh benchmarks/gpu_night.sh [OUT]
# Random weights, device memory capped at 24 GB (12 GB for one sequence), the measured link rate in every JSON file.
# Needs about 75 GB of RAM for 8x22B in int4, and as much disk below the cache folder.
set -eu
OUT=${1:-benchmarks/gpu}
BIN=${BIN:-.venv/bin}
mkdir -p "$OUT"
bench() { # NAME ARGUMENTS...
    name=$1
    shift
    timeout 170 "$BIN/rotary-batch" bench --device cuda --json "$@" > "$OUT/$name.json" || echo "$name: exit $?" >> "$OUT/failed"
}
"$BIN/python" -c "import sys, torch, importlib.util as u; print(sys.version, torch.__version__, torch.cuda.get_device_name(), 'triton', bool(u.find_spec('triton')))" > "$OUT/machine.txt"
"$BIN/rotary-batch" bench --machine --device cuda --json > "$OUT/machine.json"
"$BIN/pytest" -m gpu -q > "$OUT/tests.txt" 2>&1 || echo "gpu tests: exit $?" >> "$OUT/failed"
if command -v compute-sanitizer > /dev/null; then
    timeout 60 compute-sanitizer "$BIN/pytest" -m gpu -q -k kernel > "$OUT/sanitizer.txt" 2>&1 || true
fi
bench 8x7b-int4-job --shape mixtral-8x7b --experts int4 --kv int8 --device-memory 24GB --lengths job --timeline "$OUT/8x7b.svg"
bench 8x7b-int4-one-24 --shape mixtral-8x7b --experts int4 --device-memory 24GB --sequences 1
bench 8x7b-int4-one-12 --shape mixtral-8x7b --experts int4 --device-memory 12GB --sequences 1
bench 8x7b-int4-one-resident --shape mixtral-8x7b --experts int4 --device-memory 60GB --sequences 1
bench 8x22b-int4-job --shape mixtral-8x22b --experts int4 --kv int8 --device-memory 24GB --lengths job
bench 8x22b-int4-int8-job --shape mixtral-8x22b --experts int4 --dense int8 --kv int8 --device-memory 24GB --lengths job
cat "$OUT"/*.json
