/* SPDX-License-Identifier: MIT */
/* The module cfutures._engine: its types, its functions, and what all files need. */
#include "binding.h"

#include <math.h>

/* ---- errors ---- */

PyObject *cfpy_fetch_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

static PyObject *failure_of(struct cfpy_module *m, int origin, const cf_error *e)
{
    return PyObject_CallFunction(m->failure, "iiziiii", origin, (int)e->status, e->message,
                                 e->worker_pid, e->signal_number, e->exit_code, e->out_of_memory);
}

PyObject *cfpy_raise_last(struct cfpy_module *m, int origin)
{
    const cf_error *e = cf_last_error();
    if (PyErr_Occurred())
        return NULL;
    if (e->status == CF_NOMEM)
        return PyErr_NoMemory();
    PyObject *exception = failure_of(m, origin, e);
    if (exception)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    return NULL;
}

void cfpy_log(struct cfpy_module *m, bool critical, const char *message, PyObject *about)
{
    PyObject *exception = cfpy_fetch_exception();
    PyObject *done =
        about ? PyObject_CallFunction(m->log, "OisO", exception, critical, message, about)
              : PyObject_CallFunction(m->log, "Ois", exception, critical, message);
    if (!done)
        PyErr_WriteUnraisable(about);
    Py_XDECREF(done);
    Py_XDECREF(exception);
}

/* ---- time ---- */

int cfpy_timeout(PyObject *seconds, int64_t *ret_ns)
{
    *ret_ns = CF_FOREVER;
    if (!seconds || seconds == Py_None)
        return 0;
    double s = PyFloat_AsDouble(seconds);
    if (s == -1.0 && PyErr_Occurred())
        return -1;
    if (isnan(s)) {
        PyErr_SetString(PyExc_ValueError, "timeout: is not a number");
        return -1;
    }
    if (s < 9e9)
        *ret_ns = s > 0 ? (int64_t)(s * 1e9) : 0;
    return 0;
}

/* ---- ending a pool ---- */

PyObject *cfpy_shutdown(struct cfpy_module *m, int origin, cf_executor *executor,
                        cf_shutdown_mode mode, int64_t timeout_ns)
{
    int64_t deadline = cfpy_deadline(timeout_ns);
    for (;;) {
        const cf_wait_hooks *former = cfpy_wait_begin();
        cf_status s = cf_executor_shutdown(executor, mode, timeout_ns);
        cfpy_wait_end(former);
        if (PyErr_CheckSignals() < 0)
            return NULL;
        if (s == CF_OK || s == CF_TIMEOUT || s == CF_DEADLOCK)
            return PyBool_FromLong(s == CF_OK);
        if (s != CF_INTERRUPTED)
            return cfpy_raise_last(m, origin);
        if (deadline != CF_FOREVER)
            timeout_ns = deadline - cfpy_now();
    }
}

/* ---- the module ---- */

static PyObject *configure(PyObject *module, PyObject *args, PyObject *named)
{
    struct cfpy_module *m = PyModule_GetState(module);
    if (PyTuple_GET_SIZE(args) || !named)
        return PyErr_Format(PyExc_TypeError, "configure() takes named arguments");
#define X(name)                                                                                    \
    if (PyDict_GetItemString(named, #name))                                                        \
        Py_XSETREF(m->name, Py_NewRef(PyDict_GetItemString(named, #name)));
    CFPY_REGISTERED(X)
#undef X
    Py_RETURN_NONE;
}

static PyObject *cpu_count(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromUnsignedLong(cf_cpu_count());
}

PyDoc_STRVAR(
    cpu_count_doc,
    "cpu_count($module, /)\n--\n\nHow many CPUs this process may use: by its affinity, and "
    "by the CPU quota of its cgroups,\nrounded up.");

static PyMethodDef functions[] = {
    { "configure", CFPY_METHOD(configure), METH_VARARGS | METH_KEYWORDS, NULL },
    { "cpu_count", cpu_count, METH_NOARGS, cpu_count_doc },
    { "wait", CFPY_METHOD(cfpy_wait), METH_FASTCALL, NULL },
    { NULL, NULL, 0, NULL },
};

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret)
{
    *ret = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *ret ? PyModule_AddType(module, *ret) : -1;
}

static int module_exec(PyObject *module)
{
    struct cfpy_module *m = PyModule_GetState(module);
    cfpy_gil_init();
    if (add_type(module, &cfpy_future_spec, &m->future_base) ||
        add_type(module, &cfpy_completed_spec, &m->completed_type) ||
        add_type(module, &cfpy_results_spec, &m->results_type) ||
        add_type(module, &cfpy_worker_spec, &m->worker_type) ||
        add_type(module, &cfpy_thread_pool_spec, &m->thread_pool_type) ||
        add_type(module, &cfpy_process_pool_spec, &m->process_pool_type))
        return -1;
    return PyModule_AddFunctions(module, cfpy_process_functions);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct cfpy_module *m = PyModule_GetState(module);
#define X(name) Py_VISIT(m->name);
    CFPY_REGISTERED(X)
#undef X
    Py_VISIT(m->future_base);
    Py_VISIT(m->completed_type);
    Py_VISIT(m->results_type);
    Py_VISIT(m->worker_type);
    Py_VISIT(m->thread_pool_type);
    Py_VISIT(m->process_pool_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    struct cfpy_module *m = PyModule_GetState(module);
#define X(name) Py_CLEAR(m->name);
    CFPY_REGISTERED(X)
#undef X
    Py_CLEAR(m->future_base);
    Py_CLEAR(m->completed_type);
    Py_CLEAR(m->results_type);
    Py_CLEAR(m->worker_type);
    Py_CLEAR(m->thread_pool_type);
    Py_CLEAR(m->process_pool_type);
    return 0;
}

static void module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    { Py_mod_exec, CFPY_SLOT(module_exec) },
#if PY_VERSION_HEX >= 0x030C0000
    { Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED },
#endif
    { 0, NULL },
};

struct PyModuleDef cfpy_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cfutures._engine",
    .m_doc = "The C engine behind cfutures: its types are made for the package, not for users.",
    .m_size = sizeof(struct cfpy_module),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__engine(void);

PyMODINIT_FUNC PyInit__engine(void)
{
    return PyModuleDef_Init(&cfpy_definition);
}
