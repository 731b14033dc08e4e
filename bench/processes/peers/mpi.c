/* SPDX-License-Identifier: MIT */
/* MPI point to point: rank 0 sends a message for each task to one of the other ranks, which sends one
 * back.  mpirun makes the processes, so a pool's start is mpirun's: BENCH_BEGAN in the environment says
 * when that was (CLOCK_MONOTONIC, ns). */
#include "../pool.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_WORKERS    16
#define WINDOW          256    /* tasks that a worker has at most */
#define PARENT_LATER_US 200000 /* so that the others have come to where they wait */

enum tag { TASK, LARGE };

struct cell {
    struct message result;
    bool done;
};

static struct {
    struct cell *window[WINDOW];
    unsigned sent, received;
} ranks[MOST_WORKERS + 1]; /* 0 is the parent */

static const char *version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",")] = '\0';
    return text;
}

static void put(const void *data, size_t size, int rank, enum tag tag)
{
    MPI_Send(data, (int)size, MPI_BYTE, rank, tag, MPI_COMM_WORLD);
}

/* From whom it came. */
static int get(void *data, size_t size, int rank, enum tag tag)
{
    MPI_Status status;
    MPI_Recv(data, (int)size, MPI_BYTE, rank, tag, MPI_COMM_WORLD, &status);
    return status.MPI_SOURCE;
}

/* ---- the workers ---------------------------------------------------------------------------- */

static void answer_large(const struct message *arg, struct message *result)
{
    static void *data;
    static size_t room;
    size_t size = (size_t)arg->number;
    if (size > room)
        data = realloc(data, room = size);
    if (arg->steps == BENCH_SEND) {
        get(data, size, 0, LARGE);
        result->number = (int64_t)bench_read(data, size);
        put(result, sizeof(*result), 0, TASK);
    } else {
        bench_fill(data, size);
        put(data, size, 0, LARGE);
    }
}

static void work(void)
{
    for (struct message arg, result;;) {
        get(&arg, sizeof(arg), 0, TASK);
        if (arg.steps == BENCH_QUIT)
            break;
        if (arg.steps == BENCH_SEND || arg.steps == BENCH_FETCH) {
            answer_large(&arg, &result);
            continue;
        }
        bench_answer(&arg, &result);
        put(&result, sizeof(result), 0, TASK);
    }
    MPI_Finalize();
    exit(0);
}

/* ---- the parent ----------------------------------------------------------------------------- */

/* The others wait in MPI_Init, asleep, while the parent measures what does not need them. */
static void begin(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"); /* Open MPI */
    if (rank == NULL)
        rank = getenv("PMI_RANK"); /* MPICH */
    if (rank == NULL)
        bench_die("not started by mpirun");
    if (atoi(rank) == 0) {
        if (strncmp(run.workload, "P4", 2) == 0)
            usleep(PARENT_LATER_US);
        return;
    }
    MPI_Init(NULL, NULL);
    work();
}

static void open_pool(void)
{
    int count;
    MPI_Init(NULL, NULL);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    if (count != run.workers + 1 || run.workers > MOST_WORKERS)
        bench_die("mpirun has made another number of processes");
}

static void close_pool(void)
{
    struct message quit = { .steps = BENCH_QUIT };
    for (int rank = 1; rank <= run.workers; rank++)
        put(&quit, sizeof(quit), rank, TASK);
    MPI_Finalize();
}

static void receive(void)
{
    struct message result;
    int rank = get(&result, sizeof(result), MPI_ANY_SOURCE, TASK);
    struct cell *cell = ranks[rank].window[ranks[rank].received++ % WINDOW];
    cell->result = result;
    cell->done = true;
}

static unsigned in_hand(int rank)
{
    return ranks[rank].sent - ranks[rank].received;
}

static int least_busy(void)
{
    int best = 1;
    for (int rank = 2; rank <= run.workers; rank++)
        if (in_hand(rank) < in_hand(best))
            best = rank;
    return best;
}

static void submit(void *place, const struct message *arg)
{
    struct cell *cell = place;
    int rank = least_busy();
    for (; in_hand(rank) == WINDOW; rank = least_busy())
        receive();
    cell->done = false;
    ranks[rank].window[ranks[rank].sent++ % WINDOW] = cell;
    put(arg, sizeof(*arg), rank, TASK);
}

static void collect(void *place, struct message *result)
{
    struct cell *cell = place;
    while (!cell->done)
        receive();
    *result = cell->result;
}

static uint64_t send_large(const void *data, size_t size)
{
    struct message arg = { .number = (int64_t)size, .steps = BENCH_SEND }, result;
    put(&arg, sizeof(arg), 1, TASK);
    put(data, size, 1, LARGE);
    get(&result, sizeof(result), 1, TASK);
    return (uint64_t)result.number;
}

static uint64_t fetch_large(size_t size)
{
    struct message arg = { .number = (int64_t)size, .steps = BENCH_FETCH };
    void *data = malloc(size);
    if (data == NULL)
        bench_die("no memory");
    put(&arg, sizeof(arg), 1, TASK);
    get(data, size, 1, LARGE);
    uint64_t sum = bench_read(data, size);
    free(data);
    return sum;
}

static void first_result(void)
{
    struct cell cell;
    struct message arg = { .number = 1 }, result;
    const char *began = getenv("BENCH_BEGAN");
    if (began == NULL)
        bench_die("BENCH_BEGAN is not set");
    open_pool();
    submit(&cell, &arg);
    collect(&cell, &result);
    double took = (double)(bench_now() - atoll(began)) / 1e3;
    close_pool();
    bench_print("us=%.1f", took);
}

static const struct workload own[] = { { "P6", first_result }, { NULL, NULL } };

const struct peer peer = {
    .name = "mpi",
    .version = version,
    .begin = begin,
    .open = open_pool,
    .close = close_pool,
    .cell_size = sizeof(struct cell),
    .submit = submit,
    .collect = collect,
    .send = send_large,
    .fetch = fetch_large,
    .own = own,
};
