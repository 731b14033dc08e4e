/* SPDX-License-Identifier: MIT */
/* What became of a call: the reply is unpickled by the first who reads the future, on its thread.
 *
 * That may run Python code, which lets go of the GIL, so several may be at it at once.  The first to
 * end wins: all see the same object.  The last to leave frees the reply.
 *
 * Until there is a value the future's `value` is the pool's crew (process.py), which knows what to
 * make of a failure. */
#include "process.h"

bool cfpy_reply_failed(const cfpy_future *self)
{
    const void *data;
    return cf_future_peek(self->future, 0, &data, NULL) != CF_OK ||
           *(const unsigned char *)data & CFPY_IS_EXCEPTION;
}

static void store(cfpy_future *self, enum cfpy_kind kind, PyObject *stolen)
{
    if (self->kind == CFPY_NOTHING)
        cfpy_future_set(self, kind, stolen);
    else
        Py_DECREF(stolen);
}

static PyObject *crew_of(const cfpy_future *self)
{
    return self->kind == CFPY_NOTHING && self->value ? Py_NewRef(self->value) : NULL;
}

/* The exception in the place of one that is set: the crew's word for a reply that makes no sense. */
static PyObject *unreadable(PyObject *crew)
{
    PyObject *error = cfpy_fetch_exception();
    PyObject *made = PyObject_CallMethod(crew, "unreadable", "O", error);
    Py_DECREF(error);
    return made;
}

/* Is what is set nobody's message?  Then it concerns the reader. */
static bool is_readers_own(void)
{
    return PyErr_ExceptionMatches(PyExc_MemoryError) ||
           PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

static int decode(cfpy_future *self, const unsigned char *data, size_t size)
{
    enum cfpy_kind kind = data[0] & CFPY_IS_EXCEPTION ? CFPY_EXCEPTION : CFPY_RESULT;
    PyObject *crew = crew_of(self);
    self->readers++;
    PyObject *value = cfpy_pickle_load(data, size);
    if (!value && crew && !is_readers_own()) {
        kind = CFPY_EXCEPTION;
        value = unreadable(crew);
    }
    self->readers--;
    Py_XDECREF(crew);
    if (value)
        store(self, kind, value);
    if (self->kind != CFPY_NOTHING && self->readers == 0) {
        cf_bytes reply = { NULL, 0 };
        (void)cf_future_take(self->future, 0, &reply, sizeof reply);
        cf_bytes_free(&reply);
    }
    if (self->kind == CFPY_NOTHING)
        return -1;
    PyErr_Clear(); /* another reader was luckier */
    return 0;
}

/* There is no reply: the worker died, or was stopped, or the pool is broken. */
static int make_failure(cfpy_future *self)
{
    const cf_error *e = cf_future_exception(self->future);
    PyObject *crew = crew_of(self);
    if (!crew)
        return self->kind == CFPY_NOTHING ? -1 : 0;
    PyObject *exception =
        PyObject_CallMethod(crew, "failure", "isiiii", (int)e->status, e->message, e->worker_pid,
                            e->signal_number, e->exit_code, e->out_of_memory);
    Py_DECREF(crew);
    if (!exception)
        return -1;
    store(self, CFPY_EXCEPTION, exception);
    return 0;
}

int cfpy_reply_decode(cfpy_future *self)
{
    const void *data;
    size_t size;
    if (cf_future_peek(self->future, 0, &data, &size) == CF_OK && size > 0)
        return decode(self, data, size);
    return self->kind == CFPY_NOTHING ? make_failure(self) : 0;
}
