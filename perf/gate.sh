#!/usr/bin/env bash
script=gate
help_text='gate.sh: has the broker got dearer? CPU seconds per million records of a few workloads, now against before.

Before is the last entry of this machine in the ledger (bench.sh --record), or with --baseline another
commit, which is built and takes turns with this one: then the ratio of each turn counts, which is better on
a machine whose speed changes. A workload regressed if its median is above the median before by more than
15 % and by more than 3 median absolute deviations of the noisier side (or of the ratios). Then, and if a
workload could not be measured, it exits with 1. Runs perf/instructions.sh --check as well where that
exists. About five minutes, twice that with --baseline, which besides builds for as long as a release build
takes, once per commit (target/baseline).

  --rounds N        runs of each workload (default 5)
  --seconds N       measured per run (default 5)
  --only TEXT       workloads whose name has it
  --baseline COMMIT compare with this commit instead of the ledger'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=perf/workloads.sh
. "$perf_folder/workloads.sh"
begin "$@"
rounds=5
seconds=5
baseline=
workload_names=(
  'produce, 1 MiB batches [1 connection]'
  'produce, 16 KiB batches [16 connections]'
  'produce, single records [64 connections]'
  'consume what was just written'
  'end to end, 1 partition [50,000/s]'
)
set -- "${rest[@]}"
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || die 'see --help' 2
  case $1 in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --only) select_workloads "$2" ;;
    --baseline) baseline=$2 ;;
    *) die 'see --help' 2 ;;
  esac
  shift 2
done
[[ $seconds =~ ^[1-9][0-9]*$ && $rounds =~ ^[1-9][0-9]*$ ]] || die 'see --help' 2
needs 15

# build_baseline: sets baseline_broker, a broker built from the files of that commit.
build_baseline() {
  local commit tree=$work/tree
  commit=$(git -C "$root" rev-parse --verify --quiet "$baseline^{commit}") || die "there is no commit $baseline"
  baseline_broker=$root/target/baseline/percolog-$commit
  [ ! -x "$baseline_broker" ] || return 0
  echo "building $commit"
  mkdir -p "$tree"
  git -C "$root" archive "$commit" | tar -x -C "$tree"
  CARGO_TARGET_DIR=$root/target/baseline cargo build --quiet --locked --release --bin percolog \
    --manifest-path "$tree/Cargo.toml"
  cp "$root/target/baseline/release/percolog" "$baseline_broker"
  rm -rf "$tree"
}

# choose BROKER
choose() {
  broker_name=$1
  topic_prefix=$1
  at=127.0.0.1:$port
  measured_pid=$this_pid
  if [ "$1" = baseline ]; then
    at=127.0.0.1:$((port + 2))
    measured_pid=$baseline_pid
  fi
}

ledger=$(ledger_file)
brokers=(percolog)
past=(--ledger "$ledger")
if [ -n "$baseline" ]; then
  build_baseline
  brokers+=(baseline)
  past=(--against baseline)
elif ! [ -e "$ledger" ]; then
  echo "$script: no entry for this machine ($ledger): nothing to compare with: make bench ARGS=--record"
  brokers=()
fi

# measure_all: every workload on every broker, by turns; who goes first changes with the round.
measure_all() {
  local round workload broker order step=0
  for ((round = 1; round <= rounds; round++)); do
    for workload in "${workload_names[@]}"; do
      order=("${brokers[@]}")
      [ $((round % 2)) -eq 1 ] || [ ${#brokers[@]} -eq 1 ] || order=("${brokers[1]}" "${brokers[0]}")
      for broker in "${order[@]}"; do
        step=$((step + 1))
        printf '[%d/%d] %s: %s\n' "$step" $((rounds * ${#workload_names[@]} * ${#brokers[@]})) "$workload" "$broker"
        choose "$broker"
        measure_workload "$workload"
      done
    done
  done
}

status=0
if [ ${#brokers[@]} -gt 0 ]; then
  reports=$perf_folder/results/gate-$(date -u +%Y%m%dT%H%M%SZ).jsonl
  mkdir -p "$perf_folder/results"
  : >"$reports"
  topic_settings=(--topic-config file.delete.delay.ms=0)
  broker_arguments=(--set log.retention.check.interval.ms=1000)
  start_percolog
  this_pid=$broker_pid
  baseline_pid=
  if [ -n "$baseline" ]; then
    # The first broker's output keeps its reader.
    exec 9<&8
    this=("$percolog" "$port" "$data")
    percolog=$baseline_broker port=$((port + 2)) data=$work/baseline
    start_percolog
    baseline_pid=$broker_pid
    percolog=${this[0]} port=${this[1]} data=${this[2]}
  fi
  measure_all
  for broker_pid in $this_pid $baseline_pid; do
    stop_broker
  done
  expected=()
  for workload in "${workload_names[@]}"; do
    expected+=(--workload "$workload")
  done
  "$percolog_perf" gate "$reports" "${past[@]}" "${expected[@]}" || status=1
  echo "reports: $reports"
fi
if [ -x "$perf_folder/instructions.sh" ]; then
  "$perf_folder/instructions.sh" --check || status=1
fi
exit "$status"
