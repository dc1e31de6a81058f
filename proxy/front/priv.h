/* Private to front/. */
#ifndef WEIR_FRONT_PRIV_H
#define WEIR_FRONT_PRIV_H

#include <pthread.h>
#include <sys/socket.h>

#include "conn/conn.h"
#include "front/front.h"

struct worker;

struct listener {                       /* of one worker, for one address; there may be several */
    struct worker *worker;
    unsigned       index;               /* in conf->listeners */
    int            fd;                  /* -1: closed */
    bool           mute;                /* bound beside those of a process that runs; to listen */
    struct event  *ev;
    struct timer   rest;                /* after file descriptors ran out */
};

struct worker {
    struct front  *front;
    struct loop   *loop;                /* borrowed */
    pthread_t      thread;
    bool           started;
    struct conn_worker *conns;          /* its own thread's */
    struct listener *listeners;
    size_t         nlisteners;
    int            spare;               /* a file descriptor to give up when there are no others */
    struct loop_msg drain, cut, hold;
    atomic_bool    drain_posted, drained;
    atomic_uint    held;                /* front->holds, as far as it knows */
    atomic_bool    hold_posted;
};

struct front {
    uint32_t       magic;
#define FRONT_MAGIC 0xf4011700u
    pthread_mutex_t mtx;
    struct conf   *conf;                /* under mtx; owned reference */
    size_t         nlisteners, nworkers;
    struct worker *workers;
    atomic_uint   *counts;              /* connections of each listener, over all workers */
    struct sockaddr_storage *bound;     /* the address of each, its port known */
    socklen_t     *bound_n;
    atomic_int     holding;             /* enum conn_hold */
    atomic_uint    holds;               /* calls of front_hold */
    atomic_int     channel;             /* -1: connections are not given away */
    size_t         turn;                /* the worker that takes the next */
};

/* listen.c */
int  listen_open(struct front *f, struct err *e);
int  listen_start(struct worker *w, struct err *e);
void listen_close(struct worker *w);
void listen_pause(struct worker *w, bool on);

/* handover.c */
bool handover_give(struct worker *w);   /* as conn_worker_give */

#endif
