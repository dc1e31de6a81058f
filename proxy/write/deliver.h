/* write/deliver.h -- private to write/: one delivery, of one write or of several together. */
#ifndef WEIR_WRITE_DELIVER_H
#define WEIR_WRITE_DELIVER_H

#include "write/policy.h"
#include "write/priv.h"

/* One write of it. Content is in the delivery's pool. */
struct item {
    struct write_row row;               /* as it is in the journal */
    struct write_content content;
    uint8_t was;                        /* row.state before it was SENDING */
    enum write_state to;                /* what becomes of it */
    int64_t delay_ms;                   /* WAITING: for so long */
    unsigned status;                    /* of its answer; 0: none */
    struct slice answer_head, answer_body;          /* body.p NULL: not kept */
    const char *cause;
    struct race race;                   /* while it is at the origin */
    uint64_t fence;                     /* under which it is delivered; 0: no fleet */
    bool lost;                          /* its partition is another instance's now */
};

struct effect;

struct delivery {
    uint32_t magic;
#define DELIVERY_MAGIC 0x3417de11u
    struct delivery *prev, *next;       /* w->deliveries */
    struct writes *w;
    struct pool  *pool;                 /* owned: the delivery itself lives there */
    struct item  *items; size_t nitems, cap;
    bool          batch;                /* the items go as one request, of its own */
    uint32_t      route_number;
    struct route_table *table;          /* owned reference */
    const struct route *route;
    struct origin *origin;              /* owned reference */
    struct schedule_turn turn;
    struct route_match match;
    struct http_head *head;             /* the request, parsed; its slices lie in `bytes` */
    struct slice  bytes;
    struct http_uri url;
    struct slice  extra;                /* field lines of ours */
    struct slice  body;
    struct fill  *fill;                 /* owned */
    struct effect *effect;              /* in the pool; NULL: memory was out, it fills nothing */
    size_t        left;                 /* operations under way */
    struct bus_ask *spreading;          /* what it purged reaches other instances */
    void        (*committed)(struct delivery *d);   /* when none is left */
    bool          filling;              /* a GET of the target is under way */
    bool          recorded;             /* the journal knows what became of it */
    bool          ended;                /* given up: freed when its operations are back */
};

/* gather.c: what else goes with the first item. */
void gather(struct delivery *d);
/* batch.c: -1: memory is out, or one cannot be a part of it. */
int  batch_body(struct delivery *d);
/* What each item's answer is, of the batch's. */
void batch_settle(struct delivery *d, const struct fill_view *v, struct slice body);

/* effect.c */
void effect_prepare(struct delivery *d);        /* once the request is made */
unsigned effect_begin(struct delivery *d);      /* it is sent now; fill_want.also */
void effect_end(struct delivery *d);
/* Purges what this item changed; v: its answer, NULL when none came. */
void effect_purge(struct delivery *d, const struct item *it, const struct fill_view *v,
    struct slice body);
/* The same for the one item, and fills. True: that takes time; delivery_filled comes then, from the
 * loop. */
bool effect_settle(struct delivery *d, const struct fill_view *v, struct slice body);
const struct route *effect_match(const struct delivery *d, const struct http_head *h,
    struct route_match *m);

void delivery_free(struct delivery *d);
/* The journal has it as being sent: it leaves. */
void delivery_send(struct delivery *d);

/* commit.c. Items from `from` on as they are now; all or none are asked for. -1: memory is out. */
int  delivery_commit_some(struct delivery *d, size_t from, size_t to,
    void (*committed)(struct delivery *d));
int  delivery_commit(struct delivery *d, void (*committed)(struct delivery *d));
/* SENDING is in the journal, or on its way there, and nothing was sent. Behind it goes what undoes
 * it; what was superseded stays so. */
void delivery_take_back(struct delivery *d);

/* outcome.c. Its fetch has changed: struct delivery. */
void delivery_heard(void *arg);
/* It is committed: what comes behind it may go, and its readers look elsewhere. */
void delivery_settle(struct delivery *d);
/* Every item knows what becomes of it. */
void delivery_finished(struct delivery *d);
void delivery_filled(struct delivery *d);
/* sent.c. The request of all its items; -1: not now. */
int  delivery_request(struct delivery *d);
void delivery_fields(void *delivery, struct buf *b);    /* lines as the origin gets them */
/* Head, URL and parameters of this item from now on. -1: memory is out. */
int  delivery_head(struct delivery *d, const struct item *it);
struct item *delivery_item(struct delivery *d, const struct write_row *row,
    const struct write_content *c);     /* copied; NULL: memory is out */
/* What this attempt means for one item. */
void delivery_judge(struct delivery *d, struct item *it, const struct policy_heard *h,
    int64_t retry_after_ms, const char *cause);

#endif
