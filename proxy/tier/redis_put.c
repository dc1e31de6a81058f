/*
 * The Redis tier: what is stored in memory is sent there.
 *
 * Model    a SET with PX that nobody waits for: PX is what is left of the response's freshness and
 *          of the time for which it may be served stale, and at most max_ttl. What is under way is
 *          bounded in bytes, and one that is larger than that bound may be beside it; what does not
 *          fit is dropped, counted. Where what memory has now is
 *          not sent, for whatever reason, what Redis has of it goes, so that an older response is
 *          not found behind a newer one (RFC 9111 4).
 *          A marker is sent before the variant that it leads to.
 *          What is to go and is not known to be gone is asked for again when Redis is well; until
 *          then values of its cell are not used (redis.h).
 * Position of a value: that of its stamp, at the time of sending. Right behind a purge made here
 *          that is not yet in the stream, that would be too low to be of use to anybody; such a
 *          value waits until the purge has its place, for WAIT_US at most.
 * Threads  each side's loop.
 */
#include "tier/redis.h"

#include <stdlib.h>

#include "stats/stats.h"

#define BYTES_MAX ((size_t)8 << 20)     /* on their way, of a loop */
#define LATERS_US INT64_C(5000)
#define WAIT_US   INT64_C(1000000)
#define AGAIN_US  INT64_C(250000)
#define OWED_MAX  65536                 /* values that are to go, of a loop; 6 MiB */

/* Of which lease an end is to be told: that of its key, that of its variant. */
struct ends { struct rtier_id id[2]; struct rtier_token token[2]; size_t n; };

struct put {                            /* under way */
    struct put        *next, **at;      /* among the side's */
    struct rtier_side *side;
    size_t             bytes;
    struct ends        ends;
};

struct later {
    struct later  *next;
    struct object *o;                   /* a reference */
    int64_t        until_us;
    struct ends    ends;
};

struct made {                           /* of an object */
    struct rtier   *r;
    struct buf      value;              /* but for its body */
    struct rtier_id id, variant;
    struct slice    key, vary;          /* of the object, which is held */
    int64_t         keep_ms;
    bool            good;               /* ... is to be put */
    bool            waits;
};

/* ---- what is to be sent --------------------------------------------------------------------- */

static void
make(void *arg, const struct store_parts *p)
{
    struct made *m = arg;
    struct rtier *r = m->r;
    struct store_position at;

    if (p->search.n > 0 || (p->meta.flags & META_PARTIAL) ||
        body_size(p->body) > (uint64_t)r->max_object)
        return;
    m->keep_ms = rtier_keep_ms(&p->meta, wall_ms(), r->min_ms, r->max_ms);
    if (m->keep_ms <= 0 || !store_position(r->store, p->stamp, &at))
        return;
    m->waits = !store_position_settled(r->store, p->stamp);
    m->good = value_begin(p, &m->value);
    if (m->good)
        value_position(&m->value, at);
}

/* false: there is nothing to put. */
static bool
make_of(struct rtier *r, struct object *o, struct made *m)
{
    struct store_identity is = store_identity(o);

    *m = (struct made){ .r = r, .key = is.key, .vary = is.vary };
    rtier_id_of(is.key, &m->id);
    m->variant = m->id;
    if (is.vary.n > 0)
        rtier_id_of_variant(&m->id, is.vary, is.variant, &m->variant);
    return store_parts_of(r->store, o, make, m);
}

static bool
add_body(const struct body *body, struct buf *b)
{
    struct body_cursor c = { 0 };
    uint64_t size = body_size(body);
    struct iovec iov[16];

    while (c.at < size) {
        size_t n = body_pieces(body, &c, size, iov, NELEM(iov));

        for (size_t i = 0; i < n; i++) {
            buf_add(b, iov[i].iov_base, iov[i].iov_len);
            body_skip(body, &c, iov[i].iov_len);
        }
    }
    return !b->failed;
}

/* ---- sending -------------------------------------------------------------------------------- */

static void
drop_link(struct drop **list, struct drop *d)
{
    d->at = list;
    d->next = *list;
    if (d->next != NULL)
        d->next->at = &d->next;
    *list = d;
}

static void
drop_unlink(struct drop *d)
{
    *d->at = d->next;
    if (d->next != NULL)
        d->next->at = d->at;
}

static void
drop_done(struct drop *d, bool deleted)
{
    rtier_told(d->cell, deleted);
    free(d);
}

/* Redis has not said that it is gone: once more, when Redis is well. */
static void
owe(struct drop *d)
{
    struct rtier_side *side = d->side;

    if (side->nowed >= OWED_MAX) {
        drop_done(d, false);
        return;
    }
    if (side->nowed++ == 0)
        timer_set(&side->again, AGAIN_US);
    drop_link(&side->owed, d);
}

static void
on_deleted(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct drop *d = arg;

    (void)reply;
    drop_unlink(d);
    if (cause == REDIS_OK)
        drop_done(d, true);
    else
        owe(d);
}

void
rtier_delete(struct drop *d)
{
    struct rtier *r = d->side->tier;
    struct rtier_name name;
    struct slice argv[2] = { SLICE("DEL"), rtier_name(r->prefix, RTIER_VALUE, &d->id, &name) };

    if (rtier_send(r, argv, 2, argv[1], 0, on_deleted, d) != NULL)
        drop_link(&d->side->deleting, d);
    else
        owe(d);
}

void
rtier_on_again(void *arg)
{
    struct rtier_side *side = arg;
    struct drop *d = side->owed, *next;

    if (!redis_usable(side->tier->redis)) {
        timer_set(&side->again, AGAIN_US);
        return;
    }
    side->owed = NULL;
    side->nowed = 0;
    for (; d != NULL; d = next) {
        next = d->next;
        rtier_delete(d);                /* which may owe it again */
    }
}

void
rtier_deletes_end(struct rtier_side *side)
{
    struct drop *d;

    while ((d = side->deleting != NULL ? side->deleting : side->owed) != NULL) {
        drop_unlink(d);
        free(d);
    }
}

static void
end_all(struct rtier *r, const struct ends *e, bool stored)
{
    for (size_t i = 0; i < e->n; i++)
        rtier_lease_end(r, &e->id[i], &e->token[i], stored);
}

static void
on_put(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct put *p = arg;

    (void)reply;
    p->side->put_bytes -= p->bytes;
    if (p->bytes > BYTES_MAX)
        p->side->large_bytes = 0;
    if ((*p->at = p->next) != NULL)
        p->next->at = p->at;
    if (cause == REDIS_OK)
        COUNT(redis_stores);
    else
        COUNT(redis_drops);
    end_all(p->side->tier, &p->ends, cause == REDIS_OK);
    free(p);
}

static bool
set(struct rtier *r, const struct rtier_id *id, struct slice value, int64_t ms,
    void (*done)(void *arg, enum redis_cause, const struct redis_reply *), void *arg)
{
    struct rtier_name name;
    char px[20];
    const struct slice argv[] = { SLICE("SET"), rtier_name(r->prefix, RTIER_VALUE, id, &name),
        value, SLICE("PX"), { px, put_u64(px, (uint64_t)ms) } };

    return rtier_send(r, argv, NELEM(argv), argv[1], 0, done, arg) != NULL;
}

/* As long as any of the variants may be kept. */
static bool
set_marker(const struct made *m)
{
    struct buf b = { 0 };
    bool sent = rtier_marker_put(m->key, m->vary, &b) &&
        set(m->r, &m->id, buf_slice(&b), m->r->max_ms, NULL, NULL);

    buf_free(&b);
    return sent;
}

static bool
has_room(const struct rtier_side *side, size_t bytes)
{
    return bytes > BYTES_MAX ? side->large_bytes == 0 :
        side->put_bytes - side->large_bytes + bytes <= BYTES_MAX;
}

/* The end of a lease is told when the value is there, and the marker before it: both go to one
 * server. */
static bool
put_value(struct rtier_side *side, struct made *m, struct object *o, const struct ends *ends)
{
    struct rtier *r = side->tier;
    size_t bytes = m->value.n + body_size(o->body);
    bool variant = m->vary.n > 0;
    struct put *p;

    if (!has_room(side, bytes) || !add_body(o->body, &m->value) ||
        (p = malloc(sizeof *p)) == NULL)
        return false;
    value_seal(&m->value);
    *p = (struct put){ .side = side, .bytes = bytes, .ends = *ends };
    if ((variant && !set_marker(m)) ||
        !set(r, variant ? &m->variant : &m->id, buf_slice(&m->value), m->keep_ms, on_put, p)) {
        free(p);
        return false;
    }
    side->put_bytes += bytes;
    if (bytes > BYTES_MAX)
        side->large_bytes = bytes;
    p->at = &side->puts;
    if ((p->next = side->puts) != NULL)
        p->next->at = &p->next;
    side->puts = p;
    return true;
}

static void
take_ends(struct rtier *r, const struct made *m, struct ends *e)
{
    e->n = 0;
    e->id[0] = m->id;
    if (rtier_lease_take(r, &m->id, &e->token[0]))
        e->n++;
    if (m->vary.n == 0)
        return;
    e->id[e->n] = m->variant;
    if (rtier_lease_take(r, &m->variant, &e->token[e->n]))
        e->n++;
}

/* ---- those that wait ------------------------------------------------------------------------ */

static bool
wait_for_place(struct rtier_side *side, struct object *o, const struct ends *ends)
{
    struct later *l = malloc(sizeof *l);

    if (l == NULL)
        return false;
    *l = (struct later){ .o = object_ref(o), .until_us = now_us() + WAIT_US, .ends = *ends };
    if (side->laters == NULL)
        timer_set(&side->later, LATERS_US);
    *side->laters_end = l;
    side->laters_end = &l->next;
    return true;
}

/* What Redis has of it is to go. */
static void
take_back(struct rtier_side *side, const struct made *m)
{
    struct rtier_cell *cell = rtier_tell(m->r, key_hash(m->key));
    struct drop *d = malloc(sizeof *d);

    if (d == NULL) {
        rtier_told(cell, false);
        return;
    }
    *d = (struct drop){ .side = side, .cell = cell,
        .id = m->vary.n > 0 ? m->variant : m->id };
    rtier_delete(d);
}

/* It is sent, or not, and its leases end. */
static void
finish(struct rtier_side *side, struct made *m, struct object *o, const struct ends *ends)
{
    struct rtier *r = side->tier;

    if (m->good && put_value(side, m, o, ends))
        return;
    if (m->good)
        COUNT(redis_drops);
    take_back(side, m);
    end_all(r, ends, false);
}

void
rtier_on_later(void *arg)
{
    struct rtier_side *side = arg;
    struct rtier *r = side->tier;
    struct later *l;
    struct made m;

    while ((l = side->laters) != NULL) {
        bool there = make_of(r, l->o, &m);

        if (there && m.good && m.waits && now_us() < l->until_us) {
            buf_free(&m.value);
            timer_set(&side->later, LATERS_US);
            return;                     /* those behind it wait for the same, or for later ones */
        }
        if ((side->laters = l->next) == NULL)
            side->laters_end = &side->laters;
        if (there)
            finish(side, &m, l->o, &l->ends);
        else
            end_all(r, &l->ends, false);
        buf_free(&m.value);
        object_unref(&l->o);
        free(l);
    }
}

void
rtier_puts_end(struct rtier_side *side)
{
    for (struct put *p = side->puts, *next; p != NULL; p = next) {
        next = p->next;
        free(p);
    }
    side->puts = NULL;
    for (struct later *l = side->laters, *next; l != NULL; l = next) {
        next = l->next;
        object_unref(&l->o);
        free(l);
    }
    side->laters = NULL;
}

void
rtier_put(struct rtier *r, struct object *o)
{
    struct rtier_side *side = rtier_side_of(r, loop_current());
    struct ends ends;
    struct made m;

    CHECK(r, RTIER_MAGIC);
    if (side == NULL || !make_of(r, o, &m))
        return;
    take_ends(r, &m, &ends);
    if (!(m.good && (m.waits || side->laters != NULL) && wait_for_place(side, o, &ends)))
        finish(side, &m, o, &ends);
    buf_free(&m.value);
}
