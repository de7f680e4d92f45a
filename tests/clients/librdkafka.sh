#!/usr/bin/env bash
# librdkafka's own tests, as they come with the rdkafka-sys crate, against Percolog: those that need one
# broker and no scripts of Kafka, with classic groups and then with groups of KIP-848.
#
#   librdkafka.sh             all but those in librdkafka.skip
#   librdkafka.sh 0030,0081   these
#
# PROTOCOLS ("classic consumer"), SECONDS_EACH (1500: the most that one protocol may take) and PERCOLOG
# may be set. What every test says is in target/test-clients/librdkafka-PROTOCOL.log.
set -u
. "$(dirname "$0")/lib.sh"
PROTOCOLS=${PROTOCOLS:-classic consumer}
SECONDS_EACH=${SECONDS_EACH:-1500}
BUILD=$INSTALLED/librdkafka
WORK=$(mktemp -d "$INSTALLED/librdkafka-run-XXXXXX")
BROKER=
cleanup() {
  [ -n "$BROKER" ] && kill -KILL "$BROKER" 2>/dev/null
  rm -rf "$WORK"
}
trap cleanup EXIT

build() {
  local manifest
  [ -e "$BUILD/.complete" ] && return
  manifest=$(cargo metadata --format-version 1 --manifest-path "$ROOT/Cargo.toml" |
    python3 -c 'import json, sys; print(next(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "rdkafka-sys"))') ||
    { echo "the rdkafka-sys crate was not found" >&2; exit 2; }
  rm -rf "$BUILD"
  cp -r "$(dirname "$manifest")/librdkafka" "$BUILD"
  cd "$BUILD" || exit 2
  quietly librdkafka-configure ./configure --disable-gssapi --disable-curl --disable-ssl
  quietly librdkafka make -j"$(nproc)" libs
  quietly librdkafka-tests make -C tests -j"$(nproc)" build
  touch .complete
}

# start_broker PROTOCOL: the settings that librdkafka's own test clusters have.
start_broker() {
  local line= started=$SECONDS fifo=$WORK/ready
  rm -f "$fifo"
  mkfifo "$fifo"
  exec 9<>"$fifo"
  "$PERCOLOG" serve --data-dir "$WORK/data-$1" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --set num.partitions=4 \
    --set group.initial.rebalance.delay.ms=0 >&9 2>"$WORK/broker-$1.log" </dev/null 9>&- &
  BROKER=$!
  while [ $((SECONDS - started)) -lt 60 ] && kill -0 "$BROKER" 2>/dev/null; do
    read -r -t 1 -u 9 line && break
  done
  BOOTSTRAP=${line#percolog ready }
  [ "$BOOTSTRAP" != "$line" ] || { echo "the broker did not get ready: '$line'"; tail -n 20 "$WORK/broker-$1.log"; exit 2; }
}

# run_tests PROTOCOL [NUMBERS]
run_tests() {
  local log=$INSTALLED/librdkafka-$1.log name status
  printf 'bootstrap.servers=%s\ntest.timeout.multiplier=2\ntest.topic.random=true\n' "$BOOTSTRAP" >"$WORK/test.conf"
  (
    cd "$BUILD/tests" || exit 2
    export LD_LIBRARY_PATH=$BUILD/src:$BUILD/src-cpp RDKAFKA_TEST_CONF=$WORK/test.conf TEST_KAFKA_VERSION=4.0.0.0 TEST_LEVEL=2
    if [ -n "${2:-}" ]; then export TESTS=$2; else TESTS_SKIP=$(sed -n 's/^\([0-9]\{4\}\) .*/\1/p' "$CLIENTS/librdkafka.skip" | paste -sd ,) && export TESTS_SKIP; fi
    [ "$1" = consumer ] && export TEST_CONSUMER_GROUP_PROTOCOL=consumer
    # No local tests, none with known issues, none that need a socket emulator; the quick ones.
    timeout -k 5 "$SECONDS_EACH" ./test-runner -p4 -L -K -E -Q </dev/null 2>&1
  ) | sed 's/\x1b\[[0-9;]*m//g' >"$log"
  status=${PIPESTATUS[0]}
  while read -r name; do pass "$1 $name"; done < <(grep -aoE 'Test [0-9]{4}_[a-z0-9_]+ PASSED' "$log" | cut -d ' ' -f 2)
  while read -r name; do
    fail "$1 $name" "$(grep -a -A 2 "^### Test \"$name" "$log")"
  done < <(grep -aoE '^### Test "[0-9]{4}_[a-z0-9_]+' "$log" | cut -d '"' -f 2 | sort -u)
  [ "$status" -eq 0 ] || fail "$1: the tests end with 0" "exit code $status (124: not done in $SECONDS_EACH s): $(tail -n 5 "$log")"
}

build
for protocol in $PROTOCOLS; do
  start_broker "$protocol"
  run_tests "$protocol" "${1:-}"
  if kill -TERM "$BROKER" 2>/dev/null && wait "$BROKER"; then pass "$protocol: the broker stops cleanly"; else
    fail "$protocol: the broker stops cleanly" "$(tail -n 20 "$WORK/broker-$protocol.log")"
  fi
  BROKER=
  exec 9>&-
done
finish
