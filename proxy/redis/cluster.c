/*
 * Cluster: which server has a slot, and where a redirection leads.
 *
 * Model    as the cluster specification has it: CRC16 of the key, or of what stands between its
 *          first { and the next }, modulo 16384; CLUSTER SLOTS gives the map, to masters alone;
 *          MOVED changes one slot at once and has the map asked for again; ASK sends this one
 *          command elsewhere, behind ASKING. An endpoint that the cluster does not know of itself
 *          is the host that we asked.
 */
#include "redis/inside.h"

#include <stdio.h>
#include <stdlib.h>

#define MASTERS_MAX  1000u              /* what the specification is made for */
#define REDIRECTS    5u

struct cluster_map {
    uint16_t     owner[CLUSTER_SLOTS];  /* index in masters, plus 1; 0: none */
    struct node *masters[MASTERS_MAX];  /* borrowed of the side */
    unsigned     n;
};

/* ---- slots ------------------------------------------------------------------------------- */

/* CRC-16/XMODEM, four bits at a time. */
static uint16_t
crc16(struct slice s)
{
    static const uint16_t step[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    };
    unsigned crc = 0;

    for (size_t i = 0; i < s.n; i++) {
        unsigned byte = (unsigned char)s.p[i];

        crc = ((crc << 4) ^ step[((crc >> 12) ^ (byte >> 4)) & 15]) & 0xffff;
        crc = ((crc << 4) ^ step[((crc >> 12) ^ byte) & 15]) & 0xffff;
    }
    return (uint16_t)crc;
}

int
cluster_slot(struct slice key)
{
    const char *open, *close;

    if (key.n == 0)
        return -1;
    open = memchr(key.p, '{', key.n);
    close = open != NULL ? memchr(open, '}', key.n - (size_t)(open - key.p)) : NULL;
    if (close != NULL && close > open + 1)
        key = (struct slice){ open + 1, (size_t)(close - open - 1) };
    return crc16(key) % CLUSTER_SLOTS;
}

struct node *
cluster_node(struct side *side, int slot)
{
    struct cluster_map *map = side->topology.map;
    unsigned first, owner;

    if (slot >= 0) {
        owner = map->owner[slot];
        return owner > 0 ? map->masters[owner - 1] : NULL;
    }
    first = (unsigned)(random_fast() % map->n);
    for (unsigned i = 0; i < map->n; i++)
        if (!server_shut(map->masters[(first + i) % map->n]->server))
            return map->masters[(first + i) % map->n];
    return map->masters[first];
}

void
cluster_map_free(struct side *side)
{
    free(side->topology.map);
    side->topology.map = NULL;
}

/* ---- the map ----------------------------------------------------------------------------- */

void
cluster_round(struct side *side)
{
    const struct redis_conf *c = &side->r->conf;
    struct node *n;

    TAILQ_FOREACH(n, &side->nodes, at)
        if (n->used && !server_shut(n->server))
            topology_candidate(side, n);
    for (size_t i = 0; i < c->nservers; i++) {
        n = node_get(side, c->servers[i].host, c->servers[i].port, ROLE_SERVER);
        if (n != NULL)
            n->seed = true;
        topology_candidate(side, n);
    }
}

static unsigned                         /* plus 1; 0: no room */
master_index(struct cluster_map *map, struct node *n)
{
    for (unsigned i = map->n; i > 0; i--)
        if (map->masters[i - 1] == n)
            return i;
    if (n == NULL || map->n == MASTERS_MAX)
        return 0;
    map->masters[map->n++] = n;
    return map->n;
}

/* One of CLUSTER SLOTS: first slot, last slot, [endpoint, port, ...] of its master, replicas. */
bool
cluster_range(const struct redis_reply *r, struct cluster_range *out)
{
    const struct redis_reply *master;

    if (r->type != REPLY_ARRAY || r->n < 3 || r->at[0]->type != REPLY_INTEGER ||
        r->at[1]->type != REPLY_INTEGER || r->at[2]->type != REPLY_ARRAY)
        return false;
    master = r->at[2];
    if (master->n < 2 || master->at[1]->type != REPLY_INTEGER ||
        (master->at[0]->type != REPLY_STRING && master->at[0]->type != REPLY_NIL))
        return false;
    if (r->at[0]->integer < 0 || r->at[1]->integer >= CLUSTER_SLOTS ||
        r->at[0]->integer > r->at[1]->integer || master->at[1]->integer < 1 ||
        master->at[1]->integer > UINT16_MAX || master->at[0]->text.n > HOST_MAX)
        return false;
    out->first = (int)r->at[0]->integer;
    out->last = (int)r->at[1]->integer;
    out->port = (uint16_t)master->at[1]->integer;
    out->host[0] = '\0';                /* not known: the one that was asked */
    if (!slice_eq(master->at[0]->text, SLICE("?")))
        snprintf(out->host, sizeof out->host, "%.*s", SLICE_ARG(master->at[0]->text));
    return true;
}

static struct node *
node_at(struct node *asked, const char *host, uint16_t port)
{
    return node_get(asked->side, host[0] != '\0' ? host : asked->server->host, port, ROLE_SERVER);
}

enum redis_cause
cluster_answer(struct side *side, struct node *asked, const struct redis_reply *r)
{
    struct cluster_map *map = calloc(1, sizeof *map);
    struct cluster_range range;
    struct node *n;

    for (size_t i = 0; map != NULL && r->type == REPLY_ARRAY && i < r->n; i++) {
        unsigned owner = cluster_range(r->at[i], &range)
            ? master_index(map, node_at(asked, range.host, range.port)) : 0;

        for (int slot = range.first; owner > 0 && slot <= range.last; slot++)
            map->owner[slot] = (uint16_t)owner;
    }
    if (map == NULL || map->n == 0) {
        free(map);
        return map == NULL ? REDIS_FULL : REDIS_CLUSTER;
    }
    cluster_map_free(side);
    side->topology.map = map;
    TAILQ_FOREACH(n, &side->nodes, at)
        n->used = false;
    for (unsigned i = 0; i < map->n; i++)
        map->masters[i]->used = true;
    return REDIS_OK;
}

/* ---- redirections ------------------------------------------------------------------------ */

/* "MOVED 3999 127.0.0.1:6381"; an address of IPv6 has no brackets, an unknown one is empty. */
bool
cluster_redirection(struct slice text, struct cluster_range *out)
{
    struct slice rest = text, word, slot, host;
    uint64_t number, port;
    const char *colon;

    if (!slice_cut(&rest, ' ', &word) || !slice_cut(&rest, ' ', &slot) || rest.p == NULL)
        return false;
    colon = rest.n > 0 ? memrchr(rest.p, ':', rest.n) : NULL;
    if (colon == NULL || !slice_u64(slot, &number) || number >= CLUSTER_SLOTS)
        return false;
    host = (struct slice){ rest.p, (size_t)(colon - rest.p) };
    if (!slice_u64((struct slice){ colon + 1, rest.n - host.n - 1 }, &port) || port == 0 ||
        port > UINT16_MAX || host.n > HOST_MAX)
        return false;
    out->first = out->last = (int)number;
    out->port = (uint16_t)port;
    snprintf(out->host, sizeof out->host, "%.*s", SLICE_ARG(host));
    return true;
}

bool
cluster_redirect(struct redis_ask *a, struct node *from, const struct redis_reply *r)
{
    bool moved = slice_starts(r->text, SLICE("MOVED "));
    bool asks = slice_starts(r->text, SLICE("ASK "));
    struct side *side = a->side;
    struct cluster_range to;
    struct node *n;

    if (side->r->conf.kind != REDIS_CLUSTERED)
        return false;
    if (moved || slice_starts(r->text, SLICE("CLUSTERDOWN")))
        topology_stale(side);
    if ((!moved && !asks) || a->late || a->redirects == REDIRECTS ||
        !cluster_redirection(r->text, &to) || (n = node_at(from, to.host, to.port)) == NULL)
        return false;
    if (moved && side->topology.map != NULL) {
        unsigned owner = master_index(side->topology.map, n);

        if (owner > 0) {
            side->topology.map->owner[to.first] = (uint16_t)owner;
            n->used = true;
        }
    }
    a->redirects++;
    a->asking = asks;
    if (!server_shut(n->server))
        return node_send(n, a);
    node_probe(n);
    return false;
}
