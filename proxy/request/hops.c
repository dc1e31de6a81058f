/*
 * Max-Forwards (RFC 9110 7.6.2): OPTIONS and TRACE go so many proxies far; the last one answers.
 */
#include "request/priv.h"

/* Is the request to count? *left: what it may still go. A value that is no number counts
 * nothing. */
bool
hops_left(const struct http_head *h, uint64_t *left)
{
    return (h->method == HTTP_OPTIONS || h->method == HTTP_TRACE) && http_has(h, HF_MAX_FORWARDS) &&
        slice_u64(http_value(h, HF_MAX_FORWARDS), left);
}

static bool
secret(enum http_id id)
{
    return id == HF_AUTHORIZATION || id == HF_PROXY_AUTHORIZATION || id == HF_COOKIE;
}

/* The request, as it came, without what is secret (RFC 9110 9.3.8). */
static enum req_state
reflect(struct request *r)
{
    struct buf b = { 0 };
    enum req_state next;

    buf_printf(&b, "%.*s %.*s HTTP/1.%u\r\n", SLICE_ARG(r->head->method_name),
        SLICE_ARG(r->head->target), r->head->minor);
    for (unsigned i = 0; i < r->head->nfields; i++)
        if (!secret(r->head->fields[i].id))
            http_put(&b, r->head->fields[i].name, r->head->fields[i].value);
    buf_addz(&b, "\r\n");
    next = b.failed ? req_problem_retry(r, 503, "out of memory", 1) :
        req_answer(r, 200, "message/http", buf_slice(&b));
    buf_free(&b);
    return next;
}

enum req_state
hops_answer(struct request *r)
{
    if (r->head->method == HTTP_TRACE)
        return reflect(r);
    return req_answer(r, 200, "text/plain", SLICE(""));
}
