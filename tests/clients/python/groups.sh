#!/usr/bin/env bash
# Groups and transactions of confluent-kafka against the broker at BOOTSTRAP.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_python
PYTHONDONTWRITEBYTECODE=1 timeout 400 "$PYTHON" "$CLIENTS/python/groups.py" || { status=$?; [ $status -eq 124 ] && echo "0 passed, 1 failed"; exit $status; }
