#!/bin/sh
# SPDX-License-Identifier: MIT
# The Python extension stands on the public headers alone, and compiles without a warning from gcc and
# from clang.  usage: binding.sh ROOT DIRECTORY_OF_PYTHON_H
set -eu

root=$1 python=$2
cd "$root/python/src"
if grep -En '^ *# *include *("[^"]*/|<[^>]*cfutures|"cfutures)' ./*.[ch] |
    grep -Ev '<cfutures(/provider)?\.h>'; then
    echo "these are no public headers, and not its own"
    exit 1
fi

warnings='-Werror -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes'
count=0
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    for file in ./*.c; do
        # shellcheck disable=SC2086
        "$compiler" -std=c11 -O2 $warnings -I"$root/include" -isystem "$python" -c -o /dev/null "$file"
        count=$((count + 1))
    done
done
echo "$count times without a warning"
[ "$count" -gt 0 ] || exit 77
