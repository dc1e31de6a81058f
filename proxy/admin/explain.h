/*
 * admin/explain.h -- what the files of the explanation share.
 */
#ifndef WEIR_ADMIN_EXPLAIN_H
#define WEIR_ADMIN_EXPLAIN_H

#include "admin/inside.h"
#include "plugin/plugin.h"

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
    struct slice            host, path, query;      /* normalised; query.p NULL: there is none */
    struct pool            *pool;       /* owned; NULL unless plugins are asked */
    struct weir_request    *plugins;    /* likewise */
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

/* "write": what a write's success would purge. */
void explain_write(struct explained *x, const struct route_table *t);

/* "verdict" */
void explain_verdict(struct explained *x, const char *word, const char *text);

/* The key without the content's part, as request/ makes it. -1: memory is out. */
int explain_key(const struct explained *x, struct buf *b, struct key *k);
/* Makes the key; of a route whose plugins are asked for it also "plugins", and x->head and k are
 * as they leave them. false: the request does not come as far as the cache, and the verdict is
 * told; or memory is out. */
bool explain_plugins(struct explained *x, struct buf *b, struct key *k);

#endif
