/*
 * BODY: the content of a request that is a part of its question (RFC 10008 2.7), or that the
 * journal keeps.
 *
 * Model    QUERY, and methods that the route promises to be safe. Content is collected up to
 *          `key.max_content`, then the key is made of it. Longer content, and content with trailer
 *          fields, which would be lost, goes forward uncached: first what was collected, then the
 *          rest as it comes. Of writes up to `write.max_body`, and longer ones as write.c says.
 *          Back-pressure is the connection's: it reads on only while more is
 *          wanted, and says 100 (Continue) once.
 * Not here what is equal content (key/content.c).
 */
#include "request/priv.h"
#include "request/worker.h"

static uint64_t
most(const struct request *r)
{
    const struct conf_route *c = r->match.route->conf;

    return (uint64_t)(r->writing != NULL ? c->write_max_body : c->key_max_content);
}

void
body_collect(struct request *r, struct slice data)
{
    buf_adds(&r->content, data);
    if (!r->content.failed && r->content.n <= most(r))
        return;
    r->too_long = true;
    conn_body(r->conn, false);
    req_post(r);
}

void
body_collected(struct request *r, struct slice trailer)
{
    if (trailer.n > 0)
        r->trailer = pool_slice(r->pool, trailer);
    req_post(r);
}

static enum req_state
forward(struct request *r, const char *why)
{
    r->fwd = FWD_REQUEST;
    r->why = why;
    if (r->rq.cc.flags & CC_ONLY_IF_CACHED)
        return req_problem(r, 504, "only-if-cached: this request is not answered from the cache");
    return REQ_FORWARD;
}

static enum req_state
out_of_memory(struct request *r)
{
    COUNT(memory_failures);
    return req_problem_retry(r, 503, "out of memory", 1);
}

/* Of the URL and the recipe's parts, as it is, and the content. */
static int
add_content(struct request *r)
{
    struct buf *b = &req_worker()->key;
    struct slice content = { r->content.n > 0 ? r->content.p : "", r->content.n };

    b->n = 0;
    b->failed = false;
    buf_adds(b, r->key.bytes);
    if (b->failed || key_add_content(&r->key, r->head, content,
            (r->rq.cc.flags & CC_NO_TRANSFORM) != 0, b) == -1)
        return -1;
    r->key.bytes = pool_slice(r->pool, r->key.bytes);
    return r->key.bytes.p != NULL ? 0 : -1;
}

enum req_state
do_body(struct request *r)
{
    if (r->content.failed)
        return out_of_memory(r);
    if (r->too_long || (r->head->framing == HTTP_LENGTH && r->head->length > most(r)))
        return r->writing != NULL ? write_too_long(r) : forward(r, "content-size");
    if (!r->body_ended && conn_has_body(r->conn)) {
        conn_continue(r->conn);
        conn_body(r->conn, true);
        return REQ_WAIT;
    }
    if (r->writing != NULL)
        return REQ_WRITE;
    if (r->trailer.n > 0)
        return forward(r, "trailer");
    if (r->content.p == NULL)
        buf_reserve(&r->content, 1);    /* none: an empty one, which the flight sends as such */
    return add_content(r) == 0 ? REQ_LOOKUP : out_of_memory(r);
}
