/*
 * admin/inside.h -- what the files of this room share: the surface, a request of it, its reply.
 */
#ifndef WEIR_ADMIN_INSIDE_H
#define WEIR_ADMIN_INSIDE_H

#include <stdio.h>
#include <sys/socket.h>

#include "admin/admin.h"
#include "http/http.h"

#define ADMIN_BODY_MAX  (1u << 20)      /* a purge of 10,000 tags fits; 413 beyond */
#define ADMIN_CONNS_MAX 100u

struct conn;
typedef struct json_t json_t;           /* jansson's */

/* One request, complete, on its way through a handler. All slices are valid until the handler
 * returns. */
struct admin_request {
    struct admin           *a;
    const struct http_head *head;
    struct slice            body;
    unsigned                status;     /* filled by the handler: 200 unless it says otherwise */
    const char             *type;       /* ... application/json unless ... */
    const char             *policy;     /* Content-Security-Policy, or NULL */
    bool                    gzip;       /* that is the body's content coding */
    char                    allow[32];  /* for 405; else empty */
    bool                    challenge;  /* for 401 */
    struct buf              out;        /* the reply's body */
    struct conn            *conn;
    const struct endpoint  *endpoint;
};

struct endpoint {
    const char *path;                   /* `{id}` in it: any one segment */
    enum http_method method;            /* GET (then HEAD too), POST or DELETE */
    bool        probe;                  /* on the probe port as well */
    void      (*handle)(struct admin_request *r);
    const char *about;
};
extern const struct endpoint endpoints[];
extern const size_t nendpoints;

struct admin {
    uint32_t              magic;
#define ADMIN_MAGIC 0xad317001u
    struct loop          *loop;
    struct admin_process  process;
    char                 *token;        /* owned; NULL: none is asked for */
    char                **hosts;        /* owned; NULL-terminated: admin.hosts */
    char                 *address;      /* owned; of the admin port */
    struct listener      *listeners[2]; /* owned: admin, probe */
    struct conn          *conns;        /* owned by libevhtp's connections */
    unsigned              nconns[2];    /* of the admin and of the probe port */
    struct erasing       *erasing;      /* owned: replies that wait until bytes are gone */
    struct recent        *recent;       /* owned: the last purges */
    struct watching      *watching;     /* owned: who hears of the figures each second */
};

/* ---- replies (reply.c) ----------------------------------------------------------------------- */

/* Makes r's reply a problem (RFC 9457) with this detail; status's reason is its title. */
void admin_problem(struct admin_request *r, unsigned status, const char *detail, ...) PRINTF(3, 4);
/* The same, open: the caller appends members, each preceded by a comma, and then '}'. */
void admin_problem_open(struct admin_request *r, unsigned status, const char *detail);
/* Serialises the head. */
void admin_reply_head(const struct admin_request *r, bool close, struct buf *b);
/* Appends "text" in quotes, escaped. */
void admin_json_text(struct buf *b, struct slice s);

/* ---- purges that erase (erase.c) ------------------------------------------------------------- */

/* A purge that was made, up to the sequence `seq`. */
struct purged {
    struct buf results;                 /* what the reply says behind "done" */
    uint64_t   seq;
    bool       erase;                   /* it is not done before bytes are gone */
    int64_t    wait_ms;                 /* for the other instances */
};
/* Takes p->results. r is the reply (true), or it follows when the others have applied it. */
bool purge_answer(struct admin_request *r, struct purged *p);
/* What was purged is out of all tiers, bytes and all, before purge_answer is called. Takes p. */
void erase_begin(struct admin_request *r, struct purged *p);
void erase_end(struct admin *a);

/* The last purges that were made here, for /stats (recent.c). */
int  recent_begin(struct admin *a);
void recent_end(struct admin *a);
/* results: members of a reply, each preceded by a comma. */
void recent_add(struct admin *a, struct slice results);

/* ---- the dashboard (dashboard.c) ------------------------------------------------------------- */

/* Is this a part of the page, which asks for the token by itself and so needs none? */
bool dashboard_is_page(const struct http_head *h);

/* ---- figures each second (watch.c) ----------------------------------------------------------- */

void watching_end(struct admin *a);

/* ---- questions (query.c) --------------------------------------------------------------------- */

/* "a+b%20c" of a query, appended to out. -1: a malformed escape, or memory is out. */
int admin_query_value(struct slice s, struct buf *out);
/* The segment that stands where the endpoint's path has `{id}`. */
struct slice admin_path_id(const struct admin_request *r);

bool conn_any_busy(const struct admin *a);          /* a reply is awaited; streams do not count */

/* ---- replies that come later (conn.c) -------------------------------------------------------- */

struct conn;
/* In a handler, instead of a reply: it comes later, by admin_reply. Until then gone(arg) tells that
 * the connection is lost, and nothing may be said. */
struct conn *admin_wait(struct admin_request *r, void (*gone)(void *arg), void *arg);
/* An empty request of that connection, to be filled as a handler does, for admin_reply. */
struct admin_request admin_later(struct conn *c);
void admin_reply(struct conn *c, struct admin_request *r);
/* The same for server-sent events (the HTML standard, 9.2): they follow by admin_event, data of one
 * line. False: the reader has not taken a megabyte of them, and misses this one. */
struct conn *admin_stream(struct admin_request *r, void (*gone)(void *arg), void *arg);
bool admin_event(struct conn *c, const char *kind, struct slice data);

/* ---- who may (guard.c) ----------------------------------------------------------------------- */

/* Host, Origin, token, then path, method, content type and length: the endpoint, or NULL with a
 * problem in r. local: the connection's own address. */
const struct endpoint *admin_admit(struct admin_request *r, const struct sockaddr *local,
    bool probe);

/* ---- connections (conn.c) -------------------------------------------------------------------- */

struct evhtp_connection;
struct evhtp_request;
/* Takes over a connection that libevhtp accepted. -1: it cannot be served; libevhtp frees it. */
int  conn_open(struct admin *a, struct evhtp_connection *ev, bool probe);
/* libevhtp's request callback: runs the endpoint of the connection that it came by. */
void conn_on_request(struct evhtp_request *q, void *arg);
void conn_close_all(struct admin *a);

/* ---- handlers -------------------------------------------------------------------------------- */

void handle_index(struct admin_request *r);
void handle_healthz(struct admin_request *r);
void handle_readyz(struct admin_request *r);
void handle_metrics(struct admin_request *r);
void handle_stats(struct admin_request *r);
void handle_stats_stream(struct admin_request *r);
void handle_stats_history(struct admin_request *r);
void handle_log_stream(struct admin_request *r);
void handle_dashboard(struct admin_request *r);
void handle_config(struct admin_request *r);
void handle_reload(struct admin_request *r);
void handle_explain(struct admin_request *r);
void handle_purge(struct admin_request *r);
void handle_purge_look(struct admin_request *r);
void handle_writes(struct admin_request *r);
void handle_write(struct admin_request *r);
void handle_write_retry(struct admin_request *r);
void handle_write_drop(struct admin_request *r);
void handle_writes_retry(struct admin_request *r);
void handle_writes_drop(struct admin_request *r);
void handle_writes_pause(struct admin_request *r);
void handle_writes_resume(struct admin_request *r);
void handle_writes_stream(struct admin_request *r);

/* ---- the shell's side (client.c) ------------------------------------------------------------- */

#define DEFAULT_ADMIN "http://127.0.0.1:8081"
#define DEFAULT_WAIT  30                /* seconds */
struct client {
    const char *base;                   /* http://127.0.0.1:8081 */
    char       *token;                  /* owned */
    int64_t     wait_us;                /* for all of an exchange; for each part of a stream */
    /* A stream: looks at what has come of a 200, and takes off what it understood. True: enough. */
    bool      (*on_body)(void *arg, struct buf *b);
    void       *on_body_arg;
    /* Keys are there to be read, or a signal came. True: enough. NULL: the keyboard is left
     * alone. */
    bool      (*on_key)(void *arg);
    void       *on_key_arg;
    FILE       *errors;                 /* borrowed; NULL: stderr */
};
enum { CLIENT_ADMIN = 256, CLIENT_TOKEN, CLIENT_WAIT, CLIENT_OPTIONS };
#define CLIENT_OPTION_TABLE                                  \
    { "admin", required_argument, NULL, CLIENT_ADMIN },      \
    { "token-file", required_argument, NULL, CLIENT_TOKEN }, \
    { "timeout", required_argument, NULL, CLIENT_WAIT }
/* Takes one of these. 0, or an exit code. */
int client_option(struct client *c, int opt, const char *value);
/* Prints what came of an exchange, and what to do about a 401. The exit code. */
int client_finish(const struct client *c, int status, struct buf *out);
/* Percent-encoded, as the value of a query. */
void client_encode(struct buf *b, const char *text);
/* Appends it to a target's query; nothing of a value that is NULL. */
void client_parameter(struct buf *target, const char *name, const char *value);
/* One exchange. The status, with the body in *body; -1 after telling stderr what to do. */
int client_exchange(const struct client *c, const char *method, const char *target,
    struct slice body, struct buf *out);
/* GETs a stream of server-sent events: on_event for each that has data; true: enough. The status;
 * what came with another than 200 in *out. */
int client_follow(const struct client *c, const char *target,
    bool (*on_event)(void *arg, struct slice kind, struct slice data), void *arg, struct buf *out);
/* Waits, and hears keys. False: enough. */
bool client_rest(const struct client *c, int64_t us);
int client_stats(const struct client *c);
int client_top(int argc, char **argv);          /* `weir top` */
/* Text of requests and origins, for a terminal: controls, which it would obey, become \xHH. */
void client_plain(struct buf *b, const char *text);
/* A member of a document; "" and 0 where it has none. */
const char *client_text(const json_t *o, const char *name);
double client_number(const json_t *o, const char *name);
/* Milliseconds in six characters at most, "-" of NULL. */
void client_ms(const json_t *us, char out[16]);
int client_log(int argc, char **argv);          /* `weir log`; argv[0] is that word */
int client_writes(int argc, char **argv);       /* `weir writes`; argv[0] is that word */
/* Appends the page for a person that says what /explain said. -1: no JSON, or memory is out. */
int client_explain_page(struct slice text, struct buf *b);

#endif
