/*
 * What was asked for, in its normal form.
 *
 * The same bytes make the key and go to the origin, so that two requests with one key are one
 * request for the origin too: nobody can have one spelling's answer stored under another's name.
 * What a trusted peer says that its client asked for goes to the origin as well, which builds its
 * links of that: where it differs from what was asked of us it is in the key, byte by byte.
 */
#include "request/priv.h"

/* Without the port: "[::1]:80" is "[::1]". */
static struct slice
without_port(struct slice host)
{
    size_t i = host.n;

    while (i > 0 && host.p[i - 1] >= '0' && host.p[i - 1] <= '9')
        i--;
    if (i > 0 && host.p[i - 1] == ':')
        host.n = i - 1;
    return host;
}

bool
target_https(const struct conn *c, const struct http_head *h)
{
    return conn_https(c) || (http_has(h, HF_X_FORWARDED_PROTO) &&
        slice_ieq(http_value(h, HF_X_FORWARDED_PROTO), SLICE("https")) &&
        conn_client_in(c, &conn_listener(c)->trust));
}

int
target_read(const struct http_head *h, bool https, struct buf *b, struct target *t)
{
    size_t path_at, path_n;
    const char *mark;

    b->n = 0;
    http_host_normalise(b, h->host, https);
    path_at = b->n;
    if (h->path.n == 1 && h->path.p[0] == '*')
        buf_addc(b, '*');
    else
        http_uri_normalise(b, h->path, h->query);
    if (b->failed)
        return -1;
    t->host = (struct slice){ b->p, path_at };
    t->route_host = without_port(t->host);
    path_n = b->n - path_at;
    mark = memchr(b->p + path_at, '?', path_n);
    t->path = (struct slice){ b->p + path_at, path_n };
    t->query = (struct slice){ NULL, 0 };
    if (mark != NULL) {
        t->path.n = (size_t)(mark - t->path.p);
        t->query = (struct slice){ mark + 1, path_n - t->path.n - 1 };
    }
    return 0;
}

bool
target_host_plain(struct slice host)
{
    return host.n == 0 || memchr(host.p, '%', host.n) == NULL;
}

/* ---- what a trusted peer says --------------------------------------------------------------- */

static struct slice
unquoted(struct slice s)
{
    if (s.n >= 2 && s.p[0] == '"' && s.p[s.n - 1] == '"')
        return (struct slice){ s.p + 1, s.n - 2 };
    return s;
}

/* The next pair of a member of Forwarded; a semicolon in a quoted string ends none. */
static bool
next_pair(struct slice *rest, struct slice *pair)
{
    bool quoted = false;
    size_t n = 0;

    if (rest->p == NULL)
        return false;
    for (; n < rest->n && (quoted || rest->p[n] != ';'); n++) {
        if (rest->p[n] == '"')
            quoted = !quoted;
        else if (quoted && rest->p[n] == '\\' && n + 1 < rest->n)
            n++;
    }
    *pair = slice_trim((struct slice){ rest->p, n });
    rest->p = n < rest->n ? rest->p + n + 1 : NULL;
    rest->n = rest->p != NULL ? rest->n - n - 1 : 0;
    return true;
}

/* Could the origin answer by this pair (RFC 7239 4)? Not by who asked, and what says the same as the
 * key is in it. */
static bool
tells_apart(struct slice pair, struct slice host, struct slice scheme)
{
    struct slice name;

    if (!slice_cut(&pair, '=', &name) || pair.p == NULL)
        return name.n > 0;
    name = slice_trim(name);
    pair = slice_trim(pair);
    if (slice_ieq(name, SLICE("for")) || slice_ieq(name, SLICE("by")))
        return false;
    if (slice_ieq(name, SLICE("host")))
        return host.p != NULL && !slice_ieq(unquoted(pair), host);
    return !slice_ieq(name, SLICE("proto")) || !slice_ieq(unquoted(pair), scheme);
}

/* Which member says what matters, so each has its place. */
static int
add_forwarded(const struct http_head *head, struct slice host, struct slice scheme, struct buf *b,
    struct key *k)
{
    struct http_list it = { 0 };
    struct slice member, pair;
    struct key said = *k;
    size_t n = b->n;
    bool any = false;

    while (http_list_next(head, HF_FORWARDED, &it, &member)) {
        while (next_pair(&member, &pair)) {
            if (!tells_apart(pair, host, scheme))
                continue;
            any = true;
            if (key_add(&said, 'f', pair, b) == -1)
                return -1;
        }
        if (key_add(&said, 'f', SLICE(""), b) == -1)
            return -1;
    }
    if (any) {
        *k = said;
    } else {
        b->n = n;
        k->bytes = buf_slice(b);        /* which may have moved */
    }
    return 0;
}

int
target_key(const struct conn *c, const struct http_head *head, const struct route *route,
    bool https, struct slice host, struct buf *b, struct key *k)
{
    struct slice scheme = https ? SLICE("https") : SLICE("http"), v;

    if (LIKELY(!http_has(head, HF_X_FORWARDED_HOST) && !http_has(head, HF_X_FORWARDED_PROTO) &&
        !http_has(head, HF_X_FORWARDED_PORT) && !http_has(head, HF_FORWARDED)))
        return 0;
    if (!conn_client_in(c, &conn_listener(c)->trust))
        return 0;
    if (!route->conf->key_host)
        host.p = NULL;                  /* one entry for all hosts, however they are told */
    v = http_value(head, HF_X_FORWARDED_HOST);
    if (http_has(head, HF_X_FORWARDED_HOST) && host.p != NULL && !slice_eq(v, host) &&
        key_add(k, 'h', v, b) == -1)
        return -1;
    v = http_value(head, HF_X_FORWARDED_PROTO);
    if (http_has(head, HF_X_FORWARDED_PROTO) && !slice_eq(v, scheme) && key_add(k, 'p', v, b) == -1)
        return -1;
    v = http_value(head, HF_X_FORWARDED_PORT);
    if (http_has(head, HF_X_FORWARDED_PORT) && key_add(k, 'o', v, b) == -1)
        return -1;
    return http_has(head, HF_FORWARDED) ? add_forwarded(head, host, scheme, b, k) : 0;
}
