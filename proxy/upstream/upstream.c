/*
 * Servers and origins: made from the configuration, shared over reloads, counted, taken down.
 *
 * Model    an origin is what one configuration says; its servers are kept by upstream under a key
 *          of origin name, URL and TLS settings, so that a reload finds the same connections,
 *          waiters and ejections again and only changes their limits. The last origin that lets a
 *          server go closes its idle connections; busy ones end first and hold a reference. What
 *          was counted for the retry budget goes over to the next origin of the very same servers.
 * Threads  any; upstream.mtx guards the lists of servers, with their users, and of origins.
 */
#include "upstream/internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static struct {
    pthread_mutex_t  mtx;
    struct upstream *all;               /* of the process, for the figures */
    bool             registered;
} figures = { .mtx = PTHREAD_MUTEX_INITIALIZER };

static void register_figures(struct upstream *u);

/* ---- servers ----------------------------------------------------------------------------- */

struct server *
server_ref(struct server *s)
{
    CHECK(s, SERVER_MAGIC);
    atomic_fetch_add(&s->refs, 1);
    return s;
}

static void
server_free(struct server *s)
{
    for (unsigned i = 0; i < s->nslots; i++)
        assert(!s->slots[i].warm_ready);
    free((char *)(uintptr_t)s->key);
    free((char *)(uintptr_t)s->origin_id);
    free((char *)(uintptr_t)s->text);
    free((char *)(uintptr_t)s->host);
    free((char *)(uintptr_t)s->tls_name);
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->mtx);
    s->magic = 0;
    free(s);
}

void
server_unref(struct server **sp)
{
    struct server *s = *sp;

    *sp = NULL;
    CHECK(s, SERVER_MAGIC);
    if (atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    pthread_mutex_lock(&s->u->mtx);
    for (struct server **at = &s->u->servers; *at != NULL; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    pthread_mutex_unlock(&s->u->mtx);
    server_free(s);
}

static void
on_look(struct loop_msg *m)
{
    struct slot *sl = CONTAINER(m, struct slot, look);
    struct server *s = sl->server;

    atomic_store(&sl->look_posted, false);
    pool_look(sl);
    server_unref(&s);
}

void
server_look(struct slot *sl)
{
    if (atomic_load(&sl->server->u->stopped) || atomic_exchange(&sl->look_posted, true))
        return;
    server_ref(sl->server);
    sl->look.run = on_look;
    loop_post(sl->worker->loop, &sl->look);
}

static char *
key_of(const struct conf_origin *c, const struct conf_url *url)
{
    char *key = NULL;

    if (asprintf(&key, "%s\n%s\n%d\n%s\n%s", c->id, url->text, c->tls_verify,
        c->tls_ca_file != NULL ? c->tls_ca_file : "",
        url->https && c->host != NULL ? c->host : "") == -1)
        return NULL;
    return key;
}

/* host without [] or :port */
static char *
bare_name(const char *host)
{
    const char *end;

    if (host[0] == '[' && (end = strchr(host, ']')) != NULL)
        return strndup(host + 1, (size_t)(end - host - 1));
    end = strchr(host, ':');
    if (end != NULL && strchr(end + 1, ':') == NULL)
        return strndup(host, (size_t)(end - host));
    return strdup(host);
}

static struct server *
server_new(struct upstream *u, const struct conf_origin *c, const struct conf_url *url)
{
    struct server *s = calloc(1, sizeof *s + u->n * sizeof *s->slots);
    char *name = NULL;

    if (s == NULL)
        return NULL;
    s->magic = SERVER_MAGIC;
    atomic_init(&s->refs, 1);
    s->u = u;
    s->port = url->port;
    s->https = url->https;
    s->nslots = (unsigned)u->n;
    pthread_mutex_init(&s->mtx, NULL);
    s->key = key_of(c, url);
    s->origin_id = strdup(c->id);
    s->text = strdup(url->text);
    s->host = bare_name(url->host);
    s->tls_name = bare_name(c->host != NULL && c->host[0] != '\0' ? c->host : url->host);
    for (size_t i = 0; i < u->n; i++) {
        s->slots[i].server = s;
        s->slots[i].worker = u->workers[i];
    }
    if (s->key == NULL || s->origin_id == NULL || s->text == NULL || s->host == NULL ||
        s->tls_name == NULL || asprintf(&name, "%s/%s", c->id, url->text) == -1) {
        server_free(s);
        return NULL;
    }
    s->stats = stats_origin_slot(name);
    free(name);
    return s;
}

static void
server_configure(struct server *s, const struct conf_origin *c, SSL_CTX *tls)
{
    SSL_CTX *old;

    atomic_store(&s->max, (unsigned)c->pool_max);
    atomic_store(&s->min, (unsigned)c->pool_min);
    atomic_store(&s->waiting_max, (unsigned)c->pool_waiting);
    atomic_store(&s->idle_us, c->pool_idle_ms * 1000);
    atomic_store(&s->connect_us, c->connect_ms * 1000);
    if (tls == NULL)
        return;
    SSL_CTX_up_ref(tls);
    pthread_mutex_lock(&s->mtx);
    old = s->tls;
    s->tls = tls;
    pthread_mutex_unlock(&s->mtx);
    SSL_CTX_free(old);
}

/* The server for this URL, one user and one reference more; under u->mtx. */
static struct server *
server_get(struct upstream *u, const struct conf_origin *c, const struct conf_url *url)
{
    char *key = key_of(c, url);
    struct server *s = NULL;

    if (key == NULL)
        return NULL;
    for (s = u->servers; s != NULL && (s->users == 0 || strcmp(s->key, key) != 0); s = s->next)
        ;
    free(key);
    if (s != NULL) {
        s->users++;
        return server_ref(s);
    }
    s = server_new(u, c, url);
    if (s == NULL)
        return NULL;
    s->users = 1;
    s->next = u->servers;
    u->servers = s;
    return s;
}

/* One user and one reference less. */
static void
server_drop(struct upstream *u, struct server **sp)
{
    struct server *s = *sp;
    bool last;

    pthread_mutex_lock(&u->mtx);
    last = --s->users == 0;
    pthread_mutex_unlock(&u->mtx);
    if (last) {
        atomic_store(&s->closing, true);
        for (unsigned i = 0; i < s->nslots; i++)
            server_look(&s->slots[i]);
    }
    server_unref(sp);
}

/* ---- names ------------------------------------------------------------------------------- */

static bool
has_name(const struct server *s, const char *host)      /* and is in service: under u->mtx */
{
    return s->users > 0 && strcasecmp(s->host, host) == 0;
}

static bool
name_in_use(void *arg, const char *host)
{
    struct upstream *u = arg;
    bool used = false;

    pthread_mutex_lock(&u->mtx);
    for (struct server *s = u->servers; s != NULL && !used; s = s->next)
        used = has_name(s, host) && atomic_load(&s->conns) > 0;
    pthread_mutex_unlock(&u->mtx);
    return used;
}

/* "origin api: http://api.test:8080, origin ..." */
static void
name_users(void *arg, const char *host, struct buf *out)
{
    struct upstream *u = arg;

    pthread_mutex_lock(&u->mtx);
    for (struct server *s = u->servers; s != NULL; s = s->next)
        if (has_name(s, host))
            buf_printf(out, "%sorigin %s: %s", out->n > 0 ? ", " : "", s->origin_id, s->text);
    pthread_mutex_unlock(&u->mtx);
}

/* Idle connections to where the name no longer points are closed, busy ones when they are done. */
static void
name_left(void *arg, const char *host)
{
    struct upstream *u = arg;

    pthread_mutex_lock(&u->mtx);
    for (struct server *s = u->servers; s != NULL; s = s->next) {
        if (!has_name(s, host))
            continue;
        atomic_fetch_add(&s->moves, 1);
        for (unsigned i = 0; i < s->nslots; i++)
            server_look(&s->slots[i]);
    }
    pthread_mutex_unlock(&u->mtx);
}

/* ---- upstream ---------------------------------------------------------------------------- */

static void
upstream_drop(struct upstream *u)
{
    if (atomic_fetch_sub(&u->refs, 1) > 1)
        return;
    for (size_t i = 0; i < u->n; i++)
        free(u->workers[i]);
    pthread_mutex_destroy(&u->mtx);
    u->magic = 0;
    free(u);
}

struct upstream *
upstream_new(struct loop *const *loops, size_t n, const struct conf_strings *dns, struct err *e)
{
    struct upstream *u = calloc(1, sizeof *u + n * sizeof *u->workers);

    if (u == NULL)
        goto fail;
    u->magic = UPSTREAM_MAGIC;
    atomic_init(&u->refs, 1);
    pthread_mutex_init(&u->mtx, NULL);
    u->n = n;
    for (size_t i = 0; i < n; i++) {
        struct worker *w = calloc(1, sizeof *w);

        if (w == NULL)
            goto fail;
        u->workers[i] = w;
        w->u = u;
        w->index = (unsigned)i;
        w->loop = loops[i];
        w->base = loop_base(loops[i]);
    }
    u->dns = dns_new(loops[0], dns, &(struct dns_user){ name_in_use, name_left, name_users, u });
    if (u->dns == NULL)
        goto fail;
    register_figures(u);
    return u;

fail:
    err_set(e, ENOMEM, "upstream: out of memory");
    if (u != NULL)
        upstream_drop(u);
    return NULL;
}

/* Connections that were on their way from one worker to another when the loops stopped. */
static void
drop_granted(struct server *s)
{
    struct exchange *x, *next;

    for (x = s->granted, s->granted = NULL; x != NULL; x = next) {
        struct wire *c = x->grant_conn;

        next = x->next;
        x->grant_conn = NULL;
        if (c != NULL) {
            wire_arrive(c, x->w);
            wire_close(c);
        } else {
            atomic_fetch_sub(&s->conns, 1);
        }
        exchange_lost(x);
    }
}

/* What the stopped loops would have done for this server. */
static void
wind_up(struct server *s)
{
    drop_granted(s);
    for (unsigned i = 0; i < s->nslots; i++) {
        struct slot *sl = &s->slots[i];

        if (sl->warm_ready)
            deadline_fini(&sl->warm);
        sl->warm_ready = false;
        if (atomic_exchange(&sl->look_posted, false)) {
            struct server *posted = s;

            server_unref(&posted);
        }
    }
}

void
upstream_free(struct upstream **up)
{
    struct upstream *u = *up;
    struct server *s, *next;

    *up = NULL;
    if (u == NULL)
        return;
    CHECK(u, UPSTREAM_MAGIC);
    pthread_mutex_lock(&figures.mtx);
    for (struct upstream **at = &figures.all; *at != NULL; at = &(*at)->next)
        if (*at == u) {
            *at = u->next;
            break;
        }
    pthread_mutex_unlock(&figures.mtx);
    atomic_store(&u->stopped, true);
    dns_free(&u->dns);                  /* no answer comes any more */
    for (s = u->servers; s != NULL; s = next) {
        server_ref(s);
        wind_up(s);
        next = s->next;
        server_unref(&s);
    }
    for (size_t i = 0; i < u->n; i++)
        while (u->workers[i]->conns != NULL)
            wire_abandon(u->workers[i]->conns);
    upstream_drop(u);
}

/* ---- origins ----------------------------------------------------------------------------- */

static void
budget_take_over(struct budget *b, struct budget *from)
{
    for (size_t i = 0; i < BUDGET_SECONDS; i++) {
        atomic_store(&b->at[i].second, atomic_load(&from->at[i].second));
        atomic_store(&b->at[i].requests, atomic_load(&from->at[i].requests));
        atomic_store(&b->at[i].retries, atomic_load(&from->at[i].retries));
    }
}

/* Puts o among the origins, with the budget of the one that it replaces. A server belongs to one
 * name of origin (key_of), so the same servers are the same origin. */
static void
origin_enlist(struct upstream *u, struct origin *o)
{
    struct origin *was;

    pthread_mutex_lock(&u->mtx);
    for (was = u->origins; was != NULL; was = was->next)
        if (was->n == o->n && memcmp(was->servers, o->servers, o->n * sizeof *o->servers) == 0)
            break;
    if (was != NULL)
        budget_take_over(&o->budget, &was->budget);
    o->next = u->origins;
    u->origins = o;
    pthread_mutex_unlock(&u->mtx);
}

static void
origin_delist(struct upstream *u, const struct origin *o)
{
    struct origin **at;

    pthread_mutex_lock(&u->mtx);
    for (at = &u->origins; *at != NULL && *at != o; at = &(*at)->next)
        ;
    if (*at != NULL)                    /* NULL: it was not opened whole */
        *at = o->next;
    pthread_mutex_unlock(&u->mtx);
}

struct origin *
origin_open(struct upstream *u, const struct conf_origin *c, struct err *e)
{
    struct origin *o = calloc(1, sizeof *o + c->servers.n * sizeof *o->servers);
    SSL_CTX *tls = NULL;
    bool https = false;

    CHECK(u, UPSTREAM_MAGIC);
    for (size_t i = 0; i < c->servers.n; i++)
        https = https || c->servers.at[i].https;
    if (https && (tls = tls_context(c, e)) == NULL) {
        free(o);
        return NULL;
    }
    if (o == NULL)
        goto fail;
    o->magic = ORIGIN_MAGIC;
    atomic_init(&o->refs, 1);
    o->u = u;
    atomic_fetch_add(&u->refs, 1);
    o->balance = c->balance;
    o->discard_surplus = c->discard_surplus;
    o->wait_us = c->pool_wait_ms * 1000;
    o->first_byte_us = c->first_byte_ms * 1000;
    o->between_us = c->between_bytes_ms * 1000;
    o->eject_for_us = c->eject_for_ms * 1000;
    o->retry_attempts = (unsigned)c->retry_attempts;
    o->eject_errors = (unsigned)c->eject_errors;
    o->retry_budget = c->retry_budget;
    if (c->host != NULL && c->host[0] != '\0' && (o->host = strdup(c->host)) == NULL)
        goto fail;
    for (; o->n < c->servers.n; o->n++) {
        struct server *s;

        pthread_mutex_lock(&u->mtx);
        s = server_get(u, c, &c->servers.at[o->n]);
        pthread_mutex_unlock(&u->mtx);
        if (s == NULL)
            goto fail;
        o->servers[o->n] = s;
        server_configure(s, c, s->https ? tls : NULL);
        for (unsigned k = 0; atomic_load(&s->min) > 0 && k < s->nslots; k++)
            server_look(&s->slots[k]);
    }
    SSL_CTX_free(tls);
    origin_enlist(u, o);
    return o;

fail:
    SSL_CTX_free(tls);
    err_set(e, ENOMEM, "origin %s: out of memory", c->id);
    if (o != NULL)
        origin_unref(&o);
    return NULL;
}

struct origin *
origin_ref(struct origin *o)
{
    CHECK(o, ORIGIN_MAGIC);
    atomic_fetch_add(&o->refs, 1);
    return o;
}

void
origin_unref(struct origin **op)
{
    struct origin *o = *op;
    struct upstream *u;

    *op = NULL;
    if (o == NULL)
        return;
    CHECK(o, ORIGIN_MAGIC);
    if (atomic_fetch_sub(&o->refs, 1) > 1)
        return;
    u = o->u;
    origin_delist(u, o);
    for (size_t i = 0; i < o->n; i++)
        server_drop(u, &o->servers[i]);
    free((char *)(uintptr_t)o->host);
    o->magic = 0;
    free(o);
    upstream_drop(u);
}

/* ---- the figures ------------------------------------------------------------------------- */

static unsigned
idle_of(struct server *s)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->nslots; i++)
        n += atomic_load(&s->slots[i].nidle);
    return n;
}

static unsigned
open_of(struct server *s)
{
    return atomic_load(&s->conns);
}

static unsigned
busy_of(struct server *s)
{
    unsigned open = open_of(s), idle = idle_of(s);

    return open > idle ? open - idle : 0;
}

static unsigned
waiting_of(struct server *s)
{
    return atomic_load(&s->waiting);
}

static unsigned
max_of(struct server *s)
{
    return atomic_load(&s->max);
}

static unsigned
out_of_service(struct server *s)
{
    return atomic_load(&s->out_until_us) != 0;
}

static const struct figure {
    const char *json, *metric, *help;
    unsigned  (*read)(struct server *);
} server_figures[] = {
    { "connections", "weir_pool_connections", "Connections to a server.", open_of },
    { "busy", "weir_pool_busy", "Connections of a server in use or being opened.", busy_of },
    { "idle", "weir_pool_idle", "Idle connections to a server.", idle_of },
    { "waiting", "weir_pool_server_waiting", "Requests that wait for a connection to a server.",
        waiting_of },
    { "max", "weir_pool_max", "Most connections to a server.", max_of },
    { "ejected", "weir_pool_ejected", "1 while a server is out after failures.", out_of_service },
};

void
upstream_json(struct upstream *u, struct buf *b)
{
    bool first = true;

    CHECK(u, UPSTREAM_MAGIC);
    buf_addc(b, '[');
    pthread_mutex_lock(&u->mtx);
    for (struct server *s = u->servers; s != NULL; s = s->next, first = false) {
        buf_addz(b, first ? "{\"origin\":\"" : ",{\"origin\":\"");
        buf_json(b, slice_of(s->origin_id));
        buf_addz(b, "\",\"server\":\"");
        buf_json(b, slice_of(s->text));
        buf_addc(b, '"');
        for (size_t i = 0; i < NELEM(server_figures); i++)
            buf_printf(b, ",\"%s\":%u", server_figures[i].json, server_figures[i].read(s));
        buf_printf(b, ",\"failures\":%u}", atomic_load(&s->fails));
    }
    pthread_mutex_unlock(&u->mtx);
    buf_addc(b, ']');
}

static void
figures_json(struct buf *b, void *arg)
{
    (void)arg;
    pthread_mutex_lock(&figures.mtx);
    if (figures.all != NULL) {
        buf_addz(b, ",\"pools\": ");
        upstream_json(figures.all, b);
    }
    pthread_mutex_unlock(&figures.mtx);
}

static void
figures_metrics(struct buf *b, void *arg)
{
    (void)arg;
    pthread_mutex_lock(&figures.mtx);
    for (size_t i = 0; figures.all != NULL && i < NELEM(server_figures); i++) {
        const struct figure *f = &server_figures[i];

        buf_printf(b, "# HELP %s %s\n# TYPE %s gauge\n", f->metric, f->help, f->metric);
        pthread_mutex_lock(&figures.all->mtx);
        for (struct server *s = figures.all->servers; s != NULL; s = s->next)
            buf_printf(b, "%s{origin=\"%s\",server=\"%s\"} %u\n", f->metric, s->origin_id, s->text,
                f->read(s));
        pthread_mutex_unlock(&figures.all->mtx);
    }
    pthread_mutex_unlock(&figures.mtx);
}

/* The source is the process's, since none can be taken away again; it speaks of the newest. */
static void
register_figures(struct upstream *u)
{
    static struct stats_source source = { .json = figures_json, .metrics = figures_metrics };

    pthread_mutex_lock(&figures.mtx);
    u->next = figures.all;
    figures.all = u;
    if (!figures.registered)
        stats_source_add(&source);
    figures.registered = true;
    pthread_mutex_unlock(&figures.mtx);
}
