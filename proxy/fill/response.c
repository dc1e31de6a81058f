/*
 * A flight's response, from its head on: may it be stored, who may wait, and what readers see.
 *
 * Model    the head is judged as far as it tells (storable); then the flight's body begins, readers
 *          for whom the response is not are told to look elsewhere, and the others see it. The rest
 *          of what is stored in part comes in as the whole.
 * Threads  home loop.
 * Not here the decisions themselves (semantics/), the heads' text (head.c), parts (part.c), a 304
 *          (fresh.c), what happens when the body is whole (publish.c).
 */
#include "fill/compress.h"

#include "stats/stats.h"

/* ---- the response's head --------------------------------------------------------------------- */

/* Readers other than the starter, whose verdict is now known, are told to look elsewhere. */
void
response_release(struct flight *f, enum fill_state verdict)
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

/* An error of the server, or its word that this client asks too often (RFC 6585 4), tells nothing
 * of the resource: what is stored stays (RFC 9111 4.3.3). */
static bool
says_nothing(const struct http_head *h)
{
    return h->status >= 500 || h->status == 429;
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

    if (slice_eq(f->together.bytes, f->key.bytes) || (f->stale != NULL && says_nothing(h)))
        return;
    has = http_search_rule(h, &rule) == 1;
    if (!has || key_search(&f->key, buf_slice(&rule), &b, &now) == -1 ||
        !slice_eq(now.bytes, f->together.bytes)) {
        pthread_mutex_lock(&flight_shard(f)->mtx);
        f->apart = true;
        pthread_mutex_unlock(&flight_shard(f)->mtx);
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
 * names of fields that no client decides are taken out of the list, in place. A part that varies by
 * the range is an answer to that one alone (RFC 9111 4.1). false: no later request can be known to
 * match. */
static bool
vary_by_clients(const struct flight *f, struct buf *vary)
{
    struct slice rest = buf_slice(vary), name;
    size_t n = 0;

    while (f->sent != NULL && vary->n > 0 && slice_cut(&rest, ',', &name)) {
        enum fill_field is = f->sent(f->route, name);

        if (is == FILL_FIELD_EACH || (f->range.n > 0 &&     /* these went to the origin too */
            (slice_ieq(name, SLICE("Range")) || slice_ieq(name, SLICE("If-Range")))))
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
    pthread_mutex_lock(&flight_shard(f)->mtx);
    f->vary = v;
    f->variant = w;
    pthread_mutex_unlock(&flight_shard(f)->mtx);
    return true;
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
    if (f->plugins != NULL && f->plugins->no_store) {
        *why = "plugin";
        return false;
    }
    if (!sem_store(&f->semantics, h, f->rules, f->request_ms, wall_ms(), &f->meta, why))
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
    if (f->stale != NULL && says_nothing(h)) {
        *why = "error";
        return false;
    }
    if (!publish_has_tags(f, h)) {
        *why = publish_untagged(f);
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
const struct http_head *
response_kept(struct flight *f, const struct http_head *h)
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

void
response_unstorable(struct flight *f, const struct http_head *h, const char *why)
{
    const struct conf *c = route_table_conf(f->table);

    if (f->mode == FILL_SHARED && f->range.n == 0 && h->status < 500 && c->cache_pass_for_ms > 0)
        head_remember(f, h, why, wall_ms() + c->cache_pass_for_ms);
}

/* Too much is under way. That passes, so the key is not marked. */
void
response_no_room(struct flight *f, const char **why)
{
    COUNT(cache_store_memory);
    *why = "memory";
    flight_unlist(f);
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
    const struct http_head *parsed = response_kept(f, h);
    bool storing = store || also;

    f->body = body_for(f, h, &storing);
    if (parsed == NULL || f->body == NULL || (f->joins && part_front(f) == -1)) {
        flight_no_memory(f);
        return;
    }
    if (!store) {
        response_unstorable(f, h, why);
        flight_unlist(f);
        if (f->stale != NULL && !says_nothing(h))
            store_drop(f->fills->store, f->stale);  /* it was replaced by what may not be stored */
        if (f->part != NULL && !says_nothing(h))
            store_drop(f->fills->store, f->part);
    }
    if (store && !storing)              /* no room: who waits has it all the same, nobody joins */
        response_no_room(f, &why);
    release_unequal(f, h);
    pthread_mutex_lock(&f->mtx);
    f->phase = FLIGHT_HEAD;
    atomic_store(&f->storing, storing);
    f->shared_head = heads->shared;
    f->stored_head = heads->stored;
    f->marks = heads->marks;
    f->view.status = h->status;
    f->view.origin_status = f->joins ? 206 : h->status;
    f->view.head = heads->live;
    f->view.status_n = heads->status_n;
    f->view.framing = h->framing;
    f->view.length = h->length;
    f->view.response = parsed;
    f->view.meta = store && storing ? &f->meta : NULL;
    f->view.tags_later = store && storing && (publish_needs_body(f->route) ||
        plugin_has(f->route->conf->plugins, HOOK_BIT(STORE)));
    f->view.why = why;
    f->view.body = f->body;
    if (!store)
        response_release(f, FILL_AGAIN_ALONE);
    else
        release_variants(f);
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
}

void
response_head(struct flight *f, const struct http_head *h)
{
    const char *why = NULL;
    bool store = storable(f, h, &why);
    struct heads heads;

    if (!build_heads(f, h, store, &heads)) {
        flight_no_memory(f);
        return;
    }
    begin(f, h, store, also_judge(f, h, store), why, &heads);
}

/* ---- the rest of what is stored in part ------------------------------------------------------ */

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
    if (f->rules->force_ttl_ms < 0 &&
        route_edit_takes(&f->route->response, SLICE("Cache-Control")))
        return storable(f, &h, why);
    return storable(f, whole, why);
}

/* One 200 of what is stored and what h brings. The client that caused it gets h's cookies too. */
void
response_rest(struct flight *f, const struct http_head *h)
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
        flight_no_memory(f);
        return;
    }
    f->joins = true;
    COUNT(cache_completed);
    store = judge_joined(f, h, &whole, &why);
    begin(f, &whole, store, false, why, &heads);
}
