/*
 * The event loop: a thread's libevent base and its inbox.
 *
 * Model    the inbox is a lock-free stack that posters push to and the loop takes whole and
 *          reverses, so messages run in the order of posting. The post that finds the stack empty
 *          wakes the loop: through an eventfd, or, on the loop's own thread, by making the event
 *          active, which costs no system call.
 * Threads  loop_post and loop_stop from any; everything else on the loop's own.
 */
#include "base/base.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct loop {
    uint32_t           magic;
#define LOOP_MAGIC 0x10090100u
    unsigned           index;
    struct event_base *base;            /* owned */
    struct event      *wake;            /* owned */
    int                fd;              /* eventfd */
    bool               local;           /* loop's thread only: made active without the eventfd */
    atomic_bool        stopping;
    _Atomic(struct loop_msg *) inbox;   /* newest first */
};

static _Thread_local struct loop *current;

static void
wake(struct loop *l)
{
    uint64_t one = 1;

    if (write(l->fd, &one, sizeof one) < 0) {
        /* EAGAIN: the counter is full, so the loop is awake already */
    }
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct loop *l = arg;
    struct loop_msg *m, *list = NULL;
    uint64_t count;

    (void)what;
    if (!l->local && read(fd, &count, sizeof count) < 0) {
        /* woken by a post whose eventfd write was already taken */
    }
    l->local = false;
    m = atomic_exchange(&l->inbox, NULL);
    while (m != NULL) {                 /* oldest first */
        struct loop_msg *next = m->next;

        m->next = list;
        list = m;
        m = next;
    }
    while (list != NULL) {
        m = list;
        list = m->next;
        m->run(m);
    }
    if (atomic_load(&l->stopping))
        event_base_loopbreak(l->base);
}

struct loop *
loop_new(unsigned index, struct err *e)
{
    struct loop *l = calloc(1, sizeof *l);
    struct event_config *cfg = event_config_new();

    if (l == NULL || cfg == NULL)
        goto fail;
    l->magic = LOOP_MAGIC;
    l->index = index;
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    l->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->base = event_base_new_with_config(cfg);
    if (l->fd == -1 || l->base == NULL)
        goto fail;
    l->wake = event_new(l->base, l->fd, EV_READ | EV_PERSIST, on_wake, l);
    if (l->wake == NULL || event_add(l->wake, NULL) != 0)
        goto fail;
    event_config_free(cfg);
    return l;

fail:
    err_set(e, errno, "event loop: %s", strerror(errno));
    if (cfg != NULL)
        event_config_free(cfg);
    loop_free(&l);
    return NULL;
}

void
loop_free(struct loop **lp)
{
    struct loop *l = *lp;

    *lp = NULL;
    if (l == NULL)
        return;
    if (l->wake != NULL)
        event_free(l->wake);
    if (l->base != NULL)
        event_base_free(l->base);
    if (l->fd > 0)
        close(l->fd);
    l->magic = 0;
    free(l);
}

struct event_base *
loop_base(struct loop *l)
{
    CHECK(l, LOOP_MAGIC);
    return l->base;
}

unsigned
loop_index(const struct loop *l)
{
    CHECK(l, LOOP_MAGIC);
    return l->index;
}

struct loop *
loop_current(void)
{
    return current;
}

int
loop_run(struct loop *l)
{
    int rc;

    CHECK(l, LOOP_MAGIC);
    current = l;
    rcu_enter_thread();
    rc = event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY);
    rcu_leave_thread();
    current = NULL;
    return rc == -1 ? -1 : 0;
}

void
loop_stop(struct loop *l)
{
    CHECK(l, LOOP_MAGIC);
    atomic_store(&l->stopping, true);
    wake(l);
}

void
loop_post(struct loop *l, struct loop_msg *m)
{
    struct loop_msg *head = atomic_load_explicit(&l->inbox, memory_order_relaxed);

    CHECK(l, LOOP_MAGIC);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak(&l->inbox, &head, m));
    if (head != NULL)
        return;
    if (current == l) {
        l->local = true;
        event_active(l->wake, EV_READ, 0);
    } else {
        wake(l);
    }
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct timer *t = arg;

    (void)fd;
    (void)what;
    t->run(t->arg);
}

int
timer_init(struct timer *t, struct loop *l, void (*run)(void *), void *arg)
{
    t->run = run;
    t->arg = arg;
    t->ev = event_new(loop_base(l), -1, 0, on_timer, t);
    return t->ev != NULL ? 0 : -1;
}

int
timer_set(struct timer *t, int64_t after_us)
{
    struct timeval tv;

    if (after_us < 0)
        after_us = 0;
    tv.tv_sec = after_us / 1000000;
    tv.tv_usec = after_us % 1000000;
    return t->ev != NULL ? event_add(t->ev, &tv) : -1;
}

void
timer_clear(struct timer *t)
{
    if (t->ev != NULL)
        event_del(t->ev);
}

void
timer_fini(struct timer *t)
{
    if (t->ev != NULL)
        event_free(t->ev);
    t->ev = NULL;
}
