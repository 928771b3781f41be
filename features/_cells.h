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
enum { LONGEST_NUMBER = 64, EXACT_DIGITS = 15, SHORT = 8, FIRST_SLOTS = 1024, LINES = 512, BLOCK = 64 };
enum Outcome { READ, NOT_PLAIN, NO_MEMORY };

/* Most categories are short: such a text lies in its slot, and finding it waits for memory once. */
typedef struct {
    uint64_t key;    /* a text of at most SHORT bytes itself, zeros behind it; of a longer one the hash */
    uint32_t length; /* of the text */
    uint32_t entry;  /* 1 + which text; 0 where the slot is empty */
} Slot;

/* The distinct texts of one column. */
typedef struct {
    Slot *slots;
    int32_t *bounds; /* [count + 1] in `text` */
    uint8_t *text;
    uint32_t slot_count, count;
    size_t room; /* bytes of `text` */
} Dictionary;

typedef struct {
    const uint8_t *text, *end; /* below 2 GiB */
    const uint8_t *block;      /* of BLOCK bytes, in which the next cell ends */
    uint64_t marks;            /* of this block, those not yet taken */
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

/* Which of the next BLOCK bytes are separators or line feeds, a bit for each; the text's end counts as
   one too. Compilers make vectors of the first loop. */
static uint64_t marks_of(const uint8_t *at, const uint8_t *end, uint8_t separator)
{
    uint8_t flags[BLOCK] = {0};
    uint64_t marks = 0;
    if (end - at >= BLOCK) {
        for (int place = 0; place < BLOCK; place++)
            flags[place] = (uint8_t)((at[place] == separator) | (at[place] == '\n'));
    } else {
        for (int place = 0; place < end - at; place++)
            flags[place] = at[place] == separator || at[place] == '\n';
        flags[end - at] = 1;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (int place = 0; place < BLOCK; place += 8) /* eight flags meet in the product's upper byte */
        marks |= (read64(flags + place) * 0x0102040810204080ULL >> 56) << place;
#else
    for (int place = 0; place < BLOCK; place++)
        marks |= (uint64_t)flags[place] << place;
#endif
    return marks;
}

/* The next separator or line feed, or the end; not to be called behind it. */
static const uint8_t *next_mark(Piece *p)
{
    while (!p->marks) {
        p->block += BLOCK;
        p->marks = marks_of(p->block, p->end, p->separator);
    }
    const uint8_t *found = p->block + __builtin_ctzll(p->marks);
    p->marks &= p->marks - 1;
    return found;
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

/* What a text is known by, together with its length; `end` is where the readable bytes end. */
static uint64_t key_of(const uint8_t *text, size_t length, const uint8_t *end)
{
    uint64_t word = 0;
    if (length > LONGEST_HASHED)
        return xxh3(text, LONGEST_HASHED, length)
               + xxh3(text + length - LONGEST_HASHED, LONGEST_HASHED, 0);
    if (length > SHORT)
        return xxh3(text, length, 0);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (length && end - text >= SHORT)
        return read64(text) & ~0ULL >> (SHORT - length) * 8;
#endif
    for (size_t place = 0; place < length; place++)
        word |= (uint64_t)text[place] << place * 8;
    return word;
}

/* Where a key is looked for first. */
static uint32_t home_of(const Dictionary *d, uint64_t key)
{
    return (uint32_t)folded_product(key ^ PRIME64_2, PRIME64_1) & (d->slot_count - 1);
}

static int grow(Dictionary *d)
{
    Dictionary grown = *d;
    grown.slot_count = d->slot_count ? d->slot_count * 2 : FIRST_SLOTS;
    grown.slots = calloc(grown.slot_count, sizeof *grown.slots);
    int32_t *bounds = realloc(d->bounds, (grown.slot_count / 2 + 1) * sizeof *bounds);
    if (bounds)
        d->bounds = grown.bounds = bounds;
    if (!grown.slots || !bounds) {
        free(grown.slots);
        return 0;
    }
    bounds[0] = 0;
    for (uint32_t from = 0; from < d->slot_count; from++) {
        uint32_t to = home_of(&grown, d->slots[from].key);
        while (d->slots[from].entry && grown.slots[to].entry)
            to = (to + 1) & (grown.slot_count - 1);
        if (d->slots[from].entry)
            grown.slots[to] = d->slots[from];
    }
    free(d->slots);
    *d = grown;
    return 1;
}

static int append(Dictionary *d, const uint8_t *text, size_t length)
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
    d->bounds[++d->count] = (int32_t)(used + length);
    return 1;
}

/* Which of the distinct texts this is, a new one if need be; -1 if memory is short. */
static int32_t code_of(Dictionary *d, const uint8_t *text, size_t length, uint64_t key)
{
    if (d->count >= d->slot_count / 2 && !grow(d))
        return -1;
    uint32_t place = home_of(d, key);
    for (; d->slots[place].entry; place = (place + 1) & (d->slot_count - 1)) {
        const Slot slot = d->slots[place];
        if (slot.key == key && slot.length == length
            && (length <= SHORT || !memcmp(d->text + d->bounds[slot.entry - 1], text, length)))
            return (int32_t)slot.entry - 1;
    }
    if (!append(d, text, length))
        return -1;
    d->slots[place] = (Slot){key, (uint32_t)length, d->count};
    return (int32_t)d->count - 1;
}

/* Where the cells of some lines begin, and behind each line one more: a cell ends one byte before the
   next place. Places are counted from the text's begin, because the last one may lie beyond its end. */
static int find_cells(Piece *p, Py_ssize_t lines, uint32_t *cells)
{
    for (Py_ssize_t line = 0; line < lines; line++) {
        const uint8_t *begin = p->text + p->at, *at = begin, *end = begin;
        if (begin == p->end)
            return 0;
        for (Py_ssize_t column = 0; column < p->columns; column++) {
            end = next_mark(p);
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

/* Slots are asked for ahead: waiting for memory was half of the time. */
static enum Outcome read_texts(Piece *p, Py_ssize_t lines, const uint32_t *cells, int32_t *code,
                               uint8_t *valid, Dictionary *texts)
{
    const Py_ssize_t step = p->columns + 1;
    uint64_t keys[LINES];
    for (Py_ssize_t line = 0; line < lines; line++) {
        const uint32_t *cell = cells + line * step;
        keys[line] = key_of(p->text + cell[0], cell[1] - 1 - cell[0], p->end);
        if (texts->slots)
            __builtin_prefetch(&texts->slots[home_of(texts, keys[line])]);
    }
    for (Py_ssize_t line = 0; line < lines; line++) {
        const uint32_t *cell = cells + line * step, length = cell[1] - 1 - cell[0];
        code[line] = -1;
        if (length && (code[line] = code_of(texts, p->text + cell[0], length, keys[line])) < 0)
            return NO_MEMORY;
        valid[line / 8] |= (uint8_t)((length > 0) << line % 8);
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
    p->block = p->text;
    p->marks = marks_of(p->block, p->end, p->separator);
    uint32_t *cells = malloc((size_t)(p->columns + 1) * LINES * sizeof *cells);
    enum Outcome outcome = cells ? READ : NO_MEMORY;
    for (Py_ssize_t row = 0; row < p->rows && outcome == READ; row += LINES)
        outcome = read_lines(p, row, p->rows - row < LINES ? p->rows - row : LINES, cells);
    free(cells);
    return outcome == READ && p->text + p->at < p->end ? NOT_PLAIN : outcome;
}
