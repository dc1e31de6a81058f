/*
 * The form in which a whole response stands in a lower tier (value.c).
 */
#ifndef WEIR_TIER_VALUE_H
#define WEIR_TIER_VALUE_H

#include "tier/tier.h"

struct value {
    struct slice key;                   /* whole, as struct key has it */
    struct slice vary, variant, head;   /* as struct store_parts has them */
    uint32_t status_n, etag_at, etag_n;
    struct sem_meta meta;
    uint64_t route_id;
    uint64_t position[2];               /* of the purge stream, of a shared tier; else 0 */
    struct slice tags, groups;          /* each text behind its length; value_next */
    uint32_t ntags, ngroups;
    struct slice body;
};

/* What store_put takes, of a value; tags and groups have room for all that it may take. */
struct value_parts {
    struct key key;
    struct store_parts p;
    struct slice tags[256], groups[STORE_GROUPS_MAX];
};

/* Appends all of it but the body, of which only the size is looked at, and which the caller appends
 * behind it, then seals. false: memory is out, or it is nothing that a value can be. */
bool value_begin(const struct store_parts *p, struct buf *b);
void value_position(struct buf *b, struct store_position at);      /* of one that is begun */
void value_seal(struct buf *b);         /* the whole value and nothing else is in b */
uint64_t value_size(const struct store_parts *p);

enum value_verdict {
    VALUE_GOOD,
    VALUE_UNKNOWN,                      /* of another version, or no value at all */
    VALUE_BAD,                          /* damaged */
};
/* Reads one; its slices point into `in`. Nothing is read outside of `in`, and nothing is GOOD that
 * store_put, or who serves what it stored, could not take. */
enum value_verdict value_decode(struct slice in, struct value *v);
/* The next text of tags or groups of a GOOD value. */
bool value_next(struct slice *rest, struct slice *text);
/* As store_put takes it, but for the body, stamp and soft; points into the value. */
void value_to_parts(const struct value *v, struct value_parts *out);
/* Could it still be of use to anybody: fresh, served stale, or validated? What came later than now
 * is of none: the clock was set back, and how old it is nobody knows. */
bool value_useful(const struct value *v, int64_t now_ms);

/* What soft purges made of a value since it was put. */
enum tier_soft { TIER_FIRM, TIER_SOFT, TIER_DOUBT };    /* doubt: as store_purge has it */
/* promote.c: puts it into memory, unless that has it, or a newer one (STORE_OLDER); answers as
 * store_put does. *out (may be NULL): a reference to what was put, if it was. */
enum store_result tier_promote(struct store *s, const struct value *v, uint64_t stamp,
    enum tier_soft soft, struct object **out);

#endif
