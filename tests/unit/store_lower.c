/*
 * What tiers below memory get of the store: word of purges and drops, an object's parts, and
 * whether what they hold may be kept.
 */
#include "store_util.h"

struct told { enum store_purge_kind kind; bool soft; char text[64]; uint64_t seq, stamp; };
struct heard {
    struct store *s;
    struct told at[16];
    size_t n;
    char key[64];
    unsigned drops;
};

static void
on_purge(void *arg, const struct store_purge *p, uint64_t seq)
{
    struct heard *h = arg;
    struct told *t = &h->at[h->n++];

    assert_true(h->n <= NELEM(h->at));
    *t = (struct told){ .kind = p->kind, .soft = p->soft, .seq = seq, .stamp = store_stamp(h->s) };
    memcpy(t->text, p->text.p != NULL ? p->text.p : "", p->text.n);
}

static void
on_drop(void *arg, const struct object *o)
{
    struct heard *h = arg;
    struct slice key = store_identity(o).key;

    memcpy(h->key, key.p, key.n);
    h->key[key.n] = '\0';
    h->drops++;
}

static void
listen_to(struct store *s, struct heard *h)
{
    *h = (struct heard){ .s = s };
    store_on_purge(s, on_purge, h);
    store_on_drop(s, on_drop, h);
}

static void
purges_are_told_in_their_order_before_anything_can_have_their_stamp(void **state)
{
    uint64_t before = store_stamp(*state);
    struct heard h;

    listen_to(*state, &h);
    purge(*state, STORE_PURGE_URL, "http://h/a", false);
    purge(*state, STORE_PURGE_TAG, "t", true);
    purge(*state, STORE_PURGE_PATTERN, "/x*", false);
    assert_int_equal(h.n, 3);
    assert_string_equal(h.at[0].text, "http://h/a");
    assert_string_equal(h.at[1].text, "t");
    assert_int_equal(h.at[2].kind, STORE_PURGE_PATTERN);
    assert_true(h.at[1].soft && !h.at[0].soft);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(h.at[i].seq, before + 1 + i);
        assert_int_equal(h.at[i].stamp, before + i);
    }
}

static void
a_purge_that_became_one_of_everything_is_told_as_that(void **state)
{
    struct store_purge p = { .kind = STORE_PURGE_PREFIX, .soft = true };
    struct store *s = *state;
    struct store_purged r;
    struct heard h;

    pthread_mutex_lock(&s->purge_lock);
    s->nrules += RULES_MAX;
    pthread_mutex_unlock(&s->purge_lock);
    listen_to(s, &h);
    p.text = SLICE("http://h/a");
    assert_int_equal(store_purge(s, &p, &r), -1);
    pthread_mutex_lock(&s->purge_lock);
    s->nrules -= RULES_MAX;
    pthread_mutex_unlock(&s->purge_lock);
    assert_int_equal(h.n, 1);
    assert_int_equal(h.at[0].kind, STORE_PURGE_ALL);
    assert_true(h.at[0].soft);
}

static struct object *
stored(struct store *s, struct test_put a)
{
    struct object *o = NULL;

    assert_int_equal(put_out(s, a, &o), STORE_STORED);
    return o;
}

static void
what_is_dropped_or_softened_is_told(void **state)
{
    struct object *a = stored(*state, (struct test_put){ .key = "http://h/a" });
    struct object *b = stored(*state, (struct test_put){ .key = "http://h/b" });
    struct heard h;

    listen_to(*state, &h);
    store_soften(*state, a);
    assert_string_equal(h.key, "http://h/a");
    store_drop(*state, b);
    assert_string_equal(h.key, "http://h/b");
    assert_int_equal(h.drops, 2);
    store_drop(*state, b);              /* a lower tier may have it, though the index has not */
    assert_int_equal(h.drops, 3);
    object_unref(&a);
    object_unref(&b);
}

/* ---- parts ---------------------------------------------------------------------------------- */

struct copy {
    char key[64], url[64], path[64], vary[64], head[128], tags[128], groups[128];
    uint64_t stamp, route_id, body;
    size_t variant_n;
};

static void
text_of(char *to, struct slice s)
{
    memcpy(to, s.p, s.n);
    to[s.n] = '\0';
    for (size_t i = 0; i < s.n; i++)
        to[i] = to[i] == '\0' ? '|' : to[i];
}

static void
take_parts(void *arg, const struct store_parts *p)
{
    struct copy *c = arg;
    struct key k = *p->key;

    text_of(c->key, k.bytes);
    text_of(c->url, (struct slice){ k.bytes.p, k.url_n });
    text_of(c->path, (struct slice){ k.bytes.p + k.path_at, k.url_n - k.path_at });
    text_of(c->vary, p->vary);
    text_of(c->head, p->head);
    for (size_t i = 0; i < p->ntags; i++) {
        text_of(c->tags + strlen(c->tags), p->tags[i]);
        strcat(c->tags, " ");
    }
    for (size_t i = 0; i < p->ngroups; i++) {
        text_of(c->groups + strlen(c->groups), p->groups[i]);
        strcat(c->groups, " ");
    }
    c->variant_n = p->variant.n;
    c->stamp = p->stamp;
    c->route_id = p->route_id;
    c->body = body_size(p->body);
    assert_int_equal(k.hash, key_hash(k.bytes));
    assert_int_equal(k.url_hash, key_hash((struct slice){ k.bytes.p, k.url_n }));
}

static void
an_object_hands_out_the_parts_it_was_stored_with(void **state)
{
    struct object *o = stored(*state, (struct test_put){ .key = "http://h/a?q|part",
        .language = "de", .tags = { "x", "y" }, .groups = { { "http://h\0g", 10 } },
        .route_id = 7, .body = "four" });
    struct copy c = { 0 };

    assert_true(store_parts_of(*state, o, take_parts, &c));
    assert_string_equal(c.key, "http://h/a?q|part");
    assert_string_equal(c.url, "http://h/a?q");
    assert_string_equal(c.path, "/a?q");
    assert_string_equal(c.vary, "accept-language");
    assert_true(c.variant_n > 0);
    assert_string_equal(c.head, HEAD_TEXT);
    assert_string_equal(c.tags, "x y ");
    assert_string_equal(c.groups, "http://h|g ");
    assert_int_equal(c.route_id, 7);
    assert_int_equal(c.stamp, o->stamp);
    assert_int_equal(c.body, 4);
    object_unref(&o);
}

static void
what_is_replaced_purged_dropped_or_stale_by_purge_hands_out_nothing(void **state)
{
    struct object *a = stored(*state, (struct test_put){ .key = "http://h/a" });
    struct object *b = stored(*state, (struct test_put){ .key = "http://h/b", .tags = { "t" } });
    struct object *c = stored(*state, (struct test_put){ .key = "http://h/c" });
    struct object *d = stored(*state, (struct test_put){ .key = "http://h/d" });
    struct copy copy = { 0 };

    PUT(*state, .key = "http://h/a");
    purge(*state, STORE_PURGE_TAG, "t", true);
    store_drop(*state, c);
    store_soften(*state, d);
    assert_false(store_parts_of(*state, a, take_parts, &copy));
    assert_false(store_parts_of(*state, b, take_parts, &copy));
    assert_false(store_parts_of(*state, c, take_parts, &copy));
    assert_false(store_parts_of(*state, d, take_parts, &copy));
    object_unref(&a);
    object_unref(&b);
    object_unref(&c);
    object_unref(&d);
}

static void
what_was_softly_purged_before_it_came_is_stored_as_that(void **state)
{
    struct test_key k;
    struct store_parts p = { .key = key_fill(&k, "http://h/a"), .head = SLICE(HEAD_TEXT),
        .status_n = 17, .stamp = store_stamp(*state), .soft = true, .body = body_new(0) };

    body_append(p.body, SLICE("b"));
    body_seal(p.body);
    assert_int_equal(store_put(*state, &p, NULL), STORE_STORED);
    assert_true(is_soft(*state, "http://h/a"));
    body_unref(&p.body);
    PUT(*state, .key = "http://h/a");
    assert_false(is_soft(*state, "http://h/a"));
}

/* ---- what may be kept ------------------------------------------------------------------------ */

static void
each_purge_that_a_put_would_meet_is_a_reason_not_to_keep_it(void **state)
{
    static const struct { enum store_purge_kind kind; struct slice text; bool keeps; } cases[] = {
        { STORE_PURGE_URL, SLICE("http://h/a/b"), false },
        { STORE_PURGE_URL, SLICE("http://h/a/c"), true },
        { STORE_PURGE_TAG, SLICE("t"), false },
        { STORE_PURGE_TAG, SLICE("u"), true },
        { STORE_PURGE_GROUP, SLICE("http://h\0g"), false },
        { STORE_PURGE_GROUP, SLICE("\0g"), false },
        { STORE_PURGE_GROUP, SLICE("http://i\0g"), true },
        { STORE_PURGE_PREFIX, SLICE("http://h/a/"), false },
        { STORE_PURGE_PREFIX, SLICE("http://h/b/"), true },
        { STORE_PURGE_PATTERN, SLICE("/*/b"), false },
        { STORE_PURGE_PATTERN, SLICE("/*/c"), true },
        { STORE_PURGE_PATH, SLICE("/a/b"), false },
        { STORE_PURGE_PATH_PREFIX, SLICE("/a"), false },
        { STORE_PURGE_ROUTE, { NULL, 0 }, false },
        { STORE_PURGE_ALL, { NULL, 0 }, false },
    };
    const struct slice tag = SLICE("t"), group = SLICE("http://h\0g");
    struct test_key k;
    struct store_parts p = { .key = key_fill(&k, "http://h/a/b"), .route_id = 7, .tags = &tag,
        .ntags = 1, .groups = &group, .ngroups = 1 };

    for (size_t i = 0; i < 2 * NELEM(cases); i++) {
        struct store_purge q = { .kind = cases[i / 2].kind, .text = cases[i / 2].text, .id = 7,
            .soft = i % 2 == 1 };
        struct store_purged r;

        p.stamp = store_stamp(*state);
        assert_true(store_may_keep(*state, &p));
        assert_int_equal(store_purge(*state, &q, &r), 0);
        assert_int_equal(store_may_keep(*state, &p), cases[i / 2].keeps);
    }
}

int
main(void)
{
    const struct CMUnitTest lower[] = {
        TEST(purges_are_told_in_their_order_before_anything_can_have_their_stamp),
        TEST(a_purge_that_became_one_of_everything_is_told_as_that),
        TEST(what_is_dropped_or_softened_is_told),
        TEST(an_object_hands_out_the_parts_it_was_stored_with),
        TEST(what_is_replaced_purged_dropped_or_stale_by_purge_hands_out_nothing),
        TEST(what_was_softly_purged_before_it_came_is_stored_as_that),
        TEST(each_purge_that_a_put_would_meet_is_a_reason_not_to_keep_it),
    };

    return RUN(lower);
}
