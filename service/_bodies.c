/* One pass over a plain request body: JSON bytes -> indices and weights of both sides.

   What `service.messages`, `features.columns` and `features.encode` do together for any body, this
   does for a plain one. A body is plain when nothing about it needs explaining or rare handling: no
   escape in a string, no category given as a fraction, no refused value, no key twice, rows rather
   than columns. For every other body the methods return None, and the Python way answers or says
   what is wrong; so this file holds no error message, and whatever it is unsure of is not plain.
   A property test holds the two ways equal (tests/service/test_compiled.py).

   Every function that takes something returns 0 where the body turns out not to be plain. Theory of
   the table: features/table.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#include "_json.h"
#include "../features/_xxh3.h"

enum { CONTEXT, CANDIDATE, SIDES };
enum { BUCKET, VALUE, CATEGORY, MULTI, CROSS };
enum { POLICY_BUCKET, POLICY_ZERO, POLICY_REJECT };

#define MOST_UNKNOWN 64
#define MOST_PENDING 64

/* ---- what a reader knows ---------------------------------------------------------------------- */

typedef struct {
    char *name;
    Py_ssize_t name_length;
    int side, kind, slot, slots, missing, unknown;
    int64_t base;          /* index of the first bucket or category */
    int64_t unknown_index; /* of what is not in the vocabulary */
    uint64_t seed, hash_buckets;
    double *boundaries;
    Py_ssize_t boundary_count;
    double minimum, maximum, mean, deviation;
    int is_mean;
    int follower;   /* the field that came after this one last time: clients keep their order */
    uint64_t met;   /* number of the row that held the field last: twice in a row is not plain */
    uint64_t given; /* the same, of values that are not missing */
} Field;

typedef struct {
    int slots, is_weighted;
    int64_t *first_index; /* [slots] a row of nothing but missing values */
    float *first_weight;
    int64_t *index; /* [capacity, slots] rows of the body being read */
    float *weight;
    Py_ssize_t rows, capacity;
} Side;

typedef struct {
    const char *name;
    Py_ssize_t length, count;
    uint64_t met;
} Unknown;

/* A category whose place in the table is on its way to the cache: look-ups are nothing but memory
   latency, and so many of them overlap. */
typedef struct {
    uint64_t hash;
    const Field *field;
    Py_ssize_t cell; /* of its side's index and weight */
} Pending;

typedef struct {
    PyObject_HEAD
    Field *fields;
    int count, first_follower;
    int *places; /* open addressing: hash of the name -> field + 1 */
    unsigned place_mask;
    Side sides[SIDES];
    Py_buffer table; /* [slots, 2] of (hash, index) */
    uint64_t homes;
    uint64_t row; /* number of the row being read; grows for ever */
    Py_ssize_t longest_text, longest_list;
    Py_ssize_t deepest; /* of the value of an unknown field */
    Unknown unknown[MOST_UNKNOWN];
    int unknown_count;
    Py_ssize_t *truncated; /* [count] */
    Pending pending[MOST_PENDING];
    int pending_count;
} Reader;

/* ---- values ----------------------------------------------------------------------------------- */

static const uint64_t *home_of(const Reader *reader, uint64_t hash)
{
    return (const uint64_t *)reader->table.buf + ((hash >> 32) * reader->homes >> 32) * 2;
}

/* Looks up all pending categories; 0 if a field refuses one of them. */
static int settle(Reader *reader)
{
    for (int i = 0; i < reader->pending_count; i++) {
        const Pending *one = &reader->pending[i];
        const Field *field = one->field;
        Side *side = &reader->sides[field->side];
        const uint64_t *slot = home_of(reader, one->hash);
        while (slot[0] != one->hash && slot[0] != 0)
            slot += 2;
        if (slot[0] != 0) {
            side->index[one->cell] = (int64_t)slot[1];
            continue;
        }
        if (field->unknown == POLICY_REJECT)
            return 0;
        side->index[one->cell] = field->unknown_index;
        if (field->unknown == POLICY_ZERO)
            side->weight[one->cell] = 0;
    }
    reader->pending_count = 0;
    return 1;
}

/* The index of a hash goes into a cell whose weight is already there: at once, or when settled. */
static int put_hash(Reader *reader, const Field *field, uint64_t hash, Py_ssize_t cell)
{
    if (field->hash_buckets) {
        reader->sides[field->side].index[cell] =
            field->base + (int64_t)(hash % field->hash_buckets);
        return 1;
    }
    __builtin_prefetch(home_of(reader, hash));
    reader->pending[reader->pending_count++] = (Pending){hash, field, cell};
    return reader->pending_count < MOST_PENDING || settle(reader);
}

/* The hash of one category; null is left to the caller. */
static int take_hash(const Reader *reader, Input *in, const Field *field, uint64_t *hash)
{
    const char *text;
    Py_ssize_t length;
    Number number;
    char c = peek(in);
    if (c == '"') {
        /* Bytes, where the limit counts characters: of long texts the Python way judges. */
        if (!take_string(in, &text, &length) || length > reader->longest_text)
            return 0;
    }
    else if (starts_number(c)) {
        if (!take_number(in, &number) || !number.is_integer)
            return 0;
        text = number.text;
        length = number.length;
    }
    else {
        text = in->at;
        if (!(c == 't' && take_word(in, "true")) && !(c == 'f' && take_word(in, "false")))
            return 0;
        length = in->at - text;
    }
    if (length > LONGEST_HASHED)
        return 0;
    *hash = xxh3((const uint8_t *)text, (size_t)length, field->seed);
    *hash += *hash == 0; /* 0 means missing */
    return 1;
}

static int take_list(Reader *reader, Input *in, Field *field, Py_ssize_t cell)
{
    Side *side = &reader->sides[field->side];
    int count = 0, state = 1;
    Py_ssize_t elements = 0;
    if (!take(in, '['))
        return 0;
    if (take(in, ']'))
        return 1;
    while (state == 1) {
        uint64_t hash;
        if (elements++ == reader->longest_list)
            return 0;
        if (peek(in) == 'n') {
            if (!take_word(in, "null"))
                return 0;
        }
        else {
            if (!take_hash(reader, in, field, &hash))
                return 0;
            if (count < field->slots)
                side->index[cell + count] = (int64_t)hash; /* until their number is known */
            count++;
        }
        if (!(state = next_or_end(in, ']')))
            return 0;
    }
    if (count == 0)
        return 1;
    field->given = reader->row;
    if (count > field->slots) {
        reader->truncated[field - reader->fields]++;
        count = field->slots;
    }
    for (int place = 0; place < count; place++) {
        side->weight[cell + place] = field->is_mean ? (float)(1.0 / count) : 1;
        if (!put_hash(reader, field, (uint64_t)side->index[cell + place], cell + place))
            return 0;
    }
    return 1;
}

/* A binary search without a branch on the value, of which half would be guessed wrong. */
static int64_t bucket_of(const Field *field, double value)
{
    const double *at = field->boundaries;
    Py_ssize_t left = field->boundary_count;
    while (left > 1) {
        Py_ssize_t half = left / 2;
        at += (at[half - 1] <= value) * half;
        left -= half;
    }
    return field->base + (at - field->boundaries) + (left == 1 && *at <= value);
}

static int take_value(Reader *reader, Input *in, Field *field)
{
    Side *side = &reader->sides[field->side];
    Py_ssize_t cell = side->rows * side->slots + field->slot;
    Number number;
    uint64_t hash;
    if (field->met == reader->row)
        return 0;
    field->met = reader->row;
    char c = peek(in);
    if (c == 'n')
        return take_word(in, "null");
    if (field->kind == MULTI)
        return take_list(reader, in, field, cell);
    field->given = reader->row;
    side->weight[cell] = 1;
    if (field->kind == CATEGORY)
        return take_hash(reader, in, field, &hash) && put_hash(reader, field, hash, cell);
    if (!starts_number(c) || !take_number(in, &number))
        return 0;
    if (field->kind == BUCKET) {
        side->index[cell] = bucket_of(field, number.value);
        return 1;
    }
    double clipped = number.value < field->minimum ? field->minimum : number.value;
    clipped = clipped > field->maximum ? field->maximum : clipped;
    side->index[cell] = field->base;
    side->weight[cell] = (float)((clipped - field->mean) / field->deviation);
    return 1;
}

/* ---- rows ------------------------------------------------------------------------------------- */

static unsigned name_hash(const char *name, Py_ssize_t length)
{
    unsigned hash = 2166136261u; /* FNV-1a */
    for (Py_ssize_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    return hash;
}

static int is_named(const Field *field, const char *name, Py_ssize_t length)
{
    return field->name_length == length && memcmp(field->name, name, (size_t)length) == 0;
}

static Field *find_field(Reader *reader, const char *name, Py_ssize_t length)
{
    unsigned place = name_hash(name, length) & reader->place_mask;
    for (; reader->places[place]; place = (place + 1) & reader->place_mask) {
        Field *field = &reader->fields[reader->places[place] - 1];
        if (is_named(field, name, length))
            return field;
    }
    return NULL;
}

static int count_unknown(Reader *reader, const char *name, Py_ssize_t length)
{
    for (int i = 0; i < reader->unknown_count; i++) {
        Unknown *known = &reader->unknown[i];
        if (known->length == length && memcmp(known->name, name, (size_t)length) == 0) {
            if (known->met == reader->row)
                return 0;
            known->met = reader->row;
            known->count++;
            return 1;
        }
    }
    if (reader->unknown_count == MOST_UNKNOWN)
        return 0;
    reader->unknown[reader->unknown_count++] = (Unknown){name, length, 1, reader->row};
    return 1;
}

static int grow(Side *side)
{
    if (side->rows < side->capacity)
        return 1;
    Py_ssize_t capacity = side->capacity ? 2 * side->capacity : 64;
    size_t cells = (size_t)(capacity * side->slots) + 1;
    int64_t *index = PyMem_Realloc(side->index, cells * sizeof *index);
    if (index)
        side->index = index;
    float *weight = PyMem_Realloc(side->weight, cells * sizeof *weight);
    if (weight)
        side->weight = weight;
    if (!index || !weight)
        return 0;
    side->capacity = capacity;
    return 1;
}

/* Makes room for one row on a side and fills it with missing values. */
static int begin_row(Reader *reader, int number)
{
    Side *side = &reader->sides[number];
    if (!grow(side))
        return 0;
    if (side->slots == 0)
        return 1; /* a schema may have no field on one side: nothing to copy from */
    Py_ssize_t place = side->rows * side->slots;
    memcpy(side->index + place, side->first_index, (size_t)side->slots * sizeof *side->index);
    memcpy(side->weight + place, side->first_weight, (size_t)side->slots * sizeof *side->weight);
    return 1;
}

/* An object of fields into the row begun; `sides` is a bit mask of those it may hold. */
static int take_fields(Reader *reader, Input *in, int sides)
{
    int *follower = &reader->first_follower;
    const char *name;
    Py_ssize_t length;
    if (!take(in, '{'))
        return 0;
    int state = take(in, '}') ? 2 : 1;
    while (state == 1) {
        if (!take_string(in, &name, &length) || !take(in, ':'))
            return 0;
        Field *field = &reader->fields[*follower];
        if (!is_named(field, name, length))
            field = find_field(reader, name, length);
        if (field) {
            if (!(sides & 1 << field->side) || !take_value(reader, in, field))
                return 0;
            *follower = (int)(field - reader->fields);
            follower = &field->follower;
        }
        else if (!count_unknown(reader, name, length) || !skip_value(in, reader->deepest))
            return 0;
        if (!(state = next_or_end(in, '}')))
            return 0;
    }
    for (int i = 0; i < reader->count; i++) {
        const Field *field = &reader->fields[i];
        if (field->missing == POLICY_REJECT && field->given != reader->row &&
            sides & 1 << field->side)
            return 0;
    }
    return 1;
}

static void begin_body(Reader *reader)
{
    reader->sides[CONTEXT].rows = reader->sides[CANDIDATE].rows = 0;
    reader->unknown_count = reader->pending_count = 0;
    memset(reader->truncated, 0, (size_t)reader->count * sizeof *reader->truncated);
}

/* Bytes beyond ASCII must be UTF-8; Python's own decoder judges, once for the whole body. The bytes
   are joined rather than compared one by one: such a loop runs many at a time. */
static int is_text(const char *body, Py_ssize_t length)
{
    unsigned char joined = 0;
    for (Py_ssize_t i = 0; i < length; i++)
        joined |= (unsigned char)body[i];
    if (joined < 0x80)
        return 1;
    PyObject *text = PyUnicode_DecodeUTF8(body, length, NULL);
    if (!text)
        PyErr_Clear();
    Py_XDECREF(text);
    return text != NULL;
}

static int take_instances(Reader *reader, Input *in, Py_ssize_t most_rows)
{
    const char *name;
    Py_ssize_t length;
    if (!take(in, '{') || !take_string(in, &name, &length) || length != 9 ||
        memcmp(name, "instances", 9) != 0 || !take(in, ':') || !take(in, '['))
        return 0;
    for (int state = 1; state != 2;) {
        reader->row++;
        if (reader->sides[CANDIDATE].rows == most_rows || !begin_row(reader, CONTEXT) ||
            !begin_row(reader, CANDIDATE) ||
            !take_fields(reader, in, 1 << CONTEXT | 1 << CANDIDATE))
            return 0;
        reader->sides[CONTEXT].rows++;
        reader->sides[CANDIDATE].rows++;
        if (!(state = next_or_end(in, ']')))
            return 0;
    }
    return take(in, '}') && peek(in) == '\0' && in->at == in->end && settle(reader);
}

static int take_id(const Reader *reader, Input *in, PyObject *ids)
{
    const char *text;
    Py_ssize_t length;
    Number number;
    PyObject *id;
    char c = peek(in);
    if (c == '"') {
        if (!take_string(in, &text, &length) || length > reader->longest_text)
            return 0;
        id = PyUnicode_DecodeUTF8(text, length, NULL);
    }
    else {
        if (!starts_number(c) || !take_number(in, &number) || !number.is_integer)
            return 0;
        id = PyLong_FromLongLong((long long)number.value);
    }
    int failed = !id || PyList_Append(ids, id) < 0;
    Py_XDECREF(id);
    in->failed_in_python |= failed;
    return !failed;
}

static int take_candidate(Reader *reader, Input *in, PyObject *ids)
{
    int has_id = 0, has_features = 0;
    const char *name;
    Py_ssize_t length;
    if (!take(in, '{'))
        return 0;
    for (int state = 1; state != 2;) {
        if (!take_string(in, &name, &length) || !take(in, ':'))
            return 0;
        if (length == 2 && memcmp(name, "id", 2) == 0) {
            if (has_id++ || !take_id(reader, in, ids))
                return 0;
        }
        else if (length != 8 || memcmp(name, "features", 8) != 0 || has_features++ ||
                 !take_fields(reader, in, 1 << CANDIDATE))
            return 0;
        if (!(state = next_or_end(in, '}')))
            return 0;
    }
    return has_id && has_features;
}

static int take_candidates(Reader *reader, Input *in, Py_ssize_t most_rows, PyObject *ids)
{
    Side *side = &reader->sides[CANDIDATE];
    if (!take(in, '['))
        return 0;
    for (int state = 1; state != 2;) {
        reader->row++;
        if (side->rows == most_rows || !begin_row(reader, CANDIDATE) ||
            !take_candidate(reader, in, ids))
            return 0;
        side->rows++;
        if (!(state = next_or_end(in, ']')))
            return 0;
    }
    return 1;
}

static int take_truth(Input *in, int *truth)
{
    *truth = peek(in) == 't';
    return take_word(in, *truth ? "true" : "false");
}

static int take_ranking(Reader *reader, Input *in, Py_ssize_t most_rows, PyObject *ids,
                        long long *top_k, int *pairwise, int *partial)
{
    enum { HAS_CONTEXT = 1, HAS_CANDIDATES = 2, HAS_TOP_K = 4, HAS_PAIRWISE = 8, HAS_PARTIAL = 16 };
    int met = 0;
    const char *name;
    Py_ssize_t length;
    Number number;
    if (!take(in, '{'))
        return 0;
    for (int state = 1; state != 2;) {
        int key;
        if (!take_string(in, &name, &length) || !take(in, ':'))
            return 0;
        if (length == 7 && memcmp(name, "context", 7) == 0) {
            key = HAS_CONTEXT;
            reader->row++;
            if (!begin_row(reader, CONTEXT) || !take_fields(reader, in, 1 << CONTEXT))
                return 0;
        }
        else if (length == 10 && memcmp(name, "candidates", 10) == 0) {
            key = HAS_CANDIDATES;
            if (met & key || !take_candidates(reader, in, most_rows, ids))
                return 0;
        }
        else if (length == 5 && memcmp(name, "top_k", 5) == 0) {
            key = HAS_TOP_K;
            if (!starts_number(peek(in)) || !take_number(in, &number) || !number.is_integer ||
                number.value < 1)
                return 0;
            *top_k = (long long)number.value;
        }
        else if (length == 8 && memcmp(name, "pairwise", 8) == 0) {
            key = HAS_PAIRWISE;
            if (!take_truth(in, pairwise))
                return 0;
        }
        else if (length == 7 && memcmp(name, "partial", 7) == 0) {
            key = HAS_PARTIAL;
            if (!take_truth(in, partial))
                return 0;
        }
        else
            return 0;
        if (met & key)
            return 0;
        met |= key;
        if (!(state = next_or_end(in, '}')))
            return 0;
    }
    if (!(met & HAS_CONTEXT)) {
        Input nothing = {"{}", NULL, 0};
        nothing.end = nothing.at + 2;
        reader->row++;
        if (!begin_row(reader, CONTEXT) || !take_fields(reader, &nothing, 1 << CONTEXT))
            return 0;
    }
    reader->sides[CONTEXT].rows = 1;
    return met & HAS_CANDIDATES && peek(in) == '\0' && in->at == in->end && settle(reader);
}

/* ---- answers ---------------------------------------------------------------------------------- */

static int put_count(PyObject *counts, const char *name, Py_ssize_t length, Py_ssize_t count)
{
    PyObject *key = PyUnicode_DecodeUTF8(name, length, NULL);
    PyObject *value = PyLong_FromSsize_t(count);
    int is_put = key && value && PyDict_SetItem(counts, key, value) == 0;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return is_put;
}

static PyObject *unknown_counts(const Reader *reader)
{
    PyObject *counts = PyDict_New();
    for (int i = 0; counts && i < reader->unknown_count; i++) {
        const Unknown *one = &reader->unknown[i];
        if (!put_count(counts, one->name, one->length, one->count))
            Py_CLEAR(counts);
    }
    return counts;
}

static PyObject *truncated_counts(const Reader *reader)
{
    PyObject *counts = PyDict_New();
    for (int i = 0; counts && i < reader->count; i++) {
        const Field *field = &reader->fields[i];
        if (reader->truncated[i] &&
            !put_count(counts, field->name, field->name_length, reader->truncated[i]))
            Py_CLEAR(counts);
    }
    return counts;
}

static PyObject *copied(const void *cells, Py_ssize_t count, size_t size)
{
    return PyByteArray_FromStringAndSize(cells, count * (Py_ssize_t)size);
}

static PyObject *side_arrays(const Side *side)
{
    Py_ssize_t cells = side->rows * side->slots;
    PyObject *index = copied(side->index, cells, sizeof *side->index);
    PyObject *weight = side->is_weighted ? copied(side->weight, cells, sizeof *side->weight)
                                         : Py_NewRef(Py_None);
    return Py_BuildValue("nNN", side->rows, index, weight);
}

static PyObject *answer(const Reader *reader)
{
    return Py_BuildValue("NNNN", side_arrays(&reader->sides[CONTEXT]),
                         side_arrays(&reader->sides[CANDIDATE]), unknown_counts(reader),
                         truncated_counts(reader));
}

PyDoc_STRVAR(score_doc,
             "score(body: bytes, most_rows: int) -> tuple | None\n\n"
             "A plain body of /score: ((rows, index, weight), the same of the candidates,\n"
             "{unknown name: rows}, {field: truncated lists}); None if it is not plain.");

static PyObject *reader_score(Reader *reader, PyObject *args)
{
    const char *body;
    Py_ssize_t length, most_rows;
    if (!PyArg_ParseTuple(args, "y#n", &body, &length, &most_rows))
        return NULL;
    Input in = {body, body + length, 0};
    begin_body(reader);
    if (!is_text(body, length) || !take_instances(reader, &in, most_rows))
        Py_RETURN_NONE;
    return answer(reader);
}

PyDoc_STRVAR(rank_doc, "rank(body: bytes, most_rows: int) -> tuple | None\n\n"
                       "A plain body of /rank: (as score, [ids], top_k or None, pairwise,\n"
                       "partial); None if it is not plain.");

static PyObject *reader_rank(Reader *reader, PyObject *args)
{
    const char *body;
    Py_ssize_t length, most_rows;
    if (!PyArg_ParseTuple(args, "y#n", &body, &length, &most_rows))
        return NULL;
    Input in = {body, body + length, 0};
    long long top_k = 0;
    int pairwise = 0, partial = 0;
    PyObject *ids = PyList_New(0);
    if (!ids)
        return NULL;
    begin_body(reader);
    if (!is_text(body, length) ||
        !take_ranking(reader, &in, most_rows, ids, &top_k, &pairwise, &partial)) {
        Py_DECREF(ids);
        if (in.failed_in_python)
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *chosen = top_k ? PyLong_FromLongLong(top_k) : Py_NewRef(Py_None);
    return Py_BuildValue("NNNOO", answer(reader), ids, chosen, pairwise ? Py_True : Py_False,
                         partial ? Py_True : Py_False);
}

/* ---- making a reader -------------------------------------------------------------------------- */

static int set_field(Reader *reader, Field *field, PyObject *described)
{
    const char *name;
    Py_buffer boundaries;
    int64_t first;
    long long first_given, base, unknown_index;
    unsigned long long seed, hash_buckets;
    if (!PyArg_ParseTuple(described, "s#iiiiiLLLKKy*ddddp", &name, &field->name_length,
                          &field->side, &field->kind, &field->slots, &field->missing,
                          &field->unknown, &first_given, &base, &unknown_index, &seed,
                          &hash_buckets, &boundaries, &field->minimum, &field->maximum,
                          &field->mean, &field->deviation, &field->is_mean))
        return 0;
    first = first_given;
    field->base = base;
    field->unknown_index = unknown_index;
    field->seed = seed;
    field->hash_buckets = hash_buckets;
    field->boundary_count = boundaries.len / (Py_ssize_t)sizeof(double);
    field->boundaries = PyMem_Malloc((size_t)boundaries.len + 1);
    field->name = PyMem_Malloc((size_t)field->name_length + 1);
    if (field->boundaries)
        memcpy(field->boundaries, boundaries.buf, (size_t)boundaries.len);
    if (field->name)
        memcpy(field->name, name, (size_t)field->name_length);
    PyBuffer_Release(&boundaries);
    Side *side = &reader->sides[field->side];
    field->slot = side->slots;
    side->slots += field->slots;
    size_t cells = (size_t)side->slots;
    int64_t *index = PyMem_Realloc(side->first_index, cells * sizeof *index);
    if (index)
        side->first_index = index;
    float *weight = PyMem_Realloc(side->first_weight, cells * sizeof *weight);
    if (weight)
        side->first_weight = weight;
    if (!index || !weight || !field->boundaries || !field->name) {
        PyErr_NoMemory();
        return 0;
    }
    for (int place = 0; place < field->slots; place++) {
        index[field->slot + place] = first;
        weight[field->slot + place] = place == 0 && field->missing != POLICY_ZERO;
    }
    if (field->kind == CROSS) {
        field->name_length = -1; /* no key of a body is its name */
        return 1;
    }
    unsigned place = name_hash(name, field->name_length) & reader->place_mask;
    while (reader->places[place])
        place = (place + 1) & reader->place_mask;
    reader->places[place] = (int)(field - reader->fields) + 1;
    return 1;
}

static void reader_dealloc(Reader *reader)
{
    for (int i = 0; reader->fields && i < reader->count; i++) {
        PyMem_Free(reader->fields[i].name);
        PyMem_Free(reader->fields[i].boundaries);
    }
    PyMem_Free(reader->fields);
    PyMem_Free(reader->places);
    PyMem_Free(reader->truncated);
    for (int i = 0; i < SIDES; i++) {
        PyMem_Free(reader->sides[i].first_index);
        PyMem_Free(reader->sides[i].first_weight);
        PyMem_Free(reader->sides[i].index);
        PyMem_Free(reader->sides[i].weight);
    }
    if (reader->table.obj)
        PyBuffer_Release(&reader->table);
    PyTypeObject *type = Py_TYPE(reader);
    type->tp_free(reader);
    Py_DECREF(type);
}

static PyObject *reader_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    PyObject *table, *described, *weighted;
    unsigned long long homes;
    if (names && PyDict_GET_SIZE(names)) {
        PyErr_SetString(PyExc_TypeError, "Reader takes no named arguments");
        return NULL;
    }
    Py_ssize_t longest_text, longest_list, deepest;
    if (!PyArg_ParseTuple(args, "OKO!O!(nnn)", &table, &homes, &PyTuple_Type, &weighted,
                          &PyList_Type, &described, &longest_text, &longest_list, &deepest))
        return NULL;
    Reader *reader = (Reader *)type->tp_alloc(type, 0);
    if (!reader)
        return NULL;
    reader->homes = homes;
    reader->longest_text = longest_text;
    reader->longest_list = longest_list;
    reader->deepest = deepest;
    reader->count = (int)PyList_GET_SIZE(described);
    reader->fields = PyMem_Calloc((size_t)reader->count + 1, sizeof *reader->fields);
    reader->truncated = PyMem_Calloc((size_t)reader->count + 1, sizeof *reader->truncated);
    unsigned places = 16;
    while (places < 2u * (unsigned)reader->count)
        places *= 2;
    reader->place_mask = places - 1;
    reader->places = PyMem_Calloc(places, sizeof *reader->places);
    if (!reader->fields || !reader->truncated || !reader->places) {
        PyErr_NoMemory();
        goto failed;
    }
    if (PyObject_GetBuffer(table, &reader->table, PyBUF_C_CONTIGUOUS) < 0 ||
        !PyArg_ParseTuple(weighted, "pp", &reader->sides[CONTEXT].is_weighted,
                          &reader->sides[CANDIDATE].is_weighted))
        goto failed;
    for (int i = 0; i < reader->count; i++)
        if (!set_field(reader, &reader->fields[i], PyList_GET_ITEM(described, i)))
            goto failed;
    return (PyObject *)reader;
failed:
    Py_DECREF(reader);
    return NULL;
}

PyDoc_STRVAR(hash_doc, "hash_text(text: bytes, seed: int) -> int\n\nXXH3 of at most 128 bytes.");

static PyObject *hash_text(PyObject *module, PyObject *args)
{
    const char *text;
    Py_ssize_t length;
    unsigned long long seed;
    if (!PyArg_ParseTuple(args, "y#K", &text, &length, &seed))
        return NULL;
    if (length > LONGEST_HASHED) {
        PyErr_SetString(PyExc_ValueError, "more than 128 bytes");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(xxh3((const uint8_t *)text, (size_t)length, seed));
}

static PyMethodDef READER_METHODS[] = {
    {"score", (PyCFunction)reader_score, METH_VARARGS, score_doc},
    {"rank", (PyCFunction)reader_rank, METH_VARARGS, rank_doc},
    {NULL},
};
static PyType_Slot READER_SLOTS[] = {
    {Py_tp_doc, "Reads plain bodies of one schema; not to be shared between threads."},
    {Py_tp_new, reader_new},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, READER_METHODS},
    {0, NULL},
};
static PyType_Spec READER = {"service._bodies.Reader", sizeof(Reader), 0, Py_TPFLAGS_DEFAULT,
                             READER_SLOTS};
static PyMethodDef METHODS[] = {
    {"hash_text", hash_text, METH_VARARGS, hash_doc},
    {NULL},
};
static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "service._bodies",
                                    "One pass over a plain request body.", -1, METHODS};

PyMODINIT_FUNC PyInit__bodies(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    PyObject *reader = PyType_FromSpec(&READER);
    if (!module || !reader || PyModule_AddObjectRef(module, "Reader", reader) < 0)
        Py_CLEAR(module);
    Py_XDECREF(reader);
    return module;
}
