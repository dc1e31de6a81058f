/*
 * Error replies and causes: by the first word, as Redis promises it.
 */
#include "redis/inside.h"

static const char *const names[REDIS_CAUSES] = {
    [REDIS_OK] = "ok",
    [REDIS_REFUSED] = "refused",
    [REDIS_TIMEOUT] = "timeout",
    [REDIS_CLOSED] = "closed",
    [REDIS_PROTOCOL] = "protocol",
    [REDIS_AUTH] = "auth",
    [REDIS_TYPE] = "type",
    [REDIS_OOM] = "oom",
    [REDIS_READONLY] = "readonly",
    [REDIS_LOADING] = "loading",
    [REDIS_CLUSTER] = "cluster",
    [REDIS_OTHER] = "other",
    [REDIS_OPEN] = "open",
    [REDIS_FULL] = "full",
};

static const struct { struct slice word; enum redis_cause cause; } words[] = {
    { SLICE("NOAUTH"), REDIS_AUTH },
    { SLICE("WRONGPASS"), REDIS_AUTH },
    { SLICE("NOPERM"), REDIS_AUTH },
    { SLICE("DENIED"), REDIS_AUTH },            /* protected mode */
    { SLICE("WRONGTYPE"), REDIS_TYPE },
    { SLICE("OOM"), REDIS_OOM },
    { SLICE("READONLY"), REDIS_READONLY },
    { SLICE("LOADING"), REDIS_LOADING },
    { SLICE("MASTERDOWN"), REDIS_LOADING },     /* a replica that has nothing to answer with yet */
    { SLICE("MOVED"), REDIS_CLUSTER },
    { SLICE("ASK"), REDIS_CLUSTER },
    { SLICE("CLUSTERDOWN"), REDIS_CLUSTER },
    { SLICE("TRYAGAIN"), REDIS_CLUSTER },
    { SLICE("CROSSSLOT"), REDIS_CLUSTER },
};

const char *
redis_cause_name(enum redis_cause c)
{
    return (unsigned)c < REDIS_CAUSES ? names[c] : "unknown";
}

enum redis_cause
cause_of(const struct redis_reply *r)
{
    struct slice rest = r->text, word;

    if (r->type != REPLY_ERROR)
        return REDIS_OK;
    slice_cut(&rest, ' ', &word);
    for (size_t i = 0; i < NELEM(words); i++)
        if (slice_eq(word, words[i].word))
            return words[i].cause;
    return REDIS_OTHER;
}
