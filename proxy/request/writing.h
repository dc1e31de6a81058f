/*
 * Private to request/: what the journal has to do with one request.
 *
 * Model    a request of which the journal keeps something (a write that is acknowledged first, an
 *          Idempotency-Key), or that looks into it (what is pending, the state of a write), has one
 *          of these, in its pool. It asks one question at a time; the answer is copied there, and
 *          req_run follows.
 */
#ifndef WEIR_REQUEST_WRITING_H
#define WEIR_REQUEST_WRITING_H

#include "request/priv.h"

enum write_step { STEP_BEGIN, STEP_JUDGE, STEP_PASS, STEP_CLAIM, STEP_ACCEPT, STEP_LOOK };

struct writing {
    enum write_plan     plan;
    enum write_step     step;
    bool                async;          /* the client prefers to be answered first */
    bool                cut;            /* its content is not all here */
    struct slice        key;            /* Idempotency-Key, decoded; .p NULL: none that counts */
    struct slice        order_key;      /* .p NULL: the path */

    struct write_ask   *ask;            /* owned: on its way */
    bool                answered, lost; /* it came; but memory for it is out */
    struct write_answer answer;         /* slices in the pool */
    struct write_view   view;           /* likewise */

    char                claim[WRITE_ID_N + 1];      /* of the key, while its answer is to come */
    struct buf          said;           /* owned: content of that answer, as far as it came */
    struct body_cursor  cursor;
    bool                too_long;

    enum req_state      next;           /* PENDING: where it goes on */
};

/* NULL: memory is out. */
struct writing *writing_of(struct request *r);
void writing_end(struct request *r);    /* at the end of the request */
/* Callbacks of the journal's: they copy the answer and wake the request. */
void write_heard(void *request, const struct write_answer *a);
void write_viewed(void *request, const struct write_view *v);
/* Asks what is pending at its target. false: memory out. */
bool write_look_at_target(struct request *r, int64_t wait_ms);
enum req_state write_no_memory(struct request *r);

/* acknowledge.c: what the writer hears. */
enum req_state acknowledge(struct request *r);          /* accepted */
enum req_state acknowledge_again(struct request *r);    /* the first answer of its key */
enum req_state acknowledge_look(struct request *r);     /* the state of a write */

#endif
