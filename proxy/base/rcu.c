/*
 * Read-copy-update by liburcu, memb flavour: readers pay two stores to memory of their own, and
 * writers wait for them by membarrier(2). libevent 2.1 has no hook before epoll, so the QSBR
 * flavour, which wants one, is out.
 *
 * ThreadSanitizer does not see an order that membarrier makes. Two facts are told to it here and
 * nowhere else: what was written before rcu_store is visible after rcu_load (that it sees by
 * itself: release and acquire), and all readers' sections end before rcu_after runs: each rcu_end
 * releases, and each deferred call acquires, one common address.
 */
#include "base/base.h"

#include <pthread.h>
#ifndef WEIR_TSAN                       /* inlined readers would be instrumented: the library's own
                                           are not */
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-memb.h>

_Static_assert(offsetof(struct rcu_node, opaque) == 0 &&
    sizeof(((struct rcu_node *)0)->opaque) >= sizeof(struct rcu_head),
    "rcu_node holds an rcu_head");

#ifdef WEIR_TSAN
void __tsan_acquire(void *);
void __tsan_release(void *);
static char grace;
#define GRACE_ACQUIRE() __tsan_acquire(&grace)
#define GRACE_RELEASE() __tsan_release(&grace)
#else
#define GRACE_ACQUIRE() (void)0
#define GRACE_RELEASE() (void)0
#endif

void
rcu_enter_thread(void)
{
    urcu_memb_register_thread();
}

void
rcu_leave_thread(void)
{
    urcu_memb_unregister_thread();
}

void
rcu_begin(void)
{
    urcu_memb_read_lock();
}

void
rcu_end(void)
{
    GRACE_RELEASE();
    urcu_memb_read_unlock();
}

#ifdef WEIR_TSAN
static void
run_annotated(struct rcu_head *head)
{
    struct rcu_node *n = (struct rcu_node *)(void *)head;

    GRACE_ACQUIRE();
    n->run(n);
}

void
rcu_after(struct rcu_node *n, void (*run)(struct rcu_node *))
{
    n->run = run;
    GRACE_RELEASE();
    urcu_memb_call_rcu((struct rcu_head *)(void *)n, run_annotated);
}
#else
void
rcu_after(struct rcu_node *n, void (*run)(struct rcu_node *))
{
    urcu_memb_call_rcu((struct rcu_head *)(void *)n, (void (*)(struct rcu_head *))(void *)run);
}
#endif

void
rcu_wait(void)
{
    urcu_memb_synchronize_rcu();
    GRACE_ACQUIRE();
}

/* Callbacks run in the order of posting, on one thread, so ours runs last. (urcu_memb_barrier does
 * the same with memory of its own, whose hand-over ThreadSanitizer cannot see.) */
struct drain {
    struct rcu_node node;
    pthread_mutex_t mtx;
    pthread_cond_t  cond;
    bool            done;
};

static void
drained(struct rcu_node *n)
{
    struct drain *d = CONTAINER(n, struct drain, node);

    pthread_mutex_lock(&d->mtx);
    d->done = true;
    pthread_cond_signal(&d->cond);
    pthread_mutex_unlock(&d->mtx);
}

void
rcu_drain(void)
{
    struct drain d = { .mtx = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

    rcu_after(&d.node, drained);
    pthread_mutex_lock(&d.mtx);
    while (!d.done)
        pthread_cond_wait(&d.cond, &d.mtx);
    pthread_mutex_unlock(&d.mtx);
}
