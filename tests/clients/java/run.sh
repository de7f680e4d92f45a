#!/usr/bin/env bash
# Kafka's own command-line tools against the broker at BOOTSTRAP. Their producer is idempotent by default.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_java
WORK=$(mktemp -d "$INSTALLED/java-XXXXXX")
trap 'rm -rf "$WORK"' EXIT
TOPICS="org.apache.kafka.tools.TopicCommand --bootstrap-server $BOOTSTRAP"
CONFIGS="kafka.admin.ConfigCommand --bootstrap-server $BOOTSTRAP"
OFFSETS="org.apache.kafka.tools.GetOffsetShell --bootstrap-server $BOOTSTRAP"
CONSUMER="org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server $BOOTSTRAP"
PRODUCER="org.apache.kafka.tools.ConsoleProducer --bootstrap-server $BOOTSTRAP"
# The tool prints the broker's own words after this, without the error's name.
COMMAND_FAILED="Error while executing topic command"
topic=java-$RUN_NAME
wide=java-wide-$RUN_NAME

# tool CLASS ARGUMENTS...: standard output and errors into OUT, exit code into CODE.
tool() {
  OUT=$(timeout 20 java $JVM -cp "$JAVA_LIB/*" "$@" 2>&1)
  CODE=$?
}
# works NAME CLASS ARGUMENTS... / refused NAME PIECE CLASS ARGUMENTS...
works() {
  local name=$1
  shift
  tool "$@"
  if [ $CODE -eq 0 ]; then pass "$name"; else fail "$name" "exit code $CODE: $OUT"; fi
}
refused() {
  local name=$1 piece=$2
  shift 2
  tool "$@"
  contains "$name" "$piece" "$OUT"
}
# until_contains NAME PIECE CLASS ARGUMENTS...: asks again while the answer has not arrived everywhere.
until_contains() {
  local name=$1 piece=$2 attempt
  shift 2
  for attempt in 1 2 3 4 5; do
    tool "$@"
    case "$OUT" in *"$piece"*) break ;; esac
  done
  contains "$name" "$piece" "$OUT"
}

# Topics.
works "topics --create" $TOPICS --create --topic "$topic" --partitions 1 --replication-factor 1 --config retention.ms=86400000
works "topics --create, wide" $TOPICS --create --topic "$wide" --partitions 3 --replication-factor 1
refused "topics --create twice is refused" "$COMMAND_FAILED" $TOPICS --create --topic "$topic" --partitions 1
works "topics --create --if-not-exists" $TOPICS --create --if-not-exists --topic "$topic" --partitions 1
refused "topics --create with too many replicas is refused" "$COMMAND_FAILED" $TOPICS --create --topic "$topic-rf" --replication-factor 3
tool $TOPICS --list
contains "topics --list" "$wide" "$OUT"
tool $TOPICS --describe --topic "$topic"
contains "topics --describe counts" "PartitionCount: 1	ReplicationFactor: 1" "$OUT"
contains "topics --describe configs" "retention.ms=86400000" "$OUT"
works "topics --alter --partitions" $TOPICS --alter --topic "$wide" --partitions 5
until_contains "topics --describe after --alter" "PartitionCount: 5" $TOPICS --describe --topic "$wide"
leader=$(printf '%s\n' "$OUT" | sed -n 's/.*Partition: 4	Leader: \([0-9]*\).*/\1/p')
if [ -n "$leader" ]; then pass "topics --describe names the leader of the new partition"; else fail "topics --describe names the leader of the new partition" "$OUT"; fi
refused "topics --alter to fewer partitions is refused" "$COMMAND_FAILED" $TOPICS --alter --topic "$wide" --partitions 2

# Console producer with every codec, console consumer by partition.
first=0
for codec in none gzip snappy lz4 zstd; do
  seq $first $((first + 199)) | awk -v codec=$codec '{ printf "key%d:%s value %d %s\n", $1, codec, $1, substr("abcdefghijklmnopqrstuvwxyz", 1, $1 % 26) }' >"$WORK/in.$codec"
  tool $PRODUCER --topic "$topic" --compression-codec $codec --timeout 20 --reader-property parse.key=true --reader-property key.separator=: <"$WORK/in.$codec"
  if [ $CODE -eq 0 ]; then pass "console producer $codec"; else fail "console producer $codec" "$OUT"; fi
  first=$((first + 200))
done
cat "$WORK"/in.none "$WORK"/in.gzip "$WORK"/in.snappy "$WORK"/in.lz4 "$WORK"/in.zstd | awk '{ print "Offset:" NR - 1 ":" $0 }' >"$WORK/expected"
# consume FILE ARGUMENTS...: lines `CreateTime:T:Offset:O:KEY:VALUE`.
consume() {
  local file=$1
  shift
  timeout 30 java $JVM -cp "$JAVA_LIB/*" $CONSUMER --topic "$topic" --partition 0 --timeout-ms 20000 \
    --formatter-property print.timestamp=true --formatter-property print.offset=true --formatter-property print.key=true \
    --formatter-property key.separator=: "$@" >"$file" 2>"$WORK/errors" || fail "console consumer $*" "$(tail -n 5 "$WORK/errors")"
}
consume "$WORK/all" --offset earliest --max-messages 1000
cut -d : -f 3- "$WORK/all" >"$WORK/got"
same "console consumer from the earliest" "$WORK/expected" "$WORK/got"
consume "$WORK/some" --offset 733 --max-messages 100
cut -d : -f 3- "$WORK/some" >"$WORK/got"
tail -n +734 "$WORK/expected" | head -n 100 >"$WORK/part"
same "console consumer from an offset in the middle of a batch" "$WORK/part" "$WORK/got"

# Offsets.
offset_at() { tool $OFFSETS --topic "$topic" --time "$1"; printf '%s\n' "$OUT" | grep "^$topic:0:" | cut -d : -f 3; }
equals "get-offsets --time -1" 1000 "$(offset_at -1)"
equals "get-offsets --time -2" 0 "$(offset_at -2)"
latest=$(cut -d : -f 2 "$WORK/all" | sort -n | tail -n 1)
found=$(offset_at -3)
equals "get-offsets --time -3 is a record with the largest timestamp" "$latest" "$(sed -n "$((${found:-0} + 1))p" "$WORK/all" | cut -d : -f 2)"
wanted=$(sed -n 641p "$WORK/all" | cut -d : -f 2)
equals "get-offsets --time TIMESTAMP" "$(awk -F : -v t="$wanted" '$2 >= t { print $4; exit }' "$WORK/all")" "$(offset_at "$wanted")"

# Throughput tool.
tool org.apache.kafka.tools.ProducerPerformance --topic "$wide" --num-records 50000 --record-size 200 --throughput -1 --producer-props "bootstrap.servers=$BOOTSTRAP" compression.type=lz4 acks=all
contains "producer-perf-test" "50000 records sent" "$OUT"
tool $OFFSETS --topic "$wide"
equals "producer-perf-test: every record is there" 50000 "$(printf '%s\n' "$OUT" | grep "^$wide:" | awk -F : '{ n += $3 } END { print n }')"

# Configs.
works "configs --add-config" $CONFIGS --alter --entity-type topics --entity-name "$topic" --add-config retention.ms=123456,max.message.bytes=2000
until_contains "configs --describe" "retention.ms=123456" $CONFIGS --describe --entity-type topics --entity-name "$topic"
contains "configs --describe, second" "max.message.bytes=2000" "$OUT"
OUT=$(head -c 5000 /dev/zero | tr '\0' q | timeout 20 java $JVM -cp "$JAVA_LIB/*" $PRODUCER --topic "$topic" --sync 2>&1)
contains "a record beyond max.message.bytes is refused" "RecordTooLargeException" "$OUT"
works "configs --delete-config" $CONFIGS --alter --entity-type topics --entity-name "$topic" --delete-config max.message.bytes,retention.ms
tool $CONFIGS --describe --all --entity-type topics --entity-name "$topic"
contains "configs --describe --all shows the default again" "retention.ms=604800000" "$OUT"
contains "configs --describe --all shows max.message.bytes" "max.message.bytes=1048588" "$OUT"
refused "configs with an unknown name is refused" "InvalidConfigurationException" $CONFIGS --alter --entity-type topics --entity-name "$topic" --add-config no.such.config=1
works "configs of the broker" $CONFIGS --describe --all --entity-type brokers --entity-name "${leader:-1}"

# Records deleted.
printf '{"partitions":[{"topic":"%s","partition":0,"offset":300}],"version":1}' "$topic" >"$WORK/delete.json"
tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$BOOTSTRAP" --offset-json-file "$WORK/delete.json"
contains "delete-records" "low_watermark: 300" "$OUT"
equals "get-offsets --time -2 after delete-records" 300 "$(offset_at -2)"
consume "$WORK/some" --offset earliest --max-messages 5
cut -d : -f 3- "$WORK/some" >"$WORK/got"
tail -n +301 "$WORK/expected" | head -n 5 >"$WORK/part"
same "console consumer after delete-records" "$WORK/part" "$WORK/got"
sed -i 's/:300/:5000/' "$WORK/delete.json"
refused "delete-records beyond the end is refused" "OffsetOutOfRangeException" org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$BOOTSTRAP" --offset-json-file "$WORK/delete.json"

works "topics --delete" $TOPICS --delete --topic "$topic"
for attempt in 1 2 3 4 5; do
  tool $TOPICS --list
  case "$OUT" in *"$topic"*) ;; *) break ;; esac
done
lacks "topics --list after --delete" "$topic" "$OUT"
refused "topics --describe of a deleted topic is refused" "does not exist" $TOPICS --describe --topic "$topic"
finish
