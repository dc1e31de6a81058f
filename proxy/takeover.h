/*
 * One process takes over from another that runs: what both say to each other.
 *
 * Model    The one that runs starts the other (upgrade.c), with the listening sockets and one end
 *          of a socket of whole messages; environment TAKEOVER says which these are. Then:
 *
 *            new                          old
 *            reads its configuration, builds all that can fail
 *            READY ─────────────────────►
 *                                         holds what would write, until what does has ended; then
 *                                         all, closes the journal and the disk tier
 *                  ◄───────────────────── GO, with how often this was done before
 *            opens both, accepts
 *            SERVES ────────────────────►
 *                  ◄───────────────────── connections (front/handover.c), until it has no more
 *
 *          So neither file has two writers, and what a write or a purge changes is changed by one
 *          process, before the other begins. Whoever connects or asks meanwhile waits in the
 *          sockets, which are the same in both. Up to GO the old one can go on as if nothing had
 *          been, and it does where the new one ends, is silent, or writes do not end in time. After
 *          it, it cannot; where the new one ends then, its own program, which is known to work, is
 *          started for the same.
 * Version  of all this, the letters of front/handover.c among it: TAKEOVER begins with it. Who does
 *          not know it refuses.
 */
#ifndef WEIR_TAKEOVER_H
#define WEIR_TAKEOVER_H

#include "process.h"

#define TAKEOVER         "WEIR_TAKEOVER"    /* "VERSION PID CHANNEL SOCKET SOCKET ..." */
#define TAKEOVER_VERSION 1

enum takeover_word { TAKEOVER_READY = 1, TAKEOVER_GO, TAKEOVER_SERVES };
struct takeover_message { uint32_t word, upgrades; };

/* takeover.c: the new one. All end the process where it cannot be. */
bool takeover_begin(struct process *p);             /* false: it takes over from nobody */
void takeover_wait(struct process *p);              /* READY, until GO */
void takeover_serve(struct process *p);             /* SERVES */
void takeover_end(struct process *p);

/* upgrade.c: the old one. */
struct upgrade;
void upgrade_begin(struct process *p);              /* SIGUSR2 */
bool upgrade_under_way(const struct process *p);
/* SIGTERM: true when an upgrade that cannot be called off any more ends first. */
bool upgrade_cancel(struct process *p);
bool upgrade_bereft(const struct process *p);       /* the successor that served has failed */
void upgrade_free(struct process *p);               /* when no worker runs */

#endif
