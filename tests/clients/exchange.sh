#!/usr/bin/env bash
# Every client reads what every client wrote. A topic per writer, a partition per codec (none, gzip,
# snappy, lz4, zstd), 120 records each; a reader prints `topic partition offset key header value`.
set -u
. "$(dirname "$0")/lib.sh"
need_bootstrap
install_kcat
install_python
install_java
install_go
install_node
WORK=$(mktemp -d "$INSTALLED/exchange-XXXXXX")
trap 'rm -rf "$WORK"' EXIT
CLIENT_NAMES="kcat java python kafka-go franz-go node"
CODECS="none gzip snappy lz4 zstd"
RECORDS=120

values() { # WRITER CODEC
  awk -v writer="$1" -v codec="$2" -v records=$RECORDS 'BEGIN {
    for (i = 0; i < records; i++) { fill = ""; for (j = 0; j < i * 13 % 700; j++) fill = fill "x"; printf "k%04d %s-%s-%04d-%s\n", i, writer, codec, i, fill } }'
}
expected() { # WRITER TOPIC
  local partition=0 codec
  for codec in $CODECS; do
    values "$1" "$codec" | awk -v topic="$2" -v partition=$partition -v writer="$1" '{ print topic, partition, NR - 1, $1, "origin=" writer, $2 }'
    partition=$((partition + 1))
  done
}
write_with() { # CLIENT TOPIC
  local partition=0 codec
  case $1 in
    kcat) for codec in $CODECS; do
        values kcat "$codec" | kcat -P -b "$BOOTSTRAP" -t "$2" -p $partition -z "$codec" -K ' ' -H origin=kcat -X linger.ms=20 -X message.timeout.ms=20000 || return 1
        partition=$((partition + 1))
      done ;;
    java) run_java Exchange write "$2" ;;
    python) "$PYTHON" "$CLIENTS/python/exchange.py" write "$2" ;;
    kafka-go | franz-go) "$GO_CLIENT" write "$1" "$2" ;;
    node) run_node "$CLIENTS/node/exchange.js" write "$2" ;;
  esac
}
read_with() { # CLIENT TOPIC...
  local client=$1 topic partition
  shift
  case $client in
    kcat) for topic in "$@"; do for partition in 0 1 2 3 4; do
        kcat -C -q -b "$BOOTSTRAP" -t "$topic" -p $partition -o beginning -e -X fetch.wait.max.ms=20 -f '%t %p %o %k %h %s\n' || return 1
      done; done ;;
    java) run_java Exchange read "$@" ;;
    python) "$PYTHON" "$CLIENTS/python/exchange.py" read "$@" ;;
    kafka-go | franz-go) "$GO_CLIENT" read "$client" "$@" ;;
    node) run_node "$CLIENTS/node/exchange.js" read "$@" ;;
  esac
}
export BOOTSTRAP
# timeout(1) runs programs, not functions: a watchdog bounds each step instead.
bounded() { # SECONDS COMMAND...
  local seconds=$1 worker watchdog status
  shift
  "$@" &
  worker=$!
  (exec timeout "$seconds" tail --pid=$worker -f /dev/null >/dev/null 2>&1 </dev/null || { kill "$worker" 2>/dev/null; }) &
  watchdog=$!
  wait "$worker"
  status=$?
  wait "$watchdog" 2>/dev/null
  return $status
}

topics=()
for writer in $CLIENT_NAMES; do
  topic=exchange-$writer-$RUN_NAME
  "$PYTHON" "$CLIENTS/python/topic.py" create "$topic" 5 || fail "create $topic"
  topics+=("$topic")
  expected "$writer" "$topic" >"$WORK/expected.$writer"
  if bounded 40 write_with "$writer" "$topic" >"$WORK/out" 2>&1; then pass "$writer writes with every codec"; else fail "$writer writes with every codec" "$(tail -n 12 "$WORK/out")"; fi
done
for reader in $CLIENT_NAMES; do
  bounded 60 read_with "$reader" "${topics[@]}" >"$WORK/read" 2>"$WORK/errors" || fail "$reader reads everything" "$(tail -n 12 "$WORK/errors")"
  for writer in $CLIENT_NAMES; do
    partition=0
    for codec in $CODECS; do
      prefix="exchange-$writer-$RUN_NAME $partition "
      grep -F -- "$prefix" "$WORK/expected.$writer" >"$WORK/a"
      grep -F -- "$prefix" "$WORK/read" >"$WORK/b"
      same "$reader reads $codec of $writer" "$WORK/a" "$WORK/b"
      partition=$((partition + 1))
    done
  done
done
finish
