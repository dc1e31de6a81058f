/*
 * What an answer to a delivery means, and when to try again.
 *
 * Model    what may be repeated is decided by HTTP: a proxy does not repeat on its own account what
 *          is not idempotent (RFC 9110 9.2.2), unless the operator promises that the origin
 *          recognises repetitions by their Idempotency-Key.
 *                              may be repeated    may not
 *            2xx               delivered          delivered
 *            425 429           again              again: the origin says that it did nothing
 *            408 5xx           again              502 504: uncertain, somebody behind the origin
 *                                                 may have acted; others: rejected
 *            other 3xx 4xx     rejected           rejected
 *            not reached       again              again
 *            reached, silence  again              uncertain
 */
#include "write/policy.h"

#define DAY_MS (24 * 3600 * INT64_C(1000))

bool
policy_repeatable(enum http_method m, bool promised)
{
    return promised || http_method_idempotent(m);
}

enum write_state
policy_judge(bool repeatable, const struct policy_heard *h)
{
    if (!h->answered)
        return !h->reached || repeatable ? WRITE_WAITING : WRITE_UNCERTAIN;
    if (h->status >= 200 && h->status <= 299)
        return WRITE_DELIVERED;
    if (h->status == 425 || h->status == 429)
        return WRITE_WAITING;
    if (h->status != 408 && h->status < 500)
        return WRITE_REJECTED;
    if (repeatable)
        return WRITE_WAITING;
    return h->status == 502 || h->status == 504 ? WRITE_UNCERTAIN : WRITE_REJECTED;
}

int64_t
policy_backoff(const struct policy_retry *r)
{
    int64_t most = r->min_ms, left = r->accepted_ms + r->retry_for_ms - r->now_ms, wait;

    if ((r->attempts_max != 0 && r->attempts >= r->attempts_max) || left <= 0)
        return -1;
    for (unsigned i = 1; i < r->attempts && most < r->max_ms; i++)
        most *= 2;
    if (most > r->max_ms)
        most = r->max_ms;
    wait = most > 0 ? (int64_t)(r->random % ((uint64_t)most + 1)) : 0;
    wait = wait < left ? wait : left;   /* a last attempt, when its time is over */
    if (r->retry_after_ms <= wait)
        return wait;
    wait = r->retry_after_ms < DAY_MS ? r->retry_after_ms : DAY_MS;
    return wait <= left ? wait : -1;
}

bool
policy_unreachable(const struct exchange_fault *f)
{
    return !f->reached && strcmp(f->cause, "connection_limit_reached") != 0 &&
        strcmp(f->cause, "proxy_internal_error") != 0;
}
