#!/usr/bin/env bash
script=restart
help_text='restart.sh [GIB...]: how long Percolog takes to start again.

For each size (default 5 and 20 GiB): fills 64 partitions, kills the broker (SIGKILL) right behind the
last acknowledgement, measures from exec to the ready line, reads everything back and counts it, stops
cleanly and measures the next start. Takes about a minute per 10 GiB; needs the largest size plus 8 GB
of disk.'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
[ ${#rest[@]} -gt 0 ] || rest=(5 20)

record_bytes=1024
partitions=64

measure() {
  local gib=$1 records read_back
  needs $((gib * 11 / 10 + 8))
  records=$((gib * 1024 * 1024 * 1024 / record_bytes))
  rm -rf "$data"
  start_percolog
  [ "$gib" != "${rest[0]}" ] || figure 'first start on an empty directory' "$ready_seconds" s
  generate produce --bootstrap "127.0.0.1:$port" --topic fill --partitions $partitions --count "$records" \
    --record-bytes $record_bytes --batch-bytes 102400 --connections 4
  kill_broker
  figure "$gib GiB: filled at" "$(calculate "$(value /produce/megabytes_per_second)")" MB/s
  start_percolog
  figure "$gib GiB: ready after kill -9" "$ready_seconds" s
  generate consume --bootstrap "127.0.0.1:$port" --topic fill --connections 2
  read_back=$(value /consume/total/records)
  [ "$read_back" = "$records" ] || die "$records records were acknowledged, $read_back are there"
  stop_broker
  figure "$gib GiB: clean stop" "$stop_seconds" s
  start_percolog
  figure "$gib GiB: ready after a clean stop" "$ready_seconds" s
  stop_broker
}

for gib in "${rest[@]}"; do
  [[ $gib =~ ^[1-9][0-9]*$ ]] || die "a size is a number of GiB, not $gib" 2
  measure "$gib"
done
write_figures
