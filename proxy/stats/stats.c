/*
 * The room's start and end, what the kernel says about the process, and the line of each minute.
 */
#include "stats/inside.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

const char *const stats_outcome_names[STATS_OUTCOMES] = {
    "hit", "stale", "miss", "collapsed", "revalidated", "pass", "write",
    "accepted", "error",
};

static _Atomic int64_t start_wall_ms;
static _Atomic(struct stats_source *) sources;

int
stats_init(struct err *e)
{
    (void)e;                            /* blocks and series are made when first counted in */
    atomic_store(&start_wall_ms, wall_ms());
    stats_gauge_set(GAUGE_start_time, wall_ms() / 1000);
    return 0;
}

int64_t
stats_start_wall_ms(void)
{
    return atomic_load(&start_wall_ms);
}

void
stats_source_add(struct stats_source *s)
{
    s->next = atomic_load(&sources);
    while (!atomic_compare_exchange_weak(&sources, &s->next, s))
        ;
}

struct stats_source *
stats_sources(void)
{
    return atomic_load(&sources);
}

static uint64_t
count_entries(const char *path)
{
    DIR *d = opendir(path);
    uint64_t n = 0;

    if (d == NULL)
        return 0;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n > 2 ? n - 2 : 0;           /* without . and .. */
}

void
process_read(struct process *p)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;
    struct rusage u;

    memset(p, 0, sizeof *p);
    if (f != NULL) {
        if (fscanf(f, "%*u %llu", &pages) == 1)
            p->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
        fclose(f);
    }
    p->fds = count_entries("/proc/self/fd");
    if (p->fds > 0)
        p->fds--;                       /* the directory itself was open */
    p->threads = count_entries("/proc/self/task");
    if (getrusage(RUSAGE_SELF, &u) == 0)
        p->cpu_s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
            (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- the line of each minute ----------------------------------------------------------------- */

/* What was counted when the line before was written: a request is in one line, whenever that comes.
 * Under the lock. */
static struct cells *before;            /* owned; times, of all routes and outcomes */
static uint64_t outcomes_before[STATS_OUTCOMES];
static int64_t before_ms;               /* 0: there was no line; then since the start */

struct minute {
    struct figures f;
    uint64_t       outcomes[STATS_OUTCOMES];
};

/* Adds to c what this outcome has counted since the start, on all routes. */
static void
gather_outcome(unsigned outcome, struct cells *c, uint64_t *top)
{
    uint64_t sum, max, bytes;

    for (size_t slot = 0; slot < route_slots(); slot++) {
        struct series *s = series_find((uint32_t)(slot * STATS_OUTCOMES + outcome));

        if (s == NULL)
            continue;
        series_cells(s, WINDOW_START, c);
        series_totals(s, &sum, &max, &bytes);
        *top = max > *top ? max : *top;
    }
}

/* Under the lock. Without memory it says nothing, and the next line has it all. */
static void
minute_read(struct minute *m)
{
    struct cells *c = scratch_cells(0);
    int64_t now = wall_ms();
    uint64_t top = 0, sofar = 0, n;

    memset(m, 0, sizeof *m);
    if (before == NULL)
        before = calloc(1, sizeof *before);
    if (c == NULL || before == NULL)
        return;
    for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
        gather_outcome(o, c, &top);
        n = cells_count(c) - sofar;
        sofar += n;
        m->outcomes[o] = n - outcomes_before[o];
        outcomes_before[o] = n;
    }
    cells_since(c, before);
    if (before_ms == 0)
        before_ms = stats_start_wall_ms();
    figures_in(c, now > before_ms ? (double)(now - before_ms) / 1e3 : 1.0, top, &m->f);
    before_ms = now;
}

static void
minute_forget(void)
{
    free(before);
    before = NULL;
    before_ms = 0;
    memset(outcomes_before, 0, sizeof outcomes_before);
}

void
stats_summary(struct buf *b)
{
    const struct figures *f;
    uint64_t answered = 0, reads = 0;
    struct process p;
    struct minute m;

    process_read(&p);
    stats_lock();
    series_gather();
    minute_read(&m);
    stats_unlock();
    f = &m.f;
    for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
        answered += outcome_is_answered(o) ? m.outcomes[o] : 0;
        reads += outcome_is_read(o) ? m.outcomes[o] : 0;
    }
    buf_printf(b, "last minute: %llu requests (%.1f/s)", (unsigned long long)f->count, f->rate);
    if (reads > 0)
        buf_printf(b, ", hit rate %.1f %%", 100.0 * (double)answered / (double)reads);
    if (f->count > 0)
        buf_printf(b, ", p50 %.2f ms, p99 %.2f ms, max %.2f ms", (double)f->q_us[Q50] / 1e3,
            (double)f->q_us[Q99] / 1e3, (double)f->max_us / 1e3);
    buf_printf(b,
        ", %llu errors; %lld client and %lld origin connections; %lld objects, %.1f of %.1f MiB"
        "; resident %.1f MiB",
        (unsigned long long)m.outcomes[OUTCOME_ERROR],
        (long long)stats_gauge(GAUGE_client_connections),
        (long long)stats_gauge(GAUGE_origin_connections),
        (long long)stats_gauge(GAUGE_cache_objects),
        (double)stats_gauge(GAUGE_cache_memory) / 1048576.0,
        (double)stats_gauge(GAUGE_cache_memory_limit) / 1048576.0,
        (double)p.resident_bytes / 1048576.0);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* When no other thread counts or reads any more. */
void
stats_fini(void)
{
    stats_access_open("off", false, NULL);
    stats_lock();
    series_free_all();
    minute_forget();
    slowest_free();
    names_free();
    stats_unlock();
    blocks_free();
    atomic_store(&sources, NULL);
}
