/* Adam and Adagrad on the touched rows of a table. */

#pragma once
#include <Python.h>
#include <math.h>
#include <stdint.h>

#include "_crew.h"

#define UPDATES_AHEAD 8 /* as for look-ups */
#define TOUCHED_PER_PART 1024

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
        if (n + UPDATES_AHEAD < end) {
            const int64_t ahead = job->touched[n + UPDATES_AHEAD];
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
        if (n + UPDATES_AHEAD < end) {
            __builtin_prefetch(job->weight + job->touched[n + UPDATES_AHEAD] * job->dim, 1);
            __builtin_prefetch(job->state + job->touched[n + UPDATES_AHEAD] * job->dim, 1);
        }
        for (Py_ssize_t k = 0; k < job->dim; k++) {
            const float g = job->values[n * job->dim + k];
            float *sum = job->state + place + k;
            *sum += g * g;
            job->weight[place + k] -= job->rate * g / (sqrtf(*sum) + job->eps);
        }
    }
}
