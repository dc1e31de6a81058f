/*
 * The journal alone: writes of 512 bytes from so many producers at once, each waiting for its commit
 * (two threads have them, as two workers have connections), and a start-up with many pending.
 *
 *     journal DIRECTORY intake [PRODUCERS [SECONDS [fsync | os]]]
 *     journal DIRECTORY start [WRITES]
 */
#include "write/journal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 2
#define BODY    512

static const struct journal_limits limits = { (int64_t)16 << 30, 64 << 20, 86400000, 100000000 };

struct producers {                      /* of one thread */
    pthread_mutex_t mtx;
    pthread_cond_t  wake;
    struct journal_op *ended;           /* under mtx */
    struct journal *j;
    unsigned n;
    uint64_t acknowledged;
    int64_t  until_us, slowest_us;
    enum conf_write_durable durable;
};

struct producer { struct journal_op op; struct producers *of; int64_t began_us; };

static const char body[BODY];

static void
on_done(struct journal_op *op)
{
    struct producers *p = CONTAINER(op, struct producer, op)->of;

    pthread_mutex_lock(&p->mtx);
    op->next = p->ended;
    p->ended = op;
    if (op->next == NULL)
        pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->mtx);
}

static void
begin(struct producer *p)
{
    static _Atomic uint64_t n;
    uint64_t hash = atomic_fetch_add(&n, 1) * 0x9e3779b97f4a7c15u;
    static const char fields[] = "Content-Type: application/json\r\nUser-Agent: bench/1\r\n"
        "Accept: */*\r\nX-Request-Id: 01234567-89ab-cdef-0123-456789abcdef\r\n";

    p->op = (struct journal_op){ .kind = JOURNAL_ACCEPT, .durable = p->of->durable,
        .row = { .c1 = hash, .who = 1, .accepted_ms = wall_ms(), .route = 1, .method = HTTP_POST,
            .lane = WRITE_LANE_DEFAULT },
        .content = { .method_name = SLICE("POST"), .url = SLICE("http://host.example/events/12"),
            .target = SLICE("/events/12"), .host = SLICE("host.example"), .fields = SLICE(fields),
            .has_body = true, .body = { body, BODY }, .order_key = SLICE("host.example/events/12") },
        .done = on_done };
    p->began_us = now_us();
    journal_do(p->of->j, &p->op);
}

static void *
produce(void *arg)
{
    struct producers *of = arg;
    struct producer *all = calloc(of->n, sizeof *all);
    unsigned running = of->n;

    for (unsigned i = 0; i < of->n; i++) {
        all[i].of = of;
        begin(&all[i]);
    }
    while (running != 0) {
        struct journal_op *ended;
        int64_t now;

        pthread_mutex_lock(&of->mtx);
        while (of->ended == NULL)
            pthread_cond_wait(&of->wake, &of->mtx);
        ended = of->ended;
        of->ended = NULL;
        pthread_mutex_unlock(&of->mtx);
        now = now_us();
        for (struct journal_op *next; ended != NULL; ended = next) {
            struct producer *p = CONTAINER(ended, struct producer, op);

            next = ended->next;
            if (ended->result != JOURNAL_DONE) {
                fprintf(stderr, "refused: %s\n", ended->why);
                exit(1);
            }
            of->acknowledged++;
            if (now - p->began_us > of->slowest_us)
                of->slowest_us = now - p->began_us;
            if (now < of->until_us)
                begin(p);
            else
                running--;
        }
    }
    free(all);
    return NULL;
}

static void
intake(struct journal *j, unsigned n, int64_t us, enum conf_write_durable durable)
{
    struct producers of[THREADS];
    pthread_t threads[THREADS];
    int64_t start = now_us();
    struct journal_figures f;
    uint64_t acknowledged = 0;
    int64_t slowest = 0;

    for (unsigned i = 0; i < THREADS; i++) {
        of[i] = (struct producers){ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, .j = j,
            .n = n / THREADS + (i < n % THREADS), .until_us = start + us, .durable = durable };
        pthread_create(&threads[i], NULL, produce, &of[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        acknowledged += of[i].acknowledged;
        if (of[i].slowest_us > slowest)
            slowest = of[i].slowest_us;
    }
    journal_figures(j, &f);
    printf("%u producers: %.0f writes/s, %.1f a commit, a commit %.0f us, slowest %.1f ms, "
        "file %.1f MB\n", n, (double)acknowledged * 1e6 / (double)(now_us() - start),
        (double)f.operations / (double)f.commits, (double)f.commit_us / (double)f.commits,
        (double)slowest / 1e3, (double)f.bytes / 1e6);
}

static void
on_found(void *arg, const struct write_row *r)
{
    (void)r;
    ++*(uint64_t *)arg;
}

static struct journal *
open_one(const char *directory, uint64_t *found)
{
    struct journal_found f = { .row = on_found, .arg = found };
    struct journal *j;
    char path[4096];
    struct err e;

    snprintf(path, sizeof path, "%s/bench-journal", directory);
    *found = 0;
    j = journal_open(path, &limits, &f, &e);
    if (j == NULL) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    return j;
}

int
main(int argc, char **argv)
{
    bool start = argc > 2 && strcmp(argv[2], "start") == 0;
    unsigned n = argc > 3 ? (unsigned)atoi(argv[3]) : start ? 1000000 : 64;
    struct journal *j;
    uint64_t found;
    int64_t began;

    if (argc < 3)
        return 2;
    j = open_one(argv[1], &found);
    if (!start) {
        intake(j, n, argc > 4 ? atoi(argv[4]) * (int64_t)1000000 : 5000000,
            argc > 5 && strcmp(argv[5], "os") == 0 ? WRITE_OS : WRITE_FSYNC);
    } else {
        for (uint64_t had = found; had < n; had = found) {
            intake(j, 1024, 5000000, WRITE_OS);
            journal_close(&j);
            j = open_one(argv[1], &found);
        }
        journal_close(&j);
        began = now_us();
        j = open_one(argv[1], &found);
        printf("%llu pending: opened in %.2f s\n", (unsigned long long)found,
            (double)(now_us() - began) / 1e6);
    }
    journal_close(&j);
    return 0;
}
