#!/bin/sh
# Installs the servers that the bench compares with, or the programs named as PROGRAM:PACKAGE, from Debian's or Ubuntu's
# packages. Servers start a daemon when they are installed; the bench starts its own, so services are kept from starting,
# and one that runs anyway is named.
set -eu

missing=
for pair in ${*:-nginx:nginx varnishd:varnish redis-server:redis-server memcached:memcached setpriv:util-linux}; do
    PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done

if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "Missing:$missing. Install these packages (as root: apt-get install --no-install-recommends$missing)." >&2
        exit 1
    fi
    # invoke-rc.d asks this file; 101 means "not allowed". One that is there already has its reasons and stays.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update -q
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
fi

for name in nginx varnishd redis-server memcached; do
    for process in /proc/[0-9]*; do
        # A process may end while it is looked at.
        [ "$(cat "$process/comm" 2>/dev/null || true)" = "$name" ] || continue
        echo "Note: $name runs as process ${process#/proc/}; a busy one disturbs the bench." >&2
    done
done
