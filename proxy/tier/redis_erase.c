/*
 * The Redis tier: what a purge took is looked for and deleted.
 *
 * Model    purges do not touch Redis: what they match is refused by whoever reads it, and ends by
 *          itself. Where the bytes are to be gone, all values under the prefix are read, one after
 *          the other, and judged as a reader would. What cannot be judged goes too: values of
 *          another version, damaged ones, and those whose position is not known here. DEL frees
 *          them at once; what Redis has written to its own files is for its operator.
 *          The marker of what varies goes with any of its variants, since it has the URL; of those
 *          that stay the next answer that is stored says again by what they vary.
 *          A cluster is gone through slot by slot, wherever each is now, one server page by page.
 *          What is put while a slot moves from one server to another may be passed over.
 * Threads  begun from any; runs on the first loop.
 */
#include "tier/redis.h"

#include <stdlib.h>

#define WITHIN_US INT64_C(5000000)      /* for each answer: nobody's request waits */
#define SLOT_KEYS "1000000"             /* most of one slot: all */
#define PATTERN_MAX (2 * RTIER_PREFIX_MAX + 8)

struct rtier_erase {
    struct loop_msg     msg;            /* to the first loop; then to the caller's */
    struct rtier       *tier;           /* borrowed */
    struct rtier_erase *next;           /* under the tier's mtx */
    struct loop        *loop;
    void              (*done)(void *arg, bool ok);
    void               *arg;
    bool                ok;
    unsigned            slot;           /* of a cluster: which it is at, and one more; 0: one
                                           server, its keys by pattern, and its cursor */
    char                pattern[PATTERN_MAX];
    size_t              pattern_n;
    struct buf          cursor;
    struct buf          keys;           /* of a page: each behind its length; */
    size_t              at;             /* ... up to here they are done */
};

static void next_key(struct rtier_erase *e);

static void
free_erase(struct rtier_erase *e)
{
    buf_free(&e->cursor);
    buf_free(&e->keys);
    free(e);
}

static void
on_over(struct loop_msg *m)
{
    struct rtier_erase *e = CONTAINER(m, struct rtier_erase, msg), **at;
    struct rtier *r = e->tier;

    pthread_mutex_lock(&r->mtx);
    for (at = &r->erases; *at != e;)
        at = &(*at)->next;
    *at = e->next;
    pthread_mutex_unlock(&r->mtx);
    e->done(e->arg, e->ok);
    free_erase(e);
}

static void
over(struct rtier_erase *e, bool ok)
{
    e->ok = ok;
    e->msg.run = on_over;
    loop_post(e->loop, &e->msg);
}

/* ---- one value ------------------------------------------------------------------------------ */

static struct slice
this_key(const struct rtier_erase *e)
{
    uint32_t n;

    memcpy(&n, e->keys.p + e->at, sizeof n);
    return (struct slice){ e->keys.p + e->at + sizeof n, n };
}

/* Of a variant: see redis_value.c. */
static bool
marker_of(const struct rtier_erase *e, struct slice key, struct slice *marker)
{
    size_t at = e->tier->prefix.n;
    const char *brace = memchr(key.p + at, '}', key.n - at);

    if (brace == NULL || brace + 1 == key.p + key.n)
        return false;
    *marker = (struct slice){ key.p, (size_t)(brace + 1 - key.p) };
    return true;
}

static void
on_deleted(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct rtier_erase *e = arg;

    (void)reply;
    if (cause != REDIS_OK) {
        over(e, false);
        return;
    }
    e->at += sizeof(uint32_t) + this_key(e).n;
    next_key(e);
}

static bool
may_stay(struct rtier *r, struct slice in)
{
    struct value_parts vp;
    struct store_position at;
    struct slice key, vary;
    struct value v;

    if (rtier_marker_read(in, &key, &vary) == VALUE_GOOD)
        return true;                    /* no response; its key goes with a variant of it */
    if (value_decode(in, &v) != VALUE_GOOD)
        return false;
    value_to_parts(&v, &vp);
    at = (struct store_position){ v.position[0], v.position[1] };
    return store_stamp_of(r->store, at, &vp.p.stamp) && store_may_keep(r->store, &vp.p);
}

static void
on_value(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct rtier_erase *e = arg;
    struct slice argv[3] = { SLICE("DEL"), this_key(e) };
    size_t argc = 2;

    if (marker_of(e, argv[1], &argv[2]))
        argc = 3;
    if (cause != REDIS_OK && cause != REDIS_TYPE) {
        over(e, false);
    } else if (cause == REDIS_OK && (reply->type == REPLY_NIL ||
            (reply->type == REPLY_STRING && may_stay(e->tier, reply->text)))) {
        e->at += sizeof(uint32_t) + argv[1].n;
        next_key(e);
    } else if (rtier_send(e->tier, argv, argc, argv[1], WITHIN_US, on_deleted, e) == NULL) {
        over(e, false);
    }
}

/* ---- all of them ---------------------------------------------------------------------------- */

static bool
is_value(const struct rtier *r, struct slice key)
{
    return slice_starts(key, r->prefix) &&
        slice_starts((struct slice){ key.p + r->prefix.n, key.n - r->prefix.n }, SLICE("o:"));
}

static bool
take_keys(struct rtier_erase *e, const struct redis_reply *r)
{
    if (r->type != REPLY_ARRAY)
        return false;
    e->keys.n = e->at = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct slice key = r->at[i]->text;
        uint32_t n = (uint32_t)key.n;

        if (!is_value(e->tier, key))
            continue;
        buf_add(&e->keys, &n, sizeof n);
        buf_adds(&e->keys, key);
    }
    return !e->keys.failed;
}

static bool
take_page(struct rtier_erase *e, const struct redis_reply *r)
{
    if (e->slot > 0)
        return take_keys(e, r);
    if (r->type != REPLY_ARRAY || r->n != 2 || r->at[0]->type != REPLY_STRING)
        return false;
    e->cursor.n = 0;
    buf_adds(&e->cursor, r->at[0]->text);
    return !e->cursor.failed && take_keys(e, r->at[1]);
}

static void
on_page(void *arg, enum redis_cause cause, const struct redis_reply *reply)
{
    struct rtier_erase *e = arg;

    if (cause != REDIS_OK || !take_page(e, reply))
        over(e, false);
    else
        next_key(e);
}

static void
next_page(struct rtier_erase *e)
{
    char slot[20];
    const struct slice scan[] = { SLICE("SCAN"), buf_slice(&e->cursor), SLICE("MATCH"),
        { e->pattern, e->pattern_n }, SLICE("COUNT"), SLICE("256") };
    const struct slice list[] = { SLICE("CLUSTER"), SLICE("GETKEYSINSLOT"),
        { slot, put_u64(slot, e->slot > 0 ? e->slot - 1 : 0) }, SLICE(SLOT_KEYS) };
    const struct redis_command c = { .argv = e->slot > 0 ? list : scan,
        .argc = e->slot > 0 ? NELEM(list) : NELEM(scan), .slot = e->slot, .within_us = WITHIN_US,
        .done = on_page, .arg = e };

    if (redis_send(e->tier->redis, &c, NULL) == NULL)
        over(e, false);
}

static bool
was_last_page(const struct rtier_erase *e)
{
    return e->slot > 0 ? e->slot == redis_slots(e->tier->redis) :
        slice_eq(buf_slice(&e->cursor), SLICE("0"));
}

static void
next_key(struct rtier_erase *e)
{
    struct slice argv[2] = { SLICE("GET"), { 0 } };

    if (e->at < e->keys.n) {
        argv[1] = this_key(e);
        if (rtier_send(e->tier, argv, 2, argv[1], WITHIN_US, on_value, e) == NULL)
            over(e, false);
    } else if (was_last_page(e)) {
        over(e, true);
    } else {
        e->slot += e->slot > 0;
        next_page(e);
    }
}

static void
on_begin(struct loop_msg *m)
{
    struct rtier_erase *e = CONTAINER(m, struct rtier_erase, msg);

    e->slot = redis_slots(e->tier->redis) > 1;
    buf_adds(&e->cursor, SLICE("0"));
    if (e->cursor.failed)
        over(e, false);
    else
        next_page(e);
}

/* Redis' own glob: the prefix as it stands, then "o:*". */
static void
make_pattern(struct rtier_erase *e)
{
    char *at = e->pattern;

    for (size_t i = 0; i < e->tier->prefix.n; i++) {
        if (strchr("*?[]^-\\", e->tier->prefix.p[i]) != NULL)
            *at++ = '\\';
        *at++ = e->tier->prefix.p[i];
    }
    memcpy(at, "o:*", 3);
    e->pattern_n = (size_t)(at + 3 - e->pattern);
}

int
rtier_erase(struct rtier *r, struct loop *l, void (*done)(void *arg, bool ok), void *arg)
{
    struct rtier_erase *e = calloc(1, sizeof *e);

    if (e == NULL)
        return -1;
    e->msg.run = on_begin;
    e->tier = r;
    e->loop = l;
    e->done = done;
    e->arg = arg;
    make_pattern(e);
    pthread_mutex_lock(&r->mtx);
    e->next = r->erases;
    r->erases = e;
    pthread_mutex_unlock(&r->mtx);
    loop_post(r->sides[0].loop, &e->msg);
    return 0;
}

void
rtier_erases_end(struct rtier *r)
{
    for (struct rtier_erase *e = r->erases, *next; e != NULL; e = next) {
        next = e->next;
        free_erase(e);
    }
    r->erases = NULL;
}
