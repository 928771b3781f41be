/* Texts by the hundred thousand: the cells of a CSV, and hashes of many texts.

   `features.delimited` and `features.vocabulary` do the same without this module; tests hold both
   equal. This file checks what Python hands over; the passes are in the headers. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_cells.h"
#include "_xxh3.h"

static locale_t plain_locale;

static int holds(const Py_buffer *buffer, Py_ssize_t bytes, const char *name)
{
    if (buffer->len == bytes)
        return 1;
    PyErr_Format(PyExc_ValueError, "%s holds %zd bytes instead of %zd", name, buffer->len, bytes);
    return 0;
}

static PyObject *hash_texts(PyObject *self, PyObject *args)
{
    Py_buffer text, ends, out;
    unsigned long long seed;
    PyObject *answer = NULL;
    if (!PyArg_ParseTuple(args, "y*y*Kw*", &text, &ends, &seed, &out))
        return NULL;
    const Py_ssize_t count = ends.len / 8;
    int ordered = 1;
    if (holds(&ends, count * 8, "ends") && holds(&out, count * 8, "hashes")) {
        Py_BEGIN_ALLOW_THREADS
        const int64_t *end = ends.buf;
        uint64_t *hash = out.buf;
        for (int64_t place = 0, begin = 0; place < count && ordered; begin = end[place++]) {
            ordered = begin <= end[place] && end[place] <= text.len;
            if (ordered && end[place] - begin <= LONGEST_HASHED) {
                hash[place] = xxh3((const uint8_t *)text.buf + begin, (size_t)(end[place] - begin), seed);
                hash[place] += hash[place] == 0;
            } else {
                hash[place] = 0;
            }
        }
        Py_END_ALLOW_THREADS
        if (ordered)
            answer = Py_NewRef(Py_None);
        else
            PyErr_SetString(PyExc_ValueError, "ends must rise and lie within the text");
    }
    PyBuffer_Release(&text);
    PyBuffer_Release(&ends);
    PyBuffer_Release(&out);
    return answer;
}

static PyObject *count_lines(PyObject *self, PyObject *args)
{
    Py_buffer block;
    Py_ssize_t begin, most, rows = 0;
    if (!PyArg_ParseTuple(args, "y*nn", &block, &begin, &most))
        return NULL;
    if (begin < 0 || begin > block.len) {
        PyBuffer_Release(&block);
        PyErr_SetString(PyExc_ValueError, "begin must lie within the block");
        return NULL;
    }
    const char *at = (const char *)block.buf + begin, *end = (const char *)block.buf + block.len;
    Py_BEGIN_ALLOW_THREADS
    for (; rows < most && at < end; rows++) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        at = line ? line + 1 : end;
    }
    Py_END_ALLOW_THREADS
    const Py_ssize_t stop = at - (const char *)block.buf;
    PyBuffer_Release(&block);
    return Py_BuildValue("nn", rows, stop);
}

static PyObject *distinct_texts(const Dictionary *texts, Py_ssize_t columns)
{
    static const int32_t none = 0;
    PyObject *answer = PyList_New(columns);
    for (Py_ssize_t i = 0; answer && i < columns; i++) {
        const int32_t *bounds = texts[i].bounds ? texts[i].bounds : &none;
        PyObject *one = Py_BuildValue(
            "y#y#", bounds, (Py_ssize_t)((texts[i].count + 1) * sizeof *bounds),
            texts[i].text ? (const char *)texts[i].text : "", (Py_ssize_t)bounds[texts[i].count]);
        if (one)
            PyList_SET_ITEM(answer, i, one);
        else
            Py_CLEAR(answer);
    }
    return answer;
}

static PyObject *read_all(Piece *p, Py_ssize_t columns)
{
    PyObject *answer = NULL;
    enum Outcome outcome = NO_MEMORY;
    p->texts = calloc((size_t)columns + 1, sizeof *p->texts);
    if (p->texts) {
        Py_BEGIN_ALLOW_THREADS
        outcome = read_piece(p);
        Py_END_ALLOW_THREADS
    }
    if (outcome == READ)
        answer = distinct_texts(p->texts, columns);
    else if (outcome == NOT_PLAIN)
        answer = Py_NewRef(Py_None);
    else
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; p->texts && i < columns; i++) {
        free(p->texts[i].slots);
        free(p->texts[i].bounds);
        free(p->texts[i].text);
    }
    free(p->texts);
    return answer;
}

static PyObject *read_cells(PyObject *self, PyObject *args)
{
    Py_buffer b[5] = {0};
    Py_ssize_t begin, stop, counts[3] = {0};
    Piece p = {.locale = plain_locale};
    PyObject *answer = NULL;
    if (!PyArg_ParseTuple(args, "y*nnby*nw*w*w*", &b[0], &begin, &stop, &p.separator, &b[1], &p.rows,
                          &b[2], &b[3], &b[4]))
        return NULL;
    p.kinds = b[1].buf;
    p.columns = b[1].len;
    for (Py_ssize_t i = 0; i < p.columns; i++)
        counts[p.kinds[i] <= TEXT ? p.kinds[i] : SKIPPED]++;
    const Py_ssize_t read = counts[NUMBER] + counts[TEXT];
    if (begin < 0 || begin > stop || stop > b[0].len || stop - begin > INT32_MAX || p.rows < 0)
        PyErr_SetString(PyExc_ValueError, "the piece must lie within the block, below 2 GiB");
    else if (holds(&b[2], counts[NUMBER] * p.rows * 8, "numbers")
             && holds(&b[3], counts[TEXT] * p.rows * 4, "codes")
             && holds(&b[4], read * ((p.rows + 7) / 8), "validity")) {
        p.text = (const uint8_t *)b[0].buf + begin;
        p.end = (const uint8_t *)b[0].buf + stop;
        p.numbers = b[2].buf;
        p.codes = b[3].buf;
        p.validity = b[4].buf;
        answer = read_all(&p, counts[TEXT]);
    }
    for (int i = 0; i < 5; i++)
        PyBuffer_Release(&b[i]);
    return answer;
}

static PyMethodDef methods[] = {
    {"hash_texts", hash_texts, METH_VARARGS,
     "hash_texts(text, ends, seed, hashes): fill hashes; 0 for a text of more than 128 bytes."},
    {"count_lines", count_lines, METH_VARARGS,
     "count_lines(block, begin, most): (lines from begin on, at most `most`; where they stop)."},
    {"read_cells", read_cells, METH_VARARGS,
     "read_cells(block, begin, stop, separator, kinds, rows, numbers, codes, validity): (bounds, "
     "text) of each text column's distinct texts, or None where a cell is not plain."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "features._texts", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__texts(void)
{
    plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return plain_locale ? PyModule_Create(&module) : PyErr_NoMemory();
}
