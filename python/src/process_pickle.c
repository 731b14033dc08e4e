/* SPDX-License-Identifier: MIT */
/* Pickling, by Python's own C pickler at protocol 5, with the reducers that multiprocessing has
 * registered.
 *
 * A pickler is used again and again: making one costs as much as a small pickle.  What it writes is
 * kept as it comes (large bytes are written as the objects themselves) and put together only where it
 * travels; out of there it is unpickled in place. */
#define _GNU_SOURCE
#include "process.h"

#include <sys/mman.h>

enum { ALIGN = 64, USED_AGAIN = 1024, SMALL = 2048, LARGE = 1 << 18, HUGE = 1 << 22 };

/* A message with buffers begins with this, and their sizes, before the pickle. */
struct head {
    unsigned char flags, unused[7];
    uint64_t pickle_size, count;
};
#define READ_ONLY (UINT64_C(1) << 63) /* in a size */

struct pickler {
    PyObject *pickler;
    struct cfpy_pickle *target;
};

/* One for all pools: there are no subinterpreters here. */
static struct {
    PyObject *class, *loads, *registered, *own, *dispatch, *buffers_name, *dump_name;
    struct pickler *idle;
    bool has_numpy;
} python;

/* ---- parts ---- */

static Py_buffer *part(const struct cfpy_parts *parts, size_t i)
{
    return (Py_buffer *)(uintptr_t)(parts->more ? parts->more : parts->few) + i;
}

static int make_room(struct cfpy_parts *parts)
{
    size_t few = sizeof parts->few / sizeof *parts->few;
    size_t room = parts->more ? parts->room : few;
    if (parts->count < room)
        return 0;
    Py_buffer *more = PyMem_Realloc(parts->more, 2 * room * sizeof *more);
    if (!more) {
        PyErr_NoMemory();
        return -1;
    }
    if (!parts->more)
        memcpy(more, parts->few, sizeof parts->few);
    parts->more = more;
    parts->room = 2 * room;
    return 0;
}

static int add_part(struct cfpy_parts *parts, PyObject *object)
{
    if (make_room(parts) != 0 ||
        PyObject_GetBuffer(object, part(parts, parts->count), PyBUF_SIMPLE) != 0)
        return -1;
    parts->bytes += (size_t)part(parts, parts->count++)->len;
    return 0;
}

static void clear_parts(struct cfpy_parts *parts)
{
    for (size_t i = 0; i < parts->count; i++)
        PyBuffer_Release(part(parts, i));
    PyMem_Free(parts->more);
    parts->more = NULL;
    parts->count = 0;
}

/* ---- a pickler ---- */

static struct cfpy_pickle *target_of(PyObject *capsule)
{
    struct pickler *p = PyCapsule_GetPointer(capsule, NULL);
    return p->target;
}

static PyObject *write_part(PyObject *capsule, PyObject *data)
{
    return add_part(&target_of(capsule)->stream, data) == 0 ? Py_NewRef(Py_None) : NULL;
}

/* Buffers that are not in one piece stay in the pickle, as do small ones. */
static PyObject *take_buffer(PyObject *capsule, PyObject *buffer)
{
    const Py_buffer *view = PyPickleBuffer_GetBuffer(buffer);
    if (!view)
        return NULL;
    if (view->len < SMALL)
        Py_RETURN_TRUE;
    struct cfpy_parts *buffers = &target_of(capsule)->buffers;
    if (make_room(buffers) != 0)
        return NULL;
    if (PyObject_GetBuffer(buffer, part(buffers, buffers->count), PyBUF_ANY_CONTIGUOUS) != 0) {
        PyErr_Clear();
        Py_RETURN_TRUE;
    }
    buffers->count++;
    Py_RETURN_FALSE;
}

static PyMethodDef write_method = { "write", write_part, METH_O, NULL };
static PyMethodDef buffer_method = { "take_buffer", take_buffer, METH_O, NULL };

/* The object that the pickler takes for its file. */
static PyObject *file_of(PyObject *capsule)
{
    PyObject *write = PyCFunction_New(&write_method, capsule);
    PyObject *types = PyImport_ImportModule("types"), *file = NULL;
    PyObject *class = types ? PyObject_GetAttrString(types, "SimpleNamespace") : NULL;
    PyObject *empty = PyTuple_New(0), *named = write ? Py_BuildValue("{sO}", "write", write) : NULL;
    if (class && empty && named)
        file = PyObject_Call(class, empty, named);
    Py_XDECREF(write);
    Py_XDECREF(types);
    Py_XDECREF(class);
    Py_XDECREF(empty);
    Py_XDECREF(named);
    return file;
}

static PyObject *new_python_pickler(struct pickler *p)
{
    PyObject *capsule = PyCapsule_New(p, NULL, NULL), *made = NULL;
    PyObject *file = capsule ? file_of(capsule) : NULL;
    PyObject *callback = capsule ? PyCFunction_New(&buffer_method, capsule) : NULL;
    if (file && callback)
        made = PyObject_CallFunction(python.class, "OiOO", file, 5, Py_False, callback);
    if (made && PyObject_SetAttrString(made, "dispatch_table", python.dispatch) != 0)
        Py_CLEAR(made);
    Py_XDECREF(capsule);
    Py_XDECREF(file);
    Py_XDECREF(callback);
    return made;
}

static void pickler_free(struct pickler *p)
{
    Py_XDECREF(p->pickler);
    PyMem_Free(p);
}

static struct pickler *pickler_take(void)
{
    struct pickler *p = python.idle;
    python.idle = NULL;
    if (p)
        return p;
    p = PyMem_Calloc(1, sizeof *p);
    if (!p) {
        PyErr_NoMemory();
        return NULL;
    }
    p->pickler = new_python_pickler(p);
    if (p->pickler)
        return p;
    pickler_free(p);
    return NULL;
}

/* One that has failed is not used again, nor one whose memo has grown: clearing it would cost each
 * small pickle as much as this large one. */
static void pickler_give_back(struct pickler *p, bool is_good)
{
    PyObject *cleared = is_good ? PyObject_CallMethod(p->pickler, "clear_memo", NULL) : NULL;
    Py_XDECREF(cleared);
    p->target = NULL;
    if (cleared && !python.idle)
        python.idle = p;
    else
        pickler_free(p);
}

/* ---- what Python has ---- */

static PyObject *attribute(const char *module, const char *name)
{
    PyObject *m = PyImport_ImportModule(module);
    PyObject *value = m ? PyObject_GetAttrString(m, name) : NULL;
    Py_XDECREF(m);
    return value;
}

static int set_up(void)
{
    if (python.loads)
        return 0;
    PyObject *forking = attribute("multiprocessing.reduction", "ForkingPickler");
    Py_XSETREF(python.own, forking ? PyObject_GetAttrString(forking, "_extra_reducers") : NULL);
    Py_XDECREF(forking);
    Py_XSETREF(python.registered, attribute("copyreg", "dispatch_table"));
    Py_XSETREF(python.class, attribute("_pickle", "Pickler"));
    Py_XSETREF(python.dispatch, PyDict_New());
    Py_XSETREF(python.buffers_name, Py_BuildValue("(s)", "buffers"));
    Py_XSETREF(python.dump_name, PyUnicode_InternFromString("dump"));
    if (!python.own || !python.registered || !python.class || !python.dispatch ||
        !python.buffers_name || !python.dump_name)
        return -1;
    python.loads = attribute("_pickle", "loads");
    return python.loads ? 0 : -1;
}

/* The reducer that counts for a type: multiprocessing's goes before, as in its own pickler. */
static int follow(PyObject *table, PyObject *above)
{
    PyObject *type, *reducer;
    Py_ssize_t at = 0;
    while (PyDict_Next(table, &at, &type, &reducer)) {
        if (PyDict_GetItemWithError(python.dispatch, type) == reducer)
            continue;
        if (above && PyDict_GetItemWithError(above, type))
            continue;
        if (PyErr_Occurred() || PyDict_SetItem(python.dispatch, type, reducer) != 0)
            return -1;
    }
    return 0;
}

/* numpy's arrays at protocol 5 are read-only where their originals are, at the standard's 4 never. */
static PyObject *reduce_array(PyObject *unused, PyObject *array)
{
    (void)unused;
    PyObject *flags = PyObject_GetAttrString(array, "flags");
    PyObject *writeable = flags ? PyObject_GetAttrString(flags, "writeable") : NULL;
    int protocol = writeable ? PyObject_IsTrue(writeable) ? 5 : 4 : -1;
    Py_XDECREF(flags);
    Py_XDECREF(writeable);
    return protocol < 0 ? NULL : PyObject_CallMethod(array, "__reduce_ex__", "i", protocol);
}

static int look_for_numpy(void)
{
    static PyMethodDef method = { "reduce_array", reduce_array, METH_O, NULL };
    if (python.has_numpy || !PyDict_GetItemString(PyImport_GetModuleDict(), "numpy"))
        return 0;
    PyObject *type = attribute("numpy", "ndarray"), *reducer = PyCFunction_New(&method, NULL);
    int failed = type && reducer ? PyDict_SetItem(python.dispatch, type, reducer) : -1;
    python.has_numpy = !failed;
    Py_XDECREF(type);
    Py_XDECREF(reducer);
    return failed;
}

/* Both tables may change at any time. */
static int follow_tables(void)
{
    if (look_for_numpy() != 0)
        PyErr_Clear(); /* it is being imported, or is something else */
    return follow(python.own, NULL) == 0 ? follow(python.registered, python.own) : -1;
}

/* ---- dumping ---- */

static bool is_large(PyObject *o)
{
    return (PyBytes_CheckExact(o) && PyBytes_GET_SIZE(o) >= LARGE) ||
           (PyByteArray_CheckExact(o) && PyByteArray_GET_SIZE(o) >= LARGE);
}

static PyObject *lightened_tuple(PyObject *tuple)
{
    Py_ssize_t n = PyTuple_GET_SIZE(tuple);
    PyObject *copy = PyTuple_New(n);
    for (Py_ssize_t i = 0; copy && i < n; i++) {
        PyObject *entry = PyTuple_GET_ITEM(tuple, i);
        entry = is_large(entry) ? PyPickleBuffer_FromObject(entry) : Py_NewRef(entry);
        if (!entry)
            Py_CLEAR(copy);
        else
            PyTuple_SET_ITEM(copy, i, entry);
    }
    return copy;
}

PyObject *cfpy_lightened(PyObject *object)
{
    if (is_large(object))
        return PyPickleBuffer_FromObject(object);
    bool has_large = false;
    for (Py_ssize_t i = 0; PyTuple_CheckExact(object) && i < PyTuple_GET_SIZE(object); i++)
        has_large |= is_large(PyTuple_GET_ITEM(object, i));
    return has_large ? lightened_tuple(object) : Py_NewRef(object);
}

int cfpy_pickle_dump(PyObject *object, struct cfpy_pickle *pickle)
{
    pickle->stream = pickle->buffers = (struct cfpy_parts){ .more = NULL };
    struct pickler *p = set_up() == 0 && follow_tables() == 0 ? pickler_take() : NULL;
    if (!p)
        return -1;
    p->target = pickle;
    PyObject *done = PyObject_CallMethodOneArg(p->pickler, python.dump_name, object);
    PyObject *error = done ? NULL : cfpy_fetch_exception();
    pickler_give_back(p, done && pickle->stream.bytes <= USED_AGAIN);
    if (error)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

void cfpy_pickle_clear(struct cfpy_pickle *pickle)
{
    clear_parts(&pickle->stream);
    clear_parts(&pickle->buffers);
}

static size_t aligned(size_t at)
{
    return (at + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static size_t head_size(size_t count)
{
    return sizeof(struct head) + count * sizeof(uint64_t);
}

size_t cfpy_pickle_size(const struct cfpy_pickle *pickle)
{
    size_t count = pickle->buffers.count;
    size_t size = (count ? head_size(count) : 1) + pickle->stream.bytes;
    for (size_t i = 0; i < count; i++)
        size = aligned(size) + (size_t)part(&pickle->buffers, i)->len;
    return size;
}

static void write_head(const struct cfpy_pickle *pickle, unsigned flags, unsigned char *message)
{
    size_t count = pickle->buffers.count;
    struct head head = { .flags = (unsigned char)(flags | CFPY_HAS_BUFFERS),
                         .pickle_size = pickle->stream.bytes,
                         .count = count };
    memcpy(message, &head, sizeof head);
    for (size_t i = 0; i < count; i++) {
        const Py_buffer *b = part(&pickle->buffers, i);
        uint64_t size = (uint64_t)b->len | (b->readonly ? READ_ONLY : 0);
        memcpy(message + head_size(i), &size, sizeof size);
    }
}

void cfpy_pickle_write(const struct cfpy_pickle *pickle, unsigned flags, unsigned char *message)
{
    size_t count = pickle->buffers.count, at = count ? head_size(count) : 1;
    if (count)
        write_head(pickle, flags, message);
    else
        message[0] = (unsigned char)flags;
    for (size_t i = 0; i < pickle->stream.count; i++) {
        const Py_buffer *p = part(&pickle->stream, i);
        memcpy(message + at, p->buf, (size_t)p->len);
        at += (size_t)p->len;
    }
    for (size_t i = 0; i < count; i++) {
        const Py_buffer *b = part(&pickle->buffers, i);
        at = aligned(at);
        memcpy(message + at, b->buf, (size_t)b->len);
        at += (size_t)b->len;
    }
}

/* ---- loading ---- */

/* Fresh memory costs a fault for each page, more than the copy: so the pages shall be large. */
static void ask_for_large_pages(char *data, size_t size)
{
    const uintptr_t page = 2 << 20;
    uintptr_t begin = ((uintptr_t)data + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)data + size) & ~(page - 1);
    if (end > begin)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
}

static void copy_bytes(char *to, const unsigned char *from, size_t size)
{
    PyThreadState *state = size >= LARGE ? PyEval_SaveThread() : NULL;
    if (size >= HUGE)
        ask_for_large_pages(to, size);
    memcpy(to, from, size);
    if (state)
        PyEval_RestoreThread(state);
}

static PyObject *copy_of(const unsigned char *data, uint64_t size, bool read_only)
{
    PyObject *copy = read_only ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size)
                               : PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (copy)
        copy_bytes(read_only ? PyBytes_AS_STRING(copy) : PyByteArray_AS_STRING(copy), data, size);
    return copy;
}

/* Copies of the buffers behind a pickle; they outlive the message. */
static PyObject *copy_buffers(const unsigned char *message, const struct head *head)
{
    PyObject *list = PyList_New(0);
    size_t at = head_size(head->count) + head->pickle_size;
    for (size_t i = 0; list && i < head->count; i++) {
        uint64_t size;
        memcpy(&size, message + head_size(i), sizeof size);
        at = aligned(at);
        PyObject *copy = copy_of(message + at, size & ~READ_ONLY, size & READ_ONLY);
        if (!copy || PyList_Append(list, copy) != 0)
            Py_CLEAR(list);
        Py_XDECREF(copy);
        at += size & ~READ_ONLY;
    }
    return list;
}

/* The unpickler copies what it keeps. */
static PyObject *load(const unsigned char *data, size_t size, PyObject *buffers)
{
    PyObject *view = size < SMALL ? PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size)
                                  : PyMemoryView_FromMemory((char *)(uintptr_t)data,
                                                            (Py_ssize_t)size, PyBUF_READ);
    if (!view)
        return NULL;
    PyObject *args[] = { view, buffers };
    PyObject *object =
        PyObject_Vectorcall(python.loads, args, 1, buffers ? python.buffers_name : NULL);
    Py_DECREF(view);
    return object;
}

PyObject *cfpy_pickle_load(const unsigned char *message, size_t size)
{
    if (set_up() != 0)
        return NULL;
    if (!(message[0] & CFPY_HAS_BUFFERS))
        return load(message + 1, size - 1, NULL);
    struct head head;
    memcpy(&head, message, sizeof head);
    PyObject *buffers = copy_buffers(message, &head);
    PyObject *object =
        buffers ? load(message + head_size(head.count), head.pickle_size, buffers) : NULL;
    Py_XDECREF(buffers);
    return object;
}
