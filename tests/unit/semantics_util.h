/*
 * For the tables of semantics: heads from short text, and the moment at which every test happens.
 */
#ifndef TEST_SEMANTICS_UTIL_H
#define TEST_SEMANTICS_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "semantics/semantics.h"

#define NOW_S  ((int64_t)1700000000)    /* Tue, 14 Nov 2023 22:13:20 GMT */
#define NOW_MS (NOW_S * 1000)

/* A head whose text lives here. */
struct head {
    struct http_head  h;
    struct http_field fields[64];
    char              text[8192];
};

/* Lines parted by "\n"; "@N" stands for the date N seconds from NOW_S. */
static inline void
head_fields(struct head *to, const char *lines)
{
    size_t n = 0;

    to->h = (struct http_head){ .cap = 64, .fields = to->fields, .minor = 1 };
    for (const char *p = lines; *p != '\0';) {
        assert_true(n + 40 < sizeof to->text);
        if (*p == '\n') {
            to->text[n++] = '\r';
            to->text[n++] = '\n';
            p++;
        } else if (*p == '@') {
            char *end;

            http_date_put(to->text + n, NOW_S + strtol(p + 1, &end, 10));
            n += HTTP_DATE_LEN;
            p = end;
        } else {
            to->text[n++] = *p++;
        }
    }
    if (n > 0 && to->text[n - 1] != '\n') {
        to->text[n++] = '\r';
        to->text[n++] = '\n';
    }
    if (http_parse_fields(to->text, n, &to->h) != 0)
        fail_msg("the test's own head is malformed: %s", lines);
}

static inline struct http_head *
response_of(struct head *to, unsigned status, const char *lines)
{
    head_fields(to, lines);
    to->h.status = status;
    return &to->h;
}

static inline struct http_head *
request_of(struct head *to, const char *method, const char *lines)
{
    head_fields(to, lines);
    to->h.method_name = slice_of(method);
    to->h.method = http_method(to->h.method_name);
    return &to->h;
}

static inline struct sem_request
asked(const char *method, const char *lines)
{
    static struct head h;
    struct sem_request r;

    sem_request_read(request_of(&h, method, lines), &r);
    return r;
}

static const struct slice target_names[] = { { "Weir-Cache-Control", 18 }, { "CDN-Cache-Control", 17 },
    { "My-Cache-Control", 16 } };

static const struct sem_rules no_rules = { .ttl_ms = -1, .force_ttl_ms = -1, .swr_ms = -1,
    .sie_ms = -1, .heuristic = true, .targets = { target_names, 3 } };

#endif
