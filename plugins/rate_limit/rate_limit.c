/*
 * rate_limit -- lets in so many requests of each client, key or whatever else, and says 429 to
 * more.
 *
 * Model    a token bucket for each of whom `key` tells apart (bucket.h): `burst` requests at once,
 *          and `rate` in the long run. A request that is refused costs nothing, is told when to
 *          come again (Retry-After), and does not wait here: a queue at the proxy looks to its
 *          clients like a slow origin. Every answer tells what is left, as RateLimit and
 *          RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10), beside what an origin says
 *          there of limits of its own. Answers from cache count like all others.
 *          Where `cache.redis` is configured the limit is that of all instances together: each
 *          takes portions of a bucket in Redis and spends them by itself (shared.c), so that few
 *          requests wait for a round trip, and without Redis each goes on by itself.
 *          Who is who is known here by a hash alone. The table has a fixed size; a reload keeps it.
 * Threads  hooks of any worker meet at a bucket, under the lock of a 64th of the table.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <openssl/sha.h>

#include "plugins/rate_limit/rate_limit.h"

#define ROUNDS_MAX 8                    /* of waiting, before a request is decided here */
#define NAME_MAX_N 64                   /* of a policy */

/* The first of both tables of options. */
enum { RATE, BURST, KEY, DRY_RUN, OF_BOTH, FIELDS = OF_BOTH, SHARED, BUCKETS };

enum part_kind { OF_CLIENT, OF_ROUTE, OF_HOST, OF_HEADER, OF_PARAM };
struct part { enum part_kind kind; const char *name; };

struct plugin {
    struct weir_self *self;
    const struct weir_value *values;    /* the configuration's */
    int shared, fields;
    struct route *routes;               /* with buckets of their own, the oldest first */
};

struct route {
    struct route *next;
    struct limit limit;
    int dry_run;
    struct part *parts;                 /* owned */
    size_t nparts;
    unsigned char scope[SHA256_DIGEST_LENGTH];      /* whose buckets these are */
    char name[2 * NAME_MAX_N + 3], policy[2 * NAME_MAX_N + 64];     /* of the policy; its field */
};

const struct weir_host *host;
struct buckets *buckets;
static size_t nbuckets;
static struct weir_counter *allowed, *refused, *dry_refused, *fallback, *evictions;

int64_t
clock_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- who it is ------------------------------------------------------------------------------- */

/* An IPv6 client has a whole /64 to choose addresses from. */
static struct weir_text
network_of(struct weir_text client, struct in6_addr *room)
{
    static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };
    char text[INET6_ADDRSTRLEN] = "";

    if (client.n >= sizeof text || memchr(client.p, ':', client.n) == NULL)
        return client;
    memcpy(text, client.p, client.n);
    if (inet_pton(AF_INET6, text, room) != 1)
        return client;
    if (memcmp(room, mapped, sizeof mapped) != 0)
        return (struct weir_text){ (const char *)room, 8 };
    inet_ntop(AF_INET, (const char *)room + sizeof mapped, text, sizeof text);
    return (struct weir_text){ memcpy(room, text, 16), strlen(text) };
}

/* .p NULL: the request has it not. */
static struct weir_text
value_of(const struct part *part, struct weir_request *r, struct in6_addr *room)
{
    switch (part->kind) {
    case OF_CLIENT: return network_of(host->fact(r, WEIR_CLIENT), room);
    case OF_ROUTE:  return host->fact(r, WEIR_ROUTE);
    case OF_HOST:   return host->fact(r, WEIR_HOST);
    case OF_HEADER: return host->field(r, WEIR_OF_REQUEST, part->name, 0);
    case OF_PARAM:  return host->param(r, part->name);
    }
    return (struct weir_text){ NULL, 0 };
}

/* Hash of what was before, the kind, and the hash of the value: none can be put in place of
 * others. */
static void
add_part(unsigned char *id, enum part_kind kind, struct weir_text value)
{
    unsigned char all[2 * SHA256_DIGEST_LENGTH + 1];

    memcpy(all, id, SHA256_DIGEST_LENGTH);
    all[SHA256_DIGEST_LENGTH] = (unsigned char)kind;
    SHA256((const unsigned char *)value.p, value.n, all + SHA256_DIGEST_LENGTH + 1);
    SHA256(all, sizeof all, id);
}

/* One that lacks a field or parameter is its client instead: neither free, nor one with all others
 * that lack it. */
static void
id_of(const struct route *its, struct weir_request *r, unsigned char *id)
{
    static const struct part client = { OF_CLIENT, NULL };

    memcpy(id, its->scope, SHA256_DIGEST_LENGTH);
    for (size_t i = 0; i < its->nparts; i++) {
        const struct part *part = &its->parts[i];
        struct in6_addr room;
        struct weir_text value = value_of(part, r, &room);

        if (value.p == NULL)
            value = value_of(part = &client, r, &room);
        add_part(id, part->kind, value);
    }
}

/* ---- what is answered ------------------------------------------------------------------------ */

static uint64_t
seconds(int64_t us)                     /* whole ones, at least one */
{
    return us <= 1000000 ? 1 : (uint64_t)(us + 999999) / 1000000;
}

static void
set(struct weir_request *r, int add, const char *name, const char *value)
{
    struct weir_text text = { value, strlen(value) };

    if (add)
        host->add_field(r, WEIR_OF_RESPONSE, name, text);
    else
        host->set_field(r, WEIR_OF_RESPONSE, name, text);
}

/* `t`: while r is left, how long that lasts at the rate, so that who takes r/t for the rate is
 * right (the draft's 6.4 wants no more to be read out of it); then, when there is one again. */
static void
tell(const struct route *its, struct weir_request *r, const struct verdict *v)
{
    char text[sizeof its->name + 64];

    snprintf(text, sizeof text, "%s;r=%u;t=%llu", its->name, v->left, (unsigned long long)seconds(
        v->left > 0 ? v->left * its->limit.each_us : v->wait_us));
    set(r, 1, "RateLimit-Policy", its->policy);
    set(r, 1, "RateLimit", text);
}

static int
answer(const struct plugin *p, const struct route *its, struct weir_request *r,
    const struct verdict *v)
{
    char text[100], again[24];

    if (its->dry_run) {
        host->count(v->answer == LET_IN ? allowed : dry_refused, 1);
        return WEIR_NEXT;
    }
    if (p->fields)
        tell(its, r, v);
    host->count(v->answer == LET_IN ? allowed : refused, 1);
    if (v->answer == LET_IN)
        return WEIR_NEXT;
    snprintf(again, sizeof again, "%llu", (unsigned long long)seconds(v->wait_us));
    snprintf(text, sizeof text, "too many requests; the next one in %s s", again);
    set(r, 0, "Retry-After", again);
    return host->refuse(r, 429, text);
}

/* ---- a request ------------------------------------------------------------------------------- */

/* The bucket is locked. 1: the request waits, for *v is not known yet. */
static int
decide(struct bucket *b, const struct limit *l, struct weir_request *r, int shared,
    struct verdict *v, struct ask **ask)
{
    int64_t now_us = clock_us();

    *ask = NULL;
    if (shared) {
        *v = bucket_take_shared(b, l, now_us);
        if (v->answer == ASK_FIRST || v->ask_ahead)
            *ask = shared_ask(b, l, now_us);
        if (v->answer != ASK_FIRST)
            return 0;
        if (b->ask != NULL && shared_wait(b->ask, r) == 0)
            return 1;
    }
    *v = bucket_take(b, l, now_us);
    return 0;
}

static int
request(void *plugin, void *route, struct weir_request *r)
{
    const struct plugin *p = plugin;
    const struct route *its = route;
    uintptr_t *rounds = (uintptr_t *)host->slot(r);
    unsigned char id[SHA256_DIGEST_LENGTH];
    int64_t now_us = clock_us();
    int shared = p->shared && *rounds < ROUNDS_MAX && shared_may_ask(now_us), evicted, waits;
    struct verdict v;
    struct ask *ask;

    if (host->number(r, WEIR_EXPLAINED) == 1)
        return WEIR_NEXT;               /* nobody sent it: it costs nobody anything */
    id_of(its, r, id);
    waits = decide(buckets_lock(buckets, id, now_us, &evicted), &its->limit, r, shared, &v, &ask);
    buckets_unlock(buckets, id);
    if (evicted)
        host->count(evictions, 1);
    if (ask != NULL)
        shared_send(ask, p->self);
    if (waits) {
        ++*rounds;
        return WEIR_SUSPENDED;
    }
    if (p->shared && !shared)
        host->count(fallback, 1);
    return answer(p, its, r, &v);
}

static void
tick(void *plugin)
{
    const struct plugin *p = plugin;

    shared_tick(p->self);
}

/* ---- options --------------------------------------------------------------------------------- */

/* -1: it is none. */
static int
part_of(const char *text, struct part *part)
{
    static const struct { const char *word; enum part_kind kind; } words[] = {
        { "client", OF_CLIENT }, { "route", OF_ROUTE }, { "host", OF_HOST },
        { "header:", OF_HEADER }, { "param:", OF_PARAM } };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t n = strlen(words[i].word);
        int named = words[i].word[n - 1] == ':';

        if (strncmp(text, words[i].word, n) == 0 && (text[n] != '\0') == named) {
            *part = (struct part){ words[i].kind, text + n };
            return 0;
        }
    }
    return -1;
}

static int
parts_of(const struct weir_value *key, struct route *its, struct weir_self *self)
{
    char text[200];

    its->parts = calloc(key->ntexts + 1, sizeof *its->parts);
    if (its->parts == NULL) {
        host->complain(self, NULL, "out of memory");
        return -1;
    }
    for (; its->nparts < key->ntexts; its->nparts++)
        if (part_of(key->texts[its->nparts].p, &its->parts[its->nparts]) == -1) {
            snprintf(text, sizeof text, "%.100s is not known; client, route, host, header:NAME or "
                "param:NAME", key->texts[its->nparts].p);
            host->complain(self, "key", text);
            return -1;
        }
    return 0;
}

/* As many as the rate names in its own unit: 100/m has room for 100. */
static uint32_t
burst_of(const struct weir_value *rate)
{
    unsigned long long n = strtoull(rate->text.p, NULL, 10);

    return n < BURST_MAX ? (uint32_t)n : BURST_MAX;
}

/* A string of structured fields (RFC 9651 3.3.3), and the policy's field. */
static void
name_policy(struct route *its, const char *name)
{
    char *to = its->name;

    *to++ = '"';
    for (size_t i = 0; name[i] != '\0' && i < NAME_MAX_N; i++) {
        if (name[i] == '"' || name[i] == '\\')
            *to++ = '\\';
        *to++ = name[i] >= ' ' && name[i] <= '~' ? name[i] : '_';
    }
    *to++ = '"';
    snprintf(its->policy, sizeof its->policy, "%s;q=%u;w=%llu", its->name, its->limit.burst,
        (unsigned long long)seconds(its->limit.each_us * its->limit.burst));
}

/* Routes without a name have that of their path: one for each method, say. The second's is another,
 * and the same after a reload. */
static void
own_scope(struct plugin *p, struct route *its)
{
    struct route **at = &p->routes;

    for (; *at != NULL; at = &(*at)->next)
        if (memcmp((*at)->scope, its->scope, sizeof its->scope) == 0)
            SHA256(its->scope, sizeof its->scope, its->scope);
    *at = its;
}

/* What the route says itself goes before what the plugin's options say. */
static int
route_of(struct plugin *p, struct weir_self *self, const char *name,
    const struct weir_value *values, struct route *its)
{
    const struct weir_value *of[OF_BOTH];
    int own = 0;

    for (size_t i = 0; i < OF_BOTH; i++) {
        of[i] = values[i].given ? &values[i] : &p->values[i];
        own |= values[i].given && i != DRY_RUN;
    }
    if (!of[RATE]->set) {
        host->complain(self, "rate", "missing; as 10/s or 100/m, here or in the plugin's options");
        return -1;
    }
    its->limit.each_us = (int64_t)of[RATE]->number;
    if (of[BURST]->set && (values[BURST].given || !values[RATE].given))
        its->limit.burst = (uint32_t)of[BURST]->number;
    else
        its->limit.burst = burst_of(of[RATE]);
    its->dry_run = (int)of[DRY_RUN]->number;
    SHA256((const unsigned char *)name, own ? strlen(name) : 0, its->scope);
    if (own)
        own_scope(p, its);
    name_policy(its, own ? name : "default");
    return parts_of(of[KEY], its, self);
}

/* ---- open and close -------------------------------------------------------------------------- */

/* Once for the process. */
static int
open_buckets(const struct plugin *p)
{
    size_t n = (size_t)p->values[BUCKETS].number;
    uint64_t seed[2] = { 0 };

    if (buckets != NULL) {
        if (n != nbuckets)
            host->log(p->self, WEIR_LOG_WARN, "another number of `buckets` needs a restart");
        return 0;
    }
    if (getrandom(seed, sizeof seed, 0) != sizeof seed || (buckets = buckets_new(n, seed)) == NULL)
        return -1;
    nbuckets = n;
    return 0;
}

/* Once: at a reload hooks read them. */
static void
name_counters(const struct weir_host *h, struct weir_self *self)
{
    host = h;
    allowed = h->counter(self, "rate_limit_allowed", "Requests within their limit.");
    refused = h->counter(self, "rate_limit_refused", "Requests that got 429.");
    dry_refused = h->counter(self, "rate_limit_dry_run",
        "Requests over their limit that passed, for it is tried out.");
    fallback = h->counter(self, "rate_limit_fallback",
        "Requests decided by this instance alone, for Redis did not answer.");
    evictions = h->counter(self, "rate_limit_evicted",
        "Buckets forgotten before they were full: `buckets` is too small.");
    shared_open(self);
}

static int
open_plugin(const struct weir_host *h, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    int has_redis = WEIR_HAS(h, redis) && h->redis(self, NULL, 0, 0, 0, NULL, NULL) == 0;
    struct plugin *p = malloc(sizeof *p);
    struct route trial = { .parts = NULL };
    int rc = 0;

    if (host == NULL)
        name_counters(h, self);
    if (p != NULL)
        *p = (struct plugin){ self, values, values[SHARED].number && has_redis,
            (int)values[FIELDS].number, NULL };
    if (p == NULL || open_buckets(p) == -1) {
        h->complain(self, NULL, "out of memory");
        rc = -1;
    } else if (values[SHARED].given && values[SHARED].number && !has_redis) {
        h->complain(self, "shared", "there is nothing to share through; needs cache.redis.url");
        rc = -1;
    } else {
        rc = parts_of(&values[KEY], &trial, self);
    }
    free(trial.parts);
    if (rc == -1)
        free(p);
    else
        *out = p;
    return rc;
}

static void
close_plugin(void *plugin)
{
    free(plugin);
}

static void
route_close(void *plugin, void *route)
{
    struct plugin *p = plugin;
    struct route *its = route, **at = &p->routes;

    while (*at != NULL && *at != its)
        at = &(*at)->next;
    if (*at != NULL)
        *at = its->next;
    free(its->parts);
    free(its);
}

static int
route_open(void *plugin, struct weir_self *self, const char *name,
    const struct weir_value *values, void **out)
{
    struct route *its = calloc(1, sizeof *its);

    if (its == NULL) {
        host->complain(self, NULL, "out of memory");
        return -1;
    }
    if (route_of(plugin, self, name, values, its) == -1) {
        route_close(plugin, its);
        return -1;
    }
    *out = its;
    return 0;
}

static const struct weir_option options[] = {
    { "rate", WEIR_RATE, 0, NULL, NULL, NULL, NULL,
      "Requests that are let in in the long run: 10/s, 100/m, 1000/h. They come free one by one, "
      "at even times." },
    { "burst", WEIR_COUNT, 0, NULL, "1", "1000000", NULL,
      "Requests that are let in at once after a pause; the number of the rate unless said." },
    { "key", WEIR_TEXTS, 0, "client", NULL, NULL, NULL,
      "Who has a bucket of their own: each client (its address, of IPv6 the /64), route, host, "
      "header:NAME or param:NAME of the path; of several, each combination. Who lacks the field is "
      "told apart by the address." },
    { "dry_run", WEIR_BOOL, 0, "false", NULL, NULL, NULL,
      "Counts what it would refuse, and refuses nothing." },
    { "fields", WEIR_BOOL, 0, "true", NULL, NULL, NULL,
      "Answers have RateLimit and RateLimit-Policy." },
    { "shared", WEIR_BOOL, 0, "true", NULL, NULL, NULL,
      "Limits are of all instances together where cache.redis is configured." },
    { "buckets", WEIR_COUNT, 0, "100000", "1000", "10000000", NULL,
      "Buckets that are remembered at most, of 64 bytes each. Another number needs a restart." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

static const struct weir_option route_options[] = {
    { "rate", WEIR_RATE, 0, NULL, NULL, NULL, NULL,
      "In place of the plugin's. With a rate, burst or key of its own a route has its own buckets; "
      "the others share theirs." },
    { "burst", WEIR_COUNT, 0, NULL, "1", "1000000", NULL, "In place of the plugin's." },
    { "key", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL, "In place of the plugin's." },
    { "dry_run", WEIR_BOOL, 0, NULL, NULL, NULL, NULL, "In place of the plugin's." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
    .abi = WEIR_ABI, .size = sizeof(struct weir_plugin), .name = "rate_limit", .version = "1",
    .meaning = "Limits the rate of requests of each client, or of whoever else is told apart.",
    .options = options, .route_options = route_options, .open = open_plugin,
    .close = close_plugin, .route_open = route_open, .route_close = route_close, .tick = tick,
    .request = request,
};
