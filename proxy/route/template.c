/*
 * Path templates such as `/api/users/{id}`, taken apart and checked.
 *
 * A placeholder is a whole segment: what a request must have is then decided by segments alone,
 * which is what makes matching cost by the length of the path. Literals are kept in the normalised
 * form of RFC 3986 6.2.2, the form in which request paths are compared.
 */
#include "route/trie.h"

static bool
name_valid(struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';

        if (!letter && c != '_' && (i == 0 || ((c < '0' || c > '9') && c != '-')))
            return false;
    }
    return s.n > 0;
}

static bool
escape_at(struct slice s, size_t i)
{
    return i + 2 < s.n && strchr("0123456789abcdefABCDEF", s.p[i + 1]) != NULL &&
        strchr("0123456789abcdefABCDEF", s.p[i + 2]) != NULL && s.p[i + 1] != '\0' &&
        s.p[i + 2] != '\0';
}

/* The characters of a path segment: pchar of RFC 3986 3.3. */
static int
literal_check(struct slice s, struct err *e)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];

        if (c == '*' || c == '{' || c == '}')
            return err_set(e, 0, "\"%.*s\" mixes text and a placeholder; {name}, * and ** stand "
                "for whole segments", SLICE_ARG(s));
        if (c == '?' || c == '#')
            return err_set(e, 0, "a path has no %c; a query or fragment cannot be matched here", c);
        if (c == '%' ? !escape_at(s, i) : c <= ' ' || c >= 0x7f || strchr("\"<>\\^`|", c) != NULL)
            return err_set(e, 0, "\"%.*s\" has a character that a path cannot have; write it "
                "percent-encoded, as %%20 for a space", SLICE_ARG(s));
    }
    return 0;
}

static int
literal_normalise(struct template_segment *g, struct slice s, struct pool *p, struct err *e)
{
    struct buf path = { 0 }, out = { 0 };
    struct slice n;
    int rc = -1;

    if (literal_check(s, e) == -1)
        return -1;
    buf_addc(&path, '/');
    buf_adds(&path, s);
    http_uri_normalise(&out, buf_slice(&path), (struct slice){ NULL, 0 });
    if (path.failed || out.failed || out.n == 0) {
        err_set(e, 0, "out of memory");
        goto out;
    }
    n = (struct slice){ out.p + 1, out.n - 1 };
    if (n.n == 0 && s.n > 0) {
        err_set(e, 0, "\"%.*s\" is taken out of every path before it is matched; leave it out",
            SLICE_ARG(s));
        goto out;
    }
    g->kind = SEGMENT_LITERAL;
    g->text = pool_slice(p, n);
    rc = g->text.p != NULL ? 0 : err_set(e, 0, "out of memory");
out:
    buf_free(&path);
    buf_free(&out);
    return rc;
}

static int
param_parse(struct template_parts *t, struct template_segment *g, struct slice s, struct err *e)
{
    g->kind = SEGMENT_PARAM;
    g->text = (struct slice){ s.p + 1, s.n - 2 };
    if (!name_valid(g->text))
        return err_set(e, 0, "{%.*s} is no placeholder; a name is a letter or _, then letters, "
            "digits, _ and -", SLICE_ARG(g->text));
    for (size_t i = 0; i < t->n; i++)
        if (t->at[i].kind == SEGMENT_PARAM && slice_eq(t->at[i].text, g->text))
            return err_set(e, 0, "{%.*s} stands twice; give the second another name",
                SLICE_ARG(g->text));
    if (++t->nparams > ROUTE_PARAMS_MAX)
        return err_set(e, 0, "more than %d placeholders", ROUTE_PARAMS_MAX);
    return 0;
}

int
template_parse(const char *text, struct pool *p, struct template_parts *t, struct err *e)
{
    struct slice rest, s;

    t->n = t->nparams = 0;
    if (text == NULL || text[0] != '/')
        return err_set(e, 0, "a path template starts with /");
    rest = slice_of(text + 1);
    while (slice_cut(&rest, '/', &s)) {
        struct template_segment *g = &t->at[t->n];
        int rc = 0;

        if (t->n == ROUTE_SEGMENTS_MAX)
            return err_set(e, 0, "more than %d segments", ROUTE_SEGMENTS_MAX);
        g->text = s;
        if (slice_eq(s, SLICE("**")))
            g->kind = SEGMENT_REST;
        else if (slice_eq(s, SLICE("*")))
            g->kind = SEGMENT_ANY;
        else if (s.n >= 2 && s.p[0] == '{' && s.p[s.n - 1] == '}')
            rc = param_parse(t, g, s, e);
        else
            rc = literal_normalise(g, s, p, e);
        if (rc == -1)
            return -1;
        if (g->kind == SEGMENT_REST && rest.p != NULL)
            return err_set(e, 0, "** stands for the rest of the path and must be the last segment");
        t->n++;
    }
    return 0;
}

int
route_template_check(const char *text, struct err *e)
{
    struct template_parts t;
    struct pool *p = pool_new();
    int rc;

    if (p == NULL)
        return err_set(e, 0, "out of memory");
    rc = template_parse(text, p, &t, e);
    pool_free(&p);
    return rc;
}

const char *const *
route_template_params(const char *text, struct pool *p, size_t *n)
{
    struct template_parts t;
    const char **out;
    size_t k = 0;

    *n = 0;
    if (template_parse(text, p, &t, NULL) == -1)
        return NULL;
    out = pool_alloc(p, (t.nparams + 1) * sizeof *out);
    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < t.n; i++) {
        if (t.at[i].kind != SEGMENT_PARAM)
            continue;
        out[k] = pool_dup(p, t.at[i].text.p, t.at[i].text.n);
        if (out[k++] == NULL)
            return NULL;
    }
    *n = k;
    return out;
}
