# shellcheck shell=bash
# What the sourcing script sets and reads is not seen here.
# shellcheck disable=SC2034,SC2154
#
# The canonical workloads, by name, for bench.sh, compare.sh, gate.sh and profile.sh. Sourced behind lib.sh, never run.
# Records are of 1 KiB. A workload is one subcommand of percolog-perf on a topic of its own; what its
# name ends with in brackets is what is varied.

workload_names=()
declare -A workload_arguments workload_kind

# workload NAME KIND ARGUMENT...: KIND is `load`, `hot` (reads what was just written), `cold` (reads it
# from the disk), `beside` (a load while a consumer reads cold), `sweep` or `idle` (connections that do
# nothing, once per broker: memory that one run made a broker take is there for the next).
workload() {
  local name=$1 kind=$2
  shift 2
  workload_names+=("$name")
  workload_kind[$name]=$kind
  workload_arguments[$name]=$*
}

# First, while a broker has not taken memory for anything else.
workload '5,000 idle connections' idle connections --connections 5000
workload 'produce, 1 MiB batches [1 connection]' load produce --batch-bytes 1048576 --partitions 1
workload 'produce, 1 MiB batches [4 connections]' load produce --batch-bytes 1048576 --connections 4 --partitions 4
workload 'produce, 100 KiB batches [1 connection]' load produce --batch-bytes 102400 --partitions 1
workload 'produce, 100 KiB batches [4 connections]' load produce --batch-bytes 102400 --connections 4 --partitions 4
workload 'produce, 16 KiB batches [16 connections]' load produce --batch-bytes 16384 --connections 16 --partitions 64
workload 'produce, single records [64 connections]' load produce --batch-bytes 1 --connections 64 --in-flight 1 --partitions 64
workload 'produce, lz4, 1 MiB batches' load produce --batch-bytes 1048576 --compression lz4 --partitions 1
workload 'produce, 1,000 partitions [sticky]' load produce --batch-bytes 16384 --connections 16 --partitions 1000
workload 'produce, 1,000 partitions [round robin]' load produce --batch-bytes 16384 --connections 16 --partitions 1000 \
  --partitioner round-robin --partitions-per-request 100
workload 'consume what was just written' hot consume
workload 'consume cold [1 consumer, 1 partition]' cold consume
workload 'consume cold [4 consumers, 64 partitions]' cold consume --connections 4
workload 'end to end, 1 partition [10,000/s]' load end-to-end --rate 10000 --partitions 1
workload 'end to end, 1 partition [50,000/s]' load end-to-end --rate 50000 --partitions 1
workload 'end to end, 1 partition [100,000/s]' load end-to-end --rate 100000 --partitions 1
workload 'end to end, 64 partitions, 1 connection [10,000/s]' load end-to-end --rate 10000 --partitions 64
workload 'end to end, 64 partitions, 1 connection [50,000/s]' load end-to-end --rate 50000 --partitions 64
workload 'end to end, 64 partitions, 4 connections [10,000/s]' load end-to-end --rate 10000 --partitions 64 --connections 4
workload 'end to end, one record at a time' load end-to-end --one-at-a-time --partitions 1
workload 'produce beside a cold reader [10,000/s]' beside produce --rate 10000 --partitions 1
workload 'latency over rate' sweep sweep --rates 1000,5000,10000,20000,50000,100000 --partitions 4

seconds=10
warmup_seconds=2
# Read by consumers: more than the caches of either broker hold would take too long to write each time.
read_gigabytes=2

# Every report goes there.
reports=
# The broker that is measured: how reports name it, where it is, which process, topic settings.
broker_name=
at=
measured_pid=
topic_settings=()
topic_prefix=

# measure_workload NAME: runs it against the broker, and appends its report. Topics are of their own for
# every run and deleted behind it.
runs=0
declare -A has_been_idle
measure_workload() {
  local name=$1 kind=${workload_kind[$1]} topic arguments options filled=()
  runs=$((runs + 1))
  topic=$topic_prefix-$runs
  read -ra arguments <<<"${workload_arguments[$name]}"
  options=(--bootstrap "$at" --topic "$topic" "${topic_settings[@]}")
  local report_options=(--json "$reports" --workload-name "$name" --broker-name "$broker_name"
    --data-dir "$work")
  [ -z "$measured_pid" ] || report_options+=(--broker-pid "$measured_pid")
  local time_options=(--warmup "$warmup_seconds" --duration "$seconds" --drain 60)
  case $kind in
    load | sweep) attempt "${arguments[@]}" "${options[@]}" "${report_options[@]}" "${time_options[@]}" || true ;;
    hot | cold)
      local partitions=1
      [[ $name != *'64 partitions'* ]] || partitions=64
      fill_topic "$topic" "$partitions"
      [ "$kind" = hot ] || chill
      attempt "${arguments[@]}" --bootstrap "$at" --topic "$topic" "${report_options[@]}" || true
      ;;
    idle)
      if [ -n "${has_been_idle[$broker_name]:-}" ]; then
        echo '    once per broker'
        return
      fi
      has_been_idle[$broker_name]=yes
      attempt "${arguments[@]}" --bootstrap "$at" --idle "$seconds" "${report_options[@]}" && idle_figures
      return 0
      ;;
    beside)
      fill_topic "$topic-read" 1
      chill
      "$percolog_perf" consume --bootstrap "$at" --topic "$topic-read" --repeat --tolerate-errors \
        --duration $((seconds + warmup_seconds + 5)) >"$work/beside.log" 2>&1 &
      local reader=$!
      started_pids+=("$reader")
      disown "$reader"
      attempt "${arguments[@]}" "${options[@]}" "${report_options[@]}" "${time_options[@]}" || true
      ended "$reader" 120
      delete_topic "$topic-read"
      ;;
  esac
  delete_topic "$topic"
}

# idle_figures: of the report that was just written; without the broker's process there are none.
idle_figures() {
  [ -n "$measured_pid" ] || return 0
  figure "$broker_name: memory per idle connection" \
    "$("$percolog_perf" read "$reports" /connections/resident_kibibytes_each | xargs printf '%.2f')" KiB
  figure "$broker_name: CPU with all of them idle" \
    "$("$percolog_perf" read "$reports" /connections/idle_core_percent | xargs printf '%.2f')" '% of a core'
}

# attempt ARGUMENT...: what a broker cannot do is told, and the others go on.
attempt() {
  if ! timeout 900 "$percolog_perf" "$@" >"$work/perf.log" 2>&1; then
    echo "  failed: $(tail -n 1 "$work/perf.log")"
    return 1
  fi
  sed -n -e 's/^  \(rate  *.*\)/    \1/p' -e 's/^  \(latency  *.*\)/    \1/p' -e 's/^  \(broker CPU   *.*\)/    \1/p' \
    "$work/perf.log"
}

# fill_topic TOPIC PARTITIONS
fill_topic() {
  generate produce --bootstrap "$at" --topic "$1" --partitions "$2" --batch-bytes 102400 --connections 4 \
    --count $((read_gigabytes * 1000000000 / 1024)) "${topic_settings[@]}"
}

delete_topic() {
  timeout 60 "$percolog" topic delete "$1" --bootstrap "$at" >/dev/null 2>&1 || true
}

# What was written is read from the disk from here on: the kernel's cache is dropped, which only root may
# do, and so much is written that Percolog's own has other things in it.
chill() {
  sync -f "$work"
  if [ -w /proc/sys/vm/drop_caches ]; then
    echo 1 >/proc/sys/vm/drop_caches
  else
    echo '    not root: the cache of the kernel is not dropped'
  fi
  [ "$broker_name" = "${broker_name#percolog}" ] ||
    generate produce --bootstrap "$at" --topic "$topic_prefix-flood" --partitions 4 --batch-bytes 1048576 \
      --count 1000000 --topic-config retention.bytes=67108864 --topic-config segment.bytes=67108864 \
      --topic-config file.delete.delay.ms=0
}

# select_workloads PATTERN: keeps those whose name has it.
select_workloads() {
  local name kept=()
  for name in "${workload_names[@]}"; do
    [[ $name != *"$1"* ]] || kept+=("$name")
  done
  [ ${#kept[@]} -gt 0 ] || die "no workload has '$1' in its name" 2
  workload_names=("${kept[@]}")
}
