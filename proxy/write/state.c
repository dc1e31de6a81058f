/*
 * What becomes of a write, the words for its state, and what hashes it is known by.
 */
#include "write/write.h"

#include <xxhash.h>

const char *
write_state_name(enum write_state s)
{
    static const char *const names[] = { "pending", "sending", "waiting", "delivered", "superseded",
        "dropped", "rejected", "expired", "uncertain" };

    assert(s < WRITE_STATES);
    return names[s];
}

enum write_plan
write_plan(const struct route *r, const struct http_head *h)
{
    enum http_method m = h->method;

    if (r->conf->policy != POLICY_WRITE_BACK ||
        (m != HTTP_POST && m != HTTP_PUT && m != HTTP_PATCH && m != HTTP_DELETE))
        return PLAN_KEYED;
    switch (r->conf->write_when) {
    case WRITE_WHEN_PREFER:
        return http_prefers(h, SLICE("respond-async")) ? PLAN_ACCEPT : PLAN_BEHIND;
    case WRITE_WHEN_DOWN:
        return PLAN_DOWN;
    case WRITE_WHEN_ALWAYS:
        break;
    }
    return PLAN_ACCEPT;
}

uint64_t
write_path_hash(struct slice host, struct slice path)
{
    return XXH3_64bits_withSeed(path.p, path.n, XXH3_64bits(host.p, host.n));
}

size_t
write_etag(char out[WRITE_ETAG_MAX], const char *id)
{
    struct slice before = SLICE("\"weir-pending-");

    memcpy(out, before.p, before.n);
    memcpy(out + before.n, id, WRITE_ID_N);
    out[before.n + WRITE_ID_N] = '"';
    return before.n + WRITE_ID_N + 1;
}
