/* SPDX-License-Identifier: MIT */
/* The iterator of as_completed().  Begins with its first next(), as the standard's generator does:
 * gives first those that are done by then, the engine then tells of the others. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    PyObject *source;  /* the futures, until it begins */
    PyObject *timeout; /* likewise */
    PyObject *ready;   /* a list of futures that were done, given from its end */
    PyObject *pending; /* a list of the others; None in the place of those that were given */
    PyObject *foreign; /* the standard's iterator: there are futures of other packages */
    cf_completed *completed;
    Py_ssize_t total, given;
    bool busy; /* some thread is in next() */
} completed_object;

static PyObject *completed_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    static char *names[] = { "fs", "timeout", NULL };
    PyObject *source, *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, named, "O|O:as_completed", names, &source, &timeout))
        return NULL;
    completed_object *self = (completed_object *)type->tp_alloc(type, 0);
    if (self) {
        self->source = Py_NewRef(source);
        self->timeout = Py_NewRef(timeout);
    }
    return (PyObject *)self;
}

static int completed_traverse(PyObject *op, visitproc visit, void *arg)
{
    completed_object *self = (completed_object *)op;
    Py_VISIT(self->source);
    Py_VISIT(self->timeout);
    Py_VISIT(self->ready);
    Py_VISIT(self->pending);
    Py_VISIT(self->foreign);
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static int completed_clear(PyObject *op)
{
    completed_object *self = (completed_object *)op;
    self->completed = cf_completed_free(self->completed);
    Py_CLEAR(self->source);
    Py_CLEAR(self->timeout);
    Py_CLEAR(self->ready);
    Py_CLEAR(self->pending);
    Py_CLEAR(self->foreign);
    return 0;
}

static void completed_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)completed_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* Takes the list over as the one of those that were done, and moves the others out of it. */
static int sort_out(completed_object *self, PyObject *list)
{
    self->ready = list;
    self->total = PyList_GET_SIZE(list);
    self->pending = PyList_New(0);
    Py_ssize_t ready = 0;
    for (Py_ssize_t i = 0; self->pending && i < self->total; i++) {
        PyObject *future = PyList_GET_ITEM(list, i);
        if (!cfpy_future_is_done((cfpy_future *)future)) {
            if (PyList_Append(self->pending, future) != 0)
                return -1;
        } else if (ready++ < i && PyList_SetItem(list, ready - 1, Py_NewRef(future)) != 0) {
            return -1;
        }
    }
    return self->pending ? PyList_SetSlice(list, ready, self->total, NULL) : -1;
}

static int watch(completed_object *self, struct cfpy_module *m)
{
    int64_t timeout_ns;
    if (cfpy_timeout(self->timeout, &timeout_ns) != 0)
        return -1;
    cf_future **futures = cfpy_engine_futures(self->pending);
    if (!futures)
        return -1;
    size_t count = (size_t)PyList_GET_SIZE(self->pending);
    cf_status s = cf_as_completed(futures, count, timeout_ns, &self->completed);
    PyMem_Free(futures);
    return s == CF_OK ? 0 : (cfpy_raise_last(m, CFPY_BARE), -1);
}

static int begin(completed_object *self)
{
    struct cfpy_module *m = cfpy_module_of(Py_TYPE(self));
    PyObject *source = self->source;
    bool foreign;
    self->source = NULL;
    PyObject *list = cfpy_unique(m, source, &foreign);
    Py_DECREF(source);
    if (!list)
        return -1;
    if (!foreign)
        return sort_out(self, list) == 0 ? watch(self, m) : -1;
    self->foreign = PyObject_CallFunctionObjArgs(m->as_completed, list, self->timeout, NULL);
    Py_DECREF(list);
    return self->foreign ? 0 : -1;
}

static PyObject *give_ready(completed_object *self)
{
    Py_ssize_t last = PyList_GET_SIZE(self->ready) - 1;
    PyObject *future = Py_NewRef(PyList_GET_ITEM(self->ready, last));
    self->given++;
    if (PyList_SetSlice(self->ready, last, last + 1, NULL) == 0)
        return future;
    Py_DECREF(future);
    return NULL;
}

static PyObject *give(completed_object *self, size_t index)
{
    PyObject *future = Py_NewRef(PyList_GET_ITEM(self->pending, (Py_ssize_t)index));
    self->given++;
    PyList_SetItem(self->pending, (Py_ssize_t)index, Py_NewRef(Py_None));
    return future;
}

static PyObject *timed_out(completed_object *self)
{
    PyErr_Format(PyExc_TimeoutError, "%zd (of %zd) futures unfinished", self->total - self->given,
                 self->total);
    (void)completed_clear((PyObject *)self);
    return NULL;
}

/* The next one, or NULL: an exception is set, or there are no more. */
static PyObject *next(completed_object *self)
{
    if (self->ready && PyList_GET_SIZE(self->ready) > 0)
        return give_ready(self);
    while (self->completed) {
        size_t index;
        const cf_wait_hooks *former = cfpy_wait_begin();
        cf_status s = cf_completed_next(self->completed, &index);
        cfpy_wait_end(former);
        if (s == CF_OK)
            return give(self, index);
        if (s == CF_END)
            break;
        if (PyErr_CheckSignals() < 0)
            return NULL;
        if (s == CF_TIMEOUT)
            return timed_out(self);
        if (s != CF_INTERRUPTED)
            return cfpy_raise_last(cfpy_module_of(Py_TYPE(self)), CFPY_BARE);
    }
    (void)completed_clear((PyObject *)self);
    return NULL;
}

static bool is_busy(completed_object *self)
{
    if (self->busy)
        PyErr_SetString(PyExc_ValueError, "the iterator is being used by another thread");
    return self->busy;
}

static PyObject *completed_next(PyObject *op)
{
    completed_object *self = (completed_object *)op;
    if (is_busy(self))
        return NULL;
    self->busy = true;
    PyObject *future = NULL;
    if (!self->source || begin(self) == 0)
        future = self->foreign ? PyIter_Next(self->foreign) : next(self);
    self->busy = false;
    return future;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\nEnd the iteration; cancels nothing.");

static PyObject *completed_close(PyObject *op, PyObject *unused)
{
    (void)unused;
    if (is_busy((completed_object *)op))
        return NULL;
    (void)completed_clear(op);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    { "close", completed_close, METH_NOARGS, close_doc },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_new, CFPY_SLOT(completed_new) },
    { Py_tp_dealloc, CFPY_SLOT(completed_dealloc) },
    { Py_tp_traverse, CFPY_SLOT(completed_traverse) },
    { Py_tp_clear, CFPY_SLOT(completed_clear) },
    { Py_tp_iter, CFPY_SLOT(PyObject_SelfIter) },
    { Py_tp_iternext, CFPY_SLOT(completed_next) },
    { Py_tp_methods, methods },
    { 0, NULL },
};

PyType_Spec cfpy_completed_spec = {
    .name = "cfutures._engine.Completed",
    .basicsize = sizeof(completed_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
