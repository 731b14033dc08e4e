#!/bin/sh
# SPDX-License-Identifier: MIT
#
# A tour for newcomers: runs every example in a sensible order with a line about each, and ends with a
# table of what running things at the same time has gained on this machine.
# usage: tour.sh DIRECTORY        (where the compiled examples are)

set -u
if [ $# -ne 1 ] || [ ! -d "$1" ]; then
    echo "usage: $0 DIRECTORY_OF_THE_COMPILED_EXAMPLES" >&2
    exit 2
fi
programs=$1
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
began=$(date +%s)
count=0
read -r load_before _ </proc/loadavg

bold='' plain=''
if [ -t 1 ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi

# Into a pipe programs print in large blocks; this lets the lines come as they are printed.
by_lines=''
if command -v stdbuf >/dev/null; then
    by_lines='stdbuf -oL'
fi

give_up() {
    printf '\n%sThe tour ends here: %s%s\n' "$bold" "$1" "$plain"
    exit 1
}

chapter() {
    printf '\n%s==== %s ====%s\n' "$bold" "$1" "$plain"
}

# show NAME HEADING EXPLANATION: runs an example; what it prints is kept in $work/NAME
show() {
    count=$((count + 1))
    printf '\n%s%s%s  [examples/%s.c]\n%s\n\n' "$bold" "$2" "$plain" "$1" "$3"
    [ -x "$programs/$1" ] || give_up "there is no $programs/$1; are the examples compiled?
(Those of pages and pictures need libcurl, libmicrohttpd, jansson and libturbojpeg.)"
    {
        # shellcheck disable=SC2086  # no word at all where there is no stdbuf
        timeout -k 5 60 $by_lines "$programs/$1" 2>&1
        echo $? >"$work/status"
    } | tee "$work/$1" | sed -u 's/^/    /'
    status=$(cat "$work/status")
    [ "$status" -eq 0 ] || give_up "$1 failed with status $status"
}

# seconds NAME LABEL: the time on the line "LABEL: 1.234 s" of an example that has run
seconds() {
    sed -n "s/^$2: \([0-9.]*\) s.*/\1/p" "$work/$1"
}

# chunk_seconds NAME WORKERS TASKS: the time without chunk_size in the first such row of a table
chunk_seconds() {
    awk -v workers="$2" -v tasks="$3" '$1 == workers && $3 == tasks { print $6; exit }' "$work/$1"
}

# gain WHAT SEQUENTIAL CONCURRENT: one row of the last table
gain() {
    awk -v what="$1" -v before="$2" -v after="$3" 'BEGIN {
        if (before == "" || after == "" || after <= 0)
            exit 1
        printf "%-46s %9.3f s %9.3f s %7.1f x\n", what, before, after, before / after
    }' || give_up "no times for: $1"
}

chapter "Calls and their results"
show 01_submit "Submit" \
    "Three calls on three workers; each result is taken as soon as it is there."
show 02_fetch_data "Strings in, strings out" \
    "Three slow requests, simulated; they wait at the same time."
show 03_map "Map" \
    "An array of arguments in, an array of results out, in the order of the arguments."
show 04_map_two_arrays "Map over two arrays" \
    "x * y for two lists of numbers: as pairs, and as two columns."
show 05_upper "Map over words" \
    "Arguments and results of any size."
show 09_squares "Map, or submit and as_completed" \
    "Map keeps the order; as_completed gives what is there first."

chapter "Who runs what, and when"
show 06_two_threads "Five tasks on two threads" \
    "Tasks of one second each: two run at a time, the others wait in the queue."
show 07_results_by_submit "The same with results, by submit" \
    "A future for each call, asked for its result in the end."
show 08_results_by_map "The same with results, by map" \
    "The lazy map returns at once; its results are read one after the other."

chapter "When things go wrong"
show 11_errors "Errors" \
    "One task of ten fails; its error shows where its result is asked for, the others go on."
show 12_timeouts "Time limits" \
    "Waiting ends after a limit; the task that was waited for goes on."
show 13_callbacks "Callbacks" \
    "A function that is called with each future once it is done, failed or not."
show 14_progress "Progress" \
    "Callbacks that count."
show 15_random_delays "As they complete" \
    "Ten tasks that take a random time, on four workers; the fastest come first."
show 21_cancel_and_bound "Cancelling, stopping, and a queue with an end" \
    "What waits can be cancelled, what runs can be asked to stop, what is too much is refused."
show 22_quicksort "Tasks that wait for tasks" \
    "A sort that submits its own halves to a pool of one worker, and does not stand still."

chapter "What it gains"
show 16_pages "Pages from a web server" \
    "Four requests of 0.2 s to a server that the example starts itself."
show 17_pages_with_failures "Pages, two of which fail" \
    "Names of users out of JSON; a missing page and a refused connection cost nobody else anything."
show 18_primes "Counting primes" \
    "Work for the CPU in ten pieces: threads in C use all the CPUs."
show 10_ten_million_squares "Ten million squares" \
    "Calls of a nanosecond each: by map one by one they gain little, in ranges they do."
show 19_tiny_tasks "A hundred multiplications" \
    "Sometimes a loop is best: starting threads takes longer than this work."
show 20_chunks "Large and small tasks, with and without chunks" \
    "Ten settings of workers and chunks; in the last column the library chooses the chunks."

chapter "In processes of their own"
show 23_primes_three_ways "Counting primes three ways" \
    "One function, called in a loop, on threads and in worker processes: only the executor differs."
show 24_chunks_by_processes "Chunks once more" \
    "A task has a way to go to its process; the library lets small ones travel together by itself."
show 25_contour "Outlines of pictures" \
    "JPEG files in, JPEG files out, and a line for each once it is done; one of them is damaged."
show 26_pipeline "A pipeline of three stages" \
    "Threads download, processes compute, threads save; the files are read back."
show 27_crash "Crashes" \
    "A task may take its worker process with it, but nobody else; its future says how it died."

chapter "What running things at the same time has gained"
printf '\n%-46s %11s %11s %9s\n' "" "one by one" "cfutures" "gain"
gain "4 pages of 0.2 s, 4 threads" "$(seconds 16_pages Sequential)" "$(seconds 16_pages Concurrent)"
primes=23_primes_three_ways
gain "primes below 2,000,000, 4 threads" "$(seconds $primes Sequential)" "$(seconds $primes Threads)"
gain "primes below 2,000,000, 4 processes" "$(seconds $primes Sequential)" "$(seconds $primes Processes)"
for by in CF_MAP cf_map_range; do
    gain "10,000,000 squares, $by" "$(seconds 10_ten_million_squares "Serial loop")" \
        "$(seconds 10_ten_million_squares $by)"
done
threads=20_chunks processes=24_chunks_by_processes
gain "100 large tasks, 1 and 2 threads" "$(chunk_seconds $threads 1 100)" "$(chunk_seconds $threads 2 100)"
gain "100 large tasks, 1 and 2 processes" "$(chunk_seconds $processes 1 100)" \
    "$(chunk_seconds $processes 2 100)"
gain "10,000 small tasks, 1 and 2 threads" "$(chunk_seconds $threads 1 10000)" \
    "$(chunk_seconds $threads 2 10000)"
gain "10,000 small tasks, 1 and 2 processes" "$(chunk_seconds $processes 1 10000)" \
    "$(chunk_seconds $processes 2 10000)"
gain "17 pictures, a process for each CPU" "$(seconds 25_contour Sequential)" \
    "$(seconds 25_contour Processes)"
cat <<END

The times are those printed above.  Work that waits can gain as much as there are threads, work that
computes as much as there are free CPUs: this process may use $(nproc), and $load_before programs on average
were running already when the tour began.
END
printf '\nAll %d examples ran, in %d s.\n' "$count" "$(($(date +%s) - began))"
