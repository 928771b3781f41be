/* A scanner of JSON (RFC 8259) that takes no escapes. Every function returns 0 where the text is not
   JSON, or is beyond what the scanner is sure of; where it stands then says nothing. */

#include <math.h>

#define EXACT_DIGITS 15 /* 10^15 < 2^53: mantissas that a double holds exactly */
#define EXACT_POWER 22  /* 10^22 is the largest exact power of ten in a double */
#define LONGEST_NUMBER 63

typedef struct {
    const char *at, *end;
    int failed_in_python;
} Input;

static char peek(Input *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\n' || *in->at == '\t' ||
                                *in->at == '\r'))
        in->at++;
    return in->at < in->end ? *in->at : '\0';
}

static int take(Input *in, char wanted)
{
    if (peek(in) != wanted || in->at == in->end)
        return 0;
    in->at++;
    return 1;
}

/* After an element: 1 for one more, 2 for the end of the container. */
static int next_or_end(Input *in, char closing)
{
    if (take(in, ','))
        return 1;
    return take(in, closing) ? 2 : 0;
}

static int take_word(Input *in, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(in->end - in->at) < length || memcmp(in->at, word, length) != 0)
        return 0;
    in->at += length;
    return 1;
}

/* A string without escapes; the opening quote is still ahead. */
static int take_string(Input *in, const char **text, Py_ssize_t *length)
{
    if (!take(in, '"'))
        return 0;
    const char *start = in->at;
    for (; in->at < in->end; in->at++) {
        unsigned char c = (unsigned char)*in->at;
        if (c == '"') {
            *text = start;
            *length = in->at++ - start;
            return 1;
        }
        if (c == '\\' || c < 0x20)
            return 0;
    }
    return 0;
}

typedef struct {
    const char *text;
    Py_ssize_t length;
    int is_integer; /* of at most EXACT_DIGITS digits, not -0 */
    double value;
} Number;

static const double POWERS[EXACT_POWER + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                               1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                               1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static int is_digit(const Input *in) { return in->at < in->end && *in->at >= '0' && *in->at <= '9'; }

/* Reads digits into a mantissa as long as it stays exact; counts all of them. */
static int take_digits(Input *in, uint64_t *mantissa, int *digits)
{
    const char *start = in->at;
    for (; is_digit(in); in->at++) {
        if (*mantissa || *in->at != '0')
            ++*digits;
        if (*digits <= EXACT_DIGITS)
            *mantissa = *mantissa * 10 + (uint64_t)(*in->at - '0');
    }
    return in->at > start;
}

static int take_number(Input *in, Number *number)
{
    uint64_t mantissa = 0;
    int digits = 0, exponent = 0, is_integer = 1;
    const char *start = in->at;
    int negative = *in->at == '-';
    in->at += negative;
    const char *whole = in->at;
    if (!take_digits(in, &mantissa, &digits) || (*whole == '0' && in->at - whole > 1))
        return 0;
    if (in->at < in->end && *in->at == '.') {
        const char *point = ++in->at;
        if (!take_digits(in, &mantissa, &digits) || in->at - start > LONGEST_NUMBER)
            return 0;
        exponent = -(int)(in->at - point);
        is_integer = 0;
    }
    if (in->at < in->end && (*in->at == 'e' || *in->at == 'E')) {
        uint64_t power = 0;
        int power_digits = 0;
        in->at++;
        int shrinks = in->at < in->end && *in->at == '-';
        in->at += in->at < in->end && (*in->at == '-' || *in->at == '+');
        if (!take_digits(in, &power, &power_digits))
            return 0;
        int bounded = power < 10000 && power_digits < 5 ? (int)power : 10000;
        exponent += shrinks ? -bounded : bounded;
        is_integer = 0;
    }
    number->text = start;
    number->length = in->at - start;
    number->is_integer = is_integer && digits <= EXACT_DIGITS && !(negative && mantissa == 0);
    if (digits <= EXACT_DIGITS && exponent >= -EXACT_POWER && exponent <= EXACT_POWER) {
        double value = (double)mantissa;
        value = exponent < 0 ? value / POWERS[-exponent] : value * POWERS[exponent];
        number->value = negative ? -value : value;
        return 1;
    }
    char copy[LONGEST_NUMBER + 1];
    if (number->length > LONGEST_NUMBER)
        return 0;
    memcpy(copy, start, (size_t)number->length);
    copy[number->length] = '\0';
    number->value = PyOS_string_to_double(copy, NULL, NULL);
    if (number->value == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return isfinite(number->value);
}

static int starts_number(char c) { return c == '-' || (c >= '0' && c <= '9'); }

/* `deepest`: how many lists and objects may be open inside each other. */
static int skip_value(Input *in, Py_ssize_t deepest)
{
    const char *text;
    Py_ssize_t length;
    Number number;
    char c = peek(in);
    if (c == '"')
        return take_string(in, &text, &length);
    if (starts_number(c))
        return take_number(in, &number);
    if (c == 't')
        return take_word(in, "true");
    if (c == 'f')
        return take_word(in, "false");
    if (c == 'n')
        return take_word(in, "null");
    if ((c != '[' && c != '{') || deepest <= 0)
        return 0;
    char closing = c == '[' ? ']' : '}';
    in->at++;
    if (take(in, closing))
        return 1;
    for (int state = 1; state != 2;) {
        if (c == '{' && !(take_string(in, &text, &length) && take(in, ':')))
            return 0;
        if (!skip_value(in, deepest - 1) || !(state = next_or_end(in, closing)))
            return 0;
    }
    return 1;
}
