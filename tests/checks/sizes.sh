#!/bin/sh
# SPDX-License-Identifier: MIT
# Functions of one idea: none in src/ above 80 lines or 15 branches, nine in ten within 35 lines.
# usage: sizes.sh SRC
set -eu

command -v pmccabe >/dev/null || { echo "pmccabe is not installed"; exit 77; }
find "$1" -name '*.c' -exec pmccabe {} + | sort -k5,5n | awk -F '\t' '
    { lines[NR] = $5; if ($1 > complex) { complex = $1; most = $6 } }
    $5 > 35 { long++ }
    $5 > 80 || $1 > 15 { printf "%s: %d lines, complexity %d\n", $6, $5, $1; huge++ }
    END {
        if (NR == 0) { print "no functions"; exit 1 }
        printf "%d functions, median %d lines, longest %d; above 35 lines: %.1f %%; most complex: %d (%s)\n",
            NR, lines[int((NR + 1) / 2)], lines[NR], 100 * long / NR, complex, most
        exit huge > 0 || long * 10 > NR
    }'
