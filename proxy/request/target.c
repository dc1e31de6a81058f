/*
 * What was asked for, in its normal form.
 *
 * The same bytes make the key and go to the origin, so that two requests with one key are one
 * request for the origin too: nobody can have one spelling's answer stored under another's name.
 * What a trusted peer says that its client asked for goes to the origin as well: where it differs
 * from what was asked of us it is in the key (key/forwarded.c).
 */
#include "request/priv.h"

bool
target_https(const struct conn *c, const struct http_head *h)
{
    return conn_https(c) || (http_has(h, HF_X_FORWARDED_PROTO) &&
        slice_ieq(http_value(h, HF_X_FORWARDED_PROTO), SLICE("https")) &&
        conn_client_in(c, &conn_listener(c)->trust));
}

static int
normalise(const struct http_head *h, bool https, struct buf *b, struct target *t)
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
    t->route_host = http_without_port(t->host);
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

int
target_read(const struct http_head *h, bool https, struct buf *b, struct target *t)
{
    if (UNLIKELY(!h->normal))
        return normalise(h, https, b, t);
    *t = (struct target){ h->host, h->path, h->query, http_without_port(h->host) };
    return 0;
}

bool
target_host_plain(struct slice host)
{
    return host.n == 0 || memchr(host.p, '%', host.n) == NULL;
}

int
target_key(const struct conn *c, const struct http_head *head, const struct route *route,
    bool https, struct slice host, struct buf *b, struct key *k)
{
    if (LIKELY(!http_has(head, HF_X_FORWARDED_HOST) && !http_has(head, HF_X_FORWARDED_PROTO) &&
        !http_has(head, HF_X_FORWARDED_PORT) && !http_has(head, HF_FORWARDED)))
        return 0;
    if (!conn_client_in(c, &conn_listener(c)->trust))
        return 0;
    if (!route->conf->key_host)
        host.p = NULL;                  /* one entry for all hosts, however they are told */
    return key_add_forwarded(k, head, https, host, b);
}

void
target_url(const struct request *r, struct buf *b)
{
    buf_adds(b, r->https ? SLICE("https://") : SLICE("http://"));
    buf_adds(b, r->host);
    buf_adds(b, r->path);
    if (r->query.p != NULL) {
        buf_addc(b, '?');
        buf_adds(b, r->query);
    }
}
