/*
 * The decisions of semantics/ for cases on stdin, one line of answers each, for test_model.py.
 *
 * Model    a case is a line of numbers and words, and behind it the field lines of four heads: the
 *          request that brought the response, the response, a later request, a 304. A line "."
 *          ends a batch: what was decided goes out.
 * Threads  one.
 * Not here what is right (model.py).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "semantics/semantics.h"

enum { FIRST, RESPONSE, LATER, FRESHENED, HEADS };

struct head {
    struct http_head  h;
    struct http_field fields[64];
    char             *text;         /* no byte longer: a sanitizer sees what is read beyond it */
};

struct in {
    char     method[16], later[16];
    unsigned status;
    int      soft, promised;            /* promised: the route says that POST is safe */
    int64_t  request_ms, response_ms, now_ms;
    struct sem_rules rules;
    struct sem_status_ttl negative[4];
    struct head head[HEADS];
};

static const struct slice targets[] = { { "Weir-Cache-Control", 18 }, { "CDN-Cache-Control", 17 } };

static void
bad(const char *what)
{
    fprintf(stderr, "driver: %s\n", what);
    exit(2);
}

static int64_t
number(void)
{
    int64_t v;

    if (scanf("%" SCNd64, &v) != 1)
        bad("a number is missing");
    return v;
}

static void
read_head(struct head *to, size_t n)
{
    to->text = malloc(n + (n == 0));
    if (to->text == NULL || fread(to->text, 1, n, stdin) != n)
        bad("a head is short");
    to->h = (struct http_head){ .cap = NELEM(to->fields), .fields = to->fields, .minor = 1 };
    if (http_parse_fields(to->text, n, &to->h) != 0)
        bad("a head is malformed");
}

static void
read_case(struct in *in)
{
    size_t n[HEADS];

    if (scanf("%15s %15s", in->method, in->later) != 2)
        bad("a method is missing");
    in->status = (unsigned)number();
    in->soft = (int)number();
    in->promised = (int)number();
    in->request_ms = number();
    in->response_ms = number();
    in->now_ms = number();
    in->rules.ttl_ms = number();
    in->rules.force_ttl_ms = number();
    in->rules.swr_ms = number();
    in->rules.sie_ms = number();
    in->rules.heuristic = number() != 0;
    in->rules.targets = (struct sem_names){ targets, (size_t)number() };
    if (in->rules.targets.n > NELEM(targets))
        bad("too many targeted fields");
    in->rules.negative = in->negative;
    in->rules.nnegative = (size_t)number();
    if (in->rules.nnegative > NELEM(in->negative))
        bad("too many statuses");
    for (size_t i = 0; i < in->rules.nnegative; i++) {
        in->negative[i].status = (unsigned)number();
        in->negative[i].ttl_ms = number();
    }
    for (size_t i = 0; i < HEADS; i++)
        n[i] = (size_t)number();
    if (getchar() != '\n')
        bad("a line does not end");
    for (size_t i = 0; i < HEADS; i++)
        read_head(&in->head[i], n[i]);
    in->head[RESPONSE].h.status = in->status;
    in->head[FRESHENED].h.status = 304;
    in->head[FIRST].h.method_name = slice_of(in->method);
    in->head[FIRST].h.method = http_method(slice_of(in->method));
    in->head[LATER].h.method_name = slice_of(in->later);
    in->head[LATER].h.method = http_method(slice_of(in->later));
}

static void
read_request(const struct in *in, const struct http_head *h, struct sem_request *rq)
{
    sem_request_read(h, rq);
    if (in->promised && h->method == HTTP_POST)
        rq->content = rq->promised = true;
}

static void
print_stored(const struct in *in, const struct sem_meta *m)
{
    static const char *const verdicts[] = { "fresh", "stale", "behind", "part", "validate",
        "cannot" };
    const struct http_head *later = &in->head[LATER].h;
    struct slice etag = http_value(&in->head[RESPONSE].h, HF_ETAG);
    struct sem_request rq;
    const char *why = NULL;

    read_request(in, later, &rq);
    if (!sem_etag_valid(etag))
        etag = (struct slice){ NULL, 0 };
    printf(" lifetime=%" PRId64 " age=%" PRId64, m->lifetime_ms, sem_age_ms(m, in->now_ms));
    printf(" use=%s", verdicts[sem_use(&rq, m, in->now_ms, in->soft, &why)]);
    printf(" error=%d", sem_stale_on_error(&rq, m, in->now_ms));
    printf(" condition=%d", sem_not_modified(later, etag, m->last_modified_s, m->date_ms / 1000,
        in->now_ms / 1000));
    printf(" range=%d", sem_if_range(later, etag, m->last_modified_s, m->date_ms / 1000,
        in->now_ms / 1000));
}

static void
print_vary(const struct in *in)
{
    struct buf names = { 0 }, first = { 0 }, later = { 0 };
    bool any = sem_vary(&in->head[RESPONSE].h, &names);

    if (any) {
        sem_variant(buf_slice(&names), &in->head[FIRST].h, &first);
        sem_variant(buf_slice(&names), &in->head[LATER].h, &later);
    }
    printf(" match=%d vary=%.*s", any && slice_eq(buf_slice(&first), buf_slice(&later)),
        SLICE_ARG(buf_slice(&names)));
    buf_free(&names);
    buf_free(&first);
    buf_free(&later);
}

/* Of a head that is the answer to a HEAD, or a 206: does it agree with the stored response, may parts
 * of both be combined? */
static void
print_later_answer(const struct in *in, const struct sem_meta *m)
{
    const struct http_head *r = &in->head[RESPONSE].h, *f = &in->head[FRESHENED].h;
    int64_t now_s = in->response_ms / 1000, date = http_date(http_value(f, HF_DATE), now_s);
    struct sem_validator ours = { http_value(r, HF_ETAG), m->last_modified_s, m->date_ms / 1000 };
    struct sem_validator theirs = { http_value(f, HF_ETAG),
        http_date(http_value(f, HF_LAST_MODIFIED), now_s), date != HTTP_NO_DATE ? date : now_s };
    uint64_t length;
    bool has = slice_u64(http_value(f, HF_CONTENT_LENGTH), &length);

    printf(" head=%d joins=%d", sem_head_agrees(r, 5, f, has ? (int64_t)length : -1),
        sem_same_strong(&ours, &theirs));
}

/* A digit for each field line, in order. */
static void
print_fields(const struct in *in)
{
    const struct http_head *r = &in->head[RESPONSE].h, *f = &in->head[FRESHENED].h;
    struct sem_cc cc;

    sem_cc_response(r, &in->rules, &cc);
    printf(" keeps=");
    for (size_t i = 0; i < r->nfields; i++)
        putchar(sem_keeps(r, &cc, &r->fields[i]) ? '1' : '0');
    printf(" freshens=%d updates=", sem_304_selects(r, f));
    sem_cc_response(f, &in->rules, &cc);
    for (size_t i = 0; i < f->nfields; i++)
        putchar(sem_304_updates(f, &cc, &f->fields[i]) ? '1' : '0');
}

static void
decide(const struct in *in)
{
    struct sem_request rq, later;
    struct sem_meta m, as_get;
    const char *why = NULL, *unused = NULL;

    read_request(in, &in->head[FIRST].h, &rq);
    read_request(in, &in->head[LATER].h, &later);
    bool stored = sem_store(&rq, &in->head[RESPONSE].h, &in->rules, in->request_ms,
        in->response_ms, &m, &why);

    printf("store=%d why=%s reusable=%d invalidates=%d", stored,
        stored ? "" : why != NULL ? why : "NULL", sem_request_cacheable(&later, &unused),
        sem_invalidates(in->head[FIRST].h.method, in->status));
    printf(" as_get=%d", sem_store_as_get(&rq, &in->head[RESPONSE].h, &in->rules, false,
        in->request_ms, in->response_ms, &as_get));
    print_vary(in);
    print_fields(in);
    if (stored) {
        print_stored(in, &m);
        print_later_answer(in, &m);
    }
    putchar('\n');
}

int
main(void)
{
    static struct in in;
    static char out[1 << 20];
    int c;

    setvbuf(stdout, out, _IOFBF, sizeof out);
    while ((c = getchar()) != EOF) {
        if (c == '.') {
            if (getchar() != '\n' || fflush(stdout) != 0)
                return 1;
            continue;
        }
        ungetc(c, stdin);
        read_case(&in);
        decide(&in);
        for (size_t i = 0; i < HEADS; i++)
            free(in.head[i].text);
    }
    return 0;
}
