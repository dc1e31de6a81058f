/*
 * An explanation's part about the store: each variant, and the last answer that was not stored.
 *
 * Model    what a variant says of its lifetime is decided again from its stored head: where that
 *          gives what was decided when it came, the clause that gave it is named; where it does not
 *          (the route edits Cache-Control, say), none is. The last answer that was not stored is
 *          remembered with its key's mark (store_refuse) and judged again for this request.
 * Threads  the admin loop's.
 */
#include <stdio.h>

#include "admin/explain.h"

static void
put_real(struct buf *b, const char *name, int64_t ms)
{
    buf_printf(b, "\"%s\": %.3f, ", name, (double)ms / 1e3);
}

/* ---- fields ---------------------------------------------------------------------------------- */

/* Those that decide: all that an answer of the origin may say of caching. */
static bool
is_shown(const struct explained *x, const struct http_field *f)
{
    static const enum http_id shown[] = { HF_CACHE_CONTROL, HF_EXPIRES, HF_DATE, HF_AGE, HF_ETAG,
        HF_LAST_MODIFIED, HF_VARY, HF_CONTENT_TYPE, HF_PRAGMA, HF_SET_COOKIE, HF_CACHE_GROUPS,
        HF_NO_VARY_SEARCH };
    const struct sem_names *targets = &x->route->rules.targets;

    for (size_t i = 0; i < NELEM(shown); i++)
        if (f->id == shown[i])
            return true;
    for (size_t i = 0; i < targets->n; i++)
        if (slice_ieq(f->name, targets->names[i]))
            return true;
    return slice_ieq(f->name, SLICE("Clear-Site-Data"));
}

static void
put_fields(struct explained *x, const struct http_head *h)
{
    struct buf *b = &x->r->out;
    const char *comma = "";

    buf_addz(b, "\"fields\": {");
    for (unsigned i = 0; i < h->nfields; i++) {
        const struct http_field *f = &h->fields[i];
        bool again = false;

        for (unsigned j = 0; j < i && !again; j++)
            again = slice_ieq(h->fields[j].name, f->name);
        if (again || !is_shown(x, f))
            continue;
        buf_addz(b, comma);
        admin_json_text(b, f->name);
        buf_addz(b, ": ");
        admin_json_text(b, f->value);
        comma = ", ";
    }
    buf_addc(b, '}');
}

/* ---- a variant ------------------------------------------------------------------------------- */

/* Value by value, as the lookup compares them. */
static bool
put_varies(struct explained *x, const struct object *o, struct slice vary)
{
    struct buf *b = &x->r->out, values = { 0 };
    struct slice left = vary, right = vary, was = store_variant(o), now, name, v[2];
    bool all = true;

    sem_variant(vary, x->head, &values);
    now = buf_slice(&values);
    buf_addz(b, "\"varies\": [");
    for (size_t n = 0; !values.failed && sem_variant_next(&left, &was, &name, &v[0]) &&
        sem_variant_next(&right, &now, &name, &v[1]); n++) {
        static const char *const names[] = { "stored", "asked" };
        bool same = (v[0].p == NULL) == (v[1].p == NULL) && slice_eq(v[0], v[1]);

        buf_addz(b, n > 0 ? ", {\"field\": " : "{\"field\": ");
        admin_json_text(b, name);
        for (int i = 0; i < 2; i++) {
            buf_printf(b, ", \"%s\": ", names[i]);
            if (v[i].p != NULL)
                admin_json_text(b, v[i]);
            else
                buf_addz(b, "null");
        }
        buf_printf(b, ", \"same\": %s}", same ? "true" : "false");
        all = all && same;
    }
    buf_addz(b, "], ");
    buf_free(&values);
    return all;
}

struct labels { struct buf *b; bool group; };

static void
each_tag(void *arg, bool group, struct slice text)
{
    struct labels *l = arg;
    struct slice origin;

    if (group != l->group)
        return;
    if (group)
        slice_cut(&text, '\0', &origin);
    if (l->b->p[l->b->n - 1] != '[')
        buf_addz(l->b, ", ");
    admin_json_text(l->b, text);
}

static void
put_labels(struct buf *b, const struct object *o)
{
    buf_addz(b, "\"tags\": [");
    store_tags(o, each_tag, &(struct labels){ b, false });
    buf_addz(b, "], \"groups\": [");
    store_tags(o, each_tag, &(struct labels){ b, true });
    buf_addz(b, "], ");
}

/* In which codings a form is kept beside the identity. */
static void
put_codings(struct buf *b, const struct object *o)
{
    const struct forms *forms = rcu_load(&o->forms);

    buf_addz(b, "\"codings\": [");
    for (size_t i = 0; forms != NULL && i < forms->n; i++) {
        buf_addz(b, i > 0 ? ", " : "");
        admin_json_text(b, sem_coding_name(forms->at[i].coding));
    }
    buf_addz(b, "], ");
}

static int
stored_head(const struct object *o, struct http_head *h)
{
    h->status = o->meta.status;
    return http_parse_fields(o->head->bytes + o->head->status_n, o->head->n - o->head->status_n, h);
}

/* Which clause gave the lifetime, by deciding again; NULL: the stored head does not tell. */
static const char *
lifetime_from(const struct sem_trace *t, const struct sem_meta *was, const struct sem_meta *is)
{
    if (was->lifetime_ms != is->lifetime_ms)
        return NULL;
    for (size_t i = 0; i < t->n; i++)
        if (t->at[i].outcome == SEM_GIVES)
            return t->at[i].word;
    return NULL;
}

static void
put_origin_word(struct explained *x, const struct object *o)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .cap = HTTP_FIELDS_MAX, .fields = fields };
    struct sem_request get = { .method = HTTP_GET };
    struct buf *b = &x->r->out;
    struct sem_trace t = { 0 };
    struct sem_meta m;
    const char *why;

    get.cc = (struct sem_cc){ .max_age = -1, .s_maxage = -1, .max_stale = -1, .min_fresh = -1,
        .swr = -1, .sie = -1 };
    if (stored_head(o, &h) != 0)
        return;
    put_fields(x, &h);
    if (sem_store_weigh(&get, &h, &x->route->rules, o->meta.response_ms, o->meta.response_ms, &m,
        &why, &t)) {
        buf_addz(b, ", ");
        explain_member(b, "lifetime_from", lifetime_from(&t, &o->meta, &m));
    } else {
        buf_addz(b, ", \"lifetime_from\": null");
    }
    buf_addz(b, ",\n   ");
    explain_clauses(x, "stored_by", &t, false);
}

static const char *
use_word(enum sem_use use)
{
    switch (use) {
    case SEM_FRESH:            return "fresh";
    case SEM_STALE:            return "stale";
    case SEM_STALE_REVALIDATE: return "stale-revalidate";
    case SEM_PART:             return "part";
    case SEM_VALIDATE:         return "validate";
    default:                   return "cannot";
    }
}

static void
put_numbers(struct buf *b, const struct object *o, int64_t age, bool soft)
{
    const struct sem_meta *m = &o->meta;

    put_real(b, "age_s", age);
    put_real(b, "lifetime_s", m->lifetime_ms);
    put_real(b, "ttl_s", m->lifetime_ms - age);
    buf_printf(b, "\"stale_while_revalidate_s\": %d, \"stale_if_error_s\": %d, \"fresh\": %s, ",
        m->swr_s > 0 ? m->swr_s : 0, m->sie_s > 0 ? m->sie_s : 0,
        m->lifetime_ms > age && !soft ? "true" : "false");
}

static void
each_object(void *arg, const struct object *o, struct slice vary, bool soft)
{
    struct explained *x = arg;
    struct buf *b = &x->r->out;
    const struct sem_meta *m = &o->meta;
    struct sem_trace t = { 0 }, failed = { 0 };
    const char *why = NULL;
    enum sem_use use = sem_use_weigh(&x->request, m, x->now_ms, soft, &why, &t);
    bool selected = o == x->selected, on_error;
    bool doubted = soft && store_doubts(x->r->a->process.store, o, x->now_ms);

    on_error = sem_stale_on_error_weigh(&x->request, m, x->now_ms, &failed) && !doubted;
    if (doubted && (use == SEM_STALE || use == SEM_STALE_REVALIDATE))
        use = SEM_VALIDATE;
    if (selected)
        x->use = use;
    buf_printf(b, "%s\n  {\"selected\": %s, \"status\": %u, \"vary\": ", x->n++ > 0 ? "," : "",
        selected ? "true" : "false", m->status);
    admin_json_text(b, vary);
    buf_addz(b, ", ");
    if (!put_varies(x, o, vary) && x->answer == STORE_VARY_MISS)
        explain_advise(x, "variant");
    put_numbers(b, o, sem_age_ms(m, x->now_ms), soft);
    explain_member(b, "use", use_word(use));
    buf_addz(b, ", ");
    explain_member(b, "why", use == SEM_FRESH ? NULL : why);
    buf_printf(b, ", \"soft_purged\": %s, \"in_doubt\": %s, \"body_bytes\": %llu, "
        "\"counts_bytes\": %llu, ", soft && !doubted ? "true" : "false", doubted ? "true" : "false",
        (unsigned long long)body_size(o->body), (unsigned long long)store_counts(o));
    explain_member(b, "freshness_from", m->flags & META_FORCED ? "force_ttl" :
        m->flags & META_EXPLICIT ? "origin" : m->flags & META_HEURISTIC ? "heuristic" : "route");
    buf_addz(b, ", ");
    put_codings(b, o);
    put_labels(b, o);
    put_origin_word(x, o);
    buf_addz(b, ",\n   ");
    explain_clauses(x, "clauses", &t, selected);
    buf_printf(b, ",\n   \"served_if_origin_fails\": %s, ", on_error ? "true" : "false");
    explain_clauses(x, "if_origin_fails", &failed, false);
    buf_addc(b, '}');
}

/* ---- what was not stored --------------------------------------------------------------------- */

static void
each_refusal(void *arg, const struct store_refusal *r)
{
    struct explained *x = arg;
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { .cap = HTTP_FIELDS_MAX, .fields = fields, .status = r->status };
    struct buf *b = &x->r->out;
    struct sem_trace t = { 0 };
    struct sem_meta m;
    char word[64];
    const char *why;

    snprintf(word, sizeof word, "%.*s", SLICE_ARG(r->why));
    buf_addz(b, "{");
    explain_member(b, "why", word[0] != '\0' ? word : NULL);
    buf_printf(b, ", \"status\": %u, \"age_s\": %.3f, \"remembered_for_s\": %.3f", r->status,
        (double)(x->now_ms - r->at_ms) / 1e3,
        r->until_ms > x->now_ms ? (double)(r->until_ms - x->now_ms) / 1e3 : 0);
    if (http_parse_fields(r->head.p, r->head.n, &h) == 0) {
        buf_addz(b, ", ");
        put_fields(x, &h);
        sem_store_weigh(&x->request, &h, &x->route->rules, r->at_ms, r->at_ms, &m, &why, &t);
        buf_addz(b, ",\n   ");
        explain_clauses(x, "clauses", &t, true);
    }
    buf_addc(b, '}');
    explain_advise(x, word);
}

/* ---- blocks (`range.block`) ----------------------------------------------------------------- */

#define BLOCKS_TOLD 16

static void
put_block(struct explained *x, const struct key *k, uint64_t n, const char *comma)
{
    struct store *s = x->r->a->process.store;
    struct buf *b = &x->r->out, bytes = { 0 };
    struct object *o = NULL;
    bool soft = false, stored = false;
    const char *use = NULL, *why;
    struct key of;

    if (key_block(k, &n, &bytes, &of) == 0) {
        rcu_begin();
        stored = store_get(s, &of, x->head, x->now_ms, &o, &soft) == STORE_HIT;
        if (stored) {
            enum sem_use u = sem_use(&x->request, &o->meta, x->now_ms, soft, &why);

            use = u == SEM_PART ? "fresh" : use_word(u);
        }
        rcu_end();
    }
    buf_printf(b, "%s{\"block\": %llu, \"stored\": %s, ", comma, (unsigned long long)n,
        stored ? "true" : "false");
    explain_member(b, "use", use);
    buf_addc(b, '}');
    b->failed |= bytes.failed;
    buf_free(&bytes);
}

/* Those of the range that is asked for, but of an open one, or of the end, only the first: how many
 * there are the origin knows. */
static void
put_blocks(struct explained *x, const struct key *k)
{
    uint64_t size = (uint64_t)x->route->conf->range_block, n, last;
    struct buf *b = &x->r->out, bytes = { 0 };
    struct http_range_spec range;
    struct object *o = NULL;
    bool marked, soft;
    struct key mark;

    if (x->answer == STORE_HIT || !route_in_blocks(x->route, x->head, &x->request, &range))
        return;
    rcu_begin();
    marked = key_block(k, NULL, &bytes, &mark) == -1 ||
        store_get(x->r->a->process.store, &mark, x->head, x->now_ms, &o, &soft) == STORE_PASS;
    rcu_end();
    buf_free(&bytes);
    x->in_blocks = !marked;
    buf_printf(b, ",\n \"blocks\": {\"size\": %llu, \"refused_lately\": %s, \"wanted\": [",
        (unsigned long long)size, marked ? "true" : "false");
    n = range.suffix ? 0 : range.first / size;
    last = range.suffix || range.last == UINT64_MAX ? n : range.last / size;
    for (uint64_t i = n; i <= last && i - n < BLOCKS_TOLD; i++)
        put_block(x, k, i, i > n ? ", " : "");
    buf_addz(b, "]}");
}

/* Would a request ask this tier before the origin (request/tier.c)? */
static const char *
asks(const struct explained *x, enum tier_name which)
{
    struct tier_figures f;
    bool does = tier_figures(x->r->a->process.tiers, which, &f) &&
        !(x->request.cc.flags & CC_NO_CACHE) &&
        (x->answer == STORE_MISS || x->answer == STORE_VARY_MISS ||
        (x->answer == STORE_HIT && (x->use == SEM_PART ||
            (which == TIER_REDIS && x->use == SEM_VALIDATE))));

    return does ? "true" : "false";
}

void
explain_stored(struct explained *x, const struct key *k)
{
    static const char *const answers[] = { [STORE_MISS] = "uri-miss",
        [STORE_VARY_MISS] = "vary-miss", [STORE_HIT] = "hit", [STORE_PASS] = "pass" };
    struct store *s = x->r->a->process.store;
    struct buf *b = &x->r->out, bytes = { 0 };
    const struct key *under = k;
    struct object *o = NULL;
    struct key equal;
    bool soft = false;

    rcu_begin();
    x->answer = store_get(s, k, x->head, x->now_ms, &o, &soft);
    if ((x->answer == STORE_MISS || x->answer == STORE_VARY_MISS) &&
        store_search(s, k, x->head, x->now_ms, &bytes, &equal, &o, &soft) == STORE_HIT) {
        x->answer = STORE_HIT;
        under = &equal;
    }
    x->selected = x->answer == STORE_HIT ? o : NULL;
    explain_member(b, "answer", answers[x->answer]);
    buf_addz(b, ", \"found_under\": ");
    if (under != k)
        admin_json_text(b, under->bytes);
    else
        buf_addz(b, "null");
    buf_addz(b, ", \"stored\": [");
    store_each(s, under, each_object, x);
    rcu_end();
    buf_free(&bytes);
    buf_printf(b, "],\n \"asks_disk\": %s, \"asks_redis\": %s, \"last_refused\": ",
        asks(x, TIER_DISK), asks(x, TIER_REDIS));
    if (!store_refused(s, k, each_refusal, x))
        buf_addz(b, "null");
    put_blocks(x, k);
}
