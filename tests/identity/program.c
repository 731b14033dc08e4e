/* SPDX-License-Identifier: MIT */
/* Functions have the same names in two processes of one program, wherever each was loaded: runs itself
 * again, and finds here what the other process names.  Built in every way that programs are linked. */
#define _GNU_SOURCE
#include "wire/identity.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int of_the_program(const void *arg, void *result)
{
    (void)arg, (void)result;
    return 0;
}

/* Of the program, of the libraries it is linked with, and of the C library. */
static cfi_function *function(size_t i)
{
    switch (i) {
    case 0:
        return (cfi_function *)of_the_program;
    case 1:
        return (cfi_function *)cf_map;
    case 2:
        return (cfi_function *)qsort;
    case 3:
        return (cfi_function *)(double (*)(double, double))fmod;
    default:
        return NULL;
    }
}

struct named {
    struct cfi_image_name image;
    uint64_t offset;
};

static int fail(const char *what, size_t i)
{
    fprintf(stderr, "%s function %zu: %s\n", what, i, cf_last_error()->message);
    return EXIT_FAILURE;
}

static int name_functions(int pipe)
{
    for (size_t i = 0; function(i); i++) {
        struct cfi_identity identity;
        if (cfi_identify(function(i), &identity) != CF_OK)
            return fail("cannot name", i);
        struct named named = { .offset = identity.offset };
        named.image = *cfi_image_name(identity.image);
        if (write(pipe, &named, sizeof named) != (ssize_t)sizeof named)
            return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static int find_functions(int pipe)
{
    for (size_t i = 0; function(i); i++) {
        struct named named;
        unsigned number;
        if (read(pipe, &named, sizeof named) != (ssize_t)sizeof named)
            return EXIT_FAILURE;
        if (cfi_image_find(&named.image, &number) != CF_OK)
            return fail("cannot find", i);
        if (cfi_image_function(number, named.offset) != function(i))
            return fail("found another one than", i);
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return name_functions(STDOUT_FILENO);
    int ends[2], status;
    if (pipe(ends) != 0)
        return EXIT_FAILURE;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", argv[0], "name", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    int result = find_functions(ends[0]);
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        return EXIT_FAILURE;
    return result;
}
