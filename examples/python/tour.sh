#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A tour of the Python package for newcomers: runs a choice of the examples, about a minute of them, with
# a line about each, and ends with a table of the same programs on the standard module.
# usage: [PYTHONPATH=DIRECTORY] tour.sh [PYTHON]
#        DIRECTORY is where the package is, if it is not installed; PYTHON the interpreter, else $PYTHON,
#        else python3

set -u
python=${1:-${PYTHON:-python3}}
examples=$(cd "$(dirname "$0")" && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
began=$(date +%s)
count=0
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

bold='' plain=''
if [ -t 1 ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi

give_up() {
    printf '\n%sThe tour ends here: %s%s\n' "$bold" "$1" "$plain"
    exit 1
}

chapter() {
    printf '\n%s==== %s ====%s\n' "$bold" "$1" "$plain"
}

# show NAME HEADING EXPLANATION [ARGUMENT...]: runs an example; what it prints is kept in $work/NAME
show() {
    name=$1 heading=$2 explanation=$3
    shift 3
    count=$((count + 1))
    printf '\n%s%s%s  [examples/python/%s.py]\n%s\n\n' "$bold" "$heading" "$plain" "$name" "$explanation"
    {
        timeout -k 5 60 "$python" "$examples/$name.py" "$@" 2>&1
        echo $? >"$work/status"
    } | tee "$work/$name" | grep --line-buffered -v '^$' | sed -u 's/^/    /'
    status=$(cat "$work/status")
    [ "$status" -eq 0 ] || give_up "$name failed with status $status"
}

# has MODULE PACKAGE: whether an example can run; if not, says what to install
has() {
    "$python" -c "import $1" 2>/dev/null && return
    printf '\n(Left out: an example that needs %s, Debian package %s.)\n' "$1" "$2"
    return 1
}

# again NAME [ARGUMENT...]: the same example with `cfutures` being nothing but the standard module
again() {
    name=$1
    shift
    mkdir -p "$work/standard"
    echo 'from concurrent.futures import *' >"$work/standard/cfutures.py"
    PYTHONPATH=$work/standard timeout -k 5 60 "$python" "$examples/$name.py" "$@" >"$work/$name.standard" 2>&1 ||
        give_up "$name failed with the standard module"
}

# compare WHAT NAME PATTERN: one row of the last table; the pattern's group is the time in what NAME said
compare() {
    ours=$(sed -En "s/$3/\1/p" "$work/$2") standard=$(sed -En "s/$3/\1/p" "$work/$2.standard")
    awk -v what="$1" -v before="$standard" -v after="$ours" 'BEGIN {
        if (before == "" || after == "" || after <= 0)
            exit 1
        printf "%-46s %9.3f s %9.3f s %7.1f x\n", what, before, after, before / after
    }' || give_up "no times for: $1"
}

"$python" -c 'import cfutures' || give_up "$python finds no cfutures; where is it? (PYTHONPATH)"

chapter "Calls and their results"
show 01_submit "Submit" \
    "Three calls on three threads; each result is taken as soon as it is there."
show 03_map "Map" \
    "The results come in the order of the arguments."
show 04_map_two_lists "Map with several parameters" \
    "One list for each of them."
show 09_squares "Map, or submit and as_completed" \
    "Map keeps the order; as_completed gives what is there first."
show 07_results_by_submit "Five tasks on two threads" \
    "Two run at a time, the others wait in the queue; the log says where each ran."

chapter "When things go wrong"
show 11_errors "Errors" \
    "One task of ten fails; its error shows where its result is asked for, the others go on."
show 12_timeouts "Time limits" \
    "Waiting ends after a limit; the task that was waited for goes on."
show 13_callbacks "Callbacks" \
    "A function that is called with each future once it is done, failed or not."

chapter "Where it belongs: threads wait, processes compute"
if has requests python3-requests; then
    show 16_pages "Pages from a web server" \
        "Four requests of 0.2 s to a server that the example starts itself."
    show 26_pipeline "A pipeline of three stages" \
        "Threads download, processes compute, threads save; the files are read back."
fi
show 23_primes_three_ways "Counting primes three ways" \
    "One after the other, on threads that share one interpreter lock, and in processes." 1000000
if has PIL python3-pil; then
    show 25_contour "Outlines of pictures" \
        "Pillow in worker processes; the program paints some pictures first."
fi
show 29_asyncio "asyncio" \
    "An event loop takes these pools and futures as its own."

chapter "What the standard module has not"
show 27_crash "Crashes" \
    "A task may take its worker process with it, but nobody else; its future says how it died."
show 28_stop "Limits, and stop" \
    "A task that runs for too long is stopped, by itself or when you say so; the pool goes on."
show 21_cancel_and_bound "A queue with an end" \
    "What is too much is refused or waits; a map takes from an endless generator as it needs."
show 22_quicksort "Tasks that wait for tasks" \
    "On one thread, and it does not stand still."

chapter "What an own engine gains"
show 24_chunk_table "Small tasks, in chunks or not" \
    "A task has a way to go to its process; the library lets small ones travel together by itself." \
    2 1 10000 1000 2 10 10000 1000 2 100 10000 1000
show 10_ten_million_squares "Calls of nothing" \
    "A hundred thousand of the article's ten million squares, on worker processes." 100000
show 19_tiny_tasks "A hundred multiplications" \
    "Sometimes a loop is best."

printf '\nThe last three once more, with the standard module ...\n'
again 24_chunk_table 2 1 10000 1000 2 10 10000 1000 2 100 10000 1000
again 10_ten_million_squares 100000
again 19_tiny_tasks
printf '\n%-46s %11s %11s %9s\n' "" "standard" "cfutures" "gain"
compare "10,000 small tasks, 2 processes" 24_chunk_table '^2 1 10,000 1,000 (.*)'
compare "the same, chunks of 10" 24_chunk_table '^2 10 10,000 1,000 (.*)'
compare "the same, chunks of 100" 24_chunk_table '^2 100 10,000 1,000 (.*)'
compare "100,000 squares, a process for each CPU" 10_ten_million_squares '^Time taken: (.*) seconds'
compare "100 multiplications, 100 threads" 19_tiny_tasks '^100 workers: (.*)s'
compare "100 multiplications, 4 threads" 19_tiny_tasks '^4 workers: (.*)s'

printf '\nAll %d examples ran, in %d s.\n' "$count" "$(($(date +%s) - began))"
