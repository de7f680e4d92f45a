#!/usr/bin/env bash
# Three local brokers that are one cluster, or those of them that are named (tools/cluster.sh 2).
# Ctrl-C stops them. They share the machine's cores: not pinned, not spinning. Data in
# ./data/cluster/N (CLUSTER_DIR), where broker.pid has the process id and broker.log what it said.
set -euo pipefail
binary=${PERCOLOG:-target/release/percolog}
directory=${CLUSTER_DIR:-./data/cluster}
cores=${CLUSTER_CORES:-2}
quorum=1@127.0.0.1:9093,2@127.0.0.1:9193,3@127.0.0.1:9293
nodes=("$@")
[ $# -gt 0 ] || nodes=(1 2 3)
declare -A node_of=()

say() { printf 'cluster: %s\n' "$1" >&2; }

refuse() {
  say "$1"
  exit 2
}

start() {
  local node=$1 base
  base=$((9000 + 100 * (node - 1)))
  mkdir -p "$directory/$node"
  "$binary" serve --data-dir "$directory/$node/data" --cores "$cores" \
    --listen "127.0.0.1:$((base + 92))" --admin "127.0.0.1:$((9644 + 100 * (node - 1)))" \
    --set cores.pin=false --set cores.spin_us=0 \
    --set "node.id=$node" --set "node.rack=rack-$node" --set "node.quorum=$quorum" \
    --set "listeners.inter_broker=127.0.0.1:$((base + 93))" \
    --set default.replication.factor=3 --set min.insync.replicas=2 \
    2>"$directory/$node/broker.log" &
  node_of[$!]=$node
  echo "$!" >"$directory/$node/broker.pid"
}

# A broker that gives its partitions away needs the others for it: all are told at once.
stop() {
  trap '' INT TERM
  for pid in "${!node_of[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${!node_of[@]}"; do
    wait "$pid" 2>/dev/null || true
    rm -f "$directory/${node_of[$pid]}/broker.pid"
  done
}

ended() {
  local pid=$1 code=$2 node=${node_of[$1]}
  unset "node_of[$pid]"
  rm -f "$directory/$node/broker.pid"
  say "broker $node ended with exit code $code; its last words, from $directory/$node/broker.log:"
  tail -n 5 "$directory/$node/broker.log" >&2
  [ "${#node_of[@]}" -eq 0 ] || say "the others go on; it comes back with: tools/cluster.sh $node"
}

for node in "${nodes[@]}"; do
  [[ $node =~ ^[123]$ ]] || refuse "no broker $node: they are 1, 2 and 3"
  pid=$(cat "$directory/$node/broker.pid" 2>/dev/null || true)
  [ -z "$pid" ] || ! kill -0 "$pid" 2>/dev/null || refuse "broker $node runs already (process $pid)"
done
[ -x "$binary" ] || refuse "$binary is missing: make cluster builds it"
trap 'stop; exit 0' INT TERM
trap stop EXIT
for node in "${nodes[@]}"; do start "$node"; done
while [ "${#node_of[@]}" -gt 0 ]; do
  code=0
  pid=
  # Bash would say itself that a broker was killed, with all its arguments.
  wait -n -p pid "${!node_of[@]}" 2>/dev/null || code=$?
  [ -z "$pid" ] || ended "$pid" "$code"
done
say 'no broker is left'
exit 1
