/*
 * What a route says of a request before anything is looked up: may the cache be asked?
 *
 * Model    the route's policy, its promises (`cache_methods`), then the request's own word
 *          (semantics/), then what no cache has an answer to. Requests and explanations decide
 *          here.
 * Threads  pure functions.
 */
#include "route/route.h"

#include "http/http.h"

static bool
forbids(struct sem_trace *t, const char *word, bool it)
{
    if (t != NULL && t->n < SEM_STEPS_MAX)
        t->at[t->n++] = (struct sem_step){ word, it ? SEM_FORBIDS : SEM_ALLOWS, -1, -1 };
    return it;
}

static bool
promises(const struct conf_route *c, const struct http_head *h)
{
    for (size_t i = 0; i < c->cache_methods.n && !http_method_safe(h->method); i++)
        if (slice_eq(slice_of(c->cache_methods.at[i]), h->method_name))
            return c->policy != POLICY_PASS;
    return false;
}

enum route_ask
route_asks(const struct route *r, const struct http_head *h, bool has_body, struct sem_request *rq,
    const char **why, struct sem_trace *t)
{
    sem_request_read(h, rq);
    if (promises(r->conf, h))
        rq->content = rq->promised = true;
    if (forbids(t, "pass", r->conf->policy == POLICY_PASS))
        *why = "pass";
    else if (!sem_request_weigh(rq, why, t))
        return ROUTE_ASKS_NOT;
    else if (forbids(t, "request-body", has_body && !rq->content))
        *why = "request-body";
    else if (forbids(t, "upgrade", (h->flags & HTTP_UPGRADING) != 0))
        *why = "upgrade";
    else
        return ROUTE_ASKS;
    return ROUTE_BYPASSES;
}

bool
route_in_blocks(const struct route *r, const struct http_head *h, const struct sem_request *rq,
    struct http_range_spec *spec)
{
    return r->conf->range_block > 0 && h->method == HTTP_GET && rq->range && !rq->conditional &&
        (rq->cc.flags & (CC_NO_CACHE | CC_ONLY_IF_CACHED)) == 0 &&
        http_range_asked(h, spec);
}
