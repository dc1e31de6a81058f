/*
 * A flight: the fetch itself, on its home loop.
 *
 * Model    WAITING until the response's head, then HEAD (body growing), OBJECT (a 304 freshened the
 *          stored one) or FAULT. Publication order: the store first, then the flight leaves the
 *          table, so that who comes finds one or the other.
 * Not here what a response's head decides (response.c), a 304 (fresh.c), the way into the store
 *          (publish.c), how fast a body that is not stored comes (pace.c), readers (fill.c),
 *          what others may have brought before it takes off (first.c), content codings
 *          (compress.c, decode.c).
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

static const struct exchange_fault plugin_failed = { .status = 502,
    .cause = "proxy_internal_error", .detail = "a plugin failed at the response", .reached = true };

struct shard *
flight_shard(const struct flight *f)
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
    struct shard *s = flight_shard(f);

    f->next = s->flights;
    s->flights = f;
    f->listed = true;
    atomic_fetch_add(&f->refs, 1);
}

void
flight_unlist(struct flight *f)
{
    struct shard *s = flight_shard(f);
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
    tier_release(&f->lease);
    if (gone != NULL)
        flight_unref(&gone);
}

/* Under f->mtx. */
void
flight_wake(struct flight *f)
{
    for (struct fill *r = f->readers; r != NULL; r = r->next)
        if (!atomic_exchange(&r->posted, true))
            loop_post(r->loop, &r->msg);
}

void
flight_landed(struct flight *f)
{
    struct flight *ref = f;

    if (f->x != NULL) {
        exchange_times(f->x, &f->times);
        f->server = exchange_server(f->x);
    }
    timer_fini(&f->patience);
    exchange_cancel(&f->x);
    tier_cancel(&f->ask);
    flight_unlist(f);
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
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
}

/* Gives the exchange up for a fault of ours. */
static void
give_up(struct flight *f, const struct exchange_fault *fault)
{
    fail(f, fault);
    flight_landed(f);
}

void
flight_no_memory(struct flight *f)
{
    COUNT(memory_failures);
    give_up(f, &no_memory);
}

void
flight_stamp(struct flight *f)
{
    pthread_mutex_lock(&flight_shard(f)->mtx);
    f->stamp = store_stamp(f->fills->store);
    pthread_mutex_unlock(&flight_shard(f)->mtx);
}

/* Asks once more, for the whole: the 304 was about something that we do not have any more, or what
 * is stored in part and what came do not belong together. */
void
flight_ask_again(struct flight *f)
{
    exchange_cancel(&f->x);
    object_unref(&f->stale);
    object_unref(&f->part);
    f->again = true;
    flight_stamp(f);
    flight_take_off(f);
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
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
}

/* Readers see that this is so now; NULL: that there is something to do. */
static void
tell(struct flight *f, bool *what)
{
    pthread_mutex_lock(&f->mtx);
    if (what != NULL)
        *what = true;
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
}

static void
on_continue(void *arg)
{
    struct flight *f = arg;

    tell(f, &f->view.want_body);
}

static void
on_head(void *arg, const struct http_head *h)
{
    struct flight *f = arg;

    bool fresh = h->status == 304 && f->stale != NULL && !f->semantics.promised;

    if (!fresh && (h = flight_hooks_response(f, h)) == NULL) {
        give_up(f, &plugin_failed);
        return;
    }
    if (fresh)
        fresh_304(f, h);
    else if (f->part != NULL && part_answers(f, h))
        response_rest(f, h);
    else if (f->part != NULL && (h->status == 206 || h->status == 416 || h->status == 304))
        flight_ask_again(f);
    else if ((h = decode_head(f, h)) != NULL)
        response_head(f, h);
    else
        flight_no_memory(f);
}

/* A fetch that nobody could join stood in no table while it had its reader; now that it goes on for
 * the store alone, fills_stop must find it. It stays one that nobody joins. */
static void
list_orphan(struct flight *f)
{
    struct shard *s = flight_shard(f);
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
    if (!none)
        return false;
    flight_landed(f);
    return true;
}

static void
run_drain(struct loop_msg *m)
{
    struct flight *f = CONTAINER(m, struct flight, drain), *ref = f;

    atomic_store(&f->drain_posted, false);
    if (f->x != NULL || f->ask != NULL) {
        list_orphan(f);                 /* before `stopping` is read: one of both sees the other */
        if (!abandoned(f) && f->x != NULL)
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
        response_unstorable(f, f->view.response, why);
        flight_unlist(f);
    } else if (size > f->held && !store_hold(f->fills->store, &f->held, body_held(f->body))) {
        response_no_room(f, &why);
    } else {
        return;
    }
    pthread_mutex_lock(&f->mtx);
    atomic_store(&f->storing, false);
    if (f->view.meta != NULL) {         /* else it was kept for a GET of its own alone (also.c) */
        f->view.meta = NULL;
        f->view.why = why;
    }
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
        flight_no_memory(f);
        return;
    }
    if (rc != 0) {
        give_up(f, &no_gzip);
        return;
    }
    tell(f, NULL);
    if (!abandoned(f))
        flight_pace(f);
}

static void
on_drain(void *arg)
{
    tell(arg, NULL);
}

static void
on_half_close(void *arg)
{
    struct flight *f = arg;

    tell(f, &f->view.half_closed);
}

static void
on_fault(void *arg, const struct exchange_fault *fault)
{
    struct flight *f = arg;

    fail(f, fault);
    flight_landed(f);
}

static void
on_end(void *arg, struct slice trailer)
{
    struct flight *f = arg;
    bool storing = atomic_load(&f->storing);

    assert(f->phase != FLIGHT_WAITING);     /* on_head came first */
    if (f->phase == FLIGHT_OBJECT) {
        flight_landed(f);
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
        publish_seal(f);
    if (storing && f->mode != FILL_PRIVATE)
        publish_fetched(f);
    if (storing)
        also_ended(f);
    trailer = f->gunzip == NULL ? pool_slice(f->pool, trailer) : (struct slice){ NULL, 0 };
    pthread_mutex_lock(&f->mtx);
    f->view.complete = true;
    f->view.stored = f->mode != FILL_PRIVATE && atomic_load(&f->storing);
    f->view.trailer = trailer.p != NULL ? trailer : (struct slice){ NULL, 0 };
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
    flight_landed(f);
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
    else
        COUNT(flights);
    f->request_ms = wall_ms();
    f->x = exchange_start(f->origin, f->home, &x, &events, f);
    if (f->x != NULL && f->content.p != NULL) {
        exchange_send(f->x, f->content);
        exchange_send_end(f->x, (struct slice){ NULL, 0 });
    }
    if (f->x != NULL)
        return;
    fail(f, &no_memory);
    flight_landed(f);
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
