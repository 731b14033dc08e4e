/* SPDX-License-Identifier: MIT */
/* Several calls of one function as one task: how map() sends elements that take little time.
 *
 * For the calls it makes no difference: each has arguments of its own, and fails alone.  So objects
 * that could be changed, or that run code when they are pickled, travel in a pickle of their own;
 * only plain values (numbers, short texts) share the pickle of the batch.
 *
 * A batch is the pickle of (fn, elements, are_packed), its reply that of
 * (nanoseconds, results, are_packed, failures or None): failures maps an index to the pickle of an
 * exception. */
#include "process.h"

enum { SHORT = 1024 };

/* ---- plain values ---- */

static bool is_plain(PyObject *o, int depth)
{
    if (o == Py_None || PyLong_CheckExact(o) || PyFloat_CheckExact(o) || PyBool_Check(o))
        return true;
    if (PyUnicode_CheckExact(o))
        return PyUnicode_GET_LENGTH(o) <= SHORT;
    if (PyBytes_CheckExact(o))
        return PyBytes_GET_SIZE(o) <= SHORT;
    if (!PyTuple_CheckExact(o) || PyTuple_GET_SIZE(o) > SHORT || depth == 0)
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); i++) {
        if (!is_plain(PyTuple_GET_ITEM(o, i), depth - 1))
            return false;
    }
    return true;
}

/* Nobody else uses the list: it is new. */
static bool are_plain(PyObject *list)
{
    enum { DEPTH = 3 };
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (!is_plain(PyList_GET_ITEM(list, i), DEPTH))
            return false;
    }
    return true;
}

/* ---- pickles within a pickle ---- */

static PyObject *pack(PyObject *object)
{
    struct cfpy_pickle pickle;
    PyObject *bytes = NULL;
    if (cfpy_pickle_dump(object, &pickle) == 0)
        bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)cfpy_pickle_size(&pickle));
    if (bytes)
        cfpy_pickle_write(&pickle, 0, (unsigned char *)PyBytes_AS_STRING(bytes));
    cfpy_pickle_clear(&pickle);
    return bytes;
}

static PyObject *unpack(PyObject *bytes)
{
    if (!PyBytes_Check(bytes))
        return PyErr_Format(PyExc_TypeError, "a batch has something else than bytes in it");
    return cfpy_pickle_load((const unsigned char *)PyBytes_AS_STRING(bytes),
                            (size_t)PyBytes_GET_SIZE(bytes));
}

/* ---- where it is submitted ---- */

PyObject *cfpy_batch_of(PyObject *fn, PyObject *calls)
{
    bool is_packed = !are_plain(calls);
    PyObject *elements = is_packed ? PyList_New(0) : Py_NewRef(calls);
    for (Py_ssize_t i = 0; is_packed && elements && i < PyList_GET_SIZE(calls); i++) {
        PyObject *packed = pack(PyList_GET_ITEM(calls, i));
        if (!packed || PyList_Append(elements, packed) != 0)
            Py_CLEAR(elements);
        Py_XDECREF(packed);
    }
    PyObject *batch =
        elements ? PyTuple_Pack(3, fn, elements, is_packed ? Py_True : Py_False) : NULL;
    Py_XDECREF(elements);
    return batch;
}

/* ---- in the worker ---- */

struct batch {
    PyObject *fn, *elements, *results, *failures; /* failures: NULL: none so far */
    bool is_packed;
};

/* The exception that is set is this element's. */
static int note_failure(struct batch *b, Py_ssize_t i, bool is_ours)
{
    PyObject *sent = cfpy_exception_to_send(is_ours);
    PyObject *packed = sent ? pack(sent) : NULL;
    Py_XDECREF(sent);
    if (!packed && (sent = cfpy_exception_to_send(false))) { /* why it cannot travel */
        packed = pack(sent);
        Py_DECREF(sent);
    }
    PyObject *index = packed ? PyLong_FromSsize_t(i) : NULL;
    if (!b->failures)
        b->failures = PyDict_New();
    int failed = index && b->failures ? PyDict_SetItem(b->failures, index, packed) : -1;
    Py_XDECREF(index);
    Py_XDECREF(packed);
    return failed;
}

static int run_one(struct batch *b, Py_ssize_t i)
{
    PyObject *element = PyList_GET_ITEM(b->elements, i);
    PyObject *args = b->is_packed ? unpack(element) : Py_NewRef(element);
    PyObject *result = args ? PyObject_CallObject(b->fn, args) : NULL;
    int failed = 0;
    if (!result)
        failed = note_failure(b, i, !args);
    Py_XDECREF(args);
    PyList_SET_ITEM(b->results, i, result ? result : Py_NewRef(Py_None));
    return failed;
}

/* Each result becomes its pickle, or a failure. */
static int pack_results(struct batch *b)
{
    int failed = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(b->results) && !failed; i++) {
        PyObject *packed = pack(PyList_GET_ITEM(b->results, i));
        if (!packed) {
            failed = note_failure(b, i, false);
            packed = Py_NewRef(Py_None);
        }
        failed = PyList_SetItem(b->results, i, packed) != 0 || failed;
    }
    return failed;
}

static PyObject *reply_of(struct batch *b, int64_t since)
{
    bool is_packed = !are_plain(b->results);
    if (is_packed && pack_results(b) != 0)
        return NULL;
    return Py_BuildValue("LOOO", (long long)(cfpy_now() - since), b->results,
                         is_packed ? Py_True : Py_False, b->failures ? b->failures : Py_None);
}

PyObject *cfpy_batch_run(PyObject *batch, int64_t since)
{
    struct batch b = { .fn = PyTuple_GET_ITEM(batch, 0),
                       .elements = PyTuple_GET_ITEM(batch, 1),
                       .is_packed = PyTuple_GET_ITEM(batch, 2) == Py_True };
    b.results = PyList_New(PyList_GET_SIZE(b.elements));
    int failed = b.results ? 0 : -1;
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(b.elements); i++)
        failed = run_one(&b, i);
    PyObject *reply = failed ? NULL : reply_of(&b, since);
    Py_XDECREF(b.results);
    Py_XDECREF(b.failures);
    return reply;
}

/* ---- where its results are read ---- */

PyObject *cfpy_unpack(PyObject *module, PyObject *bytes)
{
    (void)module;
    return unpack(bytes);
}
