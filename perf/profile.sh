#!/usr/bin/env bash
script=profile
help_text='profile.sh: where the CPU time of the broker goes, on the two main workloads, as Linux perf samples it.

Per workload: its figures, CPU time by thread, by layer and by symbol, what the broker counted meanwhile,
and its histograms. Everything is written to perf/results/profile-TIME.txt too.
Which symbol belongs to which layer is in src/profile.rs. Needs perf, and root or
kernel.perf_event_paranoid of 1 at most (-1 for what the kernel does). About half a minute.

  --seconds N       sampled per workload (default 8)
  --only TEXT       workloads whose name has it'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=perf/workloads.sh
. "$perf_folder/workloads.sh"
begin "$@"
sampled_seconds=8
frequency=999
workload_names=(
  'produce, 1 MiB batches [1 connection]'
  'end to end, 1 partition [50,000/s]'
)
set -- "${rest[@]}"
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || die 'see --help' 2
  case $1 in
    --seconds) sampled_seconds=$2 ;;
    --only) select_workloads "$2" ;;
    *) die 'see --help' 2 ;;
  esac
  shift 2
done
[[ $sampled_seconds =~ ^[1-9][0-9]*$ ]] || die 'see --help' 2
command -v perf >/dev/null || die 'perf is missing: apt install linux-perf (Debian), linux-tools-generic (Ubuntu), dnf install perf (Fedora)'
needs 10

# metrics: prints what the broker's metrics page has.
metrics() {
  exec 7<>"/dev/tcp/127.0.0.1/$((port + 1))"
  printf 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&7
  tr -d '\r' <&7
  exec 7>&-
}

# counted BEFORE AFTER: what grew, all cores together.
counted() {
  awk '
    $1 !~ /_total(\{|$)/ {next}
    {name = $1; sub(/\{.*/, "", name)}
    NR == FNR {before[name] += $2; next}
    {after[name] += $2}
    END {for (name in after) if (after[name] > before[name]) printf "  %-48s %15.0f\n", name, after[name] - before[name]}
  ' "$1" "$2" | sort
}

# histograms PAGE: of each histogram with anything in it how many durations, their mean, and the bounds
# that half of them and 99 % of them are under.
histograms() {
  awk '
    /^#/ {next}
    match($1, /_(bucket|sum|count)\{/) {
      name = substr($1, 1, RSTART - 1)
      kind = substr($1, RSTART + 1, RLENGTH - 2)
      labels = substr($1, RSTART + RLENGTH)
      sub(/\}$/, "", labels)
      bound = ""
      if (match(labels, /,le="[^"]*"/)) {
        bound = substr(labels, RSTART + 5, RLENGTH - 6)
        labels = substr(labels, 1, RSTART - 1)
      }
      key = name " " labels
      if (kind == "sum") sum[key] = $2
      if (kind == "count") count[key] = $2
      if (kind == "bucket") {steps[key]++; bounds[key, steps[key]] = bound; counts[key, steps[key]] = $2}
    }
    function under(key, part,   step) {
      for (step = 1; step <= steps[key]; step++)
        if (counts[key, step] >= part * count[key]) break
      return bounds[key, step] == "+Inf" ? "more" : sprintf("%.3f", bounds[key, step] * 1000)
    }
    END {
      printf "  %-62s %10s %9s %9s %9s\n", "milliseconds", "count", "mean", "50 % <=", "99 % <="
      for (key in count) if (count[key] > 0)
        printf "  %-62s %10d %9.3f %9s %9s\n", key, count[key], sum[key] / count[key] * 1000, under(key, 0.5), under(key, 0.99) | "sort"
    }
  ' "$1"
}

# profile_workload NAME
profile_workload() {
  local load
  printf '\n== %s\n' "$1"
  metrics >"$work/before.txt"
  # Longer than what is sampled: its start and end are not looked at.
  seconds=$((sampled_seconds + 4))
  measure_workload "$1" >"$work/load.txt" &
  load=$!
  started_pids+=("$load")
  sleep $((warmup_seconds + 1))
  perf record --quiet --freq "$frequency" -g --output "$work/perf.data" --pid "$broker_pid" -- \
    sleep "$sampled_seconds" 2>"$work/perf-record.log" || die "perf record: $(tail -n 1 "$work/perf-record.log")"
  metrics >"$work/after.txt"
  wait "$load" || die "the load failed: $(cat "$work/load.txt")"
  forget "$load"
  cat "$work/load.txt"
  perf script --no-inline --input "$work/perf.data" --fields comm,tid,ip,sym,dso >"$work/samples.txt" 2>"$work/perf-script.log" ||
    die "perf script: $(tail -n 1 "$work/perf-script.log")"
  "$percolog_perf" profile "$work/samples.txt" --frequency "$frequency"
  echo 'what the broker counted, from before the load to the end of sampling'
  counted "$work/before.txt" "$work/after.txt"
  echo 'histograms of the broker'
  histograms "$work/after.txt"
}

mkdir -p "$perf_folder/results"
output=$perf_folder/results/profile-$(date -u +%Y%m%dT%H%M%SZ).txt
reports=$work/reports.jsonl
broker_arguments=(--set log.retention.check.interval.ms=1000)
start_percolog
broker_name=percolog
at=127.0.0.1:$port
measured_pid=$broker_pid
topic_settings=(--topic-config file.delete.delay.ms=0)
step=0
for workload in "${workload_names[@]}"; do
  step=$((step + 1))
  topic_prefix=profile-$step
  profile_workload "$workload" >"$work/workload.txt"
  tee -a "$output" <"$work/workload.txt"
done
stop_broker
echo "written to $output"
