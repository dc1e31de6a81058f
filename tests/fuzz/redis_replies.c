/*
 * What a server answers: any bytes at all are replies within the bound, or an error, and are the
 * same however they are cut. What is read of CLUSTER SLOTS and of redirections is within its limits.
 */
#include "redis/inside.h"
#include "require.h"

#include <stdlib.h>

#define MOST 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t
look(const struct redis_reply *r, unsigned depth)
{
    struct cluster_range range;
    uint64_t sum = (uint64_t)r->type + 31 * r->text.n + 37 * r->n + 41 * (uint64_t)r->integer;

    require(depth <= 9);
    require((r->type == REPLY_ERROR) == (cause_of(r) != REDIS_OK));
    if (r->text.p != NULL)
        require(r->text.p[r->text.n] == '\0');
    if (cluster_range(r, &range) || cluster_redirection(r->text, &range))
        require(range.first >= 0 && range.first <= range.last && range.last < CLUSTER_SLOTS &&
            range.port != 0 && strlen(range.host) <= HOST_MAX);
    for (size_t i = 0; i < r->n; i++)
        sum = sum * 43 + look(r->at[i], depth + 1);
    return sum;
}

/* Fed `piece` bytes at a time: a sum over all replies, and whether it ended well. */
static uint64_t
read_all(const uint8_t *data, size_t size, size_t piece)
{
    struct resp *s = resp_new(MOST);
    struct redis_reply *r = NULL;
    uint64_t sum = 1;
    int rc = 0;

    require(s != NULL);
    for (size_t at = 0; at < size && rc == 0; at += piece) {
        rc = resp_feed(s, data + at, size - at < piece ? size - at : piece);
        while (rc == 0 && (rc = resp_next(s, &r)) == 1) {
            sum = sum * 47 + look(r, 0);
            reply_free(&r);
            rc = 0;
        }
    }
    if (rc == -1)
        require(resp_error(s)[0] != '\0');
    resp_free(&s);
    return sum * 2 + (rc == -1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    require(read_all(data, size, size > 0 ? size : 1) == read_all(data, size, size / 3 + 1));
    require(cluster_slot((struct slice){ (const char *)data, size }) < CLUSTER_SLOTS);
    return 0;
}
