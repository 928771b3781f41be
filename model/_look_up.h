/* Look-up with the FM term, and its gradients summed per touched row.

   Fields own disjoint ranges of the tables, so no two fields touch the same row: gradients are merged
   field by field, with a hash table that fits the cache. Sums are taken in the order of the batch. */

#pragma once
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_crew.h"

#define MOST_DIM 1024
#define AHEAD 8 /* rows asked for early: look-ups are nothing but memory latency */
#define ROWS_PER_PART 256

/* Slots of one field, and the place of its vector among the pooled. */
typedef struct {
    int32_t first, stop, place;
} Run;

typedef struct {
    const int32_t *index; /* [rows, slots] */
    const float *weight;  /* [rows, slots], or NULL for all 1 */
    const Run *runs;
    const float *embedding, *linear;
    float *pooled; /* [rows, fields, dim] */
    uint16_t *half; /* the same in bfloat16, or NULL */
    float *total;  /* [rows, dim] sum of the pooled vectors */
    float *base;   /* [rows] linear plus FM term */
    Py_ssize_t rows, slots, run_count, fields, dim;
    int64_t size;
    atomic_int is_outside;
} LookUp;

/* bfloat16, rounded to the nearest, ties to even. */
static inline __attribute__((always_inline)) uint16_t to_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline __attribute__((always_inline)) float from_half(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

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
        memset(sum, 0, dim * sizeof(float));
        for (Py_ssize_t s = run.first; s < run.stop; s++) {
            const int64_t i = index[s];
            const float x = weight ? weight[s] : 1;
            if (i < 0 || i >= job->size) {
                atomic_store(&job->is_outside, 1);
                return 0;
            }
            const float *restrict row_of = job->embedding + i * dim;
            linear += x * job->linear[i];
            for (Py_ssize_t k = 0; k < dim; k++)
                sum[k] += x * row_of[k];
        }
        for (Py_ssize_t k = 0; k < dim; k++) {
            total[k] += sum[k];
            squares[k] += sum[k] * sum[k];
        }
        if (job->half) {
            uint16_t *restrict half = job->half + (row * job->fields + run.place) * dim;
            for (Py_ssize_t k = 0; k < dim; k++)
                half[k] = to_half(sum[k]);
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

/* The gradients. */

typedef struct {
    LookUp in;
    const float *base_grad;   /* [rows] */
    const void *pooled_grad;  /* [rows, fields, dim], or NULL for zero */
    int is_half;              /* whether that is bfloat16 */
    int32_t *local;           /* [runs][rows * slots of the run] number of the row among the touched */
    int64_t *found;           /* the same shape: the touched rows of each run */
    Py_ssize_t *counts, *starts; /* [runs] */
    int64_t *touched;         /* [total] */
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
    memset(values, 0, job->counts[r] * dim * sizeof(float));
    for (Py_ssize_t row = 0; row < in->rows; row++) {
        const float grad = job->base_grad[row];
        const float *total = in->total + row * dim;
        const float *pooled = in->pooled + row * stride + run.place * dim;
        const Py_ssize_t at = row * stride + run.place * dim;
        const float *deep = (const float *)job->pooled_grad + at;
        const uint16_t *half = (const uint16_t *)job->pooled_grad + at;
        if (row + AHEAD < in->rows) {
            __builtin_prefetch(pooled + AHEAD * stride);
            if (job->pooled_grad && job->is_half)
                __builtin_prefetch(half + AHEAD * stride);
            else if (job->pooled_grad)
                __builtin_prefetch(deep + AHEAD * stride);
        }
        for (Py_ssize_t s = run.first; s < run.stop; s++) {
            const int32_t number = *local++;
            const float x = in->weight ? in->weight[row * in->slots + s] : 1;
            linear_values[number] += x * grad;
            float *restrict sum = values + number * dim;
            if (job->pooled_grad && job->is_half)
                for (Py_ssize_t k = 0; k < dim; k++)
                    sum[k] += x * (grad * (total[k] - pooled[k]) + from_half(half[k]));
            else if (job->pooled_grad)
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
