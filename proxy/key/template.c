/*
 * Templates: text with placeholders, for tags and for what a write purges.
 *
 * Model    a template is compiled at load into pieces. Expanding first gathers the values of every
 *          placeholder, in one buffer, then calls back for each combination of them; nothing is
 *          called when one has no value, or when there would be more than 256: a purge that is cut
 *          short would leave stale what it left out, so the caller is told to do more instead.
 *          A text that begins with '/' or a scheme is a path: what goes into it is written as a
 *          path has it, the client's own bytes where they are from the target, else
 *          percent-encoded, so that no value reaches beyond its segment or parameter (RFC 3986
 *          2.1, 3.3). The text decides, never a value: those come from messages.
 * Threads  a template is read only once made.
 * Not here what is then done with the texts (purge/, fill/).
 */
#include "key/key.h"
#include "key/priv.h"

#include <stdlib.h>

#define PIECES_MAX 32                   /* of one template: text and placeholders */
#define VALUES_MAX 256                  /* of one expansion, as the door says */

enum piece_kind {
    TEXT, PARAM, HOST, QUERY, FIELD, RESPONSE_FIELD, REQUEST_BODY, RESPONSE_BODY
};

struct piece {
    enum piece_kind  kind;
    bool             in_host;           /* of a URL: before its path */
    bool             in_query;          /* of a path: behind its '?' */
    bool             words;             /* of a field: each word is a value */
    struct slice     text;              /* TEXT itself; else the name */
    struct json_path path;              /* of a body */
};

struct key_template {
    uint32_t     magic;
#define TEMPLATE_MAGIC 0x7e3d1a7eu
    bool         is_path;
    unsigned     needs;
    size_t       n;
    struct piece pieces[];
};

/* ---- compiling ----------------------------------------------------------------------------- */

static const char *const openings[] = {
    "host", "path.", "query.", "header.", "response.header.", "request.body.", "response.body.",
};

/* Names all that are known, the route's own first. */
static int
unknown_any(struct slice inside, const char *const *params, size_t nparams, struct err *e)
{
    struct buf b = { 0 };

    for (size_t i = 0; i < nparams; i++)
        buf_printf(&b, "{%s}, ", params[i]);
    for (size_t i = 0; i < NELEM(openings); i++)
        buf_printf(&b, "%s{%s%s}", i > 0 ? ", " : "", openings[i],
            strchr(openings[i], '.') != NULL ? "NAME" : "");
    err_set(e, 0, "unknown placeholder {%.*s}; known are %.*s", SLICE_ARG(inside),
        SLICE_ARG(buf_slice(&b)));
    buf_free(&b);
    return -1;
}

static int
unknown(struct slice inside, const char *const *params, size_t nparams, struct err *e)
{
    struct nearest near = { .word = NULL };

    for (size_t i = 0; i < NELEM(openings) + nparams; i++) {
        const char *one = i < nparams ? params[i] : openings[i - nparams];
        struct slice name = slice_of(one);

        near.to = inside;
        /* Against "query.", say, weigh no more of "qeury.city" than up to its dot. */
        if (name.p[name.n - 1] == '.') {
            const char *dot = memrchr(inside.p, '.', inside.n);

            near.to.n = dot != NULL ? (size_t)(dot - inside.p) + 1 : inside.n;
        }
        nearest_try(&near, one);
    }
    if (near.word == NULL)
        return unknown_any(inside, params, nparams, e);
    return err_set(e, 0, "unknown placeholder {%.*s}; did you mean {%s%s}?", SLICE_ARG(inside),
        near.word, near.word[strlen(near.word) - 1] == '.' ? "NAME" : "");
}

static bool
is_param(struct slice name, const char *const *params, size_t nparams)
{
    for (size_t i = 0; i < nparams; i++)
        if (slice_eq(name, slice_of(params[i])))
            return true;
    return false;
}

/* "body" and "body.x" alike: what is behind `prefix`, or false. */
static bool
body_path(struct slice inside, struct slice prefix, struct slice *rest)
{
    if (!slice_starts(inside, prefix))
        return false;
    *rest = (struct slice){ inside.p + prefix.n, inside.n - prefix.n };
    if (rest->n > 0 && rest->p[0] == '.') {
        rest->p++;
        rest->n--;
        return rest->n > 0;
    }
    return rest->n == 0 || rest->p[0] == '[';
}

static int
compile_body(struct piece *piece, enum piece_kind kind, struct slice inside, struct slice rest,
    struct err *e)
{
    piece->kind = kind;
    if (json_path_parse(rest, &piece->path) == -1)
        return err_set(e, 0, "malformed placeholder {%.*s}; a path in a body is names and [] "
            "joined by dots, at most %d of them", SLICE_ARG(inside), KEY_JSON_STEPS);
    return 0;
}

/* "x-name", or "x-name[]" for each word of it. */
static int
compile_field(struct piece *piece, struct slice inside, struct err *e)
{
    struct slice *name = &piece->text;

    if (name->n > 2 && memcmp(name->p + name->n - 2, "[]", 2) == 0) {
        piece->words = true;
        name->n -= 2;
    }
    return http_is_token(*name) ? 0 : err_set(e, 0, "malformed placeholder {%.*s}; a field name is "
        "letters, digits and dashes, with [] behind it for each word of the field",
        SLICE_ARG(inside));
}

static int
compile_placeholder(struct piece *piece, struct slice inside, const char *const *params,
    size_t nparams, struct err *e)
{
    static const struct { struct slice prefix; enum piece_kind kind; } named[] = {
        { { "path.", 5 }, PARAM }, { { "query.", 6 }, QUERY }, { { "header.", 7 }, FIELD },
        { { "response.header.", 16 }, RESPONSE_FIELD }, { { "request.header.", 15 }, FIELD },
    };
    struct slice rest;

    piece->text = inside;
    if (is_param(inside, params, nparams)) {
        piece->kind = PARAM;
        return 0;
    }
    if (slice_eq(inside, SLICE("host"))) {
        piece->kind = HOST;
        return 0;
    }
    if (body_path(inside, SLICE("request.body"), &rest))
        return compile_body(piece, REQUEST_BODY, inside, rest, e);
    if (body_path(inside, SLICE("response.body"), &rest))
        return compile_body(piece, RESPONSE_BODY, inside, rest, e);
    for (size_t i = 0; i < NELEM(named); i++) {
        if (!slice_starts(inside, named[i].prefix) || inside.n == named[i].prefix.n)
            continue;
        piece->kind = named[i].kind;
        piece->text.p += named[i].prefix.n;
        piece->text.n -= named[i].prefix.n;
        if (piece->kind == PARAM && !is_param(piece->text, params, nparams))
            break;
        return piece->kind == FIELD || piece->kind == RESPONSE_FIELD ?
            compile_field(piece, inside, e) : 0;
    }
    return unknown(inside, params, nparams, e);
}

static unsigned
needs_of(enum piece_kind kind)
{
    switch (kind) {
    case REQUEST_BODY:
        return KEY_NEEDS_REQUEST_BODY;
    case RESPONSE_BODY:
        return KEY_NEEDS_RESPONSE_BODY | KEY_NEEDS_RESPONSE;
    case RESPONSE_FIELD:
        return KEY_NEEDS_RESPONSE;
    default:
        return 0;
    }
}

/* One piece from the front of *rest. */
static int
compile_piece(struct piece *piece, struct slice *rest, const char *const *params, size_t nparams,
    struct err *e)
{
    const char *end = rest->p + rest->n, *p = rest->p, *close;

    if (*p != '{') {
        while (p < end && *p != '{' && *p != '}')
            p++;
        if (p < end && *p == '}')
            return err_set(e, 0, "'}' without '{' before it");
        piece->kind = TEXT;
        piece->text = (struct slice){ rest->p, (size_t)(p - rest->p) };
    } else {
        close = memchr(p, '}', (size_t)(end - p));
        if (close == NULL)
            return err_set(e, 0, "'{' without '}' behind it");
        if (compile_placeholder(piece, (struct slice){ p + 1, (size_t)(close - p - 1) }, params,
            nparams, e) == -1)
            return -1;
        p = close + 1;
    }
    *rest = (struct slice){ p, (size_t)(end - p) };
    return 0;
}

/* "http://" and "https://" in front: their length. */
static size_t
scheme_of(const char *text)
{
    return strncasecmp(text, "http://", 7) == 0 ? 7 : strncasecmp(text, "https://", 8) == 0 ? 8 : 0;
}

/* Where in a path or URL each piece stands. */
static void
place_pieces(struct piece *pieces, size_t n, size_t scheme)
{
    bool host = scheme > 0, query = false;

    for (size_t i = 0; i < n; i++) {
        struct slice text = pieces[i].text;
        size_t from = i == 0 ? scheme : 0;

        pieces[i].in_host = host;
        pieces[i].in_query = query;
        if (pieces[i].kind != TEXT)
            continue;
        query = query || memchr(text.p, '?', text.n) != NULL;
        host = host && !query && memchr(text.p + from, '/', text.n - from) == NULL;
    }
}

struct key_template *
key_template_new(const char *text, const char *const *params, size_t nparams, struct pool *p,
    struct err *e)
{
    struct piece pieces[PIECES_MAX] = { 0 };
    struct slice rest = { pool_dup(p, text, strlen(text)), strlen(text) };
    struct key_template *t;
    unsigned needs = 0;
    size_t n = 0;

    for (; rest.p != NULL && rest.n > 0; n++) {
        if (n == PIECES_MAX) {
            err_set(e, 0, "more than %d placeholders and texts", PIECES_MAX);
            return NULL;
        }
        if (compile_piece(&pieces[n], &rest, params, nparams, e) == -1)
            return NULL;
        needs |= needs_of(pieces[n].kind);
    }
    place_pieces(pieces, n, scheme_of(text));
    t = rest.p != NULL ? pool_zalloc(p, sizeof *t + n * sizeof t->pieces[0]) : NULL;
    if (t == NULL) {
        err_set(e, 0, "memory is out");
        return NULL;
    }
    t->magic = TEMPLATE_MAGIC;
    t->is_path = text[0] == '/' || scheme_of(text) > 0;
    t->needs = needs;
    t->n = n;
    if (n > 0)
        memcpy(t->pieces, pieces, n * sizeof pieces[0]);
    return t;
}

unsigned
key_template_needs(const struct key_template *t)
{
    CHECK(t, TEMPLATE_MAGIC);
    return t->needs;
}

bool
key_template_is_path(const struct key_template *t)
{
    CHECK(t, TEMPLATE_MAGIC);
    return t->is_path;
}

/* ---- gathering values ---------------------------------------------------------------------- */

struct gathering {
    const struct key_facts *f;
    struct json_values      v;          /* of all pieces, one behind the other */
    uint32_t                ends[VALUES_MAX];
    uint16_t                first[PIECES_MAX + 1];      /* where a piece's values begin */
    bool                    is_path;
    bool                    absent;     /* a body that was there lacked a value */
    struct buf              plain;      /* a value before it is encoded; owned */
};

static void
value_done(struct gathering *g)
{
    if (g->v.n == g->v.cap)
        g->v.over = true;
    else
        g->v.ends[g->v.n++] = (uint32_t)g->v.text.n;
}

/* Appends a value that did not come from the target as a path has it: pchar (RFC 3986 3.3) stays,
 * and so does what a query may hold but for what parts its parameters. */
static void
add_encoded(struct buf *b, struct slice s, bool in_query)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool stays = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
            (c != '\0' && strchr("-._~!$'()*,;:@", c) != NULL) ||
            (!in_query && (c == '&' || c == '+' || c == '='));

        if (stays) {
            buf_addc(b, (char)c);
        } else {
            buf_addc(b, '%');
            buf_addc(b, digits[c >> 4]);
            buf_addc(b, digits[c & 15]);
        }
    }
}

static void
add_value(struct gathering *g, const struct piece *piece, struct slice s)
{
    if (g->is_path)
        add_encoded(&g->v.text, s, piece->in_query);
    else
        buf_adds(&g->v.text, s);
    value_done(g);
}

/* A value from the target, percent-encoded there. In a path it stays as the client wrote it, since
 * keys are made of that; "/", "?" and what parts parameters are legal in some places of a target
 * and not in all, so those are encoded. */
static void
add_target_value(struct gathering *g, const struct piece *piece, struct slice raw)
{
    bool parts = piece->in_query && piece->kind == PARAM;
    size_t from = g->v.text.n;

    if (!g->is_path) {
        if (http_uri_decode(&g->v.text, raw) == -1) {       /* no escape after all: literally */
            g->v.text.n = from;
            buf_adds(&g->v.text, raw);
        }
    } else {
        for (size_t i = 0; i < raw.n; i++) {
            char c = raw.p[i];

            if (c == '/' || c == '?' || (parts && (c == '&' || c == '=')))
                add_encoded(&g->v.text, (struct slice){ &c, 1 }, piece->in_query);
            else
                buf_addc(&g->v.text, c);
        }
    }
    value_done(g);
}

static void
gather_param(struct gathering *g, const struct piece *piece)
{
    const struct key_params *path = g->f->path;

    for (size_t i = 0; path != NULL && i < path->n; i++) {
        if (slice_eq(slice_of(path->names[i]), piece->text)) {
            add_target_value(g, piece, path->values[i]);
            return;
        }
    }
}

/* Each occurrence of the parameter is a value; names are compared decoded. */
static void
gather_query(struct gathering *g, const struct piece *piece)
{
    struct slice rest = g->f->query, param, name, value;
    const char *eq;

    while (slice_cut(&rest, '&', &param)) {
        eq = memchr(param.p, '=', param.n);
        if (eq == NULL)
            continue;
        name = (struct slice){ param.p, (size_t)(eq - param.p) };
        value = (struct slice){ eq + 1, param.n - name.n - 1 };
        g->plain.n = 0;
        if (http_uri_decode(&g->plain, name) == 0)
            name = buf_slice(&g->plain);
        if (slice_eq(name, piece->text))
            add_target_value(g, piece, value);
    }
}

/* What stands between commas and white space, as the lists of tags that origins send: both are in
 * use (Surrogate-Key: a b; Cache-Tag: a,b). */
static void
add_words(struct gathering *g, const struct piece *piece, struct slice list)
{
    for (size_t i = 0, from = 0; i <= list.n; i++) {
        if (i < list.n && list.p[i] != ',' && list.p[i] != ' ' && list.p[i] != '\t')
            continue;
        if (i > from)
            add_value(g, piece, (struct slice){ list.p + from, i - from });
        from = i + 1;
    }
}

/* All lines are one value, joined by ", " (RFC 9110 5.3). */
static void
gather_field(struct gathering *g, const struct piece *piece, const struct http_head *h)
{
    size_t lines = 0;

    g->plain.n = 0;
    for (unsigned i = 0; h != NULL && i < h->nfields; i++) {
        if (!slice_ieq(h->fields[i].name, piece->text))
            continue;
        if (lines++ > 0)
            buf_add(&g->plain, ", ", 2);
        buf_adds(&g->plain, h->fields[i].value);
    }
    if (lines > 0 && piece->words)
        add_words(g, piece, buf_slice(&g->plain));
    else if (lines > 0)
        add_value(g, piece, buf_slice(&g->plain));
}

static int
gather_body(struct gathering *g, const struct piece *piece, struct slice body)
{
    uint32_t ends[VALUES_MAX];
    struct json_values found = { .ends = ends, .cap = NELEM(ends) };
    int rc = json_find(body, &piece->path, &found);

    for (size_t i = 0, from = 0; rc == 0 && i < found.n; from = ends[i++])
        add_value(g, piece, ends[i] == from ? SLICE("") :
            (struct slice){ found.text.p + from, ends[i] - from });
    g->v.over = g->v.over || found.over;
    g->absent = g->absent || found.absent;
    buf_free(&found.text);
    return rc;
}

static int
gather_piece(struct gathering *g, const struct piece *piece)
{
    switch (piece->kind) {
    case TEXT:
        break;
    case PARAM:
        gather_param(g, piece);
        break;
    case HOST:
        if (g->f->host.n > 0 && piece->in_host) {       /* "[::1]:80" stands as it is there */
            buf_adds(&g->v.text, g->f->host);
            value_done(g);
        } else if (g->f->host.n > 0) {
            add_value(g, piece, g->f->host);
        }
        break;
    case QUERY:
        gather_query(g, piece);
        break;
    case FIELD:
        gather_field(g, piece, g->f->request);
        break;
    case RESPONSE_FIELD:
        if (g->f->response == NULL)
            return -1;
        gather_field(g, piece, g->f->response);
        break;
    case REQUEST_BODY:
        return gather_body(g, piece, g->f->request_body);
    case RESPONSE_BODY:
        return gather_body(g, piece, g->f->response_body);
    }
    return 0;
}

/* ---- expanding ----------------------------------------------------------------------------- */

static struct slice
value_at(const struct gathering *g, size_t i)
{
    size_t from = i > 0 ? g->ends[i - 1] : 0;

    if (g->ends[i] == from)             /* the buffer may not be there at all */
        return (struct slice){ "", 0 };
    return (struct slice){ g->v.text.p + from, g->ends[i] - from };
}

/* How many combinations; VALUES_MAX + 1 when they are too many. */
static size_t
combinations(const struct key_template *t, const struct gathering *g)
{
    size_t total = 1;

    for (size_t i = 0; i < t->n; i++) {
        if (t->pieces[i].kind == TEXT)
            continue;
        total *= (size_t)(g->first[i + 1] - g->first[i]);
        if (total > VALUES_MAX)
            return VALUES_MAX + 1;
    }
    return total;
}

/* Combination `which`, the last placeholder turning fastest. */
static void
write_one(const struct key_template *t, const struct gathering *g, size_t which, struct buf *b)
{
    size_t of[PIECES_MAX];

    for (size_t i = t->n; i-- > 0;) {
        size_t n = (size_t)(g->first[i + 1] - g->first[i]);

        if (t->pieces[i].kind == TEXT)
            continue;
        of[i] = g->first[i] + which % n;
        which /= n;
    }
    b->n = 0;
    for (size_t i = 0; i < t->n; i++)
        buf_adds(b, t->pieces[i].kind == TEXT ? t->pieces[i].text : value_at(g, of[i]));
}

/* Did a placeholder that looks at no body find nothing? */
static bool
names_nothing(const struct key_template *t, const struct gathering *g)
{
    for (size_t i = 0; i < t->n; i++) {
        enum piece_kind kind = t->pieces[i].kind;

        if (kind != TEXT && kind != REQUEST_BODY && kind != RESPONSE_BODY &&
            !(kind == RESPONSE_FIELD && g->f->response == NULL) && g->first[i] == g->first[i + 1])
            return true;
    }
    return false;
}

/* Everything that the placeholders find; how many combinations, or -1. */
static int
gather(const struct key_template *t, struct gathering *g, bool whole)
{
    bool had = true;
    size_t total;

    for (size_t i = 0; i < t->n; i++) {
        g->first[i] = (uint16_t)g->v.n;
        had = gather_piece(g, &t->pieces[i]) == 0 && had;
        g->first[i + 1] = (uint16_t)g->v.n;
    }
    if (g->v.text.failed || g->plain.failed || g->v.over)
        return -1;
    if (names_nothing(t, g))
        return 0;
    if (!had || (whole && g->absent))
        return -1;
    total = combinations(t, g);
    return total <= VALUES_MAX ? (int)total : -1;
}

static int
expand(const struct key_template *t, const struct key_facts *f, bool whole,
    void (*each)(void *arg, struct slice text), void *arg)
{
    struct gathering g = { .f = f, .is_path = t->is_path };
    struct buf texts = { 0 };
    int total;

    CHECK(t, TEMPLATE_MAGIC);
    g.v.ends = g.ends;
    g.v.cap = NELEM(g.ends);
    total = gather(t, &g, whole);
    /* One run without calling, so that memory cannot run out between two calls. */
    for (int i = 0; i < total; i++)
        write_one(t, &g, (size_t)i, &texts);
    if (texts.failed)
        total = -1;
    for (int i = 0; i < total; i++) {
        write_one(t, &g, (size_t)i, &texts);
        each(arg, buf_slice(&texts));
    }
    buf_free(&g.v.text);
    buf_free(&g.plain);
    buf_free(&texts);
    return total;
}

int
key_template_expand(const struct key_template *t, const struct key_facts *f,
    void (*each)(void *arg, struct slice text), void *arg)
{
    return expand(t, f, false, each, arg);
}

int
key_template_expand_whole(const struct key_template *t, const struct key_facts *f,
    void (*each)(void *arg, struct slice text), void *arg)
{
    return expand(t, f, true, each, arg);
}
