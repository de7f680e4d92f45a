#!/usr/bin/env bash
script=background
help_text='background.sh: what retention, compaction and topic deletion do to latency.

Finds the most that can be produced, then produces at half of that rate twice: with nothing else going
on, and while old segments are removed by size, a compacted topic is cleaned and topics with many
segments are deleted. Compares the latencies. A kind of background work that the broker refuses to be
configured for is named and left out. About two minutes, 12 GB of disk.

  --seconds N       measured per run (default 20)'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
seconds=20
if [ ${#rest[@]} -gt 0 ]; then
  if [ "${rest[0]}" != --seconds ] || ! [[ ${rest[1]:-} =~ ^[1-9][0-9]*$ ]]; then
    die "see --help" 2
  fi
  seconds=${rest[1]}
fi
needs 16

bootstrap=127.0.0.1:$port
segment_bytes=1048576
foreground=(--topic foreground --partitions 16 --connections 16 --record-bytes 1024 --batch-bytes 16384)

# topic ARGUMENT...: the command line of Percolog works against any broker.
topic() {
  timeout 120 "$percolog" topic "$@" --bootstrap "$bootstrap" >"$work/topic.log" 2>&1
}

# fill NAME GIGABYTES OPTION...
fill() {
  local name=$1 records=$(($2 * 1000000000 / 1024))
  shift 2
  generate produce --bootstrap "$bootstrap" --topic "$name" --count "$records" --batch-bytes 102400 \
    --connections 2 "$@"
}

# prepare NAME CONFIG...: a topic of small segments; false if the broker refuses it.
prepare() {
  local name=$1 config arguments=()
  shift
  for config in "segment.bytes=$segment_bytes" file.delete.delay.ms=1000 "$@"; do
    arguments+=(--config "$config")
  done
  if topic create "$name" --partitions 8 "${arguments[@]}"; then
    return 0
  fi
  echo "left out: $name: $(tail -n 1 "$work/topic.log")"
  return 1
}

# latencies NAME: of the last run.
latencies() {
  local percentile
  figure "$1: reached" "$(calculate "$(value /produce/records_per_second)")" records/s
  for percentile in p50 p99 p99.9 max; do
    figure "$1: latency $percentile" \
      "$(calculate "$(value "/produce/latency/$percentile") / 1000")" ms
  done
}

# Old segments are looked for and removed while the run goes on.
broker_arguments=(--set log.retention.check.interval.ms=1000)
start_percolog
generate produce --bootstrap "$bootstrap" "${foreground[@]}" --warmup 3 --duration 10
half=$(awk -v rate="$(value /produce/records_per_second)" 'BEGIN {printf "%d", rate / 2}')
figure 'half of the maximum' "$half" records/s

# What is to be removed is there before the first run, so that both find the same broker.
kinds=()
if prepare retained; then
  fill retained 2 --partitions 8
  kinds+=(retained)
fi
if prepare compacted cleanup.policy=compact min.cleanable.dirty.ratio=0.01; then
  fill compacted 1 --partitions 8 --keys 20000
  kinds+=(compacted)
fi
for number in 1 2 3; do
  if prepare "deleted-$number"; then
    fill "deleted-$number" 1 --partitions 8
    kinds+=("deleted-$number")
  fi
done
sleep 5

at_half=(--rate "$half" --warmup 3 --duration "$seconds" --drain 60)
generate produce --bootstrap "$bootstrap" "${foreground[@]}" "${at_half[@]}"
latencies alone
alone=$(value /produce/latency/p99)

# background: one thing after the other while the second run goes on.
background() {
  local kind
  sleep 3
  for kind in "${kinds[@]}"; do
    case $kind in
      retained) topic alter retained --config "retention.bytes=$segment_bytes" ;;
      # New records under old keys keep the cleaner busy.
      compacted)
        timeout 120 "$percolog_perf" produce --bootstrap "$bootstrap" --topic compacted --partitions 8 \
          --keys 20000 --rate 2000 --warmup 0 --duration $((seconds / 2)) >/dev/null &
        ;;
      deleted-*) topic delete "$kind" ;;
    esac || echo "$kind failed: $(tail -n 1 "$work/topic.log")"
    sleep 1
  done
  wait
}
disk_before=$(du -sm "$data" | cut -f1)
background &
background_pid=$!
started_pids+=("$background_pid")
generate produce --bootstrap "$bootstrap" "${foreground[@]}" "${at_half[@]}"
latencies beside
beside=$(value /produce/latency/p99)
ended "$background_pid" 180
disk_after=$(du -sm "$data" | cut -f1)
figure 'p99 beside background work against alone' "$(calculate "$beside / $alone")" ratio
figure 'disk used, before and after' "$disk_before..$disk_after" MB \
  "with ${kinds[*]:-nothing} to remove"
stop_broker
write_figures
