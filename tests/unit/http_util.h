/*
 * For the tests of proxy/http: heads parsed from memory of exactly their size, so that
 * AddressSanitizer sees a byte read too many.
 */
#ifndef HTTP_UTIL_H
#define HTTP_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "http/http.h"

typedef ssize_t parser(const char *, size_t, const struct http_limits *, struct http_head *,
    struct http_fault *);

static const struct http_limits roomy = { 16384, 8192, 100 };

struct parsed {
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head  head;
    struct http_fault fault;
    char             *bytes;            /* owned */
    ssize_t           result;
};

static inline void
parse_n(struct parsed *p, parser *parse, const char *text, size_t n, const struct http_limits *l)
{
    p->bytes = malloc(n > 0 ? n : 1);
    assert_non_null(p->bytes);
    memcpy(p->bytes, text, n);
    p->head = (struct http_head){ .fields = p->fields, .cap = HTTP_FIELDS_MAX };
    p->fault = (struct http_fault){ 0, NULL };
    p->result = parse(p->bytes, n, l, &p->head, &p->fault);
}

static inline void
parsed_free(struct parsed *p)
{
    free(p->bytes);
    p->bytes = NULL;
}

/* Feeds every prefix. Returns 0 when all but the whole ask for more and the whole is complete with
 * `end` bytes; else the status, which must be the same from the first refusal on. */
static inline unsigned
feed(parser *parse, const char *text, size_t n, size_t end, const struct http_limits *l)
{
    unsigned status = 0;
    struct parsed p;

    for (size_t i = 0; i <= n; i++) {
        parse_n(&p, parse, text, i, l);
        if (status == 0 && p.result == -1) {
            status = p.fault.status;
            assert_non_null(p.fault.why);
            assert_true(status >= 400 && p.fault.why[0] != '\0');
        } else if (status != 0) {
            assert_int_equal(p.result, -1);
            assert_int_equal(p.fault.status, status);
        } else {
            assert_int_equal(p.result, i < end ? 0 : (ssize_t)end);
        }
        parsed_free(&p);
    }
    return status;
}

static inline void
assert_slice(struct slice s, const char *want)
{
    if (s.n != strlen(want) || (s.n > 0 && memcmp(s.p, want, s.n) != 0))
        fail_msg("\"%.*s\" is not \"%s\"", SLICE_ARG(s), want);
}

static inline void
assert_buf(struct buf *b, const char *want)
{
    assert_false(b->failed);
    assert_slice(buf_slice(b), want);
    buf_free(b);
}

#endif
