/*
 * The admin and the probe port: binding, libevhtp's listeners, what they answer from.
 *
 * Model    a port is bound here, without SO_REUSEPORT, so that one in use is an error and not a
 *          second Weir; libevhtp accepts on it and hands each connection to conn.c. When
 *          descriptors run out, accepting rests for a tenth of a second instead of spinning.
 * Threads  the loop's alone; admin_start may come before the loop runs.
 */
#include <errno.h>
#include <evhtp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/inside.h"
#include "stats/stats.h"

#define BACKLOG   128
#define REST_US   100000

struct listener {
    struct admin *a;                    /* borrowed */
    evhtp_t      *htp;                  /* owned */
    struct timer  rest;
    bool          probe;
};

const struct endpoint endpoints[] = {
    { "/",        HTTP_GET,  false, handle_index,   "this list; for browsers, the dashboard" },
    { "/dashboard/{id}", HTTP_GET, false, handle_dashboard, "a file of the dashboard" },
    { "/healthz", HTTP_GET,  true,  handle_healthz, "200 while the process runs" },
    { "/readyz",  HTTP_GET,  true,  handle_readyz,
        "200 when requests can be served, else 503 and why" },
    { "/metrics", HTTP_GET,  false, handle_metrics, "Prometheus text" },
    { "/stats",   HTTP_GET,  false, handle_stats,   "percentiles, hit rates and counters as JSON" },
    { "/stats/stream", HTTP_GET, false, handle_stats_stream,
        "?windows=10s,1m: server-sent events: the same each second, of these windows" },
    { "/stats/history", HTTP_GET, false, handle_stats_history,
        "?route=NAME: the last five minutes in steps of ten seconds" },
    { "/log/stream", HTTP_GET, false, handle_log_stream,
        "server-sent events: requests as they are done; ?route=&outcome=&status=&method=&path="
        "&slower=" },
    { "/config",  HTTP_GET,  false, handle_config,
        "the configuration in force, as YAML without secrets" },
    { "/explain", HTTP_GET,  false, handle_explain,
        "?url=URL[&method=M][&header=Name:value][&trusted=1]: route, key, what is stored and why" },
    { "/explain", HTTP_POST, false, handle_explain,
        "the same of a request with content, JSON: {\"content\": \"...\"}" },
    { "/purge",   HTTP_POST, false, handle_purge,
        "JSON with url, prefix, pattern, tags, route or all; soft, dry_run, erase, wait" },
    { "/purge/{id}", HTTP_GET, false, handle_purge_look,
        "a purge that was answered 202: which instances have not applied it" },
    { "/reload",  HTTP_POST, false, handle_reload,  "read the configuration file again" },
    { "/writes",  HTTP_GET,  false, handle_writes,
        "?state=&route=&key=&after=ID&limit=: writes by page; a path's in order of acceptance" },
    { "/writes/stream", HTTP_GET, false, handle_writes_stream,
        "server-sent events: changes of state, and once a second how it goes" },
    { "/writes/retry", HTTP_POST, false, handle_writes_retry,
        "JSON with state, route, key, or \"all\": true: dead and waiting ones are due now" },
    { "/writes/drop", HTTP_POST, false, handle_writes_drop,
        "likewise: pending ones are cancelled, dead ones settled" },
    { "/writes/pause", HTTP_POST, false, handle_writes_pause,
        "JSON with origin or route, or \"all\": true: no delivery until" },
    { "/writes/resume", HTTP_POST, false, handle_writes_resume, "likewise" },
    { "/writes/{id}", HTTP_GET, false, handle_write, "one write: what is known of it" },
    { "/writes/{id}", HTTP_DELETE, false, handle_write_drop,
        "cancels a pending one, drops a dead one" },
    { "/writes/{id}/retry", HTTP_POST, false, handle_write_retry, "it is due now" },
};
const size_t nendpoints = NELEM(endpoints);

/* ---- listening ------------------------------------------------------------------------------- */

static void
on_rested(void *arg)
{
    struct listener *l = arg;

    if (l->htp->server != NULL)
        evconnlistener_enable(l->htp->server);
}

static void
on_accept_error(struct evconnlistener *server, void *arg)
{
    static struct log_limit limit;
    struct listener *l = arg;

    (void)server;
    COUNT(accept_errors);
    log_limited(&limit, LOG_ERROR, "admin port: accept: %s", strerror(errno));
    evconnlistener_disable(l->htp->server);
    if (timer_set(&l->rest, REST_US) != 0)
        evconnlistener_enable(l->htp->server);
}

static evhtp_res
on_accept(evhtp_connection_t *ev, void *arg)
{
    struct listener *l = arg;

    return conn_open(l->a, ev, l->probe) == 0 ? EVHTP_RES_OK : EVHTP_RES_ERROR;
}

static void
put_address(int fd, char **out)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    char host[64], port[16], text[96];

    if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0 ||
        getnameinfo((struct sockaddr *)&sa, len, host, sizeof host, port, sizeof port,
            NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    snprintf(text, sizeof text, sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    free(*out);
    *out = strdup(text);
}

static int
bind_port(const struct conf_address *at, const char *option, struct err *e)
{
    int on = 1, fd = service_socket((const struct sockaddr *)&at->sa);

    if (fd != -1) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        return fd;
    }
    fd = socket(at->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd == -1)
        return err_set(e, errno, "%s: %s: %s", option, at->text, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at->sa.ss_family == AF_INET6)               /* as front/ has it: the same port beside it */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    /* accepted sockets inherit it */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&at->sa, at->len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    err_set(e, errno, "%s: %s: %s%s", option, at->text, strerror(errno), errno == EADDRINUSE ?
        "; another process listens there: stop it, or choose another port" : "");
    close(fd);
    return -1;
}

static void
listener_free(struct listener **lp)
{
    struct listener *l = *lp;

    *lp = NULL;
    if (l == NULL)
        return;
    timer_fini(&l->rest);
    if (l->htp != NULL) {
        evhtp_unbind_socket(l->htp);
        evhtp_free(l->htp);
    }
    free(l);
}

static struct listener *
listener_open(struct admin *a, const struct conf_address *at, bool probe, struct err *e)
{
    struct listener *l = calloc(1, sizeof *l);
    int fd = bind_port(at, probe ? "probe.listen" : "admin.listen", e);

    if (fd == -1)
        goto fail;
    err_set(e, ENOMEM, "admin port: out of memory");
    if (l == NULL || (l->htp = evhtp_new(loop_base(a->loop), NULL)) == NULL)
        goto fail;
    l->a = a;
    l->probe = probe;
    l->htp->flags &= (uint16_t)~EVHTP_FLAG_ENABLE_100_CONT;
    evhtp_set_bev_flags(l->htp, BEV_OPT_CLOSE_ON_FREE);
    evhtp_set_post_accept_cb(l->htp, on_accept, l);
    evhtp_set_gencb(l->htp, conn_on_request, NULL);
    if (timer_init(&l->rest, a->loop, on_rested, l) != 0 || evhtp_accept_socket(l->htp, fd, 0) != 0)
        goto fail;
    evconnlistener_set_error_cb(l->htp->server, on_accept_error);
    if (!probe)
        put_address(fd, &a->address);
    return l;

fail:
    if (fd != -1)
        close(fd);
    listener_free(&l);
    return NULL;
}

/* ---- the surface ----------------------------------------------------------------------------- */

static void
forget(struct admin *a)
{
    for (char **h = a->hosts; h != NULL && *h != NULL; h++)
        free(*h);
    free(a->hosts);
    if (a->token != NULL)
        explicit_bzero(a->token, strlen(a->token));
    free(a->token);
    a->hosts = NULL;
    a->token = NULL;
}

/* Copies what may change by a reload. Without memory for it nothing changes. */
static int
learn(struct admin *a, const struct conf *c)
{
    struct admin next = { .hosts = calloc(c->admin_hosts.n + 1, sizeof(char *)) };
    bool ok = next.hosts != NULL;

    for (size_t i = 0; ok && i < c->admin_hosts.n; i++)
        ok = (next.hosts[i] = strdup(c->admin_hosts.at[i])) != NULL;
    if (c->admin_token != NULL)
        ok = ok && (next.token = strdup(c->admin_token)) != NULL;
    if (!ok) {
        forget(&next);
        return -1;
    }
    forget(a);
    a->hosts = next.hosts;
    a->token = next.token;
    return 0;
}

struct admin *
admin_start(struct loop *l, const struct conf *c, const struct admin_process *p, struct err *e)
{
    struct admin *a = calloc(1, sizeof *a);

    if (a == NULL || recent_begin(a) != 0 || (a->magic = ADMIN_MAGIC, learn(a, c)) != 0) {
        if (a != NULL)
            recent_end(a);
        free(a);
        err_set(e, ENOMEM, "admin port: out of memory");
        return NULL;
    }
    a->loop = l;
    a->process = *p;
    if (!c->admin_listen.off &&
        (a->listeners[0] = listener_open(a, &c->admin_listen, false, e)) == NULL)
        goto fail;
    if (!c->probe_listen.off &&
        (a->listeners[1] = listener_open(a, &c->probe_listen, true, e)) == NULL)
        goto fail;
    return a;

fail:
    admin_stop(&a);
    return NULL;
}

void
admin_reconfigure(struct admin *a, const struct conf *c)
{
    CHECK(a, ADMIN_MAGIC);
    if (learn(a, c) != 0)
        log_error("admin port: out of memory; token and hosts stay as they were");
}

void
admin_answer_from(struct admin *a, const struct admin_process *p)
{
    CHECK(a, ADMIN_MAGIC);
    a->process = *p;
}

bool
admin_hold(struct admin *a, bool on)
{
    CHECK(a, ADMIN_MAGIC);
    for (size_t i = 0; i < NELEM(a->listeners); i++) {
        if (a->listeners[i] == NULL)
            continue;
        timer_clear(&a->listeners[i]->rest);
        if (on)
            evconnlistener_disable(a->listeners[i]->htp->server);
        else
            evconnlistener_enable(a->listeners[i]->htp->server);
    }
    return !conn_any_busy(a) && a->erasing == NULL;
}

size_t
admin_sockets(const struct admin *a, int fds[2])
{
    size_t n = 0;

    CHECK(a, ADMIN_MAGIC);
    for (size_t i = 0; i < NELEM(a->listeners); i++)
        if (a->listeners[i] != NULL)
            fds[n++] = evconnlistener_get_fd(a->listeners[i]->htp->server);
    return n;
}

void
admin_stop(struct admin **ap)
{
    struct admin *a = *ap;

    *ap = NULL;
    if (a == NULL)
        return;
    CHECK(a, ADMIN_MAGIC);
    conn_close_all(a);
    erase_end(a);
    watching_end(a);
    recent_end(a);
    listener_free(&a->listeners[0]);
    listener_free(&a->listeners[1]);
    forget(a);
    free(a->address);
    a->magic = 0;
    free(a);
}

const char *
admin_address(const struct admin *a)
{
    CHECK(a, ADMIN_MAGIC);
    return a->address;
}
