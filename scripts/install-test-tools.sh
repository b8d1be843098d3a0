#!/usr/bin/env bash
# Installs what `make test` needs beside the toolchain and is missing; says nothing when all is there.
# System packages need root. Without it, the missing ones are listed and the script fails.
set -eu -o pipefail
cd "$(dirname "$0")/.."

# Newer ones do as well; this is what gets installed.
nextest_version=0.9.143

export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

has() {
    command -v "$1" >/dev/null 2>&1
}

# The version of a crate in the lock file; nothing if it is not there.
locked_version() {
    awk -v name="\"$1\"" '$1 == "name" { found = $3 == name } found && $1 == "version" { print $3; exit }' Cargo.lock |
        tr -d '"'
}

install_crate() {
    echo "tools: cargo install $1 $2 (takes a few minutes)"
    cargo install --quiet --locked "$1" --version "$2"
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! has apt-get; then
        echo "tools: missing: $*. Install them, on Debian or Ubuntu with: sudo apt-get install $*" >&2
        exit 1
    fi
    echo "tools: apt-get install $*"
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-get install -y -qq "$@" >/dev/null 2>&1; then
        apt-get update -qq
        apt-get install -y -qq "$@" >/dev/null
    fi
}

missing=()
has curl || missing+=(curl)
has valgrind || missing+=(valgrind)
has git || missing+=(git)
has cc || missing+=(gcc libc6-dev)
has c++ || missing+=(g++)
has pkg-config || missing+=(pkg-config)
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

cargo nextest --version >/dev/null 2>&1 || install_crate cargo-nextest "$nextest_version"

# The guards' runner speaks to the library of exactly its own version.
gungraun=$(locked_version gungraun)
if [ -n "$gungraun" ] && [ "$(gungraun-runner --version 2>/dev/null)" != "gungraun-runner $gungraun" ]; then
    install_crate gungraun-runner "$gungraun"
fi
