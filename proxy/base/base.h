/*
 * base -- what every room stands on: slices, errors, log, time, memory,
 * the event loop with its inbox, the service manager, and read-copy-update.
 *
 * Includes nothing of ours. Threads: each function says so where it is
 * not "any thread, on data of its own".
 */
#ifndef WEIR_BASE_H
#define WEIR_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#ifdef __SANITIZE_THREAD__
#define WEIR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WEIR_TSAN 1
#endif
#endif

#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define LIKELY(x)    __builtin_expect(!!(x), 1)
#define UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define NELEM(a)     (sizeof(a) / sizeof((a)[0]))
#define CONTAINER(p, type, member) ((type *)(void *)((char *)(p) - offsetof(type, member)))

/* Each object carries a magic number; a stale or foreign pointer trips here. Our bug: assert. */
#define CHECK(o, m)  assert((o) != NULL && (o)->magic == (m))

/* ---- slices: borrowed bytes, not terminated -------------------------------------------- */

struct slice {
    const char *p;
    size_t      n;
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })
/* For printf("%.*s", SLICE_ARG(s)). */
#define SLICE_ARG(s)   (int)((s).n), (s).p

static inline struct slice
slice_of(const char *z)             /* NULL gives the empty slice */
{
    return (struct slice){ z, z != NULL ? strlen(z) : 0 };
}

static inline bool
slice_eq(struct slice a, struct slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* ASCII case-insensitive, as HTTP compares names and tokens. */
static inline bool
slice_ieq(struct slice a, struct slice b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

/* Bytes of the control that it begins with, which a terminal would obey: one of C0 or DEL, or one
 * of C1 in UTF-8. 0: it begins with none. */
static inline size_t
slice_control(struct slice s)
{
    const unsigned char *p = (const unsigned char *)s.p;

    if (s.n > 0 && (p[0] < 0x20 || p[0] == 0x7f))
        return 1;
    return s.n > 1 && p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0 ? 2 : 0;
}

bool slice_starts(struct slice s, struct slice prefix);
struct slice slice_trim(struct slice s);            /* without SP and HTAB at both ends */

/* The part of *rest before the next `sep`; *rest moves behind it. False when *rest is used up
 * (rest->p == NULL). Empty parts are given. */
bool slice_cut(struct slice *rest, char sep, struct slice *part);

/* Decimal digits only, no sign, no overflow: true and *out. */
bool slice_u64(struct slice s, uint64_t *out);
/* At most sixteen hexadecimal digits, lower case alone; and the n bytes that 2n of them say. False:
 * s is anything else, and *out not to be used. */
bool slice_hex(struct slice s, uint64_t *out);
bool slice_hex_bytes(struct slice s, void *out, size_t n);

/* Glob: `*` any run of bytes, `?` one byte, `\*`, `\?` and `\\` what is behind the backslash,
 * everything else itself. Linear time per star. */
bool slice_glob(struct slice pattern, struct slice s);
bool slice_iglob(struct slice pattern, struct slice s);     /* letters in either case (ASCII) */

/* ---- errors ---------------------------------------------------------------------------- */

struct err {
    int  code;                      /* an errno, or 0 */
    char text[480];                 /* one line, no full stop, for a person */
};

/* Fills *e (which may be NULL) and returns -1, so that `return err_set(e, ...)` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) PRINTF(3, 4);

/* ---- words that people mistype --------------------------------------------------------- */

/* Of several words the nearest to `to` by edit distance, if one is near enough. */
struct nearest { struct slice to; const char *word; unsigned distance; };
void nearest_try(struct nearest *n, const char *word);

/* Before getopt_long, which takes the beginning of a name for the whole: -1 with *e unless every
 * option of argv is one of `known` in full, and has a value where it must. */
struct option;
int options_exact(int argc, char **argv, const char *shorts, const struct option *known,
    struct err *e);

/* ---- log: lines on stderr, for people and journald ------------------------------------- */

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

extern _Atomic enum log_level log_threshold;    /* set at start and on reload, read by all */

/* One line "TIME LEVEL text". Any thread; one write(2) a line. */
void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
/* As log_line, but at most one a second for a given `last` (static int64_t zeroed by the caller);
 * what was left out is counted in the next line. For the world's faults that come by the
 * thousand. */
struct log_limit { _Atomic int64_t next_us; _Atomic uint32_t left_out; };
void log_limited(struct log_limit *lim, enum log_level level, const char *fmt, ...) PRINTF(3, 4);
/* Start-up only: log at LOG_ERROR and exit(1). */
void log_fatal(const char *fmt, ...) PRINTF(1, 2) __attribute__((noreturn));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) \
    do { if (UNLIKELY(log_threshold >= LOG_DEBUG)) log_line(LOG_DEBUG, __VA_ARGS__); } while (0)

/* ---- time ------------------------------------------------------------------------------ */

int64_t now_us(void);               /* monotonic */
int64_t wall_ms(void);              /* since 1970, UTC; may jump */

/* ---- memory ---------------------------------------------------------------------------- */

/* A pool: what lives exactly as long as a request comes from here and is freed at once.
 * One thread at a time. Returned memory is aligned to 16 and not cleared. NULL when memory is
 * out; the request is then answered 503, nothing else fails. */
struct pool;
struct pool *pool_new(void);
void  pool_free(struct pool **pp);                  /* takes yours, leaves NULL; NULL is fine */
void *pool_alloc(struct pool *p, size_t n);
void *pool_zalloc(struct pool *p, size_t n);
char *pool_dup(struct pool *p, const void *bytes, size_t n);   /* NUL behind it */
/* Copies s into the pool; .p is NULL when memory is out. */
struct slice pool_slice(struct pool *p, struct slice s);

/* A growing run of bytes. Zero-initialise. An allocation that fails sets `failed` and makes all
 * later adds do nothing: test once, at the end. */
struct buf {
    char  *p;                       /* owned */
    size_t n, cap;
    bool   failed;
};
void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_addc(struct buf *b, char c);
void buf_adds(struct buf *b, struct slice s);
void buf_addz(struct buf *b, const char *z);
void buf_addlower(struct buf *b, struct slice s);   /* ASCII letters in lower case */
void buf_addu(struct buf *b, uint64_t v);           /* decimal */
void buf_addhex(struct buf *b, uint64_t v);         /* sixteen digits, lower case */
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
char *buf_reserve(struct buf *b, size_t n);         /* room for n more; NULL when failed */
void buf_free(struct buf *b);                       /* frees and zeroes */
static inline struct slice buf_slice(const struct buf *b) { return (struct slice){ b->p, b->n }; }
/* Appends s as the inside of a JSON string (RFC 8259 section 7); bytes that are no UTF-8 become
 * U+FFFD. */
void buf_json(struct buf *b, struct slice s);

/* Writes v in decimal at p (room for 20) and returns its length; no NUL. */
size_t put_u64(char *p, uint64_t v);
/* Hexadecimal digits, lower case, of n bytes and of v (sixteen); what is behind them. No NUL. */
char *put_hex_bytes(char *p, const void *bytes, size_t n);
char *put_hex(char *p, uint64_t v);

/* Cryptographically random bytes (getrandom). Never fails once the system is up. */
void random_bytes(void *out, size_t n);
/* A fast per-thread generator for jitter and choice; never for secrets. */
uint64_t random_fast(void);

/* ---- the event loop -------------------------------------------------------------------- */

struct event_base;

/* One thread's event base and an inbox that any thread may post to. */
struct loop;

/* A message is a member of what it is about: posting allocates nothing and cannot fail.
 * It must not be posted again before `run` was called. */
struct loop_msg {
    struct loop_msg *next;
    void           (*run)(struct loop_msg *);
};

struct loop *loop_new(unsigned index, struct err *e);
void loop_free(struct loop **lp);                   /* when its thread has ended */
struct event_base *loop_base(struct loop *l);
unsigned loop_index(const struct loop *l);          /* 0.. */
int  loop_run(struct loop *l);                      /* until loop_stop; registers with RCU */
void loop_stop(struct loop *l);                     /* any thread */
/* Any thread: m->run(m) will run on l's thread, in order of posting, never from inside this
 * call. */
void loop_post(struct loop *l, struct loop_msg *m);
/* The loop that the calling thread runs, or NULL. */
struct loop *loop_current(void);

/* A one-shot timer on the loop's thread; zero-initialise, timer_init, then set as often as wanted.
 * Backed by libevent; a NULL event (memory out) makes timer_set return -1. */
struct event;
struct timer { struct event *ev; void (*run)(void *); void *arg; };
int  timer_init(struct timer *t, struct loop *l, void (*run)(void *), void *arg);
int  timer_set(struct timer *t, int64_t after_us);  /* replaces an earlier setting */
void timer_clear(struct timer *t);
void timer_fini(struct timer *t);                   /* fine on a zeroed one */

/* ---- the service manager: systemd, or what speaks as it does ---------------------------- */

/* NAME=VALUE lines as sd_notify(3) has them; nothing where no manager asked (NOTIFY_SOCKET). */
void service_notify(const char *fmt, ...) PRINTF(1, 2);
void service_mute(void);                /* nothing is told any more: another process speaks */
/* Before the next: instead of the manager's sockets there are those whose numbers, with a blank
 * between two, are in fds; and what the manager told the parent is told to us. -1 with *e. */
int  service_inherit(struct slice fds, struct err *e);
/* A socket that the manager opened for us (LISTEN_FDS) and that listens on this address: the
 * caller's from now on, non-blocking. -1: there is none, or no further one. */
struct sockaddr;
int  service_socket(const struct sockaddr *a);
/* 0; or -1 with *e, naming a socket of the manager's that nobody took: its clients would wait for
 * good. */
int  service_sockets_taken(struct err *e);
/* NULL where no manager watches (WATCHDOG_USEC); tick and free take that. To be freed after its
 * loops. Each tick, about one a second, tells the manager that we are well if every loop has
 * answered since the last. */
struct watchdog;
struct watchdog *watchdog_new(struct loop *const *loops, size_t n);
void watchdog_only(struct watchdog *w, size_t n);   /* the first n: nobody runs the others now */
void watchdog_tick(struct watchdog *w);
void watchdog_free(struct watchdog **wp);

/* ---- read-copy-update (liburcu, memb flavour), annotated for ThreadSanitizer here only ---- */

/* A thread that reads registers once (loop_run does so for its own) and leaves before it ends. */
void rcu_enter_thread(void);
void rcu_leave_thread(void);
/* Read side: what rcu_load gave stays valid until the matching end. Nests. Never blocks. */
void rcu_begin(void);
void rcu_end(void);
struct rcu_node {
    void *opaque[2];                    /* as large as liburcu's rcu_head */
#ifdef WEIR_TSAN
    void (*run)(struct rcu_node *);
#endif
};
/* After every reader that may see it has left: run(n), on a thread of liburcu's. */
void rcu_after(struct rcu_node *n, void (*run)(struct rcu_node *));
void rcu_wait(void);                               /* blocks for a grace period; not when reading */
void rcu_drain(void);                               /* blocks until all rcu_after have run */
/* Publish and read a pointer. Only inside one pair of rcu_begin/rcu_end may it be followed. */
#define rcu_store(where, value) __atomic_store_n((where), (value), __ATOMIC_RELEASE)
/* Consume ordering as Linux and liburcu have it: an acquire load costs nothing more on x86-64 and
 * one instruction on arm64, and ThreadSanitizer understands it. */
#define rcu_load(where) __atomic_load_n((where), __ATOMIC_ACQUIRE)

#endif
