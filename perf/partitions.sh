#!/usr/bin/env bash
script=partitions
help_text='partitions.sh: what very many partitions cost on one node.

Creates 10,000 partitions and waits until Metadata shows a leader for each; memory when idle; clean
restart; then 1,000 new partitions, three times, from asking for them to the last acknowledgement of a
record on each: one connection with all in one Produce request, 20 connections with 50 partitions a
request, 100 connections with one partition a request. About a minute.

  --partitions N    instead of 10,000'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
partitions=10000
if [ ${#rest[@]} -gt 0 ]; then
  if [ "${rest[0]}" != --partitions ] || ! [[ ${rest[1]:-} =~ ^[1-9][0-9]*$ ]]; then
    die "see --help" 2
  fi
  partitions=${rest[1]}
fi
new=1000

# first_records NAME OPTION...: a record on each of the new partitions.
first_records() {
  local name=$1
  shift
  generate produce --bootstrap "127.0.0.1:$port" --topic "$name" --partitions $new --count $new \
    --batch-bytes 1 --pool-bytes 1048576 --partitioner round-robin "$@"
  figure "$new new, $name: every leader known" "$(calculate "$(value /topics/leaders_seconds)")" s
  figure "$new new, $name: last record acknowledged" \
    "$(calculate "$(value /topics/acknowledged_seconds)")" s
}

start_percolog
figure 'memory of an empty broker' "$(resident_mib "$broker_pid")" MiB
generate create --bootstrap "127.0.0.1:$port" --topic many --partitions "$partitions"
figure "$partitions partitions: CreateTopics answered" "$(calculate "$(value /topics/created_seconds)")" s
figure "$partitions partitions: every leader known" "$(calculate "$(value /topics/leaders_seconds)")" s
# What creation used for a moment is given back, or it is not.
sleep 5
figure "$partitions partitions: memory when idle" "$(resident_mib "$broker_pid")" MiB
stop_broker
figure "$partitions partitions: clean stop" "$stop_seconds" s
start_percolog
figure "$partitions partitions: ready after a clean stop" "$ready_seconds" s
sleep 2
figure "$partitions partitions: memory after restart" "$(resident_mib "$broker_pid")" MiB
first_records one-request --partitions-per-request $new
first_records fifty-a-request --connections 20 --spread divided --partitions-per-request 50
first_records one-a-request --connections 100 --spread divided
figure 'memory at the end' "$(resident_mib "$broker_pid")" MiB
kill_broker
start_percolog
figure 'ready after kill -9' "$ready_seconds" s
stop_broker
write_figures
