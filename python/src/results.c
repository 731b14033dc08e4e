/* SPDX-License-Identifier: MIT */
/* The iterator of map(): the results of a list of futures, in order.  A feeder may append to the list
 * while it is read.  The first error ends it and cancels the rest, as does close(); dropping it before
 * the first next() cancels nothing. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    PyObject *futures; /* a list; NULL: ended */
    PyObject *feed;    /* called before each result is waited for; NULL: all are in the list */
    Py_ssize_t next;   /* entries before it are None */
    int64_t deadline;
    bool begun, busy;
} results_object;

/* (futures, feed or None, timeout) */
static PyObject *results_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    PyObject *futures, *feed, *timeout;
    int64_t timeout_ns;
    if (named || !PyArg_ParseTuple(args, "O!OO", &PyList_Type, &futures, &feed, &timeout) ||
        cfpy_timeout(timeout, &timeout_ns) != 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "takes no named arguments");
    results_object *self = (results_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->futures = Py_NewRef(futures);
    self->feed = feed == Py_None ? NULL : Py_NewRef(feed);
    self->deadline = cfpy_deadline(timeout_ns);
    return (PyObject *)self;
}

static int results_traverse(PyObject *op, visitproc visit, void *arg)
{
    results_object *self = (results_object *)op;
    Py_VISIT(self->futures);
    Py_VISIT(self->feed);
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static int results_clear(PyObject *op)
{
    results_object *self = (results_object *)op;
    Py_CLEAR(self->futures);
    Py_CLEAR(self->feed);
    return 0;
}

/* Errors of a cancel are nobody's: one that is set already stays. */
static void cancel(PyObject *future)
{
    PyObject *error = PyErr_Occurred() ? cfpy_fetch_exception() : NULL;
    PyObject *done = PyObject_CallMethod(future, "cancel", NULL);
    if (!done)
        PyErr_WriteUnraisable(future);
    Py_XDECREF(done);
    if (error)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
}

/* Ends the iteration. */
static void cancel_rest(results_object *self)
{
    PyObject *futures = self->futures;
    self->futures = NULL;
    for (Py_ssize_t i = self->next; futures && i < PyList_GET_SIZE(futures); i++)
        cancel(PyList_GET_ITEM(futures, i));
    Py_XDECREF(futures);
    Py_CLEAR(self->feed);
}

static void results_dealloc(PyObject *op)
{
    results_object *self = (results_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->begun)
        cancel_rest(self);
    (void)results_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* A class of another package, or one that may have its own result(). */
static PyObject *foreign_result(PyObject *future, int64_t deadline)
{
    if (deadline == CF_FOREVER)
        return PyObject_CallMethod(future, "result", NULL);
    return PyObject_CallMethod(future, "result", "d", (double)(deadline - cfpy_now()) / 1e9);
}

static PyObject *result_of(results_object *self, PyObject *future)
{
    struct cfpy_module *m = cfpy_module_of(Py_TYPE(self));
    if (Py_TYPE(future) != (PyTypeObject *)m->Future)
        return foreign_result(future, self->deadline);
    int64_t left = self->deadline == CF_FOREVER ? CF_FOREVER : self->deadline - cfpy_now();
    int done = cfpy_future_await((cfpy_future *)future, left);
    if (done == 0)
        PyErr_SetNone(PyExc_TimeoutError);
    return done == 1 ? cfpy_future_outcome((cfpy_future *)future) : NULL;
}

/* Keeps an endless list short. */
static int drop_read(results_object *self)
{
    enum { MANY = 64 };
    if (self->next < MANY || self->next * 2 < PyList_GET_SIZE(self->futures))
        return 0;
    Py_ssize_t read = self->next;
    self->next = 0;
    return PyList_SetSlice(self->futures, 0, read, NULL);
}

static int feed(results_object *self)
{
    if (!self->feed)
        return 0;
    PyObject *fed = PyObject_CallNoArgs(self->feed);
    Py_XDECREF(fed);
    return fed ? drop_read(self) : -1;
}

/* What a call raises is an error of the iteration, never its end. */
static void rename_stop_iteration(void)
{
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return;
    PyObject *stop = cfpy_fetch_exception();
    PyErr_SetString(PyExc_RuntimeError, "generator raised StopIteration");
    PyObject *error = cfpy_fetch_exception();
    PyException_SetCause(error, stop);
    PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_DECREF(error);
}

static PyObject *next(results_object *self)
{
    if (feed(self) != 0)
        return NULL;
    if (!self->futures || self->next >= PyList_GET_SIZE(self->futures))
        return NULL;
    PyObject *future = Py_NewRef(PyList_GET_ITEM(self->futures, self->next));
    PyList_SetItem(self->futures, self->next++, Py_NewRef(Py_None));
    PyObject *result = result_of(self, future);
    if (!result) {
        rename_stop_iteration();
        cancel(future);
    }
    Py_DECREF(future);
    return result;
}

static bool is_busy(results_object *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_ValueError, "the iterator is being used by another thread");
    return self->busy;
}

static PyObject *results_next(PyObject *op)
{
    results_object *self = (results_object *)op;
    if (!self->futures || is_busy(self))
        return NULL;
    self->begun = true;
    self->busy = true;
    PyObject *result = next(self);
    if (!result)
        cancel_rest(self);
    self->busy = false;
    return result;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\nEnd the iteration, and cancel what has not begun.");

static PyObject *results_close(PyObject *op, PyObject *unused)
{
    (void)unused;
    if (is_busy((results_object *)op))
        return NULL;
    cancel_rest((results_object *)op);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    { "close", results_close, METH_NOARGS, close_doc },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_new, CFPY_SLOT(results_new) },
    { Py_tp_dealloc, CFPY_SLOT(results_dealloc) },
    { Py_tp_traverse, CFPY_SLOT(results_traverse) },
    { Py_tp_clear, CFPY_SLOT(results_clear) },
    { Py_tp_iter, CFPY_SLOT(PyObject_SelfIter) },
    { Py_tp_iternext, CFPY_SLOT(results_next) },
    { Py_tp_methods, methods },
    { 0, NULL },
};

PyType_Spec cfpy_results_spec = {
    .name = "cfutures._engine.Results",
    .basicsize = sizeof(results_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
