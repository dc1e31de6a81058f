/*
 * A purge against a put, a lookup and a freshening, interleaved at each of their steps.
 *
 * The room's sources are compiled here once more, with a hook between their steps; at the step that
 * a case names, the other operation runs from beginning to end (or, where it needs a lock that is
 * held, up to that lock, and on once it is free). Whatever the order, when the purge has returned
 * no lookup finds what was asked for before it.
 */
#define STORE_STEPS
#include "store/body.c"
#include "store/node.c"
#undef CAP_MIN
#include "store/table.c"
#undef CAP_MIN
#include "store/queue.c"
#include "store/tags.c"
#define get state_get
#include "store/state.c"
#undef get
#include "store/store.c"
#include "store/put.c"
#include "store/variant.c"
#include "store/sweep.c"

#include <semaphore.h>

#define put test_put_
#include "store_util.h"

void (*store_step)(const char *where);

static struct store *s;
static const char *step;            /* where the other one comes in */
static void (*other)(void);
static bool came_in, first_locks;   /* does the first one hold a lock at the step? */
static _Thread_local enum { NEITHER, FIRST, OTHER } role;   /* neither: the sweeper */
static pthread_t thread;
static void *aside(void *arg);
static sem_t far_enough;

static void
on_step(const char *where)
{
    if (role == OTHER) {
        if (!first_locks)
            return;
        if (strcmp(where, "purge: published") == 0 || strcmp(where, "compare: rules") == 0)
            sem_post(&far_enough);      /* a lock may come next */
        return;
    }
    if (role == NEITHER || came_in || strcmp(where, step) != 0)
        return;
    came_in = true;
    pthread_create(&thread, NULL, aside, NULL);
    sem_wait(&far_enough);
}

/* ---- the operations ------------------------------------------------------------------------- */

static const struct purge_case {
    const char *what;
    struct store_purge p;
    const char *key;
} purges[] = {
    { "url", { STORE_PURGE_URL, SLICE("http://h/a"), 0, false, false, false }, "http://h/a" },
    { "url of a key with parts", { STORE_PURGE_URL, SLICE("http://h/a"), 0, false, false, false },
        "http://h/a|part" },
    { "tag", { STORE_PURGE_TAG, SLICE("t"), 0, false, false, false }, "http://h/a" },
    { "prefix", { STORE_PURGE_PREFIX, SLICE("http://h/"), 0, false, false, false }, "http://h/a" },
    { "pattern", { STORE_PURGE_PATTERN, SLICE("/*"), 0, false, false, false }, "http://h/a" },
    { "route", { STORE_PURGE_ROUTE, { 0 }, 7, false, false, false }, "http://h/a" },
    { "all", { STORE_PURGE_ALL, { 0 }, 0, false, false, false }, "http://h/a" },
};
static const struct purge_case *now;
static bool soft;
static uint64_t stamp;

static void
do_purge(void)
{
    struct store_purge p = now->p;
    struct store_purged r;

    p.soft = soft;
    assert_int_equal(store_purge(s, &p, &r), 0);
}

static void
do_put(void)
{
    put_out(s, (struct test_put){ .key = now->key, .tags = { "t" }, .route_id = 7, .stamp = stamp },
        NULL);
}

static void
do_lookup(void)
{
    (void)get(s, now->key);
}

static void
do_sweep(void)
{
    store_visit_all(s, sweep_node, NULL);
    purge_forget(s, store_stamp(s));
}

/* The other operation has a thread of its own: where the first one holds a lock, it goes up to
 * there. */
static void *
aside(void *arg)
{
    (void)arg;
    role = OTHER;
    rcu_enter_thread();
    other();
    rcu_leave_thread();
    sem_post(&far_enough);
    return NULL;
}

/* ---- the walk ------------------------------------------------------------------------------- */

static void
walk(void (*first)(void), const char *where, void (*second)(void))
{
    step = where;
    other = second;
    came_in = false;
    first_locks = strncmp(where, "judge", 5) != 0 && strcmp(where, "put: prepared") != 0 &&
        strcmp(where, "purge: published") != 0;
    sem_init(&far_enough, 0, 0);
    role = FIRST;
    first();
    role = NEITHER;
    if (came_in)
        pthread_join(thread, NULL);
    sem_destroy(&far_enough);
}

static void
nothing_old_is_served(const char *first, const char *where)
{
    bool was_soft = false;
    enum store_answer a = get_at(s, now->key, NULL, 0, NULL, &was_soft);

    if (a == STORE_HIT && !was_soft)
        fail_msg("%s, %s at '%s': served after the purge", now->what, first, where);
    if (a == STORE_HIT && !soft)
        fail_msg("%s, %s at '%s': soft after a hard purge", now->what, first, where);
}

static void
for_each_purge(void (*first)(void), const char *name, const char *const *steps,
    void (*second)(void),
    bool stored)
{
    for (size_t i = 0; i < NELEM(purges) * 2; i++)
        for (const char *const *at = steps; *at != NULL; at++) {
            s = store_new(1 << 20, 4, NULL);
            now = &purges[i / 2];
            soft = i % 2 == 1;
            stamp = store_stamp(s);
            if (stored) {
                do_put();
                /* moves the counter, so that the next lookup compares */
                purge(s, STORE_PURGE_URL, "http://other/", false);
            }
            walk(first, *at, second);
            if (!came_in && strcmp(*at, "purge: cell written") != 0)
                fail_msg("%s: no step '%s'", now->what, *at);
            nothing_old_is_served(name, *at);
            store_free(&s);
        }
}

static const char *const purge_steps[] = {
    "purge: cell written", "purge: state written", "purge: published", NULL };
static const char *const put_steps[] = { "put: prepared", "put: locked", "put: checked", NULL };
static const char *const judge_steps[] = { "judge: sequence read", "judge: compared", NULL };

static void
a_put_comes_at_each_step_of_a_purge(void **state)
{
    (void)state;
    for_each_purge(do_purge, "put", purge_steps, do_put, false);
}

static void
a_put_replaces_at_each_step_of_a_purge(void **state)
{
    (void)state;
    for_each_purge(do_purge, "replacing put", purge_steps, do_put, true);
}

static void
a_purge_comes_at_each_step_of_a_put(void **state)
{
    (void)state;
    for_each_purge(do_put, "purge", put_steps, do_purge, false);
}

static void
a_purge_comes_while_a_lookup_compares(void **state)
{
    (void)state;
    for_each_purge(do_lookup, "purge", judge_steps, do_purge, true);
}

static void
a_lookup_comes_at_each_step_of_a_purge(void **state)
{
    (void)state;
    for_each_purge(do_purge, "lookup", purge_steps, do_lookup, true);
}

static void
purge_and_sweep(void)
{
    do_purge();
    pthread_mutex_lock(&s->purge_lock);
    if (s->rules != NULL)
        s->rules->made_us = INT64_MIN / 2;      /* old enough to be forgotten */
    pthread_mutex_unlock(&s->purge_lock);
    do_sweep();
}

static void
a_purge_and_a_sweep_come_while_a_lookup_compares(void **state)
{
    (void)state;
    for_each_purge(do_lookup, "purge and sweep", judge_steps, purge_and_sweep, true);
}

static void
a_purge_and_a_sweep_come_before_a_put(void **state)
{
    static const char *const prepared[] = { "put: prepared", NULL };

    (void)state;
    for_each_purge(do_put, "purge and sweep", prepared, purge_and_sweep, false);
}

static void
freshen_now(void)
{
    struct test_key k;
    struct test_request rq;
    struct object *o = NULL;
    struct sem_meta m = { .status = 200 };
    bool was_soft;

    rcu_begin();
    if (store_get(s, key_fill(&k, now->key), request_fill(&rq, NULL), 0, &o, &was_soft) ==
        STORE_HIT)
        object_ref(o);
    rcu_end();
    if (o == NULL)
        return;
    freshen_at(s, o, stamp, &m);
    object_unref(&o);
}

static void
a_304_comes_at_each_step_of_a_purge(void **state)
{
    (void)state;
    for_each_purge(do_purge, "304", purge_steps, freshen_now, true);
}

int
main(void)
{
    const struct CMUnitTest interleavings[] = {
        cmocka_unit_test(a_put_comes_at_each_step_of_a_purge),
        cmocka_unit_test(a_put_replaces_at_each_step_of_a_purge),
        cmocka_unit_test(a_purge_comes_at_each_step_of_a_put),
        cmocka_unit_test(a_purge_comes_while_a_lookup_compares),
        cmocka_unit_test(a_lookup_comes_at_each_step_of_a_purge),
        cmocka_unit_test(a_purge_and_a_sweep_come_while_a_lookup_compares),
        cmocka_unit_test(a_purge_and_a_sweep_come_before_a_put),
        cmocka_unit_test(a_304_comes_at_each_step_of_a_purge),
    };

    store_step = on_step;
    return RUN(interleavings);
}
