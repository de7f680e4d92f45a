#!/usr/bin/env bash
# Kafka's own tools for groups and transactions against the broker at BOOTSTRAP, with both group protocols,
# and what groups do with Java clients.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_java
WORK=$(mktemp -d "$INSTALLED/groups-XXXXXX")
STARTED=
cleanup() {
  for pid in $STARTED; do kill -KILL "$pid" 2>/dev/null; done
  rm -rf "$WORK"
}
trap cleanup EXIT
SERVER="--bootstrap-server $BOOTSTRAP"
TOOLS=org.apache.kafka.tools

tool() {
  OUT=$(timeout 60 java $JVM -cp "$JAVA_LIB/*" "$@" 2>&1)
  CODE=$?
}
works() {
  local name=$1
  shift
  tool "$@"
  if [ $CODE -eq 0 ]; then pass "$name"; else fail "$name" "exit code $CODE: $OUT"; fi
}
groups() { tool $TOOLS.consumer.group.ConsumerGroupCommand $SERVER "$@"; }
# until_groups NAME PIECE ARGUMENTS...
until_groups() {
  local name=$1 piece=$2 attempt
  shift 2
  for attempt in $(seq 20); do
    groups "$@"
    case "$OUT" in *"$piece"*) break ;; esac
  done
  contains "$name" "$piece" "$OUT"
}
# They wait for heartbeats most of the time: what they found is looked at in the end.
run_java Behaviours "$BOOTSTRAP" "$RUN_NAME" >"$WORK/behaviours" 2>&1 &
BEHAVIOURS=$!
STARTED=$BEHAVIOURS
topic=groups-$RUN_NAME
works "topics --create" $TOOLS.TopicCommand $SERVER --create --topic "$topic" --partitions 3
works "topics --create, output" $TOOLS.TopicCommand $SERVER --create --topic "$topic-out" --partitions 1
tool $TOOLS.VerifiableProducer $SERVER --topic "$topic" --max-messages 3000 --throughput -1 --acks -1 --repeating-keys 100
contains "verifiable producer" '"acked":3000' "$OUT"

for protocol in classic consumer; do
  group=$protocol-$RUN_NAME
  tool $TOOLS.consumer.ConsoleConsumer $SERVER --topic "$topic" --group "$group" --from-beginning --max-messages 3000 --timeout-ms 30000 \
    --command-property group.protocol=$protocol
  contains "console consumer in a group ($protocol)" "Processed a total of 3000 messages" "$OUT"
  groups --describe --group "$group"
  equals "consumer-groups shows no lag ($protocol)" 3 "$(printf '%s\n' "$OUT" | awk -v topic="$topic" '$2 == topic && $4 == $5 && $6 == 0' | wc -l)"
  end=$(printf '%s\n' "$OUT" | awk -v topic="$topic" '$2 == topic && $3 == 1 { print $5 }')
  groups --list
  contains "consumer-groups --list ($protocol)" "$group" "$OUT"
  tool $TOOLS.GroupsCommand $SERVER --list
  contains "groups --list ($protocol)" "$group" "$OUT"
  groups --reset-offsets --group "$group" --topic "$topic:1" --to-offset 400 --execute
  groups --describe --group "$group"
  equals "offsets are reset ($protocol)" "400 $end $((end - 400))" "$(printf '%s\n' "$OUT" | awk -v topic="$topic" '$2 == topic && $3 == 1 { print $4, $5, $6 }')"
  tool $TOOLS.consumer.ConsoleConsumer $SERVER --topic "$topic" --group "$group" --max-messages $((end - 400)) --timeout-ms 30000 \
    --command-property group.protocol=$protocol
  contains "the group goes on from there ($protocol)" "Processed a total of $((end - 400)) messages" "$OUT"
  groups --delete-offsets --group "$group" --topic "$topic:2"
  contains "offsets are deleted ($protocol)" "Successful" "$OUT"
  groups --delete --group "$group"
  contains "the group is deleted ($protocol)" "was successful" "$OUT"

  group=perf-$protocol-$RUN_NAME
  printf 'group.protocol=%s\n' $protocol >"$WORK/perf.properties"
  tool $TOOLS.ConsumerPerformance $SERVER --topic "$topic" --group "$group" --num-records 3000 --timeout 30000 --command-config "$WORK/perf.properties"
  contains "consumer-perf-test ($protocol)" ", 3000, " "$OUT"

  group=verifiable-$protocol-$RUN_NAME
  consumers=
  for number in 1 2; do
    timeout 90 java $JVM -cp "$JAVA_LIB/*" $TOOLS.VerifiableConsumer $SERVER --topic "$topic" --group-id "$group" --group-protocol $protocol \
      --reset-policy earliest $([ $protocol = classic ] && echo --session-timeout 6000) >"$WORK/$protocol.$number" 2>&1 &
    consumers="$consumers $!"
  done
  STARTED="$STARTED $consumers"
  consumed() { cat "$WORK/$protocol".? | grep -o '"name":"records_consumed","count":[0-9]*\|"count":[0-9]*,"name":"records_consumed"\|records_consumed.*"count":[0-9]*' | grep -o '"count":[0-9]*' | awk -F : '{ n += $2 } END { print n + 0 }'; }
  for attempt in $(seq 60); do
    [ "$(consumed)" -ge 3000 ] && break
    tool $TOOLS.GroupsCommand $SERVER --list
  done
  if [ "$(consumed)" -ge 3000 ]; then pass "verifiable consumers read all ($protocol)"; else fail "verifiable consumers read all ($protocol)" "$(consumed) records: $(tail -n 3 "$WORK/$protocol".1)"; fi
  until_groups "consumer-groups --state ($protocol)" "Stable" --describe --group "$group" --state
  until_groups "consumer-groups --members ($protocol)" "verifiable" --describe --group "$group" --members
  groups --delete --group "$group"
  contains "a group with members is not deleted ($protocol)" "not empty" "$OUT"
  # shellcheck disable=SC2086
  kill -TERM $consumers
  # shellcheck disable=SC2086
  wait $consumers
  equals "verifiable consumers shut down ($protocol)" 2 "$(cat "$WORK/$protocol".? | grep -c shutdown_complete)"
done

# Settings of a single group.
CONFIGS="kafka.admin.ConfigCommand $SERVER"
group=settings-$RUN_NAME
works "configs of a group" $CONFIGS --alter --entity-type groups --entity-name "$group" \
  --add-config consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000
tool $CONFIGS --describe --entity-type groups --entity-name "$group"
contains "configs of a group, described" "consumer.heartbeat.interval.ms=6000 sensitive=false synonyms={DYNAMIC_GROUP_CONFIG:consumer.heartbeat.interval.ms=6000, DEFAULT_CONFIG:group.consumer.heartbeat.interval.ms=5000}" "$OUT"
tool $CONFIGS --describe --entity-type groups
contains "configs of all groups" "Dynamic configs for group $group are:" "$OUT"
tool $CONFIGS --alter --entity-type groups --entity-name "$group" --add-config consumer.session.timeout.ms=44999
contains "configs of a group below the broker's bound are refused" "must be greater than or equal to group.consumer.min.session.timeout.ms" "$OUT"
tool $CONFIGS --alter --entity-type groups --entity-name "$group" --add-config share.session.timeout.ms=50000
contains "configs of share groups are refused" "share groups are not built yet" "$OUT"
works "configs of a group, deleted" $CONFIGS --alter --entity-type groups --entity-name "$group" \
  --delete-config consumer.session.timeout.ms,consumer.heartbeat.interval.ms
tool $CONFIGS --describe --entity-type groups
lacks "configs of all groups without it" "$group" "$OUT"

# Exactly once: what is copied is there once.
tool $TOOLS.TransactionalMessageCopier --broker-list "$BOOTSTRAP" --transactional-id "copy-$RUN_NAME" --consumer-group "copy-$RUN_NAME" \
  --input-topic "$topic" --input-partition 0 --output-topic "$topic-out" --transaction-size 100 --max-messages 1000 --enable-random-aborts
contains "transactional message copier" 'ShutdownComplete' "$OUT"
tool $TOOLS.consumer.ConsoleConsumer $SERVER --topic "$topic-out" --isolation-level read_committed --from-beginning --timeout-ms 8000
printf '%s\n' "$OUT" | grep '^[0-9]*$' | sort -n >"$WORK/copied"
equals "every record was copied" 1000 "$(wc -l <"$WORK/copied")"
equals "no record was copied twice" 1000 "$(uniq "$WORK/copied" | wc -l)"
TRANSACTIONS="$TOOLS.TransactionsCommand $SERVER"
tool $TRANSACTIONS list
contains "transactions list" "copy-$RUN_NAME" "$OUT"
tool $TRANSACTIONS describe --transactional-id "copy-$RUN_NAME"
contains "transactions describe" "Complete" "$OUT"
tool $TRANSACTIONS describe-producers --topic "$topic-out" --partition 0
contains "transactions describe-producers" "ProducerId" "$OUT"
works "transactions find-hanging" $TRANSACTIONS find-hanging --broker-id 1
tool $TOOLS.ProducerPerformance --topic "$topic-out" --num-records 5000 --record-size 100 --throughput -1 --transactional-id "perf-$RUN_NAME" \
  --transaction-duration-ms 100 --producer-props "bootstrap.servers=$BOOTSTRAP"
contains "producer-perf-test with transactions" "5000 records sent" "$OUT"

(timeout 90 tail --pid=$BEHAVIOURS -f /dev/null || kill -KILL $BEHAVIOURS) 2>/dev/null
while read -r verdict behaviour why; do
  case $verdict in
    ok) pass "java: $behaviour" ;;
    FAIL) fail "java: $behaviour" "$why" ;;
  esac
done <"$WORK/behaviours"
equals "java: all behaviours were tried" 8 "$(grep -c '^ok \|^FAIL ' "$WORK/behaviours")"
finish
