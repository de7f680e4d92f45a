#!/usr/bin/env bash
script=coordination
help_text='coordination.sh: offset commits and transactions per second, in a closed loop.

Every connection has its own group, or its own transactional id, and one request on its way. A
transaction is a record of 100 bytes and the EndTxn behind it. Percolog flushes before it answers.

  --kafka           the same against Apache Kafka 4.3.1 with its defaults, which do not flush,
                    alternating, and the ratios
  --connections N   default 16
  --rounds N        alternations with --kafka (default 3)
  --seconds N       measured per load, after 3 seconds of warm-up (default 8)'
# shellcheck source=perf/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
begin "$@"
with_kafka=false
seconds=8
rounds=3
connections=16
set -- "${rest[@]}"
while [ $# -gt 0 ]; do
  case $1 in
    --kafka) with_kafka=true ;;
    --seconds | --rounds | --connections)
      [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || die "$1 takes a number" 2
      declare "${1#--}=$2"
      shift
      ;;
    *) die "see --help" 2 ;;
  esac
  shift
done
needs 20
declare -A rates

# load BROKER PORT PID KIND
load() {
  local rate
  generate coordination "$4" --bootstrap "127.0.0.1:$2" --broker-pid "$3" --topic coordination \
    --partitions 16 --connections "$connections" --warmup 3 --duration "$seconds"
  rate=$(calculate "$(value /coordination/per_second)")
  rates[$1-$4]="${rates[$1-$4]:-} $rate"
  figure "$1, $4: rate" "$rate" /s
  figure "$1, $4: latency p50" "$(calculate "$(value /coordination/latency/p50) / 1000")" ms
  figure "$1, $4: latency p99" "$(calculate "$(value /coordination/latency/p99) / 1000")" ms
  figure "$1, $4: broker CPU" "$(value /coordination/broker_cpu_seconds_per_million)" 's per million'
}

# median BROKER-KIND
median() {
  # The list is split at its blanks.
  # shellcheck disable=SC2086
  printf '%s\n' ${rates[$1]} | sort -g | awk '{ rate[NR] = $1 } END { print rate[int((NR + 1) / 2)] }'
}

start_percolog
kafka_pid=
if $with_kafka; then
  kafka_pid=$("$perf_folder/kafka.sh" start "$work/kafka" $((port + 2)))
  started_pids+=("$kafka_pid")
else
  rounds=1
fi
for ((round = 1; round <= rounds; round++)); do
  for kind in commits transactions; do
    load percolog "$port" "$broker_pid" "$kind"
    ! $with_kafka || load kafka $((port + 2)) "$kafka_pid" "$kind"
  done
done
if $with_kafka; then
  "$perf_folder/kafka.sh" stop "$work/kafka"
  forget "$kafka_pid"
  for kind in commits transactions; do
    figure "$kind: percolog against kafka" \
      "$(calculate "$(median "percolog-$kind") / $(median "kafka-$kind")")" ratio
  done
fi
stop_broker
write_figures
