/*
 * A script to the server of its partition, and what its answers say.
 *
 * Model    a script is sent by its SHA-1, but for the first time to a partition, and after its
 *          server said that it does not know it (it restarted, or another took over): then whole,
 *          which makes it known. So nothing waits for a script to be loaded.
 * Threads  the journal's.
 */
#include "write/share.h"

#include <stdio.h>

/* ---- arguments ------------------------------------------------------------------------------- */

void
args_add(struct share_args *g, struct slice s)
{
    assert(g->n < SHARE_ARGS);
    g->at[g->n++] = s.p != NULL ? s : (struct slice){ "", 0 };
}

void
args_addu(struct share_args *g, uint64_t v)
{
    char *at = g->digits + g->used;
    size_t n = put_u64(at, v);

    g->used += n;
    args_add(g, (struct slice){ at, n });
}

void
args_addhex(struct share_args *g, uint64_t v)
{
    char *at = g->digits + g->used;

    put_hex(at, v);
    g->used += 16;
    args_add(g, (struct slice){ at, 16 });
}

/* ---- sending --------------------------------------------------------------------------------- */

#define NKEYS_PART  7
#define NKEYS_FLEET 3

static size_t
add_keys(const struct share_part *p, struct slice *at, char text[NKEYS_PART][SHARE_PREFIX + 24])
{
    static const char *const part[] = { "m", "s", "p", "d", "a", "e", "o" };
    static const char *const fleet[] = { "secret", "live", "paused" };
    bool all = p->n == SHARE_FLEET;
    size_t n = all ? NKEYS_FLEET : NKEYS_PART;

    for (size_t i = 0; i < n; i++) {
        int length = snprintf(text[i], SHARE_PREFIX + 24, "%s%s", p->key, all ? fleet[i] : part[i]);

        at[i] = (struct slice){ text[i], (size_t)length };
    }
    return n;
}

bool
share_script(struct share *s, struct share_part *p, enum share_script script,
    const struct share_args *g, int64_t within_us, share_done *done, void *arg,
    enum redis_cause *cause)
{
    struct slice argv[3 + NKEYS_PART + SHARE_ARGS];
    char keys[NKEYS_PART][SHARE_PREFIX + 24];
    bool known = p->loaded >> script & 1;
    struct redis_command c = { .argv = argv, .key = slice_of(p->key), .within_us = within_us,
        .done = done, .arg = arg };
    size_t n = add_keys(p, argv + 3, keys);

    argv[0] = known ? SLICE("EVALSHA") : SLICE("EVAL");
    argv[1] = slice_of(known ? s->sha[script] : share_lua[script]);
    argv[2] = n == NKEYS_PART ? SLICE("7") : SLICE("3");
    for (size_t i = 0; i < g->n; i++)
        argv[3 + n + i] = g->at[i];
    c.argc = 3 + n + g->n;
    if (redis_send(s->redis, &c, cause) == NULL)
        return false;
    p->loaded |= 1u << script;          /* commands of a connection are executed in order */
    return true;
}

bool
share_unknown(struct share_part *p, enum redis_cause cause, const struct redis_reply *r)
{
    if (cause != REDIS_OTHER || r == NULL || !slice_starts(r->text, SLICE("NOSCRIPT")))
        return false;
    p->loaded = 0;
    return true;
}

/* ---- what went wrong ------------------------------------------------------------------------- */

const char *
share_why(enum redis_cause cause)
{
    switch (cause) {
    case REDIS_AUTH:     return "Redis refuses the journal's user (journal.redis.username)";
    case REDIS_OOM:      return "Redis is out of memory (maxmemory)";
    case REDIS_READONLY: return "Redis is read-only: it is a replica";
    case REDIS_LOADING:  return "Redis is loading its data";
    case REDIS_CLUSTER:  return "the Redis cluster does not serve this partition";
    case REDIS_TYPE:     return "keys of the journal in Redis are of another kind";
    case REDIS_TIMEOUT:  return "Redis did not answer in time";
    case REDIS_FULL:     return "too much waits for Redis";
    case REDIS_OTHER:    return "Redis gave an error";
    case REDIS_PROTOCOL: return "what Redis answered is not understood";
    default:             return "Redis cannot be reached";
    }
}

void
share_log(struct share *s, enum redis_cause cause, const struct redis_reply *r)
{
    static struct log_limit limit;

    if (r != NULL && r->type == REPLY_ERROR)
        log_limited(&limit, LOG_ERROR, "journal %s: Redis says: %.*s", s->j->path,
            SLICE_ARG(r->text));
    else
        log_limited(&limit, LOG_WARN, "journal %s: %s", s->j->path, share_why(cause));
}

/* ---- answers --------------------------------------------------------------------------------- */

int
reply_code(const struct redis_reply *r)
{
    if (r == NULL || r->type != REPLY_ARRAY || r->n == 0 || r->at[0]->type != REPLY_INTEGER ||
        r->at[0]->integer < 0 || r->at[0]->integer > JOURNAL_LOST)
        return -1;
    return (int)r->at[0]->integer;
}

struct slice
reply_text(const struct redis_reply *r, size_t i)
{
    if (r->type != REPLY_ARRAY || i >= r->n || r->at[i]->type != REPLY_STRING)
        return (struct slice){ NULL, 0 };
    return r->at[i]->text;
}

uint64_t
reply_u64(const struct redis_reply *r, size_t i)
{
    uint64_t v = 0;

    if (r->type == REPLY_ARRAY && i < r->n && r->at[i]->type == REPLY_INTEGER)
        return r->at[i]->integer > 0 ? (uint64_t)r->at[i]->integer : 0;
    return slice_u64(reply_text(r, i), &v) ? v : 0;
}

bool
stream_id_read(struct slice s, struct stream_id *id)
{
    struct slice ms;

    *id = (struct stream_id){ 0, 0 };
    return slice_cut(&s, '-', &ms) && slice_u64(ms, &id->ms) && slice_u64(s, &id->n);
}

int
stream_id_cmp(struct stream_id a, struct stream_id b)
{
    if (a.ms != b.ms)
        return a.ms < b.ms ? -1 : 1;
    return a.n == b.n ? 0 : a.n < b.n ? -1 : 1;
}

struct slice
stream_id_put(struct stream_id id, char out[STREAM_ID_MAX])
{
    size_t n = put_u64(out, id.ms);

    out[n++] = '-';
    n += put_u64(out + n, id.n);
    return (struct slice){ out, n };
}
