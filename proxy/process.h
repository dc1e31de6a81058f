/* The process: what it is made of, and who may end it. Private to the files beside it. */
#ifndef WEIR_PROCESS_H
#define WEIR_PROCESS_H

#include <signal.h>

#include "admin/admin.h"
#include "base/base.h"
#include "config/config.h"

struct process {
    struct loop   **loops;              /* of the workers, and behind them the write loop */
    size_t          nloops;             /* workers */
    struct loop    *admin_loop;
    struct upstream *upstream;
    struct store   *store;
    struct redis   *redis;              /* of the tiers; NULL: none is configured */
    struct tiers   *tiers;              /* NULL: memory is all there is */
    struct fills   *fills;
    struct front   *front;
    struct admin   *admin;
    struct writes  *writes;             /* NULL: there is no journal */
    struct bus     *bus;                /* NULL: there is no Redis */
    struct tracer  *tracer;             /* NULL: no traces are made */
    struct conf    *conf;               /* in force; owned reference */
    const char     *file, *origin;
    struct buf      overrides;          /* configuration made of flags */
    struct timer    tick;
    struct watchdog *watchdog;          /* NULL: no service manager watches */
    struct event   *signals[5];
    size_t          nsignals;
    int64_t         drain_until_us;     /* 0: not draining */
    bool            hurried;            /* a second signal ended the wait */
    int64_t         cut_until_us;       /* 0: not cutting what is left */
    unsigned        ticks;
    bool            started;
    int             exit_code;
    char          **argv;               /* of the whole command */
    struct upgrade *upgrade;            /* owned; NULL: there never was one */
    unsigned        upgrades;           /* that led to this process */
    int             channel;            /* to the process that is taken over from; -1: none */
    struct event   *taking;             /* owned: its connections come */
};

struct site;

/* process.c */
int  process_run(struct process *p);                /* until it has drained; the exit code */
/* What its flags or its file say. NULL: *r says why not. */
struct conf *process_load(const struct process *p, struct config_report *r);
void process_block_signals(void);
/* SIGHUP, SIGUSR1 and SIGUSR2 wait while a process starts: they would end it. */
void process_late_signals(sigset_t *late);
void process_terminate(struct process *p);          /* drains, and ends */
void process_drain(struct process *p);
void process_apply_log(const struct conf *c);
void process_writes_follow(struct process *p, struct site *s);

/* start.c */
void process_start(struct process *p, const struct admin_process *asks);
void process_stop(struct process *p);
size_t process_has_journal(const struct process *p);

#endif
