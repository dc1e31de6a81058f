/*
 * `weir purge|stats|explain|reload`: the shell's side of the admin port.
 *
 * Model    one blocking socket, one exchange, HTTP/1.1 with Connection: close, read to the end by
 *          the parser of http/. Exit codes: 0 done; 1 the server said no, or could not be reached;
 *          2 the command line was not understood.
 */
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "admin/inside.h"

#define DEFAULT_ADMIN "http://127.0.0.1:8081"
#define ANSWER_MAX    (256u << 20)      /* /stats of 10,000 busy routes stays far below */

/* ---- one exchange ---------------------------------------------------------------------------- */

static int
dial(const char *base, const struct http_uri *u)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *at;
    struct timeval wait = { .tv_sec = 60 };
    char host[256], port[8] = "80";
    struct slice name = u->host;
    const char *colon = memrchr(name.p, ':', name.n), *bracket = memchr(name.p, ']', name.n);
    int fd = -1, rc, error = 0;

    if (colon != NULL && (bracket == NULL || colon > bracket)) {
        snprintf(port, sizeof port, "%.*s", (int)(name.p + name.n - colon - 1), colon + 1);
        name.n = (size_t)(colon - name.p);
    }
    if (bracket != NULL)
        name = (struct slice){ name.p + 1, (size_t)(bracket - name.p) - 1 };
    snprintf(host, sizeof host, "%.*s", SLICE_ARG(name));
    rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        fprintf(stderr, "weir: %s: %s\n", base, gai_strerror(rc));
        return -1;
    }
    for (at = list; at != NULL && fd == -1; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd != -1 && connect(fd, at->ai_addr, at->ai_addrlen) != 0) {
            error = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd == -1) {
        fprintf(stderr, "weir: %s: %s. Is weir running, and is this the address of its admin port "
            "(admin.listen)? Say --admin URL for another.\n", base, strerror(error));
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    return fd;
}

static int
send_all(int fd, struct slice s)
{
    while (s.n > 0) {
        ssize_t n = send(fd, s.p, s.n, MSG_NOSIGNAL);

        if (n == -1 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        s = (struct slice){ s.p + n, s.n - (size_t)n };
    }
    return 0;
}

static int
receive_all(int fd, struct buf *b)
{
    for (;;) {
        char *room = buf_reserve(b, 65536);
        ssize_t n = room != NULL ? recv(fd, room, 65536, 0) : -1;

        if (n == -1 && room != NULL && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? 0 : -1;
        b->n += (size_t)n;
        if (b->n > ANSWER_MAX) {
            errno = EMSGSIZE;
            return -1;
        }
    }
}

/* The final response in `in`: its status, its body appended to out; -1 when it is none. */
static int
read_response(struct slice in, struct buf *out)
{
    static const struct http_limits limits = { .head = 65536, .uri = 8192,
        .fields = HTTP_FIELDS_MAX };
    static struct http_field fields[HTTP_FIELDS_MAX];
    struct http_head h = { 0 };
    struct http_fault fault;

    do {                                /* behind interim responses */
        ssize_t n;

        h = (struct http_head){ .cap = HTTP_FIELDS_MAX, .fields = fields };
        n = http_parse_response(in.p, in.n, &limits, &h, &fault);
        if (n <= 0)
            return -1;
        in = (struct slice){ in.p + n, in.n - (size_t)n };
    } while (h.status < 200);
    if (http_response_framing(&h, HTTP_GET, &fault) != 0)
        return -1;
    if (h.framing == HTTP_CHUNKED) {
        struct http_chunked d = { 0 };
        struct slice data;
        enum http_chunk what;

        while ((what = http_chunked_next(&d, &in, &data)) == HTTP_CHUNK_DATA)
            buf_adds(out, data);
        http_chunked_free(&d);
        return what == HTTP_CHUNK_END ? (int)h.status : -1;
    }
    if (h.framing == HTTP_LENGTH && in.n < h.length)
        return -1;
    buf_add(out, in.p, h.framing == HTTP_LENGTH ? (size_t)h.length : in.n);
    return (int)h.status;
}

int
client_exchange(const struct client *c, const char *method, const char *target, struct slice body,
    struct buf *out)
{
    struct buf b = { 0 };
    struct http_uri u;
    int fd, status = -1;

    if (http_uri_parse(slice_of(c->base), &u) != 0 || !slice_ieq(u.scheme, SLICE("http"))) {
        fprintf(stderr, "weir: --admin %s: http://HOST:PORT is wanted\n", c->base);
        return -1;
    }
    if ((fd = dial(c->base, &u)) == -1)
        return -1;
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: %.*s\r\nConnection: close\r\nContent-Length: %zu\r\n",
        method, target, SLICE_ARG(u.host), body.n);
    if (body.n > 0)
        buf_addz(&b, "Content-Type: application/json\r\n");
    if (c->token != NULL)
        buf_printf(&b, "Authorization: Bearer %s\r\n", c->token);
    buf_addz(&b, "\r\n");
    buf_adds(&b, body);
    if (b.failed || send_all(fd, buf_slice(&b)) != 0 || (b.n = 0, receive_all(fd, &b)) != 0)
        fprintf(stderr, "weir: %s: %s\n", c->base, b.failed ? "out of memory" : strerror(errno));
    else if ((status = read_response(buf_slice(&b), out)) == -1)
        fprintf(stderr,
            "weir: %s: the answer is no complete HTTP response; is this the admin port?\n",
            c->base);
    close(fd);
    buf_free(&b);
    return status;
}

/* ---- the command line ------------------------------------------------------------------------ */

static const char usage_text[] =
    "usage: weir purge [--url U] [--prefix P] [--pattern G] [--tag T] [--route R] [--all]\n"
    "                  [--soft] [--dry-run]\n"
    "       weir stats\n"
    "       weir explain URL [-H 'Name: value']\n"
    "       weir reload\n"
    "All take --admin URL (default " DEFAULT_ADMIN ") and --token-file FILE. --url, --prefix,\n"
    "--pattern, --tag, --route and -H may be given several times.\n";

enum { OPT_ADMIN = 256, OPT_TOKEN, OPT_URL, OPT_PREFIX, OPT_PATTERN, OPT_TAG, OPT_ROUTE, OPT_ALL,
    OPT_SOFT, OPT_DRY, OPT_HELP };

static const struct option options[] = {
    { "admin", required_argument, NULL, OPT_ADMIN },
    { "token-file", required_argument, NULL, OPT_TOKEN },
    { "url", required_argument, NULL, OPT_URL },
    { "prefix", required_argument, NULL, OPT_PREFIX },
    { "pattern", required_argument, NULL, OPT_PATTERN },
    { "tag", required_argument, NULL, OPT_TAG },
    { "route", required_argument, NULL, OPT_ROUTE },
    { "all", no_argument, NULL, OPT_ALL },
    { "soft", no_argument, NULL, OPT_SOFT },
    { "dry-run", no_argument, NULL, OPT_DRY },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

struct command {
    struct client client;
    const char   *url;                  /* of explain */
    struct buf    lists[5];             /* url prefix pattern tags route: insides of JSON lists */
    struct buf    query;                /* explain's headers */
    bool          all, soft, dry;
};

/* The token: the first line of the file, without the white space around it. */
static int
read_token(struct client *c, const char *path)
{
    FILE *f = fopen(path, "re");
    char line[4096];
    struct slice s;

    if (f == NULL || fgets(line, sizeof line, f) == NULL) {
        fprintf(stderr, "weir: token file %s: %s\n", path,
            f == NULL ? strerror(errno) : "it is empty");
        if (f != NULL)
            fclose(f);
        return -1;
    }
    fclose(f);
    s = slice_trim((struct slice){ line, strcspn(line, "\r\n") });
    if (s.n == 0 || !http_is_field_value(s)) {
        fprintf(stderr, "weir: token file %s: a token of printable characters is wanted\n", path);
        return -1;
    }
    free(c->token);
    c->token = strndup(s.p, s.n);
    return c->token != NULL ? 0 : -1;
}

static void
add_text(struct buf *list, const char *text)
{
    if (list->n > 0)
        buf_addz(list, ", ");
    admin_json_text(list, slice_of(text));
}

static void
add_encoded(struct buf *b, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z')
            buf_addc(b, (char)*p);
        else if ((*p >= '0' && *p <= '9') || *p == '-' || *p == '.' || *p == '_' || *p == '~')
            buf_addc(b, (char)*p);
        else
            buf_printf(b, "%%%02X", *p);
    }
}

static int
take_option(struct command *k, int opt, const char *value)
{
    switch (opt) {
    case OPT_ADMIN:
        k->client.base = value;
        return 0;
    case OPT_TOKEN:
        return read_token(&k->client, value) == 0 ? 0 : 1;
    case OPT_URL: case OPT_PREFIX: case OPT_PATTERN: case OPT_TAG: case OPT_ROUTE:
        add_text(&k->lists[opt - OPT_URL], value);
        return 0;
    case OPT_ALL:
        k->all = true;
        return 0;
    case OPT_SOFT:
        k->soft = true;
        return 0;
    case OPT_DRY:
        k->dry = true;
        return 0;
    case 'H':
        buf_addz(&k->query, "&header=");
        add_encoded(&k->query, value);
        return 0;
    default:
        fputs(usage_text, stderr);
        return 2;
    }
}

/* Prints the answer; what to do about a 401 as well. The exit code. */
static int
finish(const struct command *k, int status, struct buf *out)
{
    bool good = status >= 200 && status < 300;

    if (status == -1)
        return 1;
    if (out->n > 0)
        fwrite(out->p, 1, out->n, good ? stdout : stderr);
    if (status == 401)
        fprintf(stderr,
            "weir: %s asks for a token: say --token-file FILE, with the file that admin.token_file "
            "names%s\n",
            k->client.base, k->client.token != NULL ? " (the one that you gave is another)" : "");
    return good ? 0 : 1;
}

static int
run_purge(struct command *k)
{
    static const char *const members[] = { "url", "prefix", "pattern", "tags", "route" };
    struct buf body = { 0 }, out = { 0 };
    int rc, n = k->all;

    buf_printf(&body, "{\"soft\": %s, \"dry_run\": %s", k->soft ? "true" : "false",
        k->dry ? "true" : "false");
    if (k->all)
        buf_addz(&body, ", \"all\": true");
    for (size_t i = 0; i < NELEM(members); i++)
        if (k->lists[i].n > 0) {
            buf_printf(&body, ", \"%s\": [%.*s]", members[i], SLICE_ARG(buf_slice(&k->lists[i])));
            n++;
        }
    buf_addz(&body, "}");
    if (n == 0) {
        fprintf(stderr,
            "weir purge: say what: --url, --prefix, --pattern, --tag, --route or --all\n");
        rc = 2;
    } else {
        rc = finish(k, client_exchange(&k->client, "POST", "/purge", buf_slice(&body), &out), &out);
    }
    buf_free(&body);
    buf_free(&out);
    return rc;
}

static int
run_explain(struct command *k)
{
    struct buf target = { 0 }, out = { 0 };
    int rc;

    buf_addz(&target, "/explain?url=");
    add_encoded(&target, k->url);
    buf_adds(&target, buf_slice(&k->query));
    buf_addc(&target, '\0');
    rc = target.failed ? 1 :
        finish(k, client_exchange(&k->client, "GET", target.p, SLICE(""), &out), &out);
    buf_free(&target);
    buf_free(&out);
    return rc;
}

static int
run_stats(struct command *k)
{
    int status = client_stats(&k->client);

    return finish(k, status, &(struct buf){ 0 });
}

static int
run_reload(struct command *k)
{
    struct buf out = { 0 };
    int rc = finish(k, client_exchange(&k->client, "POST", "/reload", SLICE(""), &out), &out);

    buf_free(&out);
    return rc;
}

static int
run_verb(struct command *k, const char *verb, int nargs, char **args)
{
    static const struct { const char *verb; int nargs; int (*run)(struct command *); } verbs[] = {
        { "purge", 0, run_purge }, { "stats", 0, run_stats }, { "explain", 1, run_explain },
        { "reload", 0, run_reload },
    };

    for (size_t i = 0; i < NELEM(verbs); i++)
        if (strcmp(verb, verbs[i].verb) == 0 && nargs == verbs[i].nargs) {
            k->url = nargs > 0 ? args[0] : NULL;
            return verbs[i].run(k);
        }
    fputs(usage_text, stderr);
    return 2;
}

int
admin_client(int argc, char **argv)
{
    struct command k = { .client = { .base = DEFAULT_ADMIN } };
    int opt, rc = 0;

    optind = 1;
    while (rc == 0 && (opt = getopt_long(argc, argv, "H:", options, NULL)) != -1) {
        if (opt == OPT_HELP) {
            fputs(usage_text, stdout);
            goto out;
        }
        rc = take_option(&k, opt, optarg);
    }
    if (rc == 0)
        rc = run_verb(&k, argv[0], argc - optind, argv + optind);
out:
    for (size_t i = 0; i < NELEM(k.lists); i++)
        buf_free(&k.lists[i]);
    buf_free(&k.query);
    free(k.client.token);
    return rc;
}
