#!/usr/bin/env bash
# Groups and transactions of twmb/franz-go against the broker at BOOTSTRAP.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_go
timeout 200 "$GO_CLIENT" groups || { status=$?; [ $status -eq 124 ] && echo "0 passed, 1 failed"; exit $status; }
