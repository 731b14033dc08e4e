#!/bin/sh
# SPDX-License-Identifier: MIT
# The public headers, each alone and twice, without a warning from any compiler that is here, in each
# language that they promise.  usage: headers.sh INCLUDE_DIR
set -eu

include=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for header in cfutures.h cfutures/provider.h; do
    printf '#include <%s>\n#include <%s>\n' "$header" "$header" >"$scratch/$(basename "$header").c"
done

warnings='-Werror -Wall -Wextra -Wpedantic -Wconversion -Wshadow'
c_warnings='-Wstrict-prototypes -Wmissing-prototypes'
count=0

# compiles COMPILER LANGUAGE STANDARD [FLAG...]
compiles() {
    command -v "$1" >/dev/null || return 0
    for file in "$scratch"/*.c; do
        # shellcheck disable=SC2086
        "$1" -x "$2" "-std=$3" $warnings -I"$include" -fsyntax-only "$file" ${4:-}
        count=$((count + 1))
    done
}

for compiler in gcc clang; do
    compiles "$compiler" c c99 "$c_warnings"
    compiles "$compiler" c c11 "$c_warnings"
done
for compiler in g++ clang++; do
    compiles "$compiler" c++ c++11
    compiles "$compiler" c++ c++20
done
echo "$count times without a warning"
[ "$count" -gt 0 ] || exit 77
