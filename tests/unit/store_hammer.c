/*
 * Readers, writers, purgers and the sweeper at once, with an origin whose versions tell what is too
 * old.
 *
 * The invariant: an origin's key has a version; a writer takes its stamp, then reads the version,
 * then stores it; a purger raises versions, purges, and once the purge has returned says below
 * which version nothing may be served. A reader notes that bound before its lookup.
 */
#include "store_util.h"

#include <pthread.h>
#include <sched.h>

#define KEYS    512
#define GROUPS  16
#define WRITES  20000
#define PURGES  1500
#define READERS 2
#define WRITERS 2

static struct store *s;
static atomic_uint version[KEYS], bound[KEYS];
static atomic_bool done;
static atomic_uint wrong, hits, stored, refused, freshened;

static void
name_of(unsigned i, char *out, size_t n)        /* every fourth key has parts */
{
    snprintf(out, n, i % 4 == 0 ? "http://h/%u/%u|part" : "http://h/%u/%u", i % GROUPS, i);
}

static struct key *
key_of(unsigned i, struct test_key *k)
{
    char text[64];

    name_of(i, text, sizeof text);
    return key_fill(k, text);
}

struct seen { uint32_t key, version; };

static struct seen
read_body(const struct object *o)
{
    struct body_cursor c = { 0 };
    struct iovec v;
    struct seen seen;

    body_pieces(o->body, &c, body_size(o->body), &v, 1);
    memcpy(&seen, v.iov_base, sizeof seen);
    return seen;
}

static void *
reader(void *arg)
{
    unsigned seed = *(unsigned *)arg;

    rcu_enter_thread();
    while (!done) {
        unsigned i = (unsigned)rand_r(&seed) % KEYS, least = bound[i];
        struct test_key k;
        struct test_request rq;
        struct object *o;
        bool soft;

        rcu_begin();
        if (store_get(s, key_of(i, &k), request_fill(&rq, i % 3 == 0 ? "de" : NULL), 0, &o,
            &soft) == STORE_HIT) {
            struct seen seen = read_body(o);

            hits++;
            wrong += seen.key != i || (seen.version < least && !soft);
        }
        rcu_end();
    }
    rcu_leave_thread();
    return NULL;
}

static void
freshen(unsigned i)
{
    uint64_t stamp = store_stamp(s);
    unsigned v = version[i];
    struct sem_meta m = { .status = 200 };
    struct object *o = NULL;
    struct test_key k;
    struct test_request rq;
    bool soft;

    rcu_begin();
    if (store_get(s, key_of(i, &k), request_fill(&rq, i % 3 == 0 ? "de" : NULL), 0, &o, &soft) ==
        STORE_HIT)
        object_ref(o);
    rcu_end();
    if (o == NULL)
        return;
    if (read_body(o).version == v)      /* the origin would say 304 */
        freshened += freshen_at(s, o, stamp, &m) ==
            STORE_STORED;
    else
        store_drop(s, o);
    object_unref(&o);
}

static void
write_one(unsigned i, unsigned *seed)
{
    struct test_key k;
    struct test_request rq;
    struct buf variant = { 0 };
    char tag[16], bytes[4096] = { 0 };
    struct slice tags[1];
    struct store_parts p = { .key = key_of(i, &k), .head = SLICE(HEAD_TEXT), .status_n = 17,
        .stamp = store_stamp(s), .route_id = i % GROUPS, .tags = tags, .ntags = 1 };
    struct seen seen = { i, version[i] };
    enum store_result r;

    snprintf(tag, sizeof tag, "g%u", i % GROUPS);
    tags[0] = slice_of(tag);
    if (i % 3 == 0) {
        p.vary = SLICE("accept-language");
        sem_variant(p.vary, request_fill(&rq, rand_r(seed) % 4 == 0 ? "en" : "de"), &variant);
        p.variant = buf_slice(&variant);
    }
    memcpy(bytes, &seen, sizeof seen);
    p.body = body_new(0);
    body_append(p.body, (struct slice){ bytes, 8 + (size_t)rand_r(seed) % 4000 });
    body_seal(p.body);
    r = store_put(s, &p, NULL);
    stored += r == STORE_STORED;
    refused += r == STORE_PURGED;
    body_unref(&p.body);
    buf_free(&variant);
}

static void *
writer(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    struct test_key k;

    rcu_enter_thread();
    for (unsigned n = 0; n < WRITES; n++) {
        unsigned i = (unsigned)rand_r(&seed) % KEYS;

        if (n % 5 == 0)
            freshen(i);
        else if (n % 31 == 0)
            store_pass(s, key_of(i, &k), 1);
        else
            write_one(i, &seed);
    }
    rcu_leave_thread();
    return NULL;
}

static void
raise_bound(unsigned i, unsigned v)
{
    unsigned was = bound[i];

    while (was < v && !atomic_compare_exchange_weak(&bound[i], &was, v))
        continue;
}

/* Versions of all keys of the group (or of one key alone) go up, then they are purged. */
static void
purge_some(unsigned turn, unsigned i)
{
    static const enum store_purge_kind kinds[] =
        { STORE_PURGE_URL, STORE_PURGE_TAG, STORE_PURGE_PREFIX,
        STORE_PURGE_ROUTE, STORE_PURGE_PATTERN, STORE_PURGE_URL, STORE_PURGE_URL };
    struct store_purge p = { .kind = kinds[turn % NELEM(kinds)], .id = i % GROUPS,
        .soft = turn % 11 == 0 };
    bool one = p.kind == STORE_PURGE_URL;
    unsigned raised[KEYS];
    struct store_purged r;
    struct test_key k;
    char text[64];

    for (unsigned j = 0; j < KEYS; j++)
        if (one ? j == i : j % GROUPS == i % GROUPS)
            raised[j] = ++version[j];
    snprintf(text, sizeof text, p.kind == STORE_PURGE_TAG ? "g%u" :
        p.kind == STORE_PURGE_PATTERN ? "/%u/*" : "http://h/%u/", i % GROUPS);
    p.text = slice_of(text);
    if (one)
        p.text = (struct slice){ key_of(i, &k)->bytes.p, key_of(i, &k)->url_n };
    store_purge(s, &p, &r);
    for (unsigned j = 0; j < KEYS; j++)
        if (one ? j == i : j % GROUPS == i % GROUPS)
            raise_bound(j, raised[j]);
}

static void *
purger(void *arg)
{
    unsigned seed = *(unsigned *)arg;

    for (unsigned n = 0; n < PURGES; n++) {
        purge_some(n, (unsigned)rand_r(&seed) % KEYS);
        sched_yield();
    }
    return NULL;
}

static void
nothing_purged_is_served_under_load(void **state)
{
    pthread_t readers[READERS], writers[WRITERS], purgers[2];
    unsigned seeds[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, n = 0;
    struct store_figures f;

    (void)state;
    s = store_new(1 << 20, 3, NULL);    /* less than KEYS * 2 KiB need: evictions too */
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, reader, &seeds[n++]);
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&writers[i], NULL, writer, &seeds[n++]);
    for (int i = 0; i < 2; i++)
        pthread_create(&purgers[i], NULL, purger, &seeds[n++]);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(purgers[i], NULL);
    done = true;
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    assert_int_equal(wrong, 0);
    assert_true(hits > 0 && stored > 0 && freshened > 0);
    store_figures(s, &f);
    assert_true(f.bytes <= f.limit + 65536);
    print_message("%u hits, %u stored, %u refused, %u freshened\n", hits, stored, refused,
        freshened);
    purge(s, STORE_PURGE_ALL, "", false);
    sweep_wait(s);
    store_figures(s, &f);
    assert_int_equal(f.objects, 0);
    assert_int_equal(f.tags, 0);
    store_free(&s);
    assert_int_equal(nodes_waiting(), 0);
    assert_int_equal(nodes_held(), 0);
}

int
main(void)
{
    const struct CMUnitTest hammer[] = { cmocka_unit_test(nothing_purged_is_served_under_load) };

    return RUN(hammer);
}
