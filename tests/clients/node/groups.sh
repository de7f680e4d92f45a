#!/usr/bin/env bash
# Groups and transactions of kafkajs against the broker at BOOTSTRAP.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_node
export KAFKAJS_NO_PARTITIONER_WARNING=1
NODE_PATH=$INSTALLED/node/node_modules timeout 200 node "$CLIENTS/node/groups.js" || { status=$?; [ $status -eq 124 ] && echo "0 passed, 1 failed"; exit $status; }
