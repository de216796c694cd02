#!/bin/sh
# Everything that needs a CUDA device: sh benchmarks/gpu_night.sh [OUT [PART...]]
# Parts, all by default: packs tests families groups sanitizer machine fine one-resident one profile named 8x7b one-more
# fine-bf16 int8 disk named-large 8x22b accelerate bf16 8x22b-bf16.  They end when LIMIT_S (530 seconds) are over: a step
# gets what is left, and the log says which had none; LIMIT_S=1500 leaves time for all.  Packs of the other parts are
# written while the tests run, on WORKERS (12) processes; what is measured runs alone.
# Random weights; device memory capped at 24 GB (12 GB for one sequence and for small int4 experts); the measured link rate is in
# every JSON file.  Needs 110 GB of RAM for 8x7B in bf16, 80 GB for 8x22B in int4, and 25 GB below the cache folder
# (XDG_CACHE_HOME; /dev/shm is quickest).
set -u
OUT=${1:-benchmarks/gpu}
PYTHON=${PYTHON:-.venv/bin/python}
LIMIT_S=${LIMIT_S:-530}
WORKERS=${WORKERS:-12}
mkdir -p "$OUT"
started=$(date +%s)
step() { # NAME LIMIT_S COMMAND..., interrupted after that, so that pytest still says what failed: its output in OUT/NAME, its complaints and its time in OUT/log.txt
    name=$1 limit=$2
    shift 2
    begun=$(date +%s)
    left=$((LIMIT_S - begun + started))
    if [ "$left" -le 0 ]; then
        echo "== $name: left out, $LIMIT_S s are over" >> "$OUT/log.txt"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    echo "== $name: $*" >> "$OUT/log.txt"
    timeout -s INT -k 10 "$limit" "$@" > "$OUT/$name" 2>> "$OUT/log.txt"
    echo "== $name: exit $?, $(($(date +%s) - begun)) s, $(($(date +%s) - started)) s in all" >> "$OUT/log.txt"
}
bench() { # NAME LIMIT_S ARGUMENTS...
    name=$1 limit=$2
    shift 2
    step "$name.json" "$limit" "$PYTHON" -m rotary_batch.cli bench --device cuda --json "$@"
}
[ $# -gt 0 ] && shift
PARTS=${*:-packs tests families groups sanitizer machine fine one-resident one profile named 8x7b one-more fine-bf16 int8 disk named-large 8x22b accelerate bf16 8x22b-bf16}
has() { case " $PARTS " in *" $1 "*) ;; *) return 1 ;; esac; }
sweep() { # NAME LIMIT_S ARGUMENTS...: many sequences of job lengths under 24 GB
    name=$1 limit=$2
    shift 2
    bench "$name" "$limit" --kv int8 --device-memory 24GB --lengths job "$@"
}
any() { for part; do has "$part" && return; done; return 1; }
tests() { # NAME LIMIT_S ARGUMENTS...: -W, because the libraries of another machine warn of other things
    name=$1 limit=$2
    shift 2
    step "$name.txt" "$limit" "$PYTHON" -m pytest -m gpu -p no:benchmark -W default -v --tb=short --durations=5 -n "$WORKERS" "$@"
}
if has packs; then
    packs=""
    any 8x7b one one-resident one-more profile disk accelerate && packs="$packs mixtral-8x7b:int4:bf16"
    any fine profile && packs="$packs qwen3-30b-a3b:int4:bf16"
    has fine-bf16 && packs="$packs qwen3-30b-a3b:bf16:bf16"
    has int8 && packs="$packs mixtral-8x7b:int8:bf16"
    has named && packs="$packs gpt-oss-20b:int4:bf16 qwen3.6-35b-a3b:int4:bf16"
    has named-large && packs="$packs gpt-oss-120b:int4:bf16 glm-4.5-air:int4:bf16"
    has 8x22b && packs="$packs mixtral-8x22b:int4:int8"
    has bf16 && packs="$packs mixtral-8x7b:bf16:bf16"
    has 8x22b-bf16 && packs="$packs mixtral-8x22b:int4:bf16"
    # shellcheck disable=SC2086 # words are meant
    step packs.txt 120 "$PYTHON" -m benchmarks.gpu_packs $packs &
fi
if has tests; then
    tests tests 240 tests/engine &
else
    # shellcheck disable=SC2046 # words are meant
    any families groups && tests tests 90 $(has groups && echo tests/engine/test_g[r]*.py tests/engine/test_cuda.py tests/engine/test_triton.py) \
        $(has families && echo tests/engine/test_cuda_models.py) &
fi
if has sanitizer && command -v compute-sanitizer > /dev/null; then
    step sanitizer.txt 80 compute-sanitizer --error-exitcode 9 \
        "$PYTHON" -m pytest -p no:benchmark -W default -q -p no:xdist tests/engine/test_triton.py tests/engine/test_grouped.py &
fi
wait
if has machine; then
    step machine.txt 60 "$PYTHON" -c "import sys, torch, importlib.util as u; print(sys.version, torch.__version__, torch.cuda.get_device_name(), 'triton', bool(u.find_spec('triton')))"
    bench machine 90 --machine
fi
fine="--shape qwen3-30b-a3b --max-batch 256 --prefill-revolutions 3 --decode-revolutions 6"
# shellcheck disable=SC2086 # words are meant, here and below
if has fine; then # small experts, which are copied in bundles and computed in groups
    bench fine-int4-12-job 60 $fine --kv int8 --lengths job --experts int4 --device-memory 12GB
fi
one="--shape mixtral-8x7b --experts int4 --sequences 1 --lengths 64+64 --decode-revolutions 40"
# shellcheck disable=SC2086
if has one-resident; then
    bench 8x7b-int4-one-resident 60 $one --device-memory 40GB
fi
# shellcheck disable=SC2086
if has one; then
    bench 8x7b-int4-one-24 60 $one --device-memory 24GB
fi
if has profile; then # where the time of a step goes
    step profile-fine-12.txt 60 "$PYTHON" -m benchmarks.gpu_profile qwen3-30b-a3b int4 256 12GB
    step profile-fine.txt 50 "$PYTHON" -m benchmarks.gpu_profile qwen3-30b-a3b int4 128 40GB
    step profile-8x7b.txt 50 "$PYTHON" -m benchmarks.gpu_profile mixtral-8x7b int4 1 40GB
fi
named() { # SHAPE MEMORY: a few steps at job lengths
    bench "$1-int4-$2-job" 90 --shape "$1" --experts int4 --device-memory "$2GB" --kv int8 --lengths job --max-batch 256 \
        --prefill-revolutions 2 --decode-revolutions 6
}
if has named; then
    named gpt-oss-20b 12
    named qwen3.6-35b-a3b 12
    named gpt-oss-20b 24
    named qwen3.6-35b-a3b 24
fi
if has 8x7b; then
    sweep 8x7b-int4-job 150 --shape mixtral-8x7b --experts int4 --max-batch 256 --prefill-revolutions 12 --decode-revolutions 20 --timeline "$OUT/8x7b.svg"
fi
# shellcheck disable=SC2086
if has one-more; then
    bench 8x7b-int4-one-12 60 $one --device-memory 12GB
    bench 8x7b-int4-one-24-no-prefetch 60 $one --device-memory 24GB --no-prefetch
    bench 8x7b-int4-one-12-no-prefetch 60 $one --device-memory 12GB --no-prefetch
fi
# shellcheck disable=SC2086
if has fine-bf16; then
    bench fine-bf16-24-job 120 $fine --kv int8 --lengths job --experts bf16 --device-memory 24GB
fi
if has int8; then
    sweep 8x7b-int8-job 120 --shape mixtral-8x7b --experts int8 --max-batch 256 --prefill-revolutions 6 --decode-revolutions 10
fi
if has disk; then # a third of what revolves in RAM, the rest from disk
    sweep 8x7b-int4-disk-job 150 --shape mixtral-8x7b --experts int4 --host-memory 6GB --max-batch 256 --prefill-revolutions 6 --decode-revolutions 6
fi
if has named-large; then
    named gpt-oss-120b 24
    named glm-4.5-air 24
    named gpt-oss-120b 12
fi
if has 8x22b; then
    sweep 8x22b-int4-int8-job 280 --shape mixtral-8x22b --experts int4 --dense int8 --max-batch 192 --prefill-revolutions 12 --decode-revolutions 10
fi
if has accelerate; then
    step accelerate.json 90 "$PYTHON" -m benchmarks.peers.accelerate_gpu mixtral-8x7b 24 1 64 1
fi
if has bf16; then
    sweep 8x7b-bf16-job 150 --shape mixtral-8x7b --experts bf16 --host-memory 100GB --max-batch 256 --prefill-revolutions 4 --decode-revolutions 6
fi
if has 8x22b-bf16; then
    sweep 8x22b-int4-bf16-job 280 --shape mixtral-8x22b --experts int4 --dense bf16 --max-batch 192 --prefill-revolutions 12 --decode-revolutions 10
fi
tail -n 40 "$OUT/log.txt"
