#!/usr/bin/env bash
# Measures the C SDK beside Redis and memcached over Unix sockets: run.sh ELCACHED LIBRARY_DIR [SECONDS].
set -euo pipefail
cd "$(dirname "$0")"
elcached=$(realpath "$1")
sdk=$(realpath "$2")
work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

cc -O2 -std=c11 -Wall -Wextra -I ../../sdk/c/include bench.c -o "$work/bench" "$sdk/libelcache.a"

taskset -c 1 "$elcached" -p 0 -m 512 -D 0 -u "$work/elcache" --log-level warn &
pids+=($!)
taskset -c 1 redis-server --port 0 --unixsocket "$work/redis" --save '' --appendonly no --loglevel warning &
pids+=($!)
taskset -c 1 memcached -u nobody -s "$work/memcached" -a 0777 -t 1 -m 64 &
pids+=($!)
chmod 0755 "$work"
[ "$(id -u)" -eq 0 ] && chown nobody "$work"
for name in elcache redis memcached; do
    for _ in $(seq 100); do
        [ -S "$work/$name" ] && break
        sleep 0.05
    done
done
"$work/bench" "$work/elcache" "$work/redis" "$work/memcached" "${3:-0.5}"
