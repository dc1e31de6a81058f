/*
 * Coded forms: what a route compresses is compressed once, behind the answer that stored it.
 *
 * Model    the origin is asked for identity, and identity is what is stored: ranges, tags of the
 *          body and validation are about it. When it is stored its object goes into a queue; one
 *          thread of low priority codes it in each of the route's codings and hangs on the object
 *          what saves a tenth or more (store_add_forms). Until then clients have identity; after
 *          that a hit sends bytes that are there. Varnish compresses while it fetches, keeps gzip
 *          alone and unpacks it at each delivery that needs it; nginx compresses each answer anew.
 *          A full queue drops what comes: an object that missed its turn stays as it is until
 *          it is fetched or validated again.
 * Heads    a form has the identity's fields but for Content-Encoding, its own length and tag, no
 *          digest of other bytes (Content-Digest, Repr-Digest, Digest, Content-MD5), and no
 *          Accept-Ranges: ranges are cut out of the identity.
 * Tags     a strong tag is suffixed ("abc" is "abc-br"), as Apache and Caddy have it, and taken
 *          back from the conditions of requests (request/form.c). nginx weakens it instead; by a
 *          weak tag no client can write: If-Match never holds (RFC 9110 13.1.1). A weak tag
 *          of the origin's stays.
 * Vary     all responses that the route would code say Vary: Accept-Encoding, in whichever form
 *          they go out, so that caches in front keep the forms apart (12.5.5).
 * Never    what is coded already (dictionary codings of RFC 9842 above all), what says no-transform
 *          (RFC 9111 5.2.2.6), varies on Available-Dictionary, or is a part.
 * Threads  compress_later: any. The queue is under mtx; coding holds no lock, but a reference.
 */
#include "fill/compress.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fill/coder.h"
#include "stats/stats.h"

#define QUEUE_MAX 4096                  /* objects, each held by a reference */
#define NICE      10

struct job {
    struct job    *next;
    struct object *o;                   /* owned reference */
    size_t         n;
    uint8_t        codings[SEM_CODINGS];
};

struct compressor {
    uint32_t        magic;
#define COMPRESSOR_MAGIC 0xc0ded000u
    struct store   *store;              /* borrowed */
    atomic_bool     stop;
    pthread_mutex_t mtx;
    pthread_cond_t  cond;
    pthread_t       thread;             /* under mtx: */
    bool            started;
    struct job     *first, **last;
    size_t          queued;
};

/* ---- which --------------------------------------------------------------------------------- */

static bool
has_type(const struct route_compress *z, const struct http_head *h)
{
    struct slice rest = http_value(h, HF_CONTENT_TYPE), type;

    if (rest.p == NULL || !slice_cut(&rest, ';', &type))
        return false;
    type = slice_trim(type);
    for (size_t i = 0; i < z->types->n && type.n > 0; i++)
        if (slice_iglob(slice_of(z->types->at[i]), type))
            return true;
    return false;
}

/* Would the route code this response, as far as its head tells? */
static bool
fits(const struct route_compress *z, const struct http_head *h)
{
    struct sem_cc cc;

    if (z->n == 0 || h->status < 200 || h->status == 204 || h->status == 205 ||
        h->status == 304 || sem_coded(h) ||
        http_list_has(h, HF_VARY, SLICE("Available-Dictionary")))
        return false;
    sem_cc_read(h, &cc);
    return !(cc.flags & CC_NO_TRANSFORM) && has_type(z, h);
}

bool
compress_misfit(const struct route *route, const struct http_head *h)
{
    return (http_list_has(h, HF_CONTENT_ENCODING, SLICE("dcb")) ||
        http_list_has(h, HF_CONTENT_ENCODING, SLICE("dcz"))) &&
        (route->compress.n > 0 || !http_list_has(h, HF_VARY, SLICE("Accept-Encoding")) ||
        !http_list_has(h, HF_VARY, SLICE("Available-Dictionary")));
}

/* fields has room for HTTP_FIELDS_MAX. */
static bool
parsed(struct slice head, size_t status_n, unsigned status, struct http_head *h,
    struct http_field *fields)
{
    *h = (struct http_head){ .fields = fields, .cap = HTTP_FIELDS_MAX, .status = (uint16_t)status };
    return http_parse_fields(head.p + status_n, head.n - status_n, h) == 0;
}

static struct slice
head_of(const struct object *o)
{
    return (struct slice){ o->head->bytes, o->head->n };
}

void
compress_vary(const struct route *route, unsigned status, size_t status_n, struct buf *b)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h;

    if (route->compress.n == 0 || b->failed ||
        !parsed(buf_slice(b), status_n, status, &h, fields) || !fits(&route->compress, &h) ||
        http_list_has(&h, HF_VARY, SLICE("Accept-Encoding")) ||
        http_list_has(&h, HF_VARY, SLICE("*")))
        return;
    http_put_id(b, HF_VARY, http_name(HF_ACCEPT_ENCODING));
}

/* ---- heads --------------------------------------------------------------------------------- */

static void
put_etag(struct buf *b, struct slice etag, enum sem_coding c, struct store_parts *p)
{
    char *to = buf_reserve(b, sizeof "ETag: \r\n" + etag.n + SEM_CODED_MORE);
    size_t n = to != NULL ? sem_etag_coded(etag, c, to + 6) : 0;

    if (n == 0 || p->etag_n > 0)
        return;
    memcpy(to, "ETag: ", 6);
    memcpy(to + 6 + n, "\r\n", 2);
    p->etag_at = (uint32_t)(b->n + 6);
    p->etag_n = (uint32_t)n;
    b->n += n + 8;
}

/* Adds the form with this body to forms: the identity's head `h`, as the form has it. */
static int
add_form(struct forms *forms, enum sem_coding c, struct slice status, const struct http_head *h,
    struct body *body)
{
    struct store_parts p = { .status_n = (uint32_t)status.n, .body = body };
    struct buf b = { 0 };
    int rc = -1;

    buf_adds(&b, status);
    for (unsigned i = 0; i < h->nfields; i++) {
        if (h->fields[i].id == HF_ETAG)
            put_etag(&b, h->fields[i].value, c, &p);
        else if (!sem_about_bytes(&h->fields[i]))
            http_put(&b, h->fields[i].name, h->fields[i].value);
    }
    http_put_id(&b, HF_CONTENT_ENCODING, sem_coding_name(c));
    buf_addz(&b, "Content-Length: ");
    buf_addu(&b, body_size(body));
    buf_addz(&b, "\r\n");
    p.head = buf_slice(&b);
    if (!b.failed)
        rc = forms_add(forms, c, &p);
    buf_free(&b);
    return rc;
}

struct forms *
compress_again(const struct route *route, const struct object *was, struct slice head,
    size_t status_n)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    const struct forms *old = rcu_load(&was->forms);
    struct forms *forms;
    struct http_head h;

    if (old == NULL || !parsed(head, status_n, was->meta.status, &h, fields) ||
        !fits(&route->compress, &h) || (forms = forms_new()) == NULL)
        return NULL;
    for (size_t i = 0; i < old->n; i++)
        if (add_form(forms, old->at[i].coding, (struct slice){ head.p, status_n }, &h,
                old->at[i].body) == -1) {
            forms_free(&forms);
            break;
        }
    return forms;
}

/* ---- coding --------------------------------------------------------------------------------- */

struct coded {
    struct compressor *c;
    struct body *body;                  /* owned */
    uint64_t max, held;
};
enum { USELESS = 1, NO_ROOM, STOPPED };

/* The thread's own held is the sum over the forms: each body's bytes are held while it grows. */
static int
take(void *arg, struct slice out)
{
    struct coded *z = arg;

    if (atomic_load_explicit(&z->c->stop, memory_order_relaxed))
        return STOPPED;
    if (body_size(z->body) + out.n > z->max)
        return USELESS;
    if (out.n == 0)
        return 0;
    if (body_append(z->body, out) == -1 ||
        !store_hold(z->c->store, &z->held, body_held(z->body)))
        return NO_ROOM;
    return 0;
}

/* One form of o more, in forms; its bytes are held in *held. */
static int
code(struct compressor *c, struct object *o, enum sem_coding coding, struct forms *forms,
    uint64_t *held)
{
    struct http_field fields[HTTP_FIELDS_MAX];
    uint64_t size = body_size(o->body);
    struct coded z = { .c = c, .body = body_new(0), .max = size - size / 10 };
    struct http_head h;
    int rc = z.body != NULL ? encode(coding, o->body, take, &z) : NO_ROOM;

    if (rc == 0) {
        body_seal(z.body);
        store_hold(c->store, &z.held, body_held(z.body));
        if (!parsed(head_of(o), o->head->status_n, o->meta.status, &h, fields) ||
            add_form(forms, coding, (struct slice){ o->head->bytes, o->head->status_n }, &h,
                z.body) == -1)
            rc = NO_ROOM;
    }
    if (rc == 0)
        *held += z.held;                /* now of all forms together */
    else
        store_hold(c->store, &z.held, 0);
    if (z.body != NULL)
        body_unref(&z.body);
    return rc;
}

static void
run_job(struct compressor *c, struct job *j)
{
    struct forms *forms = forms_new();
    uint64_t held = 0;
    int rc = 0;

    if (forms == NULL || !store_wants_forms(c->store, j->o))
        j->n = 0;                       /* it was purged, evicted or replaced in the meantime */
    for (size_t i = 0; i < j->n && rc != STOPPED; i++) {
        rc = code(c, j->o, j->codings[i], forms, &held);
        if (rc == USELESS)
            COUNT(compress_useless);
        else if (rc != 0 && rc != STOPPED)
            COUNT(compress_dropped);
    }
    if (rc != STOPPED && forms != NULL && forms->n > 0) {
        size_t n = forms->n;
        enum store_result r = store_add_forms(c->store, j->o, &forms, &held);

        if (r == STORE_STORED)
            COUNT_N(compressed, n);
        else if (r != STORE_PURGED)
            COUNT_N(compress_dropped, n);
    }
    store_hold(c->store, &held, 0);
    forms_free(&forms);
}

static void
job_free(struct job *j)
{
    object_unref(&j->o);
    free(j);
}

static void *
work(void *arg)
{
    struct compressor *c = arg;

    setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);    /* of this thread alone, on Linux */
    rcu_enter_thread();
    pthread_mutex_lock(&c->mtx);
    while (!atomic_load(&c->stop)) {
        struct job *j = c->first;

        if (j == NULL) {
            pthread_cond_wait(&c->cond, &c->mtx);
            continue;
        }
        if ((c->first = j->next) == NULL)
            c->last = &c->first;
        c->queued--;
        pthread_mutex_unlock(&c->mtx);
        run_job(c, j);
        job_free(j);
        pthread_mutex_lock(&c->mtx);
    }
    pthread_mutex_unlock(&c->mtx);
    rcu_leave_thread();
    return NULL;
}

/* ---- the queue ------------------------------------------------------------------------------- */

/* Takes j over; false: it does not. The thread is started with the first. */
static bool
enqueue(struct compressor *c, struct job *j)
{
    bool ok;

    pthread_mutex_lock(&c->mtx);
    if (!c->started)
        c->started = pthread_create(&c->thread, NULL, work, c) == 0;
    ok = c->started && c->queued < QUEUE_MAX;
    if (ok) {
        *c->last = j;
        c->last = &j->next;
        c->queued++;
        pthread_cond_signal(&c->cond);
    }
    pthread_mutex_unlock(&c->mtx);
    return ok;
}

void
compress_later(struct compressor *c, const struct route *route, struct object *o)
{
    const struct route_compress *z = &route->compress;
    struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h;
    struct job *j;

    if (z->n == 0 || body_size(o->body) < z->min || (o->meta.flags & META_PARTIAL) ||
        !parsed(head_of(o), o->head->status_n, o->meta.status, &h, fields) || !fits(z, &h))
        return;
    if ((j = malloc(sizeof *j)) != NULL) {
        *j = (struct job){ .o = object_ref(o), .n = z->n };
        memcpy(j->codings, z->codings, z->n);
        if (enqueue(c, j))
            return;
        job_free(j);
    }
    COUNT_N(compress_dropped, z->n);
}

struct compressor *
compressor_new(struct store *s)
{
    struct compressor *c = calloc(1, sizeof *c);

    if (c == NULL)
        return NULL;
    c->magic = COMPRESSOR_MAGIC;
    c->store = s;
    c->last = &c->first;
    pthread_mutex_init(&c->mtx, NULL);
    pthread_cond_init(&c->cond, NULL);
    return c;
}

void
compressor_free(struct compressor **cp)
{
    struct compressor *c = *cp;

    *cp = NULL;
    if (c == NULL)
        return;
    CHECK(c, COMPRESSOR_MAGIC);
    pthread_mutex_lock(&c->mtx);
    atomic_store(&c->stop, true);
    pthread_cond_signal(&c->cond);
    pthread_mutex_unlock(&c->mtx);
    if (c->started)
        pthread_join(c->thread, NULL);
    for (struct job *j = c->first, *next; j != NULL; j = next) {
        next = j->next;
        job_free(j);
    }
    pthread_mutex_destroy(&c->mtx);
    pthread_cond_destroy(&c->cond);
    c->magic = 0;
    free(c);
}
