/*
 * semantics/priv.h -- what the files of this room share.
 */
#ifndef WEIR_SEMANTICS_PRIV_H
#define WEIR_SEMANTICS_PRIV_H

#include "semantics/semantics.h"

/* Notes what was weighed where somebody asks; elsewhere t is a constant NULL and nothing is left of
 * it. `is` and `limit`: what was compared, -1 for nothing. */
static inline void
sem_note(struct sem_trace *t, const char *word, enum sem_outcome outcome, int64_t is, int64_t limit)
{
    if (t != NULL && t->n < SEM_STEPS_MAX)
        t->at[t->n++] = (struct sem_step){ word, outcome, is, limit };
}

static inline bool
sem_forbids(struct sem_trace *t, const char *word, bool forbids)
{
    sem_note(t, word, forbids ? SEM_FORBIDS : SEM_ALLOWS, -1, -1);
    return forbids;
}

static inline bool
sem_gives(struct sem_trace *t, const char *word, bool gives, int64_t is, int64_t limit)
{
    sem_note(t, word, gives ? SEM_GIVES : SEM_SILENT, is, limit);
    return gives;
}

/* delta-seconds (RFC 9111 1.2.2): -1 when it is none, 2^31 when it is larger than that. */
int64_t sem_delta_seconds(struct slice s);

/* Does a quoted string in it not end? */
bool sem_unended(struct slice s);

/* Is this field in a list of no-cache= or private= of the response, which says cc? */
bool sem_cc_names(const struct http_head *h, const struct sem_cc *cc, struct slice name);

/* Do we know what a response with this final status asks of a cache (RFC 9111 3)? Those that
 * RFC 9110 15 defines, and nothing that is partial or about another response. */
bool sem_understands(unsigned status);

/* May freshness be assumed for it where the origin says nothing (RFC 9110 15.1)? */
bool sem_heuristic_status(unsigned status);

/* The one date of a singleton field, in seconds. HTTP_NO_DATE when it is absent, or no date, or
 * there are several that differ. */
int64_t sem_date(const struct http_head *h, enum http_id id, int64_t now_s);

/* Appends what the request says in Accept, Accept-Encoding or Accept-Language, in one form. false:
 * the field's grammar does not make it, nothing is appended. */
bool accept_put(enum http_id id, const struct http_head *request, struct buf *b);
/* qvalue (RFC 9110 12.4.2) in thousandths; -1: it is none. */
int accept_weight(struct slice s);
/* Does an Accept-Language in that form prefer a response in this language to all others? */
bool accept_prefers(struct slice accepted, struct slice language);

#endif
