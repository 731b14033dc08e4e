/* SPDX-License-Identifier: MIT */
/* What the files of the process pool share: pickles that travel, and how a worker is named.
 *
 * A call travels as the pickle of (fn, args) or (fn, args, kwargs), a reply as that of the result or
 * of the exception.  Both begin with one byte of flags.  Large buffers that their owners let out of
 * the pickle (numpy's arrays) lie behind it and are copied once on each side. */
#ifndef CFPY_PROCESS_H
#define CFPY_PROCESS_H

#include "binding.h"

enum { CFPY_HAS_BUFFERS = 1, CFPY_IS_EXCEPTION = 2, CFPY_IS_BATCH = 4 }; /* flags */

/* ---- process_pickle.c; all with the GIL ---- */

struct cfpy_parts {
    Py_buffer few[2];
    Py_buffer *more; /* instead of few; NULL: they suffice */
    size_t count, room;
    size_t bytes; /* of all together */
};

/* A pickle in pieces, until it is known how large it is. */
struct cfpy_pickle {
    struct cfpy_parts stream, buffers;
};

/* The object, or one in its place whose pickle leaves large bytes out: itself and, of a tuple, its
 * entries.  What is loaded is equal to the object and of its type. */
PyObject *cfpy_lightened(PyObject *object);
int cfpy_pickle_dump(PyObject *object, struct cfpy_pickle *pickle); /* -1: an exception is set */
void cfpy_pickle_clear(struct cfpy_pickle *pickle);                 /* after a failure, too */
/* How large the message is, flags included, and its writing. */
size_t cfpy_pickle_size(const struct cfpy_pickle *pickle);
void cfpy_pickle_write(const struct cfpy_pickle *pickle, unsigned flags, unsigned char *message);
/* What a message holds; NULL: an exception is set.  The message is not needed afterwards. */
PyObject *cfpy_pickle_load(const unsigned char *message, size_t size);

/* ---- process_worker.c ---- */

/* The task of the engine that makes a call, and the initializer of a worker. */
int cfpy_run_call(const void *message, size_t size, cf_bytes *reply);
int cfpy_run_initializer(void *unused);
PyObject *cfpy_run_worker(PyObject *module, PyObject *args);
PyObject *cfpy_fork(PyObject *module, PyObject *unused);
/* Takes the exception that is set; what is sent in its place, or NULL and another is set.  is_ours: it
 * came before the call. */
PyObject *cfpy_exception_to_send(bool is_ours);

/* ---- process_batch.c ---- */
PyObject *cfpy_batch_of(PyObject *fn, PyObject *calls); /* a list of argument tuples */
PyObject *cfpy_batch_run(PyObject *batch, int64_t since);
PyObject *cfpy_unpack(PyObject *module, PyObject *bytes);

/* ---- process_pool.c ---- */
PyObject *cfpy_end_of_pools(PyObject *module, PyObject *unused);

#endif
