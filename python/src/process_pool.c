/* SPDX-License-Identifier: MIT */
/* The process pool: cfutures._engine.ProcessPool, base of cfutures.ProcessPoolExecutor. */
#include "binding.h"

bool cfpy_reply_failed(const cfpy_future *self)
{
    return cf_future_exception(self->future) != NULL;
}

int cfpy_reply_decode(cfpy_future *self)
{
    (void)self;
    PyErr_SetNone(PyExc_NotImplementedError);
    return -1;
}

PyMethodDef cfpy_process_functions[] = { { NULL, NULL, 0, NULL } };

static PyType_Slot slots[] = { { 0, NULL } };

PyType_Spec cfpy_process_pool_spec = {
    .name = "cfutures._engine.ProcessPool",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};
