/*
 * One connection: made address by address, greeted, then a pipeline.
 *
 * Model    RESOLVING -> CONNECTING -> (SECURING ->) GREETING -> READY, and OVER from anywhere. The
 *          greeting (AUTH, CLIENT SETNAME, SELECT, ROLE, PING) goes out at once and must be
 *          answered before anything else is sent, all within `connect_ms`, of which each address
 *          has its share. Answers come in the order of the commands. What redis_send gives is
 *          written once the loop has done what else there was: a batch is one system call.
 *          A connection that nobody used for IDLE_US is asked by a PING whether it is there.
 * Lifetime one that is closed inside a callback of its own is freed when that returns (`hold`).
 * Not here what a failure means for the server (node.c, server.c), deadlines of commands (ask.c).
 */
#include "redis/inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/dns.h>
#include <event2/util.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ASKING     "*1\r\n$6\r\nASKING\r\n"
#define READ_BYTES (64 * 1024)
#define READS      16                   /* then others have their turn */
#define OUT_KEEP   (64 * 1024u)         /* a larger buffer is given back when it is empty */

static void on_readable(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);
static void on_soon(evutil_socket_t fd, short what, void *arg);
static void on_limit(evutil_socket_t fd, short what, void *arg);
static void next_address(struct link *l);

/* ---- coming and going -------------------------------------------------------------------- */

static void
set_limit(struct link *l, int64_t us)
{
    struct timeval tv = { 0, 1 };

    if (us > 0)
        tv = (struct timeval){ us / SECOND_US, us % SECOND_US };
    event_add(&l->limit, &tv);
}

static void
assign_fd(struct link *l, int fd)
{
    struct event_base *base = loop_base(l->node->side->loop);

    l->fd = fd;
    l->writing = false;
    event_assign(&l->rd, base, fd, EV_READ | EV_PERSIST, on_readable, l);
    event_assign(&l->wr, base, fd, EV_WRITE | EV_PERSIST, on_writable, l);
}

static void
close_fd(struct link *l)
{
    event_del(&l->rd);
    event_del(&l->wr);
    if (l->fd != -1)
        close(l->fd);
    l->fd = -1;
    l->writing = false;
}

struct link *
link_new(struct node *n, bool alone)
{
    struct redis *r = n->side->r;
    struct link *l = calloc(1, sizeof *l);

    if (l == NULL || (l->resp = resp_new(r->conf.reply_max)) == NULL) {
        free(l);
        return NULL;
    }
    l->magic = LINK_MAGIC;
    l->node = n;
    l->alone = alone;
    l->epoch = atomic_load(&n->server->epoch);
    TAILQ_INIT(&l->waiting);
    TAILQ_INIT(&l->sent);
    assign_fd(l, -1);
    event_assign(&l->soon, loop_base(n->side->loop), -1, 0, on_soon, l);
    event_assign(&l->limit, loop_base(n->side->loop), -1, 0, on_limit, l);
    l->until_us = now_us() + r->conf.connect_ms * MS_US;
    set_limit(l, r->conf.connect_ms * MS_US);
    event_active(&l->soon, EV_TIMEOUT, 0);
    TAILQ_INSERT_TAIL(&n->links, l, at);
    *(alone ? &n->nalone : &n->nlinks) += 1;
    COUNT(redis_connects);
    return l;
}

static void
enter(struct link *l)
{
    CHECK(l, LINK_MAGIC);
    l->hold++;
}

static void
leave(struct link *l)
{
    CHECK(l, LINK_MAGIC);
    if (--l->hold > 0 || l->state != LINK_OVER)
        return;
    l->magic = 0;
    free(l);
}

/* Out of everything; its asks are still in its lists. The caller holds it. */
static void
shut(struct link *l)
{
    struct node *n = l->node;

    l->state = LINK_OVER;
    TAILQ_REMOVE(&n->links, l, at);
    *(l->alone ? &n->nalone : &n->nlinks) -= 1;
    if (l->dns != NULL)
        evdns_getaddrinfo_cancel(l->dns);
    if (l->ssl != NULL)
        SSL_free(l->ssl);
    l->ssl = NULL;
    close_fd(l);
    event_del(&l->soon);
    event_del(&l->limit);
    buf_free(&l->out);
    resp_free(&l->resp);
}

void
link_fail(struct link *l, enum redis_cause c, unsigned weight, const char *why)
{
    struct asks dying = TAILQ_HEAD_INITIALIZER(dying);
    bool made = l->state == LINK_READY;
    struct node *n = l->node;
    struct redis_ask *a;
    struct link *heir;

    if (l->state == LINK_OVER)
        return;
    enter(l);
    if (c == REDIS_CLOSED && !made)
        weight = BREAKER_FAILURES;
    shut(l);
    TAILQ_CONCAT(&dying, &l->sent, at);
    TAILQ_CONCAT(&dying, &l->waiting, at);
    TAILQ_FOREACH(a, &dying, at) {
        a->state = ASK_OVER;            /* redis_cancel leaves it to us */
        a->link = NULL;
    }
    heir = made ? NULL : node_heir(n, l, c);
    if (heir == NULL)
        node_link_failed(n, l, weight, c, why);
    if (l->sub != NULL)
        sub_lost(l->sub);
    while ((a = TAILQ_FIRST(&dying)) != NULL) {
        TAILQ_REMOVE(&dying, a, at);
        if (heir != NULL)
            link_send(heir, a);
        else
            ask_finish(a, n->server, c, NULL);
    }
    leave(l);
}

void
link_quit(struct link *l)
{
    if (l->state == LINK_OVER)
        return;
    assert(l->nasks == 0);
    enter(l);
    shut(l);
    if (l->sub != NULL)
        sub_lost(l->sub);
    leave(l);
}

void
link_abandon(struct link *l)
{
    struct redis_ask *a;

    l->hold = 0;
    enter(l);
    while ((a = TAILQ_FIRST(&l->sent)) != NULL || (a = TAILQ_FIRST(&l->waiting)) != NULL) {
        link_forget(l, a);
        ask_free(a);
    }
    shut(l);
    leave(l);
}

void
link_retire(struct link *l)
{
    l->retired = true;
    if (l->nasks == 0)
        link_quit(l);
}

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
        next_address(l);
    leave(l);
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

static void
resolve(struct link *l)
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
        next_address(l);
        return;
    }
    dns = side_dns(l->node->side);
    if (dns == NULL) {
        no_name(l, "out of memory");
        return;
    }
    enter(l);                           /* until on_name, which may come from inside */
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
    assign_fd(l, fd);
    if (connect(fd, (const struct sockaddr *)ss, len) == 0 || errno == EINPROGRESS)
        return event_add(&l->wr, NULL);
    return -1;
}

static void
next_address(struct link *l)
{
    char why[128];

    l->state = LINK_CONNECTING;
    while (l->next < l->naddresses) {
        int64_t left = l->until_us - now_us();

        if (left > 0 && connect_to(l, &l->addresses[l->next++]) == 0) {
            set_limit(l, left / (int64_t)(l->naddresses - l->next + 1));
            return;
        }
        l->error = left > 0 ? errno : ETIMEDOUT;
        close_fd(l);
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

static void
write_ask(struct link *l, struct redis_ask *a)
{
    a->state = ASK_SENT;
    a->sent_us = now_us();
    TAILQ_INSERT_TAIL(&l->sent, a, at);
    if (a->asking)
        link_write(l, ASKING, sizeof ASKING - 1);
    a->skip = a->asking;
    link_write(l, a->bytes, a->n);
    atomic_fetch_add_explicit(&l->node->server->asked, 1, memory_order_relaxed);
    COUNT(redis_commands);
}

static void
ready(struct link *l)
{
    struct redis_ask *a;

    l->state = LINK_READY;
    set_limit(l, IDLE_US);
    while ((a = TAILQ_FIRST(&l->waiting)) != NULL) {
        TAILQ_REMOVE(&l->waiting, a, at);
        write_ask(l, a);
    }
    node_link_ready(l);
    if (l->sub != NULL)
        sub_ready(l->sub);
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

static void
greeted(struct link *l, const struct redis_reply *r)
{
    enum greet g = l->greets[l->greeted++];
    enum redis_cause c = judge(g, r);
    char why[160];

    if (c == REDIS_OK) {
        if (l->greeted == l->ngreets)
            ready(l);
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

/* ---- answers ----------------------------------------------------------------------------- */

static void
answered(struct link *l, const struct redis_reply *r)
{
    struct redis_ask *a = TAILQ_FIRST(&l->sent);
    struct server *s = l->node->server;
    enum redis_cause c = cause_of(r);

    if (a == NULL) {
        link_fail(l, REDIS_PROTOCOL, 1, "answered what nobody had asked");
        return;
    }
    if (a->skip) {                      /* the answer to its ASKING */
        a->skip = false;
        return;
    }
    link_forget(l, a);
    if (c == REDIS_CLUSTER && cluster_redirect(a, l->node, r))
        return;
    if (c == REDIS_READONLY && s->role == ROLE_MASTER) {
        topology_stale(l->node->side);  /* it was one */
        link_retire(l);
    }
    if (c == REDIS_LOADING) {
        if (server_failed(s, BREAKER_FAILURES, c, "is loading its data"))
            node_probe(l->node);
    } else if (!a->late) {
        server_well(s);
    }
    if (c != REDIS_OK && c != REDIS_OTHER && c != REDIS_LOADING)
        server_said(s, c, r->text);
    ask_finish(a, s, c, r);
}

static void
take_replies(struct link *l)
{
    struct redis_reply *r = NULL;
    int rc = 0;

    while (l->state != LINK_OVER && (rc = resp_next(l->resp, &r)) == 1) {
        if (l->state == LINK_GREETING)
            greeted(l, r);
        else if (l->sub != NULL)
            sub_reply(l->sub, r);
        else
            answered(l, r);
        reply_free(&r);
    }
    if (l->state != LINK_OVER && rc == -1)
        link_fail(l, REDIS_PROTOCOL, 1, resp_error(l->resp));
}

static void
ended(struct link *l, bool broken)
{
    char why[160] = "closed the connection";

    if (broken && l->ssl != NULL)
        wire_why(l, why, sizeof why);   /* TLS 1.3: what is wrong with our certificate comes late */
    if (l->nasks == 0 && l->state == LINK_READY)
        link_quit(l);                   /* the server may close what idles */
    else
        link_fail(l, REDIS_CLOSED, 1, why);
}

static void
read_some(struct link *l)
{
    static _Thread_local char bytes[READ_BYTES];

    for (int i = 0; i < READS && l->state >= LINK_GREETING && l->state != LINK_OVER; i++) {
        ssize_t n = wire_read(l, bytes, sizeof bytes);

        if (n == WIRE_MORE)
            return;
        if (n < 0) {
            ended(l, n == WIRE_BROKEN);
            return;
        }
        l->alive_us = now_us();
        l->pinged = false;
        if (resp_feed(l->resp, bytes, (size_t)n) == -1)
            link_fail(l, REDIS_PROTOCOL, 1, resp_error(l->resp));
        else
            take_replies(l);
    }
    if (l->state == LINK_READY && l->ssl != NULL && SSL_pending(l->ssl) > 0)
        event_active(&l->rd, EV_READ, 0);       /* what OpenSSL has read shows in no socket */
}

/* ---- commands ---------------------------------------------------------------------------- */

void
link_write(struct link *l, const void *bytes, size_t n)
{
    if (l->out_off > OUT_KEEP && l->out_off > l->out.n / 2) {
        memmove(l->out.p, l->out.p + l->out_off, l->out.n - l->out_off);
        l->out.n -= l->out_off;
        l->out_off = 0;
    }
    buf_add(&l->out, bytes, n);
    if (!l->writing && !l->flushing)
        event_active(&l->soon, EV_TIMEOUT, 0);
    l->flushing = true;
}

void
link_send(struct link *l, struct redis_ask *a)
{
    a->link = l;
    l->nasks++;
    if (l->state == LINK_READY) {
        write_ask(l, a);
    } else {
        a->state = ASK_WAITING;
        TAILQ_INSERT_TAIL(&l->waiting, a, at);
    }
}

void
link_forget(struct link *l, struct redis_ask *a)
{
    if (a->state == ASK_WAITING)
        TAILQ_REMOVE(&l->waiting, a, at);
    else
        TAILQ_REMOVE(&l->sent, a, at);
    a->state = ASK_OVER;
    a->link = NULL;
    l->nasks--;
}

static void
flush(struct link *l)
{
    l->flushing = false;
    while (!l->out.failed && l->out_off < l->out.n) {
        ssize_t n = wire_write(l, l->out.p + l->out_off, l->out.n - l->out_off);

        if (n == WIRE_MORE)
            break;
        if (n < 0) {
            ended(l, n == WIRE_BROKEN);
            return;
        }
        l->out_off += (size_t)n;
    }
    if (l->out.failed) {
        link_fail(l, REDIS_FULL, 0, "memory is out");
        return;
    }
    if (l->out_off < l->out.n) {
        if (!l->writing && event_add(&l->wr, NULL) == 0)
            l->writing = true;
        return;
    }
    if (l->writing)
        event_del(&l->wr);
    l->writing = false;
    l->out.n = l->out_off = 0;
    if (l->out.cap > OUT_KEEP)
        buf_free(&l->out);
}

/* ---- events ------------------------------------------------------------------------------ */

static void
secure(struct link *l)
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

static void
connected(struct link *l)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1)
        error = errno;
    event_del(&l->wr);
    if (error != 0) {
        close_fd(l);
        l->error = error;
        next_address(l);
        return;
    }
    set_limit(l, l->until_us - now_us());
    if (l->node->side->r->tls == NULL) {
        greet(l);
        return;
    }
    l->state = LINK_SECURING;
    event_add(&l->rd, NULL);
    if (wire_secure(l))
        secure(l);
    else
        link_fail(l, REDIS_REFUSED, 0, "TLS: memory is out");
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;

    (void)fd;
    (void)what;
    enter(l);
    if (l->state == LINK_SECURING)
        secure(l);
    read_some(l);
    if (l->state >= LINK_GREETING && l->state != LINK_OVER && l->out_off < l->out.n)
        flush(l);                       /* OpenSSL may have had to read first */
    if (l->retired && l->nasks == 0)
        link_quit(l);
    leave(l);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;

    (void)fd;
    (void)what;
    enter(l);
    if (l->state == LINK_CONNECTING) {
        connected(l);
    } else if (l->state == LINK_SECURING) {
        secure(l);
    } else if (l->state != LINK_OVER) {
        l->alive_us = now_us();         /* it takes what we send */
        flush(l);
    }
    leave(l);
}

static void
on_soon(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;

    (void)fd;
    (void)what;
    enter(l);
    if (l->state == LINK_RESOLVING && l->dns == NULL)
        resolve(l);
    else if (l->state == LINK_GREETING || l->state == LINK_READY)
        flush(l);
    leave(l);
}

/* Nobody used it for a while: is it still there? */
static void
ask_idle(struct link *l)
{
    struct slice ping = SLICE("PING");
    struct redis_command c = { .argv = &ping, .argc = 1,
        .within_us = l->node->side->r->conf.connect_ms * MS_US };
    struct redis_ask *a;

    if (l->sub != NULL) {
        link_write(l, "PING\r\n", 6);
        l->pinged = true;
    } else if ((a = ask_new(l->node->side, &c)) != NULL) {
        link_send(l, a);
    }
}

static void
on_limit(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    int64_t quiet = now_us() - l->alive_us;

    (void)fd;
    (void)what;
    enter(l);
    if (l->state == LINK_CONNECTING) {
        close_fd(l);
        l->error = ETIMEDOUT;
        next_address(l);
    } else if (l->state != LINK_READY) {
        link_fail(l, REDIS_TIMEOUT, BREAKER_FAILURES, l->state == LINK_RESOLVING ?
            "its name is not resolved in time" : "does not answer a new connection");
    } else if (l->pinged) {
        link_fail(l, REDIS_TIMEOUT, BREAKER_FAILURES, "did not answer in time");
    } else {
        if (l->nasks == 0 && quiet >= IDLE_US)
            ask_idle(l);
        set_limit(l, l->pinged ? l->node->side->r->conf.connect_ms * MS_US :
            quiet < IDLE_US ? IDLE_US - quiet : IDLE_US);
    }
    leave(l);
}
