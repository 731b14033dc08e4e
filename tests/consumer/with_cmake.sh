#!/bin/sh
# SPDX-License-Identifier: MIT
# A CMake project, C and C++, shared and static, that finds the library or contains it.
# usage: with_cmake.sh CMAKE -DCMAKE_PREFIX_PATH=... | -DCFUTURES_SOURCE_DIR=...
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$1" -S "$(dirname "$0")/cmake" -B "$scratch" "$2"
"$1" --build "$scratch"
for program in "$scratch"/programs/*; do
    printed=$("$program")
    echo "$(basename "$program"): $printed"
    [ "$printed" = "6 times 7 is 42" ]
done
if [ -e "$scratch/cfutures/tests" ]; then
    echo "the library's tests came with it"
    exit 1
fi
