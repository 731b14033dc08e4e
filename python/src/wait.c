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

static bool is_ours(const struct cfpy_module *m, PyObject *entry)
{
    PyTypeObject *type = Py_TYPE(entry);
    return type == (PyTypeObject *)m->Future || PyType_IsSubtype(type, m->future_base);
}

PyObject *cfpy_unique(struct cfpy_module *m, PyObject *iterable, bool *ret_foreign)
{
    PyObject *set = PyAnySet_CheckExact(iterable) ? Py_NewRef(iterable) : PySet_New(iterable);
    PyObject *list = set ? PySequence_List(set) : NULL;
    Py_XDECREF(set);
    *ret_foreign = false;
    for (Py_ssize_t i = 0; list && !*ret_foreign && i < PyList_GET_SIZE(list); i++)
        *ret_foreign = !is_ours(m, PyList_GET_ITEM(list, i));
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
    PyObject *set;         /* ours */
    cfpy_future **members; /* its entries */
    cf_future **futures;   /* of those */
    size_t count, done;    /* how many; how many of them were done at the last look */
    bool is_remote;        /* some are of worker processes */
    bool is_lost;          /* some are of the process before a fork */
    struct cfpy_sleeper *sleeper;
    unsigned told; /* of how many it was told, if few: then `done` says nothing */
};

/* The entries of our set.  Without branches: whether a place is taken cannot be foretold. */
static void list_members(struct crowd *c)
{
    const PySetObject *set = (const PySetObject *)c->set;
    size_t count = 0;
    for (Py_ssize_t i = 0; i <= set->mask; i++) {
        c->members[count] = (cfpy_future *)set->table[i].key;
        count +=
            (set->table[i].key != NULL) & (set->table[i].hash != -1); /* used, and not removed */
    }
    c->count = count;
}

/* false: one is not of this package. */
static bool list_futures(struct crowd *c)
{
    bool is_manual = false;
    for (size_t i = 0; i < c->count; i++) {
        cfpy_future *f = c->members[i];
        if (!is_ours(c->m, (PyObject *)f))
            return false;
        is_manual |= f->manual != CFPY_AS_IS;
        c->is_remote |= f->origin == CFPY_PROCESSES;
        c->futures[i] = f->future;
    }
    for (size_t i = 0; is_manual && i < c->count; i++)
        cfpy_future_apply(c->members[i]);
    return true;
}

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

/* The engine counts in one go, but looks at the replies of worker processes only one by one. */
static void count_done(struct crowd *c)
{
    c->done = 0;
    if (!c->is_remote)
        c->is_lost = cf_wait(c->futures, c->count, CF_ALL_COMPLETED, 0, &c->done) == CF_SHUTDOWN;
    for (size_t i = 0; (c->is_remote || c->is_lost) && i < c->count; i++)
        c->done += cf_future_done(c->futures[i]);
}

static bool has_failed(const struct crowd *c, size_t i)
{
    return cf_future_done(c->futures[i]) && cfpy_future_failed(c->members[i]);
}

static bool holds(const struct crowd *c, cf_return_when rule)
{
    if (c->done == c->count || (c->done > 0 && rule == CF_FIRST_COMPLETED))
        return true;
    for (size_t i = 0; c->done > 0 && rule == CF_FIRST_EXCEPTION && i < c->count; i++) {
        if (has_failed(c, i))
            return true;
    }
    return false;
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

/* Does this thread come out of a call of the engine?  That may be running a task. */
static bool is_inside(void)
{
    const cf_wait_hooks *hooks = cf_set_wait_hooks(NULL);
    (void)cf_set_wait_hooks(hooks);
    return hooks != NULL;
}

/* NULL: the engine itself had better wait for all of them.  In a task it must, since it knows what
 * a task can wait for.  None is done: since that look the GIL was not let go of. */
static struct cfpy_sleeper *sleeper_for(const struct crowd *c, cf_return_when rule)
{
    enum { MANY = 32 };
    if (c->count < MANY || rule != CF_FIRST_COMPLETED || c->is_remote || c->is_lost || is_inside())
        return NULL;
    struct cfpy_sleeper *sleeper = cfpy_sleeper_new();
    for (size_t i = 0; sleeper && i < c->count; i++) {
        if (!cfpy_sleeper_add(sleeper, c->members[i])) {
            cfpy_sleeper_free(sleeper);
            sleeper = NULL;
        }
    }
    return sleeper;
}

static cf_status await_once(const struct crowd *c, cf_return_when rule, int64_t timeout_ns)
{
    if (c->sleeper)
        return cf_future_result(c->sleeper->gate, timeout_ns, NULL, 0);
    return rule == CF_FIRST_EXCEPTION ? await_exception(c, timeout_ns)
                                      : cf_wait(c->futures, c->count, rule, timeout_ns, NULL);
}

static void look_again(struct crowd *c)
{
    if (c->sleeper && c->sleeper->count <= CFPY_FOUND)
        c->told = c->sleeper->count;
    if (!c->told)
        count_done(c);
}

/* Until the rule holds or the time has passed; -1: an exception is set. */
static int await_rule(struct crowd *c, cf_return_when rule, int64_t timeout_ns)
{
    int64_t deadline = cfpy_deadline(timeout_ns);
    c->sleeper = sleeper_for(c, rule);
    for (;;) {
        const cf_wait_hooks *former = cfpy_wait_begin();
        cf_status s = await_once(c, rule, timeout_ns);
        cfpy_wait_end(former);
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (s == CF_OK || s == CF_TIMEOUT)
            return look_again(c), 0;
        if (s != CF_INTERRUPTED)
            return cfpy_raise_last(c->m, CFPY_BARE), -1;
        if (deadline != CF_FOREVER)
            timeout_ns = deadline - cfpy_now();
    }
}

/* ---- the result ---- */

/* Those that are not done stay in the set, or those that are, whichever takes less moving.  What
 * is done since the last look counts as well, so the end comes early only where nothing is added. */
static PyObject *sort_out(const struct crowd *c, bool *ret_moved_done)
{
    bool move_done = c->done <= c->count / 2;
    PyObject *moved = PySet_New(NULL);
    size_t left = move_done ? c->count : c->count - c->done;
    for (size_t i = 0; moved && c->done > 0 && left > 0 && i < c->count; i++) {
        PyObject *f = (PyObject *)c->members[i];
        if (cf_future_done(c->futures[i]) != move_done)
            continue;
        left--;
        if (PySet_Add(moved, f) != 0 || PySet_Discard(c->set, f) < 0)
            Py_CLEAR(moved);
    }
    *ret_moved_done = move_done;
    return moved;
}

/* Moves those that the sleeper was told of. */
static PyObject *take_found(const struct crowd *c)
{
    PyObject *moved = PySet_New(NULL);
    for (unsigned i = 0; moved && i < c->told; i++) {
        PyObject *f = (PyObject *)c->sleeper->found[i];
        int was_there = PySet_Discard(c->set, f);
        if (was_there < 0 || (was_there > 0 && PySet_Add(moved, f) != 0))
            Py_CLEAR(moved);
    }
    return moved;
}

static PyObject *wait_for_crowd(struct crowd *c, PyObject *timeout, PyObject *return_when)
{
    cf_return_when rule = CF_ALL_COMPLETED;
    int64_t timeout_ns;
    if (cfpy_timeout(timeout, &timeout_ns) != 0)
        return NULL;
    int known = parse_rule(return_when, &rule);
    count_done(c);
    if (!holds(c, rule)) {
        if (!known)
            return PyErr_Format(PyExc_ValueError, "Invalid return condition: %R", return_when);
        if (timeout_ns > 0 && await_rule(c, rule, timeout_ns) != 0)
            return NULL;
    }
    bool moved_done = true;
    PyObject *moved = c->told ? take_found(c) : sort_out(c, &moved_done), *result = NULL;
    if (moved)
        result = PyObject_CallFunctionObjArgs(c->m->DoneAndNotDone, moved_done ? moved : c->set,
                                              moved_done ? c->set : moved, NULL);
    Py_XDECREF(moved);
    return result;
}

/* (fs, timeout, return_when); NotImplemented: one of them is of another package. */
PyObject *cfpy_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct crowd c = { .m = PyModule_GetState(module) };
    if (nargs != 3)
        return PyErr_Format(PyExc_TypeError, "wait() takes three arguments");
    c.set = PySet_New(args[0]);
    if (!c.set)
        return NULL;
    PyObject *result = NULL;
    size_t count = (size_t)PySet_GET_SIZE(c.set);
    c.members = PyMem_New(cfpy_future *, count + 1);
    c.futures = PyMem_New(cf_future *, count + 1);
    if (!c.members || !c.futures)
        PyErr_NoMemory();
    else
        list_members(&c);
    if (!PyErr_Occurred())
        result =
            list_futures(&c) ? wait_for_crowd(&c, args[1], args[2]) : Py_NewRef(Py_NotImplemented);
    if (c.sleeper)
        cfpy_sleeper_free(c.sleeper);
    PyMem_Free(c.members);
    PyMem_Free(c.futures);
    Py_DECREF(c.set);
    return result;
}
