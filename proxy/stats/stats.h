/*
 * stats -- counters, latency percentiles, the access log.
 *
 * Model    each thread that counts has a block of its own, made when it first counts; reading adds
 *          the blocks up. Counters and histogram cells are relaxed atomics of one writer.
 *          Histograms are log-linear, relative error at most 1 %, made on first use. Windows (10 s,
 *          1 min, 5 min) come from snapshots that a reader thread's timer takes, never from the hot
 *          path.
 * Threads  stats_* that count: any registered thread, lock-free. Reading: any thread, takes a
 *          mutex.
 */
#ifndef WEIR_STATS_H
#define WEIR_STATS_H

#include "base/base.h"

/* ---- counting: the hot side ------------------------------------------------------------------ */

enum stats_counter {
#define COUNTER(id, unit, help) STATS_##id,
#include "stats/metrics.def"
    STATS_COUNTERS
};
enum stats_gauge {
#define GAUGE(id, unit, help) GAUGE_##id,
#include "stats/metrics.def"
    STATS_GAUGES
};
enum stats_summary {
#define SUMMARY(id, unit, help) SUMMARY_##id,
#include "stats/metrics.def"
    STATS_SUMMARIES
};

enum stats_outcome {
    OUTCOME_HIT, OUTCOME_STALE, OUTCOME_MISS, OUTCOME_COLLAPSED, OUTCOME_REVALIDATED, OUTCOME_PASS,
    OUTCOME_WRITE, OUTCOME_ACCEPTED, OUTCOME_ERROR, STATS_OUTCOMES
};
extern const char *const stats_outcome_names[STATS_OUTCOMES];

int  stats_init(struct err *e);             /* once, before any thread counts */
void stats_fini(void);

#define COUNT(id)        stats_add(STATS_##id, 1)
#define COUNT_N(id, n)   stats_add(STATS_##id, (uint64_t)(n))
void stats_add(enum stats_counter c, uint64_t n);
/* Gauges are process-wide atomics: use off the hot path. */
void stats_gauge_add(enum stats_gauge g, int64_t n);
void stats_gauge_set(enum stats_gauge g, int64_t v);
int64_t stats_gauge(enum stats_gauge g);

/* A slot for a route, by name; the same name gives the same slot for the life of the process. Slot
 * 0 is "(none)": requests that no route took. */
unsigned stats_route_slot(const char *name);
/* One request done on this route: time from its first byte to its last byte handed to the kernel
 * (of a tunnel: to the 101), and body bytes sent. Lock-free; a few dozen instructions once the
 * histogram is there. */
void stats_request(unsigned slot, enum stats_outcome o, uint64_t us, uint64_t bytes);

/* The same for an origin server ("api/http://127.0.0.1:8000"). */
enum stats_origin_time { ORIGIN_CONNECT, ORIGIN_FIRST_BYTE, ORIGIN_TOTAL, STATS_ORIGIN_TIMES };
unsigned stats_origin_slot(const char *name);
void stats_origin(unsigned slot, enum stats_origin_time t, uint64_t us);

/* Time spent in a state of the request machine; `state` below 32, named once by
 * stats_state_name. */
void stats_state_name(unsigned state, const char *name);
void stats_state(unsigned state, uint64_t us);

/* A value of a distribution of metrics.def: microseconds, or a plain number up to 2^32. */
void stats_observe(enum stats_summary s, uint64_t v);

/* A distribution of times that is known at run time alone, as those of plugins: in /metrics its
 * family and labels (`a="b",c="d"`, or ""); the same give the same slot for the life of the
 * process. Nanoseconds, up to 4 s. */
unsigned stats_timer_slot(const char *family, const char *labels, const char *help);
void stats_timer(unsigned slot, uint64_t ns);

/* ---- reading: the cold side ------------------------------------------------------------------ */

uint64_t stats_counter(enum stats_counter c);
/* Something that is read when somebody reads: pool use, objects. Called with the reader's buf. */
struct stats_source {
    /* appends `"name": {...}` members, each preceded by ',' */
    void (*json)(struct buf *b, void *arg);
    void (*metrics)(struct buf *b, void *arg);  /* appends whole metric families */
    void *arg;
    struct stats_source *next;
};
void stats_source_add(struct stats_source *s);  /* at start; the caller keeps it alive */

void stats_tick(int64_t at_us); /* every second, from one thread: snapshots for windows */
#define STATS_ALL_WINDOWS 15u
/* "10s,1m": some of "10s", "1m", "5m" and "start". False: there is another, or none. */
bool stats_windows(struct slice names, unsigned *set);
/* GET /stats. Of other sets than all of them, only what was used in one of these windows. */
void stats_json(struct buf *b, unsigned windows);
/* The last five minutes of a route, or of all (.p NULL). False: no such route was used. */
bool stats_history(struct buf *b, struct slice route);
void stats_metrics(struct buf *b);              /* GET /metrics, Prometheus text format 0.0.4 */
void stats_summary(struct buf *b);              /* the line of each minute: since the last one */

/* ---- the slowest requests of the last five minutes ------------------------------------------- */

struct stats_access;
/* Is a request of this duration among them? A guess that may be wrong for a moment: look before
 * building a record. Any thread, lock-free. */
bool stats_slowest_wants(uint64_t us);
/* steps: what it spent its time on, for a person. Takes a mutex. Any thread. */
void stats_slowest(const struct stats_access *a, struct slice server, struct slice steps);

/* ---- records of requests: the access log, and who listens ------------------------------------ */

/* A stay in a state of the request machine. */
struct stats_step { const char *name; uint32_t at_us, us; };   /* at_us: since its first byte */

struct stats_access {
    int64_t      wall_ms;
    /* those whose p is NULL are not known */
    struct slice client, method, target, host, route, request_id, user_agent, referer, cache_status;
    struct slice protocol;              /* "HTTP/1.1" */
    unsigned     status;
    enum stats_outcome outcome;
    uint64_t     us, bytes_in, bytes_out;       /* bytes_out: body */

    /* for who listens alone */
    struct slice fwd, detail;           /* as Cache-Status has them */
    struct slice origin;                /* the server that was asked; */
    int64_t      pool_us, connect_us, first_byte_us;    /* ... when, -1: not that far; */
    unsigned     tries;                 /* ... how often */
    const struct stats_step *steps;
    size_t       nsteps;
};
/* Who wants records, a bit each: look before building one. */
enum { ACCESS_LOGGED = 1, ACCESS_TAPPED = 2, ACCESS_TRACED = 4 };
extern atomic_uint stats_access_on;
void stats_access_want(unsigned who, bool on);
/* To the log and the taps; traces are request/'s. Any thread that reads under RCU. */
void stats_access(const struct stats_access *a);

/* `path`: a file, "stdout", or "off". -1 with *e when it cannot be opened (the old one stays). */
int  stats_access_open(const char *path, bool combined, struct err *e);
int  stats_access_reopen(struct err *e);        /* SIGUSR1 */
/* Lines are buffered per thread, and written at 64 KiB or each second by stats_access_flush; a full
 * disk drops lines, counted (access_dropped), and is logged once a minute. */
void stats_access_flush(void); /* all threads' buffers; from stats_tick's thread and at exit */

/* A tap: who listens to requests as they are done. What is empty, zero or NULL takes all. */
struct stats_filter {
    const struct slice *routes;         /* by name */
    size_t       nroutes;
    unsigned     outcomes;              /* a bit for each */
    unsigned     status_min, status_max;
    uint64_t     slower_us;             /* at least as slow */
    struct slice method, path;          /* path: a glob, of the target without its query */
};
struct stats_tap;
/* The filter is copied. NULL with *e: memory is out, or eight listen already. Open, take and close:
 * one thread. */
struct stats_tap *stats_tap_open(const struct stats_filter *f, struct err *e);
/* What was done since the last time, a line of JSON each, in `lines`; how many did not fit, because
 * nobody took them in time. */
uint64_t stats_tap_take(struct stats_tap *t, struct buf *lines);
void stats_tap_close(struct stats_tap **tp);    /* waits for a grace period; NULL is fine */

#endif
