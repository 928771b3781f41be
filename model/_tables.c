/* The embedding and linear tables in training: look-up, merged gradients, updates of touched rows.

   What `model.tables` and `model.optimizer` also do in plain torch, this does in one pass over
   memory each; tests hold the two equal. Arrays come as contiguous buffers, float32 but for indices.
   This file checks their sizes; the passes are in the headers. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_buffers.h"
#include "_look_up.h"
#include "_update.h"

enum { MOST_BUFFERS = 12 };

/* Fields of a LookUp from its buffers: index, weight, runs, pooled, total. */
static int set_input(LookUp *in, Py_buffer *b)
{
    const Py_ssize_t rows = in->rows, dim = in->dim;
    if (dim < 1 || dim > MOST_DIM || in->slots < 1) {
        PyErr_SetString(PyExc_ValueError, "sizes out of range");
        return 0;
    }
    in->run_count = b[2].len / (Py_ssize_t)sizeof(Run);
    in->index = b[0].buf;
    in->weight = b[1].buf;
    in->runs = b[2].buf;
    in->pooled = b[3].buf;
    in->total = b[4].buf;
    for (Py_ssize_t r = 0; r < in->run_count; r++) {
        const Run run = in->runs[r];
        if (run.first < 0 || run.stop > in->slots || run.place < 0 || run.place >= in->fields) {
            PyErr_SetString(PyExc_ValueError, "a run of slots out of range");
            return 0;
        }
    }
    return holds(&b[0], rows * in->slots, 4, "index")
        && (!b[1].buf || holds(&b[1], rows * in->slots, 4, "weight"))
        && holds(&b[3], rows * in->fields * dim, 4, "pooled")
        && holds(&b[4], rows * dim, 4, "total");
}

static PyObject *look_up(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_BUFFERS] = {0};
    LookUp job = {0};
    PyObject *answer = NULL;
    int threads;
    if (!PyArg_ParseTuple(args, "y*z*y*w*w*w*y*y*z*nnnni", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
                          &b[6], &b[7], &b[8], &job.rows, &job.slots, &job.fields, &job.dim, &threads))
        return NULL;
    if (set_input(&job, b) && holds(&b[5], job.rows, 4, "base")
        && (!b[8].buf || holds(&b[8], job.rows * job.fields * job.dim, 2, "half"))) {
        job.half = b[8].buf;
        job.base = b[5].buf;
        job.embedding = b[6].buf;
        job.linear = b[7].buf;
        job.size = b[6].len / 4 / job.dim;
        if (job.size > b[7].len / 4)
            job.size = b[7].len / 4;
        Py_BEGIN_ALLOW_THREADS
        run(look_up_part, &job, (job.rows + ROWS_PER_PART - 1) / ROWS_PER_PART, threads);
        Py_END_ALLOW_THREADS
        if (job.is_outside)
            PyErr_SetString(PyExc_IndexError, "an index lies outside the table");
        else
            answer = Py_NewRef(Py_None);
    }
    release(b, 9);
    return answer;
}

/* Numbers the touched rows, then sums; how many rows those are. */
static PyObject *merged(Merge *job, int threads)
{
    Py_ssize_t total = 0;
    Py_BEGIN_ALLOW_THREADS
    run(number_run, job, job->in.run_count, threads);
    for (Py_ssize_t r = 0; r < job->in.run_count; r++) {
        job->starts[r] = total;
        total += job->counts[r];
    }
    if (!job->no_memory)
        run(merge_run, job, job->in.run_count, threads);
    Py_END_ALLOW_THREADS
    return job->no_memory ? PyErr_NoMemory() : PyLong_FromSsize_t(total);
}

static PyObject *merge(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_BUFFERS] = {0};
    Merge job = {0};
    PyObject *answer = NULL;
    int threads;
    if (!PyArg_ParseTuple(args, "y*z*y*w*w*y*z*w*w*w*pnnnni", &b[0], &b[1], &b[2], &b[3], &b[4],
                          &b[5], &b[6], &b[7], &b[8], &b[9], &job.is_half, &job.in.rows, &job.in.slots,
                          &job.in.fields, &job.in.dim, &threads))
        return NULL;
    const Py_ssize_t most = job.in.rows * job.in.slots;
    if (set_input(&job.in, b) && holds(&b[5], job.in.rows, 4, "base_grad")
        && (!b[6].buf || holds(&b[6], job.in.rows * job.in.fields * job.in.dim, job.is_half ? 2 : 4, "pooled_grad"))
        && holds(&b[7], most, 8, "touched") && holds(&b[8], most * job.in.dim, 4, "values")
        && holds(&b[9], most, 4, "linear_values")) {
        job.base_grad = b[5].buf;
        job.pooled_grad = b[6].buf;
        job.touched = b[7].buf;
        job.values = b[8].buf;
        job.linear_values = b[9].buf;
        job.local = malloc((most + 1) * sizeof(int32_t));
        job.found = malloc((most + 1) * sizeof(int64_t));
        job.counts = calloc(2 * job.in.run_count + 1, sizeof(Py_ssize_t));
        job.starts = job.counts + job.in.run_count;
        answer = job.local && job.found && job.counts ? merged(&job, threads) : PyErr_NoMemory();
        free(job.local);
        free(job.found);
        free(job.counts);
    }
    release(b, 10);
    return answer;
}

/* Whether the rows lie in a table of `rows` rows, each there once; -1 with an error set. */
static int are_distinct(const int64_t *touched, Py_ssize_t count, Py_ssize_t rows)
{
    uint64_t *seen = calloc(rows / 64 + 1, sizeof(uint64_t));
    int answer = 1;
    if (!seen) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t n = 0; n < count && answer; n++) {
        const int64_t row = touched[n];
        if (row < 0 || row >= rows || seen[row / 64] >> (row % 64) & 1)
            answer = 0;
        else
            seen[row / 64] |= (uint64_t)1 << (row % 64);
    }
    free(seen);
    return answer;
}

static PyObject *is_distinct(PyObject *self, PyObject *args)
{
    Py_buffer touched = {0};
    Py_ssize_t rows;
    if (!PyArg_ParseTuple(args, "y*n", &touched, &rows))
        return NULL;
    const int answer = are_distinct(touched.buf, touched.len / 8, rows);
    PyBuffer_Release(&touched);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

static int may_update(const Update *job, Py_ssize_t rows)
{
    const int answer = are_distinct(job->touched, job->count, rows);
    if (answer == 0)
        PyErr_SetString(PyExc_ValueError, "touched rows must lie in the table, each once");
    return answer == 1;
}

static PyObject *update(Py_buffer *b, Update *job, int states, int threads)
{
    PyObject *answer = NULL;
    job->weight = b[0].buf;
    job->state = b[1].buf;
    job->touched = b[2].buf;
    job->values = b[3].buf;
    job->count = b[2].len / 8;
    const Py_ssize_t rows = job->dim > 0 ? b[0].len / 4 / job->dim : -1;
    if (holds(&b[0], rows * job->dim, 4, "weight")
        && holds(&b[1], rows * job->dim * states, 4, "state")
        && holds(&b[3], job->count * job->dim, 4, "values") && may_update(job, rows)) {
        const Py_ssize_t parts = (job->count + TOUCHED_PER_PART - 1) / TOUCHED_PER_PART;
        Py_BEGIN_ALLOW_THREADS
        run(states == 2 ? adam_part : adagrad_part, job, parts, threads);
        Py_END_ALLOW_THREADS
        answer = Py_NewRef(Py_None);
    }
    release(b, 4);
    return answer;
}

static PyObject *adam_rows(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_BUFFERS] = {0};
    Update job = {0};
    int threads;
    if (!PyArg_ParseTuple(args, "w*w*y*y*nffffffi", &b[0], &b[1], &b[2], &b[3], &job.dim, &job.l2,
                          &job.rate, &job.beta1, &job.beta2, &job.scale, &job.eps, &threads))
        return NULL;
    return update(b, &job, 2, threads);
}

static PyObject *adagrad_rows(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_BUFFERS] = {0};
    Update job = {0};
    int threads;
    if (!PyArg_ParseTuple(args, "w*w*y*y*nffi", &b[0], &b[1], &b[2], &b[3], &job.dim, &job.rate,
                          &job.eps, &threads))
        return NULL;
    return update(b, &job, 1, threads);
}

static PyMethodDef methods[] = {
    {"look_up", look_up, METH_VARARGS,
     "look_up(index, weight, runs, pooled, total, base, embedding, linear, half, rows, slots, fields, "
     "dim, threads): fill pooled, total and base, and half with pooled in bfloat16."},
    {"merge", merge, METH_VARARGS,
     "merge(index, weight, runs, pooled, total, base_grad, pooled_grad, touched, values, "
     "linear_values, is_half, rows, slots, fields, dim, threads): how many rows are touched."},
    {"adam_rows", adam_rows, METH_VARARGS,
     "adam_rows(weight, moments, touched, values, dim, l2, rate, beta1, beta2, scale, eps, threads)."},
    {"adagrad_rows", adagrad_rows, METH_VARARGS,
     "adagrad_rows(weight, sums, touched, values, dim, rate, eps, threads)."},
    {"is_distinct", is_distinct, METH_VARARGS,
     "is_distinct(touched, rows): whether the rows lie in a table of so many, each there once."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "model._tables", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__tables(void)
{
    return PyModule_Create(&module);
}
