#!/bin/sh
# SPDX-License-Identifier: MIT
# The first C program in README.md compiles without a warning, and prints what the block after it says.
# usage: readme.sh README INCLUDE_DIR STATIC_LIBRARY
set -eu

readme=$1 include=$2 library=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

awk '/^```/ { if (inside) exit; inside = $0 == "```c"; next } inside' "$readme" >"$scratch/readme.c"
awk '/^```/ { if (state || $0 == "```c") state++; if (state > 3) exit; next } state == 3' \
    "$readme" >"$scratch/expected"

"${CC:-cc}" -std=c11 -Werror -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes \
    -Wmissing-prototypes -I"$include" "$scratch/readme.c" "$library" -pthread -o "$scratch/readme"
"$scratch/readme" >"$scratch/printed"
diff -u "$scratch/expected" "$scratch/printed"
cat "$scratch/printed"
