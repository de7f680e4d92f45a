#!/usr/bin/env bash
# Every foreign client against a broker: C (kcat), Java, Python, Go, Node, and each reading the others.
# Starts the broker by itself (PERCOLOG, default target/release/percolog) with one core, then with two;
# with BOOTSTRAP set it uses that broker instead. SIZE_MB: text through kcat in the first pass.
# SCRIPTS: which scripts to run. Ends with `N passed, N failed`.
set -u
. "$(dirname "$0")/lib.sh"
SCRIPTS=${SCRIPTS:-kcat.sh java/run.sh java/groups.sh python/run.sh python/groups.sh go/run.sh go/groups.sh node/run.sh node/groups.sh exchange.sh kills.sh}
SIZE_MB=${SIZE_MB:-200}
TOTAL_PASSED=0
TOTAL_FAILED=0
SUMMARY=
# Groups wait for time to pass: one pass is enough for them, the one whose requests cross cores.
LATER_GROUPS=

count() { # LABEL PASSED FAILED SECONDS
  TOTAL_PASSED=$((TOTAL_PASSED + $2))
  TOTAL_FAILED=$((TOTAL_FAILED + $3))
  SUMMARY="$SUMMARY$(printf '%-28s %4d passed %4d failed %4d s' "$1" "$2" "$3" "$4")
"
}
# run_scripts LABEL SIZE_MB [SCRIPT WITH ARGUMENTS]: with BOOTSTRAP exported; SCRIPTS without a third.
run_scripts() {
  local script log last started status command scripts
  if [ $# -gt 2 ]; then scripts=("$3"); else read -r -a scripts <<<"$SCRIPTS"; fi
  for command in "${scripts[@]}"; do
    script=${command%% *}
    case $script in */groups.sh | kills.sh) [ -z "$LATER_GROUPS" ] || continue ;; esac
    echo "== $1 $command"
    log=$(mktemp "$INSTALLED/log-XXXXXX")
    started=$SECONDS
    # Installing takes its time once; each script bounds its own steps.
    SIZE_MB=$2 timeout -k 5 600 bash $CLIENTS/$command 2>&1 </dev/null | tee "$log"
    status=${PIPESTATUS[0]}
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$log" | tail -n 1)
    if [ -z "$last" ]; then
      count "$1 $script" 0 1 $((SECONDS - started))
    else
      # shellcheck disable=SC2086
      set -- "$1" "$2" ${last%%,*} ${last##*,}
      if [ "$status" -ne 0 ] && [ "$5" -eq 0 ]; then set -- "$1" "$2" "$3" "$4" 1; fi
      count "$1 $script" "$3" "$5" $((SECONDS - started))
      set -- "$1" "$2"
    fi
    rm -f "$log"
  done
}

BROKER=
stop_broker() {
  [ -n "$BROKER" ] && kill -KILL "$BROKER" 2>/dev/null
  [ -n "${DATA:-}" ] && rm -rf "$DATA"
}
trap stop_broker EXIT
# with_broker CORES SIZE_MB
with_broker() {
  local label="cores=$1" line fifo started log status
  # Next to the build and not under /tmp, which may be memory: the broker wants direct I/O.
  DATA=$(mktemp -d "$INSTALLED/broker-XXXXXX")
  fifo=$DATA/ready
  log=$DATA/broker.log
  mkfifo "$fifo"
  exec 9<>"$fifo"
  "$PERCOLOG" serve --data-dir "$DATA/data" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --cores "$1" >&9 2>"$log" </dev/null 9>&- &
  BROKER=$!
  started=$SECONDS
  line=
  while [ $((SECONDS - started)) -lt 60 ] && kill -0 "$BROKER" 2>/dev/null; do
    read -r -t 1 -u 9 line && break
  done
  case $line in
    "percolog ready "*) ;;
    *)
      echo "the broker did not get ready: '$line'"
      tail -n 20 "$log"
      count "$label start" 0 1 $((SECONDS - started))
      kill -KILL "$BROKER" 2>/dev/null
      BROKER=
      return
      ;;
  esac
  BOOTSTRAP=${line#percolog ready } TESTING_PERCOLOG=yes
  export BOOTSTRAP TESTING_PERCOLOG PERCOLOG
  echo "broker $BROKER at $BOOTSTRAP, --cores $1"
  run_scripts "$label" "$2"
  started=$SECONDS
  if ! kill -0 "$BROKER" 2>/dev/null; then
    wait "$BROKER"
    echo "the broker ended by itself with exit code $?"
    tail -n 40 "$log"
    count "$label stays up" 0 1 0
  else
    kill -TERM "$BROKER"
    # Ends by itself, or is ended after 30 s, which shows in the exit code.
    (timeout 30 tail --pid="$BROKER" -f /dev/null || kill -KILL "$BROKER") 2>/dev/null &
    wait "$BROKER"
    status=$?
    if [ $status -eq 0 ]; then
      count "$label SIGTERM" 1 0 $((SECONDS - started))
      # What is on disk after a clean stop is what Kafka's own tool reads.
      case $SCRIPTS in *python*) run_scripts "$label" "$2" "java/dump_log.sh $DATA/data" ;; esac
    else
      echo "exit code $status after SIGTERM"
      tail -n 40 "$log"
      count "$label SIGTERM" 0 1 $((SECONDS - started))
    fi
  fi
  grep -E 'ERROR|panicked' "$log" | head -n 20
  BROKER=
  exec 9>&-
  rm -rf "$DATA"
  DATA=
}

if [ -n "${BOOTSTRAP:-}" ]; then
  export BOOTSTRAP
  # A broker of somebody else is not killed.
  SCRIPTS=${SCRIPTS//kills.sh/}
  run_scripts given "$SIZE_MB"
else
  [ -x "$PERCOLOG" ] || { echo "no broker at $PERCOLOG: build it first, or set PERCOLOG or BOOTSTRAP" >&2; exit 2; }
  if [ "$(nproc)" -ge 2 ]; then LATER_GROUPS=yes; fi
  with_broker 1 "$SIZE_MB"
  LATER_GROUPS=
  # The second pass is about requests that cross cores; the volume was in the first.
  if [ "$(nproc)" -ge 2 ]; then with_broker 2 $((SIZE_MB < 40 ? SIZE_MB : 40)); fi
fi
echo
printf '%s' "$SUMMARY"
echo "$TOTAL_PASSED passed, $TOTAL_FAILED failed"
[ "$TOTAL_FAILED" -eq 0 ] && [ "$TOTAL_PASSED" -gt 0 ]
