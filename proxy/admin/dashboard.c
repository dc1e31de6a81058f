/*
 * The dashboard's files, which the build puts into the program (dashboard/embed.cmake).
 *
 * The page has no figures in it: it asks this port for them as any client does, with the token
 * where there is one. So the files themselves are given without it. Scripts and styles come from
 * this port alone, nothing may be written into the page as text, and nobody may frame it: the
 * policy (CSP level 3, Trusted Types) says so, and a test reads what the browser made of it.
 */
#include "admin/inside.h"

#include "dashboard_files.h"

static const char policy[] = "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

static const char *
type_of(struct slice name)
{
    static const struct { const char *name, *type; } types[] = {
        { "*.html", "text/html; charset=utf-8" }, { "*.js", "text/javascript; charset=utf-8" },
        { "*.css", "text/css; charset=utf-8" }, { "*.svg", "image/svg+xml" },
    };

    for (size_t i = 0; i < NELEM(types); i++)
        if (slice_glob(slice_of(types[i].name), name))
            return types[i].type;
    return "text/plain; charset=utf-8";
}

/* Does the client name text/html (RFC 9110 12.5.1)? Browsers do; a bare any-type is a tool's. */
static bool
wants_html(const struct http_head *h)
{
    struct slice rest = http_value(h, HF_ACCEPT), part, type;

    while (slice_cut(&rest, ',', &part))
        if (slice_cut(&part, ';', &type) && slice_ieq(slice_trim(type), SLICE("text/html")))
            return true;
    return false;
}

static bool
takes_gzip(const struct http_head *h)
{
    unsigned weight[SEM_CODINGS];

    sem_codings(h, weight);
    return weight[SEM_GZIP] > 0 && weight[SEM_GZIP] >= weight[SEM_IDENTITY];
}

bool
dashboard_is_page(const struct http_head *h)
{
    if (h->method != HTTP_GET && h->method != HTTP_HEAD)
        return false;
    return slice_eq(h->path, SLICE("/")) ? wants_html(h) :
        slice_starts(h->path, SLICE("/dashboard/"));
}

void
handle_dashboard(struct admin_request *r)
{
    struct slice name = admin_path_id(r);

    if (name.p == NULL)
        name = SLICE("index.html");
    for (size_t i = 0; i < NELEM(dashboard_files); i++) {
        if (!slice_eq(name, slice_of(dashboard_files[i].name)))
            continue;
        r->type = type_of(name);
        r->policy = policy;
        r->gzip = takes_gzip(r->head);
        buf_add(&r->out, dashboard_files[i].bytes[r->gzip], dashboard_files[i].n[r->gzip]);
        return;
    }
    admin_problem(r, 404, "the dashboard has no such file");
}
