#!/bin/sh
# Builds tests/bench/journal.c against a build directory (default: build) and runs it:
# journal.sh BUILD DIRECTORY intake ..., see there.
set -e
here=$(dirname "$0")
build=${1:-$here/../../build}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
rooms=
for room in write purge fill route upstream store semantics key stats http base; do
    rooms="$rooms $build/libweir_$room.a"
done
cc -std=gnu11 -O2 -flto=auto -D_GNU_SOURCE -I"$here/../../proxy" -I"$here/../.." "$here/journal.c" \
    $rooms $(pkg-config --libs sqlite3 openssl libevent libevent_openssl libevent_pthreads liburcu libxxhash) \
    -lpthread -lm -ljemalloc -o "$out/journal"
shift
"$out/journal" "$@"
