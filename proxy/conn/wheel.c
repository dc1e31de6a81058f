/*
 * Deadlines of connections: a timer wheel, one a worker, ticking every 50 ms.
 *
 * Model    setting a deadline later than the slot that a connection stands in costs one store: the
 *          slot, when its time comes, moves the connection on (lazy). Only an earlier deadline
 *          moves it at once. So a request on a busy connection does no timer work. A deadline
 *          fires up to one tick late.
 */
#include "conn/priv.h"

void
wheel_remove(struct conn *c)
{
    if (c->slot == 0)
        return;
    *c->wheel_prev = c->wheel_next;
    if (c->wheel_next != NULL)
        c->wheel_next->wheel_prev = c->wheel_prev;
    c->slot = 0;
}

static void
insert(struct conn *c)
{
    struct conn_worker *w = c->worker;
    int64_t ticks = (c->deadline_us - w->wheel_us + WHEEL_US - 1) / WHEEL_US;
    unsigned slot;

    if (ticks < 1)
        ticks = 1;
    if (ticks >= WHEEL_SLOTS)
        ticks = WHEEL_SLOTS - 1;
    slot = (w->wheel_at + (unsigned)ticks) % WHEEL_SLOTS;
    c->slot = slot + 1;
    c->wheel_next = w->wheel[slot];
    c->wheel_prev = &w->wheel[slot];
    if (c->wheel_next != NULL)
        c->wheel_next->wheel_prev = &c->wheel_next;
    w->wheel[slot] = c;
}

/* When the wheel will look at the connection. */
static int64_t
looked_at(const struct conn *c)
{
    unsigned ticks = (c->slot - 1 + WHEEL_SLOTS - c->worker->wheel_at) % WHEEL_SLOTS;

    return c->worker->wheel_us + (int64_t)ticks * WHEEL_US;
}

void
wheel_set(struct conn *c, int64_t now, int64_t after_us)
{
    c->deadline_us = after_us > 0 ? now + after_us : 0;
    if (c->deadline_us == 0 || (c->slot != 0 && looked_at(c) <= c->deadline_us + WHEEL_US))
        return;
    wheel_remove(c);
    insert(c);
}

static void
turn(struct conn_worker *w, int64_t now)
{
    struct conn *c, *next;

    w->wheel_at = (w->wheel_at + 1) % WHEEL_SLOTS;
    w->wheel_us += WHEEL_US;
    c = w->wheel[w->wheel_at];
    w->wheel[w->wheel_at] = NULL;
    if (c != NULL)
        c->wheel_prev = &c;
    while (c != NULL) {
        next = c->wheel_next;
        if (next != NULL)
            next->wheel_prev = &c;              /* the list's head is here while we walk it */
        c->slot = 0;
        struct conn *this = c;
        c = next;
        if (this->deadline_us == 0)
            continue;
        if (this->deadline_us <= now)
            conn_expired(this);
        else
            insert(this);
    }
}

static void
on_tick(void *arg)
{
    struct conn_worker *w = arg;
    int64_t now = now_us();

    for (unsigned i = 0; i < WHEEL_SLOTS && w->wheel_us + WHEEL_US <= now; i++)
        turn(w, now);
    if (w->wheel_us + WHEEL_US <= now)          /* the machine slept for over a minute */
        w->wheel_us = now;
    timer_set(&w->tick, WHEEL_US);
}

int
wheel_start(struct conn_worker *w)
{
    w->wheel_us = now_us();
    if (timer_init(&w->tick, w->loop, on_tick, w) == -1)
        return -1;
    return timer_set(&w->tick, WHEEL_US);
}

void
wheel_stop(struct conn_worker *w)
{
    timer_fini(&w->tick);
}
