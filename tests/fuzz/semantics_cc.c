/*
 * Cache-Control, and what is decided from a response's fields: the input is field lines, those of
 * the request before the first empty line, those of the response behind it.
 *
 * Held to: a response is never stored against no-store, private or Authorization as the reader has
 * them; times are in range; what is stored is not fresh beyond its lifetime; fields that a list
 * names are not kept.
 */
#include "semantics/semantics.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_MS 1700000000000LL

static const struct slice target = { "CDN-Cache-Control", 17 };
static const struct sem_rules rules = { .ttl_ms = -1, .force_ttl_ms = -1, .swr_ms = -1, .sie_ms = -1,
    .heuristic = true, .targets = { &target, 1 } };

static void
check_stored(const struct sem_request *rq, const struct http_head *response, const struct sem_cc *cc)
{
    struct sem_meta m;
    const char *why;
    int64_t end;

    if (!sem_store(rq, response, &rules, NOW_MS - 5, NOW_MS, &m, &why)) {
        assert(why != NULL);
        return;
    }
    assert(!(cc->flags & CC_PRIVATE));
    assert(!(cc->flags & CC_NO_STORE) || (cc->flags & CC_MUST_UNDERSTAND));
    assert(!rq->authorization || (m.flags & META_SHARED_AUTH));
    assert(m.lifetime_ms >= 0 && m.age_ms >= 0 && m.swr_s >= -1 && m.sie_s >= -1);
    end = NOW_MS + m.lifetime_ms - m.age_ms;
    assert(sem_use(rq, &m, end > NOW_MS ? end : NOW_MS, false, &why) != SEM_FRESH);
    if (m.flags & META_NO_CACHE)
        assert(sem_use(rq, &m, NOW_MS, false, &why) == SEM_VALIDATE);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_field fields[2][64];
    struct http_head request = { .method = HTTP_GET, .cap = 64, .fields = fields[0] };
    struct http_head response = { .status = 200, .cap = 64, .fields = fields[1] };
    const char *p = (const char *)data, *gap = size > 0 ? memmem(p, size, "\r\n\r\n", 4) : NULL;
    size_t first = gap != NULL ? (size_t)(gap - p) + 2 : 0, at = gap != NULL ? first + 2 : 0;
    struct sem_request rq;
    struct sem_cc cc;
    struct buf b = { 0 };

    if (http_parse_fields(p, first, &request) == -1 ||
        http_parse_fields(p + at, size - at, &response) == -1)
        return 0;
    sem_request_read(&request, &rq);
    sem_cc_response(&response, &rules, &cc);
    assert(cc.max_age >= -1 && cc.max_age <= (int64_t)1 << 31);
    assert(cc.s_maxage >= -1 && cc.s_maxage <= (int64_t)1 << 31);
    check_stored(&rq, &response, &cc);
    for (unsigned i = 0; i < response.nfields; i++)
        assert(!sem_keeps(&response, &cc, &response.fields[i]) ||
            response.fields[i].id != HF_SET_COOKIE);
    if (sem_vary(&response, &b)) {
        struct buf v = { 0 };

        sem_variant(buf_slice(&b), &request, &v);
        buf_free(&v);
    }
    sem_not_modified(&request, http_value(&response, HF_ETAG), HTTP_NO_DATE, NOW_MS / 1000,
        NOW_MS / 1000);
    sem_if_range(&request, http_value(&response, HF_ETAG), HTTP_NO_DATE, NOW_MS / 1000, NOW_MS / 1000);
    sem_304_selects(&request, &response);
    buf_free(&b);
    return 0;
}
