#!/bin/sh
# Builds tests/bench/store.c against a build directory (default: build) and measures the memory tier.
set -e
here=$(dirname "$0")
build=${1:-$here/../../build}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
rooms=
for room in store semantics key stats http base; do
    rooms="$rooms $build/libweir_$room.a"
done
cc -std=gnu11 -O2 -flto=auto -D_GNU_SOURCE -I"$here/../../proxy" -I"$here/../.." "$here/store.c" $rooms \
    $(pkg-config --libs libevent libevent_pthreads liburcu libxxhash) -lpthread -lm -ljemalloc \
    -o "$out/store"
status=0
"$out/store" objects || status=1
"$out/store" churn 256 10000 || status=1
"$out/store" churn 256 || status=1
"$out/store" get
exit $status
