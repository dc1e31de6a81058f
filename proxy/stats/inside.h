/*
 * stats/inside.h -- what the files of this room share.
 *
 * A series is one histogram as a person sees it: a route's outcome, a phase of an origin server, a
 * state of the request machine, a summary of metrics.def. Its number (id) is computed from slot and
 * kind; each thread that counts in it has a part (struct hist) of its own.
 */
#ifndef WEIR_STATS_INSIDE_H
#define WEIR_STATS_INSIDE_H

#include "stats/stats.h"

#define HIST_SUB_BITS 6                 /* 64 cells a power of two: a cell's middle is 0.8 % off */
#define HIST_SUB      (1u << HIST_SUB_BITS)
#define HIST_OCTAVES  27u               /* 1 us .. 2^32 us, 71 minutes; more counts as that */
#define HIST_TOP      ((UINT64_C(1) << 32) - 1)

#define ROUTES_MAX    65536u            /* slots; those that come later count under slot 0 */
#define ORIGINS_MAX   4096u
#define STATES_MAX    32u
#define ORIGIN_STRIDE 4u
#define ID_ORIGINS    (ROUTES_MAX * STATS_OUTCOMES)
#define ID_STATES     (ID_ORIGINS + ORIGINS_MAX * ORIGIN_STRIDE)
#define ID_SUMMARIES  (ID_STATES + STATES_MAX)
#define TIMERS_MAX    1024u
#define ID_TIMERS     (ID_SUMMARIES + STATS_SUMMARIES)
#define ID_END        (ID_TIMERS + TIMERS_MAX)

struct octave { _Atomic uint64_t cells[HIST_SUB]; };

/* One thread's part of a series. Written by that thread alone; read by any. */
struct hist {
    _Atomic(struct octave *) octaves[HIST_OCTAVES];     /* owned; made on first use */
    /* after its cell, with release: who sees it sees the cell */
    _Atomic uint64_t count;
    _Atomic uint64_t sum, max, bytes;
    struct hist *next;                  /* among the fresh ones, then among the parts of a series */
    uint32_t id;
};

/* The part `id` counts in for the calling thread, or NULL when memory is out. */
struct hist *hist_mine(uint32_t id);
void hist_add(struct hist *h, uint64_t us, uint64_t bytes);
void hist_free(struct hist *h);
/* All parts made since the last call, as a list; the caller owns them from now on. */
struct hist *hist_fresh(void);
void blocks_free(void);

/* ---- counts put together, of one reader ------------------------------------------------------ */

struct cells {
    uint32_t used;                      /* a bit for each octave that may hold something */
    uint64_t at[HIST_OCTAVES][HIST_SUB];
};
void     cells_clear(struct cells *c);
uint64_t cells_count(const struct cells *c);
/* The value of which a share q (0..1) is not above, in us; 0 when empty. */
uint64_t cells_quantile(const struct cells *c, uint64_t count, double q);
uint64_t cells_max(const struct cells *c);
/* How many are at most `us`, to the width of a cell. */
uint64_t cells_upto(const struct cells *c, uint64_t us);
void     cells_add_hist(struct cells *c, const struct hist *h);
/* From all that was counted ever to what was since `before`, which becomes what c was. */
void     cells_since(struct cells *c, struct cells *before);

/* ---- series, all under the lock -------------------------------------------------------------- */

enum window { WINDOW_10S, WINDOW_1M, WINDOW_5M, WINDOW_START, WINDOWS };
extern const char *const window_names[WINDOWS];

enum { Q50, Q75, Q90, Q95, Q99, Q999, QUANTILES };
extern const double      quantile_of[QUANTILES];
extern const char *const quantile_names[QUANTILES];     /* "p50" ... "p999" */

struct figures {
    uint64_t count, max_us, q_us[QUANTILES];
    double   rate;                      /* a second */
};
struct series;

void stats_lock(void);
void stats_unlock(void);
struct series *series_find(uint32_t id);                /* NULL: never used */
void series_gather(void);                               /* fresh parts find their series */
/* Adds this series' counts in the window to c. */
void series_cells(const struct series *s, enum window w, struct cells *c);
void series_totals(const struct series *s, uint64_t *sum_us, uint64_t *max_us, uint64_t *bytes);
double window_seconds(enum window w);                   /* really covered by it now */
/* max_us: no value above it (the exact maximum since start). */
void figures_in(const struct cells *c, double seconds, uint64_t max_us, struct figures *f);
/* The same for a window; its maximum since the start is exact. */
void figures_of(const struct cells *c, enum window w, uint64_t max_us, struct figures *f);
struct cells *scratch_cells(unsigned which);            /* 0..1, cleared; NULL: memory out */
static inline bool
outcome_is_answered(unsigned o)         /* from a stored response */
{
    return o == OUTCOME_HIT || o == OUTCOME_STALE;
}
static inline bool
outcome_is_read(unsigned o)             /* which could have been */
{
    return outcome_is_answered(o) || o == OUTCOME_MISS || o == OUTCOME_COLLAPSED ||
        o == OUTCOME_REVALIDATED;
}
/* The tens of seconds that are over and not forgotten: the first, and one behind the last. */
void series_tens(int64_t *first, int64_t *end);
/* Seconds that were ticked since this ten of seconds was over. */
int64_t series_ten_age(int64_t ten);
/* Adds what this series counted in that ten of seconds to c. */
void series_ten(const struct series *s, int64_t ten, struct cells *c);
/* Reads that a stored response answered, and all reads, of a route slot. */
void route_reads(unsigned slot, enum window w, uint64_t *answered, uint64_t *reads);
void series_free_all(void);

/* ---- JSON ------------------------------------------------------------------------------------ */

void stats_put_name(struct buf *b, const char *name);   /* in quotes, escaped */
void stats_put_figures(struct buf *b, const struct figures *f, const char *unit);  /* "us" */
void slowest_json(struct buf *b);                       /* `,"slowest": [...]` */
void slowest_forget(int64_t wall_ms);                   /* those that are too old by now */
void slowest_free(void);

/* ---- names, under the lock ------------------------------------------------------------------- */

size_t      route_slots(void);
const char *route_slot_name(size_t slot);
size_t      origin_slots(void);
const char *origin_slot_name(size_t slot);
size_t      timer_slots(void);
const char *timer_slot_name(size_t slot);               /* "family{labels}"; of slot 0 "" */
const char *timer_slot_help(size_t slot);
const char *state_name(unsigned state);                 /* NULL: unnamed */
void        names_free(void);

/* ---- records --------------------------------------------------------------------------------- */

/* Appends a record as a JSON object, but for its last brace. */
void access_json(struct buf *b, const struct stats_access *a);
void access_text(struct buf *b, const char *name, struct slice value);  /* a member behind others */
void taps_put(const struct stats_access *a);

/* ---- the process ----------------------------------------------------------------------------- */

struct process { uint64_t resident_bytes, fds, threads; double cpu_s; };
void process_read(struct process *p);
struct stats_source *stats_sources(void);
int64_t stats_start_wall_ms(void);

#endif
