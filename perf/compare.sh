#!/usr/bin/env bash
script=compare
help_text='compare.sh: the canonical workloads on Percolog and on Apache Kafka 4.3.1, alternating; medians, spread, ratios.

Both brokers run throughout, each on a fresh directory of the same disk; only one is under load at a time.
Kafka runs as it is shipped (an acknowledgement means that the page cache has the record) and with
flush.messages=1 on its topics (it means flushed, as it does for Percolog). Before the first round Kafka
gets a minute of load, since a virtual machine compiles while it runs. What runs is in workloads.sh. The
reports, the table and a page with plots are written to perf/results. Needs Java 17 and, the first time,
Maven. All of it with five rounds takes about two hours; --only and --rounds make it shorter.

  --rounds N        alternations (default 5)
  --seconds N       measured per run (default 10)
  --only TEXT       workloads whose name has it
  --against ADDR    a broker that is running there, instead of Kafka of our own (no CPU and memory of it)
  --no-flush        leave out Kafka with flush.messages=1'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=perf/workloads.sh
. "$perf_folder/workloads.sh"
begin "$@"
rounds=5
against=
with_flush=true
set -- "${rest[@]}"
while [ $# -gt 0 ]; do
  case $1 in
    --no-flush)
      with_flush=false
      shift
      continue
      ;;
  esac
  [ $# -ge 2 ] || die 'see --help' 2
  case $1 in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --only) select_workloads "$2" ;;
    --against) against=$2 ;;
    *) die 'see --help' 2 ;;
  esac
  shift 2
done
[[ $seconds =~ ^[1-9][0-9]*$ && $rounds =~ ^[1-9][0-9]*$ ]] || die 'see --help' 2
needs 25

name=$perf_folder/results/compare-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$perf_folder/results"
reports=$name.jsonl
broker_arguments=(--set log.retention.check.interval.ms=1000)
start_percolog
figure 'percolog: start of an empty broker' "$(calculate "$ready_seconds * 1000")" ms
kafka_pid=
kafka_at=$against
if [ -z "$against" ]; then
  started=$(now_us)
  kafka_pid=$("$perf_folder/kafka.sh" start "$work/kafka" $((port + 2)) log.retention.check.interval.ms=1000)
  figure 'kafka: start of an empty broker' "$(calculate "$(seconds_since "$started") * 1000")" ms
  started_pids+=("$kafka_pid")
  kafka_at=127.0.0.1:$((port + 2))
fi

# choose BROKER
choose() {
  broker_name=$1
  topic_settings=(--topic-config file.delete.delay.ms=0)
  topic_prefix=$1
  at=127.0.0.1:$port
  measured_pid=$broker_pid
  case $1 in
    kafka* | other)
      at=$kafka_at
      measured_pid=$kafka_pid
      ;;
  esac
  [ "$1" != kafka-flush ] || topic_settings+=(--topic-config flush.messages=1)
}

brokers=(percolog other)
if [ -z "$against" ]; then
  brokers=(percolog kafka)
  $with_flush && brokers+=(kafka-flush)
  echo 'a minute of load, for the virtual machine to compile'
  choose kafka
  for batch in 1 16384 102400 1048576; do
    generate end-to-end --bootstrap "$kafka_at" --topic "warm-$batch" --partitions 16 --batch-bytes "$batch" \
      --connections 4 --warmup 0 --duration 15 --rate 20000 --drain 60
    delete_topic "warm-$batch"
  done
fi
step=0
for ((round = 1; round <= rounds; round++)); do
  for workload in "${workload_names[@]}"; do
    for broker in "${brokers[@]}"; do
      step=$((step + 1))
      printf '[%d/%d] %s: %s\n' "$step" $((rounds * ${#workload_names[@]} * ${#brokers[@]})) "$workload" "$broker"
      choose "$broker"
      measure_workload "$workload"
    done
  done
done
figure 'percolog: resident memory after all of it' "$(resident_mib "$broker_pid")" MiB
[ -z "$kafka_pid" ] || figure 'kafka: resident memory after all of it' "$(resident_mib "$kafka_pid")" MiB
stop_broker
if [ -n "$kafka_pid" ]; then
  "$perf_folder/kafka.sh" stop "$work/kafka"
  forget "$kafka_pid"
fi
"$percolog_perf" table "$reports"
"$percolog_perf" page "$reports" --html "$name.html" --title 'Percolog: make compare'
write_figures
echo "reports: $reports"
echo "page:    $name.html"
