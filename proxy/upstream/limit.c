/*
 * Time limits that cost nothing while they move.
 *
 * Model    a limit is set for each phase of each request, and nearly always moves on before it
 *          rings. So the libevent timer is armed only when there is none that rings in time; when
 *          it rings for a limit that has moved away, it is armed again for where that is now.
 * Threads  the loop's own.
 */
#include "upstream/internal.h"

static void
deadline_arm(struct deadline *d, int64_t now)
{
    int64_t after = d->at_us > now ? d->at_us - now : 0;
    struct timeval tv = { .tv_sec = after / SECOND_US, .tv_usec = after % SECOND_US };

    if (event_add(&d->ev, &tv) == 0)
        d->armed_us = d->at_us;
}

static void
on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct deadline *d = arg;
    int64_t now = now_us();

    (void)fd;
    (void)what;
    d->armed_us = INT64_MAX;
    if (d->at_us == INT64_MAX)
        return;
    if (d->at_us > now) {
        deadline_arm(d, now);
        return;
    }
    d->at_us = INT64_MAX;
    d->run(d->arg);
}

void
deadline_init(struct deadline *d, struct event_base *b, void (*run)(void *), void *arg)
{
    d->at_us = d->armed_us = INT64_MAX;
    d->run = run;
    d->arg = arg;
    event_assign(&d->ev, b, -1, 0, on_deadline, d);
}

void
deadline_set(struct deadline *d, int64_t at_us)
{
    d->at_us = at_us;
    if (at_us < d->armed_us)
        deadline_arm(d, now_us());
}

void
deadline_clear(struct deadline *d)
{
    d->at_us = INT64_MAX;
}

void
deadline_fini(struct deadline *d)
{
    event_del(&d->ev);
    d->at_us = d->armed_us = INT64_MAX;
}
