/*
 * Pacing: how fast a body that is not stored may come.
 *
 * Model    what everybody has is freed, and the origin is held back while a reader is more than
 *          WINDOW behind. A lone reader may take its time: that is back-pressure. Of several, one
 *          that stands still would hold all others up until its client's `timeout.send`: who is a
 *          WINDOW behind for PATIENCE_US, and in that time took less than a WINDOW, while another
 *          waits, is let go. It sees a body that broke off. Who is slow but moves is waited for.
 * Threads  the home loop. A reader that is let go may be in the midst of writing what it has seen:
 *          its bytes stay until it has left.
 */
#include "fill/flight.h"

#include "stats/stats.h"

/* A reader is seen to move when its socket has room again: on Linux that is when a third of the
 * send buffer is free, some 1 MB at most. So who reads 350 kB/s or more is never taken for one that
 * stands still. */
#define PATIENCE_US 3000000

/* Bytes that the slowest reader has done with; with no reader, all of them. all: also of those who
 * were let go. */
static uint64_t
slowest(struct flight *f, bool all)
{
    uint64_t at = body_size(f->body);

    pthread_mutex_lock(&f->mtx);
    for (const struct fill *r = f->readers; r != NULL; r = r->next) {
        uint64_t mine = atomic_load(&r->at);

        if (r->verdict == FILL_WAITING && (all || !r->let_go) && mine < at)
            at = mine;
    }
    pthread_mutex_unlock(&f->mtx);
    return at;
}

/* Is it more than a WINDOW behind? */
static bool
behind(const struct fill *r, uint64_t size)
{
    return size - atomic_load(&r->at) > WINDOW;
}

/* Lets go who stood still since the last look, if another waits for more. */
static void
let_go(struct flight *f)
{
    uint64_t size = body_size(f->body), at;
    bool waits = false;

    pthread_mutex_lock(&f->mtx);
    for (const struct fill *r = f->readers; r != NULL; r = r->next)
        waits = waits || (r->verdict == FILL_WAITING && !r->let_go && !behind(r, size));
    for (struct fill *r = f->readers; r != NULL && waits; r = r->next) {
        at = atomic_load(&r->at);
        if (r->verdict != FILL_WAITING || r->let_go || !behind(r, size) ||
            at - r->seen_at >= WINDOW)
            continue;
        r->let_go = true;
        COUNT(readers_let_go);
        if (!atomic_exchange(&r->posted, true))
            loop_post(r->loop, &r->msg);
    }
    pthread_mutex_unlock(&f->mtx);
}

/* From here on it is watched who moves. */
static void
watch(struct flight *f)
{
    pthread_mutex_lock(&f->mtx);
    for (struct fill *r = f->readers; r != NULL; r = r->next)
        r->seen_at = atomic_load(&r->at);
    pthread_mutex_unlock(&f->mtx);
    f->watching = timer_set(&f->patience, PATIENCE_US) == 0;
}

static void
on_patience(void *arg)
{
    struct flight *f = arg;

    f->watching = false;
    let_go(f);
    flight_pace(f);
}

/* A private flight has one reader, and needs no watch. */
static void
watch_while(struct flight *f, bool pause)
{
    if (pause == f->watching || f->mode == FILL_PRIVATE)
        return;
    if (!pause) {
        timer_clear(&f->patience);
        f->watching = false;
    } else if (f->patience.ev != NULL || timer_init(&f->patience, f->home, on_patience, f) == 0) {
        watch(f);
    }
}

/* `paused` is set before the readers are looked at again: one that moves on after that sees it and
 * posts. The segment of the byte before the slowest stays: a cursor may still rest at its end. */
void
flight_pace(struct flight *f)
{
    uint64_t min, all;
    bool pause;

    if (atomic_load(&f->storing) || f->body == NULL || f->x == NULL)
        return;
    all = slowest(f, true);
    if (all > 0)
        body_trim(f->body, all - 1);
    if (f->held > body_held(f->body))
        store_hold(f->fills->store, &f->held, body_held(f->body));
    min = slowest(f, false);
    pause = body_size(f->body) - min > WINDOW;
    if (pause && !atomic_exchange(&f->paused, true))
        pause = body_size(f->body) - slowest(f, false) > WINDOW;
    if (!pause)
        atomic_store(&f->paused, false);
    watch_while(f, pause);
    exchange_pause(f->x, pause);
}
