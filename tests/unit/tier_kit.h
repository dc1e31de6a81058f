/*
 * What the tests of the tiers share: a directory, a store, a tier, a loop that asks it.
 */
#ifndef WEIR_TEST_TIER_KIT_H
#define WEIR_TEST_TIER_KIT_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_util.h"
#include "tier/disk.h"

#define MIB ((int64_t)1 << 20)

struct bench {
    char          dir[64];
    int64_t       size;
    int64_t       memory;               /* 0: 64 MiB */
    struct store *s;
    struct tiers *t;
    struct loop  *loop;
    pthread_t     thread;
};

static inline void *
run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

static inline bool
bench_open_e(struct bench *b, struct err *e)
{
    const struct tier_options o = { .disk_path = b->dir, .disk_size = b->size,
        .disk_max_object = MIB };

    b->s = store_new(b->memory != 0 ? b->memory : 64 * MIB, 4, NULL);
    b->t = tiers_open(&o, b->s, e);
    if (b->t == NULL) {
        store_free(&b->s);
        return false;
    }
    b->loop = loop_new(0, NULL);
    assert_int_equal(pthread_create(&b->thread, NULL, run_loop, b->loop), 0);
    return true;
}

static inline void
bench_open(struct bench *b)
{
    struct err e;

    if (!bench_open_e(b, &e))
        fail_msg("%s", e.text);
}

static inline void
bench_close(struct bench *b)
{
    loop_stop(b->loop);
    pthread_join(b->thread, NULL);
    tiers_close(&b->t);
    loop_free(&b->loop);
    store_free(&b->s);
}

static inline void
bench_restart(struct bench *b)
{
    bench_close(b);
    bench_open(b);
}

static inline void
bench_make(struct bench *b, int64_t size)
{
    *b = (struct bench){ .dir = "/tmp/weir-tier-XXXXXX", .size = size };
    assert_non_null(mkdtemp(b->dir));
}

static inline int
remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static inline void
bench_remove(struct bench *b)
{
    nftw(b->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline int
setup(void **state)
{
    struct bench *b = malloc(sizeof *b);

    bench_make(b, 32 * MIB);
    bench_open(b);
    *state = b;
    return 0;
}

static inline int
teardown(void **state)
{
    struct bench *b = *state;

    if (b->s != NULL)
        bench_close(b);
    bench_remove(b);
    free(b);
    return 0;
}

#define BENCH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static inline char *
in_dir(const struct bench *b, const char *name)
{
    static char path[4][512];
    static unsigned turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof path[0], "%s/%s", b->dir, name);
    return p;
}

/* ---- putting -------------------------------------------------------------------------------- */

struct keep {
    const char *key, *body, *language, *tags[4];
    struct slice groups[4];
    uint64_t route_id, stamp;
    size_t body_n;                      /* instead of body: so many bytes of 'x' */
    int64_t lifetime_ms;                /* 0: a day */
    int64_t response_ms;                /* 0: now */
};

static inline struct body *
body_from(const char *text, size_t n)
{
    struct body *body = body_new(n);

    assert_non_null(body);
    assert_int_equal(body_append(body, (struct slice){ text, n }), 0);
    body_seal(body);
    return body;
}

/* Into memory, and what it became. */
static inline enum store_result
keep_in(struct store *s, struct keep k, struct object **out)
{
    struct test_key key;
    struct test_request rq;
    struct buf head = { 0 }, variant = { 0 };
    struct slice tags[4];
    size_t n = k.body != NULL ? strlen(k.body) : k.body_n;
    char *bytes = malloc(n + 1);
    struct store_parts p = { .key = key_fill(&key, k.key), .status_n = 17, .tags = tags,
        .groups = k.groups, .route_id = k.route_id,
        .stamp = k.stamp != 0 ? k.stamp : store_stamp(s),
        .meta = { .status = 200, .last_modified_s = HTTP_NO_DATE, .swr_s = -1, .sie_s = -1,
            .lifetime_ms = k.lifetime_ms != 0 ? k.lifetime_ms : 86400000,
            .response_ms = k.response_ms != 0 ? k.response_ms : wall_ms() } };
    enum store_result r;

    memset(bytes, 'x', n + 1);
    if (k.body != NULL)
        memcpy(bytes, k.body, n);
    p.meta.date_ms = p.meta.response_ms;
    p.body = body_from(bytes, n);
    buf_printf(&head, HEAD_TEXT "Content-Length: %zu\r\n", n);
    p.head = buf_slice(&head);
    while (p.ntags < 4 && k.tags[p.ntags] != NULL) {
        tags[p.ntags] = slice_of(k.tags[p.ntags]);
        p.ntags++;
    }
    while (p.ngroups < 4 && k.groups[p.ngroups].p != NULL)
        p.ngroups++;
    if (k.language != NULL) {
        p.vary = SLICE("accept-language");
        sem_variant(p.vary, request_fill(&rq, k.language), &variant);
        p.variant = buf_slice(&variant);
    }
    r = store_put(s, &p, out);
    body_unref(&p.body);
    buf_free(&head);
    buf_free(&variant);
    free(bytes);
    return r;
}

/* ... and to the tier. What memory evicted may be in readers' hands for a moment yet, and is no room
 * until then. */
static inline void
keep_one(struct bench *b, struct keep k)
{
    struct object *o = NULL;
    enum store_result r;

    while ((r = keep_in(b->s, k, &o)) == STORE_NO_MEMORY)
        usleep(500);
    assert_int_equal(r, STORE_STORED);
    tier_put(b->t, o);
    object_unref(&o);
}

#define KEEP(b, ...) keep_one((b), (struct keep){ __VA_ARGS__ })

/* ---- asking --------------------------------------------------------------------------------- */

enum answer { AT_ONCE, NOTHING, FOUND };
struct question {
    struct loop_msg  msg;
    struct bench    *b;
    struct test_key  key;
    enum answer      answer;
    struct tier_ask *ask;
    sem_t            done;
};

static inline void
on_asked(void *arg, const struct tier_result *r)
{
    struct question *q = arg;

    q->answer = r->answer == TIER_FOUND ? FOUND : NOTHING;
    sem_post(&q->done);
}

static inline void
ask_on_loop(struct loop_msg *m)
{
    struct question *q = CONTAINER(m, struct question, msg);
    const struct tier_want w = { .key = &q->key.k, .done = on_asked, .arg = q };
    enum tier_answer now;

    if ((q->ask = tier_get(q->b->t, q->b->loop, &w, &now)) == NULL) {
        q->answer = AT_ONCE;
        sem_post(&q->done);
    }
}

static inline enum answer
ask(struct bench *b, const char *key)
{
    struct question q = { .msg.run = ask_on_loop, .b = b };

    key_fill(&q.key, key);
    sem_init(&q.done, 0, 0);
    loop_post(b->loop, &q.msg);
    while (sem_wait(&q.done) == -1)
        continue;
    sem_destroy(&q.done);
    return q.answer;
}

static inline void
on_erase(void *arg, unsigned left)
{
    struct question *q = arg;

    q->answer = left == 0 ? FOUND : NOTHING;
    sem_post(&q->done);
}

static inline void
erase_on_loop(struct loop_msg *m)
{
    struct question *q = CONTAINER(m, struct question, msg);

    if (tier_erase(q->b->t, q->b->loop, on_erase, q) == -1)
        on_erase(q, 1);
}

/* Everything that was purged is out of the files. */
static inline bool
erase(struct bench *b)
{
    struct question q = { .msg.run = erase_on_loop, .b = b };

    sem_init(&q.done, 0, 0);
    loop_post(b->loop, &q.msg);
    while (sem_wait(&q.done) == -1)
        continue;
    sem_destroy(&q.done);
    return q.answer == FOUND;
}

static inline struct tier_figures
figures(struct bench *b)
{
    struct tier_figures f;

    assert_true(tier_figures(b->t, TIER_DISK, &f));
    return f;
}

/* What was put is written and committed, the index loaded. */
static inline void
settle(struct bench *b)
{
    while (figures(b).queued_bytes > 0 || figures(b).loading)
        usleep(500);
    assert_true(erase(b));
}

/* Memory empty, the disk as it is. */
static inline void
forget_memory(struct bench *b)
{
    settle(b);
    bench_restart(b);
}

static inline int64_t
files_bytes(const struct bench *b)
{
    DIR *dir = opendir(b->dir);
    struct dirent *at;
    int64_t sum = 0;

    while ((at = readdir(dir)) != NULL) {
        struct stat st;

        if (at->d_name[0] != '.' && stat(in_dir(b, at->d_name), &st) == 0)
            sum += st.st_size;
    }
    closedir(dir);
    return sum;
}

/* Do these bytes stand in any file of the directory? */
static inline bool
files_hold(const struct bench *b, const char *text)
{
    DIR *dir = opendir(b->dir);
    struct dirent *at;
    bool found = false;

    while ((at = readdir(dir)) != NULL && !found) {
        int fd = at->d_name[0] != '.' ? open(in_dir(b, at->d_name), O_RDONLY) : -1;
        off_t n = fd != -1 ? lseek(fd, 0, SEEK_END) : 0;
        char *bytes = malloc((size_t)n + 1);

        if (n > 0 && pread(fd, bytes, (size_t)n, 0) == n)
            found = memmem(bytes, (size_t)n, text, strlen(text)) != NULL;
        free(bytes);
        if (fd != -1)
            close(fd);
    }
    closedir(dir);
    return found;
}

#endif
