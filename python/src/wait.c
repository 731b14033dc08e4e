/* SPDX-License-Identifier: MIT */
/* wait(): one sleep for all futures.  Futures of other packages are left to the standard's. */
#include "binding.h"

#include <time.h>

int64_t cfpy_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t cfpy_deadline(int64_t timeout_ns)
{
    return timeout_ns == CF_FOREVER ? CF_FOREVER : cfpy_now() + timeout_ns;
}

/* ---- what is waited for ---- */

/* Is an entry of the list not of this package? */
static bool has_foreign(struct cfpy_module *m, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyTypeObject *type = Py_TYPE(PyList_GET_ITEM(list, i));
        if (type != (PyTypeObject *)m->Future && !PyType_IsSubtype(type, m->future_base))
            return true;
    }
    return false;
}

PyObject *cfpy_unique(struct cfpy_module *m, PyObject *iterable, bool *ret_foreign)
{
    PyObject *set = PyAnySet_CheckExact(iterable) ? Py_NewRef(iterable) : PySet_New(iterable);
    PyObject *list = set ? PySequence_List(set) : NULL;
    Py_XDECREF(set);
    *ret_foreign = list && has_foreign(m, list);
    return list;
}

cf_future **cfpy_engine_futures(PyObject *list)
{
    Py_ssize_t count = PyList_GET_SIZE(list);
    cf_future **futures = PyMem_New(cf_future *, (size_t)count + 1);
    if (!futures)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; futures && i < count; i++) {
        cfpy_future *f = (cfpy_future *)PyList_GET_ITEM(list, i);
        cfpy_future_apply(f);
        futures[i] = f->future;
    }
    return futures;
}

struct crowd {
    struct cfpy_module *m;
    PyObject *set, *list; /* ours; its entries */
    cf_future **futures;  /* of those */
    size_t count;
};

/* ---- the rule ---- */

static int parse_rule(PyObject *name, cf_return_when *ret)
{
    static const struct {
        const char *name;
        cf_return_when rule;
    } rules[] = {
        { "ALL_COMPLETED", CF_ALL_COMPLETED },
        { "FIRST_COMPLETED", CF_FIRST_COMPLETED },
        { "FIRST_EXCEPTION", CF_FIRST_EXCEPTION },
    };
    for (size_t i = 0; PyUnicode_Check(name) && i < sizeof rules / sizeof *rules; i++) {
        if (PyUnicode_CompareWithASCIIString(name, rules[i].name) == 0) {
            *ret = rules[i].rule;
            return 1;
        }
    }
    return 0;
}

static bool has_failed(const struct crowd *c, size_t i)
{
    return cf_future_done(c->futures[i]) &&
           cfpy_future_failed((cfpy_future *)PyList_GET_ITEM(c->list, (Py_ssize_t)i));
}

static bool holds(const struct crowd *c, cf_return_when rule)
{
    size_t done = 0;
    bool failed = false;
    for (size_t i = 0; i < c->count; i++) {
        if (!cf_future_done(c->futures[i]))
            continue;
        if (rule == CF_FIRST_COMPLETED)
            return true;
        done++;
        failed = failed || (rule == CF_FIRST_EXCEPTION && has_failed(c, i));
    }
    return failed || done == c->count;
}

/* ---- waiting ---- */

/* The engine knows no failures in the replies of worker processes: for FIRST_EXCEPTION it says
 * what has completed, and we look. */
static cf_status await_exception(const struct crowd *c, int64_t timeout_ns)
{
    cf_completed *completed = NULL;
    size_t index;
    cf_status s = cf_as_completed(c->futures, c->count, timeout_ns, &completed);
    while (s == CF_OK) {
        s = cf_completed_next(completed, &index);
        cfpy_hold();
        if (s == CF_OK && has_failed(c, index))
            break;
    }
    cf_completed_free(completed);
    return s == CF_END ? CF_OK : s;
}

/* Until the rule holds or the time has passed; -1: an exception is set. */
static int await_rule(const struct crowd *c, cf_return_when rule, int64_t timeout_ns)
{
    int64_t deadline = cfpy_deadline(timeout_ns);
    for (;;) {
        const cf_wait_hooks *former = cfpy_wait_begin();
        cf_status s = rule == CF_FIRST_EXCEPTION
                          ? await_exception(c, timeout_ns)
                          : cf_wait(c->futures, c->count, rule, timeout_ns, NULL);
        cfpy_wait_end(former);
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (s == CF_OK || s == CF_TIMEOUT)
            return 0;
        if (s != CF_INTERRUPTED)
            return cfpy_raise_last(c->m, CFPY_BARE), -1;
        if (deadline != CF_FOREVER)
            timeout_ns = deadline - cfpy_now();
    }
}

/* Those that are not done stay in the set, or those that are, whichever takes less moving. */
static PyObject *sorted_out(const struct crowd *c)
{
    size_t done = 0;
    for (size_t i = 0; i < c->count; i++)
        done += cf_future_done(c->futures[i]);
    bool move_done = done <= c->count / 2;
    PyObject *moved = PySet_New(NULL), *result = NULL;
    bool ok = moved != NULL;
    size_t left = move_done ? done : c->count - done;
    for (size_t i = 0; ok && left > 0 && i < c->count; i++) {
        PyObject *f = PyList_GET_ITEM(c->list, (Py_ssize_t)i);
        if (cf_future_done(c->futures[i]) != move_done)
            continue;
        left--;
        ok = PySet_Add(moved, f) == 0 && PySet_Discard(c->set, f) >= 0;
    }
    if (ok)
        result = PyObject_CallFunctionObjArgs(c->m->DoneAndNotDone, move_done ? moved : c->set,
                                              move_done ? c->set : moved, NULL);
    Py_XDECREF(moved);
    return result;
}

static PyObject *wait_for_crowd(const struct crowd *c, PyObject *timeout, PyObject *return_when)
{
    cf_return_when rule = CF_ALL_COMPLETED;
    int64_t timeout_ns;
    if (cfpy_timeout(timeout, &timeout_ns) != 0)
        return NULL;
    int known = parse_rule(return_when, &rule);
    if (!holds(c, rule)) {
        if (!known)
            return PyErr_Format(PyExc_ValueError, "Invalid return condition: %R", return_when);
        if (timeout_ns > 0 && await_rule(c, rule, timeout_ns) != 0)
            return NULL;
    }
    return sorted_out(c);
}

/* (fs, timeout, return_when); NotImplemented: one of them is of another package. */
PyObject *cfpy_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct crowd c = { .m = PyModule_GetState(module) };
    bool foreign = false;
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "wait() takes three arguments");
    c.set = PySet_New(args[0]);
    c.list = c.set ? PySequence_List(c.set) : NULL;
    foreign = c.list && has_foreign(c.m, c.list);
    if (c.list && !foreign)
        c.futures = cfpy_engine_futures(c.list);
    PyObject *result = foreign ? Py_NewRef(Py_NotImplemented) : NULL;
    if (c.futures) {
        c.count = (size_t)PyList_GET_SIZE(c.list);
        result = wait_for_crowd(&c, args[1], args[2]);
    }
    PyMem_Free(c.futures);
    Py_XDECREF(c.list);
    Py_XDECREF(c.set);
    return result;
}
