/*
 * Which server gets a request, which one is out, how many retries there may be.
 *
 * Model    round robin begins each choice one further; least-connections takes the server with the
 *          fewest requests on it. A server with a free permit goes before a full one. After
 *          eject_errors failures in a row a server is out for eject_for, doubled with each
 *          repetition up to ten times that; then one request probes it while the others stay away.
 *          The last server in service is never taken out.
 *          The retry budget counts requests and retries of the last ten seconds.
 * Threads  any; atomics, and the upstream's mutex to take a server out.
 */
#include "upstream/internal.h"

#define EJECT_TIMES_MAX 10              /* of eject.for */
#define RETRIES_FREE    3               /* a second, whatever the budget */

/* ---- choosing ---------------------------------------------------------------------------- */

/* Its time is up, and we are the first to see it. */
static bool
begin_probe(struct server *s, int64_t now)
{
    bool no = false;

    if (now < atomic_load(&s->out_until_us))
        return false;
    return atomic_compare_exchange_strong(&s->probing, &no, true);
}

static bool
better(const struct origin *o, struct server *a, struct server *b)
{
    bool full_a = atomic_load(&a->busy) >= atomic_load(&a->max);
    bool full_b = atomic_load(&b->busy) >= atomic_load(&b->max);

    if (full_a != full_b)
        return full_b;
    return o->balance == BALANCE_LEAST_CONNECTIONS && atomic_load(&a->busy) < atomic_load(&b->busy);
}

static bool
in_set(uint64_t set, size_t i)
{
    return i < 64 && (set >> i & 1);
}

struct server *
balance_choose(struct origin *o, uint64_t tried, unsigned *index, bool *probe)
{
    size_t start, best = SIZE_MAX, again = SIZE_MAX;
    int64_t now;

    *probe = false;
    *index = 0;
    if (o->n == 1)
        return o->servers[0];
    now = now_us();
    /* A retry takes nobody's turn. */
    start = atomic_fetch_add_explicit(&o->turn, tried == 0, memory_order_relaxed) % o->n;
    for (size_t k = 0; k < o->n; k++) {
        size_t i = (start + k) % o->n;
        struct server *s = o->servers[i];

        if (atomic_load(&s->out_until_us) != 0) {
            if (in_set(tried, i) || !begin_probe(s, now))
                continue;
            *probe = true;
            *index = (unsigned)i;
            return s;
        }
        if (in_set(tried, i))
            again = i;
        else if (best == SIZE_MAX || better(o, s, o->servers[best]))
            best = i;
    }
    if (best == SIZE_MAX)
        best = again != SIZE_MAX ? again : start;
    *index = (unsigned)best;
    return o->servers[best];
}

bool
balance_another(const struct origin *o, uint64_t tried)
{
    int64_t now = now_us();

    for (size_t i = 0; i < o->n; i++) {
        const struct server *s = o->servers[i];
        int64_t out_until = atomic_load(&s->out_until_us);

        if (!in_set(tried, i) &&
            (out_until == 0 || (now >= out_until && !atomic_load(&s->probing))))
            return true;
    }
    return false;
}

/* ---- ejection ---------------------------------------------------------------------------- */

static void
take_out(struct origin *o, struct server *s)
{
    unsigned times = 1u << (atomic_load(&s->ejections) < 4 ? atomic_load(&s->ejections) : 4);
    int64_t for_us;
    bool other = false, already;

    for_us = o->eject_for_us * (times < EJECT_TIMES_MAX ? times : EJECT_TIMES_MAX);
    pthread_mutex_lock(&o->u->mtx);
    already = atomic_load(&s->out_until_us) != 0 && !atomic_load(&s->probing);
    for (size_t i = 0; i < o->n; i++)
        other = other || (o->servers[i] != s && atomic_load(&o->servers[i]->out_until_us) == 0);
    if (other && !already) {
        atomic_fetch_add(&s->ejections, 1);
        atomic_store(&s->out_until_us, now_us() + for_us);
        atomic_store(&s->probing, false);
    } else if (!other) {                /* what was a probe brings the last one back */
        atomic_store(&s->out_until_us, 0);
        atomic_store(&s->probing, false);
    }
    pthread_mutex_unlock(&o->u->mtx);
    if (!other || already)
        return;
    COUNT(origin_ejections);
    log_warn("origin %s: %s is out for %lld ms after %u failures in a row", s->origin_id, s->text,
        (long long)(for_us / 1000), atomic_load(&s->fails));
}

static void
put_back(struct server *s)
{
    atomic_store(&s->ejections, 0);
    atomic_store(&s->out_until_us, 0);
    atomic_store(&s->probing, false);
    log_info("origin %s: %s is back", s->origin_id, s->text);
}

void
balance_result(struct origin *o, struct server *s, enum server_result r, bool probe)
{
    unsigned fails;

    switch (r) {
    case SERVER_WORKS:
        if (UNLIKELY(atomic_load_explicit(&s->fails, memory_order_relaxed) != 0))
            atomic_store(&s->fails, 0);
        if (probe)
            put_back(s);
        break;
    case SERVER_FAILED:
        fails = atomic_fetch_add(&s->fails, 1) + 1;
        if (probe || (o->eject_errors > 0 && fails >= o->eject_errors))
            take_out(o, s);
        break;
    case SERVER_UNKNOWN:
        if (probe)
            atomic_store(&s->probing, false);
        break;
    }
}

/* ---- the retry budget -------------------------------------------------------------------- */

/* The cell of this second, emptied when it was an older one's. */
static size_t
cell(struct budget *b, int64_t second)
{
    size_t i = (size_t)(second % BUDGET_SECONDS);
    int64_t was = atomic_load_explicit(&b->at[i].second, memory_order_relaxed);

    if (was != second && atomic_compare_exchange_strong(&b->at[i].second, &was, second)) {
        atomic_store(&b->at[i].requests, 0);
        atomic_store(&b->at[i].retries, 0);
    }
    return i;
}

void
budget_request(struct budget *b, int64_t now)
{
    atomic_fetch_add_explicit(&b->at[cell(b, now / SECOND_US)].requests, 1, memory_order_relaxed);
}

bool
budget_retry(struct budget *b, double share, int64_t now)
{
    int64_t second = now / SECOND_US;
    size_t i = cell(b, second);
    uint64_t requests = 0, retries = 0;

    for (size_t k = 0; k < BUDGET_SECONDS; k++) {
        if (atomic_load(&b->at[k].second) <= second - BUDGET_SECONDS)
            continue;
        requests += atomic_load(&b->at[k].requests);
        retries += atomic_load(&b->at[k].retries);
    }
    if (atomic_fetch_add(&b->at[i].retries, 1) < RETRIES_FREE ||
        (double)retries < share * (double)requests)
        return true;
    atomic_fetch_sub(&b->at[i].retries, 1);
    return false;
}
