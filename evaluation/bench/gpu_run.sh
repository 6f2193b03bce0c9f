#!/usr/bin/env bash
# Everything that waits for a GPU (GPU.md), within a time budget: build, test, benchmark, train, and collect what is small enough
# to carry home. For a machine rented by the minute, without a network.
#
#   evaluation/bench/gpu_run.sh SECONDS [--out DIR] [--work DIR] [--wheels DIR] [--presets "P ..."] [--tasks "T ..."]
#                               [--seeds "S ..."] [--jobs N] [--dtype D] [--steps N] [--device D] [--only "STAGE ..."] [--reserve S]
#                               [--least S] [--dry-run]
#
# The machine has Python 3.11 to 3.13 with a torch built for CUDA, numpy, cmake, ninja, pybind11, scikit-build-core, and nvcc; what
# else is needed comes as wheels in --wheels, made where there is a network and the same Python by
#
#   pip download -d wheels --only-binary :all: gymnasium ale-py omegaconf typer rich tensorboard matplotlib pillow pytest hypothesis
#
# Called again with the same --work it goes on: the build is kept if no source has changed, runs resume from their checkpoints,
# finished ones are recognised.
#
# --reserve: seconds kept for the last checkpoints, which a run that is asked to stop writes within three quarters of them, and for
# collecting; --least: seconds that a training is worth starting for.
#
# Stages: build, doctor, tests, bench, train, collect. --out receives stages.csv (what ran, how long, what was skipped and why),
# logs, result files, and of every run its curves and evaluations, without checkpoints; at most 60 MiB. The exit code is 1
# where a stage failed, 0 where stages were merely cut short or skipped for lack of time.
set -euo pipefail

usage() { sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
budget=${1:-}
[[ $budget =~ ^[0-9]+$ ]] || usage
shift
out=$PWD/gpu_out work=$PWD/gpu_work wheels="" presets="bbf" tasks="atari/Boxing atari/RoadRunner atari/CrazyClimber" seeds="1"
least=60 reserve=60 jobs=1 dtype=bfloat16 steps="" device=cuda only="build doctor tests bench train collect" dry=""
while (($#)); do
  case $1 in
    --dry-run) dry=1; shift; continue ;;
    --out | --work | --wheels | --presets | --tasks | --seeds | --jobs | --dtype | --steps | --device | --only | --reserve | --least)
      (($# > 1)) || usage
      printf -v "${1#--}" %s "$2"; shift 2 ;;
    *) echo "unknown: $1" >&2; usage ;;
  esac
done
mkdir -p "$out/logs" "$work"
out=$(cd "$out" && pwd) work=$(cd "$work" && pwd)
if [ -n "$wheels" ] && [ -z "$dry" ]; then wheels=$(cd "$wheels" && pwd); fi
grace=$((reserve * 3 / 4 + 1)) # from being asked to stop to being killed
most_bytes=$((60 * 1024 * 1024))

failed=0
[ -s "$out/stages.csv" ] || echo "stage,seconds,exit,note" >"$out/stages.csv"
earlier=$(wc -l <"$out/stages.csv") # lines of calls before this one

left() { echo $((budget - SECONDS)); }
note() { # stage, seconds, exit code, note
  echo "$1,$2,$3,$4" >>"$out/stages.csv"
  echo "== $1: $4 ($2 s, $(left) s left)"
}
wanted() { [[ " $only " == *" $1 "* ]]; }

# stage NAME NEEDS AT_MOST COMMAND...: run it with its output in logs/NAME.log, unless fewer than NEEDS seconds are left; asked to
# stop (SIGTERM) after AT_MOST seconds, or when only the reserve is left.
stage() {
  local name=$1 needs=$2 most=$3 begin=$SECONDS code=0 limit
  shift 3
  wanted "${name%%:*}" || return 0
  limit=$(($(left) - reserve))
  ((limit < most)) && most=$limit
  if ((most < needs)); then
    note "$name" 0 "" "skipped: needs $needs s and $limit s are left"
    return 0
  fi
  if [ -n "$dry" ]; then
    note "$name" 0 "" "would run for at most $most s: $*"
    return 0
  fi
  timeout --signal=TERM --kill-after="$grace" "$most" "$@" >"$out/logs/${name//[:\/]/_}.log" 2>&1 || code=$?
  case $code in
    0) note "$name" $((SECONDS - begin)) 0 "done" ;;
    75 | 124 | 137)
      case $name in
        train:* | bench:learner*) note "$name" $((SECONDS - begin)) "$code" "cut short; call again to go on" ;;
        *) note "$name" $((SECONDS - begin)) "$code" "cut short; begins anew at the next call" ;;
      esac
      ;;
    *) note "$name" $((SECONDS - begin)) "$code" "FAILED: $(tail -n 1 "$out/logs/${name//[:\/]/_}.log" | tr ',' ';')"; failed=1 ;;
  esac
}

build() {
  local source
  source=$(cd "$repo" && find csrc rlplatform agents envs evaluation pyproject.toml CMakeLists.txt -type f \
    ! -path '*/results/*' ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
  [ "$(cat "$work/built" 2>/dev/null)" = "$source" ] && return 0
  if [ ! -d "$work/venv" ]; then
    python3 -m venv --system-site-packages "$work/venv"
    # Where python3 is itself of a virtual environment, its packages are not the system's.
    python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
  fi
  local pip=("$work/venv/bin/python" -m pip install -q --no-index --no-deps --disable-pip-version-check)
  if [ -n "$wheels" ]; then "${pip[@]}" --upgrade "$wheels"/*.whl; fi
  "${pip[@]}" --force-reinstall --no-build-isolation -C cmake.define.RLP_CUDA=ON -C cmake.define.CMAKE_CUDA_ARCHITECTURES=native "$repo"
  echo "$source" >"$work/built"
}
export -f build
export repo work wheels

collect() { # whatever is small, of every run; result.json and evals.csv first, so that they are there if the rest is too much
  local file run
  for run in "$work"/runs/*/*/*/; do
    [ -d "$run" ] || continue
    mkdir -p "$out/${run#"$work"/}"
    for file in result.json evals.csv config.yaml protocol.json provenance.json episodes.csv metrics.jsonl; do
      [ ! -f "$run$file" ] || cp "$run$file" "$out/${run#"$work"/}"
    done
  done
  local bytes
  bytes=$(du -sb "$out" | cut -f1)
  ((bytes <= most_bytes)) && return 0
  find "$out/runs" -name metrics.jsonl -exec gzip -9f {} + # ten times smaller
  bytes=$(du -sb "$out" | cut -f1)
  ((bytes <= most_bytes)) || { echo "$out holds $bytes bytes, more than $most_bytes"; return 1; }
}

if [ -d "$work/venv" ] || wanted build; then PATH=$work/venv/bin:$PATH; fi
stage build 60 900 bash -euo pipefail -c build
stage doctor 10 60 rlplatform doctor
cd "$work" # so that the installed package is what is tested, not the checkout
# Those that a machine may lack something for: the others passed where there was no GPU.
stage tests 60 600 python -m pytest -q -p no:cacheprovider -rs -m "skipif and not slow" "$repo"/tests/test_device_{parts,learner,replay,envs,actor,run}.py \
  "$repo"/tests/test_{mrq_device,returns}.py
mkdir -p "$out/results"
stage bench:learner 60 600 rlplatform bench learner --device "$device" --presets bbf sr_spr spr der drq_eps --repeats 7 \
  --out "$out/results/learner_gpu.json"
stage bench:device_replay 20 120 rlplatform bench device_replay --out "$out/results/device_replay.json"
stage bench:device_envs 20 180 rlplatform bench device_envs --rounds 7 --out "$out/results/device_envs.json"
stage bench:returns 20 120 rlplatform bench returns --device cuda --out "$out/results/returns_gpu.json"
for precision in float32 tf32 bfloat16; do # the reference is the CPU's float32: two gradients of BBF a checkpoint
  stage "bench:bf16/$precision" 60 300 rlplatform bench bf16 --preset bbf --steps 2400 --device "$device" --dtype "$precision" \
    --threads "$(nproc)" --out "$out/results/bf16_bbf_$precision.json"
done
# Environments, actor, replay and learner on the device: steps and updates a second are in its metrics.jsonl.
stage train:c51/minatar_Breakout/1 60 300 rlplatform train c51 minatar/Breakout --seed 1 --steps 1000000 \
  --run-dir "$work/runs/c51/minatar_Breakout/seed_1" "device=$device" backend=device envs=64 log_every=10000 checkpoint_every=250000
# MR.Q with its paper's networks, on a task that needs no MuJoCo, acting beside learning: likewise.
stage train:mrq/control_Pendulum/1 60 300 rlplatform train mrq control/Pendulum --seed 1 --steps 20000 \
  --run-dir "$work/runs/mrq/control_Pendulum/seed_1" "device=$device" lag=1 agent.hidden=512 agent.action_embedding=256 agent.batch=256

# Training takes what is left: `jobs` runs at a time, in the order of seeds, then tasks. Each is asked to stop in time to write its
# checkpoint; one whose turn does not come is noted as skipped.
for seed in $seeds; do
  for preset in $presets; do
    for task in $tasks; do
      name=${task//\//_}
      run=$work/runs/$preset/$name/seed_$seed
      command=(rlplatform train "$preset" "$task" --seed "$seed" --run-dir "$run" "device=$device" "agent.dtype=$dtype")
      if [ -n "$steps" ]; then command+=(--steps "$steps"); fi
      while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done
      stage "train:$preset/$name/$seed" "$least" "$budget" "${command[@]}" &
    done
  done
done
wait
! tail -n "+$((earlier + 1))" "$out/stages.csv" | grep -q '^train:.*,FAILED' || failed=1
if wanted collect && [ -z "$dry" ]; then
  begin=$SECONDS
  if collect >"$out/logs/collect.log" 2>&1; then note collect $((SECONDS - begin)) 0 "done"; else
    note collect $((SECONDS - begin)) 1 "FAILED: $(tail -n 1 "$out/logs/collect.log")"; failed=1
  fi
fi
exit $failed
