/*
 * Answers of our own: errors as problem+json (RFC 9457), with Proxy-Status (RFC 9209) and without
 * Cache-Status.
 */
#include "request/priv.h"

static void
put_head(struct request *r, struct buf *b, unsigned status, const char *type, size_t n)
{
    char date[HTTP_DATE_LEN];

    http_date_put(date, wall_ms() / 1000);
    buf_printf(b, "HTTP/1.1 %u %s\r\nDate: %.29s\r\n", status, http_reason(status), date);
    if (status != 204)                  /* which has no content, nor a length (RFC 9110 8.6) */
        buf_printf(b, "Content-Type: %s\r\nContent-Length: %zu\r\n", type, n);
    buf_addz(b, "Cache-Control: no-store\r\n");
    if (r->id.n > 0) {
        buf_addz(b, "X-Request-Id: ");
        buf_adds(b, r->id);
        buf_addz(b, "\r\n");
    }
}

/* Sets the answer to what is in b, frees that: the head but for Connection and the empty line. */
static enum req_state
set_answer(struct request *r, unsigned status, struct buf *b, struct slice body)
{
    r->status = status;
    r->close = r->close || !conn_may_keep(r->conn) || conn_has_body(r->conn);
    if (r->close)
        buf_addz(b, "Connection: close\r\n");
    buf_addz(b, "\r\n");
    if (status != 204 && status != 304 && (r->head == NULL || r->head->method != HTTP_HEAD)) {
        buf_adds(b, body);
        r->bytes_out = body.n;
    }
    r->answer = pool_slice(r->pool, buf_slice(b));
    if (b->failed || r->answer.p == NULL) {
        r->answer = SLICE("HTTP/1.1 503 Service Unavailable\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n");
        r->status = 503;
        r->close = true;
    }
    buf_free(b);
    return REQ_DELIVER;
}

enum req_state
req_answer_with(struct request *r, unsigned status, const char *type, struct slice body,
    struct slice more)
{
    struct buf b = { 0 };

    put_head(r, &b, status, type, body.n);
    buf_adds(&b, more);
    return set_answer(r, status, &b, body);
}

enum req_state
req_answer(struct request *r, unsigned status, const char *type, struct slice body)
{
    return req_answer_with(r, status, type, body, SLICE(""));
}

enum req_state
req_answer_as(struct request *r, unsigned status, struct slice fields, struct slice body)
{
    struct buf b = { 0 };

    buf_printf(&b, "HTTP/1.1 %u %s\r\n", status, http_reason(status));
    buf_adds(&b, fields);
    if (status != 204 && status != 304)
        http_put_number(&b, HF_CONTENT_LENGTH, body.n);
    return set_answer(r, status, &b, body);
}

enum req_state
req_problem_with(struct request *r, unsigned status, const char *detail, struct slice more)
{
    struct buf b = { 0 };
    enum req_state next;

    if (status >= 400)
        r->outcome = OUTCOME_ERROR;
    buf_addz(&b, "{\"type\":\"about:blank\",\"title\":\"");
    buf_json(&b, slice_of(http_reason(status)));
    buf_printf(&b, "\",\"status\":%u,\"detail\":\"", status);
    buf_json(&b, slice_of(detail));
    buf_addz(&b, "\"}\n");
    next = req_answer_with(r, status, "application/problem+json", buf_slice(&b), more);
    buf_free(&b);
    return next;
}

/* error: of RFC 9209, NULL for none. */
static enum req_state
set_problem(struct request *r, unsigned status, const char *error, const char *detail,
    unsigned retry_s)
{
    struct buf more = { 0 };
    enum req_state next;

    if (error != NULL)
        proxy_status_put(r, &more, error, detail);
    if (retry_s > 0)
        http_put_number(&more, HF_RETRY_AFTER, retry_s);
    next = req_problem_with(r, status, detail, buf_slice(&more));
    buf_free(&more);
    return next;
}

enum req_state
req_fault(struct request *r, const struct exchange_fault *f)
{
    return set_problem(r, f->status, f->cause, f->detail, f->retry_after_s);
}

enum req_state
req_problem_retry(struct request *r, unsigned status, const char *detail, unsigned retry_s)
{
    return set_problem(r, status, proxy_status_error(status), detail, retry_s);
}

enum req_state
req_problem(struct request *r, unsigned status, const char *detail)
{
    return req_problem_retry(r, status, detail, 0);
}
