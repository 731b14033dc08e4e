#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Runs an example and compares what it prints with NAME.expected beside this script.
# usage: check.sh BINARY NAME        (CHECK_TIMEOUT: seconds, 50 if not set)
#
# It must end by itself with status 0 and print nothing on its standard error.
# match.py says what an .expected file may contain.

set -u
if [ $# -ne 2 ]; then
    echo "usage: check.sh BINARY NAME" >&2
    exit 2
fi
binary=$1
name=$2
limit=${CHECK_TIMEOUT:-50}
here=$(dirname "$0")
if [ ! -f "$here/$name.expected" ]; then
    echo "there is no $here/$name.expected" >&2
    exit 2
fi
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# A crash on purpose is to be what it is without a sanitizer: a death by SIGSEGV, without a report.
ASAN_OPTIONS="handle_segv=0:${ASAN_OPTIONS-}"
TSAN_OPTIONS="handle_segv=0:${TSAN_OPTIONS-}"
export ASAN_OPTIONS TSAN_OPTIONS

timeout -k 5 "$limit" "$binary" >"$work/out" 2>"$work/err" </dev/null
status=$?

failed=0
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "$name: did not end within $limit s"
    failed=1
elif [ "$status" -ne 0 ]; then
    echo "$name: exit status $status instead of 0"
    failed=1
fi
if [ -s "$work/err" ]; then
    echo "$name: on standard error:"
    sed 's/^/    /' "$work/err"
    failed=1
fi
python3 "$here/match.py" "$here/$name.expected" "$work/out" || failed=1
exit $failed
