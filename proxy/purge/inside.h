/*
 * What the purge room's files share: from a URL as somebody wrote it to what the store knows it by.
 */
#ifndef WEIR_PURGE_INSIDE_H
#define WEIR_PURGE_INSIDE_H

#include "purge/purge.h"

/* A URL may be stored under several keys: routes that fields select have query rules of their
 * own. */
#define PURGE_FORMS_MAX 32              /* of one URL; beyond, all below its path is purged */

struct purge_forms {                    /* zero-initialise */
    struct store_purge *at;             /* owned, of cap; what purges the URL, each different */
    size_t              n, cap;
    struct buf          text;           /* owns their texts */
};

/* The purges of an absolute URL, one for each way in which a route that could take a GET for it
 * makes its key. any_host: its path and query alone, under every host. -1: it is no URL, or (with
 * f->text.failed) memory is out. */
int  purge_forms_of(const struct route_table *t, struct slice url, bool any_host,
    struct purge_forms *f);
/* The purges of a group (RFC 9875) of the origin of an absolute URL: of what is stored for that
 * origin, and of what is stored for every host. -1 as above. */
int  purge_forms_of_group(struct slice url, struct slice group, struct purge_forms *f);
void purge_forms_free(struct purge_forms *f);

/* Calls each(arg, route) for the routes that could take a GET for this absolute URL, as route_each
 * does. -1 as above, without f: memory may be out. */
int  purge_routes_of(const struct route_table *t, struct slice url, bool any_host,
    void (*each)(void *arg, const struct route *r), void *arg);

#endif
