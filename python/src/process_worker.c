/* SPDX-License-Identifier: MIT */
/* In a worker process: its life, and the making of calls.
 *
 * The worker's thread keeps the GIL from call to call and lets go of it when it rests.  A signal that
 * comes while it rests is for Python's handlers: Ctrl-C means nothing to a worker without a call, and
 * what else a handler raises ends the worker. */
#include "process.h"

#include <errno.h>
#include <unistd.h>

static struct {
    PyObject *initializer; /* called without arguments; None: none */
    PyObject *unfit;       /* (exception): it has failed */
    PyObject *wrap;        /* (exception, is_ours): what is sent in its place; is_ours: nothing was
                              called */
    PyObject *raised;      /* by a signal handler: the worker leaves with it */
} worker;

/* ---- rest ---- */

static void before_rest(void *unused)
{
    (void)unused;
    cfpy_let_go();
}

/* The GIL will be needed in any case. */
static bool after_rest(void *unused, bool signalled)
{
    (void)unused;
    (void)signalled;
    cfpy_hold();
    if (PyErr_CheckSignals() == 0)
        return true;
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_Clear();
        return true;
    }
    Py_XSETREF(worker.raised, cfpy_fetch_exception());
    return false;
}

static const cf_wait_hooks hooks = { .size = sizeof hooks,
                                     .before = before_rest,
                                     .after = after_rest };

/* ---- replies ---- */

static int write_reply(struct cfpy_pickle *pickle, unsigned flags, cf_bytes *reply)
{
    cf_status s = cf_bytes_resize(reply, cfpy_pickle_size(pickle));
    if (s == CF_OK)
        cfpy_pickle_write(pickle, flags, reply->data);
    else
        PyErr_NoMemory();
    return s == CF_OK ? 0 : -1;
}

/* -1: an exception is set. */
static int reply_with(PyObject *object, unsigned flags, cf_bytes *reply)
{
    struct cfpy_pickle pickle;
    int failed = cfpy_pickle_dump(object, &pickle);
    if (!failed)
        failed = write_reply(&pickle, flags, reply);
    cfpy_pickle_clear(&pickle);
    return failed;
}

PyObject *cfpy_exception_to_send(bool is_ours)
{
    PyObject *error = cfpy_fetch_exception();
    PyObject *sent =
        PyObject_CallFunctionObjArgs(worker.wrap, error, is_ours ? Py_True : Py_False, NULL);
    Py_DECREF(error);
    return sent;
}

/* Replies with the exception that is set, or with why that cannot travel. */
static int reply_with_failure(bool is_ours, cf_bytes *reply)
{
    for (int tries = 0; tries < 3; tries++) {
        PyObject *sent = cfpy_exception_to_send(is_ours && tries == 0);
        int failed = sent ? reply_with(sent, CFPY_IS_EXCEPTION, reply) : -1;
        Py_XDECREF(sent);
        if (!failed)
            return 0;
    }
    PyErr_Clear();
    return cf_raise(1, "a call's exception could not be sent");
}

/* ---- calls ---- */

/* fn(*args, **named) of the tuple (fn, args) or (fn, args, named). */
static PyObject *call(PyObject *tuple)
{
    PyObject *named = PyTuple_GET_SIZE(tuple) > 2 ? PyTuple_GET_ITEM(tuple, 2) : NULL;
    return PyObject_Call(PyTuple_GET_ITEM(tuple, 0), PyTuple_GET_ITEM(tuple, 1), named);
}

int cfpy_run_call(const void *message, size_t size, cf_bytes *reply)
{
    cfpy_hold();
    bool is_batch = *(const unsigned char *)message & CFPY_IS_BATCH;
    int64_t since = is_batch ? cfpy_now() : 0;
    PyObject *tuple = cfpy_pickle_load(message, size);
    if (!tuple)
        return reply_with_failure(true, reply);
    PyObject *result = is_batch ? cfpy_batch_run(tuple, since) : call(tuple);
    PyObject *light = result ? cfpy_lightened(result) : NULL;
    int failed = light ? reply_with(light, 0, reply) : -1;
    Py_XDECREF(light);
    if (failed)
        failed = reply_with_failure(false, reply);
    Py_XDECREF(result);
    Py_DECREF(tuple);
    return failed;
}

int cfpy_run_initializer(void *unused)
{
    (void)unused;
    cfpy_hold();
    PyObject *result = PyObject_CallNoArgs(worker.initializer);
    if (!result) {
        PyObject *error = cfpy_fetch_exception();
        PyObject *said = PyObject_CallOneArg(worker.unfit, error);
        Py_DECREF(error);
        if (!said)
            PyErr_WriteUnraisable(worker.unfit);
        Py_XDECREF(said);
        return cf_raise(1, "the initializer of a worker process raised an exception");
    }
    Py_DECREF(result);
    return 0;
}

/* ---- a life ---- */

/* (channel, initializer or None, unfit, wrap): the exit status. */
PyObject *cfpy_run_worker(PyObject *module, PyObject *args)
{
    int channel;
    (void)module;
    if (!PyArg_ParseTuple(args, "iOOO", &channel, &worker.initializer, &worker.unfit, &worker.wrap))
        return NULL;
    Py_INCREF(args); /* for good: the process is the worker's */
    const cf_wait_hooks *former = cf_set_wait_hooks(&hooks);
    int status = cf_worker_run_channel(channel);
    cfpy_wait_end(former); /* the channel stays open to the end: one that hangs up is killed soon */
    if (!worker.raised)
        return PyLong_FromLong(status);
    PyErr_SetObject((PyObject *)Py_TYPE(worker.raised), worker.raised);
    return NULL;
}

/* os.fork(), without its warning that there are threads: the engine's own hold no lock of Python's. */
PyObject *cfpy_fork(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (PySys_Audit("os.fork", NULL) < 0)
        return NULL;
    PyOS_BeforeFork();
    pid_t pid = fork();
    int error = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    errno = error;
    return pid < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(pid);
}
