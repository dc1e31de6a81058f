/*
 * A purge as an entry of the stream.
 *
 *   v 1  from INSTANCE  seq N  kind KIND  text TEXT | route ID  soft 0 | 1 | 2  [erase 1]
 *
 * text is that of struct store_purge, byte by byte; ID the route's in hexadecimal digits; soft 2 is
 * `doubt`; erase is there where bytes are to go as well. Fields stand in this order. What is of any
 * other form was written by another version: whoever reads it purges everything, which is what it
 * says at most.
 * Threads  any.
 */
#include "purge/bus.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const kinds[] = {
    [STORE_PURGE_URL] = "url", [STORE_PURGE_PREFIX] = "prefix", [STORE_PURGE_PATTERN] = "pattern",
    [STORE_PURGE_TAG] = "tag", [STORE_PURGE_GROUP] = "group", [STORE_PURGE_ROUTE] = "route",
    [STORE_PURGE_ALL] = "all", [STORE_PURGE_PATH] = "path",
    [STORE_PURGE_PATH_PREFIX] = "path-prefix",
};

static struct slice
printed(char *at, size_t size, const char *form, uint64_t v)
{
    return (struct slice){ at, (size_t)snprintf(at, size, form, (unsigned long long)v) };
}

size_t
bus_entry_put(const struct bus_entry *e, struct bus_words *w, struct slice *argv)
{
    const struct store_purge *p = &e->purge;
    size_t n = 0;

    argv[n++] = SLICE("v");
    argv[n++] = SLICE("1");
    argv[n++] = SLICE("from");
    argv[n++] = e->from;
    argv[n++] = SLICE("seq");
    argv[n++] = printed(w->seq, sizeof w->seq, "%llu", e->seq);
    argv[n++] = SLICE("kind");
    argv[n++] = slice_of(kinds[p->kind]);
    if (p->kind == STORE_PURGE_ROUTE) {
        argv[n++] = SLICE("route");
        argv[n++] = printed(w->route, sizeof w->route, "%016llx", p->id);
    } else if (p->kind != STORE_PURGE_ALL) {
        argv[n++] = SLICE("text");
        argv[n++] = p->text;
    }
    argv[n++] = SLICE("soft");
    argv[n++] = p->soft && p->doubt ? SLICE("2") : p->soft ? SLICE("1") : SLICE("0");
    if (p->erase) {
        argv[n++] = SLICE("erase");
        argv[n++] = SLICE("1");
    }
    return n;
}

/* The value of the next field, if it has that name. */
static bool
next(const struct redis_reply *fields, size_t *i, const char *name, struct slice *value)
{
    if (*i + 2 > fields->n || fields->at[*i]->type != REPLY_STRING ||
        fields->at[*i + 1]->type != REPLY_STRING ||
        !slice_eq(fields->at[*i]->text, slice_of(name)))
        return false;
    *value = fields->at[*i + 1]->text;
    *i += 2;
    return true;
}

static bool
read_kind(struct slice s, enum store_purge_kind *out)
{
    for (size_t i = 0; i < NELEM(kinds); i++)
        if (slice_eq(s, slice_of(kinds[i]))) {
            *out = (enum store_purge_kind)i;
            return true;
        }
    return false;
}

int
bus_entry_read(const struct redis_reply *fields, struct bus_entry *out)
{
    struct slice v, seq, kind, id, soft, erase = { 0 };
    struct store_purge *p = &out->purge;
    size_t i = 0;

    *out = (struct bus_entry){ 0 };
    if (fields->type != REPLY_ARRAY || !next(fields, &i, "v", &v) || !slice_eq(v, SLICE("1")) ||
        !next(fields, &i, "from", &out->from) || !next(fields, &i, "seq", &seq) ||
        !slice_u64(seq, &out->seq) || !next(fields, &i, "kind", &kind) ||
        !read_kind(kind, &p->kind))
        return -1;
    if (p->kind == STORE_PURGE_ROUTE ?
        !next(fields, &i, "route", &id) || id.n != 16 || !slice_hex(id, &p->id) :
        p->kind != STORE_PURGE_ALL && !next(fields, &i, "text", &p->text))
        return -1;
    /* The store takes a group's text apart at the NUL behind its origin. */
    if (p->kind == STORE_PURGE_GROUP && (p->text.n == 0 ||
        memchr(p->text.p, '\0', p->text.n) == NULL))
        return -1;
    if (!next(fields, &i, "soft", &soft) || soft.n != 1 || soft.p[0] < '0' ||
        soft.p[0] > '2' || (soft.p[0] == '2' && p->kind != STORE_PURGE_ALL))
        return -1;
    p->soft = soft.p[0] != '0';
    p->doubt = soft.p[0] == '2';
    p->erase = next(fields, &i, "erase", &erase) && slice_eq(erase, SLICE("1"));
    return i == fields->n && (p->erase || erase.p == NULL) ? 0 : -1;
}

int
bus_id_read(struct slice s, struct store_position *out)
{
    struct slice ms;

    return slice_cut(&s, '-', &ms) && slice_u64(ms, &out->ms) && slice_u64(s, &out->n) ? 0 : -1;
}

struct slice
bus_id_put(struct store_position at, char text[BUS_ID_MAX])
{
    return (struct slice){ text, (size_t)snprintf(text, BUS_ID_MAX, "%llu-%llu",
        (unsigned long long)at.ms, (unsigned long long)at.n) };
}
