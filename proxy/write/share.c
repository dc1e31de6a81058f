/*
 * Opening and closing a shared journal, its thread and its queue.
 *
 * Model    one thread, on a loop of its own with a client of Redis of its own, whose one connection
 *          to a server keeps the order of what is sent. What any thread asks for is queued and
 *          sent, pipelined, one script each; `done` is called when its answer came. Where Redis
 *          cannot be reached the journal is open all the same: it says so, takes nothing, and looks
 *          again each second.
 * Threads  share_open, share_close: one. share_do, share_owns, share_fence, share_left: any.
 */
#include "write/share.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define UNDER_WAY_MAX 4096
#define QUEUE_BYTES   (256u << 20)      /* contents of what is under way */

/* ---- the queue ------------------------------------------------------------------------------- */

/* What is ready, in its order; a CALL when everything before it was answered. What is asked for
 * before it is known how Redis is waits for that. */
void
share_pump(struct share *s)
{
    struct journal_op *op;

    if (s->pumping || !s->tried)
        return;
    s->pumping = true;
    while ((op = s->ready) != NULL && s->under_way < UNDER_WAY_MAX) {
        if (op->kind == JOURNAL_CALL && s->under_way > 0)
            break;
        s->ready = op->next;
        if (s->ready == NULL)
            s->ready_end = &s->ready;
        s->under_way++;
        if (op->kind == JOURNAL_CALL)
            share_op_over(s, op);
        else
            share_begin(s, op);
    }
    s->pumping = false;
    if (s->closing && s->ready == NULL && s->under_way == 0)
        share_give_all(s);
}

void
share_op_over(struct share *s, struct journal_op *op)
{
    s->under_way--;
    s->operations++;
    op->done(op);
    share_pump(s);
}

static void
take_queue(struct share *s)
{
    pthread_mutex_lock(&s->mtx);
    *s->ready_end = s->queue;
    if (s->queue != NULL)
        s->ready_end = s->queue_end;
    s->queue = NULL;
    s->queue_end = &s->queue;
    s->kicked = false;
    pthread_mutex_unlock(&s->mtx);
    pthread_mutex_lock(&s->j->mtx);
    s->limits = s->j->limits;
    pthread_mutex_unlock(&s->j->mtx);
}

static void
run_kick(struct loop_msg *m)
{
    struct share *s = CONTAINER(m, struct share, kick);

    take_queue(s);
    share_pump(s);
}

void
share_do(struct share *s, struct journal_op *op)
{
    bool kick;

    op->next = NULL;
    if (op->kind == JOURNAL_UPDATE && !op->by_verb && op->fence == 0)
        op->fence = share_fence(s, journal_part(op->row.seq));
    pthread_mutex_lock(&s->mtx);
    *s->queue_end = op;
    s->queue_end = &op->next;
    kick = !s->kicked;
    s->kicked = true;
    pthread_mutex_unlock(&s->mtx);
    if (kick)
        loop_post(s->loop, &s->kick);
}

/* ---- what any thread may ask ----------------------------------------------------------------- */

bool
share_owns(struct share *s, unsigned part)
{
    return now_us() < atomic_load(&s->parts[part % JOURNAL_PARTS].until_us);
}

uint64_t
share_fence(struct share *s, unsigned part)
{
    return atomic_load(&s->parts[part % JOURNAL_PARTS].token);
}

void
share_left(struct share *s, unsigned part)
{
    struct share_part *p = &s->parts[part % JOURNAL_PARTS];

    if (!atomic_exchange(&p->left_posted, true))
        loop_post(s->loop, &p->left);
}

static void
run_leave(struct loop_msg *m)
{
    share_round(CONTAINER(m, struct share, leave));
}

void
share_leave(struct share *s)
{
    if (!atomic_exchange(&s->leaving, true))
        loop_post(s->loop, &s->leave);
}

/* ---- figures --------------------------------------------------------------------------------- */

void
share_takes(struct share *s, const char *why)
{
    if (why == s->why)
        return;
    if (why != NULL)
        log_error("journal %s: it takes no writes: %s", s->j->path, why);
    else
        log_info("journal %s: it takes writes", s->j->path);
    s->why = why;
}

static const char *
no_room(const struct share *s)
{
    if (s->sum.pending >= s->limits.depth)
        return "the journal holds as many pending writes as journal.depth allows";
    if (s->sum.bytes + 4096 > (uint64_t)s->limits.size)
        return "the journal has reached journal.size";
    return NULL;
}

void
share_publish(struct share *s)
{
    const char *why = s->why != NULL ? s->why : s->barred != NULL ? s->barred : no_room(s);
    struct journal_figures f = s->sum;

    f.pending += s->added;              /* settled ones among them too, for a second */
    f.bytes += (uint64_t)s->added_bytes;
    f.takes = s->looked && why == NULL;
    snprintf(f.why, sizeof f.why, "%s", why != NULL ? why : f.takes ? "" :
        "Redis was not reached yet");
    f.room = f.bytes < (uint64_t)s->limits.size ? (uint64_t)s->limits.size - f.bytes : 0;
    f.commits = (uint64_t)s->commits;
    f.operations = (uint64_t)s->operations;
    f.commit_us = (uint64_t)s->commit_us;
    f.lost = s->lost;
    pthread_mutex_lock(&s->j->mtx);
    s->j->figures = f;
    s->published++;
    pthread_cond_broadcast(&s->j->wake);
    pthread_mutex_unlock(&s->j->mtx);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void
on_wake(void *arg, struct slice what)
{
    struct share *s = arg;
    uint64_t n;

    if (slice_u64(what, &n) && n < JOURNAL_PARTS)
        news_read(&s->parts[n]);
    else
        share_round(s);
}

static void
on_wake_lost(void *arg)
{
    share_round(arg);
}

static void
on_again(void *arg)
{
    share_call_again(arg);
}

static void
on_tick(void *arg)
{
    share_round(arg);
}

static void
run_begin(struct loop_msg *m)
{
    struct share *s = CONTAINER(m, struct share, begin);
    char channel[SHARE_PREFIX + 32];

    timer_init(&s->again_timer, s->loop, on_again, s);
    timer_init(&s->tick, s->loop, on_tick, s);
    timer_init(&s->expire, s->loop, share_expire, s);
    snprintf(channel, sizeof channel, "%swake", s->parts[SHARE_FLEET].key);
    s->wake = redis_subscribe(s->redis, slice_of(channel), on_wake, on_wake_lost, s);
    share_expire(s);
    share_round(s);
}

static void
run_end(struct loop_msg *m)
{
    struct share *s = CONTAINER(m, struct share, end);

    take_queue(s);
    s->closing = s->tried = true;
    timer_clear(&s->tick);
    share_pump(s);
}

static void *
run_thread(void *arg)
{
    struct share *s = arg;

    loop_run(s->loop);
    return NULL;
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* A name that people find again, made unique by chance. */
static void
make_name(struct share *s)
{
    char host[65] = "";
    uint64_t chance;

    random_bytes(&chance, sizeof chance);
    gethostname(host, sizeof host - 1);
    for (char *c = host; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '.')
            *c = '-';
    snprintf(s->name, sizeof s->name, "%s-%016llx", host[0] != '\0' ? host : "weir",
        (unsigned long long)chance);
}

static int
make_sums(struct share *s, struct err *e)
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n;

    for (size_t i = 0; i < SHARE_SCRIPTS; i++) {
        if (EVP_Digest(share_lua[i], strlen(share_lua[i]), sum, &n, EVP_sha1(), NULL) != 1 ||
            n != 20)
            return err_set(e, ENOMEM, "journal: SHA-1 cannot be had");
        for (unsigned k = 0; k < n; k++)
            snprintf(s->sha[i] + 2 * k, 3, "%02x", sum[k]);
    }
    return 0;
}

static void
make_parts(struct share *s)
{
    for (unsigned i = 0; i <= JOURNAL_PARTS; i++) {
        struct share_part *p = &s->parts[i];

        p->s = s;
        p->n = i;
        p->left.run = share_run_left;
        if (i == SHARE_FLEET)
            snprintf(p->key, sizeof p->key, "%s{j}", s->prefix);
        else
            snprintf(p->key, sizeof p->key, "%s{j%u}", s->prefix, i);
    }
}

static struct share *
new_share(const struct share_options *o, struct journal *j, const struct journal_found *found)
{
    struct share *s = calloc(1, sizeof *s);

    if (s == NULL)
        return NULL;
    s->j = j;
    s->o = *o;
    s->o.redis = NULL;
    s->found = *found;
    s->queue_end = &s->queue;
    s->ready_end = &s->ready;
    s->limits = j->limits;
    s->kick.run = run_kick;
    s->begin.run = run_begin;
    s->end.run = run_end;
    s->leave.run = run_leave;
    pthread_mutex_init(&s->mtx, NULL);
    snprintf(s->prefix, sizeof s->prefix, "%s", o->prefix);
    make_name(s);
    make_parts(s);
    random_bytes(s->candidate, sizeof s->candidate);
    return s;
}

struct share *
share_prepare(const struct share_options *o, struct journal *j, const struct journal_found *found,
    struct err *e)
{
    struct share *s = new_share(o, j, found);
    struct redis_conf redis = *o->redis;

    redis.pool = 1;                     /* the order of what is sent */
    redis.queue = QUEUE_BYTES;
    if (s == NULL) {
        err_set(e, ENOMEM, "journal: memory is out");
        return NULL;
    }
    if (make_sums(s, e) == -1 || (s->loop = loop_new(0, e)) == NULL ||
        (s->redis = redis_new(&redis, &s->loop, 1, e)) == NULL)
        share_close(&s);
    return s;
}

struct share *
share_open(const struct share_options *o, struct journal *j, const struct journal_found *found,
    struct err *e)
{
    struct share *s = share_prepare(o, j, found, e);
    int rc;

    if (s == NULL)
        return NULL;
    share_publish(s);
    rc = pthread_create(&s->thread, NULL, run_thread, s);
    if (rc != 0) {
        err_set(e, rc, "journal: no thread: %s", strerror(rc));
        share_close(&s);
        return NULL;
    }
    s->running = true;
    loop_post(s->loop, &s->begin);
    return s;
}

void
share_await(struct share *s, int64_t within_us)
{
    int64_t until_us = now_us() + within_us;
    struct timespec until = { until_us / 1000000, until_us % 1000000 * 1000 };

    pthread_mutex_lock(&s->j->mtx);
    while (s->published < 2 &&          /* the first was before it began */
        pthread_cond_timedwait(&s->j->wake, &s->j->mtx, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&s->j->mtx);
}

void
share_close(struct share **sp)
{
    struct share *s = *sp;

    *sp = NULL;
    if (s->running) {
        loop_post(s->loop, &s->end);
        pthread_join(s->thread, NULL);
    }
    redis_unsubscribe(&s->wake);
    redis_free(&s->redis);
    timer_fini(&s->again_timer);
    timer_fini(&s->tick);
    timer_fini(&s->expire);
    loop_free(&s->loop);
    for (unsigned i = 0; i < JOURNAL_PARTS; i++)
        news_end(&s->parts[i]);
    for (struct share_secret *k = s->secrets, *next; k != NULL; k = next) {
        next = k->next;
        free(k);
    }
    for (struct share_orphan *o = s->orphans, *next; o != NULL; o = next) {
        next = o->next;
        free(o);
    }
    free(s->live);
    pthread_mutex_destroy(&s->mtx);
    free(s);
}
