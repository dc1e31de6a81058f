/*
 * Purge state: what was purged when, and what that means for one node.
 *
 * Model    a purge (1) takes number q = seq + 1, (2) writes q where its matches will find it: the
 *          cell of its URL or tag, the tag's record, the route, `all`, or a rule at the head of the
 *          list, (3) publishes seq = q (release), and for a URL (4) takes the exact key out under
 *          its shard's lock. A node remembers in `checked` the sequence, loaded (acquire) before it
 *          was compared.
 *
 * No object with a stamp older than a matching purge q is served after store_purge returned:
 *   Tags, routes, rules, all. A lookup that starts later loads seq >= q. A node whose `checked` is
 *     below that is compared, and (2) is visible because (3) is. A node whose `checked` is q or
 *     more was compared after its comparer loaded seq >= q, so (2) was seen then too, and the flags
 *     it made were stored before `checked`.
 *   A tag without a record at (2). The put interns its tags first, under the tags' lock. If that
 *     came before the purge's look-up, the purge found the record. If after, the lock makes the
 *     cell visible, which was written before it, and the new record starts with its number: the
 *     case is that of a tag again.
 *   A URL, exact key. Insertion and (4) hold the same shard's lock. If the insertion came first,
 *     (4) finds the node. If (4) came first, the insertion sees seq >= q and the cell, and is
 *     refused.
 *   A URL, keys with parts. The URL's own record is a tag like others.
 *   A URL, what is stored for it by No-Vary-Search under others. Each rule that is stored for the
 *     path is the record of a tag, and what it makes of the URL the record of another. A record of
 *     a rule is looked for after the cell of the path was written, under the tags' lock: what comes
 *     later is refused by that cell, as a tag without a record.
 *   A rule that was forgotten. The sweeper forgets rule q only after it locked every shard once
 *     since q was published: what was in the index then was compared. What is inserted into a shard
 *     after that visit sees seq >= q, so it looks at the list and then at `floor`, which was raised
 *     before the rule left the list.
 * A cell is shared by all URLs and tags whose hashes fall there: a collision refuses one fetch that
 * was in flight.
 * Threads  as inside.h says for each function.
 */
#include "store/inside.h"

#include <malloc.h>
#include <stdlib.h>

#define RULES_KEPT    1024              /* for what is in flight; more are forgotten once swept */
#define RULE_AGE_US   (600 * (int64_t)1000000)  /* longer than any fetch should take */

static inline uint64_t
get(const _Atomic uint64_t *a)
{
    return atomic_load_explicit(a, memory_order_relaxed);
}

static inline void
set(_Atomic uint64_t *a, uint64_t v)
{
    atomic_store_explicit(a, v, memory_order_relaxed);
}

/* ---- matching ------------------------------------------------------------------------------- */

struct slice
url_path(struct slice url)
{
    const char *scheme = memchr(url.p, ':', url.n);
    size_t at = scheme != NULL ? (size_t)(scheme - url.p) + 3 : 0;
    const char *slash = at < url.n ? memchr(url.p + at, '/', url.n - at) : NULL;

    if (slash == NULL)
        return (struct slice){ url.p + url.n, 0 };
    return (struct slice){ slash, (size_t)(url.p + url.n - slash) };
}

/* A key whose route leaves the host out ("http:///path") is met by a prefix under any host. */
static bool
prefix_matches(struct slice prefix, struct slice url)
{
    struct slice path = url_path(url);

    if (slice_starts(url, prefix))
        return true;
    return path.p - url.p >= 3 && memcmp(path.p - 3, "://", 3) == 0 &&
        slice_starts(path, url_path(prefix));
}

static bool
text_matches(enum store_purge_kind kind, struct slice text, struct slice url)
{
    switch (kind) {
    case STORE_PURGE_URL:
        return slice_eq(url, text);
    case STORE_PURGE_PREFIX:
        return prefix_matches(text, url);
    case STORE_PURGE_PATTERN:
        return slice_glob(text, url_path(url));
    case STORE_PURGE_PATH:
        return slice_eq(url_path(url), text);
    case STORE_PURGE_PATH_PREFIX:
        return slice_starts(url_path(url), text);
    case STORE_PURGE_TAG:
    case STORE_PURGE_GROUP:
    case STORE_PURGE_ROUTE:
    case STORE_PURGE_ALL:
        break;
    }
    return false;
}

bool
store_purge_matches(const struct store_purge *p, struct slice url)
{
    return text_matches(p->kind, p->text, url);
}

/* By No-Vary-Search a node stands for more URLs than the one that it has. A text that says
 * something of the query may mean any of these: then the path decides. */
static bool
path_matches(enum store_purge_kind kind, struct slice text, struct slice url)
{
    struct slice path = key_path(url), cut = text;

    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '?')
            continue;
        cut.n = i > 0 && text.p[i - 1] == '\\' && kind == STORE_PURGE_PATTERN ? i - 1 : i;
        if (kind == STORE_PURGE_PATTERN && slice_glob(cut, url_path(path)))
            return true;
        if (kind == STORE_PURGE_PREFIX)
            return prefix_matches(cut, path) && url_path(path).n == url_path(cut).n;
        if (kind != STORE_PURGE_PATTERN)
            return slice_eq(url_path(path), cut);
    }
    return false;
}

static bool
node_matches(enum store_purge_kind kind, struct slice text, const struct node *n)
{
    struct slice url = node_url(n);

    return text_matches(kind, text, url) ||
        (node_search_rule(n).n > 0 && kind != STORE_PURGE_URL &&
            path_matches(kind, text, url));
}

bool
purge_matches(const struct store_purge *p, const struct node *n)
{
    if (p->kind == STORE_PURGE_ALL)
        return true;
    if (p->kind == STORE_PURGE_ROUTE)
        return n->o.route_id == p->id;
    if (p->kind == STORE_PURGE_TAG || p->kind == STORE_PURGE_GROUP)
        return tags_carry(n, tag_kind_of(p->kind), p->text);
    return node_matches(p->kind, p->text, n);
}

static const struct route_mark *
route_find(const struct store *s, uint64_t id)
{
    const struct route_mark *m = rcu_load(&s->routes[id % ROUTE_HEADS]);

    while (m != NULL && m->id != id)
        m = rcu_load(&m->next);
    return m;
}

/* ---- judging a node ------------------------------------------------------------------------- */

struct verdict { bool hard, soft, doubt; };

static void
judge_marks(const struct store *s, const struct node *n, struct verdict *v)
{
    uint64_t stamp = n->o.stamp;
    const struct route_mark *m = route_find(s, n->o.route_id);

    v->hard |= get(&s->all_hard) > stamp || (m != NULL && get(&m->hard) > stamp);
    v->soft |= get(&s->all_soft) > stamp || (m != NULL && get(&m->soft) > stamp);
    v->doubt |= get(&s->all_doubt) > stamp;
    for (size_t i = 0; i < n->ntags; i++) {
        v->hard |= get(&node_tags(n)[i]->hard) > stamp;
        v->soft |= get(&node_tags(n)[i]->soft) > stamp;
    }
}

/* Rules newer than `after` and than the stamp. In a read section or under purge_lock. */
static void
judge_rules(const struct store *s, const struct node *n, uint64_t after, struct verdict *v)
{
    uint64_t down_to = n->o.stamp > after ? n->o.stamp : after;

    for (const struct rule *r = rcu_load(&s->rules); r != NULL && r->seq > down_to;
         r = rcu_load(&r->next))
        if (node_matches(r->kind, (struct slice){ r->text, r->text_n }, n)) {
            v->soft |= r->soft;
            v->hard |= !r->soft;
        }
}

static void
judge(struct store *s, struct node *n, bool locked)
{
    uint64_t q = atomic_load_explicit(&s->seq, memory_order_acquire);
    uint64_t before = atomic_load_explicit(&n->checked, memory_order_acquire);
    struct verdict v = { 0 };

    if (before == q)
        return;
    STEP("judge: sequence read");
    judge_marks(s, n, &v);
    if (get(&s->rules_newest) > n->o.stamp) {
        STEP("compare: rules");
        if (locked)
            pthread_mutex_lock(&s->purge_lock);
        judge_rules(s, n, before, &v);
        if (locked)
            pthread_mutex_unlock(&s->purge_lock);
    }
    STEP("judge: compared");
    if (v.hard)
        atomic_store_explicit(&n->dead, 1, memory_order_relaxed);
    if (v.soft)
        node_soften(n, v.doubt ? NODE_DOUBT : NODE_SOFT);
    atomic_store_explicit(&n->checked, q, memory_order_release);
}

void
purge_judge(struct store *s, struct node *n)
{
    judge(s, n, false);
}

void
purge_judge_locked(struct store *s, struct node *n)
{
    judge(s, n, true);
}

/* Soft purges refuse too: what comes was fetched before them. */
bool
purge_refuses(struct store *s, struct node *n)
{
    uint64_t q = atomic_load_explicit(&s->seq, memory_order_acquire), stamp = n->o.stamp;
    struct verdict v = { 0 };

    atomic_store_explicit(&n->checked, q, memory_order_relaxed);
    if (stamp >= q)
        return false;
    judge_marks(s, n, &v);
    if (get(&s->cells[key_hash(node_url(n)) % CELLS]) > stamp)
        return true;
    for (size_t i = 0; i < n->ntags; i++)
        if (get(&s->cells[node_tags(n)[i]->hash % CELLS]) > stamp)
            return true;
    if (get(&s->rules_newest) > stamp) {
        STEP("compare: rules");
        pthread_mutex_lock(&s->purge_lock);
        judge_rules(s, n, 0, &v);
        pthread_mutex_unlock(&s->purge_lock);
    }
    return v.hard || v.soft || get(&s->floor) > stamp;
}

/* What is known of a response that is in no index. */
struct outside { uint64_t stamp, url_hash, route_id; struct slice url; bool search; };

static bool
rules_match(struct store *s, const struct outside *x)
{
    bool found = false;

    if (get(&s->rules_newest) <= x->stamp)
        return false;
    pthread_mutex_lock(&s->purge_lock);
    for (const struct rule *r = s->rules; r != NULL && r->seq > x->stamp && !found; r = r->next) {
        struct slice text = { r->text, r->text_n };

        found = text_matches(r->kind, text, x->url) ||
            (x->search && path_matches(r->kind, text, x->url));
    }
    pthread_mutex_unlock(&s->purge_lock);
    return found;
}

/* By anything but its tags. */
static bool
outdated_outside(struct store *s, const struct outside *x)
{
    uint64_t stamp = x->stamp;
    const struct route_mark *m = route_find(s, x->route_id);

    return get(&s->all_hard) > stamp || get(&s->all_soft) > stamp ||
        (m != NULL && (get(&m->hard) > stamp || get(&m->soft) > stamp)) ||
        get(&s->cells[x->url_hash % CELLS]) > stamp ||
        (x->search && get(&s->cells[search_cell(x->url) % CELLS]) > stamp) ||
        rules_match(s, x) || get(&s->floor) > stamp;
}

bool
store_stamp_outdated(struct store *s, uint64_t stamp, const struct key *k, uint64_t route_id)
{
    uint64_t q = atomic_load_explicit(&s->seq, memory_order_acquire);

    CHECK(s, STORE_MAGIC);
    return stamp < q && (get(&s->tag_last) > stamp || outdated_outside(s, &(struct outside){
        .stamp = stamp, .url_hash = k->url_hash, .route_id = route_id,
        .url = { k->bytes.p, k->url_n }, .search = get(&s->tags.searches) > 0 }));
}

bool
store_may_keep(struct store *s, const struct store_parts *p)
{
    uint64_t q = atomic_load_explicit(&s->seq, memory_order_acquire);

    CHECK(s, STORE_MAGIC);
    if (p->stamp >= q)
        return true;
    for (size_t i = 0; i < p->ntags; i++)
        if (get(&s->cells[tag_hash(TAG_NAMED, p->tags[i]) % CELLS]) > p->stamp)
            return false;
    for (size_t i = 0; i < p->ngroups; i++) {
        struct slice g = p->groups[i];
        const char *wall = memchr(g.p, '\0', g.n);
        struct slice any = { wall, (size_t)(g.p + g.n - wall) };

        if (get(&s->cells[tag_hash(TAG_GROUP, g) % CELLS]) > p->stamp ||
            get(&s->cells[tag_hash(TAG_GROUP, any) % CELLS]) > p->stamp)
            return false;
    }
    return !outdated_outside(s, &(struct outside){ .stamp = p->stamp,
        .url_hash = p->key->url_hash, .route_id = p->route_id,
        .url = { p->key->bytes.p, p->key->url_n }, .search = p->search.n > 0 });
}

/* ---- publishing: all under purge_lock ------------------------------------------------------- */

static int
publish_route(struct store *s, uint64_t id, uint64_t q, bool soft)
{
    struct route_mark *m = (struct route_mark *)(uintptr_t)route_find(s, id);

    if (m == NULL) {
        if ((m = calloc(1, sizeof *m)) == NULL)
            return -1;
        m->id = id;
        m->next = s->routes[id % ROUTE_HEADS];
        set(soft ? &m->soft : &m->hard, q);
        rcu_store(&s->routes[id % ROUTE_HEADS], m);
        return 0;
    }
    set(soft ? &m->soft : &m->hard, q);
    return 0;
}

static void
rule_free(struct rcu_node *r)
{
    free(CONTAINER(r, struct rule, rcu));
}

static void
rule_forget(struct store *s, struct rule *r)
{
    s->nrules--;
    store_charge(s, -(int64_t)malloc_usable_size(r));
    rcu_after(&r->rcu, rule_free);
}

/* An older rule of the same words says nothing that the new one does not. */
static void
forget_same(struct store *s, const struct rule *newest)
{
    for (struct rule **at = &s->rules->next; *at != NULL; at = &(*at)->next) {
        struct rule *r = *at;

        if (r->kind == newest->kind && r->soft == newest->soft && r->text_n == newest->text_n &&
            memcmp(r->text, newest->text, r->text_n) == 0) {
            rcu_store(at, r->next);
            rule_forget(s, r);
            return;
        }
    }
}

static int
publish_rule(struct store *s, const struct store_purge *p, uint64_t q)
{
    struct rule *r;

    if (s->nrules >= RULES_MAX || (r = malloc(sizeof *r + p->text.n)) == NULL)
        return -1;
    *r = (struct rule){ .next = s->rules, .seq = q, .made_us = now_us(), .kind = p->kind,
        .soft = p->soft, .text_n = (uint32_t)p->text.n };
    memcpy(r->text, p->text.p, p->text.n);
    rcu_store(&s->rules, r);
    set(&s->rules_newest, q);
    s->nrules++;
    store_charge(s, (int64_t)malloc_usable_size(r));
    forget_same(s, r);
    return 0;
}

static int
publish(struct store *s, const struct store_purge *p, uint64_t q, uint64_t *tagged)
{
    enum tag_kind kind = tag_kind_of(p->kind);

    switch (p->kind) {
    case STORE_PURGE_TAG:
    case STORE_PURGE_GROUP:
        set(&s->tag_last, q);
        /* fallthrough */
    case STORE_PURGE_URL:
        set(&s->cells[tag_hash(kind, p->text) % CELLS], q);
        STEP("purge: cell written");
        if (p->kind == STORE_PURGE_URL)
            set(&s->cells[search_cell(p->text) % CELLS], q);
        *tagged = tags_purge(s, kind, p->text, q, p->soft);
        return p->kind == STORE_PURGE_URL ? search_purge(s, p->text, q, p->soft, tagged) : 0;
    case STORE_PURGE_ROUTE:
        return publish_route(s, p->id, q, p->soft);
    case STORE_PURGE_ALL:
        set(p->soft ? &s->all_soft : &s->all_hard, q);
        if (p->doubt)
            set(&s->all_doubt, q);
        return 0;
    case STORE_PURGE_PREFIX:
    case STORE_PURGE_PATTERN:
    case STORE_PURGE_PATH:
    case STORE_PURGE_PATH_PREFIX:
        break;
    }
    return publish_rule(s, p, q);
}

static _Thread_local uint64_t made;

uint64_t
store_purges_made(void)
{
    return made;
}

int
purge_publish(struct store *s, const struct store_purge *p, uint64_t *seq, uint64_t *tagged)
{
    int rc;

    *tagged = 0;
    pthread_mutex_lock(&s->purge_lock);
    *seq = get(&s->seq) + 1;
    rc = publish(s, p, *seq, tagged);
    if (rc == -1)
        set(p->soft ? &s->all_soft : &s->all_hard, *seq);
    lower_tell_purge(s, rc == 0 ? p : &(struct store_purge){ .kind = STORE_PURGE_ALL,
        .soft = p->soft, .erase = p->erase }, *seq);
    STEP("purge: state written");
    atomic_store_explicit(&s->seq, *seq, memory_order_release);
    made++;
    pthread_mutex_unlock(&s->purge_lock);
    STEP("purge: published");
    return rc;
}

void
purge_forget(struct store *s, uint64_t swept)
{
    int64_t now = now_us();
    struct rule **at;
    unsigned i = 0;

    pthread_mutex_lock(&s->purge_lock);
    for (at = &s->rules; *at != NULL; at = &(*at)->next, i++)
        if ((*at)->seq <= swept && (i >= RULES_KEPT || now - (*at)->made_us > RULE_AGE_US))
            break;
    if (*at != NULL) {
        struct rule *r = *at;

        atomic_store_explicit(&s->floor, r->seq, memory_order_release);
        rcu_store(at, NULL);
        for (struct rule *next; r != NULL; r = next) {
            next = r->next;
            rule_forget(s, r);
        }
    }
    pthread_mutex_unlock(&s->purge_lock);
}

void
purge_fini(struct store *s)
{
    for (struct rule *r = s->rules, *next; r != NULL; r = next) {
        next = r->next;
        free(r);
    }
    for (size_t i = 0; i < ROUTE_HEADS; i++)
        for (struct route_mark *m = s->routes[i], *next; m != NULL; m = next) {
            next = m->next;
            free(m);
        }
}
