#!/bin/sh
# SPDX-License-Identifier: MIT
# verify.sh MODEL holds [-DMACRO...]       the model must hold in all its states
# verify.sh MODEL fails PATTERN [-DMACRO...]  an error must be found whose report has the pattern
set -eu

model=$1
wanted=$2
shift 2
optimize=-O2
if [ "$wanted" = fails ]; then
    pattern=$1
    optimize=-O0 # an error is found soon: compiling takes longer than searching
    shift
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cp "$model" "$directory/model.pml"
cd "$directory"
spin -a "$@" model.pml
"${CC:-cc}" "$optimize" -w -DSAFETY -DCOLLAPSE -o pan pan.c
./pan -m100000 >report || true
cat report

if [ "$wanted" = fails ]; then
    grep -q "pan:1: .*$pattern" report
elif grep -q -e 'too small' -e 'out of memory' -e 'not completed' report; then
    echo "the search was not complete"
    exit 1
else
    grep -q 'errors: 0$' report
fi
