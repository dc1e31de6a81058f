/*
 * How a connection is made: a name, its addresses in turn, TLS, the greeting.
 *
 * Model    RESOLVING -> CONNECTING -> (SECURING ->) GREETING -> READY, all within `connect_ms`, of
 *          which each address has its share. The greeting (AUTH, CLIENT SETNAME, SELECT, ROLE,
 *          PING) goes out at once, and must be answered before anything else is sent: what a
 *          server that is not ours, not yet loaded or no master any more would have done with a
 *          command is never a question.
 */
#include "redis/inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/dns.h>
#include <event2/util.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- connecting -------------------------------------------------------------------------- */

static bool
add_address(struct link *l, const struct sockaddr *sa, socklen_t len)
{
    struct sockaddr_storage *to = &l->addresses[l->naddresses];

    if (l->naddresses == ADDRESSES_MAX || (size_t)len > sizeof *to)
        return false;
    memcpy(to, sa, (size_t)len);
    if (to->ss_family == AF_INET)
        ((struct sockaddr_in *)(void *)to)->sin_port = htons(l->node->server->port);
    else if (to->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)to)->sin6_port = htons(l->node->server->port);
    else
        return false;
    l->naddresses++;
    return true;
}

static void
no_name(struct link *l, const char *why)
{
    char text[128];

    snprintf(text, sizeof text, "its name cannot be resolved: %s", why);
    link_fail(l, REDIS_REFUSED, BREAKER_FAILURES, text);
}

static void
on_name(int result, struct evutil_addrinfo *all, void *arg)
{
    struct link *l = arg;

    l->dns = NULL;
    for (struct evutil_addrinfo *i = all; i != NULL && l->state != LINK_OVER; i = i->ai_next)
        add_address(l, i->ai_addr, (socklen_t)i->ai_addrlen);
    if (all != NULL)
        evutil_freeaddrinfo(all);
    if (l->state != LINK_OVER && l->naddresses == 0)
        no_name(l, evutil_gai_strerror(result));
    else if (l->state != LINK_OVER)
        connect_next(l);
    link_leave(l);
}

static struct evdns_base *
side_dns(struct side *side)
{
    if (side->dns == NULL)
        side->dns = evdns_base_new(loop_base(side->loop), EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    else
        return side->dns;
    if (side->dns != NULL)
        evdns_base_resolv_conf_parse(side->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
    return side->dns;
}

void
connect_start(struct link *l)
{
    struct evutil_addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    const char *host = l->node->server->host;
    struct evdns_getaddrinfo_request *asked;
    struct sockaddr_storage ss = { 0 };
    struct sockaddr_in *in = (void *)&ss;
    struct sockaddr_in6 *in6 = (void *)&ss;
    struct evdns_base *dns;

    if (inet_pton(AF_INET, host, &in->sin_addr) == 1)
        ss.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1)
        ss.ss_family = AF_INET6;
    if (ss.ss_family != 0) {
        add_address(l, (struct sockaddr *)&ss, sizeof ss);
        connect_next(l);
        return;
    }
    dns = side_dns(l->node->side);
    if (dns == NULL) {
        no_name(l, "out of memory");
        return;
    }
    link_enter(l);                           /* until on_name, which may come from inside */
    asked = evdns_getaddrinfo(dns, host, NULL, &hints, on_name, l);
    if (asked != NULL)
        l->dns = asked;
}

static int
connect_to(struct link *l, const struct sockaddr_storage *ss)
{
    socklen_t len = ss->ss_family == AF_INET ? sizeof(struct sockaddr_in)
        : sizeof(struct sockaddr_in6);
    int on = 1, fd = socket(ss->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd == -1)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    link_assign(l, fd);
    if (connect(fd, (const struct sockaddr *)ss, len) == 0 || errno == EINPROGRESS)
        return event_add(&l->wr, NULL);
    return -1;
}

void
connect_next(struct link *l)
{
    char why[128];

    l->state = LINK_CONNECTING;
    while (l->next < l->naddresses) {
        int64_t left = l->until_us - now_us();

        if (left > 0 && connect_to(l, &l->addresses[l->next++]) == 0) {
            link_limit(l, left / (int64_t)(l->naddresses - l->next + 1));
            return;
        }
        l->error = left > 0 ? errno : ETIMEDOUT;
        link_close_fd(l);
        if (left <= 0)
            break;
    }
    snprintf(why, sizeof why, "cannot be connected to: %s", strerror(l->error));
    link_fail(l, l->error == ETIMEDOUT ? REDIS_TIMEOUT : REDIS_REFUSED, BREAKER_FAILURES, why);
}

/* ---- greeting ---------------------------------------------------------------------------- */

static void
greet_with(struct link *l, enum greet g, const char *const *words, size_t n)
{
    struct slice argv[3];
    char *bytes;
    size_t len;

    for (size_t i = 0; i < n; i++)
        argv[i] = slice_of(words[i]);
    if (resp_format(argv, n, &bytes, &len) == -1) {
        l->out.failed = true;
        return;
    }
    buf_add(&l->out, bytes, len);
    free(bytes);
    l->greets[l->ngreets++] = g;
}

static void
greet(struct link *l)
{
    const struct redis_conf *c = &l->node->side->r->conf;
    bool sentinel = l->node->server->role == ROLE_SENTINEL;
    const char *user = sentinel ? c->sentinel_username : c->username;
    const char *password = sentinel ? c->sentinel_password : c->password;
    const char *auth[3] = { "AUTH", user, password };
    char db[16];

    l->state = LINK_GREETING;
    event_add(&l->rd, NULL);
    if (password != NULL && user != NULL)
        greet_with(l, GREET_AUTH, auth, 3);
    else if (password != NULL)
        greet_with(l, GREET_AUTH, (const char *[]){ "AUTH", password }, 2);
    greet_with(l, GREET_NAME, (const char *[]){ "CLIENT", "SETNAME", "weir" }, 3);
    if (c->db != 0 && !sentinel) {
        snprintf(db, sizeof db, "%u", c->db);
        greet_with(l, GREET_SELECT, (const char *[]){ "SELECT", db }, 2);
    }
    if (l->node->server->role == ROLE_MASTER)
        greet_with(l, GREET_ROLE, (const char *[]){ "ROLE" }, 1);
    greet_with(l, GREET_PING, (const char *[]){ "PING" }, 1);
    link_write(l, NULL, 0);
}

/* What a greeting's error means: REDIS_OK when we can do without. */
static enum redis_cause
judge(enum greet g, const struct redis_reply *r)
{
    enum redis_cause c = cause_of(r);
    bool denied = slice_starts(r->text, SLICE("NOPERM"));

    if (slice_starts(r->text, SLICE("ERR max number of clients")))
        return REDIS_REFUSED;           /* said to whatever comes first */
    switch (g) {
    case GREET_AUTH:
        return c != REDIS_OK ? REDIS_AUTH : REDIS_OK;
    case GREET_NAME:                    /* ACLs may deny it; a name is a courtesy */
        return c == REDIS_AUTH && !denied ? c : REDIS_OK;
    case GREET_ROLE:
        if (c != REDIS_OK)
            return c;
        return r->type == REPLY_ARRAY && r->n > 0 && slice_eq(r->at[0]->text, SLICE("master"))
            ? REDIS_OK : REDIS_READONLY;
    case GREET_PING:
        return denied ? REDIS_OK : c;
    default:
        return c;
    }
}

void
greet_answered(struct link *l, const struct redis_reply *r)
{
    enum greet g = l->greets[l->greeted++];
    enum redis_cause c = judge(g, r);
    char why[160];

    if (c == REDIS_OK) {
        if (l->greeted == l->ngreets)
            link_ready(l);
        return;
    }
    if (r->type != REPLY_ERROR)
        snprintf(why, sizeof why, "is no master");
    else if (g == GREET_AUTH && cause_of(r) == REDIS_OTHER)     /* may repeat what we said to it */
        snprintf(why, sizeof why, "answers AUTH with an error");
    else
        snprintf(why, sizeof why, "answers %.*s", (int)(r->text.n < 140 ? r->text.n : 140),
            r->text.p);
    link_fail(l, c, BREAKER_FAILURES, why);
}

/* ---- the handshake ----------------------------------------------------------------------- */

void
connect_secure(struct link *l)
{
    bool done = false;
    enum wire w = wire_handshake(l, &done);
    char why[160];

    if (done) {
        event_del(&l->wr);
        l->writing = false;
        greet(l);
    } else if (w != WIRE_MORE) {
        wire_why(l, why, sizeof why);
        link_fail(l, REDIS_REFUSED, BREAKER_FAILURES, why);
    } else if (SSL_want_write(l->ssl)) {
        event_add(&l->wr, NULL);
    } else {
        event_del(&l->wr);
    }
}

void
connect_made(struct link *l)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
        error = errno;
    event_del(&l->wr);
    if (error != 0) {
        link_close_fd(l);
        l->error = error;
        connect_next(l);
        return;
    }
    link_limit(l, l->until_us - now_us());
    if (l->node->side->r->tls == NULL) {
        greet(l);
        return;
    }
    l->state = LINK_SECURING;
    event_add(&l->rd, NULL);
    if (wire_secure(l))
        connect_secure(l);
    else
        link_fail(l, REDIS_REFUSED, 0, "TLS: memory is out");
}
