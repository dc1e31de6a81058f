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
    buf_printf(b, "HTTP/1.1 %u %s\r\nDate: %.29s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
        "Cache-Control: no-store\r\n", status, http_reason(status), date, type, n);
    if (r->id.n > 0) {
        buf_addz(b, "X-Request-Id: ");
        buf_adds(b, r->id);
        buf_addz(b, "\r\n");
    }
}

/* Sets the answer; the rest of it (Connection, the empty line) is written at delivery. */
static enum req_state
set_answer(struct request *r, unsigned status, const char *type, struct slice body,
    struct slice extra)
{
    struct buf b = { 0 };

    r->status = status;
    put_head(r, &b, status, type, body.n);
    buf_adds(&b, extra);
    r->close = r->close || !conn_may_keep(r->conn) || conn_has_body(r->conn);
    if (r->close)
        buf_addz(&b, "Connection: close\r\n");
    buf_addz(&b, "\r\n");
    if (r->head == NULL || r->head->method != HTTP_HEAD) {
        buf_adds(&b, body);
        r->bytes_out = body.n;
    }
    r->answer = pool_slice(r->pool, buf_slice(&b));
    if (b.failed || r->answer.p == NULL) {
        r->answer = SLICE("HTTP/1.1 503 Service Unavailable\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n");
        r->status = 503;
        r->close = true;
    }
    buf_free(&b);
    return REQ_DELIVER;
}

enum req_state
req_answer(struct request *r, unsigned status, const char *type, struct slice body)
{
    return set_answer(r, status, type, body, SLICE(""));
}

/* error: of RFC 9209, NULL for none. */
static enum req_state
set_problem(struct request *r, unsigned status, const char *error, const char *detail,
    unsigned retry_s)
{
    struct buf b = { 0 }, extra = { 0 };
    enum req_state next;

    if (status >= 400)
        r->outcome = OUTCOME_ERROR;
    buf_addz(&b, "{\"type\":\"about:blank\",\"title\":\"");
    buf_json(&b, slice_of(http_reason(status)));
    buf_printf(&b, "\",\"status\":%u,\"detail\":\"", status);
    buf_json(&b, slice_of(detail));
    buf_addz(&b, "\"}\n");
    if (error != NULL)
        proxy_status_put(r, &extra, error, detail);
    if (retry_s > 0)
        buf_printf(&extra, "Retry-After: %u\r\n", retry_s);
    next = set_answer(r, status, "application/problem+json", buf_slice(&b), buf_slice(&extra));
    buf_free(&extra);
    buf_free(&b);
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
