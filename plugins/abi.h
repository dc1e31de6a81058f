/*
 * weir/abi.h -- everything that a plugin of Weir needs: this file and a C library.
 *
 * A plugin is a shared object that exports one constant,
 *
 *     const struct weir_plugin weir_plugin = {
 *         .abi = WEIR_ABI, .size = sizeof(struct weir_plugin), .name = "hello", ...
 *     };
 *
 * built with  cc -shared -fPIC $(pkg-config --cflags weir) -o hello.so hello.c  and named in the
 * configuration:
 *
 *     plugins:
 *       - {name: hello, file: ./hello.so, on_error: fail, options: {greeting: hi}}
 *     routes:
 *       - {path: "/api/{id}", origin: api, plugins: {hello: {loud: true}}}
 *
 * It runs on the routes that name it (`hello: true` where it has no options), or on all routes with
 * `everywhere: true`, but for those that say `hello: false`. Of several the one that stands first
 * in `plugins` is called first.
 *
 * Model
 *   Nothing of Weir's own is seen here: a request is a handle, and what may be known of it or done
 *   to it is a function of struct weir_host. So a plugin goes on to work in later versions without
 *   being built again. Structs that carry a `size` grow at their end alone; both sides look at
 *   `size` before they use what an older one has not. New facts, numbers and marks get new values,
 *   and asking an older Weir for one gives nothing. Anything else would be another WEIR_ABI, and a
 *   plugin of another WEIR_ABI is refused by name at the start.
 *
 *   open()        once for each configuration that names the plugin: at the start, at each reload
 *                 (beside the one before, which is closed when its last request is done), and by
 *                 `weir check`, which closes it at once. Do not start threads that need the
 *                 process to go on. What must outlive a reload is static: libraries stay loaded.
 *   route_open()  then once for each route that uses it.
 *   hooks         below. They are named after the states of a request.
 *   tick()        about once a second, on the main thread, for the configuration in force: to look
 *                 whether a file has changed, say. Requests are not stopped for it.
 *   close()       after the last hook of that configuration, of which no request waits any more.
 *                 Tickets of those that have gone may be resumed later: nothing follows.
 *
 * Hooks, in the order of a request's life
 *   request    its head was read, its route is known. May change its fields, add parts to its cache
 *              key, add tags, mark it, answer it. Fields that the route matched by do not lead to
 *              another route any more.
 *   key        the same, with the cache key made (WEIR_KEY).
 *   response   the origin's head has come, before it is judged whether it may be stored, for how
 *              long, and before anybody gets it. May change its fields, its time to live and
 *              whether it is stored, and add tags. A 304 comes as the stored response with the
 *              fields that it brought; tags stay as they are then.
 *   store      the whole of it is here and is about to be stored: WEIR_BODY is its content, if that
 *              has no content coding, is no part (206) and at most 1 MiB. May add tags, or mark it
 *              as not to be stored. Parts that make up the whole later are not shown again.
 *   deliver    an answer, stored or not, is about to go to one client. May change the fields that
 *              this client gets. WEIR_STATUS and fields are those of its source: a 304 or 206 may
 *              be made of it yet, and length, Age and Cache-Status are not there.
 *   accepted   a write was accepted into the journal (WEIR_WRITE_ID); its client does not know yet.
 *   delivered  the origin has answered such a write finally, or it has become a dead letter
 *              (WEIR_OUTCOME: the name of its state). Later, and without its client.
 *   done       the last byte has left, or the client has.
 *
 *   A fetch serves many requests and outlives the one that began it. So `response` and `store` have
 *   a request of their own, with the method, target, fields and tags of the one that began the
 *   fetch, but not its client, id or slot.
 *   A plugin with request, key, deliver or done takes its routes off the fastest path; one without
 *   costs hits nothing. One that learns from its options which hooks it needs says so by only().
 *
 * Threads
 *   open, close, route_open, route_close and tick: one thread, one at a time. Hooks: any of several
 *   worker threads at once, for different requests; of one request never two at once. They must
 *   not block: a thread serves many. What takes time is done elsewhere while the request is
 *   suspended:
 *
 *     static int request(void *plugin, void *route, struct weir_request *r)
 *     {
 *         struct job **job = (struct job **)host->slot(r);
 *
 *         if (*job != NULL)                      // called again
 *             return (*job)->ok ? WEIR_NEXT : host->refuse(r, 403, "not today");
 *         *job = host->alloc(r, sizeof **job);   // NULL: memory is out
 *         hand_over(copy_of_it, host->suspend(r));
 *         return WEIR_SUSPENDED;
 *     }
 *
 *   Another thread calls host->resume(ticket), once and for every ticket, and after that the same
 *   hook is called again, on the request's own thread. A client that has left meanwhile is safe:
 *   the ticket stays good until it is resumed, and then nothing follows. The request, and what
 *   alloc() gave, may be gone before that; so what the other thread writes is its own, as
 *   `copy_of_it` here. One suspended for longer than the plugin's `timeout` counts as WEIR_FAILED.
 *   Hooks that may suspend: request, key, deliver.
 *
 * Redis
 *   What instances of Weir are to share, a plugin keeps in the Redis that they share for the cache
 *   (`cache.redis`), with redis(). There is none where none is configured, and any command may
 *   fail: a plugin has to have an answer without it. A request that waits for a reply is suspended
 *   meanwhile; better that few do.
 *
 * Explanations
 *   `weir explain` asks what would become of a request, without sending it: request and key are
 *   called as for any other, and no other hook, on a thread of the admin port. There is no client
 *   then, and suspend() gives NULL: that somebody else has to be asked first is what is told. What
 *   a hook spends or counts for a request it leaves alone where WEIR_EXPLAINED is 1.
 *
 * Errors
 *   A hook that returns WEIR_FAILED, or what it may not, is counted; then `on_error` decides. fail
 *   (the default): request, key and deliver answer 500, response answers 502, and at store the
 *   response is not stored. skip: the request goes on as if the plugin had said WEIR_NEXT; what it
 *   had done before stays. A crash of a plugin is a crash of Weir.
 *
 * Figures
 *   Each hook's time: weir_plugin_hook_seconds{plugin,hook} in /metrics, "timers" in /stats.
 *   Errors: weir_plugin_errors_total{plugin,hook}. A plugin's own: counter() and timer().
 */
#ifndef WEIR_ABI_H
#define WEIR_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_ABI 1

struct weir_host;
struct weir_self;                       /* a plugin in one configuration */
struct weir_request;
struct weir_ticket;
struct weir_counter;
struct weir_timer;

/* Does the struct behind p, which has a `size`, have this member? An older one may not. */
#define WEIR_HAS(p, member) \
    ((p)->size >= (size_t)((const char *)&(p)->member - (const char *)(p)) + sizeof (p)->member)

/* Bytes without an end mark. .p == NULL: there is none. Those that Weir gives live as long as the
 * hook's call, those of struct weir_value as long as the configuration. */
struct weir_text { const char *p; size_t n; };

/* ---- options --------------------------------------------------------------------------------- */

enum weir_kind {                        /* what a person writes, and what of weir_value has it */
    WEIR_COUNT = 1,                     /* 42                     number */
    WEIR_SIZE,                          /* 64KiB                  number: bytes */
    WEIR_DURATION,                      /* 5s, 1h                 number: milliseconds */
    WEIR_RATE,                          /* 500/s, 10/m            number: microseconds for each;
                                           text: as it was written */
    WEIR_BOOL,                          /* true                   number: 0 or 1 */
    WEIR_TEXT,                          /* any text               text */
    WEIR_FILE,                          /* a path                 text */
    WEIR_WORD,                          /* one of `words`         text */
    WEIR_TEXTS,                         /* a text, or a list      texts */
};

enum { WEIR_REQUIRED = 1, WEIR_SECRET = 2 };    /* weir_option.flags. SECRET: is never shown */

/* A table of these ends with one whose name is NULL. */
struct weir_option {
    const char *name;                   /* letters, digits and _ */
    uint32_t kind;
    uint32_t flags;
    const char *def;                    /* written as a person does; NULL: none. TEXTS: "a, b" */
    const char *min, *max;              /* of COUNT, SIZE and DURATION; NULL: no limit */
    const char *words;                  /* of WORD: "one, two" */
    const char *meaning;                /* one line for the reference */
};

/* In the order of the table. What was judged by it: kinds and limits need no second look. */
struct weir_value {
    uint32_t given;                     /* a person wrote it */
    uint32_t set;                       /* given, or there is a default */
    uint64_t number;
    struct weir_text text;              /* followed by a NUL */
    const struct weir_text *texts;      /* likewise */
    size_t ntexts;
};

/* ---- the plugin ------------------------------------------------------------------------------ */

enum {                                  /* what a hook returns */
    WEIR_FAILED = -1,
    WEIR_NEXT = 0,
    WEIR_SUSPENDED = 1,                 /* after suspend() */
    WEIR_ANSWERED = 2,                  /* after answer() or refuse(), which return it; request and
                                           key alone: nobody else is asked */
};

typedef int weir_hook(void *plugin, void *route, struct weir_request *r);

/* What is NULL is not there. open and route_open: 0 and *out, or -1 after complain(). */
struct weir_plugin {
    uint32_t abi;                       /* WEIR_ABI */
    uint32_t size;                      /* sizeof(struct weir_plugin) */
    const char *name;                   /* letters, digits and _ */
    const char *version;
    const char *meaning;                /* one line for the reference */
    const struct weir_option *options;          /* of the plugin */
    const struct weir_option *route_options;    /* of each route */
    int  (*open)(const struct weir_host *host, struct weir_self *self,
        const struct weir_value *values, void **out);
    void (*close)(void *plugin);
    int  (*route_open)(void *plugin, struct weir_self *self, const char *route,
        const struct weir_value *values, void **out);
    void (*route_close)(void *plugin, void *route);
    void (*tick)(void *plugin);
    weir_hook *request, *key, *response, *store, *deliver, *accepted, *delivered, *done;
};

#ifdef __GNUC__
__attribute__((visibility("default")))
#endif
extern const struct weir_plugin weir_plugin;    /* the one thing that a plugin exports */

/* ---- what Weir does for it ------------------------------------------------------------------- */

enum weir_hooks {                       /* bits for only() */
    WEIR_HOOK_REQUEST = 1, WEIR_HOOK_KEY = 2, WEIR_HOOK_RESPONSE = 4, WEIR_HOOK_STORE = 8,
    WEIR_HOOK_DELIVER = 16, WEIR_HOOK_ACCEPTED = 32, WEIR_HOOK_DELIVERED = 64, WEIR_HOOK_DONE = 128,
};

enum weir_level { WEIR_LOG_ERROR, WEIR_LOG_WARN, WEIR_LOG_INFO, WEIR_LOG_DEBUG };

enum weir_fact {                        /* texts; which hooks have them, if not all */
    WEIR_METHOD = 1,
    WEIR_SCHEME,                        /* "http" or "https", as the client used it */
    WEIR_HOST,                          /* with its port, normalised */
    WEIR_PATH,                          /* normalised, still percent-encoded; */
    WEIR_QUERY,                         /* ... behind '?'; .p NULL: there is none */
    WEIR_ROUTE,                         /* its name */
    WEIR_CLIENT,                        /* address, by X-Forwarded-For where that is from proxies in
                                           `trust`; not response, store, delivered */
    WEIR_REQUEST_ID,                    /* likewise */
    WEIR_KEY,                           /* key and later: the URL and, behind a NUL, its parts */
    WEIR_BODY,                          /* store */
    WEIR_WRITE_ID,                      /* accepted, delivered */
    WEIR_OUTCOME,                       /* done: "hit", "miss" ...; delivered */
};

enum weir_number {                      /* -1: not known here */
    WEIR_STATUS = 1,                    /* response and later; delivered: 0 without an answer */
    WEIR_BYTES_IN,                      /* done: of bodies */
    WEIR_BYTES_OUT,
    WEIR_MICROSECONDS,                  /* done: since its first byte */
    WEIR_ATTEMPTS,                      /* delivered */
    WEIR_EXPLAINED,                     /* request, key: 1: nobody has sent it; see Explanations */
};

enum weir_which { WEIR_OF_REQUEST, WEIR_OF_RESPONSE };

enum weir_mark {
    /* request, key: goes to the origin for this client alone, whatever is stored. */
    WEIR_MARK_PASS = 1,
    /* response, store: is not stored. */
    WEIR_MARK_NO_STORE,
    /* request, key: the plugin has judged Authorization, and all that an answer depends on of it is
     * among the key parts that it added. The answer may then be stored by the same rules as if the
     * request had no Authorization (RFC 9111 3.5), and is served to those with the same key. */
    WEIR_MARK_AUTHORIZED,
};

/* What Redis answered; valid until weir_replied returns. */
enum weir_reply_kind {
    WEIR_REPLY_NIL = 1,
    WEIR_REPLY_TEXT,                    /* text: bulk and simple strings */
    WEIR_REPLY_INTEGER,                 /* integer */
    WEIR_REPLY_LIST,                    /* at, n */
    WEIR_REPLY_ERROR,                   /* text: it did not do it, and why */
};
struct weir_reply {
    uint32_t kind;
    int64_t integer;
    struct weir_text text;              /* followed by a NUL */
    const struct weir_reply *const *at;
    size_t n;
};
/* reply NULL: there is none, and whether the command was done is not known. */
typedef void weir_replied(void *arg, const struct weir_reply *reply);

/* Lives as long as the process. Where not said otherwise functions are for the hook's own thread
 * during its call, and int is 0, or -1 when memory is out, a value is malformed, or this hook may
 * not do that; nothing was changed then. */
struct weir_host {
    uint32_t abi, size;

    /* ---- any thread, from open() to the end of close() ---- */
    void (*log)(struct weir_self *self, enum weir_level level, const char *line);
    /* During open and route_open: what is wrong, what is allowed. option: its name, or NULL. */
    void (*complain)(struct weir_self *self, const char *option, const char *text);
    /* weir_plugin_NAME_total / weir_plugin_NAME_seconds; name: letters, digits and _, best with the
     * plugin's in front. The same name gives the same one, over reloads too. During open and
     * route_open. NULL: memory is out, or the name is malformed; NULL may be counted in. */
    struct weir_counter *(*counter)(struct weir_self *self, const char *name, const char *meaning);
    struct weir_timer *(*timer)(struct weir_self *self, const char *name, const char *meaning);
    void (*count)(struct weir_counter *c, uint64_t n);
    void (*observe)(struct weir_timer *t, uint64_t nanoseconds);        /* on a hook's thread */

    /* ---- what is known ---- */
    struct weir_text (*fact)(struct weir_request *r, enum weir_fact what);
    int64_t (*number)(struct weir_request *r, enum weir_number what);
    /* A parameter of the route's path, percent-decoded. */
    struct weir_text (*param)(struct weir_request *r, const char *name);
    /* The i-th line (from 0) of the fields with this name, whatever case; .p NULL: no such line. */
    struct weir_text (*field)(struct weir_request *r, enum weir_which which, const char *name,
        unsigned i);
    /* The i-th field of all; 0: there are less. */
    int (*field_at)(struct weir_request *r, enum weir_which which, unsigned i,
        struct weir_text *name, struct weir_text *value);

    /* ---- what may be done ---- */
    /* Replaces all lines of that name by this one; value.p NULL: takes them away. Of the request in
     * request and key; of the response in response and deliver, and in request and key of whatever
     * answer this client gets.
     * Not: hop-by-hop fields, Host, and those that tell the length. */
    int (*set_field)(struct weir_request *r, enum weir_which which, const char *name,
        struct weir_text value);
    int (*add_field)(struct weir_request *r, enum weir_which which, const char *name,
        struct weir_text value);
    /* request, key: requests that differ in this part have different answers. Of a name twice: two
     * parts. */
    int (*add_key)(struct weir_request *r, const char *name, struct weir_text value);
    /* request, key, response, store: what is stored of it can be purged by this tag. */
    int (*add_tag)(struct weir_request *r, struct weir_text tag);
    /* response: for so long, where the origin says nothing; force: whatever it says. */
    int (*set_ttl)(struct weir_request *r, int64_t milliseconds, int force);
    int (*mark)(struct weir_request *r, enum weir_mark mark);
    /* request, key: this is the answer. Gives WEIR_ANSWERED, or WEIR_FAILED. type: Content-Type. */
    int (*answer)(struct weir_request *r, unsigned status, const char *type, struct weir_text body);
    /* The same with problem+json (RFC 9457) that says this detail. */
    int (*refuse)(struct weir_request *r, unsigned status, const char *detail);

    /* ---- memory and time ---- */
    /* Lives as long as the request; not cleared. NULL: memory is out. */
    void *(*alloc)(struct weir_request *r, size_t n);
    /* A place of this plugin's own in this request, NULL at first. */
    void **(*slot)(struct weir_request *r);
    /* NULL: memory is out, this hook may not, or it has done so already. Where the hook then
     * returns anything but WEIR_SUSPENDED, nothing follows when the ticket is resumed, as it must
     * be. */
    struct weir_ticket *(*suspend)(struct weir_request *r);
    void (*resume)(struct weir_ticket *t);      /* any thread, also before the hook has returned */

    /* ---- which hooks ---- */
    /* During open, for all routes, and route_open, for this one: of the hooks of the plugin's table
     * no others than these are called. */
    void (*only)(struct weir_self *self, unsigned hooks);

    /* ---- Redis: any thread, from open() to the end of close(); see WEIR_HAS ---- */
    /* Sends a command, of one key at most. argv[key] is that key, which is the plugin's own: Weir
     * puts `cache.redis.prefix` and the plugin's name in front, and in a cluster finds the server
     * by it. key 0: there is none. All is copied. Time counts from now; 0 milliseconds: as long as
     * a request waits for Redis, `cache.redis.timeout`.
     * 0: replied (may be NULL) is called, once: on a worker thread, or when Weir ends on the main
     * thread, never from inside this call, and maybe after close(). -1: it is not: memory is out,
     * or Redis is known not to answer, as it is in open(), before the first worker runs.
     * Without a command, argc 0, also in open(): 0 where one is configured, else -1. */
    int (*redis)(struct weir_self *self, const struct weir_text *argv, size_t argc, size_t key,
        int64_t milliseconds, weir_replied *replied, void *arg);

    /* Any thread: 1 if set_field takes fields of this name, else 0; for options that name one. */
    int (*may_set)(enum weir_which which, const char *name);
};

#ifdef __cplusplus
}
#endif

#endif
