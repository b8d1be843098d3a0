#!/usr/bin/env bash
# Measures the C SDK beside Redis and memcached over Unix sockets: run.sh ELCACHED LIBRARY_DIR [SECONDS].
set -euo pipefail
elcached=$(realpath "$1")
sdk=$(realpath "$2")
cd "$(dirname "$0")"
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
taskset -c 1 redis-server --port 0 --unixsocket "$work/redis" --save '' --appendonly no >"$work/redis.log" &
pids+=($!)
# memcached does not run as root, and redis says more than is of use.
if [ "$(id -u)" -eq 0 ]; then chown nobody "$work"; fi
taskset -c 1 memcached -u nobody -s "$work/memcached" -a 0777 -t 1 -m 64 &
pids+=($!)
for name in elcache redis memcached; do
    for _ in $(seq 100); do
        [ -S "$work/$name" ] && break
        sleep 0.05
    done
done
"$work/bench" "$work/elcache" "$work/redis" "$work/memcached" "${3:-0.5}"
