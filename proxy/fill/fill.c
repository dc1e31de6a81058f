/*
 * Joining a flight, reading from it, leaving it.
 *
 * Model    a reader has one message to its loop under way at most; on_change then looks at all that
 *          has changed. A reader that was closed while its message is under way is freed when that
 *          arrives.
 */
#include "fill/compress.h"

#include <stdlib.h>

#include "stats/stats.h"

struct fills *
fills_new(struct store *s, struct tiers *t, struct err *e)
{
    struct fills *fs = calloc(1, sizeof *fs);

    if (fs == NULL || (fs->compressor = compressor_new(s)) == NULL) {
        free(fs);
        err_set(e, 12, "out of memory");
        return NULL;
    }
    fs->magic = FILLS_MAGIC;
    fs->store = s;
    fs->tiers = t;
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_init(&fs->shards[i].mtx, NULL);
    return fs;
}

void
fills_stop(struct fills *fs)
{
    CHECK(fs, FILLS_MAGIC);
    atomic_store(&fs->stopping, true);
    for (size_t i = 0; i < SHARDS; i++) {
        struct shard *s = &fs->shards[i];

        pthread_mutex_lock(&s->mtx);
        for (struct flight *f = s->flights; f != NULL; f = f->next)
            flight_drain(f);
        pthread_mutex_unlock(&s->mtx);
    }
}

void
fills_free(struct fills **fp)
{
    struct fills *fs = *fp;

    *fp = NULL;
    if (fs == NULL)
        return;
    compressor_free(&fs->compressor);
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_destroy(&fs->shards[i].mtx);
    fs->magic = 0;
    free(fs);
}

void
fill_compress(struct fills *fs, const struct route *route, struct object *o)
{
    CHECK(fs, FILLS_MAGIC);
    if (rcu_load(&o->forms) == NULL)
        compress_later(fs->compressor, route, o);
}

/* ---- readers --------------------------------------------------------------------------------- */

static void
run_reader(struct loop_msg *m)
{
    struct fill *r = CONTAINER(m, struct fill, msg);

    CHECK(r, FILL_MAGIC);
    atomic_store(&r->posted, false);
    if (r->closed) {
        flight_unref(&r->flight);
        r->magic = 0;
        free(r);
        return;
    }
    r->on_change(r->arg);
}

static struct fill *
reader_new(struct loop *l, const struct fill_want *w, void (*on_change)(void *), void *arg)
{
    struct fill *r = calloc(1, sizeof *r);

    if (r == NULL)
        return NULL;
    r->magic = FILL_MAGIC;
    r->loop = l;
    r->msg.run = run_reader;
    r->verdict = FILL_WAITING;
    r->request = w->request;
    r->on_change = on_change;
    r->arg = arg;
    return r;
}

/* Takes a reference to the flight and stands among its readers. Under the shard's mtx or before the
 * flight is listed. */
static void
reader_attach(struct fill *r, struct flight *f)
{
    r->flight = f;
    atomic_fetch_add(&f->refs, 1);
    pthread_mutex_lock(&f->mtx);
    r->next = f->readers;
    f->readers = r;
    if (f->phase != FLIGHT_WAITING && !atomic_exchange(&r->posted, true))
        loop_post(r->loop, &r->msg);
    pthread_mutex_unlock(&f->mtx);
}

void
fill_close(struct fill **fp)
{
    struct fill *r = *fp;
    struct flight *f;
    struct fill **at;

    *fp = NULL;
    if (r == NULL)
        return;
    CHECK(r, FILL_MAGIC);
    f = r->flight;
    if (f == NULL) {                                    /* superseded: never was anybody's reader */
        r->magic = 0;
        free(r);
        return;
    }
    pthread_mutex_lock(&f->mtx);
    for (at = &f->readers; *at != r; at = &(*at)->next)
        ;
    *at = r->next;
    pthread_mutex_unlock(&f->mtx);
    r->closed = true;
    if (r->starter)
        also_shut(f);
    flight_drain(f);
    if (atomic_exchange(&r->posted, true))
        return;                                     /* run_reader frees it */
    flight_unref(&r->flight);
    r->magic = 0;
    free(r);
}

/* The body of who was let go: what it has written already is all that it gets. */
static const struct body nothing = { .magic = BODY_MAGIC };

void
fill_look(struct fill *r, struct fill_view *v)
{
    static const enum fill_state state[] = {
        [FLIGHT_WAITING] = FILL_WAITING, [FLIGHT_HEAD] = FILL_HEAD,
        [FLIGHT_OBJECT] = FILL_OBJECT, [FLIGHT_FAULT] = FILL_FAULT,
    };
    struct flight *f = r->flight;

    CHECK(r, FILL_MAGIC);
    if (f == NULL) {
        *v = (struct fill_view){ .state = FILL_AGAIN };
        return;
    }
    pthread_mutex_lock(&f->mtx);
    *v = f->view;
    v->state = r->verdict != FILL_WAITING ? r->verdict : state[f->phase];
    if (!r->starter) {
        v->head = f->shared_head;                   /* never another's Set-Cookie */
        v->interim = (struct slice){ NULL, 0 };
    }
    if (r->let_go) {
        v->body = &nothing;
        v->complete = false;
        v->broken = true;
    }
    pthread_mutex_unlock(&f->mtx);
}

void
fill_consumed(struct fill *r, uint64_t at)
{
    struct flight *f = r->flight;

    atomic_store(&r->at, at);
    if (atomic_load(&f->paused))
        flight_drain(f);
}

void
fill_send(struct fill *r, struct slice data)
{
    if (r->flight->x != NULL)
        exchange_send(r->flight->x, data);
}

void
fill_send_end(struct fill *r, struct slice trailer)
{
    if (r->flight->x != NULL)
        exchange_send_end(r->flight->x, trailer);
}

bool
fill_full(const struct fill *r)
{
    return r->flight->x != NULL && exchange_full(r->flight->x);
}

/* ---- starting and joining -------------------------------------------------------------------- */

static struct slice
authorization(const struct fill_want *w)
{
    return http_value(w->request, HF_AUTHORIZATION);
}

static const struct key *
together(const struct fill_want *w)
{
    return w->together != NULL && w->mode == FILL_SHARED ? w->together : w->key;
}

static bool
key_is(const struct key *a, const struct key *b)
{
    return a->hash == b->hash && slice_eq(a->bytes, b->bytes);
}

/* Those that nobody joins stand in the table too. */
static bool
same_key(const struct flight *f, const struct fill_want *w)
{
    return f->mode == FILL_SHARED && key_is(&f->together, together(w)) &&
        (!f->apart || key_is(&f->key, w->key)) && slice_eq(f->range, w->range) &&
        slice_eq(f->if_range, w->if_range);
}

/* Could a purge since the flight's start match what it brings? Of the texts that a purge may name
 * one URL is a sample, so for another URL any purge counts. */
static bool
outdated(struct fills *fs, const struct flight *f, const struct fill_want *w)
{
    return key_is(&f->key, w->key) ?
        store_stamp_outdated(fs->store, f->stamp, w->key, w->match->route->id) :
        f->stamp != store_stamp(fs->store);
}

/* Under the shard's mtx: may this request wait for that flight? */
static bool
joinable(struct fills *fs, const struct flight *f, const struct fill_want *w, struct buf *scratch)
{
    struct slice auth = authorization(w);

    if (!same_key(f, w) || (f->authorization.p == NULL) != (auth.p == NULL) ||
        !slice_eq(f->authorization, auth) || outdated(fs, f, w))
        return false;
    if (f->vary.n == 0)
        return true;
    scratch->n = 0;
    sem_variant(f->vary, w->request, scratch);
    return !scratch->failed && slice_eq(buf_slice(scratch), f->variant);
}

/* What others of this URL vary by is presumed of this one too, so that variants collapse from the
 * start. */
static void
presume_vary(struct flight *f, struct slice vary)
{
    struct buf b = { 0 };

    sem_variant(vary, f->request, &b);
    f->vary = pool_slice(f->pool, vary);
    f->variant = pool_slice(f->pool, buf_slice(&b));
    if (b.failed || f->vary.p == NULL || f->variant.p == NULL)
        f->vary = f->variant = (struct slice){ NULL, 0 };
    buf_free(&b);
}

void
flight_conditions(const struct object *o, struct buf *b)
{
    char date[HTTP_DATE_LEN];

    if (o->head->etag_n > 0)
        http_put_id(b, HF_IF_NONE_MATCH,
            (struct slice){ o->head->bytes + o->head->etag_at, o->head->etag_n });
    if (o->meta.last_modified_s != HTTP_NO_DATE) {
        http_date_put(date, o->meta.last_modified_s);
        http_put_id(b, HF_IF_MODIFIED_SINCE, (struct slice){ date, sizeof date });
    }
}

static bool
copy_want(struct flight *f, const struct fill_want *w)
{
    struct buf b = { 0 };
    bool ok = true;

    f->request = http_head_copy(f->pool, w->request, w->request_bytes);
    f->send.target = pool_slice(f->pool, w->target);
    f->host = pool_slice(f->pool, w->host);
    f->via = pool_slice(f->pool, w->via);
    f->send.upgrade = pool_slice(f->pool, w->upgrade);
    if (w->content.p != NULL) {
        f->content = pool_slice(f->pool, w->content);
        ok = f->content.p != NULL;
    }
    if (w->key != NULL) {
        f->key = *w->key;
        f->together = *together(w);
        f->key.bytes = pool_slice(f->pool, f->key.bytes);
        f->together.bytes = pool_slice(f->pool, f->together.bytes);
        ok = ok && f->key.bytes.p != NULL && f->together.bytes.p != NULL;
    }
    for (size_t i = 0; i < w->match->route->nparams; i++) {
        f->match.values[i] = pool_slice(f->pool, w->match->values[i]);
        ok = ok && f->match.values[i].p != NULL;
    }
    f->range = pool_slice(f->pool, w->range);
    f->if_range = pool_slice(f->pool, w->if_range);
    ok = ok && f->range.n == w->range.n && f->if_range.n == w->if_range.n;
    w->fields(w->fields_arg, &b);
    if (f->range.n > 0)
        http_put_id(&b, HF_RANGE, f->range);
    if (f->if_range.n > 0)
        http_put_id(&b, HF_IF_RANGE, f->if_range);
    f->conditions_at = b.n;
    if (w->stale != NULL && !w->semantics.promised)
        flight_conditions(w->stale, &b);        /* else the answer were 412 (RFC 9110 13.1.2) */
    else if (w->part != NULL && part_ask(w->part, w->match->route->max_object, &b))
        f->part = w->part;
    f->send.fields = pool_slice(f->pool, buf_slice(&b));
    ok = ok && !b.failed && f->request != NULL && f->send.target.p != NULL && f->host.p != NULL &&
        f->via.p != NULL && f->send.fields.p != NULL;
    buf_free(&b);
    if (!ok)
        return false;
    f->authorization = http_value(f->request, HF_AUTHORIZATION);
    f->send.method = f->request->method;
    f->send.method_name = f->request->method_name;
    f->send.host = f->host;             /* normalised, as in the key */
    return true;
}

static struct flight *
flight_new(struct fills *fs, struct loop *l, const struct fill_want *w)
{
    struct pool *pool = pool_new();
    struct flight *f = pool != NULL ? pool_zalloc(pool, sizeof *f) : NULL;

    if (f == NULL) {
        pool_free(&pool);
        return NULL;
    }
    f->magic = FLIGHT_MAGIC;
    f->fills = fs;
    f->home = l;
    f->pool = pool;
    f->mode = w->mode;
    f->asked_in = w->asked_in;
    f->sent = w->sent;
    f->part_only = w->part_only;
    f->route = w->match->route;
    f->rules = &f->route->rules;
    f->match.route = f->route;
    f->semantics = w->semantics;
    f->also = w->also;
    f->gate = w->gate;
    f->https = w->https;
    f->view.why = w->why;
    f->send.body = w->body;
    f->send.length = w->length;
    f->send.expect = w->expect;
    f->send.once = w->once;
    f->send.first_byte_ms = f->route->conf->first_byte_ms;
    f->send.between_bytes_ms = f->route->conf->between_bytes_ms;
    if (!copy_want(f, w) || !flight_hooks(f, w->tags)) {
        pool_free(&pool);
        return NULL;
    }
    pthread_mutex_init(&f->mtx, NULL);
    f->table = route_table_ref(w->table);
    f->origin = origin_ref(w->origin);
    f->stale = w->stale != NULL ? object_ref(w->stale) : NULL;
    if (f->part != NULL)
        object_ref(f->part);
    f->stamp = store_stamp(fs->store);
    atomic_init(&f->refs, 1);                       /* the exchange's */
    stats_gauge_add(GAUGE_flights_now, 1);
    return f;
}

/* Under the shard's mtx. */
static struct flight *
find(struct fills *fs, struct shard *s, const struct fill_want *w, const struct flight **sibling)
{
    struct buf scratch = { 0 };
    struct flight *f;

    for (f = s->flights; f != NULL; f = f->next) {
        if (joinable(fs, f, w, &scratch))
            break;
        if (f->vary.n > 0 && same_key(f, w))
            *sibling = f;
    }
    buf_free(&scratch);
    return f;
}

/* Under the shard's mtx, where no flight was found: did one land since the caller looked? It
 * publishes before it leaves the table, so what the store has now tells. Who waits for an answer
 * has use for it only if it may be served as it is; who would freshen what is stored finds that
 * done by any other. */
static bool
superseded(struct fills *fs, const struct fill_want *w, bool waits)
{
    int64_t now = wall_ms();
    struct object *o = NULL;
    struct buf b = { 0 };
    struct key found;
    const char *why;
    enum sem_use use;
    bool soft, newer;

    rcu_begin();
    newer = (store_get(fs->store, w->key, w->request, now, &o, &soft) == STORE_HIT ||
        store_search(fs->store, w->key, w->request, now, &b, &found, &o, &soft) == STORE_HIT) &&
        o != w->stale;
    if (newer && waits) {
        use = sem_use(&w->semantics, &o->meta, now, soft, &why);
        newer = use == SEM_FRESH || use == SEM_STALE || use == SEM_STALE_REVALIDATE;
    }
    rcu_end();
    buf_free(&b);
    return newer;
}

enum boarding { JOINED, STARTED, SUPERSEDED, NONE_TO_JOIN, NO_MEMORY };

/* Finds a flight to join, or makes a new one (*fp) and lists it. r: the reader to attach, NULL for
 * none. */
static enum boarding
join_or_make(struct fills *fs, struct loop *l, const struct fill_want *w, struct fill *r,
    struct flight **fp)
{
    struct shard *s = w->mode == FILL_SHARED ? &fs->shards[together(w)->hash % SHARDS] : NULL;
    const struct flight *sibling = NULL;
    enum boarding how = NO_MEMORY;
    struct flight *f = NULL;

    if (s != NULL) {
        pthread_mutex_lock(&s->mtx);
        f = find(fs, s, w, &sibling);
    }
    if (f != NULL) {
        how = JOINED;
    } else if (s != NULL && superseded(fs, w, r != NULL)) {
        how = SUPERSEDED;
    } else if (w->join_only) {
        how = NONE_TO_JOIN;
    } else if ((f = flight_new(fs, l, w)) != NULL) {
        how = STARTED;
        if (w->lease != NULL) {
            f->lease = *w->lease;
            *w->lease = NULL;
        }
        if (sibling != NULL || w->vary.n > 0)
            presume_vary(f, sibling != NULL ? sibling->vary : w->vary);
        if (s != NULL)
            flight_list(f);
        if (r != NULL)
            r->starter = true;
    }
    if (f != NULL && r != NULL) {
        r->key = s != NULL && !key_is(&f->key, w->key) ? w->key : NULL;
        reader_attach(r, f);
    }
    if (s != NULL)
        pthread_mutex_unlock(&s->mtx);
    *fp = f;
    return how;
}

struct fill *
fill_open(struct fills *fs, struct loop *l, const struct fill_want *w,
    void (*on_change)(void *arg), void *arg, bool *collapsed)
{
    struct fill *r = reader_new(l, w, on_change, arg);
    struct flight *f = NULL;
    enum boarding how = r != NULL ? join_or_make(fs, l, w, r, &f) : NO_MEMORY;

    CHECK(fs, FILLS_MAGIC);
    *collapsed = how == JOINED;
    switch (how) {
    case JOINED:
        COUNT(collapsed);
        break;
    case STARTED:
        flight_take_off(f);
        break;
    case SUPERSEDED:
        break;
    case NONE_TO_JOIN:
        free(r);
        return NULL;
    case NO_MEMORY:
        COUNT(memory_failures);
        free(r);
        return NULL;
    }
    return r;
}

void
fill_behind(struct fills *fs, struct loop *l, const struct fill_want *w)
{
    struct flight *f;

    if (join_or_make(fs, l, w, NULL, &f) == STARTED)
        flight_look_first(f);
}

struct fill_span
fill_span(const struct fill *r)
{
    return r->flight != NULL ? r->flight->asked_in : (struct fill_span){ 0, 0, 0 };
}

const char *
fill_server(const struct fill *r, struct exchange_times *t)
{
    const struct flight *f = r->flight;

    if (!r->starter)
        return "";
    if (f->x != NULL) {
        exchange_times(f->x, t);
        return exchange_server(f->x);
    }
    *t = f->times;
    return f->server != NULL ? f->server : "";
}
