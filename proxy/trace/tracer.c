/*
 * Batches of spans, to the collector.
 *
 * Model    spans are added to the last batch; one that has BATCH_BYTES is full, and the next
 *          begins. Once a second, and at once while there is a full one, the first batch is sent:
 *          one POST at a time. A failure that may pass (no answer, 429, 502, 503, 504: OTLP 1,
 *          "Failures") is tried again, after a wait that doubles or what Retry-After says, until
 *          the batch has failed for GIVE_UP_US; any other answer drops it. A 200 may say that some
 *          spans were rejected.
 * Threads  as trace.h says; what is not under mtx is the loop's.
 */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "trace/inside.h"

#define SECOND_US   INT64_C(1000000)
#define BATCH_BYTES (256u << 10)
#define GIVE_UP_US  (120 * SECOND_US)
#define BACKOFF_US  (60 * SECOND_US)    /* most */
#define WAIT_MAX_US (300 * SECOND_US)   /* of what Retry-After says */
#define DRAIN_US    (2 * SECOND_US)     /* a process that ends waits for it so long */
#define REPLY_MAX   65536

struct batch {
    struct batch *next;
    struct buf    json;
    unsigned      spans;
};

struct tracer {
    uint32_t        magic;
#define TRACER_MAGIC 0x7ace0000u
    struct loop    *loop;
    struct origin  *origin;             /* owned reference */
    uint64_t        share;
    size_t          queue;              /* most bytes */
    char           *path, *host;        /* owned */
    struct buf      fields, open;       /* of each export: its field lines, what is before spans */

    pthread_mutex_t mtx;
    struct batch   *first, **last;      /* owned; under mtx, the rest too */
    size_t          bytes;              /* of those, and of the one under way */
    bool            posted;             /* wake is on its way */
    bool            draining, idle;     /* idle: nothing more is tried */
    int64_t         drain_until_us;

    struct loop_msg wake;
    struct timer    timer;
    struct exchange *x;                 /* owned */
    struct batch   *sending;            /* owned: it is under way, or waits to be tried again */
    unsigned        status;
    int64_t         retry_after_ms;
    struct buf      reply;
    unsigned        failures;           /* of `sending`, */
    int64_t         failed_us;          /* ... since */
    int64_t         not_before_us;
};

static void send_next(struct tracer *tr);

uint64_t
tracer_share(const struct tracer *tr)
{
    return tr->share;
}

/* ---- adding: any thread ---------------------------------------------------------------------- */

/* Room for so many bytes, in the last batch or a new one. NULL: the queue is full, or memory is
 * out. Under mtx. */
static struct batch *
room_for(struct tracer *tr, size_t n)
{
    struct batch *b = tr->first == NULL ? NULL : CONTAINER(tr->last, struct batch, next);

    if (tr->bytes + n > tr->queue)
        return NULL;
    if (b != NULL && b->json.n < BATCH_BYTES)
        return b;
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    *tr->last = b;
    tr->last = &b->next;
    return b;
}

static void
add(struct tracer *tr, struct slice spans, unsigned n)
{
    struct batch *b;
    bool post = false;

    pthread_mutex_lock(&tr->mtx);
    b = room_for(tr, spans.n + 1);
    if (b != NULL && buf_reserve(&b->json, spans.n + 1) != NULL) {
        tr->bytes -= b->json.n;
        if (b->json.n > 0)
            buf_addc(&b->json, ',');
        buf_adds(&b->json, spans);
        b->spans += n;
        tr->bytes += b->json.n;
        post = (b->json.n >= BATCH_BYTES || tr->draining) && !tr->posted;
        tr->posted = tr->posted || post;
        n = 0;
    } else if (b != NULL) {
        b->json.failed = false;
    }
    pthread_mutex_unlock(&tr->mtx);
    COUNT_N(trace_dropped, n);
    if (post)
        loop_post(tr->loop, &tr->wake);
}

void
trace_put(struct tracer *tr, const struct trace *t, struct slice tracestate,
    const struct stats_access *a)
{
    struct buf spans = { 0 };
    struct timespec now;
    unsigned n;

    CHECK(tr, TRACER_MAGIC);
    clock_gettime(CLOCK_REALTIME, &now);
    n = otlp_spans(&spans, t, t->parent != 0 ? tracestate : (struct slice){ NULL, 0 }, a,
        (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    if (spans.failed)
        COUNT_N(trace_dropped, n);
    else
        add(tr, buf_slice(&spans), n);
    buf_free(&spans);
}

/* ---- the batch under way: the loop ----------------------------------------------------------- */

static void
batch_free(struct batch **bp)
{
    struct batch *b = *bp;

    *bp = NULL;
    if (b == NULL)
        return;
    buf_free(&b->json);
    free(b);
}

/* The one that was being sent is done with. */
static void
let_go(struct tracer *tr)
{
    pthread_mutex_lock(&tr->mtx);
    tr->bytes -= tr->sending->json.n;
    pthread_mutex_unlock(&tr->mtx);
    batch_free(&tr->sending);
    tr->failures = 0;
    tr->not_before_us = 0;
}

static void
drop(struct tracer *tr, const char *why)
{
    static struct log_limit limit;

    COUNT_N(trace_dropped, tr->sending->spans);
    log_limited(&limit, LOG_WARN, "traces: %u spans are dropped: %s (trace.origin, %s)",
        tr->sending->spans, why, tr->path);
    let_go(tr);
}

/* It may pass: once more, later. */
static void
later(struct tracer *tr, const char *why)
{
    static struct log_limit limit;
    unsigned shift = tr->failures < 6 ? tr->failures : 6;
    int64_t wait = SECOND_US << shift, now = now_us();
    bool draining;

    pthread_mutex_lock(&tr->mtx);
    tr->idle = draining = tr->draining;
    pthread_mutex_unlock(&tr->mtx);
    if (tr->failures++ == 0)
        tr->failed_us = now;
    if (draining || now - tr->failed_us > GIVE_UP_US) {
        drop(tr, why);
        return;
    }
    log_limited(&limit, LOG_WARN, "traces: %s; tried again (trace.origin, %s)", why, tr->path);
    wait = wait < BACKOFF_US ? wait : BACKOFF_US;
    wait -= (int64_t)(random_fast() % (uint64_t)(wait / 2));
    if (tr->retry_after_ms >= 0)
        wait = tr->retry_after_ms * 1000 < WAIT_MAX_US ? tr->retry_after_ms * 1000 : WAIT_MAX_US;
    tr->not_before_us = now + wait;
}

/* "partialSuccess" of a 200: how many it did not take. */
static unsigned
rejected(const struct tracer *tr)
{
    json_t *doc = tr->reply.n > 0 ? json_loadb(tr->reply.p, tr->reply.n, 0, NULL) : NULL;
    json_t *n = json_object_get(json_object_get(doc, "partialSuccess"), "rejectedSpans");
    uint64_t many = 0;

    if (json_is_string(n))              /* 64-bit numbers are texts */
        slice_u64((struct slice){ json_string_value(n), json_string_length(n) }, &many);
    else if (json_integer_value(n) > 0)
        many = (uint64_t)json_integer_value(n);
    json_decref(doc);
    return many < tr->sending->spans ? (unsigned)many : tr->sending->spans;
}

static void
taken(struct tracer *tr)
{
    static struct log_limit limit;
    unsigned not = rejected(tr);

    COUNT_N(trace_spans, tr->sending->spans - not);
    COUNT_N(trace_dropped, not);
    if (not > 0)
        log_limited(&limit, LOG_WARN, "traces: the collector rejected %u of %u spans", not,
            tr->sending->spans);
    let_go(tr);
}

static bool
may_pass(unsigned status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

static void
on_head(void *arg, const struct http_head *h)
{
    struct tracer *tr = arg;

    tr->status = h->status;
    tr->retry_after_ms = http_retry_after(h, wall_ms());
}

static void
on_data(void *arg, struct slice data)
{
    struct tracer *tr = arg;

    if (tr->reply.n + data.n <= REPLY_MAX)
        buf_adds(&tr->reply, data);
}

static void
on_end(void *arg, struct slice trailer)
{
    struct tracer *tr = arg;
    char why[64];

    (void)trailer;
    exchange_cancel(&tr->x);
    snprintf(why, sizeof why, "the collector answered %u", tr->status);
    if (tr->status >= 200 && tr->status < 300)
        taken(tr);
    else if (may_pass(tr->status))
        later(tr, why);
    else
        drop(tr, why);
    send_next(tr);
}

static void
on_fault(void *arg, const struct exchange_fault *f)
{
    struct tracer *tr = arg;

    exchange_cancel(&tr->x);
    tr->retry_after_ms = -1;
    later(tr, f->detail);
    send_next(tr);
}

/* ---- sending --------------------------------------------------------------------------------- */

/* The first batch that waits, if it is time for it: a full one at once, any by the timer. */
static struct batch *
take(struct tracer *tr, bool any)
{
    struct batch *b;

    pthread_mutex_lock(&tr->mtx);
    b = tr->first;
    if (b != NULL && !any && !tr->draining && b->json.n < BATCH_BYTES)
        b = NULL;
    if (b != NULL) {
        tr->first = b->next;
        if (tr->first == NULL)
            tr->last = &tr->first;
    }
    tr->idle = b == NULL && tr->draining;
    pthread_mutex_unlock(&tr->mtx);
    return b;
}

static void
post(struct tracer *tr)
{
    static const struct exchange_events events = { .on_head = on_head, .on_data = on_data,
        .on_end = on_end, .on_fault = on_fault };
    const struct exchange_request q = { .method = HTTP_POST, .method_name = SLICE("POST"),
        .target = slice_of(tr->path), .host = slice_of(tr->host),
        .fields = buf_slice(&tr->fields), .body = HTTP_LENGTH,
        .length = tr->open.n + tr->sending->json.n + sizeof OTLP_CLOSE - 1,
        .first_byte_ms = CONF_UNSET, .between_bytes_ms = CONF_UNSET };

    tr->status = 0;
    tr->retry_after_ms = -1;
    tr->reply.n = 0;
    tr->x = exchange_start(tr->origin, tr->loop, &q, &events, tr);
    if (tr->x == NULL) {
        later(tr, "memory is out");
        return;
    }
    exchange_send(tr->x, buf_slice(&tr->open));
    exchange_send(tr->x, buf_slice(&tr->sending->json));
    exchange_send(tr->x, SLICE(OTLP_CLOSE));
    exchange_send_end(tr->x, (struct slice){ NULL, 0 });
}

static void
send_one(struct tracer *tr, bool any)
{
    if (tr->x != NULL || now_us() < tr->not_before_us)
        return;
    if (tr->sending == NULL)
        tr->sending = take(tr, any);
    if (tr->sending != NULL)
        post(tr);
}

static void
send_next(struct tracer *tr)
{
    send_one(tr, false);
}

static void
on_timer(void *arg)
{
    struct tracer *tr = arg;

    send_one(tr, true);
    timer_set(&tr->timer, SECOND_US);
}

static void
on_wake(struct loop_msg *m)
{
    struct tracer *tr = CONTAINER(m, struct tracer, wake);
    bool draining;

    pthread_mutex_lock(&tr->mtx);
    tr->posted = false;
    draining = tr->draining;
    pthread_mutex_unlock(&tr->mtx);
    if (draining && tr->x == NULL && tr->sending != NULL)
        tr->not_before_us = 0;          /* what waited is tried a last time */
    send_next(tr);
}

bool
tracer_drain(struct tracer *tr)
{
    bool idle, post_it;

    if (tr == NULL)
        return true;
    pthread_mutex_lock(&tr->mtx);
    if (!tr->draining)
        tr->drain_until_us = now_us() + DRAIN_US;
    tr->draining = true;
    idle = (tr->idle && tr->first == NULL) || now_us() >= tr->drain_until_us;
    post_it = !idle && !tr->posted;
    tr->posted = tr->posted || post_it;
    pthread_mutex_unlock(&tr->mtx);
    if (post_it)
        loop_post(tr->loop, &tr->wake);
    return idle;
}

/* ---- life ------------------------------------------------------------------------------------ */

static void
put_fields(struct buf *b, const struct conf_fields *f)
{
    buf_addz(b, "Content-Type: application/json\r\nUser-Agent: weir/" WEIR_VERSION "\r\n");
    for (size_t i = 0; i < f->n; i++)
        buf_printf(b, "%s: %s\r\n", f->at[i].name, f->at[i].value);
}

struct tracer *
tracer_open(const struct conf *c, struct origin *o, struct loop *l, struct err *e)
{
    struct tracer *tr = calloc(1, sizeof *tr);
    const char *host = strstr(c->trace_to->servers.at[0].text, "://");

    err_set(e, ENOMEM, "traces: out of memory");
    if (tr == NULL)
        return NULL;
    tr->magic = TRACER_MAGIC;
    tr->loop = l;
    tr->origin = origin_ref(o);
    tr->share = c->trace_sample >= 1 ? UINT64_MAX : (uint64_t)(c->trace_sample * 0x1p64);
    tr->queue = (size_t)c->trace_queue;
    tr->path = strdup(c->trace_path);
    tr->host = strdup(host != NULL ? host + 3 : "");
    tr->last = &tr->first;
    tr->wake.run = on_wake;
    pthread_mutex_init(&tr->mtx, NULL);
    put_fields(&tr->fields, &c->trace_fields);
    otlp_open(&tr->open, c->trace_service);
    if (tr->path == NULL || tr->host == NULL || tr->fields.failed || tr->open.failed ||
        timer_init(&tr->timer, l, on_timer, tr) == -1 || timer_set(&tr->timer, SECOND_US) == -1) {
        tracer_close(&tr);
        return NULL;
    }
    stats_access_want(ACCESS_TRACED, true);
    return tr;
}

void
tracer_close(struct tracer **tp)
{
    struct tracer *tr = *tp;

    *tp = NULL;
    if (tr == NULL)
        return;
    CHECK(tr, TRACER_MAGIC);
    stats_access_want(ACCESS_TRACED, false);
    exchange_cancel(&tr->x);
    timer_fini(&tr->timer);
    if (tr->sending != NULL)
        drop(tr, "the process ends");
    while ((tr->sending = tr->first) != NULL) {
        tr->first = tr->sending->next;
        drop(tr, "the process ends");
    }
    origin_unref(&tr->origin);
    buf_free(&tr->fields);
    buf_free(&tr->open);
    buf_free(&tr->reply);
    free(tr->path);
    free(tr->host);
    pthread_mutex_destroy(&tr->mtx);
    tr->magic = 0;
    free(tr);
}
