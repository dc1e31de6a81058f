/*
 * A flight: the fetch itself, on its home loop.
 *
 * Model    WAITING until the response's head, then HEAD (body growing), OBJECT (a 304 freshened the
 *          stored one) or FAULT. Publication order: the store first, then the flight leaves the
 *          table, so that who comes finds one or the other.
 * Not here how fast a body that is not stored comes (pace.c), heads (head.c), readers (fill.c),
 *          content codings (compress.c, decode.c).
 * Locks    f->mtx guards what readers see; the shard's mtx guards the table, vary/variant and
 *          apart. Order: shard, then flight. The body is read without any.
 */
#include "fill/coder.h"
#include "fill/compress.h"

#include <errno.h>
#include <stdlib.h>

#include "stats/stats.h"

static const struct exchange_fault no_memory = { .status = 503, .cause = "proxy_internal_error",
    .detail = "out of memory", .retry_after_s = 1 };
static const struct exchange_fault cut_short = { .status = 502, .cause = "http_response_body_size",
    .detail = "the rest of a stored part was not all of the rest" };

static const struct exchange_fault no_gzip = { .status = 502,
    .cause = "http_response_content_coding",
    .detail = "the response is no gzip, or breaks off", .reached = true, .mid_body = true };

static struct shard *
shard_of(const struct flight *f)
{
    return &f->fills->shards[f->together.hash % SHARDS];
}

void
flight_unref(struct flight **fp)
{
    struct flight *f = *fp;

    *fp = NULL;
    CHECK(f, FLIGHT_MAGIC);
    if (atomic_fetch_sub(&f->refs, 1) > 1)
        return;
    assert(f->x == NULL && !f->listed);
    object_unref(&f->stale);
    object_unref(&f->part);
    if (f->object != NULL)
        object_unref(&f->object);
    if (f->body != NULL)
        body_unref(&f->body);
    store_hold(f->fills->store, &f->held, 0);
    origin_unref(&f->origin);
    route_table_unref(&f->table);
    pthread_mutex_destroy(&f->mtx);
    gunzip_free(&f->gunzip);
    buf_free(&f->interim);
    f->magic = 0;
    stats_gauge_add(GAUGE_flights_now, -1);
    pool_free(&(struct pool *){ f->pool });         /* the flight itself lives there */
}

void
flight_list(struct flight *f)
{
    struct shard *s = shard_of(f);

    f->next = s->flights;
    s->flights = f;
    f->listed = true;
    atomic_fetch_add(&f->refs, 1);
}

static void
unlist(struct flight *f)
{
    struct shard *s = shard_of(f);
    struct flight *gone = NULL;

    pthread_mutex_lock(&s->mtx);
    if (f->listed) {
        struct flight **at = &s->flights;

        while (*at != f)
            at = &(*at)->next;
        *at = f->next;
        f->listed = false;
        gone = f;
    }
    pthread_mutex_unlock(&s->mtx);
    if (gone != NULL)
        flight_unref(&gone);
}

/* Under f->mtx. */
static void
wake(struct flight *f)
{
    for (struct fill *r = f->readers; r != NULL; r = r->next)
        if (!atomic_exchange(&r->posted, true))
            loop_post(r->loop, &r->msg);
}

/* The exchange is over, one way or another; drops its reference. */
static void
landed(struct flight *f)
{
    struct flight *ref = f;

    if (f->x != NULL) {
        exchange_times(f->x, &f->times);
        f->server = exchange_server(f->x);
    }
    timer_fini(&f->patience);
    exchange_cancel(&f->x);
    unlist(f);
    flight_unref(&ref);
}

static void
fail(struct flight *f, const struct exchange_fault *fault)
{
    pthread_mutex_lock(&f->mtx);
    if (f->phase == FLIGHT_OBJECT) {
        /* the 304 was all that mattered */
    } else if (f->phase == FLIGHT_WAITING) {
        f->phase = FLIGHT_FAULT;
        f->fault = *fault;
        f->view.fault = &f->fault;
    } else {
        f->view.broken = true;
    }
    atomic_store(&f->storing, false);
    wake(f);
    pthread_mutex_unlock(&f->mtx);
}

/* Gives the exchange up for a fault of ours. */
static void
give_up(struct flight *f, const struct exchange_fault *fault)
{
    fail(f, fault);
    landed(f);
}

static void
out_of_memory(struct flight *f)
{
    COUNT(memory_failures);
    give_up(f, &no_memory);
}

/* ---- the response's head --------------------------------------------------------------------- */

/* Readers other than the starter, whose verdict is now known, are told to look elsewhere. */
static void
release_others(struct flight *f, enum fill_state verdict)
{
    for (struct fill *r = f->readers; r != NULL; r = r->next)
        if (!r->starter && r->verdict == FILL_WAITING)
            r->verdict = verdict;
}

/* Does the response say that a and b are one? */
static bool
is_equal(const struct key *a, const struct key *b, struct slice rule)
{
    struct buf x = { 0 }, y = { 0 };
    struct key of_a, of_b;
    bool same = key_search(a, rule, &x, &of_a) == 0 && key_search(b, rule, &y, &of_b) == 0 &&
        slice_eq(of_a.bytes, of_b.bytes);

    buf_free(&x);
    buf_free(&y);
    return same;
}

/* Other URLs have joined that were presumed equal. Is the response's own rule another, or has it
 * none, those that it does not call equal look again, and no more may join. An error says nothing
 * of queries: all who validate what is stored have had it. */
static void
release_unequal(struct flight *f, const struct http_head *h)
{
    struct buf rule = { 0 }, b = { 0 };
    struct key now;
    bool has;

    if (slice_eq(f->together.bytes, f->key.bytes) || (f->stale != NULL && h->status >= 500))
        return;
    has = http_search_rule(h, &rule) == 1;
    if (!has || key_search(&f->key, buf_slice(&rule), &b, &now) == -1 ||
        !slice_eq(now.bytes, f->together.bytes)) {
        pthread_mutex_lock(&shard_of(f)->mtx);
        f->apart = true;
        pthread_mutex_unlock(&shard_of(f)->mtx);
        pthread_mutex_lock(&f->mtx);
        for (struct fill *r = f->readers; r != NULL; r = r->next)
            if (r->key != NULL && r->verdict == FILL_WAITING &&
                (!has || !is_equal(&f->key, r->key, buf_slice(&rule))))
                r->verdict = FILL_AGAIN_APART;
        pthread_mutex_unlock(&f->mtx);
    }
    buf_free(&rule);
    buf_free(&b);
}

/* The response is known to vary: those who joined under another variant look again. */
static void
release_variants(struct flight *f)
{
    struct buf b = { 0 };

    if (f->vary.n == 0)
        return;
    for (struct fill *r = f->readers; r != NULL; r = r->next) {
        b.n = 0;
        if (r->starter || r->verdict != FILL_WAITING)
            continue;
        sem_variant(f->vary, r->request, &b);
        if (b.failed || !slice_eq(buf_slice(&b), f->variant))
            r->verdict = FILL_AGAIN;
    }
    buf_free(&b);
}

/* The response varies by what the origin got, and variants are told apart by what clients send:
 * names of fields that no client decides are taken out of the list, in place. false: no later
 * request can be known to match. */
static bool
vary_by_clients(const struct flight *f, struct buf *vary)
{
    struct slice rest = buf_slice(vary), name;
    size_t n = 0;

    while (f->sent != NULL && vary->n > 0 && slice_cut(&rest, ',', &name)) {
        enum fill_field is = f->sent(f->route, name);

        if (is == FILL_FIELD_EACH)
            return false;
        if (is == FILL_FIELD_SAME)
            continue;
        if (n > 0)
            vary->p[n++] = ',';
        memmove(vary->p + n, name.p, name.n);
        n += name.n;
    }
    if (f->sent != NULL)
        vary->n = n;
    return true;
}

/* Sets vary and variant from the response. false: it varies by everything, or memory is out. */
bool
flight_may_vary(struct flight *f, const struct http_head *h)
{
    struct buf vary = { 0 }, variant = { 0 };
    struct slice v = { NULL, 0 }, w = { NULL, 0 };
    bool ok = sem_vary(h, &vary) && !vary.failed && vary_by_clients(f, &vary);

    if (ok && vary.n > 0) {
        sem_variant(buf_slice(&vary), f->request, &variant);
        v = pool_slice(f->pool, buf_slice(&vary));
        w = pool_slice(f->pool, buf_slice(&variant));
        ok = !vary.failed && !variant.failed && v.p != NULL && w.p != NULL;
    }
    buf_free(&vary);
    buf_free(&variant);
    if (!ok)
        return false;
    pthread_mutex_lock(&shard_of(f)->mtx);
    f->vary = v;
    f->variant = w;
    pthread_mutex_unlock(&shard_of(f)->mtx);
    return true;
}

/* ---- tags of the response's body ------------------------------------------------------------- */

#define TAGS_MAX      256
#define BODY_SEEN_MAX 65536             /* of JSON that placeholders look at */
#define TELL_US       60000000

static bool
tags_need_body(const struct route *r)
{
    unsigned needs = 0;

    for (size_t i = 0; i < r->ntags; i++)
        needs |= key_template_needs(r->tags[i]);
    return (needs & KEY_NEEDS_RESPONSE_BODY) != 0;
}

/* As far as the head tells. */
static bool
body_has_tags(const struct flight *f, const struct http_head *h)
{
    return !tags_need_body(f->route) ||
        (!sem_coded(h) && (h->framing != HTTP_LENGTH || h->length <= BODY_SEEN_MAX));
}

/* Its tags cannot be made: stored without them, no purge would find the response. Told at most once
 * a minute for a route. */
static const char *
untagged(const struct flight *f)
{
    static _Atomic int64_t next_us[256];
    _Atomic int64_t *next = &next_us[f->route->id % NELEM(next_us)];
    int64_t now = now_us(), at = atomic_load(next);

    COUNT(cache_store_untagged);
    if (now >= at && atomic_compare_exchange_strong(next, &at, now + TELL_US))
        log_warn("route %s: the tags of %.*s cannot be made, it is not stored (they need a body of "
            "at most 64 KiB of JSON that is not coded, and are at most 256)", f->route->name,
            SLICE_ARG(f->send.target));
    return "tags";
}

/* May the response be stored, as far as its head tells? Fills f->meta. */
static bool
storable(struct flight *f, const struct http_head *h, const char **why)
{
    int64_t max = f->route->max_object;

    if (f->mode == FILL_PRIVATE) {
        *why = f->view.why;
        return false;
    }
    if (!sem_store(&f->semantics, h, &f->route->rules, f->request_ms, wall_ms(), &f->meta, why))
        return false;
    if (h->framing == HTTP_LENGTH && h->length > (uint64_t)max) {
        *why = "size";
        return false;
    }
    if (h->status == 206 && !part_storable(f, h, why))
        return false;
    if (f->part_only && h->status != 206) {
        *why = "status";
        return false;
    }
    if (f->stale != NULL && h->status >= 500) {
        *why = "error";                 /* what is stored stays, stale: RFC 9111 4.3.3 */
        return false;
    }
    if (!body_has_tags(f, h)) {
        *why = untagged(f);
        return false;
    }
    if (compress_misfit(f->route, h)) {
        *why = "dictionary";
        return false;
    }
    if (!flight_may_vary(f, h)) {
        *why = "vary";
        return false;
    }
    if (f->gunzip != NULL)
        f->meta.flags |= META_DECODED;
    return true;
}

static struct slice
built(struct flight *f, const struct http_head *h, enum head_for who, struct head_marks *m)
{
    struct buf b = { 0 };
    struct slice s = { NULL, 0 };

    if (head_build(f, h, who, &b, m) == 0)
        s = pool_slice(f->pool, buf_slice(&b));
    buf_free(&b);
    return s;
}

/* The parsed head, kept: its slices lie in a serialised copy. */
static const struct http_head *
kept(struct flight *f, const struct http_head *h)
{
    struct buf b = { 0 };
    struct http_head *c = pool_zalloc(f->pool, sizeof *c);
    struct http_field *fields = pool_alloc(f->pool, (h->nfields + 1u) * sizeof *fields);
    struct slice s = { NULL, 0 };

    for (unsigned i = 0; i < h->nfields; i++)
        http_put(&b, h->fields[i].name, h->fields[i].value);
    if (!b.failed)
        s = pool_slice(f->pool, buf_slice(&b));
    buf_free(&b);
    if (c == NULL || fields == NULL || s.p == NULL)
        return NULL;
    c->fields = fields;
    c->cap = (uint16_t)(h->nfields + 1);
    if (http_parse_fields(s.p, s.n, c) == -1)
        return NULL;
    c->status = h->status;
    c->minor = h->minor;
    c->flags = h->flags;
    c->framing = h->framing;
    c->length = h->length;
    return c;
}

static void
mark_unstorable(struct flight *f, const struct http_head *h, const char *why)
{
    const struct conf *c = route_table_conf(f->table);

    if (f->mode == FILL_SHARED && f->range.n == 0 && h->status < 500 && c->cache_pass_for_ms > 0)
        head_remember(f, h, why, wall_ms() + c->cache_pass_for_ms);
}

/* Too much is under way. That passes, so the key is not marked. */
static void
no_room(struct flight *f, const char **why)
{
    COUNT(cache_store_memory);
    *why = "memory";
    unlist(f);
}

/* A body with room of the store's for what of its length is known; without room, one that is not
 * stored: *store is false then. NULL: memory out. */
static struct body *
body_for(struct flight *f, const struct http_head *h, bool *store)
{
    struct body *b = body_new(h->framing == HTTP_LENGTH && *store ? h->length : 0);

    if (b == NULL || !*store || store_hold(f->fills->store, &f->held, body_held(b)))
        return b;
    *store = false;
    body_unref(&b);
    return body_new(0);
}

/* As readers see it, and as it is stored. */
struct heads { struct slice live, shared, stored; uint32_t status_n; struct head_marks marks; };

static bool
build_heads(struct flight *f, const struct http_head *h, bool store, struct heads *to)
{
    to->live = built(f, h, HEAD_STARTER, &to->marks);
    to->status_n = to->marks.status_n;
    to->shared = to->stored = to->live;
    if (store)
        to->shared = to->stored = built(f, h, HEAD_OTHERS, &to->marks);
    if (store && h->status == 206)
        to->stored = built(f, h, HEAD_STORED, &to->marks);
    return to->live.p != NULL && to->shared.p != NULL && to->stored.p != NULL;
}

/* h is the response's head, to be stored or not; the heads are made of it. */
static void
begin(struct flight *f, const struct http_head *h, bool store, bool also,
    const char *why, const struct heads *heads)
{
    const struct http_head *parsed = kept(f, h);
    bool storing = store || also;

    f->body = body_for(f, h, &storing);
    if (parsed == NULL || f->body == NULL || (f->joins && part_front(f) == -1)) {
        out_of_memory(f);
        return;
    }
    if (!store) {
        mark_unstorable(f, h, why);
        unlist(f);
        if (f->stale != NULL && h->status < 500)
            store_drop(f->fills->store, f->stale);  /* it was replaced by what may not be stored */
        if (f->part != NULL && h->status < 500)
            store_drop(f->fills->store, f->part);
    }
    if (store && !storing)              /* no room: who waits has it all the same, nobody joins */
        no_room(f, &why);
    release_unequal(f, h);
    pthread_mutex_lock(&f->mtx);
    f->phase = FLIGHT_HEAD;
    atomic_store(&f->storing, storing);
    f->shared_head = heads->shared;
    f->stored_head = heads->stored;
    f->marks = heads->marks;
    f->view.status = h->status;
    f->view.head = heads->live;
    f->view.status_n = heads->status_n;
    f->view.framing = h->framing;
    f->view.length = h->length;
    f->view.response = parsed;
    f->view.meta = store && storing ? &f->meta : NULL;
    f->view.tags_later = store && storing && tags_need_body(f->route);
    f->view.why = why;
    f->view.body = f->body;
    if (!store)
        release_others(f, FILL_AGAIN_ALONE);
    else
        release_variants(f);
    wake(f);
    pthread_mutex_unlock(&f->mtx);
}

static void
on_response(struct flight *f, const struct http_head *h)
{
    const char *why = NULL;
    bool store = storable(f, h, &why);
    struct heads heads;

    if (!build_heads(f, h, store, &heads)) {
        out_of_memory(f);
        return;
    }
    begin(f, h, store, also_judge(f, h, store), why, &heads);
}

/* ---- the rest of what is stored in part ----------------------------------------------------- */

/* Where the route edits Cache-Control the joined head does not tell the origin's word, the 206's
 * own fields do (RFC 9110 15.3.7: it has them whatever the condition). */
static bool
judge_joined(struct flight *f, const struct http_head *h206, const struct http_head *whole,
    const char **why)
{
    struct http_head h = *h206;

    h.status = 200;
    h.framing = HTTP_LENGTH;
    h.length = whole->length;
    if (f->route->rules.force_ttl_ms < 0 &&
        route_edit_takes(&f->route->response, SLICE("Cache-Control")))
        return storable(f, &h, why);
    return storable(f, whole, why);
}

/* One 200 of what is stored and what h brings. The client that caused it gets h's cookies too. */
static void
on_rest(struct flight *f, const struct http_head *h)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head whole = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct heads heads = { 0 };
    struct buf b = { 0 };
    const char *why = NULL;
    bool store;

    heads.stored = heads.shared = part_head(f, h, &whole, &heads.marks);
    heads.status_n = heads.marks.status_n;
    buf_adds(&b, heads.stored);
    for (unsigned i = 0; i < h->nfields; i++)
        if (h->fields[i].id == HF_SET_COOKIE && !http_has(&whole, HF_SET_COOKIE) &&
            !route_edit_takes(&f->route->response, h->fields[i].name))
            http_put_id(&b, HF_SET_COOKIE, h->fields[i].value);
    heads.live = b.failed ? (struct slice){ NULL, 0 } : pool_slice(f->pool, buf_slice(&b));
    buf_free(&b);
    if (heads.stored.p == NULL || heads.live.p == NULL) {
        COUNT(memory_failures);
        give_up(f, &no_memory);
        return;
    }
    f->joins = true;
    COUNT(cache_completed);
    store = judge_joined(f, h, &whole, &why);
    begin(f, &whole, store, false, why, &heads);
}

/* ---- groups of the response (RFC 9875) ------------------------------------------------------ */

struct groups { struct flight *f; struct slice at[STORE_GROUPS_MAX]; size_t n; bool lost; };

/* Two responses share a group only when they share the origin of their URIs too (2.1). */
static void
add_group(void *arg, struct slice group)
{
    struct groups *g = arg;
    struct slice origin = { g->f->key.bytes.p, g->f->key.path_at };
    char *text = g->n < STORE_GROUPS_MAX ? pool_alloc(g->f->pool, origin.n + 1 + group.n) : NULL;

    if (text == NULL) {
        g->lost = g->lost || g->n < STORE_GROUPS_MAX;   /* over the limit they are ignored (2) */
        return;
    }
    memcpy(text, origin.p, origin.n);
    text[origin.n] = '\0';
    if (group.n > 0)
        memcpy(text + origin.n + 1, group.p, group.n);
    g->at[g->n++] = (struct slice){ text, origin.n + 1 + group.n };
}

/* -1: memory is out. */
static int
make_groups(const struct http_head *h, struct groups *g)
{
    return sem_groups(h, HF_CACHE_GROUPS, add_group, g) == -1 || g->lost ? -1 : 0;
}

/* ---- a 304 to our own conditions ------------------------------------------------------------- */

/* Asks once more, for the whole: the 304 was about something that we do not have any more, or what
 * is stored in part and what came do not belong together. */
static void
ask_again(struct flight *f)
{
    exchange_cancel(&f->x);
    object_unref(&f->stale);
    object_unref(&f->part);
    f->again = true;
    pthread_mutex_lock(&shard_of(f)->mtx);
    f->stamp = store_stamp(f->fills->store);
    pthread_mutex_unlock(&shard_of(f)->mtx);
    flight_take_off(f);
}

/* The length of a stored body; never with 204 (RFC 9110 8.6). */
static void
put_length(struct buf *b, unsigned status, const struct body *body)
{
    if (status == 204)
        return;
    buf_addz(b, "Content-Length: ");
    buf_addu(b, body_size(body));
    buf_addz(b, "\r\n");
}

/* Does it say anything about how long it may be kept? */
static bool
speaks(const struct flight *f, const struct http_head *h)
{
    struct sem_cc cc;

    sem_cc_response(h, &f->route->rules, &cc);
    return cc.targeted || http_has(h, HF_CACHE_CONTROL) || http_has(h, HF_EXPIRES);
}

/* Where the route edits Cache-Control the stored head does not tell the origin's word: the 304's
 * own fields do, and where it is silent what was decided before stands. */
static bool
judge_unedited(struct flight *f, const struct http_head *r304, const char **why)
{
    struct http_head h = *r304;
    struct sem_meta was = f->stale->meta;

    h.status = was.status;
    if (!sem_store(&f->semantics, &h, &f->route->rules, f->request_ms, wall_ms(), &f->meta, why) &&
        speaks(f, r304))
        return false;
    if (!speaks(f, r304)) {
        was.response_ms = was.date_ms = wall_ms();
        was.age_ms = 0;
        f->meta = was;
    }
    f->meta.last_modified_s = was.last_modified_s;
    return true;
}

/* Does the 304 leave the queries that the stored response is for (No-Vary-Search) as they are? Else
 * that goes, and the response is to be had whole, for other URLs. */
static bool
keeps_search(const struct flight *f, const struct http_head *r304)
{
    struct buf rule = { 0 };
    bool same = !http_has(r304, HF_NO_VARY_SEARCH) || (http_search_rule(r304, &rule) != -1 &&
        slice_eq(buf_slice(&rule), store_search_rule(f->stale)));

    buf_free(&rule);
    if (!same)
        store_drop(f->fills->store, f->stale);
    return same;
}

/* The stored head, freshened: parsed, judged and published. -1: it cannot be used. */
static int
freshen(struct flight *f, const struct http_head *r304, bool *keep)
{
    struct groups groups = { .f = f };
    struct stored_head *sh = f->stale->head;
    struct http_field fields[HTTP_FIELDS_MAX], merged_fields[HTTP_FIELDS_MAX];
    struct http_head old = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct http_head merged = { .fields = merged_fields, .cap = HTTP_FIELDS_MAX };
    struct forms *forms = NULL;
    struct store_parts parts;
    struct buf b = { 0 };
    struct head_marks m;
    const char *why = NULL;
    int rc = -1;

    if (http_parse_fields(sh->bytes + sh->status_n, sh->n - sh->status_n, &old) == -1 ||
        !sem_304_selects(&old, r304) || !keeps_search(f, r304) ||
        head_merge(f, &old, r304, (struct slice){ sh->bytes, sh->status_n }, &b, &m) == -1 ||
        http_parse_fields(b.p + m.status_n, b.n - m.status_n, &merged) == -1)
        goto out;
    merged.status = f->stale->meta.status;
    *keep = sem_store(&f->semantics, &merged, &f->route->rules, f->request_ms, wall_ms(), &f->meta,
        &why);
    if (f->route->rules.force_ttl_ms < 0 &&
        route_edit_takes(&f->route->response, SLICE("Cache-Control")))
        *keep = judge_unedited(f, r304, &why);
    if (!*keep) {
        f->meta = f->stale->meta;
        f->meta.lifetime_ms = 0;
    }
    f->meta.flags |= f->stale->meta.flags & META_DECODED;
    if (!(f->stale->meta.flags & META_PARTIAL))
        put_length(&b, merged.status, f->stale->body);
    if (make_groups(r304, &groups) == -1)
        goto out;
    parts = (struct store_parts){ .head = buf_slice(&b), .status_n = m.status_n,
        .etag_at = m.etag_at, .etag_n = m.etag_n, .meta = f->meta, .request_ms = f->request_ms,
        .stamp = f->stamp, .regroup = http_has(r304, HF_CACHE_GROUPS) };
    parts.groups = groups.at;
    parts.ngroups = groups.n;
    forms = b.failed ? NULL : compress_again(f->route, f->stale, buf_slice(&b), m.status_n);
    parts.forms = &forms;
    if (b.failed ||
        store_freshen(f->fills->store, f->stale, &parts, &f->object) != STORE_STORED)
        goto out;
    if (!*keep)
        store_drop(f->fills->store, f->object);
    else if (rcu_load(&f->object->forms) == NULL)
        compress_later(f->fills->compressor, f->route, f->object);
    rc = 0;
out:
    forms_free(&forms);
    buf_free(&b);
    return rc;
}

static void
on_not_modified(struct flight *f, const struct http_head *h)
{
    const struct http_head *parsed = kept(f, h);
    bool keep;

    if (parsed == NULL || (h = decode_304(f, h)) == NULL) {
        out_of_memory(f);
        return;
    }
    if (freshen(f, h, &keep) == -1) {
        ask_again(f);
        return;
    }
    if (!keep)
        unlist(f);
    pthread_mutex_lock(&f->mtx);
    f->phase = FLIGHT_OBJECT;
    f->view.response = parsed;
    if (!keep)
        release_others(f, FILL_AGAIN_ALONE);    /* now it is this one client's: private, say */
    f->view.status = 304;
    f->view.object = f->object;
    f->view.complete = true;
    wake(f);
    pthread_mutex_unlock(&f->mtx);
    unlist(f);
}

/* ---- exchange events ------------------------------------------------------------------------- */

static void
on_interim(void *arg, const struct http_head *h)
{
    struct flight *f = arg;

    if (f->interim.n > WINDOW)
        return;                         /* nobody needs so many; a response must come some day */
    buf_printf(&f->interim, "HTTP/1.1 %u %.*s\r\n", h->status, SLICE_ARG(h->reason));
    for (unsigned i = 0; i < h->nfields; i++)
        if (http_forwards(h, &h->fields[i]) && h->fields[i].id != HF_CONTENT_LENGTH &&
            !route_edit_takes(&f->route->response, h->fields[i].name))
            http_put(&f->interim, h->fields[i].name, h->fields[i].value);
    buf_addz(&f->interim, "\r\n");
    pthread_mutex_lock(&f->mtx);
    if (!f->interim.failed)
        f->view.interim = buf_slice(&f->interim);
    wake(f);
    pthread_mutex_unlock(&f->mtx);
}

static void
on_continue(void *arg)
{
    struct flight *f = arg;

    pthread_mutex_lock(&f->mtx);
    f->view.want_body = true;
    wake(f);
    pthread_mutex_unlock(&f->mtx);
}

static void
on_head(void *arg, const struct http_head *h)
{
    struct flight *f = arg;

    if (h->status == 304 && f->stale != NULL && !f->semantics.promised)
        on_not_modified(f, h);
    else if (f->part != NULL && part_answers(f, h))
        on_rest(f, h);
    else if (f->part != NULL && (h->status == 206 || h->status == 416 || h->status == 304))
        ask_again(f);
    else if ((h = decode_head(f, h)) != NULL)
        on_response(f, h);
    else
        out_of_memory(f);
}

/* A fetch that nobody could join stood in no table while it had its reader; now that it goes on for
 * the store alone, fills_stop must find it. It stays one that nobody joins. */
static void
list_orphan(struct flight *f)
{
    struct shard *s = shard_of(f);
    bool orphan;

    if (f->mode != FILL_ALONE)
        return;
    pthread_mutex_lock(&s->mtx);
    pthread_mutex_lock(&f->mtx);
    orphan = f->readers == NULL && !f->listed;
    pthread_mutex_unlock(&f->mtx);
    if (orphan)
        flight_list(f);
    pthread_mutex_unlock(&s->mtx);
}

/* Nobody waits for it and it will not be stored: given up. */
static bool
abandoned(struct flight *f)
{
    bool none;

    pthread_mutex_lock(&f->mtx);
    none = f->readers == NULL && (f->mode == FILL_PRIVATE || atomic_load(&f->fills->stopping) ||
        (f->phase == FLIGHT_HEAD && !atomic_load(&f->storing)));
    pthread_mutex_unlock(&f->mtx);
    if (!none || f->x == NULL)
        return false;
    landed(f);
    return true;
}

static void
run_drain(struct loop_msg *m)
{
    struct flight *f = CONTAINER(m, struct flight, drain), *ref = f;

    atomic_store(&f->drain_posted, false);
    if (f->x != NULL) {
        list_orphan(f);                 /* before `stopping` is read: one of both sees the other */
        if (!abandoned(f))
            flight_pace(f);
    }
    flight_unref(&ref);
}

/* The body has grown: by too much? Then it passes through a window from here on. */
static void
still_storing(struct flight *f)
{
    uint64_t size = body_size(f->body);
    const char *why;

    if (size > (uint64_t)f->route->max_object) {
        why = "size";
        mark_unstorable(f, f->view.response, why);
        unlist(f);
    } else if (size > f->held && !store_hold(f->fills->store, &f->held, body_held(f->body))) {
        no_room(f, &why);
    } else {
        return;
    }
    pthread_mutex_lock(&f->mtx);
    atomic_store(&f->storing, false);
    f->view.meta = NULL;
    f->view.why = why;
    pthread_mutex_unlock(&f->mtx);
}

/* Not 0: memory is out. A coder_sink. */
static int
grow(void *arg, struct slice data)
{
    struct flight *f = arg;

    if (body_append(f->body, data) == -1)
        return ENOMEM;
    if (atomic_load(&f->storing))
        still_storing(f);
    return 0;
}

static void
on_data(void *arg, struct slice data)
{
    struct flight *f = arg;
    int rc = f->gunzip != NULL ? gunzip_feed(f->gunzip, data, grow, f) : grow(f, data);

    if (rc == ENOMEM) {
        out_of_memory(f);
        return;
    }
    if (rc != 0) {
        give_up(f, &no_gzip);
        return;
    }
    pthread_mutex_lock(&f->mtx);
    wake(f);
    pthread_mutex_unlock(&f->mtx);
    if (!abandoned(f))
        flight_pace(f);
}

static void
on_drain(void *arg)
{
    struct flight *f = arg;

    pthread_mutex_lock(&f->mtx);
    wake(f);
    pthread_mutex_unlock(&f->mtx);
}

struct tags { struct flight *f; struct slice at[TAGS_MAX]; size_t n; bool lost; };

static void
add_tag(void *arg, struct slice text)
{
    struct tags *t = arg;

    if (t->n < TAGS_MAX && (t->at[t->n] = pool_slice(t->f->pool, text)).p != NULL)
        t->n++;
    else
        t->lost = true;
}

/* -1: a tag's template needs a body that is not to be had, or there are too many. */
static int
make_tags(struct flight *f, struct tags *t)
{
    const struct route *r = f->route;
    const struct key_params params = { r->params, f->match.values, r->nparams };
    struct key_facts facts = { .request = f->request, .response = f->view.response, .path = &params,
        .host = f->host, .query = f->request->query };

    if (f->content.p != NULL && f->content.n <= BODY_SEEN_MAX && !sem_coded(f->request))
        facts.request_body = f->content;

    t->f = f;
    t->n = 0;
    t->lost = false;
    if (r->ntags == 0)
        return 0;
    if (tags_need_body(r) && !sem_coded(f->view.response))
        facts.response_body = body_text(f->body, f->pool, BODY_SEEN_MAX);
    for (size_t i = 0; i < r->ntags; i++)
        if (key_template_expand(r->tags[i], &facts, add_tag, t) == -1)
            return -1;
    return t->lost ? -1 : 0;
}

/* Only now it is known that the response cannot be stored: the key is marked like others. */
static void
drop_untagged(struct flight *f)
{
    const char *why = untagged(f);

    mark_unstorable(f, f->view.response, why);
    if (f->stale != NULL)
        store_drop(f->fills->store, f->stale);
    pthread_mutex_lock(&f->mtx);
    atomic_store(&f->storing, false);
    f->view.meta = NULL;
    f->view.why = why;
    pthread_mutex_unlock(&f->mtx);
}

int
flight_publish(struct flight *f, struct store_parts *p, struct slice head, struct object **o)
{
    struct groups groups = { .f = f };
    int r = STORE_NO_MEMORY;
    struct tags tags;
    struct buf b = { 0 }, rule = { 0 }, search = { 0 };
    struct key equal;

    if (make_tags(f, &tags) == -1)
        return -1;
    buf_adds(&b, head);
    if (!(p->meta.flags & META_PARTIAL))
        put_length(&b, p->meta.status, f->body);
    p->head = buf_slice(&b);
    p->vary = f->vary;
    p->variant = f->variant;
    p->body = f->body;
    p->held = f->held > 0 ? &f->held : NULL;
    p->request_ms = f->request_ms;
    p->route_id = f->route->id;
    p->tags = tags.at;
    p->ntags = tags.n;
    p->groups = groups.at;
    if (make_groups(f->view.response, &groups) == -1)
        b.failed = true;
    p->ngroups = groups.n;
    if (p->part == NULL && http_search_rule(f->view.response, &rule) == 1)     /* parts: no */
        (void)store_by_search(f->fills->store, p, buf_slice(&rule), &search, &equal);
    if (!b.failed)
        r = (int)(p->part != NULL ? part_publish(f, p, o) : store_put(f->fills->store, p, o));
    if (r == STORE_STORED)
        compress_later(f->fills->compressor, f->route, *o);
    /* What it replaces may have been stored for other URLs than it is. */
    if (r == STORE_STORED && f->stale != NULL && (p->key == &f->key || p->own == &f->key) &&
        !slice_eq(p->search, store_search_rule(f->stale)))
        store_drop(f->fills->store, f->stale);
    buf_free(&b);
    buf_free(&rule);
    buf_free(&search);
    return r;
}

static void
publish(struct flight *f)
{
    struct object *o = NULL;
    struct object_part place;
    struct store_parts parts = {
        .key = &f->key, .status_n = f->marks.status_n, .etag_at = f->marks.etag_at,
        .etag_n = f->marks.etag_n, .meta = f->meta, .stamp = f->stamp,
    };
    int r;

    if (f->meta.flags & META_PARTIAL) {
        if (!part_place(f, &place)) {
            atomic_store(&f->storing, false);
            return;
        }
        if (place.from == 0 && body_size(f->body) == place.size)
            parts.meta.flags &= (uint16_t)~META_PARTIAL;    /* all of it is the whole */
        parts.part = &place;
    }
    r = flight_publish(f, &parts, f->stored_head, &o);
    if (r == -1) {
        drop_untagged(f);
        return;
    }
    if (r != STORE_STORED)
        atomic_store(&f->storing, false);
    else if (o->body == f->body)
        f->object = o;                  /* its bytes count as held when it is evicted before us */
    else
        object_unref(&o);
}

/* Gives unused room back, which may move bytes: only while nobody reads, and nobody can join. With
 * readers the store keeps a copy of the right size instead. */
static void
seal(struct flight *f)
{
    struct shard *s = shard_of(f);

    pthread_mutex_lock(&s->mtx);
    pthread_mutex_lock(&f->mtx);
    if (f->readers == NULL)
        body_seal(f->body);
    pthread_mutex_unlock(&f->mtx);
    pthread_mutex_unlock(&s->mtx);
}

static void
on_half_close(void *arg)
{
    struct flight *f = arg;

    pthread_mutex_lock(&f->mtx);
    f->view.half_closed = true;
    wake(f);
    pthread_mutex_unlock(&f->mtx);
}

static void
on_fault(void *arg, const struct exchange_fault *fault)
{
    struct flight *f = arg;

    fail(f, fault);
    landed(f);
}

static void
on_end(void *arg, struct slice trailer)
{
    struct flight *f = arg;
    bool storing = atomic_load(&f->storing);

    assert(f->phase != FLIGHT_WAITING);     /* on_head came first */
    if (f->phase == FLIGHT_OBJECT) {
        landed(f);
        return;
    }
    if (f->gunzip != NULL && !gunzip_whole(f->gunzip)) {
        give_up(f, &no_gzip);
        return;
    }
    if (f->joins && !part_back(f)) {
        on_fault(f, &cut_short);
        return;
    }
    f->also_whole = storing;
    if (storing)
        seal(f);
    if (storing && f->mode != FILL_PRIVATE)
        publish(f);
    if (storing)
        also_ended(f);
    trailer = f->gunzip == NULL ? pool_slice(f->pool, trailer) : (struct slice){ NULL, 0 };
    pthread_mutex_lock(&f->mtx);
    f->view.complete = true;
    f->view.stored = f->mode != FILL_PRIVATE && atomic_load(&f->storing);
    f->view.trailer = trailer.p != NULL ? trailer : (struct slice){ NULL, 0 };
    wake(f);
    pthread_mutex_unlock(&f->mtx);
    landed(f);
}

static const struct exchange_events events = {
    .on_interim = on_interim, .on_continue = on_continue, .on_head = on_head, .on_data = on_data,
    .on_drain = on_drain, .on_half_close = on_half_close, .on_end = on_end, .on_fault = on_fault,
};

/* Sends the request, with its conditions unless it is asked again. */
void
flight_take_off(struct flight *f)
{
    struct exchange_request x = f->send;

    if (f->again)
        x.fields.n = f->conditions_at;      /* they stand last */
    f->request_ms = wall_ms();
    f->x = exchange_start(f->origin, f->home, &x, &events, f);
    if (f->x != NULL && f->content.p != NULL) {
        exchange_send(f->x, f->content);
        exchange_send_end(f->x, (struct slice){ NULL, 0 });
    }
    if (f->x != NULL)
        return;
    fail(f, &no_memory);
    landed(f);
}

void
flight_drain(struct flight *f)
{
    if (atomic_exchange(&f->drain_posted, true))
        return;
    f->drain.run = run_drain;
    atomic_fetch_add(&f->refs, 1);
    loop_post(f->home, &f->drain);
}
