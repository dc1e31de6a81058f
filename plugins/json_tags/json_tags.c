/*
 * json_tags -- tags what is stored by values of its JSON.
 *
 * Model    a route has pointers (RFC 6901) with two additions: a part `*` stands for every element
 *          of an array or member of an object, and a text in front of the pointer, up to `#`, is
 *          put in front of each value. Strings, numbers and booleans are tags; null, objects and
 *          arrays are not. A body that is no JSON, or has none of it, has no tags by this.
 *          The pointers walk together through one pass over the text, so that it costs a scan of
 *          the body however many there are, and nothing is built of it.
 * Threads  hooks run on several; a route's pointers are read only.
 */
#include <stdlib.h>
#include <string.h>

#include "plugins/abi.h"

#define PARTS_MAX 16                    /* of a pointer */
#define DEPTH_MAX 64                    /* of a body */
#define VALUE_MAX 256                   /* bytes of a tag's value */
#define TAGS_MAX  200                   /* of a response; the route's own have room beside them */

struct part { char *text; size_t n; };          /* text NULL: any */

typedef uint64_t set;                   /* of a route's pointers: a bit for each */

struct pointer {
    char *prefix;                       /* owned */
    struct part parts[PARTS_MAX];       /* owned texts */
    size_t n;
};

struct route {
    struct pointer *at;                 /* owned */
    size_t n;
    int required;
};

static const struct weir_host *host;
static struct weir_counter *no_json, *untagged;

/* ---- pointers -------------------------------------------------------------------------------- */

static void
pointer_free(struct pointer *p)
{
    free(p->prefix);
    for (size_t i = 0; i < p->n; i++)
        free(p->parts[i].text);
}

/* "~1" is "/", "~0" is "~" (RFC 6901 3). */
static int
unescape(struct part *part, const char *from, size_t n)
{
    part->text = malloc(n + 1);
    part->n = 0;
    if (part->text == NULL)
        return -1;
    for (size_t i = 0; i < n; i++) {
        char c = from[i];

        if (c == '~') {
            if (i + 1 == n || (from[i + 1] != '0' && from[i + 1] != '1')) {
                free(part->text);
                part->text = NULL;
                return -1;
            }
            c = from[++i] == '0' ? '~' : '/';
        }
        part->text[part->n++] = c;
    }
    return 0;
}

/* NULL, or what is wrong with it. */
static const char *
pointer_read(struct pointer *p, struct weir_text text)
{
    const char *mark = memchr(text.p, '#', text.n), *end = text.p + text.n;
    const char *at = mark != NULL ? mark + 1 : text.p;

    p->prefix = strndup(text.p, mark != NULL ? (size_t)(mark - text.p) : 0);
    if (p->prefix == NULL)
        return "out of memory";
    if (at < end && *at != '/')
        return "is no JSON pointer; one that begins with /, with a prefix before # if it has one, "
            "as user:#/id";
    while (at < end) {
        const char *from = ++at;

        at = memchr(from, '/', (size_t)(end - from));
        if (at == NULL)
            at = end;
        if (p->n == PARTS_MAX)
            return "is longer than 16 parts";
        if (at - from == 1 && *from == '*')
            p->parts[p->n].text = NULL;
        else if (unescape(&p->parts[p->n], from, (size_t)(at - from)) == -1)
            return "has a ~ that is neither ~0 nor ~1";
        p->n++;
    }
    return NULL;
}

static void
route_close(void *plugin, void *route)
{
    struct route *r = route;

    (void)plugin;
    for (size_t i = 0; i < r->n; i++)
        pointer_free(&r->at[i]);
    free(r->at);
    free(r);
}

static int
route_open(void *plugin, struct weir_self *self, const char *name,
    const struct weir_value *values, void **out)
{
    struct route *r = calloc(1, sizeof *r);
    const char *why = NULL;

    (void)name;
    if (r != NULL)
        r->at = calloc(values[0].ntexts + 1, sizeof *r->at);
    if (r == NULL || r->at == NULL) {
        free(r);
        host->complain(self, NULL, "out of memory");
        return -1;
    }
    r->required = (int)values[1].number;
    if (values[0].ntexts > 8 * sizeof(set)) {
        host->complain(self, "pointers", "more than 64 pointers; at most 64");
        route_close(plugin, r);
        return -1;
    }
    for (size_t i = 0; i < values[0].ntexts && why == NULL; i++) {
        r->n++;
        why = pointer_read(&r->at[i], values[0].texts[i]);
        if (why != NULL) {
            char text[400];

            text[0] = '\0';
            strncat(text, values[0].texts[i].p, 200);
            strcat(text, " ");
            strncat(text, why, 180);
            host->complain(self, "pointers", text);
        }
    }
    if (why != NULL) {
        route_close(plugin, r);
        return -1;
    }
    *out = r;
    return 0;
}

/* ---- the walk -------------------------------------------------------------------------------- */

struct walk {
    const char *p, *end;
    const struct route *route;
    struct weir_request *r;
    unsigned depth, tags;
    int failed;
};

static void
skip_space(struct walk *w)
{
    while (w->p < w->end && (*w->p == ' ' || *w->p == '\t' || *w->p == '\n' || *w->p == '\r'))
        w->p++;
}

static int
hex4(const char *p, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++) {
        char c = (char)(p[i] | 0x20);

        if (p[i] >= '0' && p[i] <= '9')
            *out = *out * 16 + (unsigned)(p[i] - '0');
        else if (c >= 'a' && c <= 'f')
            *out = *out * 16 + (unsigned)(c - 'a') + 10;
        else
            return -1;
    }
    return 0;
}

static size_t
put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* Behind a backslash: the character that is meant. -1: none. */
static int
escape(struct walk *w, char out[4], size_t *n)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;
    unsigned c, low;

    if (w->p == w->end)
        return -1;
    if (*w->p != 'u') {
        found = strchr(from, *w->p);
        if (found == NULL || *w->p == '\0')
            return -1;
        out[0] = to[found - from];
        *n = 1;
        w->p++;
        return 0;
    }
    if (w->end - w->p < 5 || hex4(w->p + 1, &c) == -1)
        return -1;
    w->p += 5;
    if (c >= 0xd800 && c < 0xdc00 && w->end - w->p >= 6 && w->p[0] == '\\' && w->p[1] == 'u' &&
        hex4(w->p + 2, &low) == 0 && low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        w->p += 6;
    }
    *n = put_utf8(out, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    return 0;
}

/* At a quote. Its text into out as far as there is room; *n counts all of it. */
static int
string(struct walk *w, char *out, size_t room, size_t *n)
{
    *n = 0;
    for (w->p++; w->p < w->end && *w->p != '"';) {
        char bytes[4];
        size_t k = 1;

        bytes[0] = *w->p++;
        if ((unsigned char)bytes[0] < ' ' ||
            (bytes[0] == '\\' && escape(w, bytes, &k) == -1))
            return -1;
        if (*n + k <= room)
            memcpy(out + *n, bytes, k);
        *n += k;
    }
    if (w->p == w->end)
        return -1;
    w->p++;
    return 0;
}

/* What a value that is none of its parents gives to those pointers that end here. */
static void
tag(struct walk *w, set here, const char *text, size_t n)
{
    char bytes[2 * VALUE_MAX];

    for (size_t i = 0; i < w->route->n && n > 0 && n <= VALUE_MAX; i++) {
        const struct pointer *p = &w->route->at[i];
        size_t prefix_n = strlen(p->prefix);

        if (!(here >> i & 1) || p->n != w->depth || prefix_n > VALUE_MAX)
            continue;
        memcpy(bytes, p->prefix, prefix_n);
        memcpy(bytes + prefix_n, text, n);
        if (w->tags == TAGS_MAX ||
            host->add_tag(w->r, (struct weir_text){ bytes, prefix_n + n }) == -1)
            w->failed = 1;
        w->tags++;
    }
}

/* Of those that lead here, those whose next part is this member. */
static set
descend(const struct walk *w, set here, const char *name, size_t n)
{
    set next = 0;

    for (size_t i = 0; i < w->route->n; i++) {
        const struct pointer *p = &w->route->at[i];
        const struct part *part = w->depth < p->n ? &p->parts[w->depth] : NULL;

        if ((here >> i & 1) && part != NULL &&
            (part->text == NULL || (part->n == n && memcmp(part->text, name, n) == 0)))
            next |= (set)1 << i;
    }
    return next;
}

static int value(struct walk *w, set here);

static int
member(struct walk *w, set here, const char *name, size_t n)
{
    set next = descend(w, here, name, n);
    int rc;

    if (++w->depth > DEPTH_MAX)
        return -1;
    rc = value(w, next);
    w->depth--;
    skip_space(w);
    return rc;
}

static int
object(struct walk *w, set here)
{
    char name[VALUE_MAX];
    size_t n;

    for (w->p++, skip_space(w); w->p < w->end && *w->p != '}'; skip_space(w)) {
        if (*w->p != '"' || string(w, name, sizeof name, &n) == -1)
            return -1;
        skip_space(w);
        if (w->p == w->end || *w->p++ != ':' ||
            member(w, n <= sizeof name ? here : 0, name, n) == -1)
            return -1;
        if (w->p < w->end && *w->p == ',')
            w->p++;
        else if (w->p == w->end || *w->p != '}')
            return -1;
    }
    return w->p++ < w->end ? 0 : -1;
}

static int
array(struct walk *w, set here)
{
    unsigned index = 0;

    for (w->p++, skip_space(w); w->p < w->end && *w->p != ']'; skip_space(w)) {
        char name[16];
        size_t n = 0;

        for (unsigned v = index++, ten = 1000000000; ten > 0; ten /= 10)
            if (v >= ten || ten == 1)
                name[n++] = (char)('0' + v / ten % 10);
        if (member(w, here, name, n) == -1)
            return -1;
        if (w->p < w->end && *w->p == ',')
            w->p++;
        else if (w->p == w->end || *w->p != ']')
            return -1;
    }
    return w->p++ < w->end ? 0 : -1;
}

static int
is_number(const char *p, size_t n)
{
    static const char may[] = "0123456789-+.eE";    /* of these the first eleven begin one */

    for (size_t i = 0; i < n; i++)
        if (memchr(may, p[i], i == 0 ? 11 : sizeof may - 1) == NULL)
            return 0;
    return n > 0;
}

/* A number, true, false or null, up to what cannot be of it. */
static int
word(struct walk *w, set here)
{
    const char *from = w->p;
    size_t n;

    while (w->p < w->end && strchr(",]} \t\r\n", *w->p) == NULL)
        w->p++;
    n = (size_t)(w->p - from);
    if (n == 4 && memcmp(from, "null", 4) == 0)
        return 0;
    if (!(n == 4 && memcmp(from, "true", 4) == 0) && !(n == 5 && memcmp(from, "false", 5) == 0) &&
        !is_number(from, n))
        return -1;
    tag(w, here, from, n);
    return 0;
}

static int
value(struct walk *w, set here)
{
    char text[VALUE_MAX];
    size_t n;

    skip_space(w);
    if (w->p == w->end)
        return -1;
    if (*w->p == '{')
        return object(w, here);
    if (*w->p == '[')
        return array(w, here);
    if (*w->p != '"')
        return word(w, here);
    if (string(w, text, sizeof text, &n) == -1)
        return -1;
    tag(w, here, text, n);
    return 0;
}

static int
store(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text body = host->fact(r, WEIR_BODY);
    struct walk w = { .p = body.p, .end = body.p + body.n, .route = route, .r = r };
    int rc = body.p != NULL ? value(&w, ~(set)0) : -1;

    (void)plugin;
    skip_space(&w);
    if (rc == -1 || w.p != w.end) {
        host->count(no_json, 1);
        rc = -1;
    }
    /* A part has no tags, and what parts make up is not looked at again. */
    if (w.failed || host->number(r, WEIR_STATUS) == 206 ||
        (w.route->required && (rc == -1 || w.tags == 0))) {
        host->count(untagged, 1);
        return host->mark(r, WEIR_MARK_NO_STORE) == 0 ? WEIR_NEXT : WEIR_FAILED;
    }
    return WEIR_NEXT;
}

static int
open_plugin(const struct weir_host *h, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    (void)values;
    (void)out;
    if (host != NULL)                   /* at a reload hooks read them */
        return 0;
    host = h;
    no_json = h->counter(self, "json_tags_no_json", "Responses that were no JSON, or too long.");
    untagged = h->counter(self, "json_tags_unstored",
        "Responses that were not stored for want of tags.");
    return 0;
}

static const struct weir_option route_options[] = {
    { "pointers", WEIR_TEXTS, WEIR_REQUIRED, NULL, NULL, NULL, NULL,
      "JSON pointers (RFC 6901) into the body; `*` is any element or member, and what stands "
      "before `#` is put in front of each value, as `user:#/items/*/id`. 64 at most." },
    { "required", WEIR_BOOL, 0, "false", NULL, NULL, NULL,
      "What gives no tag is not stored." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
    .abi = WEIR_ABI, .size = sizeof(struct weir_plugin), .name = "json_tags", .version = "1",
    .meaning = "Tags what is stored by values of its JSON, so that it can be purged by them.",
    .route_options = route_options, .open = open_plugin, .route_open = route_open,
    .route_close = route_close, .store = store,
};
