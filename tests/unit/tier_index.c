/*
 * The disk tier's index in memory, and its ring of purges, each against a plain model.
 */
#include "tier_kit.h"

#define ROWS 3000

/* ---- the index ------------------------------------------------------------------------------ */

/* What is in the file: key 0 is no row. */
struct model {
    struct disk_index x;
    uint64_t key[2 * ROWS + 1];
    uint32_t last;                      /* of the rows that are loaded */
    unsigned n;
};

static uint64_t
some_key(void)
{
    return random_fast() | 1;
}

static void
model_make(struct model *m)
{
    memset(m, 0, sizeof *m);
    assert_int_equal(index_init(&m->x, MIB), 0);
    for (uint32_t id = 1; id <= ROWS; id++)
        if (random_fast() % 3 != 0) {
            m->key[id] = some_key();
            m->last = id;
            m->n++;
        }
    assert_int_equal(index_reset(&m->x, m->last), 0);
}

static void
put_one(struct model *m)
{
    uint32_t id = index_take(&m->x);

    assert_in_range(id, 1, 2 * ROWS);
    assert_true(m->key[id] == 0);       /* a number in use is never given again */
    m->key[id] = some_key();
    m->n++;
    index_put(&m->x, id, m->key[id], 1000);
}

static void
remove_one_row(struct model *m, uint32_t id)
{
    m->n -= m->key[id] != 0;
    m->key[id] = 0;
    index_remove(&m->x, id);
}

/* Loads in pieces; between them rows come and go, loaded or not. */
static void
load_and_change(struct model *m)
{
    for (uint32_t id = 1; id <= m->last; id++) {
        if (m->key[id] != 0)
            assert_int_equal(index_load(&m->x, id, m->key[id], 1000), 0);
        if (random_fast() % 4 == 0 && m->n < ROWS)
            put_one(m);
        if (random_fast() % 4 == 0)
            remove_one_row(m, 1 + (uint32_t)(random_fast() % (2 * ROWS)));
    }
    index_loaded(&m->x);
}

static void
whatever_changes_while_it_is_loaded_it_has_what_the_file_has(void **state)
{
    struct model *m = malloc(sizeof *m);

    (void)state;
    for (int round = 0; round < 20; round++) {
        unsigned strangers = 0;
        uint32_t next;

        model_make(m);
        assert_true(index_may_have(&m->x, some_key()));     /* as long as it does not know */
        load_and_change(m);
        assert_int_equal(m->x.live, m->n);
        for (uint32_t id = 1; id <= 2 * ROWS; id++)
            assert_true(m->key[id] == 0 || index_may_have(&m->x, m->key[id]));
        for (int i = 0; i < 1000; i++)
            strangers += index_may_have(&m->x, some_key());
        assert_true(strangers <= 1);
        next = m->x.next;               /* every number that is free is used before a new one */
        for (uint32_t holes = next - 1 - m->n; holes > 0; holes--)
            put_one(m);
        assert_int_equal(m->x.next, next);
        index_fini(&m->x);
    }
    free(m);
}

static void
what_was_asked_for_is_evicted_last_and_comes_back_to_the_main_queue(void **state)
{
    struct model *m = malloc(sizeof *m);
    uint32_t first = 0, id;
    uint64_t key;

    (void)state;
    memset(m, 0, sizeof *m);
    assert_int_equal(index_init(&m->x, MIB), 0);
    assert_int_equal(index_reset(&m->x, 0), 0);
    index_loaded(&m->x);
    for (int i = 0; i < 100; i++)
        put_one(m);
    for (id = 1; id <= 10; id++)        /* twice: more than once */
        for (int i = 0; i < 2; i++)
            index_touch(&m->x, id, m->key[id]);
    for (int i = 0; i < 80; i++) {
        id = index_victim(&m->x);
        first = first != 0 ? first : id;
        assert_true(id > 10);
        key = m->key[id];
        remove_one_row(m, id);
    }
    assert_int_equal(first, 11);
    id = index_take(&m->x);
    index_put(&m->x, id, key, 1000);
    assert_int_equal(m->x.head[SLOT_MAIN], id);
    index_fini(&m->x);
    free(m);
}

#define HOLES 500000

static atomic_bool loaded;
static atomic_uint amidst;

/* As a loop that misses: it takes the lock. */
static void *
look_meanwhile(void *arg)
{
    struct disk_index *x = arg;

    while (!atomic_load(&loaded)) {
        uint32_t cursor;

        pthread_mutex_lock(&x->lock);
        cursor = x->cursor;
        pthread_mutex_unlock(&x->lock);
        if (cursor > 0 && cursor < HOLES)
            atomic_fetch_add(&amidst, 1);
        usleep(1);
    }
    return NULL;
}

static void
whoever_looks_while_many_numbers_are_freed_is_let_in_between(void **state)
{
    struct disk_index x = { .loaded = false };
    pthread_t looker;

    (void)state;
    assert_int_equal(index_init(&x, MIB), 0);
    assert_int_equal(index_reset(&x, HOLES), 0);
    assert_int_equal(pthread_create(&looker, NULL, look_meanwhile, &x), 0);
    index_loaded(&x);
    atomic_store(&loaded, true);
    pthread_join(looker, NULL);
    assert_true(atomic_load(&amidst) > 0);
    assert_int_equal(index_take(&x), HOLES);
    index_fini(&x);
}

/* ---- the ring ------------------------------------------------------------------------------- */

#define ENTRIES 400

struct sent { struct ring_entry e; char text[300]; };

static void
open_ring(struct bench *b, struct ring *r, enum ring_state expected)
{
    enum ring_state was;
    struct err e;

    if (ring_open(r, in_dir(b, "purges"), 65536, &was, &e) == -1)
        fail_msg("%s", e.text);
    assert_int_equal(was, expected);
    assert_int_equal(ring_begin(r), 0);
}

static void
send_one(struct ring *r, struct sent *s, uint64_t seq)
{
    size_t n = random_fast() % sizeof s->text;

    random_bytes(s->text, n);
    s->e = (struct ring_entry){ .kind = (uint8_t)(random_fast() % 9), .soft = seq % 2, .id = seq * 3,
        .seq = seq, .text = { s->text, n } };
    ring_put(r, &s->e);
}

static void
expect_sent(const struct ring_entry *got, const struct sent *s)
{
    assert_int_equal(got->kind, s->e.kind);
    assert_int_equal(got->soft, s->e.soft);
    assert_int_equal(got->id, s->e.id);
    assert_int_equal(got->seq, s->e.seq);
    assert_true(slice_eq(got->text, (struct slice){ s->text, s->e.text.n }));
}

/* Many times around, and opened anew in between without being closed. */
static void
what_is_put_into_the_ring_comes_out_of_it_in_order(void **state)
{
    struct bench *b = *state;
    struct sent *sent = calloc(ENTRIES, sizeof *sent);
    uint64_t in = 0, out = 0, seq;
    struct ring_entry e;
    struct ring r;

    open_ring(b, &r, RING_NEW);
    for (int round = 0; round < 200; round++) {
        uint64_t at = 0;

        for (uint64_t n = random_fast() % 60; n > 0 && in - out < 150; n--, in++)
            send_one(&r, &sent[in % ENTRIES], in);
        for (uint64_t n = random_fast() % 60; n > 0 && ring_next(&r, &at, &e); n--, out++)
            expect_sent(&e, &sent[out % ENTRIES]);
        if (at > 0)
            ring_free(&r, at);
        assert_int_equal(ring_empty(&r), in == out);
        if (round % 20 == 0) {
            ring_close(&r, round % 40 == 0);
            open_ring(b, &r, RING_CLEAN);
        }
    }
    assert_false(ring_overflowed(&r, &seq));
    ring_close(&r, true);
    free(sent);
}

static void
what_does_not_fit_is_remembered_as_everything(void **state)
{
    struct bench *b = *state;
    struct sent s = { { 0 }, "" };
    uint64_t seq = 0, at = 0, put = 0;
    struct ring_entry e;
    struct ring r;

    open_ring(b, &r, RING_NEW);
    while (!ring_overflowed(&r, &seq))
        send_one(&r, &s, ++put);
    assert_int_equal(seq, put);
    send_one(&r, &s, ++put);
    ring_free_all(&r, seq);             /* another came since */
    assert_true(ring_overflowed(&r, &seq));
    assert_int_equal(seq, put);
    ring_close(&r, false);
    open_ring(b, &r, RING_CLEAN);
    assert_true(ring_overflowed(&r, &seq));
    ring_free_all(&r, seq);
    assert_true(ring_empty(&r));
    assert_false(ring_next(&r, &at, &e));
    send_one(&r, &s, ++put);
    assert_true(ring_next(&r, &at, &e));
    expect_sent(&e, &s);
    ring_close(&r, true);
}

static int
directory(void **state)
{
    struct bench *b = malloc(sizeof *b);

    bench_make(b, 0);
    *state = b;
    return 0;
}

#define RING(f) cmocka_unit_test_setup_teardown(f, directory, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_changes_while_it_is_loaded_it_has_what_the_file_has),
        cmocka_unit_test(what_was_asked_for_is_evicted_last_and_comes_back_to_the_main_queue),
        cmocka_unit_test(whoever_looks_while_many_numbers_are_freed_is_let_in_between),
        RING(what_is_put_into_the_ring_comes_out_of_it_in_order),
        RING(what_does_not_fit_is_remembered_as_everything),
    };

    return RUN(tests);
}
