/*
 * What may be stored, for how long it is fresh, and how old it is when it comes.
 */
#include "semantics_util.h"

#define DAY 86400

/* ---- may it be stored, and why not --------------------------------------------------------- */

static const struct store_case {
    const char *clause, *method, *request;
    unsigned    status;
    const char *response;
    const char *why;                    /* NULL: stored */
    int64_t     lifetime_s;             /* when stored */
    unsigned    flags;
} store_cases[] = {
#define FRESH "Date: @0\nCache-Control: max-age=60"
#define MOVED(status) { "3, explicit", "GET", "", status, FRESH, NULL, 60, META_EXPLICIT }
#define NEVER(clause, status) { clause, "GET", "", status, FRESH, "status", 0, 0 }
    /* every final status with explicit freshness, known or not */
    MOVED(200), MOVED(201), MOVED(202), MOVED(203), MOVED(204), MOVED(299), MOVED(300), MOVED(301),
    MOVED(302), MOVED(303), MOVED(307), MOVED(308), MOVED(399), MOVED(400), MOVED(401), MOVED(403),
    MOVED(404), MOVED(405), MOVED(410), MOVED(414), MOVED(422), MOVED(499), MOVED(500), MOVED(501),
    MOVED(502), MOVED(503), MOVED(504), MOVED(599),
    NEVER("3, not final", 100), NEVER("3, not final", 101), NEVER("3, not final", 103),
    NEVER("3.3, not asked for", 206), NEVER("4.3.4", 304), NEVER("RFC 9110 15.5.13", 412),
    NEVER("RFC 9110 15.5.17", 416), NEVER("RFC 9110 15.5.18", 417), NEVER("RFC 6585 3", 428),
    NEVER("RFC 6585 4", 429), NEVER("RFC 6585 5", 431), NEVER("RFC 6585 6", 511),
    NEVER("RFC 9110 15", 600), NEVER("RFC 9110 15", 999),
    /* statuses without a word on freshness, with something to guess from */
#define GUESS "Date: @0\nLast-Modified: @-36000"
#define HEURISTIC(status) { "RFC 9110 15.1", "GET", "", status, GUESS, NULL, 3600, META_HEURISTIC }
#define NO_GUESS(status) { "RFC 9110 15.1", "GET", "", status, GUESS, "status", 0, 0 }
    HEURISTIC(200), HEURISTIC(203), HEURISTIC(204), HEURISTIC(300), HEURISTIC(301), HEURISTIC(308),
    HEURISTIC(404), HEURISTIC(405), HEURISTIC(410), HEURISTIC(414), HEURISTIC(501),
    NO_GUESS(201), NO_GUESS(202), NO_GUESS(302), NO_GUESS(303), NO_GUESS(307), NO_GUESS(400),
    NO_GUESS(401), NO_GUESS(403), NO_GUESS(500), NO_GUESS(502), NO_GUESS(503), NO_GUESS(504),
    NO_GUESS(599), NO_GUESS(299),
    { "4.2.2, public", "GET", "", 599, GUESS "\nCache-Control: public", NULL, 3600,
        META_HEURISTIC | META_SHARED_AUTH },
    /* methods */
    { "3", "HEAD", "", 200, FRESH, "method", 0, 0 },
    { "3", "POST", "", 200, FRESH, "method", 0, 0 },
    { "3", "PUT", "", 200, FRESH, "method", 0, 0 },
    { "3", "OPTIONS", "", 200, FRESH, "method", 0, 0 },
    { "3", "BREW", "", 200, FRESH, "method", 0, 0 },
    { "RFC 10008 2.7", "QUERY", "", 200, FRESH, NULL, 60, META_EXPLICIT },
    { "RFC 10008 2.7", "QUERY", "", 200, GUESS, NULL, 3600, META_HEURISTIC },
    { "RFC 10008 2.7, to validate", "QUERY", "", 200, "Date: @0\nETag: \"a\"", NULL, 0, 0 },
    { "RFC 10008 2.7", "QUERY", "", 200, "Cache-Control: private, max-age=9", "private", 0, 0 },
    { "RFC 10008 2.7", "QUERY", "Authorization: x", 200, FRESH, "authorization", 0, 0 },
    /* requests */
    { "5.2.1.5", "GET", "Cache-Control: no-store", 200, FRESH, "request-no-store", 0, 0 },
    { "5.2.1.4", "GET", "Cache-Control: no-cache", 200, FRESH, NULL, 60, META_EXPLICIT },
    { "3.3", "GET", "Range: bytes=0-1", 200, FRESH, NULL, 60, META_EXPLICIT },
    { "3.3", "GET", "Range: bytes=0-1", 404, FRESH, "status", 0, 0 },
    /* a part that was asked for, and says which one it is (3.3; RFC 9110 14.4) */
#define PART(response, why, lifetime, flags) \
    { "3.3", "GET", "Range: bytes=0-1", 206, response, why, lifetime, flags }
    PART(FRESH "\nContent-Range: bytes 0-1/10", NULL, 60, META_EXPLICIT | META_PARTIAL),
    PART(FRESH "\nContent-Range: bytes 0-1/*", NULL, 60, META_EXPLICIT | META_PARTIAL),
    PART(FRESH "\nContent-Range: Bytes 5-9/10", NULL, 60, META_EXPLICIT | META_PARTIAL),
    PART(GUESS "\nContent-Range: bytes 0-1/10", NULL, 3600, META_HEURISTIC | META_PARTIAL),
    PART(FRESH ", must-understand, no-store\nContent-Range: bytes 0-1/10", NULL, 60, META_EXPLICIT | META_PARTIAL),
    PART("Cache-Control: no-store\nContent-Range: bytes 0-1/10", "no-store", 0, 0),
    PART(FRESH, "content-range", 0, 0),
    PART(FRESH "\nContent-Type: multipart/byteranges; boundary=x", "content-range", 0, 0),
    PART(FRESH "\nContent-Range: bytes 1-0/10", "content-range", 0, 0),
    PART(FRESH "\nContent-Range: bytes 0-1/1", "content-range", 0, 0),
    PART(FRESH "\nContent-Range: bytes */10", "content-range", 0, 0),
    PART(FRESH "\nContent-Range: lines 0-1/10", "content-range", 0, 0),
    PART(FRESH "\nContent-Range: bytes 0-1/10\nContent-Range: bytes 0-1/10", "content-range", 0, 0),
    { "3.3, not asked for", "GET", "", 206, FRESH "\nContent-Range: bytes 0-1/10", "status", 0, 0 },
    { "RFC 9110 15.5.17", "GET", "Range: bytes=0-1", 416, FRESH "\nContent-Range: bytes */10", "status", 0, 0 },
    /* RFC 9213 2.2 */
    { "RFC 9213 2.2", "GET", "", 200, "Date: @0\nExpires: @1000\nCDN-Cache-Control: max-age=60", NULL, 60,
        META_EXPLICIT },
    { "RFC 9213 2.2", "GET", "", 200, "Date: @0\nExpires: @1000\nCDN-Cache-Control: foo", "no-freshness", 0, 0 },
    { "RFC 9213 2.2", "GET", "", 200, "Pragma: no-cache\nCDN-Cache-Control: max-age=60", NULL, 60, META_EXPLICIT },
    { "RFC 9213 2.2", "GET", "", 200, FRESH "\nCDN-Cache-Control: private", "private", 0, 0 },
    { "RFC 9213 2.2", "GET", "", 200, "Cache-Control: no-store\nCDN-Cache-Control: max-age=60", NULL, 60,
        META_EXPLICIT },
    /* the response's word */
    { "5.2.2.5", "GET", "", 200, "Cache-Control: no-store", "no-store", 0, 0 },
    { "5.2.2.5", "GET", "", 200, "Cache-Control: max-age=100, no-store\nExpires: @100\nDate: @0",
        "no-store", 0, 0 },
    { "5.2.2.7", "GET", "", 200, "Cache-Control: private, max-age=100", "private", 0, 0 },
    { "5.2.2.7, list", "GET", "", 200, "Cache-Control: private=\"x\", max-age=100", NULL, 100,
        META_EXPLICIT },
    { "5.2.2.3", "GET", "", 200, "Cache-Control: max-age=100, no-store, must-understand", NULL, 100,
        META_EXPLICIT },
    { "5.2.2.3", "GET", "", 599, "Cache-Control: max-age=100, no-store, must-understand",
        "must-understand", 0, 0 },
    { "3", "GET", "", 599, "Cache-Control: max-age=100, must-understand", "must-understand", 0, 0 },
    { "5.2.2.7 over 5.2.2.3", "GET", "", 200, "Cache-Control: max-age=9, private, must-understand",
        "private", 0, 0 },
    { "4.1", "GET", "", 200, FRESH "\nVary: *", "vary", 0, 0 },
    { "4.1", "GET", "", 200, FRESH "\nVary: a, *", "vary", 0, 0 },
    { "4.1", "GET", "", 200, FRESH "\nVary: \nVary: *", "vary", 0, 0 },
    { "4.1", "GET", "", 200, FRESH "\nVary: a", NULL, 60, META_EXPLICIT },
    { "5.2.2.4, to validate", "GET", "", 200, "Cache-Control: no-cache\nETag: \"a\"", NULL, 0,
        META_NO_CACHE },
    { "5.2.2.4, nothing to validate with", "GET", "", 200, "Cache-Control: no-cache, max-age=9",
        "no-cache", 0, 0 },
    { "5.2.2.4, list", "GET", "", 200, "Cache-Control: no-cache=\"a\", max-age=9", NULL, 9,
        META_EXPLICIT },
    { "5.4, in a response", "GET", "", 200, "Pragma: no-cache\n" GUESS, NULL, 3600,
        META_NO_CACHE | META_HEURISTIC },
    { "5.4, beside Cache-Control", "GET", "", 200, "Pragma: no-cache\n" FRESH, NULL, 60,
        META_EXPLICIT },
    { "7.3", "GET", "", 200, FRESH "\nSet-Cookie: a=b", NULL, 60, META_EXPLICIT },
    { "7.3, only a guess", "GET", "", 200, GUESS "\nSet-Cookie: a=b", "set-cookie", 0, 0 },
    { "7.3, only to validate", "GET", "", 200, "Date: @0\nETag: \"a\"\nSet-Cookie: a=b",
        "set-cookie", 0, 0 },
    { "7.3, nothing said", "GET", "", 200, "Date: @0\nSet-Cookie: a=b", "set-cookie", 0, 0 },
    { "7.3, of another kind", "GET", "", 200, GUESS "\nClear-Site-Data: \"cookies\"",
        "clear-site-data", 0, 0 },
    { "7.3, public", "GET", "", 200, GUESS "\nCache-Control: public\nSet-Cookie: a=b", NULL, 3600,
        META_HEURISTIC | META_SHARED_AUTH },
    { "7.3, Expires", "GET", "", 200, "Date: @0\nExpires: @10\nSet-Cookie: a=b", NULL, 10,
        META_EXPLICIT },
    { "7.3, the status goes first", "GET", "", 500, "Date: @0\nSet-Cookie: a=b", "status", 0, 0 },
    { "3, nothing said", "GET", "", 200, "Date: @0", "no-freshness", 0, 0 },
    { "3, to validate", "GET", "", 200, "Date: @0\nETag: \"a\"", NULL, 0, 0 },
    { "3, malformed tag", "GET", "", 200, "Date: @0\nETag: a", "no-freshness", 0, 0 },
    { "3, useless", "GET", "", 200, "Cache-Control: max-age=0", "no-freshness", 0, 0 },
    { "RFC 5861 4", "GET", "", 200, "Cache-Control: max-age=0, stale-if-error=9", NULL, 0,
        META_EXPLICIT },
    { "3, useless", "GET", "", 200, "Cache-Control: s-maxage=0, stale-if-error=9", "no-freshness",
        0, 0 },
    /* Authorization */
#define AUTH "Authorization: Bearer x"
    { "3.5", "GET", AUTH, 200, FRESH, "authorization", 0, 0 },
    { "3.5", "GET", AUTH, 200, GUESS, "authorization", 0, 0 },
    { "3.5", "GET", AUTH, 200, FRESH ", public", NULL, 60, META_EXPLICIT | META_SHARED_AUTH },
    { "3.5", "GET", AUTH, 200, FRESH ", must-revalidate", NULL, 60,
        META_EXPLICIT | META_SHARED_AUTH | META_MUST_REVALIDATE },
    { "3.5", "GET", AUTH, 200, FRESH ", s-maxage=5", NULL, 5,
        META_EXPLICIT | META_SHARED_AUTH | META_MUST_REVALIDATE },
    { "3.5", "GET", AUTH, 200, FRESH ", proxy-revalidate", "authorization", 0, 0 },
    { "3.5", "GET", AUTH, 200, FRESH ", public=x", "authorization", 0, 0 },
    { "3.5", "GET", AUTH, 200, FRESH ", public, private", "private", 0, 0 },
    { "5.2.2.8", "GET", "", 200, FRESH ", proxy-revalidate", NULL, 60,
        META_EXPLICIT | META_MUST_REVALIDATE },
    /* precedence of what says how long */
    { "4.2.1, s-maxage first", "GET", "", 200, "Cache-Control: max-age=1, s-maxage=3600", NULL,
        3600, META_EXPLICIT | META_MUST_REVALIDATE | META_SHARED_AUTH },
    { "4.2.1, s-maxage first", "GET", "", 200,
        "Cache-Control: max-age=3600\nCache-Control: s-maxage=1", NULL, 1,
        META_EXPLICIT | META_MUST_REVALIDATE | META_SHARED_AUTH },
    { "4.2.1, s-maxage first", "GET", "", 200,
        "Expires: @-10\nCache-Control: max-age=0, s-maxage=9", NULL, 9,
        META_EXPLICIT | META_MUST_REVALIDATE | META_SHARED_AUTH },
    { "4.2.1, max-age over Expires", "GET", "", 200,
        "Date: @0\nExpires: @-7200\nCache-Control: max-age=3600", NULL, 3600, META_EXPLICIT },
    { "4.2.1, max-age over Expires", "GET", "", 200,
        "Date: @0\nExpires: 0\nCache-Control: max-age=3600", NULL, 3600, META_EXPLICIT },
    { "4.2.1, max-age over Expires", "GET", "", 200,
        "Date: @0\nETag: \"a\"\nExpires: @3600\nCache-Control: max-age=0", NULL, 0, META_EXPLICIT },
    { "5.3", "GET", "", 200, "Date: @0\nExpires: @2592000", NULL, 2592000, META_EXPLICIT },
    { "5.3", "GET", "", 200, "Date: @-10\nExpires: @10", NULL, 20, META_EXPLICIT },
    { "5.3, Date ahead", "GET", "", 200, "Date: @10\nExpires: @20", NULL, 10, META_EXPLICIT },
    { "5.3, Date absent", "GET", "", 200, "Expires: @10", NULL, 10, META_EXPLICIT },
    { "5.3, Date invalid", "GET", "", 200, "Date: foo\nExpires: @10", NULL, 10, META_EXPLICIT },
#define TAG "ETag: \"a\"\n"
    { "5.3, past", "GET", "", 200, TAG "Date: @0\nExpires: @-1", NULL, 0, META_EXPLICIT },
    { "5.3, present", "GET", "", 200, TAG "Date: @0\nExpires: @0", NULL, 0, META_EXPLICIT },
    { "5.3, older than Date", "GET", "", 200, TAG "Date: @400\nExpires: @300", NULL, 0,
        META_EXPLICIT },
    { "5.3, zero", "GET", "", 200, TAG "Date: @0\nExpires: 0", NULL, 0, META_EXPLICIT },
    { "5.3, minus one", "GET", "", 200, TAG "Date: @0\nExpires: -1", NULL, 0, META_EXPLICIT },
    { "5.3, no date", "GET", "", 200, TAG "Date: @0\nExpires: soon", NULL, 0, META_EXPLICIT },
    { "5.3, empty", "GET", "", 200, TAG "Date: @0\nExpires:", NULL, 0, META_EXPLICIT },
    { "5.3, UTC", "GET", "", 200, TAG "Expires: Thu, 18 Aug 2050 02:01:18 UTC", NULL, 0,
        META_EXPLICIT },
    { "5.3, dashes", "GET", "", 200, TAG "Expires: Thu, 18-Aug-2050 02:01:18 GMT", NULL, 0,
        META_EXPLICIT },
    { "5.3, no heuristic beside it", "GET", "", 200, GUESS "\nExpires: 0", NULL, 0, META_EXPLICIT },
    { "4.2.1, several that differ", "GET", "", 200, TAG "Date: @0\nExpires: @10\nExpires: @20",
        NULL, 0, META_EXPLICIT },
    { "4.2.1, the same twice", "GET", "", 200, "Date: @0\nExpires: @10\nExpires: @10", NULL, 10,
        META_EXPLICIT },
    { "5.3, asctime", "GET", "", 200, "Date: @0\nExpires: Tue Nov 14 22:14:20 2023", NULL, 60,
        META_EXPLICIT },
    { "5.3, RFC 850", "GET", "", 200, "Date: @0\nExpires: Tuesday, 14-Nov-23 22:14:20 GMT", NULL,
        60, META_EXPLICIT },
    { "1.2.2", "GET", "", 200, "Cache-Control: max-age=99999999999", NULL, 2147483648LL,
        META_EXPLICIT },
    { "4.2.1, negative", "GET", "", 200, TAG "Cache-Control: max-age=-3600", NULL, 0,
        META_EXPLICIT },
    /* heuristics */
    { "4.2.2, a tenth", "GET", "", 200, "Date: @0\nLast-Modified: @-86400", NULL, 8640,
        META_HEURISTIC },
    { "4.2.2, at most a day", "GET", "", 200, "Date: @0\nLast-Modified: @-31536000", NULL, DAY,
        META_HEURISTIC },
    { "4.2.2, changed later than made", "GET", "", 200, "Date: @0\nLast-Modified: @60", NULL, 0,
        0 },
    { "4.2.2, against Date", "GET", "", 200, "Date: @-1000\nLast-Modified: @-2000", NULL, 100,
        META_HEURISTIC },
    { "4.2.2, no Date", "GET", "", 200, "Last-Modified: @-1000", NULL, 100, META_HEURISTIC },
    { "4.2.2, beside no-cache", "GET", "", 200, GUESS "\nCache-Control: no-cache", NULL, 3600,
        META_HEURISTIC | META_NO_CACHE },
    { "4.2.2, beside must-revalidate", "GET", "", 200, GUESS "\nCache-Control: must-revalidate",
        NULL, 3600, META_HEURISTIC | META_MUST_REVALIDATE | META_SHARED_AUTH },
};

static void
responses_are_stored_as_the_clauses_say(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(store_cases); i++) {
        const struct store_case *c = &store_cases[i];
        struct sem_request rq = asked(c->method, c->request);
        struct sem_meta m = { .status = 7 };
        const char *why = "unset";
        bool stored = sem_store(&rq, response_of(&h, c->status, c->response), &no_rules, NOW_MS,
            NOW_MS, &m, &why);

        if (stored != (c->why == NULL) ||
            strcmp(why != NULL ? why : "", c->why != NULL ? c->why : ""))
            fail_msg("%s: %s %u %s: %s", c->clause, c->method, c->status, c->response,
                why != NULL ? why : "stored");
        if (!stored)
            assert_int_equal(m.status, 7);      /* nothing changed */
        else if (m.lifetime_ms != c->lifetime_s * 1000 || m.flags != c->flags ||
            m.status != (c->status == 206 ? 200 : c->status))
            fail_msg("%s: %u %s: lifetime %lld flags %x", c->clause, c->status, c->response,
                (long long)m.lifetime_ms, m.flags);
    }
}

/* ---- what a route adds --------------------------------------------------------------------- */

static const struct sem_status_ttl negative[] = { { 404, 10000 }, { 503, 1000 }, { 302, 5000 } };

static const struct rule_case {
    const char *what, *request;
    unsigned    status;
    const char *response;
    struct sem_rules rules;
    const char *why;
    int64_t     lifetime_ms;
    unsigned    flags;
    int32_t     swr, sie;
} rule_cases[] = {
#define RULES(ttl, force, swr, sie, heuristic) \
    { ttl, force, swr, sie, heuristic, negative, NELEM(negative), { NULL, 0 }, { NULL, 0 } }
#define TTL RULES(7000, -1, -1, -1, true)
#define FORCE RULES(-1, 9000, -1, -1, true)
    { "ttl where nothing is said", "", 200, "Date: @0", TTL, NULL, 7000, 0, -1, -1 },
    { "ttl before heuristics", "", 200, GUESS, TTL, NULL, 7000, 0, -1, -1 },
    { "not over max-age", "", 200, FRESH, TTL, NULL, 60000, META_EXPLICIT, -1, -1 },
    { "not over max-age=0", "", 200, TAG "Cache-Control: max-age=0", TTL, NULL, 0, META_EXPLICIT,
        -1, -1 },
    { "not over a past Expires", "", 200, TAG "Expires: 0", TTL, NULL, 0, META_EXPLICIT, -1, -1 },
    { "not over private", "", 200, "Cache-Control: private", TTL, "private", 0, 0, 0, 0 },
    { "not over no-store", "", 200, "Cache-Control: no-store", TTL, "no-store", 0, 0, 0, 0 },
    { "not over no-cache", "", 200, TAG "Cache-Control: no-cache", TTL, NULL, 7000, META_NO_CACHE,
        -1, -1 },
    { "not over Authorization", AUTH, 200, "Date: @0", TTL, "authorization", 0, 0, 0, 0 },
    { "beside public", AUTH, 200, "Cache-Control: public", TTL, NULL, 7000, META_SHARED_AUTH, -1,
        -1 },
    { "not for errors", "", 405, "Date: @0", TTL, "no-freshness", 0, 0, 0, 0 },
    { "not for what is not heuristic", "", 201, "Date: @0", TTL, "status", 0, 0, 0, 0 },
    { "not for 500", "", 500, "Date: @0", TTL, "status", 0, 0, 0, 0 },
    { "a redirect that is", "", 301, "Date: @0", TTL, NULL, 7000, 0, -1, -1 },
    { "not over a cookie", "", 200, "Date: @0\nSet-Cookie: a=b", TTL, "set-cookie", 0, 0, 0, 0 },
    { "a cookie beside public", "", 200, "Cache-Control: public\nSet-Cookie: a=b", TTL, NULL, 7000,
        META_SHARED_AUTH, -1, -1 },
    { "negative ttl not over a cookie", "", 404, "Date: @0\nSet-Cookie: a=b", TTL, "set-cookie", 0,
        0, 0, 0 },
    { "force over a cookie", "", 200, "Date: @0\nSet-Cookie: a=b", FORCE, NULL, 9000,
        META_FORCED | META_SHARED_AUTH, -1, -1 },
    { "negative ttl", "", 404, "Date: @0", TTL, NULL, 10000, 0, -1, -1 },
    { "negative ttl of any status named", "", 503, "Date: @0", TTL, NULL, 1000, 0, -1, -1 },
    { "negative ttl, redirect", "", 302, "Date: @0", TTL, NULL, 5000, 0, -1, -1 },
    { "negative ttl not over max-age", "", 404, FRESH, TTL, NULL, 60000, META_EXPLICIT, -1, -1 },
    { "negative ttl not over no-store", "", 404, "Cache-Control: no-store", TTL, "no-store", 0, 0,
        0, 0 },
    { "no heuristics when off", "", 200, GUESS, RULES(-1, -1, -1, -1, false), NULL, 0, 0, -1, -1 },
    { "force over private", "", 200, "Cache-Control: private", FORCE, NULL, 9000,
        META_FORCED | META_SHARED_AUTH, -1, -1 },
    { "force over no-store", "", 200, "Cache-Control: no-store", FORCE, NULL, 9000,
        META_FORCED | META_SHARED_AUTH, -1, -1 },
    { "force over no-cache", "", 200, "Cache-Control: no-cache", FORCE, NULL, 9000,
        META_FORCED | META_SHARED_AUTH, -1, -1 },
    { "force over must-revalidate", "", 200, FRESH ", must-revalidate", FORCE, NULL, 9000,
        META_FORCED | META_SHARED_AUTH, -1, -1 },
    { "force over Authorization", AUTH, 200, FRESH, FORCE, NULL, 9000,
        META_FORCED | META_SHARED_AUTH, -1, -1 },
    { "force not over Vary: *", "", 200, FRESH "\nVary: *", FORCE, "vary", 0, 0, 0, 0 },
    { "force not over 206", "", 206, FRESH, FORCE, "status", 0, 0, 0, 0 },
    { "force not over 304", "", 304, FRESH, FORCE, "status", 0, 0, 0, 0 },
    { "force not over 103", "", 103, FRESH, FORCE, "status", 0, 0, 0, 0 },
    { "force not for unknown statuses", "", 299, "Date: @0", FORCE, "status", 0, 0, 0, 0 },
    { "force not for errors", "", 500, "Cache-Control: private", FORCE, "private", 0, 0, 0, 0 },
    { "force not over the client's no-store", "Cache-Control: no-store", 200, FRESH, FORCE,
        "request-no-store", 0, 0, 0, 0 },
    { "stale windows where nothing is said", "", 200, FRESH, RULES(-1, -1, 3000, 4000, true), NULL,
        60000, META_EXPLICIT, 3, 4 },
    { "not over what is said", "", 200, FRESH ", stale-while-revalidate=1, stale-if-error=2",
        RULES(-1, -1, 3000, 4000, true), NULL, 60000, META_EXPLICIT, 1, 2 },
    { "zero is said", "", 200, FRESH ", stale-while-revalidate=0", RULES(-1, -1, 3000, -1, true),
        NULL, 60000, META_EXPLICIT, 0, -1 },
    { "parts of a second round up", "", 200, FRESH, RULES(-1, -1, 500, -1, true), NULL, 60000,
        META_EXPLICIT, 1, -1 },
    { "ttl 0 with nothing else", "", 200, "Date: @0", RULES(0, -1, -1, -1, true), "no-freshness", 0,
        0, 0, 0 },
    { "ttl 0 to be served stale", "", 200, "Date: @0", RULES(0, -1, 5000, -1, true), NULL, 0, 0, 5,
        -1 },
};

static void
a_route_adds_where_the_origin_says_nothing(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(rule_cases); i++) {
        const struct rule_case *c = &rule_cases[i];
        struct sem_request rq = asked("GET", c->request);
        struct sem_meta m = { 0 };
        const char *why = "unset";
        bool stored = sem_store(&rq, response_of(&h, c->status, c->response), &c->rules, NOW_MS,
            NOW_MS, &m, &why);

        if (stored != (c->why == NULL) ||
            strcmp(why != NULL ? why : "", c->why != NULL ? c->why : ""))
            fail_msg("%s: %s", c->what, why != NULL ? why : "stored");
        if (stored && (m.lifetime_ms != c->lifetime_ms || m.flags != c->flags ||
            m.swr_s != c->swr ||
            m.sie_s != c->sie))
            fail_msg("%s: lifetime %lld flags %x swr %d sie %d", c->what, (long long)m.lifetime_ms,
                m.flags, m.swr_s, m.sie_s);
    }
}

/* ---- age ----------------------------------------------------------------------------------- */

static const struct age_case {
    const char *clause, *response;
    int64_t     sent_ms, came_ms;       /* relative to NOW_MS */
    int64_t     initial_ms, date_ms;    /* expected; date relative to NOW_MS */
} age_cases[] = {
    { "4.2.3", "Date: @0", 0, 0, 0, 0 },
    { "4.2.3, apparent age", "Date: @-30", 0, 0, 30000, -30000 },
    { "4.2.3, Date ahead", "Date: @30", 0, 0, 0, 30000 },
    { "4.2.3, no Date", "X: y", 0, 0, 0, 0 },
    { "4.2.3, response delay", "Date: @0\nAge: 5", -2000, 0, 7000, 0 },
    { "4.2.3, delay without Age", "Date: @0", -2000, 0, 2000, 0 },
    { "4.2.3, the larger", "Date: @-30\nAge: 5", -2000, 0, 30000, -30000 },
    { "4.2.3, the larger", "Date: @-3\nAge: 5", -2000, 0, 7000, -3000 },
    { "4.2.3, parts of a second", "Date: @0", 900, 900, 0, 0 },
    { "4.2.3, clock set back", "Date: @0", 5000, 0, 0, 0 },
    { "5.1", "Date: @0\nAge: 7200", 0, 0, 7200000, 0 },
    { "5.1, no number", "Date: @0\nAge: abc", 0, 0, 0, 0 },
    { "5.1, negative", "Date: @0\nAge: -7200", 0, 0, 0, 0 },
    { "5.1, fraction", "Date: @0\nAge: 7200.0", 0, 0, 0, 0 },
    { "5.1, parameter", "Date: @0\nAge: 7200;a=b", 0, 0, 0, 0 },
    { "5.1, quoted", "Date: @0\nAge: \"7200\"", 0, 0, 0, 0 },
    { "5.1, empty", "Date: @0\nAge:", 0, 0, 0, 0 },
    { "5.1, list", "Date: @0\nAge: 7200, 0", 0, 0, 7200000, 0 },
    { "5.1, list", "Date: @0\nAge: 0, 7200", 0, 0, 0, 0 },
    { "5.1, list", "Date: @0\nAge: x, 7200", 0, 0, 0, 0 },
    { "5.1, lines", "Date: @0\nAge: 7200\nAge: 0", 0, 0, 7200000, 0 },
    { "5.1, lines", "Date: @0\nAge: 0\nAge: 7200", 0, 0, 0, 0 },
    { "5.1, lines", "Date: @0\nAge: 0\nAge: 0", 0, 0, 0, 0 },
    { "1.2.2", "Date: @0\nAge: 2147483647", 0, 0, 2147483647000, 0 },
    { "1.2.2", "Date: @0\nAge: 2147483649", 0, 0, 2147483648000, 0 },
    { "1.2.2", "Date: @0\nAge: 99999999999999999999", 0, 0, 2147483648000, 0 },
};

static void
age_is_counted_as_4_2_3_says(void **state)
{
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(age_cases); i++) {
        const struct age_case *c = &age_cases[i];
        struct sem_request rq = asked("GET", "");
        char lines[256];
        struct sem_meta m;
        const char *why;

        snprintf(lines, sizeof lines, "Cache-Control: max-age=60\n%s", c->response);
        assert_true(sem_store(&rq, response_of(&h, 200, lines), &no_rules, NOW_MS + c->sent_ms,
            NOW_MS + c->came_ms, &m, &why));
        if (m.age_ms != c->initial_ms || m.date_ms != NOW_MS + (c->date_ms != 0 ? c->date_ms :
            strstr(c->response, "Date") != NULL ? 0 : c->came_ms))
            fail_msg("%s: %s: age %lld date %lld", c->clause, c->response, (long long)m.age_ms,
                (long long)(m.date_ms - NOW_MS));
        /* it grows with the time it is kept, and never shrinks when the clock does */
        assert_int_equal(sem_age_ms(&m, NOW_MS + c->came_ms + 1500), c->initial_ms + 1500);
        assert_int_equal(sem_age_ms(&m, NOW_MS + c->came_ms - 9000), c->initial_ms);
    }
}

/* ---- by a route's promise, and as the answer to a GET -------------------------------------- */

static void
what_is_safe_by_a_promise_is_stored_with_freshness_that_is_said(void **state)
{
    static const struct { const char *response; struct sem_rules rules; const char *why; } t[] = {
        { FRESH, RULES(-1, -1, -1, -1, true), NULL },
        { "Date: @0\nExpires: @9", RULES(-1, -1, -1, -1, true), NULL },
        { GUESS, RULES(-1, -1, -1, -1, true), "no-freshness" },
        { TAG "Cache-Control: no-cache, max-age=9", RULES(-1, -1, -1, -1, true), "no-cache" },
        { TAG "Date: @0", RULES(-1, -1, -1, 5000, true), "no-freshness" },
        { TAG "Cache-Control: max-age=0", RULES(-1, -1, -1, -1, true), "no-freshness" },
        { "Cache-Control: max-age=0, stale-if-error=9", RULES(-1, -1, -1, -1, true), NULL },
        { GUESS, TTL, NULL }, { "Cache-Control: no-store", TTL, "no-store" },
        { "Cache-Control: no-store", FORCE, NULL }, { "Date: @0\nSet-Cookie: a=b", TTL, "set-cookie" },
    };
    struct head h;

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++) {
        struct sem_request rq = asked("POST", "");
        struct sem_meta m;
        const char *why;

        rq.content = rq.promised = true;
        (void)sem_store(&rq, response_of(&h, 200, t[i].response), &t[i].rules, NOW_MS, NOW_MS, &m,
            &why);
        assert_string_equal(why != NULL ? why : "", t[i].why != NULL ? t[i].why : "");
    }
}

static void
an_answer_to_a_post_is_one_to_a_get_with_freshness_of_the_origins_own(void **state)
{
    static const struct {
        const char *request; unsigned status; const char *response; int64_t lifetime_s;
    } t[] = {                           /* -1: it is not */
        { "", 200, FRESH, 60 }, { "", 201, FRESH, 60 }, { "", 202, FRESH, -1 },
        { "", 204, FRESH, -1 }, { "", 303, FRESH, -1 }, { "", 404, FRESH, -1 },
        { "", 200, GUESS, -1 }, { "", 200, TAG "Date: @0", -1 }, { "", 201, "Date: @0", -1 },
        { "", 200, TAG "Cache-Control: max-age=0", -1 },
        { "", 200, TAG "Cache-Control: max-age=9, no-cache", -1 },
        { "", 200, "Cache-Control: max-age=9, private", -1 },
        { "", 200, "Cache-Control: max-age=9, no-store", -1 }, { "", 200, FRESH "\nVary: *", -1 },
        { "Cache-Control: no-store", 200, FRESH, -1 }, { AUTH, 200, FRESH, -1 },
        { AUTH, 200, "Cache-Control: s-maxage=9", 9 },
        { "If-Match: \"a\"", 200, FRESH, 60 },
    };
    const struct sem_rules forced = FORCE, ttl = TTL;
    struct head h;
    struct sem_meta m;

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++) {
        struct sem_request rq = asked("POST", t[i].request);
        bool is = sem_store_as_get(&rq, response_of(&h, t[i].status, t[i].response), &ttl, false,
            NOW_MS, NOW_MS, &m);

        assert_int_equal(is, t[i].lifetime_s >= 0);
        if (is) {
            assert_int_equal(m.status, 200);
            assert_int_equal(m.lifetime_ms, t[i].lifetime_s * 1000);
        }
        if (is && t[i].request[0] == '\0') {
            assert_true(sem_store_as_get(&rq, response_of(&h, t[i].status, t[i].response), &forced,
                false, NOW_MS, NOW_MS, &m));
            assert_int_equal(m.lifetime_ms, 9000);      /* as that of a GET would be */
        }
    }
}

static void
where_what_the_rules_assume_counts_a_write_leaves_what_a_get_would_have_stored(void **state)
{
    static const struct { const char *response; int64_t lifetime_s; } t[] = {
        { FRESH, 60 }, { "Date: @0", 5 }, { TAG "Cache-Control: max-age=0", 0 },
        { "Cache-Control: no-store", -1 }, { "Cache-Control: private", -1 },
        { "Set-Cookie: a=b", -1 }, { "Vary: *", -1 },
    };
    const struct sem_rules ttl = { .ttl_ms = 5000, .force_ttl_ms = -1, .swr_ms = -1, .sie_ms = -1 };
    struct head h;
    struct sem_meta m;

    (void)state;
    for (size_t i = 0; i < NELEM(t); i++) {
        struct sem_request rq = asked("PUT", "");
        bool is = sem_store_as_get(&rq, response_of(&h, 201, t[i].response), &ttl, true, NOW_MS,
            NOW_MS, &m);

        assert_int_equal(is, t[i].lifetime_s >= 0);
        if (is) {
            assert_int_equal(m.status, 200);
            assert_int_equal(m.lifetime_ms, t[i].lifetime_s * 1000);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(responses_are_stored_as_the_clauses_say),
        cmocka_unit_test(a_route_adds_where_the_origin_says_nothing),
        cmocka_unit_test(age_is_counted_as_4_2_3_says),
        cmocka_unit_test(what_is_safe_by_a_promise_is_stored_with_freshness_that_is_said),
        cmocka_unit_test(an_answer_to_a_post_is_one_to_a_get_with_freshness_of_the_origins_own),
        cmocka_unit_test(
            where_what_the_rules_assume_counts_a_write_leaves_what_a_get_would_have_stored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
