/*
 * The words for a write's state, and what hashes it is known by.
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
