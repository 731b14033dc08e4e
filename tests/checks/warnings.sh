#!/bin/sh
# SPDX-License-Identifier: MIT
# The library's sources without a warning from gcc and from clang, whichever of them built it.
# Optimized, because some warnings need the optimizer.  usage: warnings.sh ROOT
set -eu

root=$1
warnings='-Werror -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes'
count=0
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    for debug in -UCFI_DEBUG -DCFI_DEBUG; do
        for file in "$root"/src/*/*.c; do
            # shellcheck disable=SC2086
            "$compiler" -std=c11 -O2 $warnings "$debug" -I"$root/include" -I"$root/src" \
                -c -o /dev/null "$file"
            count=$((count + 1))
        done
    done
done
echo "$count times without a warning"
[ "$count" -gt 0 ] || exit 77
