/*
 * No-Vary-Search: one stored response for many URLs of a path.
 *
 * Model    what has a rule is stored under one key for all URLs that the rule calls equal, instead
 *          of its own (key_search). The rules that are stored for a path are tags of a kind of
 *          their own, found by the path: a rule is known as long as something is stored by it. Who
 *          finds nothing under its own key asks them, at most STORE_SEARCHES_MAX, and looks under
 *          the key that each makes of its own. A response of one more rule than that is stored for
 *          its URL alone. So is a part of one (206): parts are joined byte by byte where their
 *          strong validators are equal, which are unique among the representations of one resource
 *          (RFC 9110 8.8.1), and that two URLs have one resource's bytes is more than what the rule
 *          promises, that they may answer each other.
 *          A purge by URL takes, for each rule of the path, what is stored under what that makes of
 *          the URL: under its lock, before it is published. Texts that name a part of a URL
 *          (prefixes, patterns) meet the path where they say something of the query (state.c).
 * Threads  any.
 */
#include "store/inside.h"

uint64_t
search_cell(struct slice url)
{
    return tag_hash(TAG_SEARCH, key_path(url));
}

struct slice
node_search_rule(const struct node *n)
{
    for (size_t i = 0; i < n->ntags; i++) {
        const struct tag *g = node_tags(n)[i];
        const char *wall = g->text[0] == TAG_SEARCH ?
            memchr(g->text + 1, '\0', g->text_n - 1) : NULL;

        if (wall != NULL)
            return (struct slice){ wall + 1, (size_t)(g->text + g->text_n - wall - 1) };
    }
    return (struct slice){ NULL, 0 };
}

/* Rules of the path; a smaller n and *rules shorter when memory is out. */
static size_t
rules_of(struct store *s, const struct key *k, struct buf *rules)
{
    size_t n;

    if (atomic_load_explicit(&s->tags.searches, memory_order_relaxed) == 0)
        return 0;
    n = tags_searches(s, key_path((struct slice){ k->bytes.p, k->url_n }), rules);
    return rules->failed ? 0 : n;
}

/* RFC 9111 4: by Date; in one second, the one that came later. */
static bool
more_recent(const struct object *a, const struct object *b)
{
    int64_t da = a->meta.date_ms / 1000, db = b->meta.date_ms / 1000;

    return da != db ? da > db : a->meta.response_ms > b->meta.response_ms;
}

enum store_answer
store_search(struct store *s, const struct key *k, const struct http_head *req, int64_t now_ms,
    struct buf *b, struct key *found, struct object **obj, bool *soft)
{
    struct buf rules = { 0 }, one = { 0 };
    struct object *best = NULL;
    size_t n = rules_of(s, k, &rules);
    struct slice rest = buf_slice(&rules);

    CHECK(s, STORE_MAGIC);
    for (size_t i = 0; i < n && i < STORE_SEARCHES_MAX; i++) {
        struct slice rule = tags_search_next(&rest);
        struct object *o = NULL;
        struct key key;
        struct buf was;
        bool is_soft = false;

        if (key_search(k, rule, &one, &key) == -1 ||
            store_get(s, &key, req, now_ms, &o, &is_soft) != STORE_HIT ||
            (best != NULL && !more_recent(o, best)))
            continue;
        best = o;
        *soft = is_soft;
        *found = key;
        was = *b;
        *b = one;                       /* found points into it */
        one = was;
    }
    buf_free(&rules);
    buf_free(&one);
    if (best == NULL)
        return STORE_MISS;
    *obj = best;
    return STORE_HIT;
}

bool
store_search_presume(struct store *s, const struct key *k, struct buf *b, struct key *presumed)
{
    struct buf rules = { 0 };
    size_t n = rules_of(s, k, &rules);
    struct slice rest = buf_slice(&rules), rule = { NULL, 0 };
    bool made;

    for (size_t i = 0; i < n; i++)
        rule = tags_search_next(&rest);             /* the last: the others are older */
    made = n > 0 && key_search(k, rule, b, presumed) == 0;
    buf_free(&rules);
    return made;
}

bool
store_by_search(struct store *s, struct store_parts *p, struct slice rule, struct buf *b,
    struct key *made)
{
    struct buf rules = { 0 };
    size_t n = rules_of(s, p->key, &rules);
    struct slice rest = buf_slice(&rules);
    bool room = n < STORE_SEARCHES_MAX;

    for (size_t i = 0; i < n && !room; i++)
        room = slice_eq(tags_search_next(&rest), rule);
    room = room && !rules.failed && key_search(p->key, rule, b, made) == 0;
    buf_free(&rules);
    if (!room)
        return false;
    p->own = p->key;
    p->key = made;
    p->search = rule;
    return true;
}

/* Calls each for what the path's rules make of the URL, but for the URL itself. -1: memory is
 * out. */
static int
each_equal(struct store *s, struct slice url, void (*each)(void *arg, struct slice equal),
    void *arg)
{
    struct buf rules = { 0 }, one = { 0 };
    size_t n = atomic_load_explicit(&s->tags.searches, memory_order_relaxed) == 0 ? 0 :
        tags_searches(s, key_path(url), &rules);
    struct slice rest = buf_slice(&rules);
    int rc = rules.failed ? -1 : 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        one.n = 0;
        rc = key_search_url(url, tags_search_next(&rest), &one);
        if (rc == 0 && !slice_eq(buf_slice(&one), url))
            each(arg, buf_slice(&one));
    }
    buf_free(&rules);
    buf_free(&one);
    return rc;
}

struct purging { struct store *s; uint64_t seq, n; bool soft; };

static void
purge_equal(void *arg, struct slice equal)
{
    struct purging *p = arg;

    p->n += tags_purge(p->s, TAG_URL, equal, p->seq, p->soft);
}

int
search_purge(struct store *s, struct slice url, uint64_t seq, bool soft, uint64_t *tagged)
{
    struct purging p = { .s = s, .seq = seq, .soft = soft };
    int rc = each_equal(s, url, purge_equal, &p);

    *tagged += p.n;
    return rc;
}

static void
count_equal(void *arg, struct slice equal)
{
    struct purging *p = arg;

    p->n += tags_count(p->s, TAG_URL, equal);
}

uint64_t
search_count(struct store *s, struct slice url)
{
    struct purging p = { .s = s };

    (void)each_equal(s, url, count_equal, &p);
    return p.n;
}
