/*
 * Coded forms of stored objects: they are hung on once, charged, carried over a 304, and end with
 * their object.
 */
#include "store_util.h"

#include "base/base.h"

static struct object *
find(struct store *s, const char *key)
{
    struct test_key k;
    struct test_request rq;
    struct object *o = NULL;
    bool soft;

    rcu_begin();
    if (store_get(s, key_fill(&k, key), request_fill(&rq, NULL), 0, &o, &soft) == STORE_HIT)
        object_ref(o);
    rcu_end();
    return o;
}

static struct forms *
forms_of(enum sem_coding c, size_t bytes)
{
    struct forms *f = forms_new();
    char *text = calloc(1, bytes);
    struct store_parts p = { .head = SLICE(HEAD_TEXT), .status_n = 17, .body = body_new(bytes) };

    assert_non_null(f);
    assert_int_equal(body_append(p.body, (struct slice){ text, bytes }), 0);
    body_seal(p.body);
    assert_int_equal(forms_add(f, c, &p), 0);
    body_unref(&p.body);
    free(text);
    return f;
}

static uint64_t
bytes(struct store *s)
{
    struct store_figures f;

    store_figures(s, &f);
    return f.bytes;
}

static void
forms_are_hung_on_once_and_charged(void **state)
{
    struct store *s = *state;
    struct forms *f = forms_of(SEM_BR, 10000), *more = forms_of(SEM_GZIP, 500);
    uint64_t before, held = 0;
    struct object *o;

    PUT(s, .key = "http://h/a", .body = "one");
    o = find(s, "http://h/a");
    assert_null(o->forms);
    assert_true(store_wants_forms(s, o));
    before = bytes(s);
    assert_int_equal(store_add_forms(s, o, &f, &held), STORE_STORED);
    assert_null(f);
    assert_in_range(bytes(s) - before, 10000, 10000 + 2500);
    assert_int_equal(rcu_load(&o->forms)->at[0].coding, SEM_BR);
    assert_int_equal(body_size(o->forms->at[0].body), 10000);
    assert_int_equal(o->forms->at[0].head->n, strlen(HEAD_TEXT));
    assert_false(store_wants_forms(s, o));
    assert_int_equal(store_add_forms(s, o, &more, &held), STORE_PURGED);
    assert_non_null(more);
    forms_free(&more);
    object_unref(&o);
}

static void
what_was_held_for_them_is_not_charged_twice(void **state)
{
    struct store *s = *state;
    struct forms *f = forms_of(SEM_ZSTD, 10000);
    uint64_t held = 0, before;
    struct object *o;

    PUT(s, .key = "http://h/a", .body = "one");
    o = find(s, "http://h/a");
    before = bytes(s);
    assert_true(store_hold(s, &held, 9000));
    assert_int_equal(store_add_forms(s, o, &f, &held), STORE_STORED);
    assert_int_equal(held, 0);
    assert_in_range(bytes(s) - before, 10000, 10000 + 2500);
    object_unref(&o);
    purge(s, STORE_PURGE_URL, "http://h/a", false);
    sweep_wait(s);
    assert_true(bytes(s) < before + 100);
}

static void
who_was_purged_or_replaced_gets_none_and_nothing_changes(void **state)
{
    struct store *s = *state;
    struct forms *f = forms_of(SEM_BR, 10000);
    uint64_t held = 0, before;
    struct object *a, *b;

    PUT(s, .key = "http://h/a", .body = "one");
    PUT(s, .key = "http://h/b", .body = "one");
    a = find(s, "http://h/a");
    b = find(s, "http://h/b");
    PUT(s, .key = "http://h/a", .body = "two");
    purge(s, STORE_PURGE_PREFIX, "http://h/b", false);
    assert_false(store_wants_forms(s, a));
    assert_false(store_wants_forms(s, b));
    sweep_wait(s);
    before = bytes(s);
    assert_int_equal(store_add_forms(s, a, &f, &held), STORE_PURGED);
    assert_int_equal(store_add_forms(s, b, &f, &held), STORE_PURGED);
    assert_non_null(f);
    assert_int_equal(bytes(s), before);
    forms_free(&f);
    object_unref(&a);
    object_unref(&b);
}

static void
forms_that_are_too_large_are_refused(void **state)
{
    struct store *s = *state;
    struct forms *f = forms_of(SEM_BR, 9 << 20);
    uint64_t held = 0;
    struct object *o;

    PUT(s, .key = "http://h/a", .body = "one");
    o = find(s, "http://h/a");
    assert_int_equal(store_add_forms(s, o, &f, &held), STORE_TOO_LARGE);
    assert_null(o->forms);
    forms_free(&f);
    object_unref(&o);
}

static void
a_304_may_bring_them_along(void **state)
{
    struct store *s = *state;
    struct forms *f = forms_of(SEM_BR, 10000), *again = forms_new();
    struct store_parts p = { .head = SLICE(HEAD_TEXT "X: 1\r\n"), .status_n = 17,
        .stamp = store_stamp(s), .forms = &again };
    struct store_parts form = { .head = SLICE(HEAD_TEXT), .status_n = 17 };
    struct object *was, *now;
    uint64_t held = 0, before;

    PUT(s, .key = "http://h/a", .body = "one");
    was = find(s, "http://h/a");
    store_add_forms(s, was, &f, &held);
    form.body = was->forms->at[0].body;
    assert_int_equal(forms_add(again, SEM_BR, &form), 0);
    before = bytes(s);
    assert_int_equal(store_freshen(s, was, &p, &now), STORE_STORED);
    assert_null(again);
    assert_ptr_equal(now->forms->at[0].body, was->forms->at[0].body);
    assert_ptr_not_equal(now->forms, was->forms);
    assert_in_range(bytes(s), before, before + 100);
    object_unref(&was);
    rcu_drain();
    assert_int_equal(body_size(now->forms->at[0].body), 10000);
    object_unref(&now);
}

static void
a_304_that_is_refused_leaves_them_with_the_caller(void **state)
{
    struct store *s = *state;
    struct forms *again = forms_of(SEM_BR, 100);
    struct store_parts p = { .head = SLICE(HEAD_TEXT), .status_n = 17, .stamp = store_stamp(s),
        .forms = &again };
    struct object *was, *now = NULL;
    uint64_t before;

    PUT(s, .key = "http://h/a", .body = "one");
    was = find(s, "http://h/a");
    purge(s, STORE_PURGE_URL, "http://h/a", false);
    PUT(s, .key = "http://h/a", .body = "two");
    before = bytes(s);
    assert_int_equal(store_freshen(s, was, &p, &now), STORE_PURGED);
    assert_non_null(again);
    assert_int_equal(bytes(s), before);
    forms_free(&again);
    object_unref(&was);
}

static void
evicting_objects_frees_their_forms(void **state)
{
    struct store *s = *state;
    struct store_figures f;

    for (int i = 0; i < 300; i++) {
        struct forms *forms = forms_of(SEM_BR, 400000);
        uint64_t held = 0;
        struct object *o;
        char key[32];

        snprintf(key, sizeof key, "http://h/%d", i);
        assert_int_equal(PUT(s, .key = key, .body = "one"), STORE_STORED);
        if ((o = find(s, key)) != NULL) {
            enum store_result r = store_add_forms(s, o, &forms, &held);

            /* Making room may take the object itself; or what is on its way out fills memory. */
            assert_true(r == STORE_STORED || r == STORE_PURGED || r == STORE_NO_MEMORY);
            object_unref(&o);
        }
        forms_free(&forms);
        store_figures(s, &f);
        assert_true(f.bytes <= f.limit);
        if (i % 20 == 0)
            rcu_drain();
    }
    store_figures(s, &f);
    assert_true(f.objects < 200);
    purge(s, STORE_PURGE_ALL, "", false);
    sweep_wait(s);
    store_figures(s, &f);
    assert_int_equal(f.objects, 0);
    assert_true(f.bytes < 4 << 20);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(forms_are_hung_on_once_and_charged),
        TEST(what_was_held_for_them_is_not_charged_twice),
        TEST(who_was_purged_or_replaced_gets_none_and_nothing_changes),
        TEST(forms_that_are_too_large_are_refused),
        TEST(a_304_may_bring_them_along),
        TEST(a_304_that_is_refused_leaves_them_with_the_caller),
        TEST(evicting_objects_frees_their_forms),
    };

    rcu_enter_thread();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
