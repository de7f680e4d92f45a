#!/usr/bin/env bash
# Foreign clients, and Kafka's own classes, against percolog.
#
#   run.sh            runs every check below
#   run.sh NAME ...   runs only these
#
# A check is a function check_NAME here, or an executable NAME.check beside this file, which gets
# CLIENTS_DIR (a folder for its downloads), KAFKA_JARS (a folder with Kafka's jars) and PERCOLOG (the
# binary). What is missing on the machine is installed through apt-get when this runs as root;
# otherwise the command is printed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"

kafka_version=4.3.1
export CLIENTS_DIR="$root/target/test-clients"
export KAFKA_JARS="$CLIENTS_DIR/jars-$kafka_version"
export PERCOLOG="$root/target/debug/percolog"
mkdir -p "$CLIENTS_DIR"

# need COMMAND PACKAGE...: the command is there, or its packages get installed.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $* for $command"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$@" </dev/null >/dev/null
  fi
  command -v "$command" >/dev/null && return
  echo "test-clients: $command is missing: sudo apt-get install -y $*" >&2
  return 1
}

# Kafka's jars with what they depend on, fetched once by Maven.
kafka_jars() {
  [ -e "$KAFKA_JARS/.complete" ] && return
  need java openjdk-17-jdk-headless
  need mvn maven
  local project="$CLIENTS_DIR/kafka-$kafka_version"
  mkdir -p "$project"
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>percolog</groupId>'
    echo '<artifactId>test-clients</artifactId><version>1</version><dependencies>'
    for artifact in kafka-clients kafka-group-coordinator kafka-transaction-coordinator \
      kafka-share-coordinator kafka-raft kafka-tools; do
      echo "<dependency><groupId>org.apache.kafka</groupId><artifactId>$artifact</artifactId>"
      echo "<version>$kafka_version</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$project/pom.xml"
  mvn -q -B -f "$project/pom.xml" dependency:copy-dependencies \
    -DoutputDirectory="$KAFKA_JARS" -DincludeScope=runtime </dev/null
  touch "$KAFKA_JARS/.complete"
}

# The message tables against the schemata in Kafka's jars.
check_wire_schemata() {
  need python3 python3
  kafka_jars
  local schemata="$CLIENTS_DIR/schemata-$kafka_version"
  rm -rf "$schemata"
  mkdir -p "$schemata"
  python3 - "$schemata" "$KAFKA_JARS"/*.jar <<'PYTHON'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
for jar in sys.argv[2:]:
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if path.suffix == ".json" and path.parent == pathlib.PurePosixPath("common/message"):
                (folder / path.name).write_bytes(archive.read(name))
PYTHON
  python3 "$here/wire_schemata.py" "$schemata"
}

# Messages that we wrote, read and written again by Kafka's own classes.
check_wire_vectors() {
  need java openjdk-17-jdk-headless
  kafka_jars
  local vectors="$root/target/tmp/wire_vectors.txt"
  rm -f "$vectors"
  cargo test --quiet --test wire_oracle </dev/null
  java -cp "$KAFKA_JARS/*" "$here/WireVectors.java" "$vectors"
}

# Random segments, from a broker and with everything a batch can be: Kafka's own dump tool and
# `percolog inspect segment` say the same of every batch. PERCOLOG_SEED repeats a run.
check_dump() {
  need java openjdk-17-jdk-headless
  need python3 python3
  kafka_jars
  local folder="$CLIENTS_DIR/random-segments" files
  rm -rf "$folder"
  PERCOLOG_SEGMENTS_DIR="$folder" cargo test --quiet --test random_segments -- --nocapture </dev/null
  # The broker's last segment is not sealed.
  files=$({ ls "$folder"/broker/random-0/*.log | head -n -1; ls "$folder"/everything-0/*.log; } | paste -sd,)
  java -cp "$KAFKA_JARS/*" org.apache.kafka.tools.DumpLogSegments --files "$files" </dev/null >"$folder/kafka.txt"
  python3 "$here/java/dump_compare.py" "$PERCOLOG" <"$folder/kafka.txt"
  rm -rf "$folder"
}

# Clients of five languages against the release build; 40 MB of text instead of 200 where time counts.
check_suite() {
  need java openjdk-17-jdk-headless
  need mvn maven
  need go golang-go
  need node nodejs npm
  need python3 python3 python3-venv
  cargo build --quiet --release --bin percolog </dev/null
  PERCOLOG="$root/target/release/percolog" SIZE_MB="${SIZE_MB:-40}" "$here/suite.sh"
}

checks() {
  declare -F | awk '$3 ~ /^check_/ {print substr($3, 7)}'
  for file in "$here"/*.check; do
    [ -x "$file" ] && basename "$file" .check
  done
  return 0
}

run_check() {
  if declare -F "check_$1" >/dev/null; then
    "check_$1"
  elif [ -x "$here/$1.check" ]; then
    kafka_jars
    cargo build --quiet --bin percolog </dev/null
    "$here/$1.check" </dev/null
  else
    echo "there is no check $1; there are: $(checks | tr '\n' ' ')" >&2
    return 2
  fi
}

[ $# -gt 0 ] || mapfile -t selected < <(checks)
[ $# -eq 0 ] || selected=("$@")
failed=()
for name in "${selected[@]}"; do
  printf '\n== %s\n' "$name"
  # Not as a condition: within one, `set -e` has no effect, in subshells neither.
  set +e
  (set -e; run_check "$name")
  status=$?
  set -e
  [ "$status" = 0 ] || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
  printf '\ntest-clients: failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
printf '\ntest-clients: %s checks passed\n' "${#selected[@]}"
