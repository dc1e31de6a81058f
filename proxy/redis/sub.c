/*
 * Subscriptions: a connection each, made again whenever it is lost, with backoff and jitter.
 *
 * Model    `gap` is set when a subscription that was in force ends; once it is in force again the
 *          caller is told that something may be missing. A PING when it has been quiet finds
 *          out that the peer is gone. In a cluster any node will do: what is published reaches all.
 */
#include "redis/inside.h"

#include <stdlib.h>

struct redis_sub {
    uint32_t        magic;
#define SUB_MAGIC 0x4ed155b0u
    TAILQ_ENTRY(redis_sub) at;          /* in side.subs */
    struct side    *side;               /* borrowed */
    struct link    *link;               /* borrowed; NULL: `again` makes one */
    struct event    again;
    int64_t         backoff_us;
    bool            sentinel;           /* at a sentinel */
    bool            inforce, gap;
    void          (*message)(void *arg, struct slice payload);
    void          (*lost)(void *arg);
    void           *arg;
    size_t          n;
    char            channel[];
};

static void
wait_again(struct redis_sub *s, int64_t us)
{
    struct timeval tv = { us / SECOND_US, us % SECOND_US };

    event_add(&s->again, &tv);
}

static void
on_again(evutil_socket_t fd, short what, void *arg)
{
    struct redis_sub *s = arg;
    enum redis_cause why;
    struct node *n;

    (void)fd;
    (void)what;
    CHECK(s, SUB_MAGIC);
    n = s->sentinel ? sentinel_any(s->side) : side_route(s->side, -1, &why);
    s->link = n != NULL ? link_new(n, true) : NULL;
    if (s->link != NULL)
        s->link->sub = s;
    else
        wait_again(s, backoff_next(&s->backoff_us));
}

struct redis_sub *
sub_new(struct side *side, struct slice channel, bool sentinel,
    void (*message)(void *arg, struct slice payload), void (*lost)(void *arg), void *arg)
{
    struct redis_sub *s = calloc(1, sizeof *s + channel.n);

    if (s == NULL)
        return NULL;
    s->magic = SUB_MAGIC;
    s->side = side;
    s->sentinel = sentinel;
    s->message = message;
    s->lost = lost;
    s->arg = arg;
    s->n = channel.n;
    memcpy(s->channel, channel.p, channel.n);
    event_assign(&s->again, loop_base(s->side->loop), -1, 0, on_again, s);
    TAILQ_INSERT_TAIL(&s->side->subs, s, at);
    wait_again(s, 0);
    return s;
}

struct redis_sub *
redis_subscribe(struct redis *r, struct slice channel,
    void (*message)(void *arg, struct slice payload), void (*lost)(void *arg), void *arg)
{
    return sub_new(side_here(r), channel, false, message, lost, arg);
}

void
redis_unsubscribe(struct redis_sub **sp)
{
    struct redis_sub *s = *sp;

    *sp = NULL;
    if (s == NULL)
        return;
    CHECK(s, SUB_MAGIC);
    event_del(&s->again);
    TAILQ_REMOVE(&s->side->subs, s, at);
    if (s->link != NULL) {
        s->link->sub = NULL;
        link_quit(s->link);
    }
    s->magic = 0;
    free(s);
}

void
sub_ready(struct redis_sub *s)
{
    struct slice argv[2] = { SLICE("SUBSCRIBE"), { s->channel, s->n } };
    char *bytes;
    size_t n;

    if (resp_format(argv, 2, &bytes, &n) == -1) {
        link_fail(s->link, REDIS_FULL, 0, "memory is out");
        return;
    }
    link_write(s->link, bytes, n);
    free(bytes);
}

void
sub_lost(struct redis_sub *s)
{
    s->link = NULL;
    s->gap = s->gap || s->inforce;
    s->inforce = false;
    wait_again(s, backoff_next(&s->backoff_us));
}

/* A push is an array: what it is, the channel, and what it brings. */
void
sub_reply(struct redis_sub *s, const struct redis_reply *r)
{
    struct slice what = r->type == REPLY_ARRAY && r->n > 0 ? r->at[0]->text : (struct slice){ 0 };

    if (r->type == REPLY_ERROR) {
        server_said(s->link->node->server, cause_of(r), r->text);
        link_fail(s->link, cause_of(r), 0, "denies the subscription");
    } else if (slice_eq(what, SLICE("message")) && r->n == 3) {
        s->message(s->arg, r->at[2]->text);
    } else if (slice_eq(what, SLICE("subscribe"))) {
        bool gap = s->gap;

        s->inforce = true;
        s->gap = false;
        s->backoff_us = 0;
        if (gap && s->lost != NULL)
            s->lost(s->arg);
    }
}
