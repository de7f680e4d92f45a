#!/usr/bin/env bash
# Copiers that move records from one topic to another in transactions are killed again and again, and so is
# the broker: what comes out is what went in, once and in order.
#
#   kills.sh [LANGUAGE:PROTOCOL ...]    java, python or go; classic or consumer. Without arguments java:classic
#                                       and java:consumer. VICTIMS: what is killed, see below
#
# A copier takes PROTOCOL NAME NUMBER, reads NAME-in as a member of the group NAME, writes to NAME-out with
# the transactional id NAME-NUMBER, and prints a line per transaction that it committed. It may end when it
# cannot go on, and is started again. The broker (PERCOLOG) is one of this script's own.
set -u
. "$(dirname "$0")/lib.sh"
PARTITIONS=4
# Records that come to each partition in a round, and transactions after which something is killed.
PER_ROUND=400
TRANSACTIONS=6
PATIENCE_S=120
# What is killed, one after the other: a copier by its number, or the broker.
VICTIMS=${VICTIMS:-1 broker 2 broker}
# Copiers that end by themselves and are started again, at most.
ENDS_MAX=30

WORK=$(mktemp -d "$INSTALLED/kills-XXXXXX")
BROKER=
PORT=0
PIDS=("" "" "")
cleanup() {
  for pid in $BROKER "${PIDS[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  rm -rf "$WORK"
}
trap cleanup EXIT

start_broker() {
  local line=
  "$PERCOLOG" serve --data-dir "$WORK/data" --listen "127.0.0.1:$PORT" --admin 127.0.0.1:0 --cores 2 \
    --set group.initial.rebalance.delay.ms=0 --set group.min.session.timeout.ms=500 \
    --set group.consumer.min.session.timeout.ms=500 --set group.consumer.session.timeout.ms=1000 \
    --set group.consumer.min.heartbeat.interval.ms=100 --set group.consumer.heartbeat.interval.ms=200 \
    --set transactions.abort_check_interval_ms=1000 >&9 2>>"$WORK/broker.log" </dev/null 8>&- 9>&- &
  BROKER=$!
  read -r -t 60 -u 9 line
  case $line in
    "percolog ready "*) ;;
    *) fail "the broker starts" "$line $(tail -n 5 "$WORK/broker.log")"; finish ;;
  esac
  BOOTSTRAP=${line#percolog ready }
  PORT=${BOOTSTRAP##*:}
  export BOOTSTRAP PERCOLOG_BOOTSTRAP=$BOOTSTRAP
}
copier() {
  case $language in
    java) exec java $JVM -cp "$INSTALLED/java/classes:$JAVA_LIB/*" Copier "$@" ;;
    python) exec "$PYTHON" "$CLIENTS/python/copier.py" "$@" ;;
    go) exec "$GO_CLIENT" copy "$@" ;;
  esac
}
start_copier() {
  copier "$protocol" "$name" "$1" >&8 2>>"$WORK/copier.$1.log" </dev/null 8>&- 9>&- &
  PIDS[$1]=$!
}
kill_hard() {
  kill -KILL "$1"
  wait "$1" 2>/dev/null
}
# Copiers that have ended by themselves go on.
look_after_copiers() {
  local number
  for number in 1 2; do
    kill -0 "${PIDS[$number]}" 2>/dev/null && continue
    ENDS=$((ENDS + 1))
    [ $ENDS -le $ENDS_MAX ] || return 1
    start_copier $number
  done
}
in_time() { [ $((SECONDS - STARTED)) -lt $PATIENCE_S ]; }
# transactions COUNT: so many more were committed.
transactions() {
  local left=$1 line
  while [ "$left" -gt 0 ]; do
    look_after_copiers && in_time || return 1
    if read -r -t 1 -u 8 line; then left=$((left - 1)); fi
  done
}
feed() {
  local partition first=$FED
  FED=$((FED + PER_ROUND))
  for partition in $(seq 0 $((PARTITIONS - 1))); do
    seq $first $((FED - 1)) | sed "s/^/$partition:/" | "$PERCOLOG" produce "$name-in" --partition "$partition" >"$WORK/produce.log" 2>&1 ||
      { fail "$label: input" "$(cat "$WORK/produce.log")"; return 1; }
  done
}
committed() { "$PERCOLOG" group describe "$name" --output json 2>/dev/null | grep -o '"lag": *[0-9][0-9]*' | awk -F : '{ n++; lag += $2 } END { exit !(n == '$PARTITIONS' && lag == 0) }'; }
until_all_is_committed() {
  local line
  until committed; do
    look_after_copiers && in_time || return 1
    read -r -t 1 -u 8 line
  done
}
rounds() {
  local victim
  for victim in $VICTIMS; do
    feed || return 1
    transactions $TRANSACTIONS || return 1
    if [ "$victim" = broker ]; then
      kill_hard $BROKER
      start_broker
    else
      kill_hard "${PIDS[$victim]}"
      start_copier "$victim"
    fi
  done
  feed && until_all_is_committed
}

run() {
  label="$language, $protocol"
  name=kills-$language-$protocol
  FED=0
  ENDS=0
  STARTED=$SECONDS
  # What the copiers before said last is not theirs.
  while read -r -t 0 -u 8; do read -r -u 8; done
  "$PERCOLOG" topic create "$name-in" --partitions $PARTITIONS >/dev/null
  "$PERCOLOG" topic create "$name-out" --partitions $PARTITIONS >/dev/null
  start_copier 1
  start_copier 2
  if rounds; then pass "$label: all is copied after $(wc -w <<<"$VICTIMS") kills, in $((SECONDS - STARTED)) s"; else
    fail "$label: all is copied after the kills" "$ENDS ends; $("$PERCOLOG" group describe "$name" 2>&1); $(tail -n 3 "$WORK"/copier.?.log "$WORK/broker.log")"
  fi
  kill_hard "${PIDS[1]}"
  kill_hard "${PIDS[2]}"
  "$PERCOLOG" consume "$name-out" --isolation committed --exit-at-end >"$WORK/out" 2>"$WORK/consume.log" ||
    fail "$label: what was copied is read" "$(cat "$WORK/consume.log")"
  for partition in $(seq 0 $((PARTITIONS - 1))); do
    seq 0 $((FED - 1)) | sed "s/^/$partition:/" >"$WORK/expected"
    grep "^$partition:" "$WORK/out" >"$WORK/got"
    same "$label: partition $partition, once and in order" "$WORK/expected" "$WORK/got"
  done
}

[ $# -gt 0 ] || set -- java:classic java:consumer
for pair in "$@"; do
  case ${pair%%:*} in
    java) install_java ;;
    python) install_python ;;
    go) install_go ;;
    *) echo "there is no copier in ${pair%%:*}" >&2; exit 2 ;;
  esac
done
mkfifo "$WORK/progress" "$WORK/ready"
exec 8<>"$WORK/progress" 9<>"$WORK/ready"
# Bash tells of every process that was killed.
exec 2>"$WORK/told"
start_broker
for pair in "$@"; do
  language=${pair%%:*}
  protocol=${pair##*:}
  run
done
finish
