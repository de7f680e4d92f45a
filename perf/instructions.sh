#!/usr/bin/env bash
# Counts the instructions of every case of `make micro` per unit; see --help.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

case ${1:-} in
  --help | -h)
    cat <<'HELP'
instructions.sh: instructions per unit of every case of `make micro`, counted by valgrind's callgrind.

  instructions.sh            prints them beside the reference
  instructions.sh --check    fails when a case takes more than 5 % more than the reference, or has none
  instructions.sh --accept   writes a new reference, perf/ledger/instructions.json, to be committed

Counts go to perf/results/micro-TIME.json as well. Needs valgrind; exits with 1 when it is missing.
HELP
    exit 0
    ;;
  '' | --check | --accept) ;;
  *)
    echo "instructions.sh: $1 is no option, see --help" >&2
    exit 2
    ;;
esac
if [ $# -gt 1 ]; then
  echo 'instructions.sh: one option at most, see --help' >&2
  exit 2
fi
if ! command -v valgrind >/dev/null; then
  echo 'instructions.sh: valgrind is missing: sudo apt-get install -y valgrind' >&2
  exit 1
fi

cd "$root"
cargo bench --bench micro -- --instructions "$@" --json "perf/results/micro-$(date -u +%Y%m%dT%H%M%SZ).json"
