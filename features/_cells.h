/* A piece of CSV without quotes, cell by cell: numbers as float64, texts as codes of the distinct
   ones in the order in which they first occur.

   What is not plain is left to Arrow, so that there is one reader of everything odd, and one to say
   what is wrong. Plain is: lines that end in LF or CRLF, with no other carriage return, none of them
   empty; as many cells in each line as the header has; a number is empty or
   -?digits[.digits][(e|E)[+-]digits], shorter than LONGEST_NUMBER, and neither rounds to zero nor
   overflows. */

#pragma once
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif

#include "_xxh3.h"

enum { SKIPPED, NUMBER, TEXT };
enum { LONGEST_NUMBER = 64, EXACT_DIGITS = 15, FIRST_SLOTS = 1024, LINES = 512 };
enum Outcome { READ, NOT_PLAIN, NO_MEMORY };

typedef struct {
    uint32_t tag;   /* the upper half of the hash */
    uint32_t entry; /* 1 + which text; 0 where the slot is empty */
} Slot;

/* The distinct texts of one column. */
typedef struct {
    Slot *slots;
    uint64_t *hashes;
    int32_t *bounds; /* [count + 1] in `text` */
    uint8_t *text;
    uint32_t slot_count, count;
    size_t room; /* bytes of `text` */
} Dictionary;

typedef struct {
    const uint8_t *text, *end; /* below 2 GiB */
    uint32_t at;               /* where in `text` the next line begins */
    int has_returns;           /* whether a carriage return lies in it */
    uint8_t separator;
    const uint8_t *kinds; /* [columns] */
    Py_ssize_t columns, rows;
    double *numbers;     /* [number columns, rows] */
    int32_t *codes;      /* [text columns, rows], -1 where empty */
    uint8_t *validity;   /* [read columns, (rows + 7) / 8] bits, all 0 before */
    Dictionary *texts;   /* [text columns] */
    locale_t locale;
} Piece;

/* The first separator or line feed at or behind `at`, or `end`: eight bytes at a time. */
static const uint8_t *cell_end(const uint8_t *at, const uint8_t *end, uint8_t separator)
{
    const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; end - at >= 8; at += 8) {
        const uint64_t word = read64(at), cut = word ^ ones * separator, line = word ^ ones * '\n';
        /* A byte behind the first zero may be marked wrongly, the first one never. */
        const uint64_t found = (((cut - ones) & ~cut) | ((line - ones) & ~line)) & tops;
        if (found)
            return at + (__builtin_ctzll(found) >> 3);
    }
#endif
    while (at < end && *at != separator && *at != '\n')
        at++;
    return at;
}

static int parsed_slowly(const uint8_t *at, size_t length, locale_t locale, double *value)
{
    char copy[LONGEST_NUMBER], *stop;
    if (length >= LONGEST_NUMBER)
        return 0;
    memcpy(copy, at, length);
    copy[length] = 0;
    *value = strtod_l(copy, &stop, locale);
    return stop == copy + length && isnormal(*value);
}

/* Whether a cell is a plain number; at most 15 digits and a small power of ten divide exactly. */
static int parsed(const uint8_t *begin, const uint8_t *end, locale_t locale, double *value)
{
    static const double powers[EXACT_DIGITS] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6, 1e7,
                                                1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14};
    const uint8_t *at = begin + (*begin == '-'), *digits = at, *point = NULL;
    uint64_t mantissa = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        mantissa = mantissa * 10 + (*at - '0');
    if (at == digits)
        return 0;
    if (at < end && *at == '.') {
        point = at++;
        for (; at < end && *at >= '0' && *at <= '9'; at++)
            mantissa = mantissa * 10 + (*at - '0');
        if (at == point + 1)
            return 0;
    }
    if (at == end && at - digits <= EXACT_DIGITS) {
        const double exact = (double)mantissa / powers[point ? at - point - 1 : 0];
        *value = *begin == '-' ? -exact : exact;
        return 1;
    }
    if (at < end && (*at | 0x20) == 'e') {
        at++;
        at += at < end && (*at == '-' || *at == '+');
        for (digits = at; at < end && *at >= '0' && *at <= '9'; at++)
            ;
        if (at == digits)
            return 0;
    }
    return at == end && parsed_slowly(begin, (size_t)(end - begin), locale, value);
}

static uint64_t hash_of(const uint8_t *text, size_t length)
{
    if (length <= LONGEST_HASHED)
        return xxh3(text, length, 0);
    return xxh3(text, LONGEST_HASHED, length) + xxh3(text + length - LONGEST_HASHED, LONGEST_HASHED, 0);
}

static int grow_slots(Dictionary *d)
{
    const uint32_t slot_count = d->slot_count ? d->slot_count * 2 : FIRST_SLOTS;
    Slot *slots = calloc(slot_count, sizeof *slots);
    uint64_t *hashes = realloc(d->hashes, slot_count / 2 * sizeof *hashes);
    if (hashes)
        d->hashes = hashes;
    int32_t *bounds = realloc(d->bounds, (slot_count / 2 + 1) * sizeof *bounds);
    if (bounds)
        d->bounds = bounds;
    if (!slots || !hashes || !bounds) {
        free(slots);
        return 0;
    }
    d->bounds[0] = 0;
    for (uint32_t entry = 0; entry < d->count; entry++) {
        uint32_t place = (uint32_t)hashes[entry] & (slot_count - 1);
        while (slots[place].entry)
            place = (place + 1) & (slot_count - 1);
        slots[place] = (Slot){(uint32_t)(hashes[entry] >> 32), entry + 1};
    }
    free(d->slots);
    d->slots = slots;
    d->slot_count = slot_count;
    return 1;
}

static int append(Dictionary *d, const uint8_t *text, size_t length, uint64_t hash)
{
    const size_t used = (size_t)d->bounds[d->count];
    if (used + length > d->room) {
        const size_t room = (used + length) * 2 + 1024;
        uint8_t *moved = realloc(d->text, room);
        if (!moved)
            return 0;
        d->text = moved;
        d->room = room;
    }
    memcpy(d->text + used, text, length);
    d->hashes[d->count] = hash;
    d->bounds[++d->count] = (int32_t)(used + length);
    return 1;
}

static int are_equal(const uint8_t *a, const uint8_t *b, size_t length)
{
    if (length - 4 <= 4) /* the most frequent lengths, without a call */
        return read32(a) == read32(b) && read32(a + length - 4) == read32(b + length - 4);
    return memcmp(a, b, length) == 0;
}

/* Which of the distinct texts this is, a new one if need be; -1 if memory is short. */
static int32_t code_of(Dictionary *d, const uint8_t *text, size_t length)
{
    if (d->count >= d->slot_count / 2 && !grow_slots(d))
        return -1;
    const uint64_t hash = hash_of(text, length);
    const uint32_t tag = (uint32_t)(hash >> 32), mask = d->slot_count - 1;
    uint32_t place = (uint32_t)hash & mask;
    for (; d->slots[place].entry; place = (place + 1) & mask) {
        const uint32_t entry = d->slots[place].entry - 1;
        const int32_t begin = d->bounds[entry];
        if (d->slots[place].tag == tag && (size_t)(d->bounds[entry + 1] - begin) == length
            && are_equal(d->text + begin, text, length))
            return (int32_t)entry;
    }
    if (!append(d, text, length, hash))
        return -1;
    d->slots[place] = (Slot){tag, d->count};
    return (int32_t)d->count - 1;
}

/* Where the cells of some lines begin, and behind each line one more: a cell ends one byte before the
   next place. Places are counted from the text's begin, because the last one may lie beyond its end. */
static int find_cells(Piece *p, Py_ssize_t lines, uint32_t *cells)
{
    for (Py_ssize_t line = 0; line < lines; line++) {
        const uint8_t *begin = p->text + p->at, *at = begin, *end = begin;
        for (Py_ssize_t column = 0; column < p->columns; column++) {
            end = cell_end(at, p->end, p->separator);
            if ((end == p->end || *end == '\n') != (column == p->columns - 1))
                return 0;
            *cells++ = (uint32_t)(at - p->text);
            at = end == p->end ? end : end + 1;
        }
        p->at = (uint32_t)(at - p->text);
        if (p->has_returns) {
            const uint8_t *found = memchr(begin, '\r', (size_t)(end - begin));
            if (found && (found != end - 1 || end == p->end))
                return 0;
            end = found ? found : end;
        }
        if (end == begin)
            return 0;
        *cells++ = (uint32_t)(end - p->text) + 1;
    }
    return 1;
}

static enum Outcome read_numbers(Piece *p, Py_ssize_t lines, const uint32_t *cells, double *number,
                                 uint8_t *valid)
{
    for (Py_ssize_t line = 0; line < lines; line++, cells += p->columns + 1) {
        const uint8_t *begin = p->text + cells[0], *end = p->text + (cells[1] - 1);
        number[line] = 0;
        if (end > begin && !parsed(begin, end, p->locale, &number[line]))
            return NOT_PLAIN;
        valid[line / 8] |= (uint8_t)((end > begin) << line % 8);
    }
    return READ;
}

static enum Outcome read_texts(Piece *p, Py_ssize_t lines, const uint32_t *cells, int32_t *code,
                               uint8_t *valid, Dictionary *texts)
{
    for (Py_ssize_t line = 0; line < lines; line++, cells += p->columns + 1) {
        const uint8_t *begin = p->text + cells[0], *end = p->text + (cells[1] - 1);
        code[line] = -1;
        if (end > begin && (code[line] = code_of(texts, begin, (size_t)(end - begin))) < 0)
            return NO_MEMORY;
        valid[line / 8] |= (uint8_t)((end > begin) << line % 8);
    }
    return READ;
}

/* Column by column for some lines, which with one column's texts fit into a core's cache. */
static enum Outcome read_lines(Piece *p, Py_ssize_t row, Py_ssize_t lines, uint32_t *cells)
{
    double *number = p->numbers + row;
    int32_t *code = p->codes + row;
    uint8_t *valid = p->validity + row / 8;
    Dictionary *texts = p->texts;
    enum Outcome outcome = find_cells(p, lines, cells) ? READ : NOT_PLAIN;
    for (Py_ssize_t column = 0; column < p->columns && outcome == READ; column++) {
        if (p->kinds[column] == NUMBER) {
            outcome = read_numbers(p, lines, cells + column, number, valid);
            number += p->rows;
        } else if (p->kinds[column] == TEXT) {
            outcome = read_texts(p, lines, cells + column, code, valid, texts++);
            code += p->rows;
        } else {
            continue;
        }
        valid += (p->rows + 7) / 8;
    }
    return outcome;
}

static enum Outcome read_piece(Piece *p)
{
    p->has_returns = memchr(p->text, '\r', (size_t)(p->end - p->text)) != NULL;
    uint32_t *cells = malloc((size_t)(p->columns + 1) * LINES * sizeof *cells);
    enum Outcome outcome = cells ? READ : NO_MEMORY;
    for (Py_ssize_t row = 0; row < p->rows && outcome == READ; row += LINES)
        outcome = read_lines(p, row, p->rows - row < LINES ? p->rows - row : LINES, cells);
    free(cells);
    return outcome == READ && p->text + p->at < p->end ? NOT_PLAIN : outcome;
}
