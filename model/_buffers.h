/* Arrays that Python hands over: their sizes are checked here, once for all compiled passes. */

#pragma once
#include <Python.h>

/* Whether a buffer holds exactly `count` values of `size` bytes; sets the error if not. */
static int holds(const Py_buffer *buffer, Py_ssize_t count, Py_ssize_t size, const char *name)
{
    if (buffer->len == count * size)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s holds %zd bytes instead of %zd", name, buffer->len,
                 count * size);
    return 0;
}

static void release(Py_buffer *buffers, int count)
{
    for (int i = 0; i < count; i++)
        if (buffers[i].obj)
            PyBuffer_Release(&buffers[i]);
}
