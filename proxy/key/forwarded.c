/*
 * What a trusted peer says that its client asked for: X-Forwarded-Host, -Proto, -Port, Forwarded.
 *
 * Model    the origin builds its links of it. Where it differs from what was asked of us it is in
 *          the key, byte by byte, each field as a part of its own kind.
 * Threads  pure functions.
 * Not here who is trusted: the caller's.
 */
#include "key/key.h"

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

/* Could the origin answer by this pair (RFC 7239 4)? Not by who asked, and what says the same as
 * the key is in it. */
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
key_add_forwarded(struct key *k, const struct http_head *head, bool https, struct slice host,
    struct buf *b)
{
    struct slice scheme = https ? SLICE("https") : SLICE("http"), v;

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
