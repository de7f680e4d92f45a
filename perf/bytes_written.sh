#!/usr/bin/env bash
script=bytes_written
help_text='bytes_written.sh: bytes written to the device per byte acknowledged, until checkpointed.

Batches of 1 MiB and of 100 KiB, into fallocated and into recycled segments, and records of 1 KiB with 64
in flight. Every load has a start of the broker of its own and ends with a clean stop, which checkpoints.
Before the first one the journals are brought to their full size, and recycled segments are made; what a
journal takes once is a figure of its own. Sectors of the device are counted from before a start to behind
its stop, so nothing else should write to it meanwhile; beside them stands what the kernel accounts to
the broker alone (without the journal of the file system).

  --gigabytes N     per load of large batches (default 4); half of it for small records'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
gigabytes=4
if [ ${#rest[@]} -gt 0 ]; then
  if [ "${rest[0]}" != --gigabytes ] || ! [[ ${rest[1]:-} =~ ^[1-9][0-9]*$ ]]; then
    die "see --help" 2
  fi
  gigabytes=${rest[1]}
fi
needs $((gigabytes * 3 + 8))
bootstrap=127.0.0.1:$port

# Segments that leave a topic are looked for all the time, so that new ones find them.
broker_arguments=(--set log.retention.check.interval.ms=500)
recycling=(--config segment.bytes=33554432 --config retention.bytes=268435456 --config file.delete.delay.ms=0)

# Sectors written on the block device of the data.
sectors() {
  local device
  device=$(stat -c %d "$work")
  awk -v major=$(((device >> 8) & 0xfff)) -v minor=$(((device & 0xff) | ((device >> 12) & 0xfff00))) \
    '$1 == major && $2 == minor {print $10}' /proc/diskstats
}

# Stops the broker; the last that its accounts say before it is gone.
stop_and_account() {
  local deadline=$((SECONDS + 300)) seen
  kill -TERM "$broker_pid"
  while seen=$(awk '/^write_bytes/ {print $2}' "/proc/$broker_pid/io" 2>/dev/null) && [ -n "$seen" ]; do
    accounted=$seen
    [ "$SECONDS" -lt "$deadline" ] || die 'the broker does not stop'
    sleep 0.02
  done
  ended "$broker_pid" 60
}

# create_topic NAME PARTITIONS OPTION...
create_topic() {
  local name=$1 partitions=$2
  shift 2
  timeout 120 "$percolog" topic create "$name" --partitions "$partitions" "$@" --bootstrap "$bootstrap" \
    >"$work/topic.log" 2>&1 || die "$(tail -n 1 "$work/topic.log")"
}

# load TOPIC RECORDS OPTION...
load() {
  local topic=$1 records=$2
  shift 2
  generate produce --bootstrap "$bootstrap" --topic "$topic" --record-bytes 1024 --count "$records" "$@"
}

# measure NAME TOPIC RECORDS OPTION...
measure() {
  local name=$1 topic=$2 records=$3 before after acknowledged accounted=0
  shift 3
  sync -f "$work"
  before=$(sectors)
  [ -n "$before" ] || die "no block device is known for $work"
  start_percolog
  load "$topic" "$records" "$@"
  acknowledged=$(value /produce/total/bytes)
  stop_and_account
  sync -f "$work"
  after=$(sectors)
  figure "$name: acknowledged" "$(calculate "$acknowledged / 1e9")" GB
  figure "$name: written to the device" "$(calculate "($after - $before) * 512 / $acknowledged")" \
    'per byte'
  figure "$name: accounted to the broker" "$(calculate "$accounted / $acknowledged")" 'per byte'
}

journal_megabytes() {
  du -sm --apparent-size "$data/journal" | cut -f1
}

large=(--batch-bytes 1048576)
medium=(--batch-bytes 102400 --connections 4)
small=(--batch-bytes 1 --connections 16 --in-flight 4)

start_percolog
create_topic large 4
create_topic medium 4
create_topic small 16
create_topic large-recycled 4 "${recycling[@]}"
create_topic medium-recycled 4 "${recycling[@]}"
load small 600000 "${small[@]}" --partitions 16
figure 'journals, written once' "$(journal_megabytes)" MB
load large-recycled $((2 * 1000000000 / 1024)) "${large[@]}" --partitions 4
load medium-recycled $((2 * 1000000000 / 1024)) "${medium[@]}" --partitions 4
stop_broker

records=$((gigabytes * 1000000000 / 1024))
measure '1 MiB, fallocated' large "$records" "${large[@]}" --partitions 4
measure '1 MiB, recycled' large-recycled "$records" "${large[@]}" --partitions 4
measure '100 KiB, fallocated' medium "$records" "${medium[@]}" --partitions 4
measure '100 KiB, recycled' medium-recycled "$records" "${medium[@]}" --partitions 4
measure '1 KiB x 64' small $((records / 2)) "${small[@]}" --partitions 16
write_figures
