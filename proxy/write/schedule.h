/*
 * write/schedule.h -- private to write/: which write goes next.
 *
 * Pure: rows come from a source, time from the caller. One thread (the write loop).
 */
#ifndef WEIR_WRITE_SCHEDULE_H
#define WEIR_WRITE_SCHEDULE_H

#include "write/journal.h"

struct schedule;

/* Where rows are: 1 and *r, 0, or -1: it cannot be told now. */
struct schedule_source {
    /* the first pending one of chain c1, which is in this partition, after seq */
    int (*next)(void *arg, unsigned part, uint64_t c1, uint64_t seq, struct write_row *r);
    /* the first pending PUT, PATCH or DELETE of this target after seq, by c1 or c2 */
    int (*next_of_target)(void *arg, unsigned part, uint64_t target, uint64_t seq,
        struct write_row *r);
    void *arg;
    bool shared;                        /* chains of two partitions have nothing to do with each
                                           other, and rows may be found before they are told of */
};

struct schedule *schedule_new(const struct schedule_source *source);       /* NULL: memory out */
void schedule_free(struct schedule **sp);

struct schedule_limits {
    bool held;                          /* there is no such route now */
    unsigned origin;
    unsigned concurrency;
    int64_t interval_us;                /* between two; 0: no limit */
    unsigned weights[WRITE_LANES];
    unsigned batch_max;                 /* 0: not together */
    int64_t batch_every_ms;
};
/* Times are monotonic ms but for `wall_ms`. -1: memory out. */
int  schedule_route(struct schedule *s, uint32_t route, const struct schedule_limits *limits);
bool schedule_knows(const struct schedule *s, uint32_t route);
int  schedule_pause_route(struct schedule *s, uint32_t route, bool on);
int  schedule_pause_origin(struct schedule *s, unsigned origin, bool on);

/* A pending write, new or again. Returns how many of its chain are before it; -1: memory out. */
int64_t schedule_add(struct schedule *s, const struct write_row *r, int64_t now_ms);

enum schedule_took { SCHEDULE_NONE, SCHEDULE_ROW, SCHEDULE_MORE };
/* A delivery: its route and origin when it was taken; a reload may move the route. */
struct schedule_turn { uint32_t route; unsigned origin; bool probe; };
/* The next to be sent: ROW, and its route counts one delivery more until schedule_ended. MORE: call
 * again soon, others are to be looked at first. */
enum schedule_took schedule_take(struct schedule *s, int64_t now_ms, int64_t wall_ms,
    struct write_row *r, struct schedule_turn *turn);
/* A further one of this route for the same delivery. */
bool schedule_take_more(struct schedule *s, uint32_t route, int64_t now_ms, int64_t wall_ms,
    struct write_row *r);
/* Of a chain that is taken this is the write that is sent, not the one that was taken; those before
 * it are settled next (coalescing). */
void schedule_instead(struct schedule *s, const struct write_row *newest);
void schedule_ended(struct schedule *s, const struct schedule_turn *turn);

/* It is pending no more: taken or not. After that was committed. */
void schedule_settled(struct schedule *s, const struct write_row *r, int64_t now_ms);
/* Nothing of this partition is known any more; what is taken of it goes on. */
void schedule_forget(struct schedule *s, unsigned part);
/* One that was pending is no more, and nobody knows whose it was: what waited for it may go. */
void schedule_lost(struct schedule *s);
/* What was taken goes back, to be sent in so long; nothing on what was not. */
void schedule_again(struct schedule *s, const struct write_row *r, int64_t delay_ms,
    int64_t now_ms);
/* It is pending, and may be known or not: what was told of it may have been lost. It is due as its
 * row says. -1: memory out. */
int schedule_found(struct schedule *s, const struct write_row *r, int64_t now_ms);
/* It is due now, as its row says, if it waits. */
void schedule_hurry(struct schedule *s, const struct write_row *r);

/* The breaker: what a delivery told of its origin. True: deliveries to it are stopped. */
bool schedule_heard(struct schedule *s, const struct schedule_turn *turn, bool reached,
    uint64_t random, int64_t now_ms);

/* When something may be to do, in ms from now; -1: not before something happens. */
int64_t schedule_wait_ms(struct schedule *s, int64_t now_ms);

/* Are there pending writes of this chain? */
bool schedule_has(const struct schedule *s, uint64_t c1);
/* May pending writes beside this one have a target besides their chain? */
bool schedule_has_targets(const struct schedule *s, uint64_t seq);
/* In these partitions, a bit each, writes may have one from now on. */
void schedule_keyed(struct schedule *s, uint64_t parts);
struct schedule_figures {
    uint64_t pending, chains, bytes; bool held, paused, origin_paused, down; unsigned active;
};
void schedule_figures_of(const struct schedule *s, uint32_t route, struct schedule_figures *f);
uint64_t schedule_pending(const struct schedule *s, size_t *bytes);

#endif
