#!/usr/bin/env bash
# Three local brokers that are one cluster; Ctrl-C stops all. They share the machine's cores: not
# pinned, not spinning. Data in ./data/cluster/N (CLUSTER_DIR), the process id in broker.pid there.
set -euo pipefail
binary=${PERCOLOG:-target/release/percolog}
directory=${CLUSTER_DIR:-./data/cluster}
cores=${CLUSTER_CORES:-2}
quorum=1@127.0.0.1:9093,2@127.0.0.1:9193,3@127.0.0.1:9293
pids=()
stop() {
  trap '' INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -f "$directory"/[123]/broker.pid
}
trap 'stop; exit 0' INT TERM
trap stop EXIT
for node in 1 2 3; do
  base=$((9000 + 100 * (node - 1)))
  mkdir -p "$directory/$node"
  "$binary" serve --data-dir "$directory/$node/data" --cores "$cores" \
    --listen "127.0.0.1:$((base + 92))" --admin "127.0.0.1:$((9644 + 100 * (node - 1)))" \
    --set cores.pin=false --set cores.spin_us=0 \
    --set "node.id=$node" --set "node.rack=rack-$node" --set "node.quorum=$quorum" \
    --set "listeners.inter_broker=127.0.0.1:$((base + 93))" \
    --set default.replication.factor=3 --set min.insync.replicas=2 \
    2>"$directory/$node/broker.log" &
  pids+=($!)
  echo "$!" >"$directory/$node/broker.pid"
done
wait
