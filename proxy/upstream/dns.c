/*
 * Names to addresses, without blocking: literal addresses at once, /etc/hosts, then DNS.
 *
 * Model    one resolver for the process, on the first worker's loop: an answer serves all workers,
 *          one name is asked for once however many wait, and a handful of names a minute needs
 *          no second loop. Answers are kept for their TTL, between a second and an hour. One that
 *          is used in the last tenth of its time is asked for again ahead, so that nobody waits;
 *          one that has run out makes its user wait for the fresh one, and is used after all when
 *          that cannot be had or takes its time. What is not known is remembered for a second.
 *          While anything is connected to a name it is asked again as its time runs out, used or
 *          not, and its user is told when an address has left the answer. A look-up that fails
 *          changes nothing, and one that fails for a family keeps that family's addresses. Of more
 *          addresses of a family than are kept, which rotate as a rule, none is ever missed: what
 *          the answer was cut of may be any.
 * Threads  dns_lookup and dns_cancel: any. Everything else on the resolver's loop. Entries and
 *          waiters under mtx.
 */
#include "upstream/internal.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <stdio.h>
#include <stdlib.h>

#define TTL_MIN_US  SECOND_US
#define TTL_MAX_US  (3600 * SECOND_US)
#define HOSTS_US    (10 * SECOND_US)    /* how long a line of /etc/hosts is believed */
#define FAILED_US   SECOND_US
#define PATIENCE_US (SECOND_US / 5)     /* for a fresh answer where there is an old one */

struct entry {
    struct dns      *d;                 /* borrowed */
    struct entry    *next;
    char            *name;              /* owned */
    struct loop_msg  ask;               /* posted to the resolver's loop */

    /* under dns.mtx */
    struct addrs     addrs;             /* the last good answer */
    int64_t          got_us, until_us;  /* its time */
    int64_t          failed_until_us;
    bool             asking;
    int64_t          asked_us;
    bool             ahead;             /* asked while the answer that we have was good */
    struct dns_wait *waiters;

    /* resolver's loop only */
    struct addrs     fresh;
    int64_t          ttl_us;
    int              missing;           /* answers to come: A, AAAA */
    bool             lost;              /* one of them did not come: the name may have more */
    struct deadline  again;             /* to ask when its time is up */
    bool             again_ready;
};

struct dns {
    struct loop       *loop;            /* borrowed */
    struct dns_user    user;
    struct evdns_base *base;            /* owned; made on the loop at first use */
    char             **servers;         /* owned */
    size_t             nservers;
    pthread_mutex_t    mtx;
    struct entry      *entries;
};

static void on_ask(struct loop_msg *m);

struct dns *
dns_new(struct loop *l, const struct conf_strings *servers, const struct dns_user *u)
{
    struct dns *d = calloc(1, sizeof *d);

    if (d == NULL)
        return NULL;
    d->loop = l;
    d->user = *u;
    pthread_mutex_init(&d->mtx, NULL);
    if (servers == NULL || servers->n == 0)
        return d;
    d->servers = calloc(servers->n, sizeof *d->servers);
    for (; d->servers != NULL && d->nservers < servers->n; d->nservers++)
        if ((d->servers[d->nservers] = strdup(servers->at[d->nservers])) == NULL)
            break;
    if (d->nservers < servers->n)
        dns_free(&d);
    return d;
}

void
dns_free(struct dns **dp)
{
    struct dns *d = *dp;

    *dp = NULL;
    if (d == NULL)
        return;
    if (d->base != NULL)
        evdns_base_free(d->base, 0);
    for (struct entry *e = d->entries, *next; e != NULL; e = next) {
        next = e->next;
        if (e->again_ready)
            deadline_fini(&e->again);
        free(e->name);
        free(e);
    }
    for (size_t i = 0; i < d->nservers; i++)
        free(d->servers[i]);
    free(d->servers);
    pthread_mutex_destroy(&d->mtx);
    free(d);
}

/* ---- asking ------------------------------------------------------------------------------ */

static bool
literal(const char *host, struct addrs *out)
{
    out->n = 0;
    out->cut4 = out->cut6 = false;
    if (inet_pton(AF_INET, host, out->at[0].bytes) == 1)
        out->at[0].family = AF_INET;
    else if (inet_pton(AF_INET6, host, out->at[0].bytes) == 1)
        out->at[0].family = AF_INET6;
    else
        return false;
    out->n = 1;
    return true;
}

static struct entry *
entry_get(struct dns *d, const char *host)
{
    struct entry *e = d->entries;

    while (e != NULL && strcasecmp(e->name, host) != 0)
        e = e->next;
    if (e != NULL || (e = calloc(1, sizeof *e)) == NULL)
        return e;
    e->name = strdup(host);
    if (e->name == NULL) {
        free(e);
        return NULL;
    }
    e->d = d;
    e->next = d->entries;
    d->entries = e;
    return e;
}

static void
ask(struct entry *e)                    /* under mtx */
{
    if (e->asking)
        return;
    e->asking = true;
    e->asked_us = now_us();
    e->ahead = e->asked_us < e->until_us;
    e->ask.run = on_ask;
    loop_post(e->d->loop, &e->ask);
}

/* May the answer that we have be given at once? */
static bool
usable(const struct entry *e, int64_t now)
{
    if (e->addrs.n == 0)
        return false;
    return now < e->until_us || now < e->failed_until_us ||
        (e->asking && (e->ahead || now > e->asked_us + PATIENCE_US));
}

/* When to ask so that the answer is there as the time of the last one runs out. */
static int64_t
ahead_of(int64_t until_us, int64_t ttl_us)
{
    return until_us - ttl_us / 10;
}

enum dns_answer
dns_lookup(struct dns *d, const char *host, struct dns_wait *w, struct addrs *old)
{
    enum dns_answer a = DNS_LATER;
    struct entry *e;
    int64_t now;

    if (literal(host, &w->addrs))
        return DNS_FOUND;
    w->posted = false;
    now = now_us();
    pthread_mutex_lock(&d->mtx);
    e = entry_get(d, host);
    if (e == NULL) {
        a = DNS_FAILED;
    } else if (usable(e, now)) {
        w->addrs = e->addrs;
        a = DNS_FOUND;
        if (now >= ahead_of(e->until_us, e->until_us - e->got_us) && now >= e->failed_until_us)
            ask(e);
    } else if (e->addrs.n == 0 && now < e->failed_until_us) {
        a = DNS_FAILED;
    } else {
        *old = e->addrs;
        w->next = e->waiters;
        e->waiters = w;
        ask(e);
    }
    pthread_mutex_unlock(&d->mtx);
    return a;
}

bool
dns_cancel(struct dns *d, struct dns_wait *w)
{
    bool was = false;

    if (d == NULL)                      /* the resolver is gone: nothing comes */
        return true;
    pthread_mutex_lock(&d->mtx);
    for (struct entry *e = d->entries; e != NULL && !was && !w->posted; e = e->next)
        for (struct dns_wait **at = &e->waiters; *at != NULL; at = &(*at)->next)
            if (*at == w) {
                *at = w->next;
                was = true;
                break;
            }
    pthread_mutex_unlock(&d->mtx);
    return was;
}

/* ---- answers ----------------------------------------------------------------------------- */

static void
on_wait(struct loop_msg *m)
{
    struct dns_wait *w = CONTAINER(m, struct dns_wait, msg);

    w->run(w);
}

static bool
lists(const struct addrs *in, const struct addr *a)
{
    size_t len = a->family == AF_INET ? 4 : 16;

    for (size_t i = 0; i < in->n; i++)
        if (in->at[i].family == a->family && memcmp(in->at[i].bytes, a->bytes, len) == 0)
            return true;
    return false;
}

static bool
is_cut(const struct addrs *a, uint8_t family)
{
    return family == AF_INET ? a->cut4 : a->cut6;
}

/* Is it one of theirs, or may it be among those that were cut off? */
static bool
may_list(const struct addrs *in, const struct addr *a)
{
    return is_cut(in, a->family) || lists(in, a);
}

bool
dns_has(struct dns *d, const char *host, const struct addr *a)
{
    bool has = true;                    /* literal, or never answered: it is what was told */

    pthread_mutex_lock(&d->mtx);
    for (struct entry *e = d->entries; e != NULL; e = e->next)
        if (strcasecmp(e->name, host) == 0)
            has = e->addrs.n == 0 || may_list(&e->addrs, a);
    pthread_mutex_unlock(&d->mtx);
    return has;
}

static void
add_one(struct addrs *a, const struct addr *one)
{
    if (a->n < ADDRS_MAX)
        a->at[a->n++] = *one;
    else if (one->family == AF_INET)
        a->cut4 = true;
    else
        a->cut6 = true;
}

/* One question had an answer, the other had none, not even that there is nothing: what is known of
 * that family stays. */
static void
keep_lost(struct entry *e)              /* under mtx */
{
    uint8_t have = e->fresh.n > 0 ? e->fresh.at[0].family : 0;

    for (size_t i = 0; e->lost && have != 0 && i < e->addrs.n; i++)
        if (e->addrs.at[i].family != have)
            add_one(&e->fresh, &e->addrs.at[i]);
    if (e->lost && have == AF_INET)
        e->fresh.cut6 |= e->addrs.cut6;
    else if (e->lost && have == AF_INET6)
        e->fresh.cut4 |= e->addrs.cut4;
}

/* What an answer did not show, when it was cut, may be what has left. */
static bool
one_left(const struct entry *e)
{
    const struct addrs *was = &e->addrs, *is = &e->fresh;

    if ((was->cut4 && !is->cut4) || (was->cut6 && !is->cut6))
        return true;
    for (size_t i = 0; i < was->n; i++)
        if (!may_list(is, &was->at[i]))
            return true;
    return false;
}

static void
on_again(void *arg)
{
    struct entry *e = arg;
    struct dns *d = e->d;

    if (!d->user.in_use(d->user.arg, e->name))
        return;                         /* who uses it next asks */
    pthread_mutex_lock(&d->mtx);
    ask(e);
    pthread_mutex_unlock(&d->mtx);
}

static void
ask_again(struct entry *e, int64_t at_us)
{
    if (!e->again_ready)
        deadline_init(&e->again, loop_base(e->d->loop), on_again, e);
    e->again_ready = true;
    deadline_set(&e->again, at_us);
}

static void
say_failed(const struct entry *e)
{
    static struct log_limit limit;
    struct buf who = { 0 };

    COUNT(dns_failures);
    e->d->user.users(e->d->user.arg, e->name, &who);
    log_limited(&limit, LOG_WARN, "%.*s%sthe name %s could not be resolved; %s until then",
        SLICE_ARG(buf_slice(&who)), who.n > 0 ? ": " : "", e->name, e->addrs.n > 0 ?
        "see to its DNS; the addresses that it had are used" :
        "correct it, or its DNS; its requests are answered 502");
    buf_free(&who);
}

static void
answered(struct entry *e)
{
    struct dns *d = e->d;
    int64_t now = now_us(), ttl = e->ttl_us;
    struct dns_wait *w, *next;
    bool left = false;

    ttl = ttl < TTL_MIN_US ? TTL_MIN_US : ttl > TTL_MAX_US ? TTL_MAX_US : ttl;
    pthread_mutex_lock(&d->mtx);
    e->asking = false;
    if (e->fresh.n > 0) {
        keep_lost(e);
        left = one_left(e);
        e->addrs = e->fresh;
        e->got_us = now;
        e->until_us = now + ttl;
        e->failed_until_us = 0;
    } else {
        e->failed_until_us = now + FAILED_US;
    }
    for (w = e->waiters, e->waiters = NULL; w != NULL; w = next) {
        next = w->next;
        w->addrs = e->addrs;
        w->posted = true;
        w->msg.run = on_wait;
        loop_post(w->loop, &w->msg);
    }
    pthread_mutex_unlock(&d->mtx);
    ask_again(e, e->fresh.n > 0 ? ahead_of(now + ttl, ttl) : now + FAILED_US);
    if (left)
        d->user.left(d->user.arg, e->name);
    if (e->fresh.n == 0)
        say_failed(e);
}

/* Addresses of one family go behind those that are there; IPv4 first, as it comes through most. */
static void
add_addresses(struct addrs *a, uint8_t family, const void *bytes, int count)
{
    size_t each = family == AF_INET ? 4 : 16, add, keep;

    add = (size_t)count < ADDRS_MAX / 2 ? (size_t)count : ADDRS_MAX / 2;
    if (family == AF_INET)
        a->cut4 = (size_t)count > add;
    else
        a->cut6 = (size_t)count > add;
    keep = a->n < ADDRS_MAX - add ? a->n : ADDRS_MAX - add;
    if (family == AF_INET)
        memmove(a->at + add, a->at, keep * sizeof *a->at);
    for (size_t i = 0; i < add; i++) {
        struct addr *at = &a->at[family == AF_INET ? i : keep + i];

        at->family = family;
        memcpy(at->bytes, (const char *)bytes + i * each, each);
    }
    a->n = keep + add;
}

static void
on_answer(int result, char type, int count, int ttl, void *addresses, void *arg)
{
    struct entry *e = arg;

    if (result == DNS_ERR_NONE && count > 0 && (type == DNS_IPv4_A || type == DNS_IPv6_AAAA)) {
        int64_t us = (int64_t)ttl * SECOND_US;

        add_addresses(&e->fresh, type == DNS_IPv4_A ? AF_INET : AF_INET6, addresses, count);
        e->ttl_us = us < e->ttl_us ? us : e->ttl_us;
    } else if (result != DNS_ERR_NONE && result != DNS_ERR_NODATA &&
        result != DNS_ERR_NOTEXIST) {
        e->lost = true;
    }
    if (--e->missing == 0)
        answered(e);
}

/* The lines of /etc/hosts that name it. RFC 6761 6.3: localhost needs none. */
static bool
from_hosts(struct entry *e)
{
    FILE *f = fopen("/etc/hosts", "re");
    char line[1024], *save, *addr, *name;
    struct addrs one;

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "#\r\n")] = '\0';
        addr = strtok_r(line, " \t", &save);
        if (addr == NULL || !literal(addr, &one))
            continue;
        while ((name = strtok_r(NULL, " \t", &save)) != NULL)
            if (strcasecmp(name, e->name) == 0) {
                add_one(&e->fresh, &one.at[0]);
                break;
            }
    }
    if (f != NULL)
        fclose(f);
    if (e->fresh.n == 0 && strcasecmp(e->name, "localhost") == 0) {
        literal("127.0.0.1", &e->fresh);
        literal("::1", &one);
        add_one(&e->fresh, &one.at[0]);
    }
    e->ttl_us = HOSTS_US;
    return e->fresh.n > 0;
}

static bool
start_base(struct dns *d)
{
    if (d->base != NULL)
        return true;
    d->base = evdns_base_new(loop_base(d->loop), 0);
    if (d->base == NULL)
        return false;
    if (d->nservers == 0) {
        evdns_base_resolv_conf_parse(d->base,
            DNS_OPTION_SEARCH | DNS_OPTION_NAMESERVERS | DNS_OPTION_MISC, "/etc/resolv.conf");
        return true;
    }
    evdns_base_resolv_conf_parse(d->base, DNS_OPTION_SEARCH | DNS_OPTION_MISC, "/etc/resolv.conf");
    for (size_t i = 0; i < d->nservers; i++)
        if (evdns_base_nameserver_ip_add(d->base, d->servers[i]) != 0)
            log_error("dns: %s is no address of a name server", d->servers[i]);
    return true;
}

static void
on_ask(struct loop_msg *m)
{
    struct entry *e = CONTAINER(m, struct entry, ask);
    struct dns *d = e->d;

    COUNT(dns_lookups);
    e->fresh = (struct addrs){ 0 };
    e->lost = false;
    e->ttl_us = TTL_MAX_US;
    if (from_hosts(e) || !start_base(d)) {
        answered(e);
        return;
    }
    e->ttl_us = TTL_MAX_US;
    e->missing = 3;                     /* the third is ours: answers may come at once */
    if (evdns_base_resolve_ipv4(d->base, e->name, 0, on_answer, e) == NULL)
        e->missing--;
    if (evdns_base_resolve_ipv6(d->base, e->name, 0, on_answer, e) == NULL)
        e->missing--;
    if (--e->missing == 0)
        answered(e);
}
