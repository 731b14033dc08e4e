/* SPDX-License-Identifier: MIT */
/* The iterator of as_completed().  Begins with its first next(), as the standard's generator does. */
#include "binding.h"

typedef struct {
    PyObject_HEAD
    PyObject *source;  /* the futures, until it begins */
    PyObject *timeout; /* likewise */
    PyObject *list;    /* the futures; None in the place of those that were yielded */
    PyObject *foreign; /* the standard's iterator: there are futures of other packages */
    cf_completed *completed;
    Py_ssize_t left;
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
    Py_VISIT(self->list);
    Py_VISIT(self->foreign);
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static int completed_clear(PyObject *op)
{
    completed_object *self = (completed_object *)op;
    self->completed = cf_completed_free(self->completed);
    self->left = 0;
    Py_CLEAR(self->source);
    Py_CLEAR(self->timeout);
    Py_CLEAR(self->list);
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

static int watch(completed_object *self, struct cfpy_module *m)
{
    int64_t timeout_ns;
    cf_future **futures = NULL;
    if (cfpy_timeout(self->timeout, &timeout_ns) == 0)
        futures = cfpy_engine_futures(self->list);
    if (!futures)
        return -1;
    self->left = PyList_GET_SIZE(self->list);
    cf_status s = cf_as_completed(futures, (size_t)self->left, timeout_ns, &self->completed);
    PyMem_Free(futures);
    return s == CF_OK ? 0 : (cfpy_raise_last(m, CFPY_BARE), -1);
}

static int begin(completed_object *self)
{
    struct cfpy_module *m = cfpy_module_of(Py_TYPE(self));
    PyObject *source = self->source;
    bool foreign;
    self->source = NULL;
    self->list = cfpy_unique(m, source, &foreign);
    Py_DECREF(source);
    if (!self->list)
        return -1;
    if (!foreign)
        return watch(self, m);
    self->foreign = PyObject_CallFunctionObjArgs(m->as_completed, self->list, self->timeout, NULL);
    return self->foreign ? 0 : -1;
}

static PyObject *give(completed_object *self, size_t index)
{
    PyObject *future = Py_NewRef(PyList_GET_ITEM(self->list, (Py_ssize_t)index));
    PyList_SetItem(self->list, (Py_ssize_t)index, Py_NewRef(Py_None));
    self->left--;
    return future;
}

static PyObject *timed_out(completed_object *self)
{
    PyErr_Format(PyExc_TimeoutError, "%zd (of %zd) futures unfinished", self->left,
                 PyList_GET_SIZE(self->list));
    (void)completed_clear((PyObject *)self);
    return NULL;
}

/* The next one, or NULL: an exception is set, or there are no more. */
static PyObject *next(completed_object *self)
{
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
