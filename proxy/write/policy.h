/*
 * write/policy.h -- private to write/: what an answer to a delivery means, and when to try again.
 * Pure functions.
 */
#ifndef WEIR_WRITE_POLICY_H
#define WEIR_WRITE_POLICY_H

#include "write/write.h"

/* May it be sent again where nobody knows whether the origin acted on it (RFC 9110 9.2.2)?
 * promised: write.idempotent. */
bool policy_repeatable(enum http_method m, bool promised);

struct policy_heard {                   /* of one attempt */
    bool     answered;
    unsigned status;                    /* ... with this */
    bool     reached;                   /* not answered: the origin may have acted on it */
};
/* WRITE_DELIVERED, WRITE_WAITING (to be sent again), WRITE_REJECTED or WRITE_UNCERTAIN. */
enum write_state policy_judge(bool repeatable, const struct policy_heard *h);

struct policy_retry {
    unsigned attempts;                  /* made, with this one */
    uint64_t attempts_max;              /* 0: no limit */
    int64_t  accepted_ms, now_ms, retry_for_ms;
    int64_t  min_ms, max_ms;            /* of the backoff */
    int64_t  retry_after_ms;            /* of the answer; -1: none */
    uint64_t random;
};
/* The wait before the next attempt: full jitter, so a random part of what doubles with each; never
 * before Retry-After (a day of it at most), so where its time ends earlier there is none. -1: none,
 * it is expired. */
int64_t policy_backoff(const struct policy_retry *r);

/* Could the origin not be reached at all, for the breaker? */
bool policy_unreachable(const struct exchange_fault *f);

#endif
