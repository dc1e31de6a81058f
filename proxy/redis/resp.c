/*
 * RESP through hiredis: its formatter, and its reader that makes replies of ours.
 *
 * Model    the reader calls back for each value it has read whole; the value becomes a struct
 *          redis_reply, linked into its parent. Everything is counted against the bound before it
 *          is allocated: what an array's head alone claims (12 bytes may claim 2^31 elements), and
 *          what the reader has buffered of a string that has not come whole.
 * Not here sockets. This is the only file that sees hiredis.
 */
#include "redis/inside.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>

#define SLACK (256 * 1024)              /* one read of the socket, and the next replies in it */

struct resp {
    redisReader *reader;                /* owned */
    size_t       most, used;            /* bytes of the reply that is being read */
    bool         refused;               /* it was larger */
};

int
resp_format(const struct slice *argv, size_t argc, char **bytes, size_t *n)
{
    const char *few[16], **p = few;
    size_t few_n[NELEM(few)] = { 0 }, *lens = few_n;
    int len;

    if (argc > NELEM(few)) {
        p = malloc(argc * sizeof *p);
        lens = malloc(argc * sizeof *lens);
    }
    for (size_t i = 0; p != NULL && lens != NULL && i < argc; i++) {
        p[i] = argv[i].n > 0 ? argv[i].p : "";
        lens[i] = argv[i].n;
    }
    len = p != NULL && lens != NULL ? redisFormatCommandArgv(bytes, (int)argc, p, lens) : -1;
    if (p != few) {
        free(p);
        free(lens);
    }
    if (len < 0)
        return -1;
    *n = (size_t)len;
    return 0;
}

/* ---- what the reader makes --------------------------------------------------------------- */

void
reply_free(struct redis_reply **rp)
{
    struct redis_reply *r = *rp;

    *rp = NULL;
    if (r == NULL)
        return;
    for (size_t i = 0; i < r->n; i++)   /* as deep as the reader goes, which is seven */
        reply_free(&r->at[i]);
    free(r);
}

/* A reply with `more` bytes behind it, in its parent if it has one. */
static struct redis_reply *
make(const redisReadTask *task, int type, size_t more)
{
    struct resp *s = task->privdata;
    struct redis_reply *r;

    if (more > s->most || s->used + sizeof *r + more > s->most) {
        s->refused = true;
        return NULL;
    }
    r = calloc(1, sizeof *r + more);
    if (r == NULL)
        return NULL;
    s->used += sizeof *r + more;
    r->type = type;
    if (task->parent != NULL) {
        struct redis_reply *parent = task->parent->obj;

        parent->at[task->idx] = r;
    }
    return r;
}

static void *
make_string(const redisReadTask *task, char *p, size_t n)
{
    int type = task->type == REDIS_REPLY_ERROR ? REPLY_ERROR :
        task->type == REDIS_REPLY_STATUS ? REPLY_STATUS : REPLY_STRING;
    struct redis_reply *r = make(task, type, n + 1);

    if (r != NULL) {
        memcpy(r + 1, p, n);
        r->text = (struct slice){ (const char *)(r + 1), n };
    }
    return r;
}

static void *
make_array(const redisReadTask *task, int n)
{
    struct redis_reply *r = make(task, REPLY_ARRAY, (size_t)n * sizeof(struct redis_reply *));

    if (r != NULL) {
        r->at = (struct redis_reply **)(void *)(r + 1);
        r->n = (size_t)n;
    }
    return r;
}

static void *
make_integer(const redisReadTask *task, long long v)
{
    struct redis_reply *r = make(task, REPLY_INTEGER, 0);

    if (r != NULL)
        r->integer = v;
    return r;
}

static void *
make_nil(const redisReadTask *task)
{
    return make(task, REPLY_NIL, 0);
}

static void
free_object(void *object)
{
    struct redis_reply *r = object;

    reply_free(&r);
}

static redisReplyObjectFunctions makers = {
    make_string, make_array, make_integer, make_nil, free_object,
};

/* ---- reading ----------------------------------------------------------------------------- */

struct resp *
resp_new(size_t most)
{
    struct resp *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->most = most;
    s->reader = redisReaderCreateWithFunctions(&makers);
    if (s->reader == NULL) {
        free(s);
        return NULL;
    }
    s->reader->privdata = s;
    return s;
}

void
resp_free(struct resp **rp)
{
    struct resp *s = *rp;

    *rp = NULL;
    if (s == NULL)
        return;
    redisReaderFree(s->reader);
    free(s);
}

int
resp_feed(struct resp *s, const void *bytes, size_t n)
{
    if (s->reader->len - s->reader->pos > s->most + SLACK) {
        s->refused = true;
        return -1;
    }
    return redisReaderFeed(s->reader, bytes, n) == REDIS_OK ? 0 : -1;
}

int
resp_next(struct resp *s, struct redis_reply **reply)
{
    void *r = NULL;

    if (redisReaderGetReply(s->reader, &r) != REDIS_OK)
        return -1;
    *reply = r;
    if (r == NULL)
        return 0;
    s->used = 0;
    return 1;
}

const char *
resp_error(const struct resp *s)
{
    return s->refused ? "a reply larger than allowed" :
        s->reader->errstr[0] != '\0' ? s->reader->errstr : "out of memory";
}
