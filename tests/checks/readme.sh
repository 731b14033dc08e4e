#!/bin/sh
# SPDX-License-Identifier: MIT
# Each C program in README.md compiles without a warning, and prints what the block after it says.
# usage: readme.sh README INCLUDE_DIR STATIC_LIBRARY
set -eu

readme=$1 include=$2 library=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Writes 1.c and 1.expected, 2.c and 2.expected, ...
awk -v to="$scratch/" '
    !/^```/ { if (file) print >file; next }
    file { file = ""; next }
    $0 == "```c" { n++; file = to n ".c"; wanted = 1; next }
    { file = wanted ? to n ".expected" : "/dev/null"; wanted = 0 }' "$readme"

for program in "$scratch"/*.c; do
    name=${program%.c}
    "${CC:-cc}" -std=c11 -Werror -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes \
        -Wmissing-prototypes -I"$include" "$program" "$library" -pthread -o "$name"
    "$name" >"$name.printed"
    diff -u "$name.expected" "$name.printed"
    cat "$name.printed"
done
