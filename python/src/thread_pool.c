/* SPDX-License-Identifier: MIT */
/* The thread pool: cfutures._engine.ThreadPool, base of cfutures.ThreadPoolExecutor.
 *
 * A call is one task of the engine, whose argument is a struct call: references to the future, to
 * the function and to its arguments, copied by the engine into the block of the cf_future.  The
 * result goes into the Python future, the engine hears only whether the call failed.
 *
 * The pool's core outlives the object: an executor that is dropped still runs what is pending.  It
 * has a reference for the object and one for each thread; who gives back the last frees the
 * engine's pool, whose workers have all gone by then.
 *
 * The engine starts the first thread; the others are asked for here, one a submit, when there are
 * more calls waiting than idle threads: what the standard promises. */
#include "binding.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <time.h>

struct core {
    Py_ssize_t references;
    struct cfpy_module *module;
    cf_executor *executor;
    PyObject *initializer, *initargs; /* NULL: none */
    cf_host host;
    Py_ssize_t pending, running, threads; /* calls that wait, calls that run, threads that live */
    Py_ssize_t max_workers;
    bool broken; /* an initializer has failed */
};

typedef struct {
    PyObject_HEAD
    struct core *core; /* NULL: not opened yet */
    PyObject *start;   /* (worker, number): makes and starts the threading.Thread that calls it */
} pool_object;

/* What a thread calls: a worker of the engine. */
typedef struct {
    PyObject_HEAD
    struct core *core;
    cf_worker *worker; /* NULL: it has been called */
} worker_object;

struct call {
    struct core *core;
    cfpy_future *future;
    PyObject *names;
    uint32_t count; /* of positional arguments; those of `names` come behind them */
    bool begun;
    PyObject *fn; /* just before the arguments: the callee may use its place a while */
    PyObject *args[];
};

enum { FEW = 16 }; /* arguments that need no allocation on the way to the engine */

static size_t call_size(size_t total)
{
    return offsetof(struct call, args) + total * sizeof(PyObject *);
}

static size_t total_args(const struct call *c)
{
    return c->count + (c->names ? (size_t)PyTuple_GET_SIZE(c->names) : 0);
}

/* ---- the core ---- */

static void core_unref(struct core *core)
{
    if (--core->references > 0)
        return;
    const cf_wait_hooks *former = cfpy_wait_begin();
    cf_executor_free(core->executor);
    cfpy_wait_end(former);
    Py_XDECREF(core->initializer);
    Py_XDECREF(core->initargs);
    PyMem_Free(core);
}

/* ---- a call ---- */

/* C code never asks whether others want the GIL: so we do, every few milliseconds. */
static void let_others_in(void)
{
    enum { PATIENCE_NS = 5000000 };
    static _Thread_local int64_t since;
    int64_t now = cfpy_now();
    if (now - since < PATIENCE_NS)
        return;
    since = now;
    PyThreadState *state = PyEval_SaveThread();
    PyEval_RestoreThread(state);
}

static void drop_references(struct call *c)
{
    for (size_t i = 0; i < total_args(c); i++)
        Py_DECREF(c->args[i]);
    Py_DECREF(c->fn);
    Py_XDECREF(c->names);
    Py_DECREF(c->future);
}

/* The task.  What fn raises is the future's; 1: it is a failure. */
static int run_call(const void *arg, void *no_result)
{
    (void)no_result;
    struct call *c = (struct call *)(uintptr_t)arg; /* our copy */
    cfpy_hold();
    c->begun = true;
    c->core->pending--;
    c->core->running++;
    PyObject *fn = c->fn; /* its place is lent */
    PyObject *value =
        PyObject_Vectorcall(fn, c->args, c->count | PY_VECTORCALL_ARGUMENTS_OFFSET, c->names);
    if (!PyFunction_Check(fn))
        let_others_in();
    c->core->running--;
    if (value)
        cfpy_future_set(c->future, CFPY_RESULT, value);
    else
        cfpy_future_set(c->future, CFPY_EXCEPTION, cfpy_fetch_exception());
    struct core *core = c->core;
    drop_references(c);
    if (core->pending == 0) /* whoever waits for this one finds the GIL free */
        cfpy_let_go();
    return value ? 0 : 1;
}

/* The engine's arg_destroy: the call was made, or never will be. */
static void drop_call(void *arg)
{
    struct call *c = arg;
    if (c->begun)
        return;
    cfpy_hold();
    c->core->pending--;
    drop_references(c);
}

static void own(struct call *c)
{
    for (size_t i = 0; i < total_args(c); i++)
        Py_INCREF(c->args[i]);
    Py_INCREF(c->fn);
    Py_XINCREF(c->names);
    Py_INCREF(c->future);
}

/* ---- submitting ---- */

/* A thread that cannot be had is no failure while there is another one; Ctrl-C meanwhile is. */
static bool start_if_needed(struct core *core)
{
    if (core->pending <= core->threads - core->running || core->threads >= core->max_workers)
        return true;
    const cf_wait_hooks *former = cfpy_wait_begin();
    (void)cf_thread_pool_start_worker(core->executor);
    cfpy_wait_end(former);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
        return false;
    PyErr_Clear();
    return true;
}

/* A thread of the standard's has taken its first call when submit returns, and programs rely on it: they
 * submit and shut down at once with cancel_futures.  A thread that is asked for finds its call queued
 * and keeps the GIL until it has begun it; the first comes before its call. */
static void let_it_begin(const cfpy_future *f)
{
    enum { YIELDS = 50, LIMIT_NS = 100000000, NAP_NS = 50000 };
    const struct timespec nap = { .tv_nsec = NAP_NS };
    int64_t until = cfpy_now() + LIMIT_NS;
    cfpy_let_go();
    for (int i = 0; !cf_future_running(f->future) && !cf_future_done(f->future); i++) {
        if (i < YIELDS)
            (void)sched_yield();
        else if (nanosleep(&nap, NULL) != 0 || cfpy_now() > until)
            break;
    }
    cfpy_hold();
}

static cf_status hand_over(struct core *core, struct call *c, int64_t priority)
{
    const cf_task task = { .size = sizeof task,
                           .fn = run_call,
                           .arg = c,
                           .arg_size = call_size(total_args(c)),
                           .arg_destroy = drop_call,
                           .priority = priority };
    cf_status s;
    do {
        const cf_wait_hooks *former = cfpy_wait_begin();
        s = cf_submit_task(core->executor, &task, &c->future->future);
        cfpy_wait_end(former);
    } while (s == CF_INTERRUPTED && PyErr_CheckSignals() == 0);
    return s;
}

static PyObject *not_taken(struct core *core, struct call *c)
{
    core->pending--;
    (void)cfpy_raise_last(core->module, CFPY_THREADS);
    Py_DECREF(c->future); /* the caller's */
    drop_references(c);
    return NULL;
}

static PyObject *submit_call(struct core *core, struct call *c, int64_t priority)
{
    c->future = cfpy_future_alloc(core->module, CFPY_THREADS);
    if (!c->future)
        return NULL;
    c->core = core;
    c->begun = false;
    own(c);
    core->pending++;
    Py_ssize_t threads = core->threads;
    if (hand_over(core, c, priority) != CF_OK)
        return not_taken(core, c);
    if (core->threads > threads && !core->initializer)
        let_it_begin(c->future);
    if (start_if_needed(core))
        return (PyObject *)c->future;
    Py_DECREF(c->future);
    return NULL;
}

/* fn(*args[0 .. count], **{names: the rest}) */
static PyObject *submit(struct core *core, PyObject *fn, PyObject *const *args, Py_ssize_t count,
                        PyObject *names, int64_t priority)
{
    union {
        struct call call;
        char room[sizeof(struct call) + FEW * sizeof(PyObject *)];
    } few;
    size_t total = (size_t)count + (names ? (size_t)PyTuple_GET_SIZE(names) : 0);
    struct call *c = total <= FEW ? &few.call : PyMem_Malloc(call_size(total));
    if (!c)
        return PyErr_NoMemory();
    c->fn = fn;
    c->names = names;
    c->count = (uint32_t)count;
    memcpy(c->args, args, total * sizeof *args);
    PyObject *future = submit_call(core, c, priority);
    if (c != &few.call)
        PyMem_Free(c);
    return future;
}

static struct core *opened(pool_object *self)
{
    if (!self->core)
        PyErr_SetString(PyExc_RuntimeError, "the executor's __init__ was not called");
    return self->core;
}

PyDoc_STRVAR(
    submit_doc,
    "submit($self, fn, /, *args, **kwargs)\n--\n\n"
    "Have fn(*args, **kwargs) called in a thread of the pool; returns its Future.\n"
    "Raises RuntimeError after shutdown, BrokenThreadPool when an initializer has failed,\n"
    "QueueFull when the pool is bounded and has no room.");

static PyObject *pool_submit(PyObject *op, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct core *core = opened((pool_object *)op);
    if (!core)
        return NULL;
    if (count < 1)
        return PyErr_Format(PyExc_TypeError,
                            "submit() missing 1 required positional argument: 'fn'");
    return submit(core, args[0], args + 1, count - 1, names, 0);
}

/* (priority, fn, args, kwargs): for using(). */
static PyObject *pool_submit_with(PyObject *op, PyObject *args)
{
    long long priority;
    PyObject *fn, *positional, *named;
    struct core *core = opened((pool_object *)op);
    if (!core || !PyArg_ParseTuple(args, "LOO!O!", &priority, &fn, &PyTuple_Type, &positional,
                                   &PyDict_Type, &named))
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(positional);
    PyObject *names = PySequence_Tuple(named), *values = PyDict_Values(named), *future = NULL;
    PyObject *tail = values ? PyList_AsTuple(values) : NULL;
    PyObject *all = tail ? PySequence_Concat(positional, tail) : NULL;
    if (names && all)
        future = submit(core, fn, &PyTuple_GET_ITEM(all, 0), count,
                        PyTuple_GET_SIZE(names) ? names : NULL, priority);
    Py_XDECREF(names);
    Py_XDECREF(values);
    Py_XDECREF(tail);
    Py_XDECREF(all);
    return future;
}

/* One item of each iterator; false: one has ended, or an exception is set. */
static bool next_items(PyObject *iterators, PyObject **items)
{
    Py_ssize_t width = PyTuple_GET_SIZE(iterators), got = 0;
    while (got < width && (items[got] = PyIter_Next(PyTuple_GET_ITEM(iterators, got))))
        got++;
    if (got == width)
        return width > 0;
    while (got > 0)
        Py_DECREF(items[--got]);
    return false;
}

/* Submits fn(*items), whose references it takes over, and appends its future to the list. */
static bool submit_items(struct core *core, PyObject *fn, PyObject **items, Py_ssize_t width,
                         PyObject *list)
{
    PyObject *future = submit(core, fn, items, width, NULL, 0);
    for (Py_ssize_t i = 0; i < width; i++)
        Py_DECREF(items[i]);
    bool appended = future && PyList_Append(list, future) == 0;
    Py_XDECREF(future);
    return appended;
}

/* (fn, iterators, limit, list): appends the futures of the next `limit` calls (-1: of all) to the
 * list; True: the iterators may have more. */
static PyObject *pool_submit_each(PyObject *op, PyObject *args)
{
    PyObject *fn, *iterators, *list;
    Py_ssize_t limit;
    struct core *core = opened((pool_object *)op);
    if (!core || !PyArg_ParseTuple(args, "OO!nO!", &fn, &PyTuple_Type, &iterators, &limit,
                                   &PyList_Type, &list))
        return NULL;
    Py_ssize_t width = PyTuple_GET_SIZE(iterators);
    PyObject *few[FEW], **items = width <= FEW ? few : PyMem_New(PyObject *, (size_t)width);
    if (!items)
        return PyErr_NoMemory();
    bool more = true;
    for (; limit != 0 && more; limit -= limit > 0)
        more = next_items(iterators, items) && submit_items(core, fn, items, width, list);
    if (items != few)
        PyMem_Free(items);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(more);
}

/* ---- threads ---- */

/* The engine's start_thread: on a thread that submits, and so has the object. */
static int start_thread(void *data, cf_worker *worker, unsigned number)
{
    pool_object *pool = data;
    struct core *core = pool->core;
    struct cfpy_visit visit = cfpy_enter();
    worker_object *w =
        (worker_object *)core->module->worker_type->tp_alloc(core->module->worker_type, 0);
    if (w) {
        w->core = core;
        w->worker = worker;
        core->references++;
        core->threads++;
    }
    PyObject *started = w ? PyObject_CallFunction(pool->start, "OI", (PyObject *)w, number) : NULL;
    if (!started && w) {
        w->worker = NULL;
        core->threads--;
    }
    Py_XDECREF(started);
    Py_XDECREF((PyObject *)w);
    cfpy_leave(visit);
    return started ? 0 : EAGAIN; /* the exception stays set, for the submit */
}

static int initialize(void *data)
{
    struct core *core = data;
    cfpy_hold();
    PyObject *result = PyObject_CallObject(core->initializer, core->initargs);
    if (!result) {
        core->broken = true;
        cfpy_log(core->module, true, "Exception in initializer:", NULL);
        return cf_raise(1, "A thread initializer failed, the thread pool is not usable anymore");
    }
    Py_DECREF(result);
    return 0;
}

static PyObject *worker_call(PyObject *op, PyObject *args, PyObject *named)
{
    (void)args;
    (void)named;
    worker_object *self = (worker_object *)op;
    cf_worker *worker = self->worker;
    self->worker = NULL;
    if (!worker)
        Py_RETURN_NONE;
    const cf_wait_hooks *former = cfpy_wait_begin();
    cf_worker_run(worker); /* which lets go of the GIL when it finds nothing to do */
    cfpy_wait_end(former);
    self->core->threads--;
    Py_RETURN_NONE;
}

static void worker_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    core_unref(((worker_object *)op)->core);
    type->tp_free(op);
    Py_DECREF(type);
}

/* ---- opening and closing ---- */

static cf_executor *new_pool(pool_object *self, int when_full, Py_ssize_t max_pending)
{
    struct core *core = self->core;
    cf_executor *executor = NULL;
    core->host = (cf_host){
        .size = sizeof core->host, .data = self, .start_thread = start_thread, .on_request = true
    };
    const cf_thread_pool_options options = {
        .size = sizeof options,
        .max_workers = (unsigned)core->max_workers,
        .when_full = (cf_when_full)when_full,
        .max_pending = (size_t)max_pending,
        .initializer = core->initializer ? initialize : NULL,
        .initializer_data = core,
        .host = &core->host,
    };
    if (cf_thread_pool_new(&options, &executor) != CF_OK)
        (void)cfpy_raise_last(core->module, CFPY_THREADS);
    return executor;
}

/* (max_workers, start, initializer, initargs, when_full, max_pending) */
static PyObject *pool_open(PyObject *op, PyObject *args)
{
    pool_object *self = (pool_object *)op;
    PyObject *start, *initializer, *initargs;
    Py_ssize_t max_workers, max_pending;
    int when_full;
    if (!PyArg_ParseTuple(args, "nOOOin", &max_workers, &start, &initializer, &initargs, &when_full,
                          &max_pending))
        return NULL;
    if (self->core)
        return PyErr_Format(PyExc_RuntimeError, "the executor's __init__ was called twice");
    struct core *core = PyMem_Calloc(1, sizeof *core);
    if (!core)
        return PyErr_NoMemory();
    core->references = 1;
    core->module = cfpy_module_of(Py_TYPE(op));
    core->max_workers = max_workers;
    if (initializer != Py_None) {
        core->initializer = Py_NewRef(initializer);
        core->initargs = Py_NewRef(initargs);
    }
    self->core = core;
    Py_XSETREF(self->start, Py_NewRef(start));
    core->executor = new_pool(self, when_full, max_pending);
    if (core->executor)
        Py_RETURN_NONE;
    self->core = NULL;
    core_unref(core);
    return NULL;
}

/* (cancel_pending, timeout): begins it; True: the workers have gone, False: not in that time. */
static PyObject *pool_close(PyObject *op, PyObject *args)
{
    int cancel;
    PyObject *timeout;
    int64_t timeout_ns;
    struct core *core = ((pool_object *)op)->core;
    if (!PyArg_ParseTuple(args, "pO", &cancel, &timeout) || cfpy_timeout(timeout, &timeout_ns) != 0)
        return NULL;
    if (!core)
        Py_RETURN_TRUE;
    return cfpy_shutdown(core->module, CFPY_THREADS, core->executor,
                         cancel ? CF_CANCEL_PENDING : CF_FINISH_PENDING, timeout_ns);
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    (void)args;
    (void)named;
    return type->tp_alloc(type, 0);
}

static int pool_traverse(PyObject *op, visitproc visit, void *arg)
{
    pool_object *self = (pool_object *)op;
    Py_VISIT(self->start);
    if (self->core && self->core->references == 1) {
        Py_VISIT(self->core->initializer);
        Py_VISIT(self->core->initargs);
    }
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static int pool_clear(PyObject *op)
{
    Py_CLEAR(((pool_object *)op)->start);
    return 0;
}

/* What is pending still runs; nobody waits for it. */
static void pool_dealloc(PyObject *op)
{
    pool_object *self = (pool_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)pool_clear(op);
    if (self->core) {
        (void)cf_executor_shutdown(self->core->executor, CF_FINISH_PENDING, 0);
        cfpy_hold();
        core_unref(self->core);
    }
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *get_pending(PyObject *op, void *unused)
{
    (void)unused;
    struct core *core = ((pool_object *)op)->core;
    return PyLong_FromSsize_t(core ? core->pending : 0);
}

static PyObject *get_idle(PyObject *op, void *unused)
{
    (void)unused;
    struct core *core = ((pool_object *)op)->core;
    return PyLong_FromSsize_t(core ? core->threads - core->running : 0);
}

static PyObject *get_broken(PyObject *op, void *unused)
{
    (void)unused;
    struct core *core = ((pool_object *)op)->core;
    return PyBool_FromLong(core && core->broken);
}

static PyMethodDef pool_methods[] = {
    { "submit", CFPY_METHOD(pool_submit), METH_FASTCALL | METH_KEYWORDS, submit_doc },
    { "_submit_with", pool_submit_with, METH_VARARGS, NULL },
    { "_submit_each", pool_submit_each, METH_VARARGS, NULL },
    { "_open", pool_open, METH_VARARGS, NULL },
    { "_close", pool_close, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef pool_attributes[] = {
    { "_pending", get_pending, NULL, NULL, NULL },
    { "_idle", get_idle, NULL, NULL, NULL },
    { "_is_broken", get_broken, NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot pool_slots[] = {
    { Py_tp_new, CFPY_SLOT(pool_new) },
    { Py_tp_dealloc, CFPY_SLOT(pool_dealloc) },
    { Py_tp_traverse, CFPY_SLOT(pool_traverse) },
    { Py_tp_clear, CFPY_SLOT(pool_clear) },
    { Py_tp_methods, pool_methods },
    { Py_tp_getset, pool_attributes },
    { 0, NULL },
};

PyType_Spec cfpy_thread_pool_spec = {
    .name = "cfutures._engine.ThreadPool",
    .basicsize = sizeof(pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = pool_slots,
};

static PyType_Slot worker_slots[] = {
    { Py_tp_dealloc, CFPY_SLOT(worker_dealloc) },
    { Py_tp_call, CFPY_SLOT(worker_call) },
    { 0, NULL },
};

PyType_Spec cfpy_worker_spec = {
    .name = "cfutures._engine.Worker",
    .basicsize = sizeof(worker_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = worker_slots,
};
