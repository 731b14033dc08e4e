#!/bin/sh
# SPDX-License-Identifier: MIT
# A program that links the static library gets no name that does not begin with cf_ or cfi_.
# usage: names.sh NM STATIC_LIBRARY
set -eu

"$1" --extern-only --defined-only --format=posix "$2" | awk '
    NF == 1 { next } # the name of a file in the archive
    { count++ }
    $1 !~ /^cfi?_/ { print $1 ": neither cf_ nor cfi_"; others++ }
    END { print count + 0 " names"; exit others > 0 || count == 0 }'
