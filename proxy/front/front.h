/*
 * front -- the data port: listeners, accepting, worker threads.
 *
 * Model    every worker has a listening socket of its own for each address (SO_REUSEPORT), so that
 *          the kernel spreads connections and no thread hands one over. Sockets are accepted by
 *          libevent events on the listening fd and belong to conn/ from then on; libevhtp has no
 *          part here (it would only accept, and bring its connection object along).
 * Threads  all functions: the thread that made it.
 */
#ifndef WEIR_FRONT_H
#define WEIR_FRONT_H

#include "base/base.h"
#include "config/conf.h"
#include "conn/conn.h"

struct front;

/* Binds all addresses. NULL with *e: in use, no permission, ... naming the address and the
 * remedy. */
struct front *front_open(struct conf *c, struct loop *const *loops, size_t n, struct err *e);
/* Starts a thread for each loop, and accepts. */
int  front_start(struct front *f, struct err *e);
/* Limits, time-outs and trust of new connections, after a reload; its addresses are the same
 * (config_take_over). */
void front_reconfigure(struct front *f, struct conf *c);
/* What becomes of requests that come (conn_worker_hold); while all are held nobody is accepted. */
void front_hold(struct front *f, enum conn_hold what);
/* Does every worker know of the last front_hold? What began before it has been begun then. */
bool front_held(struct front *f);
/* From the next front_drain on, connections between two requests go through this socket to the
 * process at its other end instead of being closed; it is the caller's. */
void front_give(struct front *f, int channel);
/* The other end: takes what is there. false: nothing more will come. On one thread. */
bool front_take(struct front *f, int channel);
/* All listening sockets, with a blank between two. */
void front_sockets(const struct front *f, struct buf *b);
/* Stops accepting, closes idle connections; the others end after their answer. Call again to see:
 * true when none is left. */
bool front_drain(struct front *f);
/* Waiting is over: whatever is under way is cut. front_drain tells when it is done. */
void front_cut(struct front *f);
/* Stops the threads, closing what is left. */
void front_stop(struct front *f);
void front_free(struct front **fp);
/* "127.0.0.1:8080 [::]:8080" */
void front_addresses(const struct front *f, struct buf *b);

/* Warns of origins whose names do not resolve; in a thread of its own. */
void front_look_up(struct conf *c);

#endif
