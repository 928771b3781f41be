/* What follows a dense layer in training: batch norm, ReLU and dropout, and their gradients.

   What `model.activation` also does in plain torch; tests hold the two equal but for which elements
   dropout zeroes. This file checks sizes; the passes are in _activate_passes.h. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_activate.h"
#include "_buffers.h"
#include "_crew.h"

enum { BUFFERS = 9 };

static ActivatePart *forward = activate_part_4, *back = activate_back_part_4;

static void choose_widest(void)
{
#ifdef HAS_WIDE_VECTORS
    if (__builtin_cpu_supports("x86-64-v4")) {
        forward = activate_part_16;
        back = activate_back_part_16;
    } else if (__builtin_cpu_supports("x86-64-v3")) {
        forward = activate_part_8;
        back = activate_back_part_8;
    }
#endif
}

static int in_range(const Activate *job)
{
    if (job->rows > 0 && job->width > 0 && job->passes > 0 && job->share >= 0 && job->share < 1)
        return 1;
    PyErr_SetString(PyExc_ValueError, "sizes out of range");
    return 0;
}

/* Whether buffers hold `[width]` float32 each, or, of no batch norm, are all absent. */
static int hold_columns(const Activate *job, const Py_buffer *b, int count)
{
    for (int i = 0; i < count; i++)
        if (b[0].buf ? !holds(&b[i], job->width, 4, "a batch norm") : b[i].buf != NULL)
            return 0;
    return 1;
}

static Py_ssize_t parts(const Activate *job)
{
    return (job->width + BLOCK - 1) / BLOCK;
}

static PyObject *activate(PyObject *self, PyObject *args)
{
    Py_buffer b[BUFFERS] = {0};
    Activate job = {0};
    PyObject *answer = NULL;
    int threads;
    unsigned long long seed;
    if (!PyArg_ParseTuple(args, "y*w*z*z*z*z*nnnpdfKi", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
                          &job.rows, &job.width, &job.passes, &job.is_half, &job.share, &job.eps,
                          &seed, &threads))
        return NULL;
    const Py_ssize_t size = job.is_half ? 2 : 4;
    if (in_range(&job) && holds(&b[0], job.rows * job.width, size, "input")
        && holds(&b[1], job.passes * job.rows * job.width, size, "output")
        && hold_columns(&job, b + 2, 4)) {
        job.input = b[0].buf;
        job.output = b[1].buf;
        job.scale = b[2].buf;
        job.shift = b[3].buf;
        job.mean = b[4].buf;
        job.inverse = b[5].buf;
        job.seed = seed;
        Py_BEGIN_ALLOW_THREADS
        run(forward, &job, parts(&job), threads);
        Py_END_ALLOW_THREADS
        answer = Py_NewRef(Py_None);
    }
    release(b, 6);
    return answer;
}

static PyObject *activate_back(PyObject *self, PyObject *args)
{
    Py_buffer b[BUFFERS] = {0};
    Activate job = {0};
    PyObject *answer = NULL;
    int threads;
    if (!PyArg_ParseTuple(args, "y*y*y*w*z*z*z*z*z*nnnpdi", &b[0], &b[1], &b[2], &b[3], &b[4],
                          &b[5], &b[6], &b[7], &b[8], &job.rows, &job.width, &job.passes,
                          &job.is_half, &job.share, &threads))
        return NULL;
    const Py_ssize_t size = job.is_half ? 2 : 4, values = job.rows * job.width;
    if (in_range(&job) && holds(&b[0], values, size, "input")
        && holds(&b[1], job.passes * values, size, "output")
        && holds(&b[2], job.passes * values, size, "output_grad")
        && holds(&b[3], values, size, "input_grad") && hold_columns(&job, b + 4, 5)) {
        job.input = b[0].buf;
        job.output = b[1].buf;
        job.output_grad = b[2].buf;
        job.input_grad = b[3].buf;
        job.scale = b[4].buf;
        job.mean = b[5].buf;
        job.inverse = b[6].buf;
        job.scale_grad = b[7].buf;
        job.shift_grad = b[8].buf;
        Py_BEGIN_ALLOW_THREADS
        run(back, &job, parts(&job), threads);
        Py_END_ALLOW_THREADS
        answer = Py_NewRef(Py_None);
    }
    release(b, 9);
    return answer;
}

static PyMethodDef methods[] = {
    {"activate", activate, METH_VARARGS,
     "activate(input, output, scale, shift, mean, inverse, rows, width, passes, is_half, share, eps, "
     "seed, threads): fill output, and with batch norm mean and inverse."},
    {"activate_back", activate_back, METH_VARARGS,
     "activate_back(input, output, output_grad, input_grad, scale, mean, inverse, scale_grad, "
     "shift_grad, rows, width, passes, is_half, share, threads): fill the gradients."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "model._activate", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__activate(void)
{
    choose_widest();
    return PyModule_Create(&module);
}
