/* SPDX-License-Identifier: MIT */
/* The process pool: cfutures._engine.ProcessPool, which a cfutures.ProcessPoolExecutor has from its
 * first submit on.
 *
 * It is an object of its own because it lives longer than the executor: what is pending when that is
 * dropped still runs.  process.py keeps it until it has ended, so its end here never waits.
 *
 * A call is pickled by the submitter; its task in the engine is cfpy_run_call in process_worker.c, and
 * its reply waits in the cf_future until somebody reads it (process_reply.c).  Processes are made by
 * the crew, an object of process.py. */
#include "process.h"

#include <errno.h>
#include <signal.h>

typedef struct {
    PyObject_HEAD
    struct cfpy_module *module;
    cf_executor *executor; /* NULL: it could not be made */
    PyObject *crew;
    cf_host host;
} pool_object;

static struct {
    bool have_ended; /* the interpreter exits: no hook calls Python any more */
} pools;
/* What this thread asks the engine for, which may make the crew start a worker. */
static _Thread_local struct asking {
    pool_object *pool;
    PyObject *error; /* what the crew raised then; NULL: nothing */
} asks;

/* ---- what the engine asks of the crew ---- */

/* Ctrl-C waits until there is a worker, on both sides; this one then unblocks it. */
static PyObject *start_by_crew(pool_object *self, int channel, unsigned number)
{
    sigset_t interrupt, former;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &interrupt, &former);
    PyObject *pid = PyObject_CallMethod(self->crew, "start", "iI", channel, number);
    (void)pthread_sigmask(SIG_SETMASK, &former, NULL);
    return pid;
}

/* An error is the submitter's; elsewhere the engine tries again. */
static int start_process(void *data, int channel, unsigned number, int *ret_pid)
{
    pool_object *self = data;
    if (pools.have_ended)
        return ECANCELED;
    struct cfpy_visit visit = cfpy_enter();
    PyObject *pid = start_by_crew(self, channel, number);
    if (pid)
        *ret_pid = (int)PyLong_AsLong(pid);
    else if (asks.pool == self)
        Py_XSETREF(asks.error, cfpy_fetch_exception());
    else
        PyErr_Clear();
    Py_XDECREF(pid);
    cfpy_leave(visit);
    return pid ? 0 : ECHILD;
}

static bool process_status(void *data, int pid, int *ret_status)
{
    pool_object *self = data;
    if (pools.have_ended)
        return false;
    struct cfpy_visit visit = cfpy_enter();
    PyObject *status = PyObject_CallMethod(self->crew, "status", "i", pid);
    bool is_known = status && status != Py_None;
    if (is_known)
        *ret_status = (int)PyLong_AsLong(status);
    if (!status)
        PyErr_Clear();
    Py_XDECREF(status);
    cfpy_leave(visit);
    return is_known;
}

/* ---- submitting ---- */

/* A future that has failed with the exception that is set. */
static PyObject *failed_future(pool_object *self)
{
    PyObject *error = cfpy_fetch_exception();
    cfpy_future *future = cfpy_future_alloc(self->module, CFPY_BARE);
    if (!future || cf_future_new(0, NULL, &future->future) != CF_OK) {
        Py_XDECREF(future);
        Py_DECREF(error);
        return PyErr_NoMemory();
    }
    const cf_error failed = { .size = sizeof failed, .status = CF_FAILED, .exit_code = -1 };
    cfpy_future_set(future, CFPY_EXCEPTION, error);
    (void)cf_future_set_exception(future->future, &failed);
    return (PyObject *)future;
}

static struct asking ask(pool_object *self)
{
    struct asking former = asks;
    asks = (struct asking){ .pool = self };
    return former;
}

/* After the engine has answered: what the crew raised is why it refused; if it did not, another worker
 * does the work. */
static void raise_if_refused(struct asking former, cf_status s)
{
    pool_object *self = asks.pool;
    PyObject *error = asks.error;
    asks = former;
    if (s != CF_OK && error)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    else if (s != CF_OK && s != CF_INTERRUPTED && !PyErr_Occurred())
        (void)cfpy_raise_last(self->module, CFPY_PROCESSES);
    Py_XDECREF(error);
}

/* What is to be sent. */
struct parcel {
    const struct cfpy_pickle *pickle;
    unsigned flags;
};

/* Nobody else changes the parts: their owners have been told that they are in use. */
static void write_parcel(void *data, void *to)
{
    enum { LARGE = 1 << 20 };
    const struct parcel *p = data;
    PyThreadState *state = cfpy_pickle_size(p->pickle) > LARGE ? PyEval_SaveThread() : NULL;
    cfpy_pickle_write(p->pickle, p->flags, to);
    if (state)
        PyEval_RestoreThread(state);
}

/* Again after a signal whose handlers raise nothing.  true: accepted; else an exception is set. */
static bool send(pool_object *self, const cf_task *task, struct parcel *parcel, cf_future **ret)
{
    cf_status s;
    struct asking former_ask = ask(self);
    do {
        const cf_wait_hooks *former = cfpy_wait_begin();
        s = cf_process_pool_submit(self->executor, task, write_parcel, parcel, ret);
        cfpy_wait_end(former);
    } while (s == CF_INTERRUPTED && PyErr_CheckSignals() == 0);
    raise_if_refused(former_ask, s);
    return s == CF_OK;
}

static PyObject *submit_pickle(pool_object *self, const struct cfpy_pickle *pickle, unsigned flags,
                               cf_task *task)
{
    struct parcel parcel = { pickle, flags };
    cfpy_future *future = cfpy_future_alloc(self->module, CFPY_PROCESSES);
    if (!future)
        return NULL;
    task->arg_size = cfpy_pickle_size(pickle);
    cfpy_future_set(future, CFPY_NOTHING, Py_NewRef(self->crew));
    if (send(self, task, &parcel, &future->future))
        return (PyObject *)future;
    Py_DECREF(future);
    return NULL;
}

/* The standard starts a worker for each call, also for one that cannot be pickled. */
static PyObject *cannot_pickle(pool_object *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *future = failed_future(self);
    (void)cf_process_pool_start_worker(self->executor);
    return future;
}

static PyObject *submit_call(pool_object *self, PyObject *call, cf_task *task)
{
    struct cfpy_pickle pickle;
    PyObject *future = cfpy_pickle_dump(call, &pickle) == 0 ? submit_pickle(self, &pickle, 0, task)
                                                            : cannot_pickle(self);
    cfpy_pickle_clear(&pickle);
    return future;
}

/* (fn, args, kwargs, run_limit in seconds or None, priority) */
static PyObject *pool_submit(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    pool_object *self = (pool_object *)op;
    cf_task task = { .size = sizeof task, .bytes_fn = cfpy_run_call };
    int64_t limit = CF_FOREVER;
    if (!self->executor)
        return PyErr_Format(PyExc_RuntimeError, "cannot schedule new futures after shutdown");
    if (count != 3 && count != 5)
        return PyErr_Format(PyExc_TypeError, "submit() takes 3 or 5 arguments");
    if (count == 5) {
        task.priority = PyLong_AsLongLong(args[4]);
        if (cfpy_timeout(args[3], &limit) != 0 || (task.priority == -1 && PyErr_Occurred()))
            return NULL;
    }
    task.run_limit_ns = limit == CF_FOREVER ? 0 : limit;
    bool has_names = PyDict_GET_SIZE(args[2]) > 0;
    PyObject *light = cfpy_lightened(args[1]);
    PyObject *call = light ? PyTuple_Pack(has_names ? 3 : 2, args[0], light, args[2]) : NULL;
    PyObject *future = call ? submit_call(self, call, &task) : NULL;
    Py_XDECREF(light);
    Py_XDECREF(call);
    return future;
}

/* (fn, list of argument tuples): all of them as one task.  None: something cannot be pickled. */
static PyObject *pool_submit_batch(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    pool_object *self = (pool_object *)op;
    cf_task task = { .size = sizeof task, .bytes_fn = cfpy_run_call };
    if (count != 2 || !PyList_CheckExact(args[1]) || !self->executor)
        return PyErr_Format(PyExc_RuntimeError, "cannot schedule new futures after shutdown");
    struct cfpy_pickle pickle = { .stream.count = 0 };
    PyObject *batch = cfpy_batch_of(args[0], args[1]);
    bool is_pickled = batch && cfpy_pickle_dump(batch, &pickle) == 0;
    PyObject *future = NULL;
    if (is_pickled) {
        future = submit_pickle(self, &pickle, CFPY_IS_BATCH, &task);
    } else if (PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        future = Py_NewRef(Py_None);
    }
    cfpy_pickle_clear(&pickle);
    Py_XDECREF(batch);
    return future;
}

/* One more process; False: there are all of them. */
static PyObject *pool_start_worker(PyObject *op, PyObject *unused)
{
    (void)unused;
    pool_object *self = (pool_object *)op;
    struct asking former = ask(self);
    cf_status s = cf_process_pool_start_worker(self->executor);
    cfpy_hold();
    raise_if_refused(former, s == CF_FULL ? CF_OK : s);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(s == CF_OK);
}

/* ---- opening and ending ---- */

/* (crew, max_workers, breaks, max_retries, max_restarts, restart_window_ns, max_tasks, max_pending,
 * rejects, has_initializer) */
static int open_pool(pool_object *self, PyObject *args)
{
    int breaks, rejects, has_initializer;
    Py_ssize_t max_pending;
    long long window;
    cf_process_pool_options o = { .size = sizeof o, .host = &self->host };
    PyObject *crew;
    if (!PyArg_ParseTuple(args, "OIpIILInpp", &crew, &o.max_workers, &breaks, &o.max_retries,
                          &o.max_restarts, &window, &o.max_tasks_per_child, &max_pending, &rejects,
                          &has_initializer))
        return -1;
    self->crew = Py_NewRef(crew);
    self->host = (cf_host){ .size = sizeof self->host,
                            .data = self,
                            .start_process = start_process,
                            .process_status = process_status };
    o.on_crash = breaks ? CF_ON_CRASH_BREAK : CF_ON_CRASH_REPLACE;
    o.restart_window_ns = window;
    o.max_pending = (size_t)max_pending;
    o.when_full = rejects ? CF_WHEN_FULL_REJECT : CF_WHEN_FULL_WAIT;
    o.initializer = has_initializer ? cfpy_run_initializer : NULL;
    if (cf_process_pool_new(&o, &self->executor) == CF_OK)
        return 0;
    (void)cfpy_raise_last(self->module, CFPY_PROCESSES);
    return -1;
}

static PyObject *pool_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    (void)named;
    pool_object *self = (pool_object *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->module = cfpy_module_of(type);
    if (open_pool(self, args) == 0)
        return (PyObject *)self;
    Py_DECREF(self);
    return NULL;
}

/* (mode, timeout): begins it; True: all has ended, False: not in that time. */
static PyObject *pool_shutdown(PyObject *op, PyObject *args)
{
    pool_object *self = (pool_object *)op;
    int mode;
    PyObject *timeout;
    int64_t timeout_ns;
    if (!PyArg_ParseTuple(args, "iO", &mode, &timeout) || cfpy_timeout(timeout, &timeout_ns) != 0)
        return NULL;
    if (!self->executor)
        Py_RETURN_TRUE;
    return cfpy_shutdown(self->module, CFPY_PROCESSES, self->executor, (cf_shutdown_mode)mode,
                         timeout_ns);
}

/* In a forked child: only memory and descriptors go.  Later submits are refused. */
static PyObject *pool_leave(PyObject *op, PyObject *unused)
{
    (void)unused;
    pool_object *self = (pool_object *)op;
    cf_executor *executor = self->executor;
    self->executor = NULL;
    cf_executor_free(executor);
    Py_RETURN_NONE;
}

PyObject *cfpy_end_of_pools(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    pools.have_ended = true;
    Py_RETURN_NONE;
}

static int pool_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(((pool_object *)op)->crew);
    Py_VISIT(Py_TYPE(op));
    return 0;
}

static void pool_dealloc(PyObject *op)
{
    pool_object *self = (pool_object *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->executor && !pools.have_ended)
        cf_executor_free(self->executor);
    cfpy_hold();
    Py_CLEAR(self->crew);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyObject *get_broken(PyObject *op, void *unused)
{
    (void)unused;
    return PyBool_FromLong(cf_process_pool_is_broken(((pool_object *)op)->executor));
}

static PyObject *get_unfinished(PyObject *op, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(cf_process_pool_unfinished(((pool_object *)op)->executor));
}

static PyMethodDef methods[] = {
    { "submit", CFPY_METHOD(pool_submit), METH_FASTCALL, NULL },
    { "submit_batch", CFPY_METHOD(pool_submit_batch), METH_FASTCALL, NULL },
    { "start_worker", pool_start_worker, METH_NOARGS, NULL },
    { "leave", pool_leave, METH_NOARGS, NULL },
    { "shutdown", pool_shutdown, METH_VARARGS, NULL },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef attributes[] = {
    { "is_broken", get_broken, NULL, NULL, NULL },
    { "unfinished", get_unfinished, NULL, NULL, NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_new, CFPY_SLOT(pool_new) },
    { Py_tp_dealloc, CFPY_SLOT(pool_dealloc) },
    { Py_tp_traverse, CFPY_SLOT(pool_traverse) },
    { Py_tp_methods, methods },
    { Py_tp_getset, attributes },
    { 0, NULL },
};

PyType_Spec cfpy_process_pool_spec = {
    .name = "cfutures._engine.ProcessPool",
    .basicsize = sizeof(pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyMethodDef cfpy_process_functions[] = {
    { "run_worker", cfpy_run_worker, METH_VARARGS, NULL },
    { "end_of_pools", cfpy_end_of_pools, METH_NOARGS, NULL },
    { "unpack", cfpy_unpack, METH_O, NULL },
    { "fork", cfpy_fork, METH_NOARGS, NULL },
    { NULL, NULL, 0, NULL },
};
