/*
 * Reading Cache-Control and its targeted kin, and what of a request bears on caching.
 *
 * Model    directives over all lines of the field are members of one list (RFC 9111 5.2). Where the
 *          origin contradicts itself, or says what cannot be read, the reading that reuses least
 *          holds: RFC 9111 4.2.1 lets us take the first of several values or call the response
 *          stale; the smallest value is never fresher than either the first or any other.
 *          A targeted field is a dictionary of structured fields (RFC 9213 2.1): what is not valid
 *          is ignored whole, a value of another type than its directive's as if it were not there.
 * Threads  pure functions.
 * Not here what the directives then mean (store.c, use.c).
 */
#include "semantics/semantics.h"
#include "semantics/priv.h"

#define DELTA_MAX ((int64_t)1 << 31)    /* RFC 9111 1.2.2 */

int64_t
sem_delta_seconds(struct slice s)
{
    uint64_t v;

    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
    if (s.n == 0)
        return -1;
    return slice_u64(s, &v) && v < (uint64_t)DELTA_MAX ? (int64_t)v : DELTA_MAX;
}

/* ---- one directive ------------------------------------------------------------------------- */

struct directive {
    struct slice name, value;           /* value: of a quoted string, what is between the quotes */
    bool         has_value;
    bool         malformed;             /* white space around '=', or a quote that does not end */
};

static struct directive
directive_split(struct slice member)
{
    struct directive d = { .name = member };
    const char *eq = memchr(member.p, '=', member.n);

    if (eq == NULL)
        return d;
    d.has_value = true;
    d.name.n = (size_t)(eq - member.p);
    d.value = (struct slice){ eq + 1, member.n - d.name.n - 1 };
    if (slice_trim(d.name).n != d.name.n || slice_trim(d.value).n != d.value.n) {
        d.malformed = true;
        d.name = slice_trim(d.name);
        d.value = slice_trim(d.value);
    }
    if (d.value.n > 0 && d.value.p[0] == '"') {
        if (d.value.n < 2 || d.value.p[d.value.n - 1] != '"')
            d.malformed = true;
        d.value.p++;
        d.value.n -= d.value.n < 2 ? 1 : 2;
    }
    return d;
}

/* Seconds of an argument in either form (5.2); invalid: 0, stale at once. */
static int64_t
seconds(const struct directive *d)
{
    int64_t v = d->malformed ? -1 : sem_delta_seconds(d->value);

    return v < 0 ? 0 : v;
}

static void
keep_smaller(int64_t *old, const struct directive *d)
{
    int64_t v = seconds(d);

    if (*old < 0 || v < *old)
        *old = v;
}

enum argument {
    NONE,                   /* takes none; one that is there is ignored (5.2) */
    NONE_GIVES,             /* the same, but it permits: with an argument it is another directive */
    SMALLER, LARGER,        /* seconds; of several the smaller, the larger */
    MAX_STALE,              /* seconds, or none for any */
    FIELDS,                 /* none, or a list of field names */
};

static const struct known {
    struct slice  name;
    enum argument argument;
    uint32_t      flag;
    size_t        offset;               /* of the seconds in struct sem_cc */
} known[] = {
#define D(name, argument, flag) { { name, sizeof name - 1 }, argument, flag, 0 }
#define S(name, argument, member) \
    { { name, sizeof name - 1 }, argument, 0, offsetof(struct sem_cc, member) }
    S("max-age", SMALLER, max_age),                         /* 5.2.1.1, 5.2.2.1 */
    S("s-maxage", SMALLER, s_maxage),                       /* 5.2.2.10 */
    D("no-cache", FIELDS, CC_NO_CACHE),                     /* 5.2.1.4, 5.2.2.4 */
    D("no-store", NONE, CC_NO_STORE),                       /* 5.2.1.5, 5.2.2.5 */
    D("private", FIELDS, CC_PRIVATE),                       /* 5.2.2.7 */
    D("public", NONE_GIVES, CC_PUBLIC),                     /* 5.2.2.9 */
    D("must-revalidate", NONE, CC_MUST_REVALIDATE),         /* 5.2.2.2 */
    D("proxy-revalidate", NONE, CC_PROXY_REVALIDATE),       /* 5.2.2.8 */
    D("must-understand", NONE_GIVES, CC_MUST_UNDERSTAND),   /* 5.2.2.3 */
    D("no-transform", NONE, CC_NO_TRANSFORM),               /* 5.2.1.6, 5.2.2.6 */
    D("immutable", NONE_GIVES, CC_IMMUTABLE),               /* RFC 8246 2 */
    D("only-if-cached", NONE, CC_ONLY_IF_CACHED),           /* 5.2.1.7 */
    S("max-stale", MAX_STALE, max_stale),                   /* 5.2.1.2 */
    S("min-fresh", LARGER, min_fresh),                      /* 5.2.1.3 */
    S("stale-while-revalidate", SMALLER, swr),              /* RFC 5861 3 */
    S("stale-if-error", SMALLER, sie),                      /* RFC 5861 4 */
#undef D
#undef S
};

/* Are all members names of fields, and is there one? */
static bool
names_fields(struct slice list)
{
    struct slice part;
    bool any = false;

    while (slice_cut(&list, ',', &part)) {
        part = slice_trim(part);
        if (part.n > 0 && !http_is_token(part))
            return false;
        any = any || part.n > 0;
    }
    return any;
}

/* no-cache and private: with a list they are about those fields alone. A list that is empty or
 * cannot be read makes them what they are without one. */
static void
apply_fields(struct sem_cc *cc, const struct directive *d, uint32_t flag)
{
    if (!d->has_value || d->malformed || !names_fields(d->value)) {
        cc->flags |= flag;
        return;
    }
    cc->flags |= flag == CC_NO_CACHE ? CC_NO_CACHE_FIELDS : CC_PRIVATE_FIELDS;
}

static void
apply(struct sem_cc *cc, const struct directive *d, const struct known *k)
{
    int64_t *to = (int64_t *)(void *)((char *)cc + k->offset), v;

    switch (k->argument) {
    case NONE:
        cc->flags |= k->flag;
        break;
    case NONE_GIVES:
        if (!d->has_value)
            cc->flags |= k->flag;
        break;
    case SMALLER:
        keep_smaller(to, d);
        break;
    case LARGER:
        v = seconds(d);
        *to = v > *to ? v : *to;
        break;
    case MAX_STALE:
        if (d->has_value)
            keep_smaller(to, d);
        else
            cc->flags |= CC_MAX_STALE_ANY;
        break;
    case FIELDS:
        apply_fields(cc, d, k->flag);
        break;
    }
}

static void
read_member(struct sem_cc *cc, struct slice member)
{
    struct directive d = directive_split(member);

    for (size_t i = 0; i < NELEM(known); i++) {
        if (slice_ieq(d.name, known[i].name)) {
            apply(cc, &d, &known[i]);
            return;
        }
    }
}

/* A quoted string that does not end hides what is behind it: nobody knows whether that was meant.
 * What forbids is taken from there, what permits is not. must-revalidate does both (3.5): it
 * forbids what proxy-revalidate does. */
static void
read_unended(struct sem_cc *cc, struct slice member)
{
    const char *quote = memchr(member.p, '"', member.n);
    struct slice rest = { quote + 1, (size_t)(member.p + member.n - quote - 1) }, part;
    const uint32_t permits = CC_PUBLIC | CC_MUST_UNDERSTAND | CC_IMMUTABLE |
        CC_MAX_STALE_ANY;
    uint32_t had = cc->flags;

    while (slice_cut(&rest, ',', &part)) {
        struct slice word = slice_trim(part);

        if (word.n > 0 && memchr(word.p, '=', word.n) == NULL)
            read_member(cc, word);
    }
    if (cc->flags & ~had & CC_MUST_REVALIDATE)
        cc->flags = (cc->flags & ~(uint32_t)CC_MUST_REVALIDATE) | CC_PROXY_REVALIDATE;
    cc->flags = (cc->flags & ~permits) | (had & permits);
}

bool
sem_unended(struct slice s)
{
    bool inside = false;

    for (size_t i = 0; i < s.n; i++) {
        if (inside && s.p[i] == '\\')
            i++;
        else if (s.p[i] == '"')
            inside = !inside;
    }
    return inside;
}

static const struct sem_cc nothing_said = { .max_age = -1, .s_maxage = -1, .max_stale = -1,
    .min_fresh = -1, .swr = -1, .sie = -1 };

void
sem_cc_read(const struct http_head *h, struct sem_cc *cc)
{
    struct http_list it = { 0 };
    struct slice member;

    *cc = nothing_said;
    while (http_list_next(h, HF_CACHE_CONTROL, &it, &member)) {
        read_member(cc, member);
        if (UNLIKELY(memchr(member.p, '"', member.n) != NULL && sem_unended(member)))
            read_unended(cc, member);
    }
}

static bool
list_names(struct slice list, struct slice name)
{
    struct slice part;

    while (slice_cut(&list, ',', &part))
        if (slice_ieq(slice_trim(part), name))
            return true;
    return false;
}

bool
sem_cc_names(const struct http_head *h, const struct sem_cc *cc, struct slice name)
{
    struct http_list it = { 0 };
    struct slice member;

    if (cc->targeted)
        return list_names(cc->listed[0], name) || list_names(cc->listed[1], name);
    while (http_list_next(h, HF_CACHE_CONTROL, &it, &member)) {
        struct directive d = directive_split(member);

        if (d.has_value && (slice_ieq(d.name, SLICE("no-cache")) ||
            slice_ieq(d.name, SLICE("private"))) && list_names(d.value, name))
            return true;
    }
    return false;
}

/* ---- targeted fields (RFC 9213) ------------------------------------------------------------ */

/* no-cache and private: true, or a string that lists fields. One that lists none, or cannot be
 * read, is what it is without. */
static void
apply_listed(struct sem_cc *cc, uint32_t flag, const struct sf_item *v)
{
    uint32_t listing = flag == CC_NO_CACHE ? CC_NO_CACHE_FIELDS : CC_PRIVATE_FIELDS;
    struct slice *list = &cc->listed[flag == CC_PRIVATE];

    cc->flags &= ~(flag | listing);
    *list = (struct slice){ NULL, 0 };
    if (v->type == SF_STRING && names_fields(v->text)) {
        cc->flags |= listing;
        *list = v->text;
    } else if (v->type == SF_STRING || (v->type == SF_BOOLEAN && v->integer)) {
        cc->flags |= flag;
    }
}

/* Of a key that comes twice the last counts (RFC 9651 4.2.2). */
static void
apply_member(struct sem_cc *cc, const struct known *k, const struct sf_item *v)
{
    int64_t *seconds = (int64_t *)(void *)((char *)cc + k->offset);

    switch (k->argument) {
    case NONE:
    case NONE_GIVES:
        cc->flags &= ~k->flag;
        if (v->type == SF_BOOLEAN && v->integer)
            cc->flags |= k->flag;
        break;
    case SMALLER:
        if (v->type != SF_INTEGER)
            *seconds = -1;
        else
            *seconds = v->integer < 0 ? 0 : v->integer < DELTA_MAX ? v->integer : DELTA_MAX;
        break;
    case FIELDS:
        apply_listed(cc, k->flag, v);
        break;
    case LARGER:
    case MAX_STALE:
        break;                          /* a request's */
    }
}

/* All lines of one field. false: none, or one of them is no dictionary or empty. */
static bool
read_targeted(const struct http_head *h, struct slice name, struct sem_cc *cc)
{
    enum http_id id = http_id(name);

    *cc = nothing_said;
    for (unsigned i = 0; i < h->nfields; i++) {
        struct slice rest = h->fields[i].value, key;
        struct sf_item v;

        if (h->fields[i].id != id || (id == HF_NONE && !slice_ieq(h->fields[i].name, name)))
            continue;
        if (slice_trim(rest).n == 0 || sf_check(SF_DICTIONARY, rest) == -1)
            return false;
        cc->targeted = true;
        while (sf_dictionary(&rest, &key, &v, NULL))
            for (size_t k = 0; k < NELEM(known); k++)
                if (slice_eq(key, known[k].name))
                    apply_member(cc, &known[k], &v);
    }
    return cc->targeted;
}

static void
read_response(const struct http_head *h, const struct sem_rules *rules, struct sem_cc *cc)
{
    for (size_t i = 0; i < rules->targets.n; i++)
        if (read_targeted(h, rules->targets.names[i], cc))
            return;
    sem_cc_read(h, cc);
}

void
sem_cc_response(const struct http_head *h, const struct sem_rules *rules, struct sem_cc *cc)
{
    read_response(h, rules, cc);
    cc->replay = &rules->replay;
}

/* ---- the request --------------------------------------------------------------------------- */

void
sem_request_read(const struct http_head *h, struct sem_request *r)
{
    r->method = h->method;
    r->content = h->method == HTTP_QUERY;
    r->promised = false;
    sem_cc_read(h, &r->cc);
    if (http_has(h, HF_PRAGMA) && !http_has(h, HF_CACHE_CONTROL) &&
        http_list_has(h, HF_PRAGMA, SLICE("no-cache")))
        r->cc.flags |= CC_NO_CACHE;     /* RFC 9111 5.4 */
    if (r->cc.flags & CC_NO_CACHE_FIELDS)
        r->cc.flags |= CC_NO_CACHE;     /* 5.2.1.4: in a request it takes no list */
    r->authorization = http_has(h, HF_AUTHORIZATION);
    r->range = http_has(h, HF_RANGE);
    r->conditional = http_has(h, HF_IF_NONE_MATCH) || http_has(h, HF_IF_MODIFIED_SINCE);
    r->precondition = http_has(h, HF_IF_MATCH) || http_has(h, HF_IF_UNMODIFIED_SINCE);
}

bool
sem_request_weigh(const struct sem_request *r, const char **why, struct sem_trace *t)
{
    *why = NULL;
    if (sem_forbids(t, "method", r->method != HTTP_GET && r->method != HTTP_HEAD && !r->content))
        *why = "method";                /* RFC 9111 3, RFC 9110 9.2.3, RFC 10008 2.7 */
    else if (sem_forbids(t, "request-no-store", r->cc.flags & CC_NO_STORE))
        *why = "request-no-store";      /* 5.2.1.5: neither stored nor looked for */
    else if (sem_forbids(t, "precondition", r->precondition))
        *why = "precondition";          /* 4.3.2: not a cache's to judge */
    else if (sem_forbids(t, "range", r->content && r->range))
        *why = "range";                 /* of a result that was not asked for whole */
    else if (sem_forbids(t, "condition", r->promised && r->conditional))
        *why = "condition";             /* RFC 9110 13.1.2: 412 is what it asks for, not 304 */
    return *why == NULL;
}

bool
sem_request_cacheable(const struct sem_request *r, const char **why)
{
    return sem_request_weigh(r, why, NULL);
}
