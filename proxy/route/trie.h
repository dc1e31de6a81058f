/*
 * route/trie.h -- private: templates taken apart, and the trie that table.c builds and match.c
 * walks.
 */
#ifndef WEIR_ROUTE_TRIE_H
#define WEIR_ROUTE_TRIE_H

#include "route/route.h"

/* More segments than any template needs; it bounds the depth of the walk and its stack. */
#define ROUTE_SEGMENTS_MAX 64

enum segment_kind { SEGMENT_LITERAL, SEGMENT_ANY, SEGMENT_PARAM, SEGMENT_REST };

struct template_segment {
    enum segment_kind kind;
    struct slice text;                  /* LITERAL: normalised, in the pool; PARAM: its name,
        borrowed */
};

struct template_parts {
    struct template_segment at[ROUTE_SEGMENTS_MAX];
    size_t n, nparams;
};

/* 0, or -1 with *e. Literals are normalised as request paths are. */
int template_parse(const char *text, struct pool *p, struct template_parts *out, struct err *e);

/* ---- the trie ----------------------------------------------------------------------------- */

/* A route at a node, with what a request must have to be taken. */
struct entry {
    struct route *route;
    uint32_t      methods;              /* a bit for each known enum http_method; with nothing in
                                           others either: all */
    struct slice *others; size_t nothers;           /* methods that are in no table */
    struct want { enum http_id id; struct slice name; } *headers; size_t nheaders;
    const char   *tie;                  /* the field names, lower-case and sorted: see rank() */
    uint8_t       param_at[ROUTE_PARAMS_MAX];       /* which segment is the i-th parameter */
};

struct entries {
    struct entry **at; size_t n, cap;   /* the most specific first */
    struct by_field *fields;            /* NULL while those that ask for fields are few */
};

/* Many entries of one path that ask for fields, found by the fields that a request has: each stands
 * in the chain of one name that it asks for, the rarest; those that ask for none have their own. */
#define FIELDED_FEW 8
#define NO_ENTRY    UINT32_MAX
struct by_field {
    struct chain { struct slice name; uint64_t hash; uint32_t uses, first, last; } *at;
    uint32_t  mask;                     /* open addressing, at most half full */
    uint32_t *next;                     /* of each entry: the next of its chain, or NO_ENTRY */
    struct chain plain;
};
/* The hash of a name in lower case; the chain of a name, or the free place for it. */
uint64_t field_hash(struct slice name);
struct chain *field_chain(const struct by_field *f, struct slice name, uint64_t hash);
/* Makes es->fields where it pays. -1: memory is out. */
int entries_index(struct entries *es, struct pool *p);

struct node;

/* Children by literal segment, also hosts by name. Up to SMALL entries are packed and compared in
 * turn; more are an open-addressing table of a power of two at most half full. */
#define CHILDREN_SMALL 4
struct children {
    struct child { struct slice text; uint64_t hash; struct node *node; } *at;
    uint32_t n, cap;
};

struct node {
    struct children literal;
    struct node    *any;                /* `*` and {name}: one segment that is not empty */
    struct entries  here;               /* the path ends here */
    struct entries  rest;               /* `**` begins here: any segments, none included */
};

struct route_table {
    uint32_t        magic;
#define ROUTE_TABLE_MAGIC 0x7ab1e0f5u
    atomic_int      refs;
    struct pool    *pool;               /* owned; the table itself lives there */
    struct conf    *conf;               /* a reference */
    struct route   *routes; size_t n;
    struct children exact;              /* hosts */
    struct children wild;               /* of `*.example.com`: "example.com" */
    struct node     anywhere;           /* routes without a host */
    struct route  **by_name;            /* sorted by name */
    struct sem_names targets;
};

static inline struct node *
children_find(const struct children *c, struct slice s)
{
    if (c->cap <= CHILDREN_SMALL) {
        for (uint32_t i = 0; i < c->n; i++)
            if (slice_eq(c->at[i].text, s))
                return c->at[i].node;
        return NULL;
    }
    uint64_t h = key_hash(s);
    for (uint32_t i = (uint32_t)h & (c->cap - 1); c->at[i].node != NULL; i = (i + 1) & (c->cap - 1))
        if (c->at[i].hash == h && slice_eq(c->at[i].text, s))
            return c->at[i].node;
    return NULL;
}

#endif
