/*
 * Validators: comparing them, answering conditions from the cache, and what a 304 freshens
 * (RFC 9110 8.8, 13; RFC 9111 3.2, 4.3).
 *
 * Threads  pure functions.
 */
#include "semantics/semantics.h"
#include "semantics/priv.h"

/* ---- entity tags (RFC 9110 8.8.3) ---------------------------------------------------------- */

/* The length of the entity-tag at the front of s, 0 when there is none. A backslash is an ordinary
 * character in it, and so is a comma. */
static size_t
etag_length(struct slice s)
{
    size_t i = s.n >= 2 && s.p[0] == 'W' && s.p[1] == '/' ? 2 : 0;

    if (i >= s.n || s.p[i] != '"')
        return 0;
    for (i++; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '"')
            return i + 1;
        if (c <= 0x20 || c == 0x7f)
            return 0;
    }
    return 0;
}

static struct slice
opaque_tag(struct slice etag)
{
    return etag.p[0] == 'W' ? (struct slice){ etag.p + 2, etag.n - 2 } : etag;
}

bool
sem_etag_valid(struct slice a)
{
    return a.n > 0 && etag_length(a) == a.n;
}

bool
sem_etag_weak_equal(struct slice a, struct slice b)
{
    return sem_etag_valid(a) && sem_etag_valid(b) && slice_eq(opaque_tag(a), opaque_tag(b));
}

bool
sem_etag_strong_equal(struct slice a, struct slice b)
{
    return sem_etag_valid(a) && a.p[0] != 'W' && slice_eq(a, b);
}

/* Is etag in one value of If-None-Match, or of If-Match? What is malformed ends the reading. */
static bool
etag_in(struct slice value, struct slice etag, bool strong)
{
    while (value.n > 0) {
        size_t n;
        struct slice one;

        if (value.p[0] == ' ' || value.p[0] == '\t' || value.p[0] == ',') {
            value.p++;
            value.n--;
            continue;
        }
        n = etag_length(value);
        if (n == 0)
            return false;
        one = (struct slice){ value.p, n };
        if (strong ? sem_etag_strong_equal(one, etag) : sem_etag_weak_equal(one, etag))
            return true;
        value.p += n;
        value.n -= n;
    }
    return false;
}

/* Over all lines; "*" is any representation there is. If-Match compares strongly, If-None-Match
 * weakly (RFC 9110 13.1.1, 13.1.2). */
static bool
tags_match(const struct http_head *request, enum http_id id, struct slice etag)
{
    for (unsigned i = 0; i < request->nfields; i++) {
        const struct http_field *f = &request->fields[i];

        if (f->id == id && (slice_eq(f->value, SLICE("*")) ||
            etag_in(f->value, etag, id == HF_IF_MATCH)))
            return true;
    }
    return false;
}

bool
sem_matches(const struct http_head *request, struct slice etag)
{
    bool is = etag.p != NULL;

    if (http_has(request, HF_IF_MATCH) && !(is && tags_match(request, HF_IF_MATCH, etag)))
        return false;
    return !(is && http_has(request, HF_IF_NONE_MATCH) &&
        tags_match(request, HF_IF_NONE_MATCH, etag));
}

/* ---- conditional requests (RFC 9110 13.2.2, RFC 9111 4.3.2) --------------------------------- */

/* When the stored response was modified, or made where that is not said (RFC 9111 4.3.2). */
static int64_t
modified(int64_t last_modified_s, int64_t date_s)
{
    return last_modified_s != HTTP_NO_DATE ? last_modified_s : date_s;
}

/* Of If-Modified-Since, which is ignored when it comes twice (RFC 9110 13.1.3). */
static int64_t
condition_date(const struct http_head *request, int64_t now_s)
{
    const struct http_field *first = http_find(request, HF_IF_MODIFIED_SINCE);

    for (const struct http_field *f = first + 1; f < request->fields + request->nfields; f++)
        if (f->id == HF_IF_MODIFIED_SINCE)
            return HTTP_NO_DATE;
    return http_date(first->value, now_s);
}

bool
sem_not_modified(const struct http_head *request, struct slice etag, int64_t last_modified_s,
    int64_t date_s, int64_t now_s)
{
    int64_t since;

    if (http_has(request, HF_IF_NONE_MATCH))                    /* step 3 */
        return tags_match(request, HF_IF_NONE_MATCH, etag);
    if (!http_has(request, HF_IF_MODIFIED_SINCE))               /* step 4 */
        return false;
    since = condition_date(request, now_s);
    return since != HTTP_NO_DATE && modified(last_modified_s, date_s) <= since;
}

bool
sem_strong_date(const struct sem_validator *v)
{
    return v->last_modified_s != HTTP_NO_DATE && v->last_modified_s < v->date_s;
}

bool
sem_same_strong(const struct sem_validator *a, const struct sem_validator *b)
{
    if (a->etag.n > 0 || b->etag.n > 0)
        return sem_etag_strong_equal(a->etag, b->etag);
    return sem_strong_date(a) && sem_strong_date(b) && a->last_modified_s == b->last_modified_s;
}

/* Only a strong validator may join parts (13.1.5). A date is one when the response was made at
 * least a second after the change (8.8.2.2), and only the very same date matches. */
bool
sem_if_range(const struct http_head *request, struct slice etag, int64_t last_modified_s,
    int64_t date_s, int64_t now_s)
{
    const struct http_field *f = http_find(request, HF_IF_RANGE);

    if (f == NULL)
        return true;
    for (const struct http_field *g = f + 1; g < request->fields + request->nfields; g++)
        if (g->id == HF_IF_RANGE)
            return false;
    if (etag_length(f->value) > 0)
        return sem_etag_strong_equal(f->value, etag);
    return last_modified_s != HTTP_NO_DATE && last_modified_s < date_s &&
        http_date(f->value, now_s) == last_modified_s;
}

/* ---- a 304 from the origin (RFC 9111 4.3.4) ------------------------------------------------- */

/* A strong entity tag selects what has the same; otherwise a weak validator does: the tag by weak
 * comparison, or the date. A 304 with none belongs to what we asked about, which was one stored
 * response. */
bool
sem_304_selects(const struct http_head *stored, const struct http_head *r304)
{
    struct slice mine = http_value(stored, HF_ETAG), theirs = http_value(r304, HF_ETAG);
    struct slice date = http_value(r304, HF_LAST_MODIFIED);

    if (sem_etag_valid(theirs))
        return theirs.p[0] == 'W' ? sem_etag_weak_equal(mine, theirs) :
            sem_etag_strong_equal(mine, theirs);
    if (date.p == NULL)
        return true;
    return slice_eq(date, http_value(stored, HF_LAST_MODIFIED));
}

/* ---- a 200 to a HEAD (RFC 9111 4.3.5) ------------------------------------------------------- */

bool
sem_head_agrees(const struct http_head *stored, uint64_t body, const struct http_head *head,
    int64_t length)
{
    static const enum http_id validators[] = { HF_ETAG, HF_LAST_MODIFIED };

    for (size_t i = 0; i < NELEM(validators); i++)
        if (http_has(head, validators[i]) &&
            !slice_eq(http_value(head, validators[i]), http_value(stored, validators[i])))
            return false;
    return length < 0 || (uint64_t)length == body;
}
