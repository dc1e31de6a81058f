/*
 * admin -- the operators' door: purge, stats, metrics, explain, config, reload, health.
 *
 * Model    libevhtp listens, accepts and runs the callbacks of the admin port and of the probe
 *          port, on one loop of their own thread; it never sees raw bytes: each connection's bytes
 *          meet http/'s parser first and libevhtp gets one canonical request at a time.
 * Threads  admin_start and admin_stop on the thread that owns the loop; handlers run on that loop.
 */
#ifndef WEIR_ADMIN_H
#define WEIR_ADMIN_H

#include "base/base.h"
#include "config/conf.h"
#include "purge/purge.h"
#include "route/route.h"
#include "store/store.h"
#include "tier/tier.h"
#include "write/write.h"

struct admin;

/* What the admin surface asks of the process; all called on the admin loop. */
struct admin_process {
    struct store *store;
    struct tiers *tiers;                            /* NULL: memory is all there is */
    struct writes *writes;                          /* NULL without a journal */
    struct bus *bus;                                /* NULL without a Redis */
    struct route_table *(*table)(void *arg);        /* the present one, a reference */
    /* 0 or -1; text for a person: what was refused, what needs a restart */
    int  (*reload)(void *arg, struct buf *text);
    bool (*ready)(void *arg, struct buf *why);      /* why: JSON members for /readyz's detail */
    void *arg;
};
/* Listens as conf says (admin_listen, probe_listen). NULL with *e: port in use and the like. */
struct admin *admin_start(struct loop *l, const struct conf *c, const struct admin_process *p,
    struct err *e);
void admin_reconfigure(struct admin *a, const struct conf *c); /* token and hosts, after a reload */
/* From now on it answers from p: at start some of it may not be there yet. Before the loop runs. */
void admin_answer_from(struct admin *a, const struct admin_process *p);
/* on: accepts nobody until it is called with false. True when no answer is under way; streams do
 * not count. */
bool admin_hold(struct admin *a, bool on);
/* Its listening sockets, at most two; borrowed. The count. */
size_t admin_sockets(const struct admin *a, int fds[2]);
void admin_stop(struct admin **ap);
/* host:port in use, for the log ("127.0.0.1:8081"); NULL when off. */
const char *admin_address(const struct admin *a);

/* The shell's side of it: `weir purge|stats|explain|reload|health ARGS`. Returns the exit code;
 * prints to stdout and stderr. argv[0] is the verb. */
int admin_client(int argc, char **argv);

#endif
