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
    "hit", "stale", "miss", "collapsed", "revalidated", "pass", "write", "error",
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

/* When no other thread counts or reads any more. */
void
stats_fini(void)
{
    stats_access_open("off", false, NULL);
    stats_lock();
    series_free_all();
    names_free();
    stats_unlock();
    blocks_free();
    atomic_store(&sources, NULL);
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

/* All routes and outcomes of the last minute together. */
static void
minute_figures(struct figures *f, uint64_t *answered, uint64_t *reads, uint64_t *errors)
{
    struct cells *c = scratch_cells(0);
    uint64_t top = 0;

    memset(f, 0, sizeof *f);
    *answered = *reads = *errors = 0;
    for (size_t slot = 0; c != NULL && slot < route_slots(); slot++) {
        uint64_t some, of;

        for (unsigned o = 0; o < STATS_OUTCOMES; o++) {
            struct series *s = series_find((uint32_t)(slot * STATS_OUTCOMES + o));
            uint64_t sum, max, bytes, before = o == OUTCOME_ERROR ? cells_count(c) : 0;

            if (s == NULL)
                continue;
            series_cells(s, WINDOW_1M, c);
            series_totals(s, &sum, &max, &bytes);
            top = max > top ? max : top;
            if (o == OUTCOME_ERROR)
                *errors += cells_count(c) - before;
        }
        route_reads((unsigned)slot, WINDOW_1M, &some, &of);
        *answered += some;
        *reads += of;
    }
    if (c != NULL)
        figures_of(c, WINDOW_1M, top, f);
}

void
stats_summary(struct buf *b)
{
    uint64_t answered, reads, errors;
    struct figures f;
    struct process p;

    process_read(&p);
    stats_lock();
    series_gather();
    minute_figures(&f, &answered, &reads, &errors);
    stats_unlock();
    buf_printf(b, "last minute: %llu requests (%.1f/s)", (unsigned long long)f.count, f.rate);
    if (reads > 0)
        buf_printf(b, ", hit rate %.1f %%", 100.0 * (double)answered / (double)reads);
    if (f.count > 0)
        buf_printf(b, ", p50 %.2f ms, p99 %.2f ms, max %.2f ms", (double)f.q_us[Q50] / 1e3,
            (double)f.q_us[Q99] / 1e3, (double)f.max_us / 1e3);
    buf_printf(b,
        ", %llu errors; %lld client and %lld origin connections; %lld objects, %.1f of %.1f MiB"
        "; resident %.1f MiB",
        (unsigned long long)errors, (long long)stats_gauge(GAUGE_client_connections),
        (long long)stats_gauge(GAUGE_origin_connections),
        (long long)stats_gauge(GAUGE_cache_objects),
        (double)stats_gauge(GAUGE_cache_memory) / 1048576.0,
        (double)stats_gauge(GAUGE_cache_memory_limit) / 1048576.0,
        (double)p.resident_bytes / 1048576.0);
}
