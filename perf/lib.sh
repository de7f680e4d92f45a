# shellcheck shell=bash
# What the sourcing script sets and reads is not seen here.
# shellcheck disable=SC2034,SC2154
#
# Shared by the measuring scripts: options, a broker of their own, figures. Sourced, never run.
#
# A script sets `script` and `help_text`, sources this file and calls `begin "$@"`. From then on
# `work` is its own directory, removed at the end together with every process it started.
set -euo pipefail

perf_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$perf_folder/.." && pwd)
percolog=${PERCOLOG:-$root/target/release/percolog}
percolog_perf=${PERCOLOG_PERF:-$root/target/release/percolog-perf}
work_parent=$root/target/perf
port=29292
json=
cores=
work=
data=
broker_pid=
ready_seconds=
started_pids=()
# Further arguments of `percolog serve`.
broker_arguments=()
figures=()

common_options='
Options of every script:
  --percolog FILE   broker to measure (default target/release/percolog, or PERCOLOG)
  --perf FILE       load generator (default target/release/percolog-perf, or PERCOLOG_PERF)
  --work DIR        where data goes, in a directory of its own that is removed at the end
                    (default target/perf; must not be in memory: the broker writes past the page cache)
  --port N          first of the two ports used on 127.0.0.1 (default 29292)
  --cores LIST      cores of the broker (default: as the broker chooses)
  --json FILE       where figures are appended, a line of JSON per run (default perf/results/NAME.jsonl)'

die() {
  echo "$script: $1" >&2
  exit "${2:-1}"
}

# begin ARGUMENT...: takes the common options; the others are left in `rest`.
begin() {
  rest=()
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        printf '%s\n%s\n' "$help_text" "$common_options"
        exit 0
        ;;
      --percolog | --perf | --work | --port | --json | --cores)
        [ $# -ge 2 ] || die "$1 needs a value" 2
        case $1 in
          --percolog) percolog=$2 ;;
          --perf) percolog_perf=$2 ;;
          --work) work_parent=$2 ;;
          --port) port=$2 ;;
          --json) json=$2 ;;
          --cores) cores=$2 ;;
        esac
        shift
        ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
  if ! [ -x "$percolog_perf" ]; then
    die "$percolog_perf is missing: cargo build --release -p percolog-perf"
  fi
  if [ -z "$json" ]; then
    mkdir -p "$perf_folder/results"
    json=$perf_folder/results/$script.jsonl
  fi
  mkdir -p "$work_parent"
  work=$(mktemp -d "$work_parent/$script-XXXXXX")
  data=$work/data
  trap finish EXIT
  trap 'exit 130' INT TERM
}

# Ends what was started and removes what was written.
finish() {
  local status=$? pid
  for pid in "${started_pids[@]}"; do
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  [ -z "$work" ] || rm -rf "$work"
  exit "$status"
}

# needs GIGABYTES: fails unless that much is free.
needs() {
  local free_kib
  free_kib=$(df -Pk "$work" | awk 'NR == 2 {print $4}')
  [ $((free_kib / 1000000)) -ge "$1" ] || die "$1 GB of disk are needed in $work_parent"
}

now_us() {
  local now=${EPOCHREALTIME/[.,]/}
  echo "$now"
}

# calculate EXPRESSION: with three decimals.
calculate() {
  awk "BEGIN {printf \"%.3f\", $1}"
}

# seconds_since MICROSECONDS
seconds_since() {
  calculate "($(now_us) - $1) / 1e6"
}

# start_percolog: on `data`; sets broker_pid and ready_seconds, from exec to the ready line.
start_percolog() {
  local started line="" arguments deadline=$((SECONDS + 300))
  [ -x "$percolog" ] || die "$percolog is missing: cargo build --release"
  rm -f "$work/ready"
  mkfifo "$work/ready"
  # Open for both, so that neither side waits for the other.
  exec 8<>"$work/ready"
  arguments=(serve --data-dir "$data" --listen "127.0.0.1:$port" --admin "127.0.0.1:$((port + 1))")
  [ -z "$cores" ] || arguments+=(--cores "$cores")
  arguments+=("${broker_arguments[@]}")
  started=$(now_us)
  "$percolog" "${arguments[@]}" >"$work/ready" 2>>"$work/broker.log" 8>&- &
  broker_pid=$!
  started_pids+=("$broker_pid")
  # Its end is seen by asking for it, and is not worth a message of the shell.
  disown "$broker_pid"
  until read -r -t 0.5 line <&8; do
    if ! kill -0 "$broker_pid" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 5 "$work/broker.log" >&2
      die 'the broker did not get ready within 300 seconds'
    fi
  done
  ready_seconds=$(seconds_since "$started")
  [[ $line == 'percolog ready '* ]] || die "not a ready line: $line"
}

# forget PID: it has ended.
forget() {
  local pid left=()
  for pid in "${started_pids[@]}"; do
    [ "$pid" = "$1" ] || left+=("$pid")
  done
  started_pids=("${left[@]}")
}

# stop_broker: cleanly; sets stop_seconds.
stop_broker() {
  local started
  started=$(now_us)
  kill -TERM "$broker_pid"
  ended "$broker_pid" 300
  stop_seconds=$(seconds_since "$started")
  broker_pid=
}

# kill_broker: as a crash of the process does.
kill_broker() {
  kill -KILL "$broker_pid"
  ended "$broker_pid" 60
  broker_pid=
}

# ended PID SECONDS: waits for the end of a process that was told to end.
ended() {
  local deadline=$((SECONDS + $2))
  while kill -0 "$1" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || die "process $1 did not end within $2 seconds"
    sleep 0.01
  done
  forget "$1"
}

# resident_mib PID
resident_mib() {
  awk '/^VmRSS:/ {printf "%.1f", $2 / 1024}' "/proc/$1/status"
}

# generate ARGUMENT...: runs the load generator; its table goes to a log, its report to `report`.
report=
generate() {
  local log=$work/perf.log
  report=$work/report.jsonl
  if ! timeout 900 "$percolog_perf" "$@" --json "$report" >"$log" 2>&1; then
    cat "$log" >&2
    die "percolog-perf $1 failed"
  fi
}

# value POINTER: of the last report.
value() {
  "$percolog_perf" read "$report" "$1"
}

# figure NAME VALUE UNIT [REMARK]: a line on the terminal, and one of the figures of the run.
figure() {
  printf '%-52s %12s %-10s %s\n' "$1" "$2" "$3" "${4:-}"
  figures+=("$1=$2")
}

# write_figures: appends them all.
write_figures() {
  "$percolog_perf" figures --script "$script" --json "$json" "${figures[@]}"
  echo "appended to $json"
}

# ledger_file: prints where this machine's figures are kept (see README.md).
ledger_file() {
  "$percolog_perf" host --data-dir "$work" >"$work/host.json"
  echo "$perf_folder/ledger/$("$percolog_perf" read "$work/host.json" /fingerprint).jsonl"
}
