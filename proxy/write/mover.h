/* write/mover.h -- private to write/: the talk with Redis of share_move.c and share_move_read.c. */
#ifndef WEIR_WRITE_MOVER_H
#define WEIR_WRITE_MOVER_H

#include "write/share.h"

#define MOVER_PAGE 256

typedef void mover_done(struct mover *m, const struct redis_reply *r, void *arg);

struct mover {
    struct share *s;
    struct journal *j;                  /* borrowed */
    pthread_t thread;
    bool      running;
    struct err *e;                      /* borrowed */

    pthread_mutex_t mtx;
    pthread_cond_t  less;
    unsigned  under_way;
    bool      failed;

    /* what is being read */
    mover_row *row;
    void    (*key)(void *arg, const struct key_row *k);
    void    (*name)(void *arg, struct slice name);
    void     *arg;
    struct mover_found *found;
    uint64_t *seqs; size_t nseqs;       /* a page; owned */
    struct key_row *keys; size_t nkeys; /* a page; owned; .h: 16 bytes each in hashes */
    uint8_t  (*hashes)[16];
    uint64_t  left;                     /* WIPE */
    char     *text; size_t size;
};

struct move_call {
    struct loop_msg msg;
    struct mover *m;
    struct share_part *p;
    int       script;                   /* -1: a command */
    struct share_args g;
    struct buf b;                       /* bytes that g points to; owned */
    char      key[SHARE_PREFIX + 64];
    mover_done *done;
    void     *arg;
    bool      may_be_refused;           /* done hears of Redis' error too */
};

/* A command (script -1) or script of this partition. NULL: it failed, as later ones will. done: on
 * the loop's thread, with the answer, unless one failed; NULL: nothing is done with it. */
struct move_call *mover_call(struct mover *m, unsigned part, int script, mover_done *done,
    void *arg);
/* The key PREFIX{jN}NAME, as an argument. */
void mover_key(struct move_call *c, const char *name);
/* Takes it over; waits until there is room in the window. */
bool mover_send(struct move_call *c);

#endif
