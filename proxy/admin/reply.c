/*
 * Replies of the admin surface: a head that no cache keeps and no browser guesses about, and
 * problems as RFC 9457 has them.
 */
#include "admin/inside.h"

#include <stdio.h>

void
admin_json_text(struct buf *b, struct slice s)
{
    buf_addc(b, '"');
    buf_json(b, s);
    buf_addc(b, '"');
}

void
admin_problem_open(struct admin_request *r, unsigned status, const char *detail)
{
    r->status = status;
    r->type = "application/problem+json";
    r->out.n = 0;
    buf_addz(&r->out, "{\"type\": \"about:blank\", \"title\": ");
    admin_json_text(&r->out, slice_of(http_reason(status)));
    buf_printf(&r->out, ", \"status\": %u, \"detail\": ", status);
    admin_json_text(&r->out, slice_of(detail));
}

void
admin_problem(struct admin_request *r, unsigned status, const char *detail, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, detail);
    vsnprintf(text, sizeof text, detail, ap);
    va_end(ap);
    admin_problem_open(r, status, text);
    buf_addz(&r->out, "}\n");
}

void
admin_reply_head(const struct admin_request *r, bool close, struct buf *b)
{
    char date[HTTP_DATE_LEN];

    http_date_put(date, wall_ms() / 1000);
    buf_printf(b,
        "HTTP/1.1 %u %s\r\nDate: %.*s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
        r->status, http_reason(r->status), HTTP_DATE_LEN, date, r->type, r->out.n);
    if (r->policy != NULL)
        buf_printf(b, "Content-Security-Policy: %s\r\nReferrer-Policy: no-referrer\r\n",
            r->policy);
    if (r->gzip)
        buf_addz(b, "Content-Encoding: gzip\r\n");
    if (r->allow[0] != '\0')
        buf_printf(b, "Allow: %s\r\n", r->allow);
    if (r->challenge)
        buf_addz(b, "WWW-Authenticate: Bearer realm=\"weir admin\"\r\n");
    if (close)
        buf_addz(b, "Connection: close\r\n");
    else if (r->head->minor == 0)
        buf_addz(b, "Connection: keep-alive\r\n");
    buf_addz(b, "\r\n");
}
