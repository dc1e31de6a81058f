/*
 * A command under way: its deadline and its end.
 *
 * Model    the deadline is the caller's: when it comes, the caller is told. What it means for the
 *          connection is another question. When no byte moved on it since the command was sent, it
 *          is dead or the server hangs, all that is under way on it waits for nothing, and it is
 *          closed: one rule for a hung server, a peer that is gone without a FIN, and an answer cut
 *          in the middle. When other answers came, the server is merely slow, or busy with what
 *          stands before: the command alone ends, and its answer is thrown away when it comes, in
 *          its turn; for which the connection has `connect_ms` more.
 */
#include "redis/inside.h"

#include <stdlib.h>

static void on_deadline(evutil_socket_t fd, short what, void *arg);

static int
set_timer(struct redis_ask *a, int64_t us)
{
    struct timeval tv = { us / SECOND_US, us % SECOND_US };

    return event_add(&a->timer, &tv);
}

int
ask_slot(const struct redis_command *c)
{
    return c->slot > 0 ? (int)c->slot - 1 : cluster_slot(c->key);
}

struct redis_ask *
redis_ask_new(struct side *side, const struct redis_command *c)
{
    struct redis_ask *a = calloc(1, sizeof *a);
    int64_t within = c->within_us > 0 ? c->within_us : FORGET_US;

    if (a == NULL)
        return NULL;
    a->magic = ASK_MAGIC;
    a->side = side;
    a->alone = c->alone;
    a->slot = ask_slot(c);
    a->done = c->done;
    a->arg = c->arg;
    a->until_us = now_us() + within;
    event_assign(&a->timer, loop_base(side->loop), -1, 0, on_deadline, a);
    if (resp_format(c->argv, c->argc, &a->bytes, &a->n) == -1 || set_timer(a, within) == -1) {
        free(a->bytes);
        free(a);
        return NULL;
    }
    side->bytes += a->n;
    return a;
}

void
redis_ask_free(struct redis_ask *a)
{
    CHECK(a, ASK_MAGIC);
    event_del(&a->timer);
    a->side->bytes -= a->n;
    free(a->bytes);
    a->magic = 0;
    free(a);
}

void
ask_forget(struct redis_ask *a)
{
    if (a->link != NULL) {
        link_forget(a->link, a);
        return;
    }
    TAILQ_REMOVE(&a->side->topology.waiting, a, at);
    a->state = ASK_OVER;
}

static void
tell(struct redis_ask *a, struct server *s, enum redis_cause c, const struct redis_reply *reply)
{
    void (*done)(void *, enum redis_cause, const struct redis_reply *) = a->done;

    a->done = NULL;
    if (c != REDIS_OK && !a->late)
        figures_count(s, c);
    if (done != NULL)
        done(a->arg, c, reply);
}

void
redis_ask_finish(struct redis_ask *a, struct server *s, enum redis_cause c,
    const struct redis_reply *reply)
{
    CHECK(a, ASK_MAGIC);
    a->state = ASK_OVER;
    a->link = NULL;
    event_del(&a->timer);
    tell(a, s, c, reply);
    redis_ask_free(a);
}

/* Sent, and not answered in time. */
static void
overdue(struct redis_ask *a, int64_t now)
{
    struct link *l = a->link;
    struct server *s = l->node->server;

    if (a->late || l->alive_us < a->sent_us) {
        link_fail(l, REDIS_TIMEOUT, BREAKER_FAILURES, "did not answer in time");
        return;
    }
    a->until_us = now + l->node->side->r->conf.connect_ms * MS_US;
    set_timer(a, a->until_us - now);
    if (server_failed(s, 1, REDIS_TIMEOUT, "answers too late"))
        node_probe(l->node);
    tell(a, s, REDIS_TIMEOUT, NULL);
    a->late = true;
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct redis_ask *a = arg;
    int64_t now = now_us();
    struct node *n;

    (void)fd;
    (void)what;
    CHECK(a, ASK_MAGIC);
    if (now < a->until_us) {            /* the loop's clock was behind when it was set */
        set_timer(a, a->until_us - now);
        return;
    }
    if (a->state == ASK_SENT) {
        overdue(a, now);
        return;
    }
    n = a->link != NULL ? a->link->node : NULL;         /* a connection that is not there yet */
    ask_forget(a);
    if (n != NULL && server_failed(n->server, 1, REDIS_TIMEOUT, "cannot be connected to in time"))
        node_probe(n);
    redis_ask_finish(a, n != NULL ? n->server : NULL, REDIS_TIMEOUT, NULL);
}

void
redis_cancel(struct redis_ask **ap)
{
    struct redis_ask *a = *ap;
    struct link *l;

    *ap = NULL;
    if (a == NULL)
        return;
    CHECK(a, ASK_MAGIC);
    a->done = NULL;
    l = a->link;
    if (a->state == ASK_WAITING) {
        ask_forget(a);
        redis_ask_free(a);
    } else if (a->state == ASK_SENT && a->alone) {      /* it would block for nobody */
        link_forget(l, a);
        redis_ask_free(a);
        link_quit(l);
    }
}
