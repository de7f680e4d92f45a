#!/usr/bin/env bash
# Checks toolchain and host; says per failure what was found, what is needed, and the command that
# changes it. Exits with 1 when something is missing without which nothing can be built or run.
set -euo pipefail

rust_needed=1.95
missing=0

missing() {
  printf 'missing: %s\n         %s\n' "$1" "$2" >&2
  missing=1
}

note() {
  printf 'note:    %s\n         %s\n' "$1" "$2" >&2
}

# Whether version $1 is at least $2.
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

install_packages() {
  if command -v apt-get >/dev/null; then
    echo "sudo apt-get install -y $*"
  else
    echo "install with your package manager: $*"
  fi
}

if [ "$(uname -s)" != Linux ]; then
  missing "this is $(uname -s); percolog needs Linux (io_uring)" 'use a Linux machine or virtual machine'
fi

if ! command -v cargo >/dev/null; then
  missing "cargo: not found, Rust $rust_needed or newer needed" \
    "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
else
  rust=$(rustc --version | awk '{print $2}')
  at_least "$rust" "$rust_needed" ||
    missing "rustc: found $rust, $rust_needed or newer needed" 'rustup update stable'
  cargo fmt --version >/dev/null 2>&1 || note 'rustfmt: not found, make check needs it' 'rustup component add rustfmt'
  cargo clippy --version >/dev/null 2>&1 || note 'clippy: not found, make check needs it' 'rustup component add clippy'
fi

command -v cc >/dev/null || missing 'cc: no C compiler (liburing, zstd)' "$(install_packages build-essential)"
command -v c++ >/dev/null || missing 'c++: no C++ compiler (librdkafka, for tests)' "$(install_packages build-essential)"
command -v make >/dev/null || missing 'make: not found (liburing, librdkafka)' "$(install_packages build-essential)"

if [ "$(uname -s)" = Linux ]; then
  kernel=$(uname -r)
  at_least "${kernel%%-*}" 6.1 || missing "kernel: found $kernel, 6.1 or newer needed" 'install a newer kernel'
  disabled=$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)
  [ "$disabled" = 0 ] ||
    note "io_uring: kernel.io_uring_disabled=$disabled, the broker needs 0" 'sudo sysctl -w kernel.io_uring_disabled=0'
  locked=$(ulimit -l)
  [ "$locked" = unlimited ] || [ "$locked" -ge 8192 ] ||
    note "locked memory: found $locked KiB, 8192 are comfortable" 'ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)'
  descriptors=$(ulimit -n)
  [ "$descriptors" = unlimited ] || [ "$descriptors" -ge 4096 ] ||
    note "open files: found $descriptors, 4096 needed" 'ulimit -n 1048576 (systemd: LimitNOFILE=1048576)'
fi

if [ "$missing" = 0 ]; then
  echo 'setup: everything needed is here'
else
  exit 1
fi
