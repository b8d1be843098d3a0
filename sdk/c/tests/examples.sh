#!/usr/bin/env bash
# Compiles the examples with all warnings and runs them against a node; the readme's example has to be examples/hello.c.
#
#   tests/examples.sh ELCACHED LIBRARY
set -eu -o pipefail
cd "$(dirname "$0")/.."
elcached=$1
library=$2
. tests/node.sh

# The C block of the readme.
awk '/^```c$/ { is_open = 1; next } /^```/ { is_open = 0 } is_open' ../../README.md > "$folder/readme.c"
if ! diff -u examples/hello.c "$folder/readme.c"; then
    echo "README.md shows another example than examples/hello.c" >&2
    exit 1
fi

for example in hello copy ranges; do
    ${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Werror -Iinclude "examples/$example.c" "$library" -o "$folder/$example"
done
start_node "$elcached"

# expect WHAT COMMAND...: what the command prints.
expect() {
    local printed
    printed=$("${@:2}")
    [ "$printed" = "$1" ] || { echo "${*:2} printed: $printed" >&2; exit 1; }
    echo "  ${2##*/}"
}

expect 'Hello, cache' "$folder/hello" "$socket"
expect $'there: 48 bytes from 0 on\ngently down the stream.' "$folder/ranges" "$socket"

head -c 10000001 /dev/urandom > "$folder/file"
"$folder/copy" "$socket" put a/file < "$folder/file"
"$folder/copy" "$socket" get a/file | cmp - "$folder/file"
if [ -c /dev/full ] && "$folder/copy" "$socket" get a/file > /dev/full 2> /dev/null; then
    echo "copy said nothing of a disk that is full" >&2
    exit 1
fi
echo "  copy"
if "$folder/copy" "$socket" get nothing 2> "$folder/said"; then
    echo "copy found what is not there" >&2
    exit 1
fi
grep -q '^copy: read_stream_start: Not found' "$folder/said"
