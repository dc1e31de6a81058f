/*
 * No-Vary-Search (draft-ietf-httpbis-no-vary-search): which queries a response says are one.
 *
 * Model    the field becomes a rule, a text of one form: 'o' where the order of parameters does not
 *          count or '.'; 'a' where all parameters but those listed are left out or 'l' where those
 *          listed are; and each name behind a '&', sorted, once. A query becomes, by a rule, the
 *          one text of all queries that the rule calls equal: parsed as
 *          application/x-www-form-urlencoded (URL Standard 5.1), parameters left out, sorted
 *          by name where order does not count (stably: the order of values of one name counts),
 *          written again with the escapes of the serialiser. Names in rules are written so too, so
 *          that bytes are compared.
 *          What is not valid makes the field as if it were not there: that costs hits and nothing
 *          else. Members that are not known are left out (RFC 9651 3.2; the draft's section 3).
 * Boolean  `params` as a boolean, with `except` or without, is what the drafts up to 03 had and
 *          browsers still document; it says what `except` says alone.
 * Threads  pure functions.
 */
#include "http/scan.h"
#include "http/sf.h"

#include <stdlib.h>

#define RULE_MAX 2048                   /* bytes; longer ones are as if they were not there */

/* ---- application/x-www-form-urlencoded ------------------------------------------------------ */

static const char replacement[] = "\xef\xbf\xbd";       /* U+FFFD, for what is no UTF-8 */

static void
put_escaped(struct buf *b, const char *s, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];

        if (is_lower(to_lower(s[i])) || is_digit(s[i]) || c == '*' || c == '-' || c == '.' ||
            c == '_') {
            buf_addc(b, s[i]);
        } else if (c == ' ') {
            buf_addc(b, '+');
        } else {
            buf_addc(b, '%');
            buf_addc(b, digits[c >> 4]);
            buf_addc(b, digits[c & 15]);
        }
    }
}

struct decoding { struct buf *out; struct utf8 u; char sequence[4]; size_t n; };

/* The UTF-8 decoder of the Encoding Standard (8.1.1): what breaks a sequence may begin the next. */
static void
take_byte(struct decoding *d, unsigned char c)
{
    bool within = d->u.need > 0;

    if (utf8_takes(&d->u, c)) {
        d->sequence[d->n++] = (char)c;
        if (d->u.need > 0)
            return;
        put_escaped(d->out, d->sequence, d->n);
        d->n = 0;
        return;
    }
    d->u = (struct utf8){ 0 };
    d->n = 0;
    put_escaped(d->out, replacement, 3);
    if (within)
        take_byte(d, c);
}

/* A name or value as it stands in a query, in one form. */
static void
put_decoded(struct buf *b, struct slice s)
{
    struct decoding d = { .out = b };

    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '%' && is_escape(s.p + i, s.p + s.n)) {
            take_byte(&d, (unsigned char)(hex_value(s.p[i + 1]) << 4 | hex_value(s.p[i + 2])));
            i += 2;
        } else {
            take_byte(&d, s.p[i] == '+' ? ' ' : (unsigned char)s.p[i]);
        }
    }
    if (d.u.need > 0)
        put_escaped(b, replacement, 3);
}

/* ---- parameters by name --------------------------------------------------------------------- */

struct param { size_t at, name_n, n; }; /* in the text: the name, and all of it with its value */
struct params { struct buf text; struct param *at; size_t n; };     /* owned */

static int
by_name(const void *va, const void *vb, void *text)
{
    const struct param *a = va, *b = vb;
    int c = memcmp((const char *)text + a->at, (const char *)text + b->at,
        a->name_n < b->name_n ? a->name_n : b->name_n);

    if (c != 0)
        return c;
    if (a->name_n != b->name_n)
        return a->name_n < b->name_n ? -1 : 1;
    return a->at < b->at ? -1 : a->at > b->at;      /* as they came */
}

static void
params_sort(struct params *p)
{
    if (p->n > 1)
        qsort_r(p->at, p->n, sizeof *p->at, by_name, p->text.p);
}

static int
params_room(struct params *p, size_t n)
{
    p->at = calloc(n + 1, sizeof *p->at);
    return p->at != NULL && buf_reserve(&p->text, 1) != NULL ? 0 : -1;
}

static void
params_free(struct params *p)
{
    free(p->at);
    buf_free(&p->text);
}

static struct slice
param_name(const struct params *p, size_t i)
{
    return (struct slice){ p->text.p + p->at[i].at, p->at[i].name_n };
}

/* ---- the rule ------------------------------------------------------------------------------- */

struct members { struct sf_item order, params, except; bool has_order, has_params, has_except; };

/* false: not valid. */
static bool
read_members(const struct http_head *h, struct members *m)
{
    struct sf_item item;
    struct slice key;

    *m = (struct members){ 0 };
    for (unsigned i = 0; i < h->nfields; i++) {
        struct slice rest = h->fields[i].value;

        if (h->fields[i].id != HF_NO_VARY_SEARCH)
            continue;
        if (sf_check(SF_DICTIONARY, rest) == -1)
            return false;
        while (sf_dictionary(&rest, &key, &item, NULL)) {
            struct sf_item *to = NULL;

            if (slice_eq(key, SLICE("key-order")))
                to = &m->order, m->has_order = true;
            else if (slice_eq(key, SLICE("params")))
                to = &m->params, m->has_params = true;
            else if (slice_eq(key, SLICE("except")))
                to = &m->except, m->has_except = true;
            if (to != NULL)
                *to = item;
        }
    }
    return true;
}

static bool
is_true(bool has, const struct sf_item *item)
{
    return has && item->type == SF_BOOLEAN && item->integer != 0;
}

/* Appends the names of an inner list of strings. 0; 1: it is none; -1: memory is out. */
static int
put_names(const struct sf_item *list, struct buf *rule)
{
    struct params names = { 0 };
    struct buf scratch = { 0 };
    struct slice rest = list->text;
    struct sf_item item;
    int rc = list->type == SF_INNER ? params_room(&names, list->text.n) : 1;

    while (rc == 0 && sf_inner(&rest, &item, &scratch)) {
        size_t at = names.text.n;

        if (item.type != SF_STRING) {
            rc = 1;
            break;
        }
        put_decoded(&names.text, item.text);
        names.at[names.n++] = (struct param){ at, names.text.n - at, names.text.n - at };
        scratch.n = 0;
        if (scratch.failed || names.text.failed)
            rc = -1;
    }
    if (rc == 0)
        params_sort(&names);
    for (size_t i = 0; i < names.n && rc == 0; i++) {
        if (i > 0 && slice_eq(param_name(&names, i), param_name(&names, i - 1)))
            continue;
        buf_addc(rule, '&');
        buf_adds(rule, param_name(&names, i));
    }
    params_free(&names);
    buf_free(&scratch);
    return rc;
}

int
http_search_rule(const struct http_head *h, struct buf *rule)
{
    size_t from = rule->n;
    struct members m;
    bool order, all;
    int rc = 0;

    if (!http_has(h, HF_NO_VARY_SEARCH) || !read_members(h, &m) ||
        (m.has_order && m.order.type != SF_BOOLEAN))
        return 0;
    order = is_true(m.has_order, &m.order);
    all = is_true(m.has_params, &m.params) || (m.has_except && !m.has_params);
    if (m.has_except && !all)
        return 0;
    buf_addc(rule, order ? 'o' : '.');
    buf_addc(rule, all ? 'a' : 'l');
    if (all && m.has_except)
        rc = put_names(&m.except, rule);
    else if (m.has_params && m.params.type != SF_BOOLEAN)
        rc = put_names(&m.params, rule);
    if (rc == -1 || rule->failed)
        return -1;
    if (rc == 0 && rule->n - from <= RULE_MAX &&
        !slice_eq((struct slice){ rule->p + from, rule->n - from }, SLICE(".l")))
        return 1;
    rule->n = from;                     /* not valid, or what holds without it */
    return 0;
}

/* ---- the query ------------------------------------------------------------------------------ */

/* In the order in which by_name sorted them. */
static int
compare(struct slice a, struct slice b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

/* By halves of the text: the names are sorted, each behind a '&'. */
static bool
rule_lists(struct slice rule, struct slice name)
{
    const char *low = rule.p + 2, *high = rule.p + rule.n;     /* both at a '&', or the end */

    while (low < high) {
        const char *at = memrchr(low, '&', (size_t)(high - low) / 2 + 1), *end;
        int c;

        end = memchr(at + 1, '&', (size_t)(high - at) - 1);
        if (end == NULL)
            end = high;
        c = compare(name, (struct slice){ at + 1, (size_t)(end - at) - 1 });
        if (c == 0)
            return true;
        if (c < 0)
            high = at;
        else
            low = end;
    }
    return false;
}

static void
take_param(struct params *p, struct slice rule, struct slice raw)
{
    const char *is = memchr(raw.p, '=', raw.n);
    size_t at = p->text.n, name_n = is != NULL ? (size_t)(is - raw.p) : raw.n;
    struct param *one = &p->at[p->n];

    put_decoded(&p->text, (struct slice){ raw.p, name_n });
    *one = (struct param){ .at = at, .name_n = p->text.n - at };
    if (p->text.failed)
        return;
    if (rule_lists(rule, param_name(p, p->n)) != (rule.p[1] == 'a')) {
        p->text.n = at;
        return;
    }
    buf_addc(&p->text, '=');
    if (is != NULL)
        put_decoded(&p->text, (struct slice){ is + 1, raw.n - name_n - 1 });
    one->n = p->text.n - at;
    p->n++;
}

int
http_search_query(struct slice rule, struct slice query, struct buf *b)
{
    struct slice rest = query, raw;
    struct params p = { 0 };
    size_t n = 0;

    assert(rule.n >= 2);
    for (size_t i = 0; i < query.n; i++)
        n += query.p[i] == '&';
    if (params_room(&p, n + 1) == -1) {
        params_free(&p);
        return -1;
    }
    while (slice_cut(&rest, '&', &raw) && !p.text.failed)
        if (raw.n > 0)
            take_param(&p, rule, raw);
    b->failed |= p.text.failed;
    if (rule.p[0] == 'o' && !b->failed)
        params_sort(&p);
    for (size_t i = 0; i < p.n && !b->failed; i++) {
        if (i > 0)
            buf_addc(b, '&');
        buf_add(b, p.text.p + p.at[i].at, p.at[i].n);
    }
    params_free(&p);
    return b->failed ? -1 : 0;
}
