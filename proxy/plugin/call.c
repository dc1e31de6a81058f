/*
 * Calling hooks: one plugin after the other, timed, with what becomes of errors.
 */
#include "plugin/inside.h"

#include "stats/stats.h"

struct weir_request *
plugin_request(const struct plugin_uses *uses, struct pool *p)
{
    struct weir_request *r = pool_zalloc(p, sizeof *r);
    void **slots = pool_zalloc(p, uses->n * sizeof *slots);

    if (r == NULL || slots == NULL)
        return NULL;
    r->magic = WEIR_REQUEST_MAGIC;
    r->uses = uses;
    r->pool = p;
    r->slots = slots;
    r->hook = PLUGIN_HOOKS_N;
    r->ttl_ms = -1;
    r->status = r->bytes_in = r->bytes_out = r->us = -1;
    r->keys.last = &r->keys.first;
    r->tags.last = &r->tags.first;
    return r;
}

static int
call(struct weir_request *r, const struct plugin_use *use)
{
    struct library *l = use->plugin->library;
    uint64_t before = figures_ns();
    int rc = l->hooks[r->hook](use->plugin->state, use->state, r);

    if (!r->explained)
        stats_timer(l->timers[r->hook], figures_ns() - before);
    return rc;
}

/* What the plugin has said is undone only as far as it would answer. */
static bool
skips(struct weir_request *r, const struct plugin *p, const char *why)
{
    static struct log_limit limit;

    r->answer_status = 0;
    if (r->explained)
        return p->skip_errors;
    atomic_fetch_add_explicit(&p->library->errors[r->hook], 1, memory_order_relaxed);
    log_limited(&limit, LOG_ERROR, "plugin %s: %s %s, route %s%s", p->library->table->name,
        hook_names[r->hook], why, r->route != NULL ? r->route : "(none)",
        p->skip_errors ? "; skipped" : "");
    return p->skip_errors;
}

/* The plugin whose turn it is. NEXT: that of the next one. */
static enum plugin_verdict
ask(struct weir_request *r, const struct plugin_use *use)
{
    bool late = r->ticket != NULL && !r->ticket->resumed;   /* else it would still wait */
    int rc;

    r->by = use->plugin->library->table->name;
    ticket_drop(&r->ticket);
    if (late)
        return skips(r, use->plugin, "was not resumed in time") ? PLUGIN_NEXT : PLUGIN_FAILED;
    rc = call(r, use);
    if (rc == WEIR_SUSPENDED && r->ticket != NULL)
        return PLUGIN_WAIT;
    ticket_drop(&r->ticket);
    if (r->would_wait)
        return PLUGIN_FAILED;
    if (rc == WEIR_ANSWERED && r->answer_status != 0)
        return PLUGIN_ANSWERED;
    if (rc != WEIR_NEXT && !skips(r, use->plugin, "failed"))
        return PLUGIN_FAILED;
    r->answer_status = 0;               /* it had second thoughts */
    return PLUGIN_NEXT;
}

enum plugin_verdict
plugin_run(struct weir_request *r, enum plugin_hook hook)
{
    enum plugin_verdict v = PLUGIN_NEXT;

    CHECK(r, WEIR_REQUEST_MAGIC);
    if (r->ticket != NULL && !r->ticket->resumed && !r->ticket->late)
        return PLUGIN_WAIT;
    if (r->hook != hook) {
        assert(r->ticket == NULL);
        r->hook = hook;
        r->next = 0;
    }
    for (; r->next < r->uses->n && v == PLUGIN_NEXT; r->next++) {
        const struct plugin_use *use = &r->uses->at[r->next];

        if ((use->hooks >> hook & 1) == 0)
            continue;
        v = ask(r, use);
        if (v == PLUGIN_WAIT)
            return v;
    }
    r->hook = PLUGIN_HOOKS_N;
    return v;
}

void
plugin_end(struct weir_request *r)
{
    if (r == NULL)
        return;
    CHECK(r, WEIR_REQUEST_MAGIC);
    ticket_drop(&r->ticket);
    r->hook = PLUGIN_HOOKS_N;
}
