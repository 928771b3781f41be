/* Batch norm, ReLU and dropout behind a dense layer: what the passes are told. */

#pragma once
#include <Python.h>
#include <stdint.h>

#define BLOCK 32 /* columns of a part: a cache line of bfloat16 */

typedef struct {
    const void *input; /* [rows, width] */
    void *output;      /* [passes * rows, width], pass after pass */
    const float *scale, *shift; /* [width] of batch norm, or NULL for none */
    float *mean, *inverse;      /* [width] of the batch; 1 / its standard deviation */
    Py_ssize_t rows, width, passes;
    double share; /* that dropout zeroes: below 1 */
    float eps;
    uint64_t seed;
    int is_half; /* bfloat16 */
    /* The way back. */
    const void *output_grad; /* as output */
    void *input_grad;        /* as input */
    float *scale_grad, *shift_grad;
} Activate;

/* The passes over one block of columns, for vectors of 16, 8 or 4 values; `job` is an Activate. */
typedef void ActivatePart(void *job, Py_ssize_t part);
ActivatePart activate_part_16, activate_back_part_16;
ActivatePart activate_part_8, activate_back_part_8;
ActivatePart activate_part_4, activate_back_part_4;
