/* SPDX-License-Identifier: MIT */
/* What the files of the extension share.
 *
 * A Python future is an object with a cf_future beside it: the engine's future has the state, the
 * waiters and the one callback on_done; the object has the value and the callables.  Everything in
 * the object is guarded by the GIL; who settles writes the value before the engine's future is done,
 * so whoever sees it done finds the value.
 *
 * The GIL: cfpy_hold and cfpy_let_go know for each thread whether it has let go of it in here.  The
 * hooks that the engine calls around a sleep let go; nothing in the engine takes it again: whoever
 * comes back from the engine, or is called by it, says cfpy_hold. */
#ifndef CFPY_BINDING_H
#define CFPY_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include <cfutures.h>
#include <cfutures/provider.h>

/* Functions in the tables of a type or module. */
#define CFPY_SLOT(fn)   (void *)(uintptr_t)(fn)
#define CFPY_METHOD(fn) (PyCFunction)(void (*)(void))(fn)

/* ---- module.c ---- */

/* What the package's Python files register with configure(), by these names. */
#define CFPY_REGISTERED(X)                                                                         \
    X(Future)            /* the class of the futures that pools make                      */       \
    X(CancelledError)    /* the standard's                                                */       \
    X(InvalidStateError) /* likewise                                                      */       \
    X(DoneAndNotDone)    /* likewise: what wait() returns                                 */       \
    X(failure)           /* (origin, status, message, pid, signal, exitcode, oom) -> exception */  \
    X(log)          /* (critical, message, *args), with the exception that is being handled */     \
    X(as_completed) /* the standard's                                                */            \
    X(tell_waiters) /* (future, waiters) of the standard's wait()                    */            \
    X(Waiters)      /* (future): the list of those                                   */            \
    X(Condition)    /* (future): what a future answers for _condition                */

struct cfpy_module {
#define X(name) PyObject *name;
    CFPY_REGISTERED(X)
#undef X
    PyTypeObject *future_base, *completed_type, *results_type, *thread_pool_type, *worker_type;
    PyTypeObject *process_pool_type;
};

extern struct PyModuleDef cfpy_definition;

static inline struct cfpy_module *cfpy_module_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &cfpy_definition);
    return module ? PyModule_GetState(module) : NULL;
}

/* Raises the exception for a failure of the engine's call on this thread; returns NULL. */
PyObject *cfpy_raise_last(struct cfpy_module *m, int origin);
/* Seconds (a number, or None: for ever) as nanoseconds; -1 with an exception set: it is neither. */
int cfpy_timeout(PyObject *seconds, int64_t *ret_ns);
/* cf_executor_shutdown that goes on after signals: True, the pool has ended; False, not in that time, or
 * it is called from inside it. */
PyObject *cfpy_shutdown(struct cfpy_module *m, int origin, cf_executor *executor,
                        cf_shutdown_mode mode, int64_t timeout_ns);
/* Logs the exception that is set, and clears it. */
void cfpy_log(struct cfpy_module *m, bool critical, const char *message, PyObject *about);
/* The exception that is set, with its traceback in it, cleared; a new reference. */
PyObject *cfpy_fetch_exception(void);

/* ---- gil.c ---- */

extern const cf_wait_hooks cfpy_hooks;
void cfpy_gil_init(void);
void cfpy_let_go(void);
void cfpy_hold(void);

/* For what the engine calls on a thread that may be no thread of Python's. */
struct cfpy_visit {
    bool ensured;
    PyGILState_STATE state;
};
struct cfpy_visit cfpy_enter(void);
void cfpy_leave(struct cfpy_visit visit);

/* Around a call of the engine that may wait.  Lets go of the GIL only when the thread rests. */
static inline const cf_wait_hooks *cfpy_wait_begin(void)
{
    return cf_set_wait_hooks(&cfpy_hooks);
}
static inline void cfpy_wait_end(const cf_wait_hooks *former)
{
    (void)cf_set_wait_hooks(former);
    cfpy_hold();
}

/* ---- future.c ---- */

enum cfpy_origin { CFPY_BARE, CFPY_THREADS, CFPY_PROCESSES };
enum cfpy_kind { CFPY_NOTHING, CFPY_RESULT, CFPY_EXCEPTION };
/* What somebody has assigned to _state; it is brought about by the next call that asks. */
enum cfpy_manual {
    CFPY_AS_IS,
    CFPY_PENDING,
    CFPY_RUNNING,
    CFPY_CANCELLED,
    CFPY_NOTIFIED,
    CFPY_FINISHED
};

typedef struct {
    PyObject_HEAD
    cf_future *future;
    uint32_t sleeper; /* the latest wait() that slept for it: sleeper.c */
    uint8_t kind, origin, manual;
    bool hooked;            /* on_done will be called, or has been */
    PyObject *value;        /* the result or the exception, by kind */
    PyObject *callbacks;    /* a list, or NULL: none so far, or they have been called */
    PyObject *waiters;      /* a Waiters, or NULL: nobody has asked for it */
    const char *held_state; /* what _state was when the first of these began: */
    unsigned holds;         /* of _condition; so long it says held_state */
    bool notified;          /* set_running_or_notify_cancel has said that it is cancelled */
    bool called_back;       /* on_done has been called */
    bool dying;
    unsigned readers; /* threads that make the value of a reply: process_reply.c */
} cfpy_future;

extern PyType_Spec cfpy_future_spec;
/* A future of a pool, pending, without its cf_future yet. */
cfpy_future *cfpy_future_alloc(struct cfpy_module *m, enum cfpy_origin origin);
/* Sees to it that on_done is called when it is done: for callbacks and the standard's waiters. */
int cfpy_future_hook(cfpy_future *self);
/* Brings about what was assigned to _state. */
void cfpy_future_apply(cfpy_future *self);
bool cfpy_future_is_done(cfpy_future *self); /* after cfpy_future_apply, too */
/* Has it ended with an exception?  Of a future that is done. */
bool cfpy_future_failed(cfpy_future *self);
/* Waits; 1: it is done, 0: it is not in time, -1: an exception is set. */
int cfpy_future_await(cfpy_future *self, int64_t timeout_ns);
/* The result of a future that is done, or NULL and its exception is raised. */
PyObject *cfpy_future_outcome(cfpy_future *self);

/* The outcome; takes over the reference. */
void cfpy_future_set(cfpy_future *self, enum cfpy_kind kind, PyObject *stolen);

/* Sets self->value of a future of a process pool that is done and was not cancelled: made from the
 * reply, or the exception that says why there is none.  -1: an exception is set (out of memory). */
int cfpy_reply_decode(cfpy_future *self);
/* Is it a failure?  Likewise, without making it. */
bool cfpy_reply_failed(const cfpy_future *self);

/* ---- sleeper.c ---- */

/* A call of wait() that sleeps until the first of many futures is done. */
enum { CFPY_FOUND = 16 };
struct cfpy_sleeper {
    uint32_t number; /* what its futures are marked with; 0: nobody has this place */
    cf_future *gate; /* done once one of them is */
    unsigned count;  /* of those that are done; what does not fit into `found` is only counted */
    cfpy_future *found[CFPY_FOUND]; /* a reference each */
};

/* NULL: too many calls sleep already, or out of memory (no exception is set). */
struct cfpy_sleeper *cfpy_sleeper_new(void);
void cfpy_sleeper_free(struct cfpy_sleeper *sleeper);
/* It sleeps for this one, too.  false: another one does already, or out of memory, likewise. */
bool cfpy_sleeper_add(struct cfpy_sleeper *sleeper, cfpy_future *future);
/* The future is done: wakes who sleeps for it. */
void cfpy_tell_sleeper(cfpy_future *future);

/* ---- wait.c, completed.c, results.c ---- */

int64_t cfpy_now(void);
int64_t cfpy_deadline(int64_t timeout_ns);
PyObject *cfpy_wait(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
/* The entries of an iterable, each once, as a list; *ret_foreign: one is not of this package. */
PyObject *cfpy_unique(struct cfpy_module *m, PyObject *iterable, bool *ret_foreign);
/* A cf_future * for each entry of such a list; NULL and an exception: out of memory. */
cf_future **cfpy_engine_futures(PyObject *list);
extern PyType_Spec cfpy_completed_spec;
extern PyType_Spec cfpy_results_spec;

/* ---- thread_pool.c, process_pool.c ---- */

extern PyType_Spec cfpy_thread_pool_spec;
extern PyType_Spec cfpy_worker_spec;
extern PyType_Spec cfpy_process_pool_spec;
/* Functions of the module for worker processes: run_worker(channel, ...). */
extern PyMethodDef cfpy_process_functions[];

#endif
