/*
 * Reusing: may a stored response answer this request now (RFC 9111 4, 4.2, 5.2.1, RFC 5861)?
 *
 * Model    in order: who may have it (3.5), who asks for validation (5.2.1.4, 5.2.2.4), how fresh
 *          the client wants it (5.2.1.1, 5.2.1.3), whether it is fresh (4.2), and if not, who
 *          allows it stale (4.2.4).
 *          A hit costs a call of sem_use, so each decision is compiled twice: without a trace,
 *          where nothing of noting is left, and with one.
 * Threads  pure functions.
 */
#include "semantics/semantics.h"
#include "semantics/priv.h"

#define TWICE static inline __attribute__((always_inline))

int64_t
sem_age_ms(const struct sem_meta *m, int64_t now_ms)
{
    /* The wall clock may jump back: nothing grows younger than it was when it came. */
    int64_t resident = now_ms > m->response_ms ? now_ms - m->response_ms : 0;
    int64_t age = m->age_ms + resident;

    return age > 0 ? age : 0;
}

static bool
client_may_have(const struct sem_request *rq, const struct sem_meta *m)
{
    return !rq->authorization || (m->flags & META_SHARED_AUTH);
}

/* What the client wants of a response that is fresh in itself. NULL: it has it. */
TWICE const char *
client_refuses(const struct sem_request *rq, int64_t age, int64_t left, struct sem_trace *t)
{
    if (rq->cc.max_age >= 0) {
        bool older = age > rq->cc.max_age * 1000;

        sem_note(t, "request-max-age", older ? SEM_FORBIDS : SEM_ALLOWS, age,
            rq->cc.max_age * 1000);
        if (older)
            return "request-max-age";   /* 5.2.1.1 */
    }
    if (rq->cc.min_fresh >= 0) {
        bool shorter = left < rq->cc.min_fresh * 1000;

        sem_note(t, "request-min-fresh", shorter ? SEM_FORBIDS : SEM_ALLOWS, left,
            rq->cc.min_fresh * 1000);
        if (shorter)
            return "request-min-fresh"; /* 5.2.1.3 */
    }
    return NULL;
}

/* Who allows a response that is stale for `stale` ms (4.2.4)? */
TWICE enum sem_use
use_stale(const struct sem_request *rq, const struct sem_meta *m, int64_t stale, const char **why,
    struct sem_trace *t)
{
    bool taken = (rq->cc.flags & CC_MAX_STALE_ANY) && rq->cc.max_stale < 0;

    *why = "stale";
    if (sem_forbids(t, "must-revalidate", m->flags & META_MUST_REVALIDATE)) {
        *why = "must-revalidate";       /* 5.2.2.2, 5.2.2.8, 5.2.2.10 */
        return SEM_VALIDATE;
    }
    taken = taken || (rq->cc.max_stale > 0 && stale <= rq->cc.max_stale * 1000);
    /* "Unless max-stale is also present, the client does not wish to receive a stale response"
     * (5.2.1.1); who asks for min-fresh wishes it less. */
    if (sem_forbids(t, "request-not-stale", !taken && (rq->cc.max_age >= 0 ||
        rq->cc.min_fresh >= 0)))
        return SEM_VALIDATE;
    if (sem_gives(t, "stale-while-revalidate",
        m->swr_s > 0 && stale <= (int64_t)m->swr_s * 1000, stale,
        m->swr_s >= 0 ? (int64_t)m->swr_s * 1000 : -1)) {
        *why = "stale-while-revalidate";
        return SEM_STALE_REVALIDATE;    /* RFC 5861 3 */
    }
    if (sem_gives(t, "max-stale", taken, stale,
        rq->cc.max_stale >= 0 ? rq->cc.max_stale * 1000 : -1)) {
        *why = "max-stale";
        return SEM_STALE;               /* 5.2.1.2 */
    }
    return SEM_VALIDATE;
}

/* A part is not served stale by anybody's leave: whoever may need the rest needs the origin
 * anyway. */
TWICE enum sem_use
stale_part(const char **why)
{
    if (*why == NULL)
        *why = "stale";
    return SEM_VALIDATE;
}

TWICE enum sem_use
use(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms, bool soft,
    const char **why, struct sem_trace *t)
{
    int64_t age = sem_age_ms(m, now_ms), left = m->lifetime_ms - age;

    *why = NULL;
    if (sem_forbids(t, "authorization", !client_may_have(rq, m))) {
        *why = "authorization";
        return SEM_CANNOT;
    }
    if (sem_forbids(t, "request-no-cache", rq->cc.flags & CC_NO_CACHE))
        *why = "request-no-cache";      /* 5.2.1.4, 5.4 */
    else if (sem_forbids(t, "no-cache", m->flags & META_NO_CACHE))
        *why = "no-cache";              /* 5.2.2.4 */
    else if (rq->cc.max_age >= 0 || rq->cc.min_fresh >= 0)
        *why = client_refuses(rq, age, left, t);
    sem_note(t, "stale", left > 0 ? SEM_ALLOWS : SEM_FORBIDS, age, m->lifetime_ms);
    if (soft)
        sem_note(t, "soft-purged", SEM_FORBIDS, -1, -1);
    if (left > 0 && !soft)              /* 4.2: fresh while the lifetime exceeds the age */
        return *why != NULL ? SEM_VALIDATE : m->flags & META_PARTIAL ? SEM_PART : SEM_FRESH;
    if (*why != NULL || (m->flags & META_PARTIAL))
        return stale_part(why);
    return use_stale(rq, m, left < 0 ? -left : 0, why, t);
}

enum sem_use
sem_use(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms, bool soft,
    const char **why)
{
    return use(rq, m, now_ms, soft, why, NULL);
}

enum sem_use
sem_use_weigh(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms, bool soft,
    const char **why, struct sem_trace *t)
{
    return use(rq, m, now_ms, soft, why, t);
}

/* RFC 5861 4: the directive may come with the response or with the request, where it is about that
 * request alone. What must be validated is never served instead (4.2.4, 5.2.2.2, 5.2.2.4). */
bool
sem_stale_on_error_weigh(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms,
    struct sem_trace *t)
{
    int64_t allowed = rq->cc.sie >= 0 ? rq->cc.sie : m->sie_s;
    int64_t stale = sem_age_ms(m, now_ms) - m->lifetime_ms;

    if (sem_forbids(t, "authorization", !client_may_have(rq, m)) ||
        sem_forbids(t, "no-cache", m->flags & META_NO_CACHE) ||
        sem_forbids(t, "must-revalidate", m->flags & META_MUST_REVALIDATE) ||
        sem_forbids(t, "request-no-cache", rq->cc.flags & CC_NO_CACHE))
        return false;
    return sem_gives(t, "stale-if-error", allowed > 0 && stale <= allowed * 1000,
        stale > 0 ? stale : 0, allowed >= 0 ? allowed * 1000 : -1);
}

bool
sem_stale_on_error(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms)
{
    return sem_stale_on_error_weigh(rq, m, now_ms, NULL);
}

bool
sem_stale_at_all(const struct sem_request *rq, const struct sem_meta *m, int64_t now_ms)
{
    int64_t age = sem_age_ms(m, now_ms);

    return client_may_have(rq, m) && !(m->flags & (META_NO_CACHE | META_MUST_REVALIDATE)) &&
        !(rq->cc.flags & CC_NO_CACHE) && (rq->cc.max_age < 0 || age <= rq->cc.max_age * 1000) &&
        (rq->cc.min_fresh < 0 || age + rq->cc.min_fresh * 1000 <= m->lifetime_ms);
}
