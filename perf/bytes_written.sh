#!/usr/bin/env bash
script=bytes_written
help_text='bytes_written.sh: bytes written to the device per byte acknowledged, until checkpointed.

Three loads, each on a fresh broker that is stopped cleanly at the end: batches of 1 MiB, batches of
100 KiB, records of 1 KiB with 64 in flight. Sectors of the device are counted from before the start of
the broker to behind its end, so nothing else should write to it meanwhile; beside them stands what the
kernel accounts to the broker alone (without the journal of the file system).

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
needs $((gigabytes * 2 + 4))

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

# measure NAME RECORDS OPTION...
measure() {
  local name=$1 records=$2 before after acknowledged accounted=0
  shift 2
  rm -rf "$data"
  sync -f "$work"
  before=$(sectors)
  [ -n "$before" ] || die "no block device is known for $work"
  start_percolog
  generate produce --bootstrap "127.0.0.1:$port" --topic written --record-bytes 1024 --count "$records" "$@"
  acknowledged=$(value /produce/total/bytes)
  stop_and_account
  sync -f "$work"
  after=$(sectors)
  figure "$name: acknowledged" "$(calculate "$acknowledged / 1e9")" GB
  figure "$name: written to the device" "$(calculate "($after - $before) * 512 / $acknowledged")" \
    'per byte'
  figure "$name: accounted to the broker" "$(calculate "$accounted / $acknowledged")" 'per byte'
}

records=$((gigabytes * 1000000000 / 1024))
measure '1 MiB' "$records" --batch-bytes 1048576
measure '100 KiB' "$records" --batch-bytes 102400 --connections 4 --partitions 4
measure '1 KiB x 64' $((records / 2)) --batch-bytes 1 --connections 16 --in-flight 4 --partitions 16
write_figures
