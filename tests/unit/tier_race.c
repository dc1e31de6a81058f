/*
 * Puts, gets and purges of the disk tier at once: what was purged is never found again.
 */
#include "tier_kit.h"

#define KEYS    40
#define WRITERS 2
#define READERS 2
#define PURGERS 2
#define ROUNDS  400

struct race {
    struct bench  *b;
    _Atomic uint64_t born, purged[KEYS];    /* of key k: all numbers below are purged */
    atomic_bool    stop;
    atomic_int     wrong;
    uint64_t       hits, stores;        /* of the disk, when it began */
};

#define BODY 20000                      /* memory holds half of the keys: the disk is asked */

/* A body says in which put it was made. Its number is drawn after its stamp: what is below a
 * purge's number was asked for before that purge. */
static void *
write_some(void *arg)
{
    struct race *r = arg;
    char *body = malloc(BODY + 1);

    rcu_enter_thread();
    while (!atomic_load(&r->stop)) {
        char key[64], tag[16];
        struct object *o = NULL;
        uint64_t stamp = store_stamp(r->b->s), n = atomic_fetch_add(&r->born, 1);
        unsigned k = (unsigned)(random_fast() % KEYS);

        snprintf(key, sizeof key, "http://h/%u", k);
        snprintf(tag, sizeof tag, "t%u", k);
        memset(body, ' ', BODY);
        body[BODY] = '\0';
        body[snprintf(body, 32, "%llu", (unsigned long long)n)] = ' ';
        if (keep_in(r->b->s, (struct keep){ .key = key, .body = body, .tags = { tag },
                .stamp = stamp }, &o) == STORE_STORED)
            tier_put(r->b->t, o);
        object_unref(&o);
        if (n % 3 == 0)
            usleep(500);
    }
    free(body);
    rcu_leave_thread();
    return NULL;
}

/* Has the disk been written and asked often enough for what follows to mean anything? */
static bool
enough(const struct race *r)
{
    return stats_counter(STATS_disk_hits) > r->hits + 200 &&
        stats_counter(STATS_disk_stores) > r->stores + 200;
}

static void *
purge_some(void *arg)
{
    struct race *r = arg;

    rcu_enter_thread();
    for (int i = 0; i < ROUNDS || !enough(r); i++) {
        unsigned k = (unsigned)(random_fast() % KEYS);
        uint64_t until = atomic_load(&r->born), was;
        char text[64];

        snprintf(text, sizeof text, i % 3 == 0 ? "t%u" : i % 3 == 1 ? "http://h/%u" : "/%u", k);
        purge(r->b->s, i % 3 == 0 ? STORE_PURGE_TAG : i % 3 == 1 ? STORE_PURGE_URL :
            STORE_PURGE_PATTERN, text, false);
        was = atomic_load(&r->purged[k]);
        while (was < until && !atomic_compare_exchange_weak(&r->purged[k], &was, until))
            continue;
        usleep(300);
    }
    rcu_leave_thread();
    return NULL;
}

/* Throws away what memory has, so that the disk is asked; what comes from there must be younger
 * than the purges that were done before it was asked. */
static void *
read_some(void *arg)
{
    struct race *r = arg;

    rcu_enter_thread();
    while (!atomic_load(&r->stop)) {
        unsigned k = (unsigned)(random_fast() % KEYS);
        uint64_t purged = atomic_load(&r->purged[k]);
        char key[64], body[BODY + 1];

        snprintf(key, sizeof key, "http://h/%u", k);
        (void)ask(r->b, key);
        if (get_at(r->b->s, key, NULL, 0, body, NULL) == STORE_HIT &&
            strtoull(body, NULL, 10) < purged)
            atomic_fetch_add(&r->wrong, 1);
    }
    rcu_leave_thread();
    return NULL;
}

static void
check_after_restart(struct bench *b, struct race *r)
{
    forget_memory(b);
    for (unsigned k = 0; k < KEYS; k++) {
        char key[64], body[BODY + 1];

        snprintf(key, sizeof key, "http://h/%u", k);
        if (ask(b, key) == FOUND &&
            get_at(b->s, key, NULL, 0, body, NULL) == STORE_HIT)
            assert_true(strtoull(body, NULL, 10) >= atomic_load(&r->purged[k]));
    }
}

static void
what_was_purged_is_never_found_again_however_they_meet(void **state)
{
    struct bench *b = *state;
    struct race r = { .b = b, .hits = stats_counter(STATS_disk_hits),
        .stores = stats_counter(STATS_disk_stores) };
    pthread_t writers[WRITERS], readers[READERS], purgers[PURGERS];

    bench_close(b);
    b->memory = MIB / 2;
    bench_open(b);
    for (size_t i = 0; i < NELEM(writers); i++)
        pthread_create(&writers[i], NULL, write_some, &r);
    for (size_t i = 0; i < NELEM(readers); i++)
        pthread_create(&readers[i], NULL, read_some, &r);
    for (size_t i = 0; i < NELEM(purgers); i++)
        pthread_create(&purgers[i], NULL, purge_some, &r);
    for (size_t i = 0; i < NELEM(purgers); i++)
        pthread_join(purgers[i], NULL);
    atomic_store(&r.stop, true);
    for (size_t i = 0; i < NELEM(writers); i++)
        pthread_join(writers[i], NULL);
    for (size_t i = 0; i < NELEM(readers); i++)
        pthread_join(readers[i], NULL);
    assert_int_equal(atomic_load(&r.wrong), 0);
    check_after_restart(b, &r);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        BENCH(what_was_purged_is_never_found_again_however_they_meet),
    };

    return RUN(tests);
}
