/* Private to request/: what a worker's thread has at hand. */
#ifndef WEIR_REQUEST_WORKER_H
#define WEIR_REQUEST_WORKER_H

#include "request/priv.h"

struct request_shared {                 /* of the process */
    struct store *store;                /* borrowed */
    struct tiers *tiers;                /* borrowed; NULL: memory is all there is */
    struct fills *fills;                /* borrowed */
    struct writes *writes;              /* borrowed; NULL without a journal, and when another
                                           process has it; by RCU */
    atomic_uint   bound;                /* request_bound */
    struct tracer *tracer;              /* borrowed; NULL: no traces are made */
    struct site  *site;                 /* published by RCU; owned reference */
};

struct request_worker {
    struct request_shared *shared;
    struct loop *loop;
    struct request *left;               /* writes at the origin whose client has left; */
    bool         draining;              /* ... there will be no more of these */
    struct buf   target, key;           /* scratch of the hot path: kept, so that it allocates
                                           nothing */
};

#endif
