/*
 * What Weir does for plugins: struct weir_host of plugins/abi.h, function by function.
 *
 * Model    a hook may do what its place in the table below says. What a plugin asks for wrongly is
 *          refused with -1, never an assert: it is the world's fault.
 */
#include "plugin/inside.h"

/* The bits of only() are ours. */
static_assert(WEIR_HOOK_REQUEST == HOOK_BIT(REQUEST) && WEIR_HOOK_DONE == HOOK_BIT(DONE) &&
    WEIR_HOOK_DONE == 1 << (PLUGIN_HOOKS_N - 1), "plugins/abi.h and PLUGIN_HOOKS differ");

#define MAY_KEY      (HOOK_BIT(REQUEST) | HOOK_BIT(KEY))
#define MAY_TAG      (MAY_KEY | HOOK_BIT(RESPONSE) | HOOK_BIT(STORE))
#define MAY_RESPONSE (MAY_KEY | HOOK_BIT(RESPONSE) | HOOK_BIT(DELIVER))
#define TAGS_MAX     256                /* as of a route's own */
#define KEYS_MAX     16

static bool
may(const struct weir_request *r, unsigned hooks)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    return r->hook < PLUGIN_HOOKS_N && (hooks >> r->hook & 1) != 0;
}

static struct slice
in(struct weir_text t)
{
    return (struct slice){ t.p, t.p != NULL ? t.n : 0 };
}

static struct weir_text
out(struct slice s)
{
    return (struct weir_text){ s.p, s.p != NULL ? s.n : 0 };
}

/* ---- the plugin itself ----------------------------------------------------------------------- */

static struct plugin *
self_of(struct weir_self *self)
{
    struct plugin *p = (struct plugin *)self;

    CHECK(p, PLUGIN_MAGIC);
    return p;
}

static void
host_log(struct weir_self *self, enum weir_level level, const char *line)
{
    static const enum log_level levels[] = { [WEIR_LOG_ERROR] = LOG_ERROR,
        [WEIR_LOG_WARN] = LOG_WARN, [WEIR_LOG_INFO] = LOG_INFO, [WEIR_LOG_DEBUG] = LOG_DEBUG };

    log_line((unsigned)level < NELEM(levels) ? levels[level] : LOG_ERROR, "plugin %s: %s",
        self_of(self)->library->table->name, line);
}

static void
host_complain(struct weir_self *self, const char *option, const char *text)
{
    const struct plugin *p = self_of(self);

    if (p->complain != NULL)
        p->complain(p->complain_arg, &(struct plugin_complaint){ option, text });
}

static struct weir_counter *
host_counter(struct weir_self *self, const char *name, const char *meaning)
{
    return self_of(self)->complain != NULL ? figures_counter(name, meaning) : NULL;
}

static struct weir_timer *
host_timer(struct weir_self *self, const char *name, const char *meaning)
{
    return self_of(self)->complain != NULL ? figures_timer(name, meaning) : NULL;
}

static void
host_only(struct weir_self *self, unsigned hooks)
{
    struct plugin *p = self_of(self);

    if (p->complain != NULL)
        p->hooks &= hooks;
}

/* ---- what is known --------------------------------------------------------------------------- */

static struct weir_text
host_fact(struct weir_request *r, enum weir_fact what)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    switch (what) {
    case WEIR_METHOD:     return out(r->method);
    case WEIR_SCHEME:     return out(r->https ? SLICE("https") : SLICE("http"));
    case WEIR_HOST:       return out(r->host);
    case WEIR_PATH:       return out(r->path);
    case WEIR_QUERY:      return out(r->query);
    case WEIR_ROUTE:      return out(slice_of(r->route));
    case WEIR_CLIENT:     return out(r->client);
    case WEIR_REQUEST_ID: return out(r->id);
    case WEIR_KEY:        return out(r->key);
    case WEIR_BODY:       return out(r->body);
    case WEIR_WRITE_ID:   return out(r->write_id);
    case WEIR_OUTCOME:    return out(r->outcome);
    }
    return (struct weir_text){ NULL, 0 };
}

static int64_t
host_number(struct weir_request *r, enum weir_number what)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    switch (what) {
    case WEIR_STATUS:       return r->status;
    case WEIR_BYTES_IN:     return r->bytes_in;
    case WEIR_BYTES_OUT:    return r->bytes_out;
    case WEIR_MICROSECONDS: return r->us;
    case WEIR_EXPLAINED:    return r->explained;
    case WEIR_ATTEMPTS:     return may(r, HOOK_BIT(DELIVERED)) ? (int64_t)r->attempts : -1;
    }
    return -1;
}

static struct weir_text
host_param(struct weir_request *r, const char *name)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    if (r->param == NULL || name == NULL)
        return (struct weir_text){ NULL, 0 };
    return out(r->param(r->param_arg, slice_of(name), r->pool));
}

static const struct http_head *
head_of(const struct weir_request *r, enum weir_which which)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    return which == WEIR_OF_REQUEST || which == WEIR_OF_RESPONSE ? r->head[which] : NULL;
}

static struct weir_text
host_field(struct weir_request *r, enum weir_which which, const char *name, unsigned i)
{
    const struct http_head *h = head_of(r, which);

    for (unsigned f = 0; h != NULL && f < h->nfields; f++)
        if (slice_ieq(h->fields[f].name, slice_of(name)) && i-- == 0)
            return (struct weir_text){ h->fields[f].value.p != NULL ? h->fields[f].value.p : "",
                h->fields[f].value.n };
    return (struct weir_text){ NULL, 0 };
}

static int
host_field_at(struct weir_request *r, enum weir_which which, unsigned i, struct weir_text *name,
    struct weir_text *value)
{
    const struct http_head *h = head_of(r, which);

    if (h == NULL || i >= h->nfields)
        return 0;
    *name = out(h->fields[i].name);
    *value = out(h->fields[i].value);
    return 1;
}

/* ---- what may be done ------------------------------------------------------------------------ */

static int
edit(struct weir_request *r, enum weir_which which, const char *name, struct weir_text value,
    bool add)
{
    if (name == NULL || !may(r, which == WEIR_OF_REQUEST ? MAY_KEY : MAY_RESPONSE) ||
        (which != WEIR_OF_REQUEST && which != WEIR_OF_RESPONSE))
        return -1;
    return edit_field(r, which, slice_of(name), in(value), add);
}

static int
host_set_field(struct weir_request *r, enum weir_which which, const char *name,
    struct weir_text value)
{
    return edit(r, which, name, value, false);
}

static int
host_add_field(struct weir_request *r, enum weir_which which, const char *name,
    struct weir_text value)
{
    return edit(r, which, name, value, true);
}

static int
add_text(struct weir_request *r, struct plugin_texts *to, size_t max, struct slice name,
    struct slice text)
{
    struct plugin_text *t = to->n < max ? pool_zalloc(r->pool, sizeof *t) : NULL;

    if (t == NULL)
        return -1;
    t->name = (struct slice){ pool_dup(r->pool, name.p, name.n), name.n };
    t->text = (struct slice){ pool_dup(r->pool, text.p, text.n), text.n };
    if (t->name.p == NULL || t->text.p == NULL)
        return -1;
    *to->last = t;
    to->last = &t->next;
    to->n++;
    return 0;
}

static int
host_add_key(struct weir_request *r, const char *name, struct weir_text value)
{
    if (!may(r, MAY_KEY) || name == NULL || name[0] == '\0')
        return -1;
    return add_text(r, &r->keys, KEYS_MAX, slice_of(name), value.p != NULL ? in(value) :
        SLICE(""));
}

static int
host_add_tag(struct weir_request *r, struct weir_text tag)
{
    if (!may(r, MAY_TAG) || tag.p == NULL || tag.n == 0)
        return -1;
    return add_text(r, &r->tags, TAGS_MAX, SLICE(""), in(tag));
}

static int
host_set_ttl(struct weir_request *r, int64_t milliseconds, int force)
{
    if (!may(r, HOOK_BIT(RESPONSE)) || milliseconds < 0)
        return -1;
    r->ttl_ms = milliseconds;
    r->ttl_forced = force != 0;
    return 0;
}

static int
host_mark(struct weir_request *r, enum weir_mark mark)
{
    bool ok = may(r, mark == WEIR_MARK_NO_STORE ? HOOK_BIT(RESPONSE) | HOOK_BIT(STORE) : MAY_KEY);

    if (ok && mark == WEIR_MARK_PASS)
        r->pass = true;
    else if (ok && mark == WEIR_MARK_NO_STORE)
        r->no_store = true;
    else if (ok && mark == WEIR_MARK_AUTHORIZED)
        r->authorized = true;
    else
        return -1;
    return 0;
}

static int
answer(struct weir_request *r, unsigned status, const char *type, struct slice body)
{
    struct slice copy = { pool_dup(r->pool, body.p != NULL ? body.p : "", body.n), body.n };

    if (!may(r, MAY_KEY) || status < 200 || status > 599 || status == 206 || status == 304 ||
        copy.p == NULL)
        return WEIR_FAILED;
    if (type != NULL && (!http_is_field_value(slice_of(type)) ||
        (type = pool_dup(r->pool, type, strlen(type))) == NULL))
        return WEIR_FAILED;
    r->answer_status = status;
    r->answer_type = type;
    r->answer_body = copy;
    return WEIR_ANSWERED;
}

static int
host_answer(struct weir_request *r, unsigned status, const char *type, struct weir_text body)
{
    return answer(r, status, type != NULL ? type : "text/plain", in(body));
}

static int
host_refuse(struct weir_request *r, unsigned status, const char *detail)
{
    return answer(r, status, NULL, slice_of(detail));
}

/* ---- memory and time ------------------------------------------------------------------------- */

static void *
host_alloc(struct weir_request *r, size_t n)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    return n < SIZE_MAX / 2 ? pool_alloc(r->pool, n) : NULL;
}

static void **
host_slot(struct weir_request *r)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    return &r->slots[r->next];
}

static struct weir_ticket *
host_suspend(struct weir_request *r)
{
    CHECK(r, WEIR_REQUEST_MAGIC);
    r->would_wait = r->explained;
    if (r->hook >= PLUGIN_HOOKS_N || !hook_suspends[r->hook] || r->loop == NULL ||
        r->ticket != NULL)
        return NULL;
    r->ticket = ticket_new(r, r->uses->at[r->next].plugin->timeout_ms);
    return (struct weir_ticket *)r->ticket;
}

static void
host_resume(struct weir_ticket *t)
{
    ticket_resume((struct plugin_ticket *)t);
}

static int
host_redis(struct weir_self *self, const struct weir_text *argv, size_t argc, size_t key,
    int64_t milliseconds, weir_replied *replied, void *arg)
{
    return redis_ask(self_of(self), argv, argc, key, milliseconds, replied, arg);
}

static int
host_may_set(enum weir_which which, const char *name)
{
    return name != NULL && (which == WEIR_OF_REQUEST || which == WEIR_OF_RESPONSE) &&
        edit_may(which, slice_of(name));
}

const struct weir_host plugin_host = {
    .abi = WEIR_ABI, .size = sizeof(struct weir_host),
    .log = host_log, .complain = host_complain, .counter = host_counter, .timer = host_timer,
    .count = plugin_count, .observe = plugin_observe,
    .fact = host_fact, .number = host_number, .param = host_param, .field = host_field,
    .field_at = host_field_at,
    .set_field = host_set_field, .add_field = host_add_field, .add_key = host_add_key,
    .add_tag = host_add_tag, .set_ttl = host_set_ttl, .mark = host_mark, .answer = host_answer,
    .refuse = host_refuse,
    .alloc = host_alloc, .slot = host_slot, .suspend = host_suspend, .resume = host_resume,
    .only = host_only, .redis = host_redis,
    .may_set = host_may_set,
};
