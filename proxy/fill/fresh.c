/*
 * A 304 to a flight's own conditions: what is stored gets the fields it brings, and lives on.
 *
 * Model    the stored head and the 304's fields make one (head_merge), which is judged as that of
 *          a 200 is, and takes the old one's place around the same body. Where the 304 is not about
 *          what is stored, or that is gone, the whole is asked for.
 * Threads  home loop.
 */
#include "fill/compress.h"

/* Does it say anything about how long it may be kept? */
static bool
speaks(const struct flight *f, const struct http_head *h)
{
    struct sem_cc cc;

    sem_cc_response(h, f->rules, &cc);
    return cc.targeted || http_has(h, HF_CACHE_CONTROL) || http_has(h, HF_EXPIRES);
}

/* Where the route edits Cache-Control the stored head does not tell the origin's word: the 304's
 * own fields do, and where it is silent what was decided before stands. */
static bool
judge_unedited(struct flight *f, const struct http_head *r304, const char **why)
{
    struct http_head h = *r304;
    struct sem_meta was = f->stale->meta;

    h.status = was.status;
    if (!sem_store(&f->semantics, &h, f->rules, f->request_ms, wall_ms(), &f->meta, why) &&
        speaks(f, r304))
        return false;
    if (!speaks(f, r304)) {
        was.response_ms = was.date_ms = wall_ms();
        was.age_ms = 0;
        f->meta = was;
    }
    f->meta.last_modified_s = was.last_modified_s;
    return true;
}

/* Does the 304 leave the queries that the stored response is for (No-Vary-Search) as they are? Else
 * that goes, and the response is to be had whole, for other URLs. */
static bool
keeps_search(const struct flight *f, const struct http_head *r304)
{
    struct buf rule = { 0 }, was = { 0 };
    bool same = !http_has(r304, HF_NO_VARY_SEARCH) || (http_search_rule(r304, &rule) != -1 &&
        store_search_rule(f->fills->store, f->stale, &was) &&
        slice_eq(buf_slice(&rule), buf_slice(&was)));

    buf_free(&rule);
    buf_free(&was);
    if (!same)
        store_drop(f->fills->store, f->stale);
    return same;
}

/* What plugins made of the merged head takes its place. -1: memory is out. */
static int
edited(struct flight *f, const struct http_head *seen, struct buf *b, struct head_marks *m,
    struct http_head *merged)
{
    struct stored_head *sh = f->stale->head;
    struct buf again = { 0 };

    head_again(seen, (struct slice){ sh->bytes, sh->status_n }, &again, m);
    buf_free(b);
    *b = again;
    return !b->failed && http_parse_fields(b->p + m->status_n, b->n - m->status_n, merged) == 0 ?
        0 : -1;
}

/* The stored head, freshened: parsed, judged and published. -1: it cannot be used. */
static int
freshen(struct flight *f, const struct http_head *r304, bool *keep)
{
    struct groups groups = { .pool = f->pool, .origin = { f->key.bytes.p, f->key.path_at } };
    struct stored_head *sh = f->stale->head;
    struct http_field fields[HTTP_FIELDS_MAX], merged_fields[HTTP_FIELDS_MAX];
    struct http_head old = { .fields = fields, .cap = HTTP_FIELDS_MAX };
    struct http_head merged = { .fields = merged_fields, .cap = HTTP_FIELDS_MAX };
    struct forms *forms = NULL;
    const struct http_head *seen;
    struct store_parts parts;
    struct buf b = { 0 };
    struct head_marks m;
    const char *why = NULL;
    int rc = -1;

    if (http_parse_fields(sh->bytes + sh->status_n, sh->n - sh->status_n, &old) == -1 ||
        !sem_304_selects(&old, r304) || !keeps_search(f, r304) ||
        head_merge(f, &old, r304, (struct slice){ sh->bytes, sh->status_n }, &b, &m) == -1 ||
        http_parse_fields(b.p + m.status_n, b.n - m.status_n, &merged) == -1)
        goto out;
    merged.status = f->stale->meta.status;
    seen = flight_hooks_response(f, &merged);
    if (seen == NULL || (seen != &merged && edited(f, seen, &b, &m, &merged) == -1))
        goto out;
    *keep = !(f->plugins != NULL && f->plugins->no_store) && sem_store(&f->semantics, &merged,
        f->rules, f->request_ms, wall_ms(), &f->meta, &why);
    if (f->rules->force_ttl_ms < 0 &&
        route_edit_takes(&f->route->response, SLICE("Cache-Control")))
        *keep = judge_unedited(f, r304, &why);
    if (!*keep) {
        f->meta = f->stale->meta;
        f->meta.lifetime_ms = 0;
    }
    f->meta.flags |= f->stale->meta.flags & META_DECODED;
    if (!(f->stale->meta.flags & META_PARTIAL))
        publish_length(&b, merged.status, f->stale->body);
    if (publish_groups(r304, &groups) == -1)
        goto out;
    parts = (struct store_parts){ .head = buf_slice(&b), .status_n = m.status_n,
        .etag_at = m.etag_at, .etag_n = m.etag_n, .meta = f->meta, .request_ms = f->request_ms,
        .stamp = f->stamp, .regroup = http_has(r304, HF_CACHE_GROUPS) };
    parts.groups = groups.at;
    parts.ngroups = groups.n;
    forms = b.failed ? NULL : compress_again(f->route, f->stale, buf_slice(&b), m.status_n);
    parts.forms = &forms;
    if (b.failed ||
        store_freshen(f->fills->store, f->stale, &parts, &f->object) != STORE_STORED)
        goto out;
    if (*keep) {
        fill_compress(f->fills, f->route, f->object);
        tier_put(f->fills->tiers, f->object);
    } else {
        store_drop(f->fills->store, f->object);
    }
    rc = 0;
out:
    forms_free(&forms);
    buf_free(&b);
    return rc;
}

void
fresh_304(struct flight *f, const struct http_head *h)
{
    const struct http_head *parsed = response_kept(f, h);
    bool keep;

    if (parsed == NULL || (h = decode_304(f, h)) == NULL) {
        flight_no_memory(f);
        return;
    }
    if (freshen(f, h, &keep) == -1) {
        flight_ask_again(f);
        return;
    }
    if (!keep)
        flight_unlist(f);
    pthread_mutex_lock(&f->mtx);
    f->phase = FLIGHT_OBJECT;
    f->view.response = parsed;
    if (!keep)
        response_release(f, FILL_AGAIN_ALONE);    /* now it is this one client's: private, say */
    f->view.status = 304;
    f->view.object = f->object;
    f->view.complete = true;
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
    flight_unlist(f);
}
