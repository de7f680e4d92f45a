#!/usr/bin/env bash
script=many_partitions
help_text='many_partitions.sh: durable appends of 1 KiB to 1,000 partitions, in turn.

Four loads, acks=all, no linger, each on a fresh topic whose partitions got a first record before:
  thousand   single records to 1,000 partitions, 256 requests in flight on 64 connections
  one        the same to one partition
  hundreds   100 records for 100 partitions in a request, 64 requests in flight on 16 connections
  batched    batches of 15 records, as they form when the client has a queue, else as thousand

  --kafka           the same against Apache Kafka 4.3.1 with flush.messages=1, and the ratios
  --seconds N       measured per load, after 10 seconds of warm-up (default 15)'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
with_kafka=false
seconds=15
set -- "${rest[@]}"
while [ $# -gt 0 ]; do
  case $1 in
    --kafka) with_kafka=true ;;
    --seconds)
      seconds=${2:-}
      [[ $seconds =~ ^[1-9][0-9]*$ ]] || die '--seconds takes a number' 2
      shift
      ;;
    *) die "see --help" 2 ;;
  esac
  shift
done
needs 20
declare -A rate

# load BROKER NAME PORT PID OPTION...
load() {
  local broker=$1 name=$2 at=$3 pid=$4 partitions=1000
  [ "$name" != one ] || partitions=1
  shift 4
  # Files are made before the load: that is another figure (partitions.sh).
  generate produce --bootstrap "127.0.0.1:$at" --topic "$name" --partitions "$partitions" \
    --topic-config flush.messages=1 --count "$partitions" --batch-bytes 1 --pool-bytes 1048576 \
    --partitioner round-robin --partitions-per-request 100 --drain 120
  sleep 2
  generate produce --bootstrap "127.0.0.1:$at" --broker-pid "$pid" --topic "$name" \
    --partitioner round-robin --warmup 10 --duration "$seconds" "$@"
  rate[$broker-$name]=$(calculate "$(value /produce/megabytes_per_second)")
  figure "$broker, $name: rate" "${rate[$broker-$name]}" MB/s
  figure "$broker, $name: latency p50" "$(calculate "$(value /produce/latency/p50) / 1000")" ms
  figure "$broker, $name: latency p99" "$(calculate "$(value /produce/latency/p99) / 1000")" ms
  figure "$broker, $name: broker CPU" "$(calculate "$(value /costs/broker_cpu/per_gigabyte)")" s/GB
}

# loads BROKER PORT PID
loads() {
  load "$1" thousand "$2" "$3" --batch-bytes 1 --connections 64 --in-flight 4
  load "$1" one "$2" "$3" --batch-bytes 1 --connections 64 --in-flight 4
  load "$1" batched "$2" "$3" --batch-bytes 16384 --connections 64 --in-flight 4
  load "$1" hundreds "$2" "$3" --batch-bytes 1 --connections 16 --in-flight 4 \
    --partitions-per-request 100
}

# warm PORT: a virtual machine compiles while it runs, and files of 1,000 partitions are opened.
warm() {
  generate produce --bootstrap "127.0.0.1:$1" --topic warm --partitions 1000 --connections 16 \
    --topic-config flush.messages=1 --partitioner round-robin --warmup 0 --duration 20 --drain 120
}

start_percolog
warm "$port"
loads percolog "$port" "$broker_pid"
stop_broker
figure 'percolog: 1,000 partitions against one' \
  "$(calculate "${rate[percolog-thousand]} / ${rate[percolog-one]}")" ratio
if $with_kafka; then
  rm -rf "$data"
  kafka_pid=$("$perf_folder/kafka.sh" start "$work/kafka" $((port + 2)))
  started_pids+=("$kafka_pid")
  warm $((port + 2))
  loads kafka $((port + 2)) "$kafka_pid"
  "$perf_folder/kafka.sh" stop "$work/kafka"
  forget "$kafka_pid"
  for name in thousand one batched hundreds; do
    figure "$name: percolog against kafka" \
      "$(calculate "${rate[percolog-$name]} / ${rate[kafka-$name]}")" ratio
  done
fi
write_figures
