/*
 * Tickets: a hook's leave to say later that its request may go on.
 *
 * Model    a ticket has two owners, its request and who resumes it, and goes with the last of them.
 *          Resuming posts to the request's loop, which outlives all its requests; where the request
 *          has dropped the ticket nothing is posted, so that a loop that has ended meanwhile is
 *          not touched. What is posted finds the request gone or there: both happen on its loop.
 * Threads  ticket_resume: any, once. The others: the request's loop.
 */
#include "plugin/inside.h"

#include <stdlib.h>

static void
unref(struct plugin_ticket *t)
{
    CHECK(t, TICKET_MAGIC);
    if (atomic_fetch_sub(&t->refs, 1) > 1)
        return;
    t->magic = 0;
    free(t);
}

static void
on_resumed(struct loop_msg *m)
{
    struct plugin_ticket *t = CONTAINER(m, struct plugin_ticket, msg);
    struct weir_request *r = t->request;

    CHECK(t, TICKET_MAGIC);
    t->resumed = true;
    unref(t);
    if (r != NULL)
        r->wake(r->arg);
}

static void
on_late(void *arg)
{
    struct plugin_ticket *t = arg;

    CHECK(t, TICKET_MAGIC);
    t->late = true;
    t->request->wake(t->request->arg);
}

struct plugin_ticket *
ticket_new(struct weir_request *r, int64_t timeout_ms)
{
    struct plugin_ticket *t = calloc(1, sizeof *t);

    if (t == NULL)
        return NULL;
    t->magic = TICKET_MAGIC;
    atomic_init(&t->refs, 2);
    t->loop = r->loop;
    t->msg.run = on_resumed;
    t->request = r;
    if (timer_init(&t->timer, r->loop, on_late, t) == -1 ||
        timer_set(&t->timer, timeout_ms * 1000) == -1) {
        timer_fini(&t->timer);
        free(t);
        return NULL;
    }
    return t;
}

void
ticket_resume(struct plugin_ticket *t)
{
    CHECK(t, TICKET_MAGIC);
    if (atomic_load(&t->left))
        unref(t);
    else
        loop_post(t->loop, &t->msg);
}

void
ticket_drop(struct plugin_ticket **tp)
{
    struct plugin_ticket *t = *tp;

    *tp = NULL;
    if (t == NULL)
        return;
    timer_fini(&t->timer);
    t->request = NULL;
    atomic_store(&t->left, true);
    unref(t);
}
