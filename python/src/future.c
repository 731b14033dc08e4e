/* SPDX-License-Identifier: MIT */
/* The future: cfutures._engine.Future, base of cfutures.Future.  See binding.h for who owns what. */
#include "binding.h"

#include <stddef.h>

/* What a callback of set_result, set_exception or cancel raised beyond Exception: it goes to the
 * caller, as in the standard.  Elsewhere it is logged. */
static _Thread_local struct {
    unsigned depth; /* such methods that are on this thread's stack */
    PyObject *escaped;
} user;

/* ---- arguments ---- */

/* Of a method with one argument, by place or by this name; *ret stays as it was if none was given. */
static bool is_named(PyObject *const *args, Py_ssize_t count, PyObject *names, const char *name,
                     PyObject **ret)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (count + named > 1) {
        PyErr_Format(PyExc_TypeError, "expected at most 1 argument, got %zd", count + named);
    } else if (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), name) != 0) {
        PyErr_Format(PyExc_TypeError, "'%U' is an invalid keyword argument",
                     PyTuple_GET_ITEM(names, 0));
    } else {
        if (count + named)
            *ret = args[0];
        return true;
    }
    return false;
}

static PyObject *only_argument(PyObject *const *args, Py_ssize_t count, PyObject *names,
                               const char *name)
{
    PyObject *given = NULL;
    if (is_named(args, count, names, name, &given) && !given)
        PyErr_Format(PyExc_TypeError, "missing 1 required argument: '%s'", name);
    return given;
}

/* ---- state ---- */

static bool is_cancelled(const cfpy_future *self)
{
    return cf_future_cancelled(self->future) || self->manual == CFPY_CANCELLED;
}

/* The engine hears what the value says. */
static void settle_by_value(cfpy_future *self)
{
    const cf_error failed = { .size = sizeof failed, .status = CF_FAILED, .exit_code = -1 };
    if (self->kind == CFPY_EXCEPTION)
        (void)cf_future_set_exception(self->future, &failed);
    else
        (void)cf_future_set_result(self->future, NULL);
}

void cfpy_future_apply(cfpy_future *self)
{
    enum cfpy_manual manual = self->manual;
    if (manual == CFPY_AS_IS ||
        manual == CFPY_CANCELLED) /* the latter the engine cannot tell apart */
        return;
    self->manual = CFPY_AS_IS;
    if (manual == CFPY_RUNNING)
        (void)cf_future_start(self->future);
    if (manual == CFPY_NOTIFIED)
        self->notified = cf_future_cancel(self->future);
    if (manual != CFPY_FINISHED || cf_future_done(self->future))
        return;
    if (self->kind == CFPY_NOTHING)
        cfpy_future_set(self, CFPY_RESULT, Py_NewRef(Py_None));
    settle_by_value(self);
}

bool cfpy_future_is_done(cfpy_future *self)
{
    cfpy_future_apply(self);
    return cf_future_done(self->future);
}

static const char *state_name(cfpy_future *self)
{
    cfpy_future_apply(self);
    if (self->manual == CFPY_CANCELLED)
        return "CANCELLED";
    if (cf_future_cancelled(self->future)) /* a pool tells everybody at once */
        return self->notified || self->origin != CFPY_BARE ? "CANCELLED_AND_NOTIFIED" : "CANCELLED";
    if (cf_future_done(self->future))
        return "FINISHED";
    return cf_future_running(self->future) ? "RUNNING" : "PENDING";
}

/* ---- being made, and gone ---- */

/* For the cycle collector's sake: it walks all that it tracks again and again, so a pool's future is
 * tracked only when it refers to something that may lead back to it. */
static void track(cfpy_future *self)
{
    if (!PyObject_GC_IsTracked((PyObject *)self))
        PyObject_GC_Track(self);
}

void cfpy_future_set(cfpy_future *self, enum cfpy_kind kind, PyObject *stolen)
{
    PyObject *former = self->value;
    self->value = stolen;
    self->kind = (uint8_t)kind;
    if (stolen && PyObject_IS_GC(stolen))
        track(self);
    Py_XDECREF(former);
}

cfpy_future *cfpy_future_alloc(struct cfpy_module *m, enum cfpy_origin origin)
{
    PyTypeObject *type = (PyTypeObject *)m->Future;
    cfpy_future *self = (cfpy_future *)type->tp_alloc(type, 0);
    if (self) {
        PyObject_GC_UnTrack(self);
        self->origin = (uint8_t)origin;
    }
    return self;
}

static PyObject *future_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    (void)args;
    (void)named;
    cfpy_future *self = (cfpy_future *)type->tp_alloc(type, 0);
    if (self && cf_future_new(0, NULL, &self->future) != CF_OK) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

/* All is done by then: the standard's own __init__ must not be called in our place. */
static int future_init(PyObject *self, PyObject *args, PyObject *named)
{
    (void)self;
    if (PyTuple_GET_SIZE(args) == 0 && (!named || PyDict_GET_SIZE(named) == 0))
        return 0;
    PyErr_SetString(PyExc_TypeError, "Future() takes no arguments");
    return -1;
}

static int future_traverse(PyObject *op, visitproc visit, void *arg)
{
    cfpy_future *self = (cfpy_future *)op;
    Py_VISIT(self->value);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->waiters);
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static int future_clear(PyObject *op)
{
    cfpy_future *self = (cfpy_future *)op;
    Py_CLEAR(self->value);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->waiters);
    return 0;
}

static void future_dealloc(PyObject *op)
{
    cfpy_future *self = (cfpy_future *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    self->dying = true; /* the last reference to a pending bare one cancels it: nobody is told */
    (void)future_clear(op);
    cf_future_unref(self->future);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- callbacks ---- */

/* Exceptions are logged; others escape to whoever is called by a user, if that is what runs us. */
static void call_back(cfpy_future *self, PyObject *fn)
{
    PyObject *result = PyObject_CallOneArg(fn, (PyObject *)self);
    if (result) {
        Py_DECREF(result);
    } else if (user.depth > 0 && !user.escaped && !PyErr_ExceptionMatches(PyExc_Exception)) {
        user.escaped = cfpy_fetch_exception();
    } else {
        cfpy_log(cfpy_module_of(Py_TYPE(self)), false, "exception calling callback for %r",
                 (PyObject *)self);
    }
}

static void call_all_back(cfpy_future *self)
{
    PyObject *waiters = self->waiters; /* which holds us: the cycle ends here */
    self->waiters = NULL;
    if (waiters && PyList_GET_SIZE(waiters) > 0) {
        struct cfpy_module *m = cfpy_module_of(Py_TYPE(self));
        PyObject *told = PyObject_CallFunctionObjArgs(m->tell_waiters, self, waiters, NULL);
        if (!told)
            cfpy_log(m, false, "telling the waiters of %r", (PyObject *)self);
        Py_XDECREF(told);
    }
    Py_XDECREF(waiters);
    PyObject *callbacks = self->callbacks;
    self->callbacks = NULL;
    self->called_back = true;
    for (Py_ssize_t i = 0; callbacks && i < PyList_GET_SIZE(callbacks); i++) {
        PyObject *fn = Py_NewRef(PyList_GET_ITEM(callbacks, i));
        call_back(self, fn);
        Py_DECREF(fn);
    }
    Py_XDECREF(callbacks);
}

/* The engine's callback.  A pool's future was kept for it; a bare one may just be going. */
static void on_done(cf_future *future, void *data)
{
    (void)future;
    cfpy_future *self = data;
    if (self->origin == CFPY_BARE && self->dying)
        return;
    struct cfpy_visit visit = cfpy_enter();
    Py_INCREF(self);
    cfpy_tell_sleeper(self);
    call_all_back(self);
    if (self->origin != CFPY_BARE)
        Py_DECREF(self);
    Py_DECREF(self);
    cfpy_leave(visit);
}

int cfpy_future_hook(cfpy_future *self)
{
    if (self->hooked)
        return 0;
    self->hooked = true;
    if (self->origin != CFPY_BARE)
        Py_INCREF(self);
    if (cf_future_add_done_callback(self->future, on_done, self) == CF_OK)
        return 0;
    self->hooked = false;
    if (self->origin != CFPY_BARE)
        Py_DECREF(self);
    PyErr_NoMemory();
    return -1;
}

static PyObject *escaped(PyObject *result)
{
    PyObject *exception = user.escaped;
    user.escaped = NULL;
    user.depth--;
    if (!exception)
        return result;
    Py_XDECREF(result);
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_DECREF(exception);
    return NULL;
}

PyDoc_STRVAR(add_done_callback_doc,
             "add_done_callback($self, fn)\n--\n\n"
             "Have fn(future) called when the future is done or cancelled: in the thread that\n"
             "settles it, in the order of addition; at once in this one if it is done already.\n"
             "An exception of fn is logged.");

static PyObject *add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t count,
                                   PyObject *names)
{
    PyObject *fn = only_argument(args, count, names, "fn");
    if (!fn)
        return NULL;
    cfpy_future *self = (cfpy_future *)op;
    cfpy_future_apply(self);
    bool is_done = cf_future_done(self->future) || self->manual == CFPY_CANCELLED;
    if (is_done) {
        user.depth++;
        call_back(self, fn);
        return escaped(Py_NewRef(Py_None));
    }
    track(self);
    if (!self->callbacks)
        self->callbacks = PyList_New(0);
    if (!self->callbacks || PyList_Append(self->callbacks, fn) != 0 || cfpy_future_hook(self) != 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- waiting and reading ---- */

bool cfpy_future_failed(cfpy_future *self)
{
    if (is_cancelled(self))
        return false;
    if (self->kind == CFPY_NOTHING && self->origin == CFPY_PROCESSES)
        return cfpy_reply_failed(self);
    return self->kind != CFPY_RESULT;
}

/* A wait that a signal ended goes on after the handlers have run. */
int cfpy_future_await(cfpy_future *self, int64_t timeout_ns)
{
    cfpy_future_apply(self);
    int64_t deadline = cfpy_deadline(timeout_ns);
    while (!cf_future_done(self->future) && self->manual != CFPY_CANCELLED) {
        const cf_wait_hooks *former = cfpy_wait_begin();
        cf_status s = cf_future_result(self->future, timeout_ns, NULL, 0);
        cfpy_wait_end(former);
        cfpy_future_apply(self);
        if (cf_future_done(self->future))
            break;
        if (s == CF_TIMEOUT)
            return PyErr_CheckSignals() < 0 ? -1 : 0;
        if (s != CF_INTERRUPTED) {
            (void)cfpy_raise_last(cfpy_module_of(Py_TYPE(self)), self->origin);
            return -1;
        }
        if (PyErr_CheckSignals() < 0)
            return -1;
        if (deadline != CF_FOREVER)
            timeout_ns = deadline - cfpy_now();
    }
    return 1;
}

/* Why the engine has no value for it, as an exception. */
static int make_failure(cfpy_future *self)
{
    struct cfpy_module *m = cfpy_module_of(Py_TYPE(self));
    (void)cf_future_result(self->future, 0, NULL, 0);
    (void)cfpy_raise_last(m, self->origin);
    PyObject *exception = cfpy_fetch_exception();
    if (self->kind == CFPY_NOTHING)
        cfpy_future_set(self, CFPY_EXCEPTION, exception);
    else
        Py_DECREF(exception); /* somebody was faster, while Python code ran */
    return 0;
}

static int make_value(cfpy_future *self)
{
    if (self->kind != CFPY_NOTHING)
        return 0;
    return self->origin == CFPY_PROCESSES ? cfpy_reply_decode(self) : make_failure(self);
}

static PyObject *raise_cancelled(cfpy_future *self)
{
    PyErr_SetNone(cfpy_module_of(Py_TYPE(self))->CancelledError);
    return NULL;
}

static PyObject *raise_value(PyObject *exception)
{
    if (PyExceptionInstance_Check(exception))
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    else if (PyExceptionClass_Check(exception))
        PyErr_SetNone(exception);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    return NULL;
}

PyObject *cfpy_future_outcome(cfpy_future *self)
{
    if (is_cancelled(self))
        return raise_cancelled(self);
    if (make_value(self) != 0)
        return NULL;
    if (self->kind == CFPY_RESULT)
        return Py_NewRef(self->value);
    PyObject *exception = Py_NewRef(self->value);
    (void)raise_value(exception);
    Py_DECREF(exception);
    return NULL;
}

/* 0: done; else an exception is set. */
static int await_arguments(cfpy_future *self, PyObject *const *args, Py_ssize_t count,
                           PyObject *names)
{
    int64_t timeout;
    PyObject *given = NULL;
    if (!is_named(args, count, names, "timeout", &given) || cfpy_timeout(given, &timeout) != 0)
        return -1;
    int done = cfpy_future_await(self, timeout);
    if (done == 0)
        PyErr_SetNone(PyExc_TimeoutError);
    return done == 1 ? 0 : -1;
}

PyDoc_STRVAR(
    result_doc,
    "result($self, timeout=None)\n--\n\n"
    "The result of the call, waiting for it at most `timeout` seconds (None: for ever).\n"
    "Raises what the call raised, the same object each time; CancelledError; TimeoutError.\n"
    "Inside a task it may run the awaited call itself; DeadlockError if it could never end.");

static PyObject *result(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    cfpy_future *self = (cfpy_future *)op;
    return await_arguments(self, args, count, names) == 0 ? cfpy_future_outcome(self) : NULL;
}

PyDoc_STRVAR(exception_doc,
             "exception($self, timeout=None)\n--\n\n"
             "What the call raised, or None if it returned; waits and raises as result() does.");

static PyObject *exception(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    cfpy_future *self = (cfpy_future *)op;
    if (await_arguments(self, args, count, names) != 0)
        return NULL;
    if (is_cancelled(self))
        return raise_cancelled(self);
    if (make_value(self) != 0)
        return NULL;
    return Py_NewRef(self->kind == CFPY_EXCEPTION ? self->value : Py_None);
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\nHas it ended in whatever way, cancelled included?");

static PyObject *done(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    return PyBool_FromLong(cfpy_future_is_done(self) || self->manual == CFPY_CANCELLED);
}

PyDoc_STRVAR(running_doc, "running($self, /)\n--\n\nHas it begun, and not ended yet?");

static PyObject *running(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future_apply((cfpy_future *)op);
    return PyBool_FromLong(cf_future_running(((cfpy_future *)op)->future));
}

PyDoc_STRVAR(cancelled_doc, "cancelled($self, /)\n--\n\nWas it cancelled before it began?");

static PyObject *cancelled(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future_apply((cfpy_future *)op);
    return PyBool_FromLong(is_cancelled((cfpy_future *)op));
}

/* ---- settling ---- */

PyDoc_STRVAR(cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Cancel a call that has not begun: waiters see it at once, callbacks run in this\n"
             "thread.  False: it runs or has ended.");

static PyObject *cancel(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    cfpy_future_apply(self);
    if (self->manual == CFPY_CANCELLED)
        Py_RETURN_TRUE;
    user.depth++;
    bool is_cancelled_now = cf_future_cancel(self->future);
    cfpy_hold();
    return escaped(PyBool_FromLong(is_cancelled_now));
}

PyDoc_STRVAR(
    stop_doc,
    "stop($self, grace=0.0)\n--\n\n"
    "Cancel a call that has not begun; ask a running one to stop: in a worker process it\n"
    "gets SIGTERM after `grace` seconds and SIGKILL half a second later, and its future\n"
    "raises TaskStopped.  Threads cannot be stopped.  Does not wait.  False: it was done.");

static PyObject *stop(PyObject *op, PyObject *args, PyObject *named)
{
    static char *names[] = { "grace", NULL };
    double grace = 0;
    if (!PyArg_ParseTupleAndKeywords(args, named, "|d:stop", names, &grace))
        return NULL;
    if (!(grace >= 0 && grace < 9e9))
        return PyErr_Format(PyExc_ValueError, "grace must be a number of seconds from 0 on");
    user.depth++;
    bool was_open = cf_future_stop(((cfpy_future *)op)->future, (int64_t)(grace * 1e9));
    cfpy_hold();
    return escaped(PyBool_FromLong(was_open));
}

PyDoc_STRVAR(set_running_doc,
             "set_running_or_notify_cancel($self, /)\n--\n\n"
             "For executors: mark the future as running, True; or False: it was cancelled.");

static PyObject *set_running_or_notify_cancel(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    cfpy_future_apply(self);
    bool was_cancelled = is_cancelled(self) && !self->notified;
    if (self->manual == CFPY_CANCELLED) {
        self->manual = CFPY_NOTIFIED;
        cfpy_future_apply(self);
    }
    if (was_cancelled) {
        self->notified = true;
        Py_RETURN_FALSE;
    }
    if (cf_future_start(self->future))
        Py_RETURN_TRUE;
    struct cfpy_module *m = cfpy_module_of(Py_TYPE(op));
    PyObject *logged =
        PyObject_CallFunction(m->log, "OisKs", Py_None, 1, "Future %s in unexpected state: %s",
                              (unsigned long long)(uintptr_t)op, state_name(self));
    Py_XDECREF(logged);
    if (logged)
        PyErr_SetString(PyExc_RuntimeError, "Future in unexpected state");
    return NULL;
}

static PyObject *invalid_state(cfpy_future *self)
{
    struct cfpy_module *m = cfpy_module_of(Py_TYPE(self));
    return PyErr_Format(m->InvalidStateError, "%s: %R", state_name(self), self);
}

/* The value stands before the engine tells everybody. */
static PyObject *settle(cfpy_future *self, enum cfpy_kind kind, PyObject *value)
{
    cfpy_future_apply(self);
    if (self->kind != CFPY_NOTHING || is_cancelled(self) || self->origin != CFPY_BARE ||
        cf_future_done(self->future))
        return invalid_state(self);
    cfpy_future_set(self, kind, Py_NewRef(value));
    user.depth++;
    settle_by_value(self);
    return escaped(Py_NewRef(Py_None));
}

PyDoc_STRVAR(set_result_doc,
             "set_result($self, result)\n--\n\n"
             "For executors: settle the future with a result.  InvalidStateError: it is done.");

static PyObject *set_result(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *value = only_argument(args, count, names, "result");
    if (!value)
        return NULL;
    return settle((cfpy_future *)op, CFPY_RESULT, value);
}

PyDoc_STRVAR(set_exception_doc,
             "set_exception($self, exception)\n--\n\n"
             "For executors: settle the future with an exception.  InvalidStateError: it is done.");

static PyObject *set_exception(PyObject *op, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    PyObject *value = only_argument(args, count, names, "exception");
    if (!value)
        return NULL;
    return settle((cfpy_future *)op, value == Py_None ? CFPY_RESULT : CFPY_EXCEPTION, value);
}

/* ---- what it looks like, and the standard's private names ---- */

static PyObject *future_repr(PyObject *op)
{
    static const struct {
        const char *state, *shown;
    } names[] = {
        { "PENDING", "pending" },     { "RUNNING", "running" },
        { "CANCELLED", "cancelled" }, { "CANCELLED_AND_NOTIFIED", "cancelled" },
        { "FINISHED", "finished" },
    };
    cfpy_future *self = (cfpy_future *)op;
    const char *state = state_name(self), *shown = state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i].state, state) == 0)
            shown = names[i].shown;
    }
    PyObject *class = PyType_GetName(Py_TYPE(op));
    PyObject *text = NULL;
    bool ended = strcmp(state, "FINISHED") == 0;
    if (class && (!ended || make_value(self) == 0))
        text = !ended ? PyUnicode_FromFormat("<%U at %p state=%s>", class, (void *)op, shown)
                      : PyUnicode_FromFormat("<%U at %p state=%s %s %s>", class, (void *)op, shown,
                                             self->kind == CFPY_RESULT ? "returned" : "raised",
                                             Py_TYPE(self->value)->tp_name);
    Py_XDECREF(class);
    return text;
}

/* The standard's wait() reads _state and installs its waiter while it holds _condition, and counts on
 * both being one step.  Nothing is locked here: but who holds it sees the state stand still, and
 * Waiters tells who has seen it pending what came meanwhile. */
static PyObject *get_state(PyObject *op, void *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    return PyUnicode_InternFromString(self->holds ? self->held_state : state_name(self));
}

static PyObject *hold(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    if (self->holds++ == 0)
        self->held_state = state_name(self);
    Py_RETURN_NONE;
}

static PyObject *let_go(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    if (self->holds > 0)
        self->holds--;
    Py_RETURN_NONE;
}

static int set_state(PyObject *op, PyObject *value, void *unused)
{
    (void)unused;
    static const char *const names[] = { [CFPY_PENDING] = "PENDING",
                                         [CFPY_RUNNING] = "RUNNING",
                                         [CFPY_CANCELLED] = "CANCELLED",
                                         [CFPY_NOTIFIED] = "CANCELLED_AND_NOTIFIED",
                                         [CFPY_FINISHED] = "FINISHED" };
    for (uint8_t i = CFPY_PENDING; value && i <= CFPY_FINISHED; i++) {
        if (PyUnicode_Check(value) && PyUnicode_CompareWithASCIIString(value, names[i]) == 0) {
            ((cfpy_future *)op)->manual = i;
            return 0;
        }
    }
    PyErr_SetString(PyExc_ValueError, "_state: no such state");
    return -1;
}

static PyObject *get_value(PyObject *op, void *kind)
{
    cfpy_future *self = (cfpy_future *)op;
    if (self->manual == CFPY_AS_IS && cf_future_done(self->future) && !is_cancelled(self) &&
        make_value(self) != 0)
        return NULL;
    return Py_NewRef(self->kind == (uintptr_t)kind ? self->value : Py_None);
}

static int set_value(PyObject *op, PyObject *value, void *kind)
{
    cfpy_future *self = (cfpy_future *)op;
    if (value && value != Py_None)
        cfpy_future_set(self, (enum cfpy_kind)(uintptr_t)kind, Py_NewRef(value));
    else if (self->kind == (uintptr_t)kind && cf_future_done(self->future))
        cfpy_future_set(self, CFPY_RESULT, Py_NewRef(Py_None));
    else if (self->kind == (uintptr_t)kind)
        cfpy_future_set(self, CFPY_NOTHING, NULL);
    return 0;
}

static PyObject *get_condition(PyObject *op, void *unused)
{
    (void)unused;
    return PyObject_CallOneArg(cfpy_module_of(Py_TYPE(op))->Condition, op);
}

static PyObject *get_waiters(PyObject *op, void *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    track(self);
    if (!self->waiters)
        self->waiters = PyObject_CallOneArg(cfpy_module_of(Py_TYPE(op))->Waiters, op);
    return Py_XNewRef(self->waiters);
}

static PyObject *get_callbacks(PyObject *op, void *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    return self->callbacks ? Py_NewRef(self->callbacks) : PyList_New(0);
}

/* The standard's __init__, called by hand, sets what we have already. */
static int ignore(PyObject *op, PyObject *value, void *unused)
{
    (void)op;
    (void)value;
    (void)unused;
    return 0;
}

static int set_attribute(PyObject *op, PyObject *name, PyObject *value)
{
    track((cfpy_future *)op);
    return PyObject_GenericSetAttr(op, name, value);
}

static PyObject *apply(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future_apply((cfpy_future *)op);
    Py_RETURN_NONE;
}

/* For Waiters: has on_done called; False: it has been. */
static PyObject *hook(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    if (!self->hooked && cfpy_future_is_done(self))
        Py_RETURN_FALSE;
    if (cfpy_future_hook(self) != 0)
        return NULL;
    return PyBool_FromLong(!self->called_back);
}

PyDoc_STRVAR(snapshot_doc, "_get_snapshot($self, /)\n--\n\n(done, cancelled, result, exception)");

static PyObject *get_snapshot(PyObject *op, PyObject *unused)
{
    (void)unused;
    cfpy_future *self = (cfpy_future *)op;
    if (!cfpy_future_is_done(self))
        return Py_BuildValue("OOOO", Py_False, Py_False, Py_None, Py_None);
    if (is_cancelled(self))
        return Py_BuildValue("OOOO", Py_True, Py_True, Py_None, Py_None);
    if (make_value(self) != 0)
        return NULL;
    bool ok = self->kind == CFPY_RESULT;
    return Py_BuildValue("OOOO", Py_True, Py_False, ok ? self->value : Py_None,
                         ok ? Py_None : self->value);
}

static PyMethodDef methods[] = {
    { "cancel", cancel, METH_NOARGS, cancel_doc },
    { "cancelled", cancelled, METH_NOARGS, cancelled_doc },
    { "running", running, METH_NOARGS, running_doc },
    { "done", done, METH_NOARGS, done_doc },
    { "result", CFPY_METHOD(result), METH_FASTCALL | METH_KEYWORDS, result_doc },
    { "exception", CFPY_METHOD(exception), METH_FASTCALL | METH_KEYWORDS, exception_doc },
    { "add_done_callback", CFPY_METHOD(add_done_callback), METH_FASTCALL | METH_KEYWORDS,
      add_done_callback_doc },
    { "stop", CFPY_METHOD(stop), METH_VARARGS | METH_KEYWORDS, stop_doc },
    { "set_running_or_notify_cancel", set_running_or_notify_cancel, METH_NOARGS, set_running_doc },
    { "set_result", CFPY_METHOD(set_result), METH_FASTCALL | METH_KEYWORDS, set_result_doc },
    { "set_exception", CFPY_METHOD(set_exception), METH_FASTCALL | METH_KEYWORDS,
      set_exception_doc },
    { "_get_snapshot", get_snapshot, METH_NOARGS, snapshot_doc },
    { "_apply", apply, METH_NOARGS, NULL },
    { "_hook", hook, METH_NOARGS, NULL },
    { "_hold", hold, METH_NOARGS, NULL },
    { "_let_go", let_go, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};

#define KIND(kind) (void *)(uintptr_t)(kind)

static PyGetSetDef attributes[] = {
    { "_state", get_state, set_state, NULL, NULL },
    { "_result", get_value, set_value, NULL, KIND(CFPY_RESULT) },
    { "_exception", get_value, set_value, NULL, KIND(CFPY_EXCEPTION) },
    { "_condition", get_condition, ignore, NULL, NULL },
    { "_waiters", get_waiters, ignore, NULL, NULL },
    { "_done_callbacks", get_callbacks, ignore, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_new, CFPY_SLOT(future_new) },
    { Py_tp_init, CFPY_SLOT(future_init) },
    { Py_tp_dealloc, CFPY_SLOT(future_dealloc) },
    { Py_tp_traverse, CFPY_SLOT(future_traverse) },
    { Py_tp_clear, CFPY_SLOT(future_clear) },
    { Py_tp_setattro, CFPY_SLOT(set_attribute) },
    { Py_tp_repr, CFPY_SLOT(future_repr) },
    { Py_tp_methods, methods },
    { Py_tp_getset, attributes },
    { 0, NULL },
};

PyType_Spec cfpy_future_spec = {
    .name = "cfutures._engine.Future",
    .basicsize = sizeof(cfpy_future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};
