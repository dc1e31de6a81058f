/*
 * admin/explain.h -- what the files of the explanation share.
 */
#ifndef WEIR_ADMIN_EXPLAIN_H
#define WEIR_ADMIN_EXPLAIN_H

#include "admin/inside.h"

#define ADVICE_MAX 16

struct clause {
    const char *word, *source, *asks;
    enum { CLAUSE_OWN, CLAUSE_TTL, CLAUSE_FORCE } remedy;
    const char *change;                 /* "" where it stands against nothing */
};
/* NULL: no clause has that word. */
const struct clause *clause_of(const char *word);

struct explained {
    struct admin_request   *r;
    const struct http_head *head;       /* of the request that is asked about */
    struct slice            content;    /* of it */
    struct sem_request      request;
    const struct route     *route;      /* NULL: none takes it */
    struct route_match      match;
    const char             *file;       /* of the configuration, or NULL */
    const struct object    *selected;   /* in the read section */
    enum store_answer       answer;
    enum sem_use            use;        /* of the selected one */
    int64_t                 now_ms;
    bool                    https, trusted, in_blocks;
    size_t                  n;
    const struct clause    *advice[ADVICE_MAX];
    size_t                  nadvice;
};

/* Appends "name": "value", or null. */
void explain_member(struct buf *b, const char *name, const char *value);
/* Appends "name": [...], what was weighed. With advise, what stands against it is advised on. */
void explain_clauses(struct explained *x, const char *name, const struct sem_trace *t,
    bool advise);
void explain_advise(struct explained *x, const char *word);
void explain_advice(struct explained *x);               /* "advice": [...] */

/* "answer", "stored", "last_refused", and of what comes in blocks "blocks". */
void explain_stored(struct explained *x, const struct key *k);

/* "write": what a write's success would purge. host, path and query: normalised. */
void explain_write(struct explained *x, const struct route_table *t, struct slice host,
    struct slice path, struct slice query);

#endif
