/*
 * A server as all loops see it: the breaker, what is counted, what is said.
 *
 * Model    the breaker is closed while all is well. It opens at once when the server cannot be
 *          reached or greeted, hangs through a whole deadline, or is LOADING, and after
 *          BREAKER_FAILURES lesser failures in a row (a connection that ended, an answer too late).
 *          One node then probes, by a new connection, whose greeting ends with a PING; it is
 *          closed by any new connection that comes through. Connections of before it opened
 *          (`epoch`) are used no more: those that hang half-open would open it again. When it opens
 *          again before a command was answered (`proven`), the backoff goes on where it was.
 *          The log has one line when it opens, when the cause changes, and when it closes.
 */
#include "redis/inside.h"

#include <stdio.h>
#include <stdlib.h>

#define SAY_AGAIN_US (60 * SECOND_US)   /* a cause that was not met for so long is news */

static struct server *
server_new(const char *host, uint16_t port, enum role role)
{
    struct server *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    snprintf(s->host, sizeof s->host, "%s", host);
    snprintf(s->address, sizeof s->address, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host,
        port);
    s->port = port;
    s->role = role;
    return s;
}

struct server *
server_take(struct redis *r, const char *host, uint16_t port, enum role role)
{
    struct server *s;

    if (strlen(host) > HOST_MAX)
        return NULL;
    pthread_mutex_lock(&r->mtx);
    TAILQ_FOREACH(s, &r->servers, at)
        if (s->port == port && s->role == role && strcmp(s->host, host) == 0)
            break;
    if (s == NULL && (s = server_new(host, port, role)) != NULL)
        TAILQ_INSERT_TAIL(&r->servers, s, at);
    if (s != NULL)
        s->refs++;
    pthread_mutex_unlock(&r->mtx);
    return s;
}

void
server_drop(struct redis *r, struct server **sp)
{
    struct server *s = *sp;

    *sp = NULL;
    pthread_mutex_lock(&r->mtx);
    if (--s->refs == 0) {
        TAILQ_REMOVE(&r->servers, s, at);
        free(s);
    }
    pthread_mutex_unlock(&r->mtx);
}

bool
server_shut(const struct server *s)
{
    return atomic_load(&s->shut) != REDIS_OK;
}

bool
server_failed(struct server *s, unsigned weight, enum redis_cause c, const char *why)
{
    enum redis_cause well = REDIS_OK;

    if (weight == 0 || atomic_fetch_add(&s->failures, weight) + weight < BREAKER_FAILURES)
        return false;
    if (!atomic_compare_exchange_strong(&s->shut, &well, c))
        return false;
    atomic_fetch_add(&s->epoch, 1);
    atomic_store(&s->shut_us, now_us());
    log_warn("redis %s: %s (%s); not asked until it answers a probe", s->address, why,
        redis_cause_name(c));
    return true;
}

void
server_well(struct server *s)
{
    if (!atomic_load_explicit(&s->proven, memory_order_relaxed))
        atomic_store(&s->proven, true);
    if (atomic_load_explicit(&s->failures, memory_order_relaxed) != 0 && !server_shut(s))
        atomic_store(&s->failures, 0);
}

void
server_probed(struct server *s)
{
    enum redis_cause was = atomic_exchange(&s->shut, REDIS_OK);

    if (was == REDIS_OK)
        return;
    atomic_store(&s->failures, 0);
    log_info("redis %s: answers again, after %.1f s", s->address,
        (double)(now_us() - atomic_load(&s->shut_us)) / 1e6);
}

void
server_still_shut(struct server *s, enum redis_cause c, const char *why)
{
    enum redis_cause was = atomic_load(&s->shut);

    if (was == c || was == REDIS_OK || !atomic_compare_exchange_strong(&s->shut, &was, c))
        return;
    log_warn("redis %s: now %s (%s)", s->address, why, redis_cause_name(c));
}

void
server_said(struct server *s, enum redis_cause c, struct slice text)
{
    int64_t now = now_us(), last = atomic_exchange(&s->said_us[c], now);

    if (last == 0 || now - last > SAY_AGAIN_US)
        log_warn("redis %s: answers %.*s", s->address, (int)(text.n < 200 ? text.n : 200), text.p);
}
