/* write/move.h -- private to write/: one `weir writes move`, of move.c and move_out.c. */
#ifndef WEIR_WRITE_MOVE_H
#define WEIR_WRITE_MOVE_H

#include <limits.h>

#include "write/priv.h"
#include "write/share.h"

#define PHASE_MAX (PATH_MAX + 64)

struct move {
    const struct conf *c;
    const char    *redis;               /* "redis", or a URL */
    char           path[PATH_MAX];      /* absolute */
    bool           dry;
    struct writes_moved *out;
    struct err    *e;

    struct pool   *pool;                /* owned */
    struct journal *j;                  /* owned: the file; or names of Redis' */
    struct mover  *m;                   /* owned */
    struct route_table *routes;         /* owned */
    char           phase[PHASE_MAX];    /* as it was */
    struct mover_found found;
    char           sum[17];
    bool           failed;              /* *e says why */

    sqlite3       *db;                  /* the new file */
    sqlite3_stmt  *st[WRITER_N];
    uint64_t       done;
};

/* -1, or NULL, with *x->e, as all here. */
int  move_open(struct move *x);         /* makes x->m */
struct journal *move_names(const struct move *x, const struct journal_limits *limits);
void move_sum(struct move *x, const uint8_t *secret);   /* x->sum */
void move_count(struct writes_moved *n, const struct write_row *r);
bool move_starts(const char *z, const char *with);
/* move_out.c: Redis into a file. */
int  move_out(struct move *x, const struct journal_limits *limits);

#endif
