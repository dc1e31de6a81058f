/*
 * admin/inside.h -- what the files of this room share: the surface, a request of it, its reply.
 */
#ifndef WEIR_ADMIN_INSIDE_H
#define WEIR_ADMIN_INSIDE_H

#include <sys/socket.h>

#include "admin/admin.h"
#include "http/http.h"

#define ADMIN_BODY_MAX  (1u << 20)      /* a purge of 10,000 tags fits; 413 beyond */
#define ADMIN_CONNS_MAX 100u

struct conn;

/* One request, complete, on its way through a handler. All slices are valid until the handler
 * returns. */
struct admin_request {
    struct admin           *a;
    const struct http_head *head;
    struct slice            body;
    unsigned                status;     /* filled by the handler: 200 unless it says otherwise */
    const char             *type;       /* ... application/json unless ... */
    const char             *allow;      /* for 405 */
    bool                    challenge;  /* for 401 */
    struct buf              out;        /* the reply's body */
};

struct endpoint {
    const char *path;
    enum http_method method;            /* GET (then HEAD too) or POST */
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
    unsigned              nconns;
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
void handle_config(struct admin_request *r);
void handle_reload(struct admin_request *r);
void handle_explain(struct admin_request *r);
void handle_purge(struct admin_request *r);

/* ---- the shell's side (client.c) ------------------------------------------------------------- */

struct client {
    const char *base;                   /* http://127.0.0.1:8081 */
    char       *token;                  /* owned */
    int64_t     wait_us;                /* for all of an exchange */
};
/* One exchange. The status, with the body in *body; -1 after telling stderr what to do. */
int client_exchange(const struct client *c, const char *method, const char *target,
    struct slice body, struct buf *out);
int client_stats(const struct client *c);
/* Appends the page for a person that says what /explain said. -1: no JSON, or memory is out. */
int client_explain_page(struct slice text, struct buf *b);

#endif
