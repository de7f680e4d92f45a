#!/usr/bin/env bash
script=held
help_text='held.sh: what many groups, members and open transactions take of one broker.

10,000 consumer groups with one member and one committed offset each; one group of 1,000 members that
share 1,000 partitions; 1,000 open transactions with a record each. Each on a fresh broker: how long it
takes to open them, memory, a heartbeat of all, and, for groups, the start after kill -9 until every
coordinator has loaded. Under a minute.'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
[ ${#rest[@]} -eq 0 ] || die "see --help" 2
needs 5

# seconds_of NAME POINTER
seconds_of() { figure "$1" "$(calculate "$(value "/held/$2/seconds")")" s; }
milliseconds_of() { figure "$1" "$(calculate "$(value "/held/$2") / 1000")" ms; }

# hold KIND COUNT PARTITIONS
hold() {
  local name="$2 $1"
  rm -rf "$data"
  start_percolog
  generate held "$1" --count "$2" --bootstrap "127.0.0.1:$port" --broker-pid "$broker_pid" \
    --topic held --partitions "$3"
  seconds_of "$name: opened" opened
  [ "$1" != members ] || seconds_of "$name: until each has its partition" settled
  if [ "$1" != transactions ]; then
    seconds_of "$name: a heartbeat of each" heartbeats
    milliseconds_of "$name: heartbeat p99" heartbeats/latency/p99
  fi
  figure "$name: memory each" "$(calculate "$(value /held/resident_kibibytes_each)")" KiB
  seconds_of "$name: closed" closed
}

hold groups 10000 16
# Their offsets and the groups themselves are still there.
kill_broker
start_percolog
figure '10000 groups: ready after kill -9' "$ready_seconds" s
# loaded: whether every coordinator serves, with all groups.
loaded() {
  curl -s "http://127.0.0.1:$((port + 1))/metrics" | awk '
    /^percolog_coordinators_loading[{]/ { cores++; loading += $2 }
    /^percolog_groups[{]/ { groups += $2 }
    END { exit !(cores > 0 && loading == 0 && groups == 10000) }'
}
started=$(now_us)
for ((attempt = 0; attempt < 1000; attempt++)); do
  ! loaded || break
done
[ "$attempt" -lt 1000 ] || die 'groups are missing after kill -9'
figure '10000 groups: all loaded after that' "$(seconds_since "$started")" s
stop_broker
hold members 1000 1000
stop_broker
hold transactions 1000 16
stop_broker
write_figures
