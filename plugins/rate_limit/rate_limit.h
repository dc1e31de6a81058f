/* rate_limit/rate_limit.h -- what the files of this plugin share. */
#ifndef RATE_LIMIT_H
#define RATE_LIMIT_H

#include "plugins/abi.h"
#include "plugins/rate_limit/bucket.h"

extern const struct weir_host *host;
extern struct buckets *buckets;         /* the process's: a reload keeps them */
int64_t clock_us(void);                 /* monotonic */

/* shared.c: the shared buckets in Redis. */
void shared_open(struct weir_self *self);
void shared_tick(struct weir_self *self);       /* says when Redis goes away and comes back */
int  shared_may_ask(int64_t now_us);            /* 0: it has not answered a moment ago */
/* With the bucket locked: whoever asks calls shared_send when it is unlocked. */
struct ask *shared_ask(struct bucket *b, const struct limit *l, int64_t now_us);  /* NULL: memory */
int  shared_wait(struct ask *a, struct weir_request *r);    /* -1: it cannot wait */
void shared_send(struct ask *a, struct weir_self *self);

#endif
