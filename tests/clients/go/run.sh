#!/usr/bin/env bash
# segmentio/kafka-go and twmb/franz-go against the broker at BOOTSTRAP.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_go
timeout 110 "$GO_CLIENT" test || { status=$?; [ $status -eq 124 ] && echo "0 passed, 1 failed"; exit $status; }
