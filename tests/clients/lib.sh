# Shared by the client scripts: where things are, counting, and installing what is missing.
# Every script that sources this wants BOOTSTRAP (host:port of the broker under test).
CLIENTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$CLIENTS/../.." && pwd)
INSTALLED=${CLIENTS_DIR:-$ROOT/target/test-clients}
PERCOLOG=${PERCOLOG:-$ROOT/target/release/percolog}
mkdir -p "$INSTALLED"
PASSED=0
FAILED=0
# Names of topics: unique to a run, so that a broker can be used again.
RUN_NAME=$(date +%s)-$$

pass() { PASSED=$((PASSED + 1)); echo "ok    $1"; }
fail() {
  FAILED=$((FAILED + 1))
  echo "FAIL  $1"
  if [ -n "${2:-}" ]; then printf '%s\n' "$2" | cut -c1-400 | head -n 30 | sed 's/^/      /'; fi
}
# equals NAME EXPECTED ACTUAL
equals() { if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "expected: $2
got:      $3"; fi; }
# contains NAME PIECE TEXT
contains() { case "$3" in *"$2"*) pass "$1" ;; *) fail "$1" "expected to contain: $2
got: $3" ;; esac; }
# lacks NAME PIECE TEXT
lacks() { case "$3" in *"$2"*) fail "$1" "expected not to contain: $2
got: $3" ;; *) pass "$1" ;; esac; }
# same NAME EXPECTED_FILE ACTUAL_FILE
same() { if cmp -s "$2" "$3"; then pass "$1"; else fail "$1" "$(diff <(head -c 4000000 "$2") <(head -c 4000000 "$3") | head -n 10; wc -l "$2" "$3")"; fi; }
finish() {
  echo "$PASSED passed, $FAILED failed"
  [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
  exit $?
}
need_bootstrap() { [ -n "${BOOTSTRAP:-}" ] || { echo "BOOTSTRAP (host:port) is not set" >&2; exit 2; }; }
# quietly NAME COMMAND...: output only when it fails.
quietly() {
  local what=$1 log
  shift
  log=$INSTALLED/install-$what.log
  "$@" >"$log" 2>&1 || { echo "installing $what failed:" >&2; tail -n 20 "$log" >&2; exit 1; }
}
# up_to_date MARK FILE...: whether MARK is newer than every FILE.
up_to_date() {
  local mark=$1 file
  shift
  [ -e "$mark" ] || return 1
  for file in "$@"; do [ "$mark" -nt "$file" ] || return 1; done
}

install_kcat() {
  command -v kcat >/dev/null && return
  quietly apt-update apt-get update
  quietly kcat env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends kcat
}
PYTHON=$INSTALLED/python/bin/python
install_python() {
  up_to_date "$INSTALLED/python/.complete" "$CLIENTS/python/requirements.txt" && return
  rm -rf "$INSTALLED/python"
  quietly python-venv python3 -m venv "$INSTALLED/python"
  quietly python "$PYTHON" -m pip install -r "$CLIENTS/python/requirements.txt"
  touch "$INSTALLED/python/.complete"
}
JAVA_LIB=$INSTALLED/java/lib
install_java() {
  local sources=("$CLIENTS"/java/*.java "$CLIENTS"/java/members/*.java)
  up_to_date "$INSTALLED/java/.complete" "$CLIENTS/java/pom.xml" "${sources[@]}" && return
  rm -rf "$INSTALLED/java"
  mkdir -p "$INSTALLED/java/classes"
  quietly java mvn -q -B -f "$CLIENTS/java/pom.xml" dependency:copy-dependencies "-DoutputDirectory=$JAVA_LIB" -DincludeScope=runtime
  quietly java-classes javac -cp "$JAVA_LIB/*" -d "$INSTALLED/java/classes" "${sources[@]}"
  touch "$INSTALLED/java/.complete"
}
# Serial collector and first compiler only: these processes live for a second.
JVM="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx512m"
run_java() { java $JVM -cp "$INSTALLED/java/classes:$JAVA_LIB/*" "$@"; }
GO_CLIENT=$INSTALLED/go/client
install_go() {
  mkdir -p "$INSTALLED/go"
  quietly go env -C "$CLIENTS/go" go build -o "$GO_CLIENT" .
}
install_node() {
  up_to_date "$INSTALLED/node/.complete" "$CLIENTS/node/package.json" && return
  rm -rf "$INSTALLED/node"
  mkdir -p "$INSTALLED/node"
  cp "$CLIENTS/node/package.json" "$INSTALLED/node/"
  quietly node npm install --prefix "$INSTALLED/node" --no-audit --no-fund --no-package-lock
  touch "$INSTALLED/node/.complete"
}
run_node() { NODE_PATH=$INSTALLED/node/node_modules node "$@"; }
