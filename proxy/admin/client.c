/*
 * `weir purge|stats|top|log|explain|reload|health|writes`: the shell's side of the admin port. Exit
 * codes: 0 done; 1 the server said no, or could not be reached; 2 the command line was not
 * understood; 3 a purge is not in force at every instance yet.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/inside.h"

/* ---- the command line ------------------------------------------------------------------------ */

static const char usage_text[] =
    "usage: weir purge [--url U] [--prefix P] [--pattern G] [--tag T] [--route R] [--all]\n"
    "                  [--group G [--origin O]] [--soft] [--dry-run] [--erase] [--wait MS]\n"
    "       weir purge --id ID\n"
    "       weir stats\n"
    "       weir explain URL [-X METHOD] [-H 'Name: value'] [-d TEXT|@FILE] [--trusted] [--json]\n"
    "       weir reload\n"
    "       weir health\n"
    "All take --admin URL (default " DEFAULT_ADMIN "), --token-file FILE and --timeout SECONDS\n"
    "(30). --url, --prefix, --pattern, --tag, --route, --group and -H may be given several "
    "times.\n";

enum { OPT_URL = CLIENT_OPTIONS, OPT_PREFIX, OPT_PATTERN, OPT_TAG, OPT_ROUTE, OPT_GROUP,
    OPT_ORIGIN, OPT_ALL, OPT_SOFT, OPT_DRY, OPT_ERASE, OPT_TRUSTED, OPT_JSON, OPT_PURGE_WAIT,
    OPT_ID,
    OPT_HELP };

static const struct option options[] = {
    CLIENT_OPTION_TABLE,
    { "url", required_argument, NULL, OPT_URL },
    { "prefix", required_argument, NULL, OPT_PREFIX },
    { "pattern", required_argument, NULL, OPT_PATTERN },
    { "tag", required_argument, NULL, OPT_TAG },
    { "route", required_argument, NULL, OPT_ROUTE },
    { "group", required_argument, NULL, OPT_GROUP },
    { "origin", required_argument, NULL, OPT_ORIGIN },
    { "all", no_argument, NULL, OPT_ALL },
    { "soft", no_argument, NULL, OPT_SOFT },
    { "dry-run", no_argument, NULL, OPT_DRY },
    { "erase", no_argument, NULL, OPT_ERASE },
    { "wait", required_argument, NULL, OPT_PURGE_WAIT },
    { "id", required_argument, NULL, OPT_ID },
    { "trusted", no_argument, NULL, OPT_TRUSTED },
    { "json", no_argument, NULL, OPT_JSON },
    { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

struct command {
    struct client client;
    const char   *url;                  /* of explain */
    struct buf    lists[6];             /* url prefix pattern tags route groups: insides of JSON
                                           lists */
    struct buf    origin;               /* of the groups, as JSON */
    struct buf    query;                /* explain's headers */
    json_t       *content;              /* owned; of the request that is explained */
    const char   *method;               /* ... its method */
    const char   *id;                   /* of a purge that was answered before */
    uint64_t      wait_ms;              /* of a purge; UINT64_MAX: not given */
    bool          all, soft, dry, erase, json;
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

void
client_plain(struct buf *b, const char *text)
{
    for (struct slice s = slice_of(text); s.n > 0;) {
        size_t control = slice_control(s), n = control > 0 ? control : 1;

        if (control > 0)
            buf_printf(b, "\\x%02x", (unsigned char)s.p[n - 1]);
        else
            buf_addc(b, s.p[0]);
        s = (struct slice){ s.p + n, s.n - n };
    }
}

void
client_encode(struct buf *b, const char *text)
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

void
client_parameter(struct buf *target, const char *name, const char *value)
{
    if (value == NULL)
        return;
    buf_printf(target, "%c%s=", memchr(target->p, '?', target->n) != NULL ? '&' : '?', name);
    client_encode(target, value);
}

static int
read_wait(struct client *c, const char *text)
{
    uint64_t seconds;

    if (!slice_u64(slice_of(text), &seconds) || seconds < 1 || seconds > 86400) {
        fprintf(stderr, "weir: --timeout %s: whole seconds are wanted, 1 to 86400\n", text);
        return 2;
    }
    c->wait_us = (int64_t)seconds * 1000000;
    return 0;
}

/* -d TEXT, or @FILE. What explains takes text. */
static int
read_content(struct command *k, const char *text)
{
    FILE *f = text[0] != '@' ? NULL : strcmp(text, "@-") == 0 ? stdin : fopen(text + 1, "re");
    struct buf b = { 0 };
    size_t n = 1;
    int rc = 0;

    if (text[0] != '@')
        buf_addz(&b, text);
    else if (f == NULL)
        rc = fprintf(stderr, "weir explain: %s: %s\n", text + 1, strerror(errno)) > 0;
    while (f != NULL && n > 0 && b.n <= ADMIN_BODY_MAX && buf_reserve(&b, 65536) != NULL)
        b.n += n = fread(b.p + b.n, 1, 65536, f);
    json_decref(k->content);
    k->content = json_stringn(b.p != NULL ? b.p : "", b.n);
    if (rc == 0 && (k->content == NULL || b.failed || b.n > ADMIN_BODY_MAX))
        rc = fprintf(stderr, "weir explain: %s: content of at most %u bytes of UTF-8 is "
            "wanted\n", text, ADMIN_BODY_MAX) > 0;
    if (f != NULL && f != stdin)
        fclose(f);
    buf_free(&b);
    return rc;
}

int
client_option(struct client *c, int opt, const char *value)
{
    if (opt == CLIENT_WAIT)
        return read_wait(c, value);
    if (opt == CLIENT_TOKEN)
        return read_token(c, value) == 0 ? 0 : 1;
    c->base = value;
    return 0;
}

static int
take_option(struct command *k, int opt, const char *value)
{
    switch (opt) {
    case CLIENT_ADMIN: case CLIENT_TOKEN: case CLIENT_WAIT:
        return client_option(&k->client, opt, value);
    case OPT_URL: case OPT_PREFIX: case OPT_PATTERN: case OPT_TAG: case OPT_ROUTE:
    case OPT_GROUP:
        add_text(&k->lists[opt - OPT_URL], value);
        return 0;
    case OPT_ORIGIN:
        k->origin.n = 0;
        admin_json_text(&k->origin, slice_of(value));
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
    case OPT_ERASE:
        k->erase = true;
        return 0;
    case OPT_ID:
        k->id = value;
        return 0;
    case OPT_PURGE_WAIT:
        if (slice_u64(slice_of(value), &k->wait_ms) && k->wait_ms <= 60000)
            return 0;
        fprintf(stderr, "weir: --wait %s: milliseconds are wanted, 0 to 60000\n", value);
        return 2;
    case OPT_TRUSTED:
        buf_addz(&k->query, "&trusted=1");
        return 0;
    case OPT_JSON:
        k->json = true;
        return 0;
    case 'X':
        k->method = value;
        return 0;
    case 'd':
        return read_content(k, value);
    case 'H':
        buf_addz(&k->query, "&header=");
        client_encode(&k->query, value);
        return 0;
    default:
        fputs(usage_text, stderr);
        return 2;
    }
}

int
client_finish(const struct client *c, int status, struct buf *out)
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
            c->base, c->token != NULL ? " (the one that you gave is another)" : "");
    return good ? 0 : 1;
}

static int
finish_purge(struct command *k, int status, struct buf *out)
{
    json_t *doc = status == 200 || status == 202 ? json_loadb(out->p, out->n, 0, NULL) : NULL;
    bool pending = json_is_false(json_object_get(doc, "done"));
    int rc = client_finish(&k->client, status, out);

    json_decref(doc);
    return rc == 0 && pending ? 3 : rc;
}

static int
look_purge(struct command *k)
{
    struct buf target = { 0 }, out = { 0 };
    int rc, status = -1;

    buf_addz(&target, "/purge/");
    client_encode(&target, k->id);
    buf_addc(&target, '\0');
    if (!target.failed)
        status = client_exchange(&k->client, "GET", target.p, SLICE(""), &out);
    rc = finish_purge(k, status, &out);
    buf_free(&target);
    buf_free(&out);
    return rc;
}

static int
run_purge(struct command *k)
{
    static const char *const members[] = { "url", "prefix", "pattern", "tags", "route", "groups" };
    struct buf body = { 0 }, out = { 0 };
    int rc, n = k->all;

    for (size_t i = 0; i < NELEM(members); i++)
        n += k->lists[i].n > 0;
    if (k->id != NULL && n == 0 && !k->soft && !k->dry && !k->erase && k->origin.n == 0 &&
        k->wait_ms == UINT64_MAX)
        return look_purge(k);
    if (k->id != NULL || n == 0) {
        fprintf(stderr, k->id != NULL ?
            "weir purge: --id tells how far a purge is, and stands alone\n" :
            "weir purge: say what: --url, --prefix, --pattern, --tag, --group, --route or --all\n");
        return 2;
    }
    buf_printf(&body, "{\"soft\": %s, \"dry_run\": %s, \"erase\": %s", k->soft ? "true" : "false",
        k->dry ? "true" : "false", k->erase ? "true" : "false");
    if (k->all)
        buf_addz(&body, ", \"all\": true");
    if (k->wait_ms != UINT64_MAX)
        buf_printf(&body, ", \"wait\": %llu", (unsigned long long)k->wait_ms);
    for (size_t i = 0; i < NELEM(members); i++)
        if (k->lists[i].n > 0)
            buf_printf(&body, ", \"%s\": [%.*s]", members[i], SLICE_ARG(buf_slice(&k->lists[i])));
    if (k->origin.n > 0)
        buf_printf(&body, ", \"origin\": %.*s", SLICE_ARG(buf_slice(&k->origin)));
    buf_addz(&body, "}");
    rc = client_exchange(&k->client, "POST", "/purge", buf_slice(&body), &out);
    rc = finish_purge(k, rc, &out);
    buf_free(&body);
    buf_free(&out);
    return rc;
}

static int
run_explain(struct command *k)
{
    struct buf target = { 0 }, out = { 0 }, page = { 0 };
    const char *method = k->method != NULL ? k->method : k->content != NULL ? "POST" : "GET";
    json_t *doc = json_pack("{sO*}", "content", k->content);
    char *body = json_dumps(doc, 0);
    int status = -1, rc;

    buf_addz(&target, "/explain?url=");
    client_encode(&target, k->url);
    buf_addz(&target, "&method=");
    client_encode(&target, method);
    buf_adds(&target, buf_slice(&k->query));
    buf_addc(&target, '\0');
    if (!target.failed && body != NULL)
        status = client_exchange(&k->client, k->content != NULL ? "POST" : "GET", target.p,
            slice_of(k->content != NULL ? body : ""), &out);
    free(body);
    json_decref(doc);
    if (status == 200 && !k->json && client_explain_page(buf_slice(&out), &page) == 0)
        rc = client_finish(&k->client, status, &page);
    else
        rc = client_finish(&k->client, status, &out);
    buf_free(&target);
    buf_free(&out);
    buf_free(&page);
    return rc;
}

static int
run_stats(struct command *k)
{
    int status = client_stats(&k->client);

    return client_finish(&k->client, status, &(struct buf){ 0 });
}

/* Of the admin port or of the probe port, which asks for no token. */
static int
run_health(struct command *k)
{
    struct buf out = { 0 };
    int rc = client_finish(&k->client, client_exchange(&k->client, "GET", "/readyz", SLICE(""),
        &out), &out);

    buf_free(&out);
    return rc;
}

/* What was said of the file, a line each, and what came of it: for a person, not as JSON. */
static int
run_reload(struct command *k)
{
    struct buf out = { 0 };
    int status = client_exchange(&k->client, "POST", "/reload", SLICE(""), &out), rc;
    json_t *doc = status == 200 || status == 422 ? json_loadb(out.p, out.n, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(doc, "text"));
    const char *detail = json_string_value(json_object_get(doc, "detail"));

    if (text != NULL) {
        out.n = 0;
        buf_addz(&out, text);
        if (status == 200)
            buf_addz(&out, "loaded again\n");
        else
            buf_printf(&out, "weir: %s\n", detail != NULL ? detail : "refused");
    }
    rc = client_finish(&k->client, status, &out);
    json_decref(doc);
    buf_free(&out);
    return rc;
}

static int
run_verb(struct command *k, const char *verb, int nargs, char **args)
{
    static const struct { const char *verb; int nargs; int (*run)(struct command *); } verbs[] = {
        { "purge", 0, run_purge }, { "stats", 0, run_stats }, { "explain", 1, run_explain },
        { "reload", 0, run_reload }, { "health", 0, run_health },
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
    struct command k = { .client = { .base = DEFAULT_ADMIN, .wait_us = DEFAULT_WAIT * 1000000 },
        .wait_ms = UINT64_MAX };
    int opt, rc = 0;
    struct err e;

    if (strcmp(argv[0], "writes") == 0)
        return client_writes(argc, argv);
    if (strcmp(argv[0], "log") == 0)
        return client_log(argc, argv);
    if (strcmp(argv[0], "top") == 0)
        return client_top(argc, argv);
    if (options_exact(argc, argv, "H:X:d:", options, &e) == -1) {
        fprintf(stderr, "weir %s: %s\n%s", argv[0], e.text, usage_text);
        return 2;
    }
    optind = 1;
    while (rc == 0 && (opt = getopt_long(argc, argv, "H:X:d:", options, NULL)) != -1) {
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
    buf_free(&k.origin);
    buf_free(&k.query);
    json_decref(k.content);
    free(k.client.token);
    return rc;
}
