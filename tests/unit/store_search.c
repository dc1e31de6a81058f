/*
 * What is stored by No-Vary-Search: found by its rule, purged by what it covers, gone with its last.
 */
#include "store_util.h"

/* Puts a response of `url` that says `rule`; whether it is stored for all that the rule calls equal. */
static bool
put_ruled(struct store *s, const char *url, const char *rule, uint64_t stamp, int64_t date_ms)
{
    struct test_key k;
    struct buf b = { 0 };
    struct key made;
    struct store_parts p = { .key = key_fill(&k, url), .head = SLICE(HEAD_TEXT), .status_n = 17,
        .stamp = stamp != 0 ? stamp : store_stamp(s), .meta.date_ms = date_ms,
        .meta.response_ms = date_ms };
    bool ruled;

    p.body = body_new(0);
    assert_int_equal(body_append(p.body, slice_of(url)), 0);
    body_seal(p.body);
    ruled = store_by_search(s, &p, slice_of(rule), &b, &made);
    assert_int_equal(store_put(s, &p, NULL), stamp == 0 ? STORE_STORED : STORE_PURGED);
    body_unref(&p.body);
    buf_free(&b);
    return ruled;
}

/* The body of what answers url besides what is stored for it alone; "" for none. */
static const char *
search(struct store *s, const char *url)
{
    static char body[4096];
    struct test_key k;
    struct test_request rq;
    struct buf b = { 0 };
    struct key found;
    struct object *o;
    bool soft;

    body[0] = '\0';
    rcu_begin();
    if (store_search(s, key_fill(&k, url), request_fill(&rq, NULL), 0, &b, &found, &o, &soft) ==
        STORE_HIT) {
        struct body_cursor c = { 0 };
        struct iovec v = { 0 };

        assert_true(body_pieces(o->body, &c, body_size(o->body), &v, 1) == 1);
        memcpy(body, v.iov_base, v.iov_len);
        body[v.iov_len] = '\0';
        assert_true(slice_eq(found.bytes, buf_slice(&b)));
        b.n = 0;
        assert_true(store_search_rule(s, o, &b) && b.n > 0);
    }
    rcu_end();
    buf_free(&b);
    return body;
}

static void
a_rule_finds_what_is_equal_by_it(void **state)
{
    assert_string_equal(search(*state, "http://h/a?x"), "");
    assert_true(put_ruled(*state, "http://h/a?q=1&x", ".l&x", 0, 0));
    assert_string_equal(search(*state, "http://h/a?q=1"), "http://h/a?q=1&x");
    assert_string_equal(search(*state, "http://h/a?x=1&q=1"), "http://h/a?q=1&x");
    assert_string_equal(search(*state, "http://h/a?q=2"), "");
    assert_string_equal(search(*state, "http://h/aa?q=1"), "");
    assert_string_equal(search(*state, "http://h/a?q=1|part"), "");
    assert_true(put_ruled(*state, "http://h/a?q=1|part", ".l&x", 0, 0));
    assert_string_equal(search(*state, "http://h/a?q=1&x|part"), "http://h/a?q=1|part");
    assert_int_equal(get(*state, "http://h/a?q=1&x"), STORE_MISS);
}

static void
of_several_the_most_recent_answers(void **state)
{
    put_ruled(*state, "http://h/a?1", ".a", 0, 5000);
    put_ruled(*state, "http://h/a?2", "oa", 0, 9000);
    put_ruled(*state, "http://h/a?3", ".a&n", 0, 7000);
    assert_string_equal(search(*state, "http://h/a"), "http://h/a?2");
    put_ruled(*state, "http://h/a?4", ".a", 0, 9001);       /* in the same second, later */
    assert_string_equal(search(*state, "http://h/a"), "http://h/a?4");
}

static void
what_was_stored_for_its_url_alone_goes(void **state)
{
    PUT(*state, .key = "http://h/a?1");
    PUT(*state, .key = "http://h/a?2");
    PUT(*state, .key = "http://h/a?3", .response_ms = 9000);
    put_ruled(*state, "http://h/a?1", ".a", 0, 5000);
    put_ruled(*state, "http://h/a?3", ".a", 0, 5000);
    assert_int_equal(get(*state, "http://h/a?1"), STORE_MISS);
    assert_int_equal(get(*state, "http://h/a?2"), STORE_HIT);
    assert_int_equal(get(*state, "http://h/a?3"), STORE_HIT);       /* it came later */
}

static void
one_more_rule_than_is_kept_is_not_followed(void **state)
{
    struct store_figures f;
    char rule[16];

    for (int i = 0; i <= STORE_SEARCHES_MAX; i++) {
        snprintf(rule, sizeof rule, ".l&%d", i);
        assert_int_equal(put_ruled(*state, "http://h/a?q", rule, 0, 0), i < STORE_SEARCHES_MAX);
    }
    assert_true(put_ruled(*state, "http://h/a?q", ".l&0", 0, 0));
    assert_true(put_ruled(*state, "http://h/b?q", ".l&x", 0, 0));
    assert_int_equal(get(*state, "http://h/a?q"), STORE_MISS);      /* .l&0 came after it */
    purge(*state, STORE_PURGE_PREFIX, "http://h/a", false);
    sweep_wait(*state);
    assert_true(put_ruled(*state, "http://h/a?q", ".l&y", 0, 0));
    purge(*state, STORE_PURGE_ALL, "", false);
    sweep_wait(*state);
    store_figures(*state, &f);
    assert_int_equal(f.tags, 0);
    assert_int_equal(((struct store *)*state)->tags.searches, 0);
}

static void
a_purge_by_url_takes_what_covers_it(void **state)
{
    struct store_purge p = { .kind = STORE_PURGE_URL, .text = SLICE("http://h/a?x=9&q=1") };

    for (int soft = 0; soft < 2; soft++) {
        put_ruled(*state, "http://h/a?q=1&x", ".l&x", 0, 0);
        put_ruled(*state, "http://h/a?q=1&x|part", ".l&x", 0, 0);
        put_ruled(*state, "http://h/a?q=3&y", "ol&y", 0, 0);
        put_ruled(*state, "http://h/a?q=2", ".l&x", 0, 0);
        PUT(*state, .key = "http://h/a?x=9&q=1");
        assert_int_equal(store_purge_count(*state, &p), 3);
        assert_int_equal(purge(*state, STORE_PURGE_URL, "http://h/a?x=9&q=1", soft).objects, 3);
        assert_string_equal(search(*state, "http://h/a?q=1"), soft ? "http://h/a?q=1&x" : "");
        assert_string_equal(search(*state, "http://h/a?q=2&x"), "http://h/a?q=2");
        assert_string_equal(search(*state, "http://h/a?q=3&y=1"), "http://h/a?q=3&y");
    }
}

static void
a_purge_refuses_what_is_on_its_way_by_any_rule(void **state)
{
    uint64_t stamp = store_stamp(*state);
    struct test_key k;

    purge(*state, STORE_PURGE_URL, "http://h/a?x=1", false);
    put_ruled(*state, "http://h/a?x=2", ".a", stamp, 0);
    put_ruled(*state, "http://h/b?x=2", ".a", 0, 0);
    assert_true(store_stamp_outdated(*state, stamp, key_fill(&k, "http://h/a?x=3"), 0));
    assert_false(store_stamp_outdated(*state, stamp, key_fill(&k, "http://h/c?x=3"), 0));
}

static const struct { enum store_purge_kind kind; const char *text; bool takes; } texts[] = {
    { STORE_PURGE_PREFIX, "http://h/a?x", true }, { STORE_PURGE_PREFIX, "http://h/a?", true },
    { STORE_PURGE_PREFIX, "http://h/", true }, { STORE_PURGE_PREFIX, "http://h/aa?x", false },
    { STORE_PURGE_PREFIX, "http://h/?x", false }, { STORE_PURGE_PATH, "/a?x", true },
    { STORE_PURGE_PATH, "/a", false }, { STORE_PURGE_PATH, "/a/?x", false },
    { STORE_PURGE_PATH_PREFIX, "/a?x=1", true }, { STORE_PURGE_PATH_PREFIX, "/b?x=1", false },
    { STORE_PURGE_PATTERN, "/a?x=*", true }, { STORE_PURGE_PATTERN, "/?\\?x=*", true },
    { STORE_PURGE_PATTERN, "/a\\?x=*", true }, { STORE_PURGE_PATTERN, "/b?x=*", false },
    { STORE_PURGE_PATTERN, "/a", false }, { STORE_PURGE_PATTERN, "*", true },
    { STORE_PURGE_PATTERN, "*q=1", true },
};

static void
a_text_that_says_something_of_the_query_takes_the_path(void **state)
{
    for (size_t i = 0; i < NELEM(texts); i++) {
        put_ruled(*state, "http://h/a?q=1&x", ".l&x", 0, 0);
        PUT(*state, .key = "http://h/a?q=1&y");
        purge(*state, texts[i].kind, texts[i].text, false);
        if ((search(*state, "http://h/a?q=1")[0] == '\0') != texts[i].takes)
            fail_msg("%s", texts[i].text);
        purge(*state, STORE_PURGE_ALL, "", false);
    }
}

int
main(void)
{
    const struct CMUnitTest searches[] = {
        TEST(a_rule_finds_what_is_equal_by_it),
        TEST(of_several_the_most_recent_answers),
        TEST(what_was_stored_for_its_url_alone_goes),
        TEST(one_more_rule_than_is_kept_is_not_followed),
        TEST(a_purge_by_url_takes_what_covers_it),
        TEST(a_purge_refuses_what_is_on_its_way_by_any_rule),
        TEST(a_text_that_says_something_of_the_query_takes_the_path),
    };

    return RUN(searches);
}
