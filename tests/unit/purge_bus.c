/*
 * Purges as entries of the stream, and own ones on their way into it; what is seen of the stream.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "purge/bus.h"

/* ---- entries --------------------------------------------------------------------------------- */

struct reply_list { struct redis_reply list, items[32]; struct redis_reply *at[32]; };

static const struct redis_reply *
reply_of(const struct slice *texts, size_t n, struct reply_list *l)
{
    *l = (struct reply_list){ .list = { .type = REPLY_ARRAY, .at = l->at, .n = n } };
    for (size_t i = 0; i < n; i++) {
        l->items[i] = (struct redis_reply){ .type = REPLY_STRING, .text = texts[i] };
        l->at[i] = &l->items[i];
    }
    return &l->list;
}

static void
what_is_put_is_read_again(void **state)
{
    static const struct store_purge purges[] = {
        { .kind = STORE_PURGE_URL, .text = SLICE("http://h/a?b=c") },
        { .kind = STORE_PURGE_PREFIX, .text = SLICE("http://h/a"), .soft = true },
        { .kind = STORE_PURGE_PATTERN, .text = SLICE("*\\*") },
        { .kind = STORE_PURGE_TAG, .text = SLICE("t \r\n\0x") },
        { .kind = STORE_PURGE_GROUP, .text = SLICE("http://h\0g") },
        { .kind = STORE_PURGE_GROUP, .text = SLICE("\0g"), .soft = true },
        { .kind = STORE_PURGE_ROUTE, .id = 0xfedcba9876543210u },
        { .kind = STORE_PURGE_ROUTE, .id = 1, .soft = true },
        { .kind = STORE_PURGE_ALL },
        { .kind = STORE_PURGE_ALL, .soft = true, .doubt = true },
        { .kind = STORE_PURGE_PATH, .text = SLICE("/a") },
        { .kind = STORE_PURGE_PATH_PREFIX, .text = SLICE("/") },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(purges); i++) {
        struct bus_entry e = { .from = SLICE("me"), .seq = UINT64_MAX - i, .purge = purges[i] };
        struct slice argv[BUS_ENTRY_FIELDS];
        struct bus_words w;
        struct reply_list l;
        struct bus_entry got;
        size_t n = bus_entry_put(&e, &w, argv);

        assert_true(n <= BUS_ENTRY_FIELDS);
        assert_int_equal(bus_entry_read(reply_of(argv, n, &l), &got), 0);
        assert_true(slice_eq(got.from, e.from));
        assert_int_equal(got.seq, e.seq);
        assert_int_equal(got.purge.kind, e.purge.kind);
        assert_int_equal(got.purge.id, e.purge.id);
        assert_int_equal(got.purge.soft, e.purge.soft);
        assert_int_equal(got.purge.doubt, e.purge.doubt);
        assert_true(slice_eq(got.purge.text, e.purge.text));
        while (n-- > 0)                 /* cut short it is none */
            assert_int_equal(bus_entry_read(reply_of(argv, n, &l), &got), -1);
    }
}

static void
what_is_to_be_erased_is_said_last(void **state)
{
    struct bus_entry e = { .from = SLICE("me"), .seq = 7,
        .purge = { .kind = STORE_PURGE_TAG, .text = SLICE("t"), .erase = true } }, got;
    struct slice argv[BUS_ENTRY_FIELDS];
    struct bus_words w;
    struct reply_list l;
    size_t n = bus_entry_put(&e, &w, argv);

    (void)state;
    assert_int_equal(bus_entry_read(reply_of(argv, n, &l), &got), 0);
    assert_true(got.purge.erase);
    assert_int_equal(bus_entry_read(reply_of(argv, n - 1, &l), &got), -1);
    argv[n - 1] = SLICE("0");
    assert_int_equal(bus_entry_read(reply_of(argv, n, &l), &got), -1);
    assert_int_equal(bus_entry_read(reply_of(argv, n - 2, &l), &got), 0);
    assert_false(got.purge.erase);
}

static void
another_form_is_refused(void **state)
{
    static const struct { size_t at; struct slice is; } changes[] = {
        { 0, SLICE("V") }, { 1, SLICE("2") }, { 2, SLICE("of") }, { 4, SLICE("number") },
        { 5, SLICE("-1") }, { 5, SLICE("") }, { 6, SLICE("what") }, { 7, SLICE("tags") },
        { 7, SLICE("route") }, { 7, SLICE("all") }, { 7, SLICE("group") }, { 8, SLICE("route") },
        { 10, SLICE("hard") }, { 11, SLICE("2") }, { 11, SLICE("3") }, { 11, SLICE("00") },
        { 11, SLICE("") },
    };
    struct bus_entry e = { .from = SLICE("me"), .seq = 7,
        .purge = { .kind = STORE_PURGE_TAG, .text = SLICE("t") } }, got;
    struct slice argv[BUS_ENTRY_FIELDS + 2], was;
    struct bus_words w;
    struct reply_list l;
    size_t n = bus_entry_put(&e, &w, argv);

    (void)state;
    for (size_t i = 0; i < NELEM(changes); i++) {
        was = argv[changes[i].at];
        argv[changes[i].at] = changes[i].is;
        assert_int_equal(bus_entry_read(reply_of(argv, n, &l), &got), -1);
        argv[changes[i].at] = was;
    }
    argv[n] = argv[n + 1] = SLICE("more");
    assert_int_equal(bus_entry_read(reply_of(argv, n + 2, &l), &got), -1);
    reply_of(argv, n, &l);
    l.items[3].type = REPLY_INTEGER;
    assert_int_equal(bus_entry_read(&l.list, &got), -1);
    l.list.type = REPLY_NIL;
    assert_int_equal(bus_entry_read(&l.list, &got), -1);
}

static void
ids_are_two_numbers(void **state)
{
    static const char *const bad[] = { "", "-", "1", "1-", "-1", "1-2-3", "a-1", "1-+2", "1 -2",
        "18446744073709551616-0" };
    struct store_position at;
    char text[BUS_ID_MAX];

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++)
        assert_int_equal(bus_id_read(slice_of(bad[i]), &at), -1);
    at = (struct store_position){ UINT64_MAX, UINT64_MAX };
    assert_true(slice_eq(bus_id_put(at, text),
        SLICE("18446744073709551615-18446744073709551615")));
    assert_int_equal(bus_id_read(bus_id_put(at, text), &at), 0);
    assert_true(at.ms == UINT64_MAX && at.n == UINT64_MAX);
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void
what_redis_tells_of_the_stream_is_read_or_refused(void **state)
{
    struct slice words[] = { SLICE("length"), SLICE(""), SLICE("last-generated-id"), SLICE("9-1"),
        SLICE("entries-added"), SLICE(""), SLICE("first-entry"), SLICE("") };
    struct slice entry[] = { SLICE("4-2"), SLICE("") };
    struct reply_list info, first, range;
    struct redis_reply *both[] = { &info.list, &range.list };
    struct redis_reply reply = { .type = REPLY_ARRAY, .at = both, .n = 2 };
    struct seen seen;

    (void)state;
    reply_of(words, NELEM(words), &info);
    reply_of(entry, 2, &first);
    reply_of(entry, 1, &range);
    info.items[1] = (struct redis_reply){ .type = REPLY_INTEGER, .integer = 3 };
    info.items[5] = (struct redis_reply){ .type = REPLY_INTEGER, .integer = 7 };
    info.at[7] = &first.list;
    assert_int_equal(stream_seen(&reply, &seen), 0);
    assert_true(seen.exists && seen.present && seen.length == 3 && seen.added == 7);
    assert_true(seen.last.ms == 9 && seen.last.n == 1 && seen.oldest.ms == 4 && seen.oldest.n == 2);
    range.list.n = 0;
    first.list.type = REPLY_NIL;        /* all were trimmed */
    assert_int_equal(stream_seen(&reply, &seen), 0);
    assert_true(seen.exists && !seen.present && seen.oldest.ms == 0);
    first.list = (struct redis_reply){ .type = REPLY_ARRAY };
    assert_int_equal(stream_seen(&reply, &seen), -1);
    first.list.type = REPLY_NIL;
    for (info.list.n = 0; info.list.n < NELEM(words); info.list.n++)    /* Redis 6 tells less */
        assert_int_equal(stream_seen(&reply, &seen), -1);
    words[3] = SLICE("no id");
    info.items[3].text = words[3];
    assert_int_equal(stream_seen(&reply, &seen), -1);
    reply.n = 1;
    assert_int_equal(stream_seen(&reply, &seen), -1);
    assert_int_equal(stream_seen(&(struct redis_reply){ .type = REPLY_STRING }, &seen), -1);
    assert_int_equal(stream_seen(&(struct redis_reply){ .type = REPLY_NIL }, &seen), 0);
    assert_true(!seen.exists && seen.length == 0 && seen.last.ms == 0);
}

/* ---- the queue ------------------------------------------------------------------------------- */

struct world { struct store *s; struct bus_queue q; uint64_t ms; };

static void
told(void *arg, const struct store_purge *p, uint64_t seq)
{
    queue_add(&((struct world *)arg)->q, p, seq);
}

static struct world *
world_new(size_t most)
{
    struct world *w = calloc(1, sizeof *w);
    struct err e;

    w->s = store_new(1 << 20, 4, &e);
    assert_non_null(w->s);
    queue_init(&w->q, w->s, most, 1 << 20);
    store_on_purge(w->s, told, w);
    store_position_begin(w->s, (struct store_position){ 0 });
    return w;
}

static void
world_free(struct world *w)
{
    queue_fini(&w->q);
    store_free(&w->s);
    free(w);
}

static uint64_t
tag(struct world *w, const char *text, bool soft)
{
    struct store_purged done;

    store_purge(w->s, &(struct store_purge){ .kind = STORE_PURGE_TAG, .text = slice_of(text),
        .soft = soft }, &done);
    return store_stamp(w->s);
}

static struct store_position
added(struct world *w, struct own *o)
{
    struct store_position at = { ++w->ms, 0 };

    queue_sent(&w->q, o, &at, (struct store_position){ 0 });
    return at;
}

static void
own_purges_go_out_in_order_and_once_for_each_text(void **state)
{
    struct world *w = world_new(100);
    uint64_t a = tag(w, "a", false), b = tag(w, "b", false), soft = tag(w, "a", true);
    uint64_t again = tag(w, "a", false);
    struct store_position at, is;
    struct own *o[3];

    (void)state;
    assert_int_equal(queue_waiting(&w->q), 3);
    for (int i = 0; i < 3; i++)
        o[i] = queue_next(&w->q);
    assert_null(queue_next(&w->q));
    assert_true(o[0]->first == a && o[0]->last == again);
    assert_true(o[1]->first == b && o[1]->last == b);
    assert_true(o[2]->first == soft && o[2]->purge.soft);
    assert_true(tag(w, "a", false) > again);    /* what is sent already says nothing of it */
    assert_int_equal(queue_waiting(&w->q), 4);
    assert_false(queue_is_added(&w->q, a, &is));
    at = added(w, o[0]);
    assert_true(queue_is_added(&w->q, a, &is));
    assert_int_equal(store_position_cmp(at, is), 0);
    assert_false(queue_is_added(&w->q, b, &is));
    assert_false(store_position_settled(w->s, a));
    queue_echo(&w->q, again, at);
    assert_true(store_position_settled(w->s, a));
    assert_false(store_position_settled(w->s, b));
    world_free(w);
}

static void
what_failed_is_sent_again_and_its_echo_ends_it_either_way(void **state)
{
    struct world *w = world_new(100);
    const struct store_position none = { 0 };
    uint64_t seq = tag(w, "a", false);
    struct own *o = queue_next(&w->q);

    (void)state;
    queue_sent(&w->q, o, NULL, none);
    assert_ptr_equal(queue_next(&w->q), o);
    queue_echo(&w->q, seq, (struct store_position){ 5, 0 });    /* the first was there after all */
    assert_true(queue_is_added(&w->q, seq, &(struct store_position){ 0 }));
    queue_sent(&w->q, o, NULL, none);
    assert_null(queue_next(&w->q));
    assert_true(store_position_settled(w->s, seq));

    seq = tag(w, "a", false);
    o = queue_next(&w->q);
    queue_sent(&w->q, o, NULL, none);
    queue_echo(&w->q, seq, (struct store_position){ 6, 0 });    /* it waits: not sent again */
    assert_null(queue_next(&w->q));
    assert_int_equal(queue_waiting(&w->q), 0);

    seq = tag(w, "a", false);
    o = queue_next(&w->q);
    queue_sent(&w->q, o, NULL, none);
    tag(w, "a", false);                         /* one more of it: the first's echo is not its */
    queue_echo(&w->q, seq, (struct store_position){ 7, 0 });
    assert_ptr_equal(queue_next(&w->q), o);
    world_free(w);
}

static void
what_a_stream_lost_is_sent_again(void **state)
{
    struct world *w = world_new(100);
    uint64_t seq = tag(w, "a", false);
    struct own *o = queue_next(&w->q);
    struct store_position at = added(w, o);

    (void)state;
    assert_null(queue_next(&w->q));
    queue_again(&w->q);
    assert_false(queue_is_added(&w->q, seq, &at));
    assert_ptr_equal(queue_next(&w->q), o);
    at = (struct store_position){ 9, 0 };
    queue_sent(&w->q, o, &at, (struct store_position){ 10, 0 });        /* passed over unread */
    assert_ptr_equal(queue_next(&w->q), o);
    world_free(w);
}

static uint64_t
erase(struct world *w, const char *text)
{
    struct store_purged done;

    store_purge(w->s, &(struct store_purge){ .kind = STORE_PURGE_TAG, .text = slice_of(text),
        .erase = true }, &done);
    return store_stamp(w->s);
}

static void
note_erase(void *arg, const struct store_purge *p)
{
    *(int *)arg += p->erase;
}

static void
one_of_the_same_text_that_erases_makes_that_one_erase(void **state)
{
    struct world *w = world_new(2);
    uint64_t came = 0;
    struct own *o;
    int n = 0;

    (void)state;
    tag(w, "a", false);
    assert_true(queue_each(&w->q, &came, note_erase, &n));
    assert_int_equal(n, 0);
    erase(w, "a");
    assert_true(queue_each(&w->q, &came, note_erase, &n));      /* so that it is kept */
    assert_int_equal(n, 1);
    tag(w, "a", false);
    assert_int_equal(queue_waiting(&w->q), 1);
    o = queue_next(&w->q);
    assert_true(o->purge.erase);
    added(w, o);

    erase(w, "b");
    tag(w, "c", false);
    tag(w, "d", false);                 /* too many */
    o = queue_next(&w->q);
    assert_true(o->purge.kind == STORE_PURGE_ALL && o->purge.erase);
    added(w, o);
    world_free(w);
}

static void
too_many_become_one_of_everything(void **state)
{
    struct world *w = world_new(10);
    char text[16];
    struct own *sent, *all;
    uint64_t first, last = 0;

    (void)state;
    tag(w, "sent", false);
    sent = queue_next(&w->q);
    first = store_stamp(w->s) + 1;
    for (int i = 0; i < 25; i++) {
        snprintf(text, sizeof text, "%d", i);
        last = tag(w, text, true);
    }
    assert_int_equal(queue_waiting(&w->q), 2);
    all = queue_next(&w->q);
    assert_int_equal(all->purge.kind, STORE_PURGE_ALL);
    assert_true(all->purge.soft && all->first == first && all->last == last);
    assert_null(queue_next(&w->q));
    added(w, sent);
    assert_false(queue_is_added(&w->q, last, &(struct store_position){ 0 }));
    added(w, all);
    assert_true(queue_is_added(&w->q, last, &(struct store_position){ 0 }));
    queue_echo(&w->q, last, (struct store_position){ 20, 0 });
    assert_false(store_position_settled(w->s, last));
    queue_echo(&w->q, first - 1, (struct store_position){ 21, 0 });
    assert_true(store_position_settled(w->s, last));

    for (int i = 0; i < 12; i++) {
        snprintf(text, sizeof text, "%d", i);
        tag(w, text, i != 11);
    }
    assert_false(queue_next(&w->q)->purge.soft);        /* one of them was not */
    world_free(w);
}

/* Whatever fails: when all is read, everything that was purged stands in the stream behind where
 * it was purged, and nothing waits. */
static void
nothing_is_lost_by_failures_in_any_order(void **state)
{
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct world *w = world_new(8);
        struct own *flying[4] = { NULL };
        uint64_t seqs[200], read = 0, streamed[400], n = 0;
        struct store_position at;

        for (int i = 0; i < 200 || queue_waiting(&w->q) > 0 || read < n; i++) {
            struct own **f = &flying[random_fast() % 4];
            char text[2] = { (char)('a' + random_fast() % 12), '\0' };

            if (i < 200)
                seqs[i] = tag(w, text, random_fast() % 2);
            if (*f == NULL)
                *f = queue_next(&w->q);
            if (*f != NULL && n < 400) {
                bool arrives = random_fast() % 3 > 0 || i > 300;
                bool answered = arrives && (random_fast() % 3 > 0 || i > 300);

                if (arrives)
                    streamed[n++] = (*f)->last;
                if (read < n && random_fast() % 2)
                    queue_echo(&w->q, streamed[read], (struct store_position){ read + 1, 0 }), read++;
                queue_sent(&w->q, *f, answered ? &(struct store_position){ n, 0 } : NULL,
                    (struct store_position){ read, 0 });
                *f = NULL;
            }
            if (read < n && random_fast() % 2)
                queue_echo(&w->q, streamed[read], (struct store_position){ read + 1, 0 }), read++;
        }
        for (int i = 0; i < 200; i++)
            assert_true(queue_is_added(&w->q, seqs[i], &at));
        assert_true(store_position_settled(w->s, store_stamp(w->s)));
        world_free(w);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_read_again),
        cmocka_unit_test(what_is_to_be_erased_is_said_last),
        cmocka_unit_test(one_of_the_same_text_that_erases_makes_that_one_erase),
        cmocka_unit_test(another_form_is_refused),
        cmocka_unit_test(ids_are_two_numbers),
        cmocka_unit_test(what_redis_tells_of_the_stream_is_read_or_refused),
        cmocka_unit_test(own_purges_go_out_in_order_and_once_for_each_text),
        cmocka_unit_test(what_failed_is_sent_again_and_its_echo_ends_it_either_way),
        cmocka_unit_test(what_a_stream_lost_is_sent_again),
        cmocka_unit_test(too_many_become_one_of_everything),
        cmocka_unit_test(nothing_is_lost_by_failures_in_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
