/*
 * Storing: may a response be stored in a shared cache, how long is it fresh, how old is it already?
 *
 * Model    RFC 9111 3 as a list of refusals, then 4.2.1 (lifetime) and 4.2.3 (age). A route's
 *          rules add where the origin says nothing; force_ttl alone contradicts it.
 * Threads  pure functions.
 * Not here what is made of a stored response later (use.c), its fields (fields.c), its variants
 *          (vary.c).
 */
#include "semantics/semantics.h"
#include "semantics/priv.h"

/* RFC 9111 4.2.2 names a tenth of the time since the last change as typical. A day at most: beyond
 * that RFC 7234 5.5.4 wanted a warning, since a guess should not outlive what a person expects. */
#define HEURISTIC_PART   10
#define HEURISTIC_MAX_MS ((int64_t)24 * 3600 * 1000)

bool
sem_understands(unsigned status)
{
    switch (status) {
    case 200: case 201: case 202: case 203: case 204: case 205:
    case 300: case 301: case 302: case 303: case 305: case 307: case 308:
    case 400: case 401: case 402: case 403: case 404: case 405: case 406: case 407: case 408:
    case 409: case 410: case 411: case 413: case 414: case 415: case 421: case 422: case 426:
    case 500: case 501: case 502: case 503: case 504: case 505:
        return true;
    default:
        return false;
    }
}

/* Of a 206 what is stored is a part of a 200. */
bool
sem_heuristic_status(unsigned status)
{
    switch (status) {
    case 200: case 203: case 204: case 300: case 301: case 308: case 404: case 405: case 410:
    case 414: case 501:
        return true;
    default:
        return false;
    }
}

/* What no freshness makes storable: no final status (RFC 9111 3); answers to a
 * condition, a range or an expectation of one request alone (304, 412, 416, 417 of RFC 9110 15);
 * what RFC 6585 3, 4, 5 and 6 forbid to store (428, 429, 431, 511); no status at all (600 up). */
static bool
status_never(unsigned status)
{
    switch (status) {
    case 304: case 412: case 416: case 417: case 428: case 429: case 431: case 511:
        return true;
    default:
        return status < 200 || status > 599;
    }
}

int64_t
sem_date(const struct http_head *h, enum http_id id, int64_t now_s)
{
    const struct http_field *first = http_find(h, id);
    int64_t date;

    if (first == NULL)
        return HTTP_NO_DATE;
    date = http_date(first->value, now_s);
    for (const struct http_field *f = first + 1; f < h->fields + h->nfields; f++)
        if (f->id == id && !slice_eq(f->value, first->value) &&
            http_date(f->value, now_s) != date)
            return HTTP_NO_DATE;
    return date;
}

/* ---- the refusals -------------------------------------------------------------------------- */

static bool
varies_on_all(const struct http_head *response)
{
    struct http_list it = { 0 };
    struct slice member;

    while (http_list_next(response, HF_VARY, &it, &member))
        if (slice_eq(member, SLICE("*")))
            return true;
    return false;
}

/* 3.3: a part can be stored when it was asked for and says which one it is. That of several parts
 * (multipart/byteranges) says it inside, and nothing here reads it. */
static const char *
refused_part(const struct sem_request *rq, const struct http_head *response)
{
    const struct http_field *f = http_find(response, HF_CONTENT_RANGE);
    struct http_content_range span;

    if (!rq->range)
        return "status";
    if (f == NULL || !http_content_range(f->value, &span))
        return "content-range";
    for (const struct http_field *g = f + 1; g < response->fields + response->nfields; g++)
        if (g->id == HF_CONTENT_RANGE)
            return "content-range";
    return NULL;
}

/* What holds whatever a route says. */
static const char *
refused_always(const struct sem_request *rq, const struct http_head *response, struct sem_trace *t)
{
    if (sem_forbids(t, "method", rq->method != HTTP_GET && !rq->content))
        return "method";                /* 3: understood for HEAD too, but that brings no content */
    if (sem_forbids(t, "status", status_never(response->status) ||
        (rq->range && response->status != 200 && response->status != 206)))
        return "status";
    if (response->status == 206) {
        const char *part = refused_part(rq, response);

        if (sem_forbids(t, part != NULL ? part : "content-range", part != NULL))
            return part;
    }
    if (sem_forbids(t, "request-no-store", rq->cc.flags & CC_NO_STORE))
        return "request-no-store";      /* 5.2.1.5 */
    if (sem_forbids(t, "vary", varies_on_all(response)))
        return "vary";                  /* 4.1: it would match no request */
    return NULL;
}

/* 3.5: these let a response to a request with Authorization answer others. */
static bool
shares_authorized(const struct sem_cc *cc)
{
    return (cc->flags & (CC_PUBLIC | CC_MUST_REVALIDATE)) || cc->s_maxage >= 0;
}

/* What the response itself forbids. */
static const char *
refused_by_response(const struct sem_request *rq, const struct sem_cc *cc, unsigned status,
    struct sem_trace *t)
{
    if (sem_forbids(t, "must-understand", (cc->flags & CC_MUST_UNDERSTAND) &&
        !sem_understands(status)))
        return "must-understand";       /* 3, 5.2.2.3 */
    if (sem_forbids(t, "no-store", (cc->flags & CC_NO_STORE) &&
        !(cc->flags & CC_MUST_UNDERSTAND)))
        return "no-store";              /* 5.2.2.5; ignored beside must-understand (5.2.2.3) */
    if (sem_forbids(t, "private", cc->flags & CC_PRIVATE))
        return "private";               /* 5.2.2.7 */
    if (sem_forbids(t, "authorization", rq->authorization && !shares_authorized(cc)))
        return "authorization";         /* 3.5 */
    return NULL;
}

/* ---- freshness lifetime (4.2.1) ------------------------------------------------------------ */

static bool
explicit_lifetime(const struct sem_cc *cc, const struct http_head *response, int64_t date_s,
    int64_t now_s, int64_t *ms, struct sem_trace *t)
{
    int64_t expires;

    *ms = -1;
    if (cc->s_maxage >= 0)
        *ms = cc->s_maxage * 1000;
    if (sem_gives(t, "s-maxage", *ms >= 0, *ms, -1))
        return true;
    if (cc->max_age >= 0)
        *ms = cc->max_age * 1000;
    if (sem_gives(t, "max-age", *ms >= 0, *ms, -1))
        return true;
    if (!cc->targeted && http_has(response, HF_EXPIRES)) {          /* RFC 9213 2.2 */
        /* 5.3: what is no date is in the past; so are several that differ (4.2.1) */
        expires = sem_date(response, HF_EXPIRES, now_s);
        *ms = expires > date_s ? (expires - date_s) * 1000 : 0;
    }
    return sem_gives(t, "expires", *ms >= 0, *ms, -1);
}

static int64_t
negative_ttl(const struct sem_rules *rules, unsigned status)
{
    for (size_t i = 0; i < rules->nnegative; i++)
        if (rules->negative[i].status == status)
            return rules->negative[i].ttl_ms;
    return -1;
}

/* 7.3: a cookie does not forbid storing, but who sends one and is silent on caching most likely
 * answers this one client. Nothing is assumed for it then, by a guess or a route's ttl; force_ttl
 * may. So with Clear-Site-Data, as on leaving. NULL: it may be for all. */
static const char *
is_for_one(const struct http_head *response, const struct sem_cc *cc, struct sem_trace *t)
{
    bool all = cc->flags & CC_PUBLIC;
    bool clears = http_find_name(response, SLICE("Clear-Site-Data")) != NULL;

    if (sem_forbids(t, "set-cookie", !all && http_has(response, HF_SET_COOKIE)))
        return "set-cookie";
    if (sem_forbids(t, "clear-site-data", !all && clears))
        return "clear-site-data";
    return NULL;
}

/* Where the origin says nothing. A route's ttl is for what its resources answer when all is well;
 * errors have their own (`negative_ttl`). -1: nothing lets it be stored (3). */
static int64_t
assumed_lifetime(const struct sem_cc *cc, const struct sem_rules *rules, unsigned status,
    struct sem_meta *m, struct sem_trace *t)
{
    bool allowed = sem_heuristic_status(status) || (cc->flags & CC_PUBLIC);     /* 4.2.2 */
    int64_t ttl = negative_ttl(rules, status), since = 0, part;

    if (sem_gives(t, "negative_ttl", ttl >= 0, ttl, -1))
        return ttl;
    if (sem_forbids(t, "status", !allowed))
        return -1;
    if (sem_gives(t, "ttl", rules->ttl_ms >= 0 && status < 400, rules->ttl_ms, -1))
        return rules->ttl_ms;
    if (rules->heuristic && m->last_modified_s != HTTP_NO_DATE)
        since = m->date_ms - m->last_modified_s * 1000;
    part = since / HEURISTIC_PART < HEURISTIC_MAX_MS ? since / HEURISTIC_PART : HEURISTIC_MAX_MS;
    if (!sem_gives(t, "heuristic", since > 0, since > 0 ? part : -1, -1))
        return 0;
    m->flags |= META_HEURISTIC;
    return part;
}

/* ---- age (4.2.3) --------------------------------------------------------------------------- */

/* The first member counts, whatever follows; when that is no number the field is ignored (5.1). */
static int64_t
age_value(const struct http_head *response)
{
    struct http_list it = { 0 };
    struct slice member;
    int64_t age;

    if (!http_list_next(response, HF_AGE, &it, &member))
        return 0;
    age = sem_delta_seconds(member);
    return age < 0 ? 0 : age;
}

/* Date has whole seconds, so the time of receipt is taken in whole seconds against it: otherwise
 * everything would seem half a second old at birth, which a ttl of one second would feel. */
static int64_t
initial_age(const struct http_head *response, const struct sem_meta *m, int64_t request_ms)
{
    int64_t apparent = (m->response_ms / 1000 - m->date_ms / 1000) * 1000;
    int64_t delay = m->response_ms > request_ms ? m->response_ms - request_ms : 0;
    int64_t corrected = age_value(response) * 1000 + delay;

    return apparent > corrected ? apparent : corrected;
}

/* ---- the decision -------------------------------------------------------------------------- */

static int32_t
stale_seconds(int64_t said, int64_t rule_ms)
{
    int64_t s = said >= 0 ? said : rule_ms >= 0 ? (rule_ms + 999) / 1000 : -1;

    return s < INT32_MAX ? (int32_t)s : INT32_MAX;
}

static void
take_flags(struct sem_meta *m, const struct sem_cc *cc, bool forced)
{
    if (forced) {
        m->flags |= META_FORCED | META_SHARED_AUTH;
        return;
    }
    if (cc->flags & CC_NO_CACHE)
        m->flags |= META_NO_CACHE;
    if ((cc->flags & (CC_MUST_REVALIDATE | CC_PROXY_REVALIDATE)) || cc->s_maxage >= 0)
        m->flags |= META_MUST_REVALIDATE;       /* 5.2.2.10: s-maxage implies proxy-revalidate */
    if (shares_authorized(cc))
        m->flags |= META_SHARED_AUTH;
}

static void
take_times(struct sem_meta *m, const struct http_head *response, int64_t request_ms,
    int64_t response_ms)
{
    int64_t now_s = response_ms / 1000, date = sem_date(response, HF_DATE, now_s);

    m->response_ms = response_ms;
    m->date_ms = date != HTTP_NO_DATE ? date * 1000 : response_ms;  /* RFC 9110 6.6.1 */
    m->last_modified_s = sem_date(response, HF_LAST_MODIFIED, now_s);
    m->age_ms = initial_age(response, m, request_ms);
}

/* Stored, it could answer nobody: it is never fresh, cannot be validated, and may not be served
 * stale. Not storing it costs nothing and lets those who wait for it go. */
static bool
is_useless(const struct sem_request *rq, const struct sem_meta *m, const struct http_head *response)
{
    /* With a method that is not safe to all the answer to a condition is 412 (RFC 9110 13.1.2). */
    bool validator = !rq->promised && (m->last_modified_s != HTTP_NO_DATE ||
        sem_etag_valid(http_value(response, HF_ETAG)));

    if (validator)
        return false;
    if (m->flags & META_NO_CACHE)
        return true;
    return m->lifetime_ms == 0 &&
        ((m->flags & META_MUST_REVALIDATE) || (m->swr_s <= 0 && m->sie_s <= 0));
}

/* A response that states or is given no lifetime of use. RFC 9110 9.3.3: a POST's is never stored
 * without; nor is anything guessed of another's promise. */
static const char *
pointless(const struct sem_request *rq, const struct sem_meta *m, const struct http_head *response,
    struct sem_trace *t)
{
    bool guessed = !(m->flags & (META_EXPLICIT | META_FORCED)) &&
        (m->lifetime_ms == 0 || (m->flags & META_HEURISTIC));
    bool useless = is_useless(rq, m, response);
    const char *word = useless && (m->flags & META_NO_CACHE) && !(rq->promised && guessed) ?
        "no-cache" : "no-freshness";

    return sem_forbids(t, word, useless || (rq->promised && guessed)) ? word : NULL;
}

bool
sem_store_weigh(const struct sem_request *rq, const struct http_head *response,
    const struct sem_rules *rules, int64_t request_ms, int64_t response_ms,
    struct sem_meta *m, const char **why, struct sem_trace *t)
{
    unsigned status = response->status == 206 ? 200 : response->status;
    bool forced = rules->force_ttl_ms >= 0 && status < 400 && sem_heuristic_status(status);
    struct sem_meta new = { .status = (uint16_t)status,
        .flags = response->status == 206 ? META_PARTIAL : 0 };
    struct sem_cc cc;

    sem_cc_response(response, rules, &cc);
    *why = refused_always(rq, response, t);
    if (*why == NULL && !sem_gives(t, "force_ttl", forced, rules->force_ttl_ms, -1))
        *why = refused_by_response(rq, &cc, status, t);
    if (*why != NULL)
        return false;
    /* 5.4 gives Pragma no meaning in a response; whoever sends it alone means it all the same. */
    if (!cc.targeted && !http_has(response, HF_CACHE_CONTROL) &&
        http_list_has(response, HF_PRAGMA, SLICE("no-cache")))
        cc.flags |= CC_NO_CACHE;
    take_times(&new, response, request_ms, response_ms);
    take_flags(&new, &cc, forced);
    new.swr_s = stale_seconds(cc.swr, rules->swr_ms);
    new.sie_s = stale_seconds(cc.sie, rules->sie_ms);
    if (forced)
        new.lifetime_ms = rules->force_ttl_ms;
    else if (explicit_lifetime(&cc, response, new.date_ms / 1000, response_ms / 1000,
        &new.lifetime_ms, t))
        new.flags |= META_EXPLICIT;
    else
        new.lifetime_ms = assumed_lifetime(&cc, rules, status, &new, t);
    if (new.lifetime_ms < 0)
        *why = "status";
    else if (!(new.flags & (META_EXPLICIT | META_FORCED)))
        *why = is_for_one(response, &cc, t);
    if (*why == NULL)
        *why = pointless(rq, &new, response, t);
    if (*why != NULL)
        return false;
    *m = new;
    return true;
}

bool
sem_store(const struct sem_request *rq, const struct http_head *response,
    const struct sem_rules *rules, int64_t request_ms, int64_t response_ms,
    struct sem_meta *m, const char **why)
{
    return sem_store_weigh(rq, response, rules, request_ms, response_ms, m, why, NULL);
}

/* Unless `assumed`, what the rules assume does not count: RFC 9110 9.3.3 wants freshness that is
 * said. force_ttl may still replace how long that is, as with a GET. */
bool
sem_store_as_get(const struct sem_request *rq, const struct http_head *response,
    const struct sem_rules *rules, bool assumed, int64_t request_ms, int64_t response_ms,
    struct sem_meta *m)
{
    const struct sem_rules said = { .ttl_ms = -1, .force_ttl_ms = -1, .swr_ms = rules->swr_ms,
        .sie_ms = rules->sie_ms, .targets = rules->targets };
    struct sem_request get = *rq;
    struct http_head ok = *response;
    struct sem_meta new;
    const char *why;

    if (response->status != 200 && response->status != 201)
        return false;
    ok.status = 200;
    get.method = HTTP_GET;
    get.content = get.promised = get.range = false;
    if (!assumed && (!sem_store(&get, &ok, &said, request_ms, response_ms, &new, &why) ||
        !(new.flags & META_EXPLICIT) || new.lifetime_ms <= 0 || (new.flags & META_NO_CACHE)))
        return false;
    if ((assumed || rules->force_ttl_ms >= 0) &&
        !sem_store(&get, &ok, rules, request_ms, response_ms, &new, &why))
        return false;
    *m = new;
    return true;
}
