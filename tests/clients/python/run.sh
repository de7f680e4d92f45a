#!/usr/bin/env bash
# confluent-kafka against the broker at BOOTSTRAP.
set -u
. "$(dirname "$0")/../lib.sh"
need_bootstrap
install_python
PYTHONDONTWRITEBYTECODE=1 timeout 110 "$PYTHON" "$CLIENTS/python/clients.py" || { status=$?; [ $status -eq 124 ] && echo "0 passed, 1 failed"; exit $status; }
