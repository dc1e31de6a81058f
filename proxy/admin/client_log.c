/*
 * `weir log`: requests as they are done, from the shell.
 *
 * Model    the server filters and sends (log.c); this prints a line a request, with --steps each
 *          state of it too, with --json what the server said. What clients wrote is printed without
 *          what a terminal obeys.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/inside.h"

static const char usage_text[] =
    "usage: weir log [--route R] [--outcome O] [--status 404|4xx|400-499] [--method M]\n"
    "                [--path GLOB] [--slower 100ms] [--steps] [--json] [--count N]\n"
    "Outcomes: hit stale miss collapsed revalidated pass write accepted error. --route and\n"
    "--outcome may be given several times. --count: ends after N requests.\n"
    "It takes --admin URL (default " DEFAULT_ADMIN "), --token-file FILE and --timeout SECONDS\n"
    "(30).\n";

enum { OPT_ROUTE = CLIENT_OPTIONS, OPT_OUTCOME, OPT_STATUS, OPT_METHOD, OPT_PATH, OPT_SLOWER,
    OPT_STEPS, OPT_JSON, OPT_COUNT, OPT_HELP };

static const struct option options[] = {
    CLIENT_OPTION_TABLE,
    { "route", required_argument, NULL, OPT_ROUTE },
    { "outcome", required_argument, NULL, OPT_OUTCOME },
    { "status", required_argument, NULL, OPT_STATUS },
    { "method", required_argument, NULL, OPT_METHOD },
    { "path", required_argument, NULL, OPT_PATH },
    { "slower", required_argument, NULL, OPT_SLOWER },
    { "steps", no_argument, NULL, OPT_STEPS }, { "json", no_argument, NULL, OPT_JSON },
    { "count", required_argument, NULL, OPT_COUNT }, { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

struct log_command {
    struct client client;
    struct buf    target;               /* with the filter */
    uint64_t      left;                 /* requests to be printed; 0: all */
    bool          steps, json;
};

/* ---- printing -------------------------------------------------------------------------------- */

static double
ms_of(const json_t *o, const char *name)
{
    return (double)json_integer_value(json_object_get(o, name)) / 1e3;
}

static void
print_text(const char *z)
{
    struct buf b = { 0 };

    client_plain(&b, z);
    printf("%.*s", SLICE_ARG(buf_slice(&b)));
    buf_free(&b);
}

static void
print_origin(const json_t *r)
{
    static const struct { const char *member, *text; } times[] = {
        { "pool_us", "pool" }, { "connect_us", "connected" }, { "first_byte_us", "first byte" } };

    printf(", origin %s", client_text(r, "origin"));
    for (size_t i = 0; i < NELEM(times); i++)
        if (json_object_get(r, times[i].member) != NULL)
            printf(" %s %.1f", times[i].text, ms_of(r, times[i].member));
    if (json_integer_value(json_object_get(r, "tries")) > 1)
        printf(" tries %d", (int)json_integer_value(json_object_get(r, "tries")));
}

static void
print_request(const struct log_command *k, const json_t *r)
{
    const char *time = client_text(r, "time");
    const json_t *steps = json_object_get(r, "steps");

    printf("%.12s %3d %-11s %9.3f ms %8lld  ", strlen(time) > 11 ? time + 11 : time,
        (int)json_integer_value(json_object_get(r, "status")), client_text(r, "outcome"),
        ms_of(r, "duration_us"), json_integer_value(json_object_get(r, "bytes_out")));
    print_text(client_text(r, "method"));
    putchar(' ');
    print_text(client_text(r, "host"));
    print_text(client_text(r, "target"));
    printf("  (route ");
    print_text(client_text(r, "route"));
    if (json_object_get(r, "fwd") != NULL)
        printf(", %s", client_text(r, "fwd"));
    if (json_object_get(r, "detail") != NULL)
        printf(", %s", client_text(r, "detail"));
    if (json_object_get(r, "origin") != NULL)
        print_origin(r);
    puts(")");
    for (size_t i = 0; k->steps && i < json_array_size(steps); i++) {
        const json_t *s = json_array_get(steps, i);

        printf("    +%9.3f  %-8s %9.3f ms\n", ms_of(s, "at_us"), client_text(s, "state"),
            ms_of(s, "us"));
    }
}

static bool
on_event(void *arg, struct slice kind, struct slice data)
{
    struct log_command *k = arg;
    json_t *doc = json_loadb(data.p, data.n, 0, NULL);
    bool request = slice_eq(kind, SLICE("request")), enough = false;

    if (doc == NULL)
        return false;
    if (slice_eq(kind, SLICE("begin")))
        fprintf(stderr, "weir log: listening to %s\n", k->client.base);
    else if (slice_eq(kind, SLICE("lost")))
        fprintf(stderr, "weir log: %lld requests were left out: they came faster than they were "
            "read\n", json_integer_value(json_object_get(doc, "requests")));
    else if (request && k->json)
        printf("%.*s\n", SLICE_ARG(data));
    else if (request)
        print_request(k, doc);
    fflush(stdout);
    json_decref(doc);
    if (request && k->left > 0)
        enough = --k->left == 0;
    return enough || ferror(stdout);
}

static int
run(struct log_command *k)
{
    bool counted = k->left > 0;
    struct buf out = { 0 };
    int status = -1, rc;

    buf_addc(&k->target, '\0');
    if (!k->target.failed)
        status = client_follow(&k->client, k->target.p, on_event, k, &out);
    rc = client_finish(&k->client, status, &out);
    if (status == 200 && !ferror(stdout) && !(counted && k->left == 0)) {
        fprintf(stderr, "weir log: %s ended the stream\n", k->client.base);
        rc = 1;
    }
    buf_free(&out);
    return rc;
}

/* ---- the command line ------------------------------------------------------------------------ */

static int
take_option(struct log_command *k, int opt, const char *name, const char *value)
{
    switch (opt) {
    case CLIENT_ADMIN: case CLIENT_TOKEN: case CLIENT_WAIT:
        return client_option(&k->client, opt, value);
    case OPT_ROUTE: case OPT_OUTCOME: case OPT_STATUS: case OPT_METHOD: case OPT_PATH:
    case OPT_SLOWER:
        client_parameter(&k->target, name, value);
        return 0;
    case OPT_STEPS:
        k->steps = true;
        return 0;
    case OPT_JSON:
        k->json = true;
        return 0;
    case OPT_COUNT:
        if (slice_u64(slice_of(value), &k->left) && k->left > 0)
            return 0;
        fprintf(stderr, "weir log: --count %s: a number from 1 is wanted\n", value);
        return 2;
    default:
        fputs(usage_text, stderr);
        return 2;
    }
}

int
client_log(int argc, char **argv)
{
    struct log_command k = { .client = { .base = DEFAULT_ADMIN,
        .wait_us = DEFAULT_WAIT * 1000000 } };
    int opt, which, rc = 0;
    struct err e;

    if (options_exact(argc, argv, "", options, &e) == -1) {
        fprintf(stderr, "weir log: %s\n%s", e.text, usage_text);
        return 2;
    }
    buf_addz(&k.target, "/log/stream");
    optind = 1;
    while (rc == 0 && (opt = getopt_long(argc, argv, "", options, &which)) != -1) {
        if (opt == OPT_HELP) {
            fputs(usage_text, stdout);
            goto out;
        }
        rc = take_option(&k, opt, opt != '?' ? options[which].name : "", optarg);
    }
    if (rc == 0 && optind < argc) {
        fputs(usage_text, stderr);
        rc = 2;
    }
    if (rc == 0)
        rc = run(&k);
out:
    buf_free(&k.target);
    free(k.client.token);
    return rc;
}
