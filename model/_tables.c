/* The embedding and linear tables in training: look-up, merged gradients, updates of touched rows.

   What `model.tables` and `model.optimizer` also do in plain torch, this does in one pass over
   memory each; tests hold the two equal. Arrays come as contiguous buffers, float32 but for indices.
   Work is cut into parts that write to places of their own, and every sum is taken in the order of
   the batch: results do not depend on the number of threads. A part is taken by whichever thread is
   free, since torch's own threads may still be spinning on a core.

   Fields own disjoint ranges of the tables, so no two fields touch the same row: gradients are merged
   field by field, with a hash table that fits the cache. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One binary for all processors: the widest registers are found when the module is loaded. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FAST
#endif

#define MOST_THREADS 64
#define MOST_DIM 1024
#define AHEAD 8 /* rows asked for early: look-ups are nothing but memory latency */
#define ROWS_PER_PART 256
#define TOUCHED_PER_PART 1024

/* ---- threads ---------------------------------------------------------------------------------- */

typedef struct {
    void (*work)(void *job, Py_ssize_t part);
    void *job;
    Py_ssize_t parts;
    atomic_llong next;
} Crew;

static void *take_parts(void *given)
{
    Crew *crew = given;
    Py_ssize_t part;
    while ((part = atomic_fetch_add(&crew->next, 1)) < crew->parts)
        crew->work(crew->job, part);
    return NULL;
}

/* A thread that cannot be started is done without. */
static void run(void (*work)(void *, Py_ssize_t), void *job, Py_ssize_t parts, int threads)
{
    Crew crew = {.work = work, .job = job, .parts = parts};
    pthread_t helpers[MOST_THREADS];
    int started = 0;
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    while (started + 1 < threads && started + 1 < parts
           && pthread_create(&helpers[started], NULL, take_parts, &crew) == 0)
        started++;
    take_parts(&crew);
    while (started > 0)
        pthread_join(helpers[--started], NULL);
}

/* ---- look-up and FM term ----------------------------------------------------------------------- */

/* Slots of one field, and the place of its vector among the pooled; -1 for slots without one. */
typedef struct {
    int32_t first, stop, place;
} Run;

typedef struct {
    const int32_t *index; /* [rows, slots] */
    const float *weight;  /* [rows, slots], or NULL for all 1 */
    const Run *runs;
    const float *embedding, *linear;
    float *pooled; /* [rows, fields, dim] */
    float *total;  /* [rows, dim] sum of the pooled vectors */
    float *base;   /* [rows] linear plus FM term */
    Py_ssize_t rows, slots, run_count, fields, dim;
    int64_t embedded, size;
    atomic_int is_outside;
} LookUp;

static inline __attribute__((always_inline)) float
look_up_row(LookUp *job, Py_ssize_t row, Py_ssize_t dim, float *restrict squares)
{
    const int32_t *index = job->index + row * job->slots;
    const float *weight = job->weight ? job->weight + row * job->slots : NULL;
    float *pooled = job->pooled + row * job->fields * dim;
    float *restrict total = job->total + row * dim;
    float linear = 0, second = 0;
    memset(total, 0, dim * sizeof(float));
    memset(squares, 0, dim * sizeof(float));
    for (Py_ssize_t r = 0; r < job->run_count; r++) {
        const Run run = job->runs[r];
        float *restrict sum = pooled + run.place * dim;
        if (run.place >= 0)
            memset(sum, 0, dim * sizeof(float));
        for (Py_ssize_t s = run.first; s < run.stop; s++) {
            const int64_t i = index[s];
            const float x = weight ? weight[s] : 1;
            if (i < 0 || i >= (run.place >= 0 ? job->embedded : job->size)) {
                atomic_store(&job->is_outside, 1);
                return 0;
            }
            const float *restrict row_of = job->embedding + i * dim;
            linear += x * job->linear[i];
            if (run.place >= 0)
                for (Py_ssize_t k = 0; k < dim; k++)
                    sum[k] += x * row_of[k];
        }
        if (run.place >= 0)
            for (Py_ssize_t k = 0; k < dim; k++) {
                total[k] += sum[k];
                squares[k] += sum[k] * sum[k];
            }
    }
    for (Py_ssize_t k = 0; k < dim; k++)
        second += total[k] * total[k] - squares[k];
    return linear + 0.5f * second;
}

FAST static void look_up_part(void *given, Py_ssize_t part)
{
    LookUp *job = given;
    float squares[MOST_DIM];
    Py_ssize_t end = (part + 1) * ROWS_PER_PART;
    if (end > job->rows)
        end = job->rows;
    for (Py_ssize_t row = part * ROWS_PER_PART; row < end; row++) {
        if (row + 1 < end)
            for (Py_ssize_t s = 0; s < job->slots; s++) {
                const int64_t i = job->index[(row + 1) * job->slots + s];
                __builtin_prefetch(job->embedding + i * job->dim);
                __builtin_prefetch(job->linear + i);
            }
        if (job->dim == 16) /* the default: its loops become single instructions */
            job->base[row] = look_up_row(job, row, 16, squares);
        else
            job->base[row] = look_up_row(job, row, job->dim, squares);
    }
}

/* ---- gradients, summed per touched row --------------------------------------------------------- */

typedef struct {
    LookUp in;
    const float *base_grad;   /* [rows] */
    const float *pooled_grad; /* [rows, fields, dim], or NULL for zero */
    int32_t *local;           /* [runs][rows * slots of the run] number of the row among the touched */
    int64_t *found;           /* the same shape: the touched rows of each run */
    Py_ssize_t *counts, *starts; /* [runs] */
    int64_t *touched;         /* [total], those of embedded runs first */
    float *values, *linear_values;
    atomic_int no_memory;
} Merge;

typedef struct {
    int32_t row, number;
} Entry;

static void number_run(void *given, Py_ssize_t r)
{
    Merge *job = given;
    const Run run = job->in.runs[r];
    const Py_ssize_t slots = job->in.slots, width = run.stop - run.first;
    int32_t *local = job->local + job->in.rows * run.first;
    int64_t *found = job->found + job->in.rows * run.first;
    Py_ssize_t count = 0;
    int bits = 4;
    while (((Py_ssize_t)1 << bits) < 2 * job->in.rows * width)
        bits++;
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    Entry *entries = malloc(((size_t)mask + 1) * sizeof(Entry));
    if (!entries) {
        atomic_store(&job->no_memory, 1);
        return;
    }
    memset(entries, 0xff, ((size_t)mask + 1) * sizeof(Entry));
    for (Py_ssize_t row = 0; row < job->in.rows; row++)
        for (Py_ssize_t s = run.first; s < run.stop; s++) {
            const int32_t i = job->in.index[row * slots + s];
            uint32_t place = (uint32_t)i * 2654435769u >> (32 - bits);
            while (entries[place].row >= 0 && entries[place].row != i)
                place = (place + 1) & mask;
            if (entries[place].row < 0) {
                entries[place] = (Entry){i, (int32_t)count};
                found[count++] = i;
            }
            *local++ = entries[place].number;
        }
    free(entries);
    job->counts[r] = count;
}

static inline __attribute__((always_inline)) void
add_run(Merge *job, Py_ssize_t r, Py_ssize_t dim)
{
    const LookUp *in = &job->in;
    const Run run = in->runs[r];
    const Py_ssize_t stride = in->fields * dim;
    const int32_t *local = job->local + in->rows * run.first;
    float *linear_values = job->linear_values + job->starts[r];
    float *values = job->values + job->starts[r] * dim;
    memcpy(job->touched + job->starts[r], job->found + in->rows * run.first,
           job->counts[r] * sizeof(int64_t));
    memset(linear_values, 0, job->counts[r] * sizeof(float));
    if (run.place >= 0)
        memset(values, 0, job->counts[r] * dim * sizeof(float));
    for (Py_ssize_t row = 0; row < in->rows; row++) {
        const float grad = job->base_grad[row];
        const float *total = in->total + row * dim;
        const float *pooled = in->pooled + row * stride + run.place * dim;
        const float *deep = job->pooled_grad + row * stride + run.place * dim;
        if (run.place >= 0 && row + AHEAD < in->rows) {
            __builtin_prefetch(pooled + AHEAD * stride);
            if (job->pooled_grad)
                __builtin_prefetch(deep + AHEAD * stride);
        }
        for (Py_ssize_t s = run.first; s < run.stop; s++) {
            const int32_t number = *local++;
            const float x = in->weight ? in->weight[row * in->slots + s] : 1;
            linear_values[number] += x * grad;
            if (run.place < 0)
                continue;
            float *restrict sum = values + number * dim;
            if (job->pooled_grad)
                for (Py_ssize_t k = 0; k < dim; k++)
                    sum[k] += x * (grad * (total[k] - pooled[k]) + deep[k]);
            else
                for (Py_ssize_t k = 0; k < dim; k++)
                    sum[k] += x * (grad * (total[k] - pooled[k]));
        }
    }
}

FAST static void merge_run(void *given, Py_ssize_t r)
{
    Merge *job = given;
    if (job->in.dim == 16)
        add_run(job, r, 16);
    else
        add_run(job, r, job->in.dim);
}

/* ---- updates of touched rows -------------------------------------------------------------------- */

typedef struct {
    float *weight, *state;
    const int64_t *touched;
    const float *values;
    Py_ssize_t count, dim;
    float l2, rate, beta1, beta2, scale, eps;
} Update;

static inline __attribute__((always_inline)) void
adam(const Update *job, Py_ssize_t n, Py_ssize_t dim)
{
    float *restrict w = job->weight + job->touched[n] * dim;
    float *restrict m = job->state + job->touched[n] * 2 * dim, *restrict v = m + dim;
    const float *restrict value = job->values + n * dim;
    for (Py_ssize_t k = 0; k < dim; k++) {
        const float g = value[k] + job->l2 * w[k];
        m[k] += (1 - job->beta1) * (g - m[k]);
        v[k] = job->beta2 * v[k] + (1 - job->beta2) * g * g;
        w[k] -= job->rate * m[k] / (sqrtf(v[k]) * job->scale + job->eps);
    }
}

FAST static void adam_part(void *given, Py_ssize_t part)
{
    const Update *job = given;
    Py_ssize_t end = (part + 1) * TOUCHED_PER_PART;
    if (end > job->count)
        end = job->count;
    for (Py_ssize_t n = part * TOUCHED_PER_PART; n < end; n++) {
        if (n + AHEAD < end) {
            const int64_t ahead = job->touched[n + AHEAD];
            __builtin_prefetch(job->weight + ahead * job->dim, 1);
            for (Py_ssize_t k = 0; k < 2 * job->dim; k += 16)
                __builtin_prefetch(job->state + ahead * 2 * job->dim + k, 1);
        }
        if (job->dim == 16)
            adam(job, n, 16);
        else
            adam(job, n, job->dim);
    }
}

FAST static void adagrad_part(void *given, Py_ssize_t part)
{
    const Update *job = given;
    Py_ssize_t end = (part + 1) * TOUCHED_PER_PART;
    if (end > job->count)
        end = job->count;
    for (Py_ssize_t n = part * TOUCHED_PER_PART; n < end; n++) {
        const Py_ssize_t place = job->touched[n] * job->dim;
        if (n + AHEAD < end) {
            __builtin_prefetch(job->weight + job->touched[n + AHEAD] * job->dim, 1);
            __builtin_prefetch(job->state + job->touched[n + AHEAD] * job->dim, 1);
        }
        for (Py_ssize_t k = 0; k < job->dim; k++) {
            const float g = job->values[n * job->dim + k];
            float *sum = job->state + place + k;
            *sum += g * g;
            job->weight[place + k] -= job->rate * g / (sqrtf(*sum) + job->eps);
        }
    }
}

/* ---- Python ------------------------------------------------------------------------------------- */

enum { MOST_BUFFERS = 12 };

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
        if (run.first < 0 || run.stop > in->slots || run.place >= in->fields) {
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
    if (!PyArg_ParseTuple(args, "y*z*y*w*w*w*y*y*nnnni", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
                          &b[6], &b[7], &job.rows, &job.slots, &job.fields, &job.dim, &threads))
        return NULL;
    if (set_input(&job, b) && holds(&b[5], job.rows, 4, "base")) {
        job.base = b[5].buf;
        job.embedding = b[6].buf;
        job.linear = b[7].buf;
        job.embedded = b[6].len / 4 / job.dim;
        job.size = b[7].len / 4;
        if (job.embedded > job.size)
            job.embedded = job.size;
        Py_BEGIN_ALLOW_THREADS
        run(look_up_part, &job, (job.rows + ROWS_PER_PART - 1) / ROWS_PER_PART, threads);
        Py_END_ALLOW_THREADS
        if (job.is_outside)
            PyErr_SetString(PyExc_IndexError, "an index lies outside the table");
        else
            answer = Py_NewRef(Py_None);
    }
    release(b, 8);
    return answer;
}

/* Numbers the touched rows, then sums; (touched embedded rows, touched rows). */
static PyObject *merged(Merge *job, int threads)
{
    Py_ssize_t total = 0, embedded = 0;
    Py_BEGIN_ALLOW_THREADS
    run(number_run, job, job->in.run_count, threads);
    for (Py_ssize_t r = 0; r < job->in.run_count; r++) {
        job->starts[r] = total;
        total += job->counts[r];
        if (job->in.runs[r].place >= 0)
            embedded = total;
    }
    if (!job->no_memory)
        run(merge_run, job, job->in.run_count, threads);
    Py_END_ALLOW_THREADS
    return job->no_memory ? PyErr_NoMemory() : Py_BuildValue("nn", embedded, total);
}

static PyObject *merge(PyObject *self, PyObject *args)
{
    Py_buffer b[MOST_BUFFERS] = {0};
    Merge job = {0};
    PyObject *answer = NULL;
    int threads;
    if (!PyArg_ParseTuple(args, "y*z*y*w*w*y*z*w*w*w*nnnni", &b[0], &b[1], &b[2], &b[3], &b[4],
                          &b[5], &b[6], &b[7], &b[8], &b[9], &job.in.rows, &job.in.slots,
                          &job.in.fields, &job.in.dim, &threads))
        return NULL;
    const Py_ssize_t most = job.in.rows * job.in.slots;
    if (set_input(&job.in, b) && holds(&b[5], job.in.rows, 4, "base_grad")
        && (!b[6].buf || holds(&b[6], job.in.rows * job.in.fields * job.in.dim, 4, "pooled_grad"))
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
     "look_up(index, weight, runs, pooled, total, base, embedding, linear, rows, slots, fields, dim, "
     "threads): fill pooled, total and base."},
    {"merge", merge, METH_VARARGS,
     "merge(index, weight, runs, pooled, total, base_grad, pooled_grad, touched, values, "
     "linear_values, rows, slots, fields, dim, threads): (touched embedded rows, touched rows)."},
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
