/* Batch norm, ReLU and dropout behind a dense layer, in as few passes as their meaning allows.

   A part is a block of columns, small enough for a core's cache, with all of its rows: statistics
   need no second thread, so nothing depends on how many there are. Values are float32 or bfloat16,
   sums float32 over some rows and double over those. Which elements dropout keeps follows from seed,
   row and column alone. What is not a number stays that.

   Included once for each width of vector registers, with LANES, the float32 values in one of them,
   and TARGET, the processors that have them: of wider vectors compilers compare element by element. */

#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "_activate.h"

#define VECTORS (BLOCK / LANES)
#define SUMMED_ROWS 256
#define INLINE static inline __attribute__((always_inline))
#define EACH_VECTOR _Pragma("GCC unroll 8") for (int v = 0; v < VECTORS; v++)

/* Written out as vectors, because compilers left to themselves keep sums in memory. */
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

/* How many of a block's columns lie in one of its vectors. */
INLINE Py_ssize_t lanes(Py_ssize_t count, int vector)
{
    const Py_ssize_t left = count - vector * LANES;
    return left < 0 ? 0 : left < LANES ? left : LANES;
}

/* One vector of values from place `at` on; lanes beyond the block are 0. */
INLINE void get(Floats *to, const void *array, Py_ssize_t at, Py_ssize_t count, int v, int is_half)
{
    const Py_ssize_t first = at + v * LANES, held = lanes(count, v);
    Floats values = {0};
    Halves halves = {0};
    if (is_half) {
        memcpy(&halves, (const uint16_t *)array + first, held * 2);
        values = (Floats)(__builtin_convertvector(halves, Words) << 16);
    } else {
        memcpy(&values, (const float *)array + first, held * 4);
    }
    *to = values;
}

/* bfloat16 is rounded to the nearest, ties to even. */
INLINE void put(void *array, const Floats *from, Py_ssize_t at, Py_ssize_t count, int v, int is_half)
{
    const Py_ssize_t first = at + v * LANES, held = lanes(count, v);
    const Words bits = (Words)*from;
    const Halves halves = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Halves);
    if (is_half)
        memcpy((uint16_t *)array + first, &halves, held * 2);
    else
        memcpy((float *)array + first, from, held * 4);
}

/* Two integer hashes: of a row's key (Steele et al. 2014, splitmix64) and of an element (Wellons
   2018, lowbias32). */
static inline uint32_t row_key(uint64_t seed, Py_ssize_t row)
{
    uint64_t x = seed + (uint64_t)row * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(x ^ x >> 31);
}

INLINE void drop(Floats *values, uint32_t key, const Words *columns, uint32_t least)
{
    Words x = key + *columns * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    x = x ^ x >> 16;
    *values = (Floats)((Words)*values & ~(Words)(x < least));
}

INLINE void add_sums(double *total, const Floats *sums)
{
    float single[BLOCK];
    memcpy(single, sums, sizeof single);
    for (int k = 0; k < BLOCK; k++)
        total[k] += single[k];
}

/* Mean over the rows of each column's values less `about`, or of their squares. */
INLINE void column_means(const Activate *job, Py_ssize_t first, Py_ssize_t count, int is_half,
                         const Floats *about, int squared, float *means)
{
    double total[BLOCK] = {0};
    for (Py_ssize_t begin = 0; begin < job->rows; begin += SUMMED_ROWS) {
        const Py_ssize_t end = begin + SUMMED_ROWS < job->rows ? begin + SUMMED_ROWS : job->rows;
        Floats sums[VECTORS] = {{0}};
        for (Py_ssize_t row = begin; row < end; row++)
            EACH_VECTOR {
                Floats x;
                get(&x, job->input, row * job->width + first, count, v, is_half);
                x -= about[v];
                sums[v] += squared ? x * x : x;
            }
        add_sums(total, sums);
    }
    for (int k = 0; k < BLOCK; k++)
        means[k] = (float)(total[k] / (double)job->rows);
}

/* Mean, scale / deviation and shift of the batch norm, and what the way back needs of them. */
INLINE void normalise(const Activate *job, Py_ssize_t first, Py_ssize_t count, int is_half,
                      Floats *mean, Floats *slope, Floats *shift)
{
    const Floats none[VECTORS] = {{0}};
    float means[BLOCK], squares[BLOCK], slopes[BLOCK] = {0}, shifts[BLOCK] = {0};
    column_means(job, first, count, is_half, none, 0, means);
    memcpy(mean, means, sizeof means);
    column_means(job, first, count, is_half, mean, 1, squares);
    for (Py_ssize_t k = 0; k < count; k++) {
        job->mean[first + k] = means[k];
        job->inverse[first + k] = 1 / sqrtf(squares[k] + job->eps);
        slopes[k] = job->scale[first + k] * job->inverse[first + k];
        shifts[k] = job->shift[first + k];
    }
    memcpy(slope, slopes, sizeof slopes);
    memcpy(shift, shifts, sizeof shifts);
}

INLINE void activate_block(const Activate *job, Py_ssize_t first, Py_ssize_t count, int is_half)
{
    const uint32_t least = (uint32_t)(job->share * 4294967296.0);
    const float kept = (float)(1 / (1 - job->share));
    Floats mean[VECTORS] = {{0}}, slope[VECTORS] = {{0}}, shift[VECTORS] = {{0}};
    Words columns[VECTORS];
    for (int k = 0; k < BLOCK; k++)
        columns[k / LANES][k % LANES] = (uint32_t)(first + k);
    EACH_VECTOR slope[v] += 1;
    if (job->scale)
        normalise(job, first, count, is_half, mean, slope, shift);
    for (Py_ssize_t pass = 0; pass < job->passes; pass++)
        for (Py_ssize_t row = 0; row < job->rows; row++) {
            const Py_ssize_t at = row * job->width + first;
            const Py_ssize_t to = pass * job->rows * job->width + at;
            const uint32_t key = row_key(job->seed, pass * job->rows + row);
            EACH_VECTOR {
                Floats y;
                get(&y, job->input, at, count, v, is_half);
                y = (y - mean[v]) * slope[v] + shift[v];
                y = (Floats)((Words)y & ~(Words)(y < 0)) * kept;
                if (least)
                    drop(&y, key, &columns[v], least);
                put(job->output, &y, to, count, v, is_half);
            }
        }
}

/* Gradient before ReLU and dropout: an output of 0 was zeroed by either. */
INLINE void grad_of(Floats *grad, const Activate *job, Py_ssize_t at, Py_ssize_t count, int v,
                    int is_half)
{
    Floats sum = {0};
    for (Py_ssize_t pass = 0; pass < job->passes; pass++) {
        const Py_ssize_t from = pass * job->rows * job->width + at;
        Floats one, output;
        get(&one, job->output_grad, from, count, v, is_half);
        get(&output, job->output, from, count, v, is_half);
        sum += (Floats)((Words)one & ~(Words)(output <= 0));
    }
    *grad = sum;
}

/* Sums over the batch of the gradient, and of the gradient times input less mean. */
INLINE void grad_sums(const Activate *job, Py_ssize_t first, Py_ssize_t count, int is_half,
                      const Floats *mean, double *plain, double *scaled)
{
    for (Py_ssize_t begin = 0; begin < job->rows; begin += SUMMED_ROWS) {
        const Py_ssize_t end = begin + SUMMED_ROWS < job->rows ? begin + SUMMED_ROWS : job->rows;
        Floats some[VECTORS] = {{0}}, more[VECTORS] = {{0}};
        for (Py_ssize_t row = begin; row < end; row++)
            EACH_VECTOR {
                const Py_ssize_t at = row * job->width + first;
                Floats x, grad;
                get(&x, job->input, at, count, v, is_half);
                grad_of(&grad, job, at, count, v, is_half);
                some[v] += grad;
                more[v] += grad * (x - mean[v]);
            }
        add_sums(plain, some);
        add_sums(scaled, more);
    }
}

/* With n the normalised input: slope * (grad - mean of grad - n * mean of (grad * n)), as
   slope * grad + rise * (input - mean) + offset. */
INLINE void differentiate(const Activate *job, Py_ssize_t first, Py_ssize_t count, int is_half,
                          Floats *mean, Floats *slope, Floats *rise, Floats *offset)
{
    const float kept = (float)(1 / (1 - job->share));
    float means[BLOCK] = {0}, slopes[BLOCK] = {0}, rises[BLOCK] = {0}, offsets[BLOCK] = {0};
    double plain[BLOCK] = {0}, scaled[BLOCK] = {0};
    memcpy(means, job->mean + first, count * sizeof(float));
    memcpy(mean, means, sizeof means);
    grad_sums(job, first, count, is_half, mean, plain, scaled);
    for (Py_ssize_t k = 0; k < count; k++) {
        const double inverse = job->inverse[first + k], rows = (double)job->rows;
        const double full = job->scale[first + k] * inverse * kept;
        job->shift_grad[first + k] = (float)(kept * plain[k]);
        job->scale_grad[first + k] = (float)(kept * inverse * scaled[k]);
        slopes[k] = (float)full;
        rises[k] = (float)(-full * inverse * inverse * scaled[k] / rows);
        offsets[k] = (float)(-full * plain[k] / rows);
    }
    memcpy(slope, slopes, sizeof slopes);
    memcpy(rise, rises, sizeof rises);
    memcpy(offset, offsets, sizeof offsets);
}

INLINE void activate_back_block(const Activate *job, Py_ssize_t first, Py_ssize_t count,
                                int is_half)
{
    Floats mean[VECTORS] = {{0}}, slope[VECTORS] = {{0}}, rise[VECTORS] = {{0}};
    Floats offset[VECTORS] = {{0}};
    EACH_VECTOR slope[v] += (float)(1 / (1 - job->share));
    if (job->scale)
        differentiate(job, first, count, is_half, mean, slope, rise, offset);
    for (Py_ssize_t row = 0; row < job->rows; row++)
        EACH_VECTOR {
            const Py_ssize_t at = row * job->width + first;
            Floats x, grad;
            grad_of(&grad, job, at, count, v, is_half);
            grad *= slope[v];
            if (job->scale) {
                get(&x, job->input, at, count, v, is_half);
                grad += rise[v] * (x - mean[v]) + offset[v];
            }
            put(job->input_grad, &grad, at, count, v, is_half);
        }
}

/* Each combination that matters compiled apart: whole blocks are single instructions. */
#define OVER_BLOCKS(name, block)                                                                  \
    TARGET void name(void *given, Py_ssize_t part)                                                \
    {                                                                                             \
        const Activate *job = given;                                                              \
        const Py_ssize_t first = part * BLOCK, rest = job->width - first;                         \
        if (rest >= BLOCK && job->is_half)                                                        \
            block(job, first, BLOCK, 1);                                                          \
        else if (rest >= BLOCK)                                                                   \
            block(job, first, BLOCK, 0);                                                          \
        else                                                                                      \
            block(job, first, rest, job->is_half);                                                \
    }
