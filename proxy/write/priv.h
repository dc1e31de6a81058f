/* Private to write/: what the files of the write loop share. */
#ifndef WEIR_WRITE_PRIV_H
#define WEIR_WRITE_PRIV_H

#include <pthread.h>

#include "stats/stats.h"
#include "write/journal.h"
#include "write/schedule.h"
#include "write/write.h"

#define FILTER_N (1u << 19)

struct delivery;
struct held;

/* An operation of the journal, and what is to be done when it is committed. */
struct wop {
    struct journal_op op;               /* content points into bytes[] */
    struct loop_msg   msg;
    struct writes    *w;
    struct wop       *next;             /* of those that are to be tried again */
    void            (*then)(struct wop *o);         /* takes it; on the write loop */
    void             *arg;
    char              bytes[];
};

struct write_site {                     /* what is in force */
    struct route_table *table;          /* owned reference */
    struct origin     **origins;        /* owned references, of the table's configuration */
    size_t              norigins;
    char               *via;            /* owned */
};

struct writes {
    uint32_t        magic;
#define WRITES_MAGIC 0x3417e500u
    struct loop    *loop;               /* borrowed: the write loop */
    struct store   *store;              /* borrowed */
    struct fills   *fills;              /* borrowed */
    struct bus     *bus;                /* borrowed; NULL: purges are for this instance alone */
    struct journal *j;                  /* owned */
    pthread_t       thread;
    bool            running;            /* the thread */
    atomic_bool     draining, closing, pumping;
    atomic_bool     holding, hold_posted;       /* writes_hold */
    struct loop_msg hold;
    atomic_uint     under_way;          /* deliveries */
    _Atomic uint32_t *filter;           /* FILTER_N, owned; written by the write loop */
    uint32_t       *by;                 /* FILTER_N, owned; the write loop's */

    /* the write loop's */
    struct write_site site;             /* table NULL: none yet */
    struct schedule *schedule;          /* owned */
    struct timer    timer;              /* when something may be to do */
    struct loop_msg pump;
    bool            pump_posted;
    struct loop_msg end;                /* writes_close */
    struct delivery *deliveries;
    struct wop     *again;              /* operations that the journal could not take */
    struct timer    again_timer, tick;
    char          **origin_names; size_t norigin_names;     /* by the schedule's number; owned */
    struct write_ask *looking;          /* who wait for a delivery */
    struct write_watch *watches;
    struct held    *held;               /* writes that an operator's verb is about */
    bool            paused;             /* all deliveries */
    _Atomic uint64_t owned;             /* fleet.c: partitions of ours, a bit each */
    uint64_t        leaving;            /* ... that are to be given back */
    _Atomic uint64_t unheard;           /* ... of which there was no memory to tell */
    int64_t         look_again_us;      /* ... when who waits for a delivery looks again */
    _Atomic uint64_t spans;             /* ... any thread: see fleet_parts */

    pthread_mutex_t mtx;
    struct write_ask *asks;             /* under mtx: all, to be freed at the end */
    struct write_watch *all_watches;    /* likewise */
    struct stats_source figures;
};

/* ---- writes.c -------------------------------------------------------------------------------- */

/* Room for n bytes behind it. NULL: memory out. */
struct wop *wop_new(struct writes *w, enum journal_kind kind, size_t n);
void wop_free(struct wop *o);           /* NULL is fine */
/* then(o) comes on the write loop, always: when the journal has done it; at once. Any thread. */
void wop_do(struct wop *o);
void wop_post(struct wop *o);
/* The journal could not take it: once more, in a second. */
void wop_again(struct wop *o);
/* Copies s to *at, which moves behind it; .p NULL stays so. */
struct slice put_slice(char **at, struct slice s);
void writes_pump(struct writes *w);     /* soon */
/* The row is pending (no more): for readers. */
void writes_count(struct writes *w, const struct write_row *r, bool pending);
/* How many of this client are pending for this path, or for another that counts as the same. */
static inline uint32_t *
writes_by(const struct writes *w, uint64_t path_hash, uint64_t who)
{
    return &w->by[(path_hash ^ who) % FILTER_N];
}
/* One is new, or pending again. Returns its position; -1: memory out. */
int64_t writes_enter(struct writes *w, const struct write_row *r);
/* The numbers of an origin's name; false: there is none. */
bool writes_origin(const struct writes *w, struct slice name, unsigned *number);
/* The schedule learns of this route; -1: memory out. */
int writes_route(struct writes *w, uint32_t number);
void writes_apply(struct writes *w);            /* all routes, as site and journal have them now */

/* As schedule_source has it. */
int writes_next_of_target(void *writes, unsigned part, uint64_t target, uint64_t seq,
    struct write_row *r);

int64_t age_ms(const struct journal_figures *f);        /* of the oldest pending write */

static inline uint64_t
row_target(const struct write_row *r)
{
    return r->c2 != 0 ? r->c2 : r->c1;
}

/* ---- fleet.c --------------------------------------------------------------------------------- */

/* Where a write to this path goes; any thread. */
unsigned fleet_part(const struct route *r, uint64_t path_hash);
/* Where writes to this path may be; any thread. */
uint64_t fleet_parts(const struct writes *w, uint64_t path_hash);
void fleet_site(struct writes *w);              /* the site is new */
/* The route's limits as this instance's share of them. */
void fleet_share(const struct writes *w, const struct route *r, struct schedule_limits *l);
void fleet_tick(struct writes *w);
/* Gives back what it was asked for, and no delivery is about any more. */
void fleet_leave(struct writes *w);
/* What journal_found hears of a shared journal; on the journal's thread. */
void fleet_owns(void *writes, unsigned part, bool on);
void fleet_came(void *writes, const struct journal_news *news, size_t n);
void fleet_changed(void *writes);

/* ---- ask.c ----------------------------------------------------------------------------------- */

struct write_ask {
    uint32_t         magic;
#define WRITE_ASK_MAGIC 0x3417ea5cu
    struct write_ask *prev, *next;      /* w->asks, under w->mtx */
    struct writes   *w;
    struct loop     *l;                 /* of who asks */
    struct loop_msg  msg;
    write_done      *done;              /* NULL: forgotten; the asker's, as `seen` */
    void           (*seen)(void *arg, const struct write_view *v);
    void            *arg;
    void           (*run)(struct write_ask *a);     /* on the write loop */
    struct write_answer answer;
    struct buf       text;              /* owned: of the answer */
    struct wop      *op;                /* owned: its slices are the answer's */

    /* what is asked */
    struct pool     *pool;              /* owned: of slices below; may be NULL */
    struct slice     id, url, origin, route;
    struct write_filter filter;
    uint64_t         seq, path_hash, chain, who;
    unsigned         part;
    bool             all, on, orders_target, brief;
    enum write_verb  verb;
    int64_t          until_us;          /* looking; 0: not */
    struct write_ask *looking;
    struct write_view view;
    uint64_t         left;              /* operations under way, and one for who starts them */
    unsigned         states;            /* mask; 0: the filter is no such state */
    bool             one, more;
    bool             unread;            /* some may be left, which could not be read */
};

struct write_ask *ask_new(struct writes *w, struct loop *l, void *arg);
void ask_free(struct write_ask *a);
/* a->run(a) comes on the write loop. */
void ask_post(struct write_ask *a);
/* done(arg, &a->answer) comes on its loop; takes it. */
void ask_answer(struct write_ask *a, enum write_outcome outcome, const char *why);
struct slice ask_copy(struct write_ask *a, struct slice s, bool *ok);

/* ---- ident.c --------------------------------------------------------------------------------- */

/* Of a request with an idempotency key to url; the low bits of key[0] are its partition. -1: memory
 * is out. */
int  ident_key(struct writes *w, const struct write_request *r, struct slice url, unsigned part,
    uint8_t key[16], uint8_t fingerprint[16]);
/* A claim's id is its key's hash. */
void ident_hex(const uint8_t key[16], char id[WRITE_ID_N + 1]);
uint64_t ident_order(struct slice key);         /* c1 of what a template gave */

/* ---- deliver.c ------------------------------------------------------------------------------- */

/* One to be sent, as schedule_take gave it. */
void delivery_start(struct writes *w, const struct write_row *row,
    const struct schedule_turn *turn);
void deliveries_end(struct writes *w);          /* gives up what is at the origin */
void deliveries_free(struct writes *w);         /* whose operations were not done */
bool delivery_has(const struct writes *w, uint64_t seq);
/* The line of this field among lines; NULL: there is none. */
const char *fields_find(struct slice fields, struct slice name);
/* Takes schedule and readers to where the row is now; `was` is what it was. */
void writes_moved(struct writes *w, const struct write_row *was, const struct write_row *r);

/* ---- tags.c ---------------------------------------------------------------------------------- */

/* Appends a line of If-Match as the origin knows the tags in it. -1: they cannot be told now, and a
 * part of it was appended. */
int tags_put(struct writes *w, struct slice line, struct buf *b);

/* ---- pending.c ------------------------------------------------------------------------------- */

void looks_again(struct writes *w, const struct write_row *r);     /* it is settled */
void looks_expire(struct writes *w);            /* those whose time is over */
int64_t looks_wait_us(const struct writes *w);          /* -1: none */

/* ---- verbs.c --------------------------------------------------------------------------------- */

bool verb_holds(const struct writes *w, uint64_t seq);      /* an operator's verb changes it now */
bool verb_moves(const struct writes *w, uint64_t seq);      /* ... and read it as pending */
void verbs_free(struct writes *w);

/* ---- json.c ---------------------------------------------------------------------------------- */

struct json_row {
    const struct write_row *row;
    const struct write_content *content;        /* NULL: without */
    bool brief;
    int64_t position;                           /* -1: not told */
};
void json_write(struct writes *w, struct buf *b, const struct json_row *j);
void json_time(struct buf *b, int64_t ms);      /* RFC 3339, quoted */

/* ---- watch.c --------------------------------------------------------------------------------- */

void watch_row(struct writes *w, const struct write_row *r);    /* it has this state now */
void watch_tick(struct writes *w);
void watches_free(struct writes *w);

#endif
