#!/usr/bin/env bash
script=bench
help_text='bench.sh: the canonical workloads on a fresh broker; a table, the reports as JSON, a page with plots.

What runs is in workloads.sh. Everything is written to perf/results: bench-TIME.jsonl with a report of
every run and bench-TIME.html to look at. About six minutes, 40 GB written, 15 GB of disk.

  --seconds N       measured per workload (default 10)
  --only TEXT       workloads whose name has it
  --repeat N        runs of each workload (default 1)
  --record          add the medians to the ledger of this machine, perf/ledger/FINGERPRINT.jsonl'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=perf/workloads.sh
. "$perf_folder/workloads.sh"
begin "$@"
repeat=1
record=false
set -- "${rest[@]}"
while [ $# -gt 0 ]; do
  if [ "$1" = --record ]; then
    record=true
    shift
    continue
  fi
  [ $# -ge 2 ] || die 'see --help' 2
  case $1 in
    --seconds) seconds=$2 ;;
    --only) select_workloads "$2" ;;
    --repeat) repeat=$2 ;;
    *) die 'see --help' 2 ;;
  esac
  shift 2
done
[[ $seconds =~ ^[1-9][0-9]*$ && $repeat =~ ^[1-9][0-9]*$ ]] || die 'see --help' 2
needs 15

# The commit in it is that of the load generator, which is built together with the broker.
if $record && [ "$(realpath "$percolog")" != "$root/target/release/percolog" ]; then
  die '--record keeps figures of the broker that this tree builds, not of --percolog or PERCOLOG'
fi

name=$perf_folder/results/bench-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$perf_folder/results"
reports=$name.jsonl
# Deleted topics give their space back while the run goes on.
broker_arguments=(--set log.retention.check.interval.ms=1000)
start_percolog
figure 'start of an empty broker' "$(calculate "$ready_seconds * 1000")" ms
broker_name=percolog
at=127.0.0.1:$port
measured_pid=$broker_pid
topic_prefix=bench
topic_settings=(--topic-config file.delete.delay.ms=0)
step=0
for ((round = 1; round <= repeat; round++)); do
  for workload in "${workload_names[@]}"; do
    step=$((step + 1))
    printf '[%d/%d] %s\n' "$step" $((repeat * ${#workload_names[@]})) "$workload"
    measure_workload "$workload"
  done
done
figure 'resident memory after all of it' "$(resident_mib "$broker_pid")" MiB
stop_broker
"$percolog_perf" table "$reports"
ledger=$(ledger_file)
if $record; then
  mkdir -p "$perf_folder/ledger"
  "$percolog_perf" record "$reports" --ledger "$ledger" --data-dir "$work"
else
  echo "to keep these medians: $percolog_perf record $reports --ledger $ledger --data-dir $work_parent"
fi
"$percolog_perf" page "$reports" --html "$name.html" --title 'Percolog: make bench' --ledger "$ledger"
write_figures
echo "reports: $reports"
echo "page:    $name.html"
