/*
 * What is put is found, by whole keys and by variant; what replaces what; marks.
 */
#include "store_util.h"

static void
what_is_put_is_found_and_nothing_else(void **state)
{
    assert_int_equal(get(*state, "http://h/a"), STORE_MISS);
    assert_int_equal(PUT(*state, .key = "http://h/a", .body = "one"), STORE_STORED);
    ASSERT_BODY(*state, "http://h/a", NULL, "one");
    assert_int_equal(get(*state, "http://h/b"), STORE_MISS);
    assert_int_equal(get(*state, "http://h/a|x"), STORE_MISS);
}

static void
keys_of_one_hash_are_told_apart(void **state)
{
    struct store *s = *state;
    struct test_key a, b;
    struct test_request rq;
    struct object *o;
    bool soft;

    key_fill(&a, "http://h/a");
    key_fill(&b, "http://h/b");
    assert_int_equal(PUT(s, .key = "http://h/a"), STORE_STORED);
    b.k.hash = a.k.hash;
    rcu_begin();
    assert_int_equal(store_get(s, &b.k, request_fill(&rq, NULL), 0, &o, &soft), STORE_MISS);
    rcu_end();
}

static void
the_newer_replaces_the_older(void **state)
{
    struct store_figures f;

    PUT(*state, .key = "http://h/a", .body = "one");
    PUT(*state, .key = "http://h/a", .body = "two");
    ASSERT_BODY(*state, "http://h/a", NULL, "two");
    store_figures(*state, &f);
    assert_int_equal(f.objects, 1);
    assert_int_equal(f.entries, 1);
}

static void
each_variant_answers_its_own_requests(void **state)
{
    PUT(*state, .key = "http://h/a", .language = "de", .body = "eins");
    PUT(*state, .key = "http://h/a", .language = "en", .body = "one");
    ASSERT_BODY(*state, "http://h/a", "de", "eins");
    ASSERT_BODY(*state, "http://h/a", "en", "one");
    assert_int_equal(get_at(*state, "http://h/a", "fr", 0, NULL, NULL), STORE_VARY_MISS);
    PUT(*state, .key = "http://h/a", .language = "de", .body = "neu");
    ASSERT_BODY(*state, "http://h/a", "de", "neu");
    ASSERT_BODY(*state, "http://h/a", "en", "one");
}

#define IN(language) HEAD_TEXT "content-LANGUAGE:" language "\r\n"

static void
a_variant_in_the_language_that_is_preferred_to_all_others_answers(void **state)
{
    bool soft;

    PUT(*state, .key = "http://h/a", .language = "en, de", .body = "eins", .head = IN(" de"));
    ASSERT_BODY(*state, "http://h/a", "fr;q=0.5, de;q=1.0", "eins");
    assert_int_equal(get_at(*state, "http://h/a", "fr, de;q=0.5", 0, NULL, NULL), STORE_VARY_MISS);
    assert_int_equal(get_at(*state, "http://h/a", NULL, 0, NULL, NULL), STORE_VARY_MISS);
    /* The newest of them, but what matches before all. */
    PUT(*state, .key = "http://h/a", .language = "de, it", .body = "zwei", .head = IN("de \t"));
    ASSERT_BODY(*state, "http://h/a", "de", "zwei");
    ASSERT_BODY(*state, "http://h/a", "de, en", "eins");
    PUT(*state, .key = "http://h/a", .language = "de", .body = "drei", .head = IN("de"));
    PUT(*state, .key = "http://h/a", .language = "de, el", .body = "vier", .head = IN("de"));
    ASSERT_BODY(*state, "http://h/a", "DE;q=1", "drei");
    /* A purge takes it, as any other. */
    assert_int_equal(store_purge(*state, &(struct store_purge){ .kind = STORE_PURGE_URL,
        .text = SLICE("http://h/a"), .soft = true }, &(struct store_purged){ 0 }), 0);
    assert_int_equal(get_at(*state, "http://h/a", "de, sv;q=0.1", 0, NULL, &soft), STORE_HIT);
    assert_true(soft);
    assert_int_equal(store_purge(*state, &(struct store_purge){ .kind = STORE_PURGE_URL,
        .text = SLICE("http://h/a") }, &(struct store_purged){ 0 }), 0);
    assert_int_equal(get_at(*state, "http://h/a", "de, sv;q=0.1", 0, NULL, NULL), STORE_MISS);
}

static void
a_variant_that_says_no_one_language_answers_its_own_requests_alone(void **state)
{
    static const char *const heads[] = { HEAD_TEXT, IN(""), IN("de, en"),
        IN("de") "Content-Language: en\r\n", HEAD_TEXT "X-Content-Language: de\r\n" };

    for (size_t i = 0; i < NELEM(heads); i++) {
        PUT(*state, .key = "http://h/a", .language = "en, de", .head = heads[i]);
        assert_int_equal(get_at(*state, "http://h/a", "de", 0, NULL, NULL), STORE_VARY_MISS);
        assert_int_equal(get_at(*state, "http://h/a", "de, en", 0, NULL, NULL), STORE_HIT);
    }
}

static void
the_oldest_variant_goes_when_there_are_too_many(void **state)
{
    static const char *const languages[] = { "a", "b", "c", "d", "e" };
    struct store_figures f;

    for (size_t i = 0; i < NELEM(languages); i++)
        PUT(*state, .key = "http://h/a", .language = languages[i], .body = languages[i]);
    store_figures(*state, &f);
    assert_int_equal(f.objects, 4);
    assert_int_equal(get_at(*state, "http://h/a", "a", 0, NULL, NULL), STORE_VARY_MISS);
    for (size_t i = 1; i < NELEM(languages); i++)
        ASSERT_BODY(*state, "http://h/a", languages[i], languages[i]);
}

static void
the_newest_response_says_whether_it_varies(void **state)
{
    PUT(*state, .key = "http://h/a", .language = "de", .body = "eins");
    PUT(*state, .key = "http://h/a", .body = "all");
    ASSERT_BODY(*state, "http://h/a", "de", "all");
    PUT(*state, .key = "http://h/a", .language = "en", .body = "one");
    assert_int_equal(get_at(*state, "http://h/a", "de", 0, NULL, NULL), STORE_VARY_MISS);
}

static void
a_mark_answers_pass_until_its_time_or_a_put(void **state)
{
    struct test_key k;
    struct store_figures f;

    store_pass(*state, key_fill(&k, "http://h/a"), 1000);
    assert_int_equal(get_at(*state, "http://h/a", NULL, 999, NULL, NULL), STORE_PASS);
    assert_int_equal(get_at(*state, "http://h/a", NULL, 1000, NULL, NULL), STORE_MISS);
    store_figures(*state, &f);
    assert_int_equal(f.objects, 0);
    PUT(*state, .key = "http://h/a");
    assert_int_equal(get_at(*state, "http://h/a", NULL, 999, NULL, NULL), STORE_HIT);
    store_pass(*state, &k.k, 1000);
    assert_int_equal(get_at(*state, "http://h/a", NULL, 999, NULL, NULL), STORE_HIT);
}

static void
keep_refusal(void *arg, const struct store_refusal *r)
{
    struct buf *b = arg;

    buf_printf(b, "%.*s %u %lld %lld %.*s", SLICE_ARG(r->why), r->status, (long long)r->at_ms,
        (long long)r->until_ms, SLICE_ARG(r->head));
}

static void
a_mark_remembers_the_answer_that_was_not_stored(void **state)
{
    struct store_refusal r = { .why = SLICE("private"), .head = SLICE("Cache-Control: private\r\n"),
        .status = 200, .at_ms = 500, .until_ms = 1000 };
    struct buf b = { 0 };
    struct test_key k;

    assert_false(store_refused(*state, key_fill(&k, "http://h/a"), keep_refusal, &b));
    store_refuse(*state, &k.k, &r);
    assert_int_equal(get_at(*state, "http://h/a", NULL, 999, NULL, NULL), STORE_PASS);
    assert_int_equal(get_at(*state, "http://h/a", NULL, 1000, NULL, NULL), STORE_MISS);
    assert_true(store_refused(*state, &k.k, keep_refusal, &b));
    assert_true(slice_eq(buf_slice(&b), SLICE("private 200 500 1000 Cache-Control: private\r\n")));
    buf_free(&b);
}

static void
a_freshened_object_has_a_new_head_around_the_old_body(void **state)
{
    struct store *s = *state;
    struct object *was, *now, *again;
    struct body *body;
    struct store_parts p = { .head = SLICE("HTTP/1.1 200 OK\r\nX: 1\r\n"), .status_n = 17,
        .meta = { .status = 200, .response_ms = 7 }, .stamp = store_stamp(s) };

    assert_int_equal(put_out(s, (struct test_put){ .key = "http://h/a", .body = "one", .stamp = 1,
        .tags = { "t" } }, &was), STORE_STORED);
    body = was->body;
    assert_int_equal(store_freshen(s, was, &p, &now), STORE_STORED);
    assert_ptr_equal(now->body, body);
    assert_int_equal(now->meta.response_ms, 7);
    assert_int_equal(now->head->n, 23);
    ASSERT_BODY(s, "http://h/a", NULL, "one");
    assert_int_equal(purge(s, STORE_PURGE_TAG, "t", false).objects, 1);
    p.stamp = store_stamp(s);
    assert_int_equal(store_freshen(s, was, &p, &again), STORE_PURGED);
    object_unref(&was);
    object_unref(&now);
}

/* RFC 9111 4. The one that is there was asked for at 1000, came at 5000 and is dated so. */
static void
of_two_fetches_at_once_the_more_recent_answer_is_kept(void **state)
{
    static const struct {
        const char *what;
        int64_t request_ms, response_ms, date_ms;
        enum store_result then;
    } cases[] = {
        { "asked for before, dated before", 500, 900, 900, STORE_OLDER },
        { "asked for before, came later, dated before", 500, 9000, 4000, STORE_OLDER },
        { "asked for before, dated later", 500, 4000, 6000, STORE_STORED },
        { "one date, came before", 500, 4500, 5000, STORE_OLDER },
        { "one second, came before", 500, 4500, 5900, STORE_OLDER },
        { "one date, came later", 4000, 6000, 5000, STORE_STORED },
        { "asked for in the millisecond in which that came, dated before", 5000, 5100, 1000,
            STORE_OLDER },
        { "asked for afterwards, dated before", 5001, 5100, 1000, STORE_STORED },
        { "when it was asked for is not known", 0, 900, 900, STORE_STORED },
    };
    struct store *s = *state;

    for (size_t i = 0; i < NELEM(cases); i++) {
        store_free(&s);
        s = *state = store_new(64 << 20, 4, &(struct err){ 0 });
        assert_int_equal(PUT(s, .key = "http://h/a", .body = "there", .request_ms = 1000,
            .response_ms = 5000, .date_ms = 5000), STORE_STORED);
        if (PUT(s, .key = "http://h/a", .body = "late", .request_ms = cases[i].request_ms,
                .response_ms = cases[i].response_ms, .date_ms = cases[i].date_ms) != cases[i].then)
            fail_msg("%s", cases[i].what);
        ASSERT_BODY(s, "http://h/a", NULL, cases[i].then == STORE_STORED ? "late" : "there");
    }
}

static void
an_older_answer_gives_way_only_to_what_answers_the_same_requests(void **state)
{
    struct store *s = *state;

    PUT(s, .key = "http://h/a", .language = "de", .body = "neu", .request_ms = 1000,
        .response_ms = 5000, .date_ms = 5000);
    assert_int_equal(PUT(s, .key = "http://h/a", .language = "en", .body = "old",
        .request_ms = 500, .response_ms = 900, .date_ms = 900), STORE_STORED);
    assert_int_equal(PUT(s, .key = "http://h/a", .language = "de", .body = "alt",
        .request_ms = 500, .response_ms = 900, .date_ms = 900), STORE_OLDER);
    assert_int_equal(PUT(s, .key = "http://h/a", .body = "without Vary", .request_ms = 500,
        .response_ms = 900, .date_ms = 900), STORE_OLDER);
    ASSERT_BODY(s, "http://h/a", "de", "neu");
    ASSERT_BODY(s, "http://h/a", "en", "old");
}

static void
what_is_softly_purged_gives_way_to_an_older_answer(void **state)
{
    struct store *s = *state;

    PUT(s, .key = "http://h/a", .body = "new", .request_ms = 1000, .response_ms = 5000,
        .date_ms = 5000);
    purge(s, STORE_PURGE_URL, "http://h/a", true);
    assert_int_equal(PUT(s, .key = "http://h/a", .body = "old", .request_ms = 500,
        .response_ms = 900, .date_ms = 900), STORE_STORED);
    ASSERT_BODY(s, "http://h/a", NULL, "old");
}

static void
a_304_that_was_asked_for_earlier_does_not_hide_a_newer_answer(void **state)
{
    struct store *s = *state;
    struct store_parts p = { .head = SLICE(HEAD_TEXT), .status_n = 17, .request_ms = 500,
        .meta = { .status = 200, .response_ms = 900, .date_ms = 900 }, .stamp = store_stamp(s) };
    struct object *was, *out = NULL;
    struct test_request rq;
    struct test_key k;
    struct body *body = body_new(0);
    struct store_parts other = { .key = key_fill(&k, "http://h/a"), .vary = SLICE("cookie"),
        .head = SLICE(HEAD_TEXT), .status_n = 17, .body = body, .request_ms = 600,
        .meta = { .status = 200, .response_ms = 5000, .date_ms = 5000 }, .stamp = store_stamp(s) };
    struct buf variant = { 0 };

    sem_variant(other.vary, request_fill(&rq, NULL), &variant);
    other.variant = buf_slice(&variant);
    assert_int_equal(body_append(body, SLICE("new")), 0);
    assert_int_equal(put_out(s, (struct test_put){ .key = "http://h/a", .language = "de",
        .body = "old" }, &was), STORE_STORED);
    assert_int_equal(store_put(s, &other, NULL), STORE_STORED);
    assert_int_equal(store_freshen(s, was, &p, &out), STORE_OLDER);
    assert_null(out);
    ASSERT_BODY(s, "http://h/a", "de", "new");
    buf_free(&variant);
    body_unref(&body);
    object_unref(&was);
}

static void
a_dropped_object_is_gone_once(void **state)
{
    struct object *o;

    put_out(*state, (struct test_put){ .key = "http://h/a", .body = "one", .stamp = 1 }, &o);
    store_drop(*state, o);
    assert_int_equal(get(*state, "http://h/a"), STORE_MISS);
    store_drop(*state, o);
    object_unref(&o);
}

static void
what_is_too_large_is_not_stored(void **state)
{
    assert_int_equal(PUT(*state, .key = "http://h/a", .body_n = 16 << 20), STORE_TOO_LARGE);
    assert_int_equal(PUT(*state, .key = "http://h/a", .body_n = 4 << 20), STORE_STORED);
}

static void
a_hundred_thousand_keys_are_found_and_leave_again(void **state)
{
    struct store_figures f, after;
    char key[64];

    store_figures(*state, &f);
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "http://h/%d", i);
        assert_int_equal(PUT(*state, .key = key, .body = key), STORE_STORED);
    }
    for (int i = 0; i < 100000; i += 7) {
        snprintf(key, sizeof key, "http://h/%d", i);
        ASSERT_BODY(*state, key, NULL, key);
    }
    for (int i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "http://h/%d", i);
        assert_int_equal(purge(*state, STORE_PURGE_URL, key, false).objects, 1);
    }
    store_figures(*state, &after);
    assert_int_equal(after.entries, 0);
    assert_true(after.bytes < f.bytes + 200000);
}

int
main(void)
{
    const struct CMUnitTest objects[] = {
        TEST(what_is_put_is_found_and_nothing_else),
        TEST(keys_of_one_hash_are_told_apart),
        TEST(the_newer_replaces_the_older),
        TEST(each_variant_answers_its_own_requests),
        TEST(a_variant_in_the_language_that_is_preferred_to_all_others_answers),
        TEST(a_variant_that_says_no_one_language_answers_its_own_requests_alone),
        TEST(the_oldest_variant_goes_when_there_are_too_many),
        TEST(the_newest_response_says_whether_it_varies),
        TEST(a_mark_answers_pass_until_its_time_or_a_put),
        TEST(a_mark_remembers_the_answer_that_was_not_stored),
        TEST(a_freshened_object_has_a_new_head_around_the_old_body),
        TEST(of_two_fetches_at_once_the_more_recent_answer_is_kept),
        TEST(an_older_answer_gives_way_only_to_what_answers_the_same_requests),
        TEST(what_is_softly_purged_gives_way_to_an_older_answer),
        TEST(a_304_that_was_asked_for_earlier_does_not_hide_a_newer_answer),
        TEST(a_dropped_object_is_gone_once),
        TEST(what_is_too_large_is_not_stored),
        TEST(a_hundred_thousand_keys_are_found_and_leave_again),
    };

    return RUN(objects);
}
