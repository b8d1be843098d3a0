#!/usr/bin/env bash
# Installs into a temporary folder, looks at what is there, and builds programs against it as a stranger would.
#
#   tests/packaging.sh ELCACHED VERSION
set -eu -o pipefail
cd "$(dirname "$0")/.."
elcached=$1
version=$2
. tests/node.sh
prefix=$folder/prefix
lib=$prefix/lib

fail() {
    echo "packaging: $*" >&2
    exit 1
}

# With what distributions build with, too: the names of the library's own have to stay its own.
make -s install PREFIX="$prefix" BUILD="$folder/build" CFLAGS='-O2 -g -flto' > /dev/null
for file in lib/libelcache.a lib/libelcache.so lib/libelcache.so.1 "lib/libelcache.so.$version" \
    lib/pkgconfig/elcache.pc include/elcache/elcache_sdk.h; do
    [ -e "$prefix/$file" ] || fail "$file was not installed"
done
echo "  installed"

# Names: the header's functions, and no others.
grep -o 'elcache_[a-z_]*(' include/elcache/elcache_sdk.h | tr -d '(' | sort -u > "$folder/declared"
# names FILE...: what nm shows of it, functions or not; a name with "A" is the version of the others.
names() {
    nm --defined-only "$@" | awk 'NF == 3 && $2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort
}
names -D "$lib/libelcache.so" > "$folder/shared"
names --extern-only "$lib/libelcache.a" > "$folder/static"
grep -o 'FUNCTION(elcache_[a-z_]*' tests/cxx.cpp | sed 's/.*(//' | sort > "$folder/linked"
diff "$folder/declared" "$folder/shared" || fail "the shared library has other names than the header"
diff "$folder/declared" "$folder/static" || fail "the static library has other names than the header"
diff "$folder/declared" "$folder/linked" || fail "tests/cxx.cpp links other functions than the header has"
size -A "$lib/libelcache.a" | awk '$1 ~ /^\.(data|bss|tdata|tbss)$/ { bytes += $2 } END { exit bytes > 0 }' ||
    fail "there is state that is nobody's"
readelf -d "$lib/libelcache.so" | grep -q 'SONAME.*libelcache\.so\.1\]' || fail "no soname"
readelf -d "$lib/libelcache.so" | grep NEEDED | grep -qv 'libc\.so' && fail "it needs more than libc"
echo "  names"

export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib
[ "$(pkg-config --modversion elcache)" = "$version" ] || fail "pkg-config says another version"
start_node "$elcached"

# works PROGRAM: it greets.
works() {
    [ "$("$1" "$socket")" = 'Hello, cache' ] || fail "$1 does not work"
    echo "  $2"
}

cp -r examples "$folder/examples"
make -s -C "$folder/examples/make" CC="${CC:-cc}"
works "$folder/examples/make/hello" make
${CC:-cc} examples/hello.c $(pkg-config --cflags elcache) "$(pkg-config --variable=libdir elcache)/libelcache.a" \
    -o "$folder/hello-static"
works "$folder/hello-static" static
if command -v cmake > /dev/null; then
    cmake -S "$folder/examples/cmake" -B "$folder/cmake" > /dev/null
    cmake --build "$folder/cmake" > /dev/null
    works "$folder/cmake/hello" cmake
fi

make -s uninstall PREFIX="$prefix" BUILD="$folder/build" > /dev/null
[ -z "$(find "$prefix" -name '*elcache*')" ] || fail "uninstall left something"
