/*
 * `weir writes`: the journal, from the shell.
 *
 * Model    ls and show print for people, with --json what the server said. retry and drop take ids,
 *          or a filter (--state, --route, --key); with --wait they stay until nothing is pending
 *          any more, and a line on stderr says how it goes. follow prints what changes as it does.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/inside.h"

static const char usage_text[] =
    "usage: weir writes ls [--state S] [--route R] [--key K] [--after ID] [--limit N] [--json]\n"
    "       weir writes show ID\n"
    "       weir writes retry|drop ID... | --state S | --route R | --key K | --all  [--wait]\n"
    "       weir writes pause|resume --route R | --origin O | --all\n"
    "       weir writes follow [--json]\n"
    "       weir writes move --from FILE --to redis [-c FILE] [--dry-run]  (or back; none runs)\n"
    "States: pending sending waiting delivered superseded dropped; rejected expired uncertain,\n"
    "which are dead (--state dead). ls prints 100 writes, unless --limit says another number.\n"
    "All take --admin URL (default " DEFAULT_ADMIN "), --token-file FILE and --timeout SECONDS\n"
    "(30).\n";

enum { OPT_STATE = CLIENT_OPTIONS, OPT_ROUTE, OPT_KEY, OPT_AFTER, OPT_LIMIT, OPT_ORIGIN, OPT_ALL,
    OPT_WAIT, OPT_JSON, OPT_HELP };

static const struct option options[] = {
    CLIENT_OPTION_TABLE,
    { "state", required_argument, NULL, OPT_STATE },
    { "route", required_argument, NULL, OPT_ROUTE },
    { "key", required_argument, NULL, OPT_KEY }, { "after", required_argument, NULL, OPT_AFTER },
    { "limit", required_argument, NULL, OPT_LIMIT },
    { "origin", required_argument, NULL, OPT_ORIGIN }, { "all", no_argument, NULL, OPT_ALL },
    { "wait", no_argument, NULL, OPT_WAIT }, { "json", no_argument, NULL, OPT_JSON },
    { "help", no_argument, NULL, OPT_HELP }, { NULL, 0, NULL, 0 },
};

struct writes_command {
    struct client client;
    const char   *state, *route, *key, *after, *limit, *origin;
    bool          all, wait, json;
};

static long long
number_of(const json_t *o, const char *name)
{
    return (long long)json_integer_value(json_object_get(o, name));
}

/* ---- ls, show -------------------------------------------------------------------------------- */

static void
print_write(const json_t *w)
{
    const char *cause = client_text(w, "cause");

    printf("%s  %-10s %3lld  %-24s %s %s\n", client_text(w, "id"), client_text(w, "state"),
        number_of(w, "attempts"), client_text(w, "accepted"), client_text(w, "method"),
        client_text(w, "url"));
    if (cause[0] != '\0')
        printf("%34s%s\n", "", cause);
}

static int
run_ls(struct writes_command *k)
{
    struct buf target = { 0 }, out = { 0 };
    json_t *doc = NULL, *list;
    int status = -1, rc;

    buf_addz(&target, "/writes");
    client_parameter(&target, "state", k->state);
    client_parameter(&target, "route", k->route);
    client_parameter(&target, "key", k->key);
    client_parameter(&target, "after", k->after);
    client_parameter(&target, "limit", k->limit);
    buf_addc(&target, '\0');
    if (!target.failed)
        status = client_exchange(&k->client, "GET", target.p, SLICE(""), &out);
    if (status == 200 && !k->json)
        doc = json_loadb(out.p, out.n, 0, NULL);
    if (doc == NULL) {
        rc = client_finish(&k->client, status, &out);
    } else {
        list = json_object_get(doc, "writes");
        printf("%-32s  %-10s %3s  %-24s %s\n", "ID", "STATE", "TRY", "ACCEPTED", "REQUEST");
        for (size_t i = 0; i < json_array_size(list); i++)
            print_write(json_array_get(list, i));
        if (json_object_get(doc, "next") != NULL)
            printf("more: --after %s\n", client_text(doc, "next"));
        rc = 0;
    }
    json_decref(doc);
    buf_free(&target);
    buf_free(&out);
    return rc;
}

/* One exchange about an id: `before`ID`behind`. Ids are hexadecimal; what is not is not sent. */
static int
about(struct writes_command *k, const char *method, const char *id, const char *behind,
    struct buf *out)
{
    struct buf target = { 0 };
    int status = -1;

    if (strlen(id) != WRITE_ID_N || strspn(id, "0123456789abcdef") != WRITE_ID_N) {
        fprintf(stderr, "weir writes: \"%s\" is no id; %d hexadecimal digits, as ls prints them\n",
            id, WRITE_ID_N);
        return -1;
    }
    buf_printf(&target, "/writes/%s%s", id, behind);
    buf_addc(&target, '\0');
    if (!target.failed)
        status = client_exchange(&k->client, method, target.p, SLICE(""), out);
    buf_free(&target);
    return status;
}

static int
run_show(struct writes_command *k, const char *id)
{
    struct buf out = { 0 };
    int status = about(k, "GET", id, "", &out);
    json_t *doc = status == 200 ? json_loadb(out.p, out.n, 0, NULL) : NULL;
    /* ASCII: a key may have controls in it that a terminal would obey. */
    char *text = doc != NULL ? json_dumps(doc, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL;
    int rc = 0;

    if (text != NULL)
        puts(text);
    else
        rc = client_finish(&k->client, status, &out);
    free(text);
    json_decref(doc);
    buf_free(&out);
    return rc;
}

/* ---- the stream ------------------------------------------------------------------------------ */

struct follow { struct writes_command *k; bool until_empty; };

static bool
on_event(void *arg, struct slice kind, struct slice data)
{
    const struct follow *f = arg;
    json_t *doc = json_loadb(data.p, data.n, 0, NULL);
    bool progress = slice_eq(kind, SLICE("progress")), enough = false;

    if (doc == NULL)
        return false;
    if (progress && (f->until_empty || isatty(STDERR_FILENO)))
        fprintf(stderr, "\r%lld pending, %lld dead, %lld delivered\033[K",
            number_of(doc, "pending"), number_of(doc, "dead"), number_of(doc, "delivered"));
    if (f->until_empty)
        enough = progress && number_of(doc, "pending") == 0;
    else if (f->k->json)
        printf("%.*s\n", SLICE_ARG(data));
    else if (slice_eq(kind, SLICE("write")))
        printf("%s%s  %-10s try %lld, last status %lld, %s\n",
            isatty(STDERR_FILENO) ? "\r\033[K" : "", client_text(doc, "id"),
            client_text(doc, "state"), number_of(doc, "attempts"),
            number_of(doc, "status"), client_text(doc, "route"));
    else if (!progress)
        fprintf(stderr, "%lld events were lost: they came faster than they were read\n",
            number_of(doc, "events"));
    fflush(stdout);
    json_decref(doc);
    return enough;
}

static int
run_follow(struct writes_command *k, bool until_empty)
{
    struct follow f = { k, until_empty };
    struct buf out = { 0 };
    int status, rc;

    status = client_follow(&k->client, "/writes/stream", on_event, &f, &out);
    if (until_empty)
        fputc('\n', stderr);
    rc = client_finish(&k->client, status, &out);
    buf_free(&out);
    return rc;
}

/* ---- retry, drop, pause, resume -------------------------------------------------------------- */

static void
add_member(struct buf *b, const char *name, const char *value)
{
    if (value == NULL)
        return;
    buf_printf(b, "%s\"%s\": ", b->n > 1 ? ", " : "", name);
    admin_json_text(b, slice_of(value));
}

/* POSTs what the filter says. */
static int
run_filter(struct writes_command *k, const char *target)
{
    struct buf body = { 0 }, out = { 0 };
    int rc;

    buf_addc(&body, '{');
    add_member(&body, "state", k->state);
    add_member(&body, "route", k->route);
    add_member(&body, "key", k->key);
    add_member(&body, "origin", k->origin);
    if (k->all)                         /* which stands alone */
        buf_addz(&body, "\"all\": true");
    buf_addc(&body, '}');
    rc = client_finish(&k->client, client_exchange(&k->client, "POST", target, buf_slice(&body),
        &out), &out);
    buf_free(&body);
    buf_free(&out);
    return rc;
}

/* Ids, or a filter, or all; what is of other commands would be taken for a part of the filter. */
static bool
says_which(const struct writes_command *k, int ids)
{
    bool filter = k->state != NULL || k->route != NULL || k->key != NULL;

    return (ids > 0) + filter + k->all == 1 && k->after == NULL && k->limit == NULL &&
        k->origin == NULL;
}

static int
run_verb(struct writes_command *k, const char *verb, int n, char **ids)
{
    bool drop = strcmp(verb, "drop") == 0;
    int rc = 0;

    if (!says_which(k, n)) {
        fprintf(stderr, "weir writes %s: say which: ids; or --state, --route and --key; or "
            "--all\n",
            verb);
        return 2;
    }
    if (n == 0)
        rc = run_filter(k, drop ? "/writes/drop" : "/writes/retry");
    for (int i = 0; i < n; i++) {
        struct buf out = { 0 };
        int one = client_finish(&k->client, drop ? about(k, "DELETE", ids[i], "", &out) :
            about(k, "POST", ids[i], "/retry", &out), &out);

        rc = one != 0 ? one : rc;
        buf_free(&out);
    }
    return rc == 0 && k->wait ? run_follow(k, true) : rc;
}

static int
run_pause(struct writes_command *k, const char *verb)
{
    if ((k->route != NULL) + (k->origin != NULL) + k->all != 1 || k->state != NULL ||
        k->key != NULL) {
        fprintf(stderr, "weir writes %s: say what: one of --route, --origin and --all\n", verb);
        return 2;
    }
    return run_filter(k, strcmp(verb, "pause") == 0 ? "/writes/pause" : "/writes/resume");
}

/* ---- the command line ------------------------------------------------------------------------ */

static int
take_option(struct writes_command *k, int opt, const char *value)
{
    switch (opt) {
    case CLIENT_ADMIN: case CLIENT_TOKEN: case CLIENT_WAIT:
        return client_option(&k->client, opt, value);
    case OPT_STATE:  k->state = value;  return 0;
    case OPT_ROUTE:  k->route = value;  return 0;
    case OPT_KEY:    k->key = value;    return 0;
    case OPT_AFTER:  k->after = value;  return 0;
    case OPT_LIMIT:  k->limit = value;  return 0;
    case OPT_ORIGIN: k->origin = value; return 0;
    case OPT_ALL:    k->all = true;     return 0;
    case OPT_WAIT:   k->wait = true;    return 0;
    case OPT_JSON:   k->json = true;    return 0;
    default:
        fputs(usage_text, stderr);
        return 2;
    }
}

static int
run(struct writes_command *k, int n, char **args)
{
    const char *verb = n > 0 ? args[0] : "";

    if (strcmp(verb, "ls") == 0 && n == 1)
        return run_ls(k);
    if (strcmp(verb, "show") == 0 && n == 2)
        return run_show(k, args[1]);
    if (strcmp(verb, "retry") == 0 || strcmp(verb, "drop") == 0)
        return run_verb(k, verb, n - 1, args + 1);
    if ((strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0) && n == 1)
        return run_pause(k, verb);
    if (strcmp(verb, "follow") == 0 && n == 1)
        return run_follow(k, false);
    fputs(usage_text, stderr);
    return 2;
}

int
client_writes(int argc, char **argv)
{
    struct writes_command k = { .client = { .base = DEFAULT_ADMIN,
        .wait_us = DEFAULT_WAIT * 1000000 } };
    int opt, rc = 0;
    struct err e;

    if (options_exact(argc, argv, "", options, &e) == -1) {
        fprintf(stderr, "weir writes: %s\n%s", e.text, usage_text);
        return 2;
    }
    optind = 1;
    while (rc == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_HELP) {
            fputs(usage_text, stdout);
            free(k.client.token);
            return 0;
        }
        rc = take_option(&k, opt, optarg);
    }
    if (rc == 0)
        rc = run(&k, argc - optind, argv + optind);
    free(k.client.token);
    return rc;
}
