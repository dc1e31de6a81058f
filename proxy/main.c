/*
 * The command line.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin/admin.h"
#include "base/base.h"
#include "config/config.h"
#include "process.h"
#include "write/write.h"

#define DEFAULT_FILE "/etc/weir/weir.yaml"

/* jemalloc: what is freed goes back at once, so that cache.memory is what is resident; objects of 1
 * KiB share slabs of eight pages (measured: 30 bytes less an object). So do the blocks of pools:
 * each on a page of its own was given back and taken again, several times a miss (half of its
 * time). */
extern const char *malloc_conf;
const char *malloc_conf =
    "dirty_decay_ms:0,muzzy_decay_ms:0,tcache_max:65536,slab_sizes:1024-1024:8|4096-4096:16";

static const char usage[] =
    "weir " WEIR_VERSION " - a caching reverse proxy for APIs\n"
    "\n"
    "  weir [run] -c FILE                 run with a configuration file (default "
    DEFAULT_FILE ")\n"
    "  weir [run] --origin URL            run in front of URL with the embedded defaults\n"
    "             [--listen ADDR:PORT] [--admin ADDR:PORT|off]\n"
    "  weir check [-c] FILE               print every problem of a configuration\n"
    "  weir purge --url U | --prefix P | --pattern G | --tag T | --route R | --all |\n"
    "             --group G [--origin O]\n"
    "             [--soft] [--dry-run] [--wait MS]\n"
    "                                     purge what is stored\n"
    "  weir purge --id ID                 who has not applied a purge that was answered before\n"
    "  weir stats                         hit rates and latency percentiles\n"
    "  weir top                           the same live, on the terminal\n"
    "  weir log [--route R] [--outcome O] [--slower 100ms] [--steps] [--json]\n"
    "                                     requests as they are done\n"
    "  weir explain URL [-X METHOD] [-H 'Name: value'] [-d TEXT|@FILE] [--trusted] [--json]\n"
    "                                     which route, which key, what is stored and why\n"
    "  weir reload                        load the configuration again\n"
    "  weir health                        is it ready? exit code 0, else 1; for probes\n"
    "  weir writes ls|show|retry|drop|pause|resume|follow\n"
    "                                     the journal of write-back\n"
    "  weir writes move --from FILE --to redis [-c FILE] [--dry-run]\n"
    "                                     ... from a file into journal.redis, or back\n"
    "  weir version | reference | schema  print the version, the options' reference, the JSON "
    "schema\n"
    "  weir reference PLUGIN|FILE.so      print the options of a plugin\n"
    "\n"
    "purge, stats, top, log, explain, writes, reload and health take --admin URL (default\n"
    "http://127.0.0.1:8081), --token-file FILE and --timeout SECONDS (default 30).\n";

/* ---- weir check ------------------------------------------------------------------------------ */

/* What the configuration cannot tell of it. -1: a start would fail. */
static int
check_journal(const struct conf *c, const char *name, size_t *warnings)
{
    const char *path = c->journal_path;
    struct err e;
    int rc = path != NULL ? writes_check(path, &e) : 0;

    if (rc != 0)
        printf("%s: %s%s\n", name, rc == 1 ? "warning: " : "", e.text);
    *warnings += rc == 1;
    return rc == -1 ? -1 : 0;
}

static int
check(const struct process *p)
{
    struct config_report report = { 0 };
    const char *name = p->file != NULL ? p->file : "command line";
    struct conf *c = process_load(p, &report);
    size_t warnings = report.n - report.errors;

    config_report_print(&report, name, stdout);
    if (c != NULL && check_journal(c, name, &warnings) == -1)
        conf_unref(&c);
    if (c != NULL)
        printf("%s: ok, %zu route%s, %zu warning%s\n", name, c->nroutes,
            c->nroutes == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
    config_report_free(&report);
    if (c == NULL)
        return 1;
    conf_unref(&c);
    return 0;
}

/* ---- the command line ------------------------------------------------------------------------ */

static int
bad_usage(const char *what, const char *arg)
{
    fprintf(stderr, "weir: %s%s\n`weir help` lists the commands and options.\n", what, arg);
    return 2;
}

/* A value of a flag as YAML. */
static void
override(struct process *p, const char *before, const char *value, const char *behind)
{
    buf_addz(&p->overrides, before);
    buf_addc(&p->overrides, '\'');
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\'')
            buf_addc(&p->overrides, '\'');
        buf_addc(&p->overrides, *c);
    }
    buf_printf(&p->overrides, "'%s\n", behind);
}

/* -1, or an exit code. */
static int
take_option(struct process *p, int opt)
{
    switch (opt) {
    case 'c':
        p->file = optarg;
        return -1;
    case 'o':
        p->origin = optarg;
        return -1;
    case 'l':
        override(p, "listen: ", optarg, "");
        return -1;
    case 'a':
        override(p, "admin: {listen: ", optarg, "}");
        return -1;
    case 'h':
        fputs(usage, stdout);
        return 0;
    default:
        puts("weir " WEIR_VERSION);
        return 0;
    }
}

/* Options of run and check. -1, or an exit code. */
static int
read_options(struct process *p, int argc, char **argv, bool takes_file)
{
    static const char shorts[] = "c:hV";
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "origin", required_argument, NULL, 'o' },
        { "listen", required_argument, NULL, 'l' }, { "admin", required_argument, NULL, 'a' },
        { "help", no_argument, NULL, 'h' }, { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 },
    };
    bool seen[128] = { false };
    int opt, rc = -1;
    struct err e;

    if (options_exact(argc, argv, shorts, options, &e) == -1)
        return bad_usage(e.text, "");
    while (rc == -1 && (opt = getopt_long(argc, argv, shorts, options, NULL)) != -1) {
        if (seen[opt & 127])
            return bad_usage("given twice, and only one can hold: ", optarg);
        seen[opt & 127] = true;
        rc = take_option(p, opt);
    }
    if (rc != -1)
        return rc;
    if (optind < argc && takes_file && p->file == NULL)
        p->file = argv[optind++];
    if (optind < argc)
        return bad_usage(p->file == NULL ? "a file goes behind -c; not understood: " :
            "not understood: ", argv[optind]);
    if (p->file != NULL && p->overrides.n > 0)
        return bad_usage("--listen and --admin go with --origin; with a file, write them there",
            "");
    if (p->file == NULL && p->origin == NULL) {
        if (access(DEFAULT_FILE, F_OK) != 0)
            return bad_usage("nothing to run: give -c FILE or --origin URL; there is no "
                DEFAULT_FILE, "");
        p->file = DEFAULT_FILE;
    }
    return -1;
}

static int
show_version(struct process *p, int argc, char **argv)
{
    (void)p, (void)argc, (void)argv;
    puts("weir " WEIR_VERSION);
    return 0;
}

static int
show_help(struct process *p, int argc, char **argv)
{
    (void)p, (void)argc, (void)argv;
    fputs(usage, stdout);
    return 0;
}

static int
show_reference(struct process *p, int argc, char **argv)
{
    struct err e;

    (void)p;
    if (argc < 2)
        config_reference(stdout);
    for (int i = 1; i < argc; i++)
        if (config_reference_plugin(argv[i], stdout, &e) == -1) {
            fprintf(stderr, "weir: %s\n", e.text);
            return 1;
        }
    return 0;
}

static int
show_schema(struct process *p, int argc, char **argv)
{
    (void)p, (void)argc, (void)argv;
    config_schema(stdout);
    return 0;
}

static int
ask(struct process *p, int argc, char **argv)
{
    (void)p;
    return admin_client(argc, argv);
}

/* ---- weir writes move ------------------------------------------------------------------------ */

static void
print_moved(const struct writes_moved *n, const char *from, const char *to, bool dry)
{
    if (n->finished) {
        printf("all was moved from %s to %s already%s\n", from, to,
            dry ? "; run this without --dry-run to end that" : "");
        return;
    }
    printf("%s %llu pending, %llu dead and %llu settled writes, %llu idempotency keys and %llu "
        "paused names from %s to %s%s%s\n", dry ? "would move" : "moved",
        (unsigned long long)n->pending, (unsigned long long)n->dead,
        (unsigned long long)n->settled, (unsigned long long)n->keys,
        (unsigned long long)n->paused, from, to,
        n->renamed[0] != '\0' ? "; the file is now " : "", n->renamed);
}

static int
move_writes(struct process *p, const char *from, const char *to, bool dry)
{
    struct config_report report = { 0 };
    struct writes_moved moved;
    struct conf *c = process_load(p, &report);
    struct err e = { 0 };
    int rc = 1;

    if (c == NULL)
        config_report_print(&report, p->file, stderr);
    config_report_free(&report);
    if (c == NULL)
        return 1;
    process_block_signals();
    log_threshold = LOG_WARN;
    if (writes_move(c, from, to, dry, &moved, &e) == 0) {
        print_moved(&moved, from, to, dry);
        rc = 0;
    } else {
        fprintf(stderr, "weir writes move: %s\n", e.text);
    }
    conf_unref(&c);
    return rc;
}

static int
do_move(struct process *p, int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "from", required_argument, NULL, 'f' },
        { "to", required_argument, NULL, 't' }, { "dry-run", no_argument, NULL, 'n' },
        { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    const char *from = NULL, *to = NULL;
    bool dry = false;
    struct err e;
    int opt;

    p->file = DEFAULT_FILE;
    if (options_exact(argc, argv, "c:h", options, &e) == -1)
        return bad_usage(e.text, "");
    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (opt == 'h')
            return show_help(p, argc, argv);
        if (opt == 'c')
            p->file = optarg;
        else if (opt == 'f')
            from = optarg;
        else if (opt == 't')
            to = optarg;
        else
            dry = true;
    }
    if (optind < argc)
        return bad_usage("not understood: ", argv[optind]);
    if (from == NULL || to == NULL)
        return bad_usage("weir writes move: say what moves where: --from FILE --to redis, or back",
            "");
    return move_writes(p, from, to, dry);
}

/* The other verbs ask an instance that runs; this one needs that none does. */
static int
do_writes(struct process *p, int argc, char **argv)
{
    return argc > 1 && strcmp(argv[1], "move") == 0 ? do_move(p, argc - 1, argv + 1) :
        ask(p, argc, argv);
}

static int
do_run(struct process *p, int argc, char **argv)
{
    int rc = read_options(p, argc, argv, false);

    return rc == -1 ? process_run(p) : rc;
}

static int
do_check(struct process *p, int argc, char **argv)
{
    int rc = read_options(p, argc, argv, true);

    return rc == -1 ? check(p) : rc;
}

static const struct { const char *name; bool alone; int (*run)(struct process *, int, char **); }
    verbs[] = {
    { "run", false, do_run }, { "check", false, do_check }, { "purge", false, ask },
    { "stats", false, ask }, { "explain", false, ask }, { "reload", false, ask },
    { "health", false, ask }, { "writes", false, do_writes }, { "log", false, ask },
    { "top", false, ask }, { "version", true, show_version }, { "help", true, show_help },
    { "reference", false, show_reference }, { "schema", true, show_schema },
};

int
main(int argc, char **argv)
{
    struct process p = { .argv = argv, .channel = -1 };
    struct buf text = { 0 };
    struct nearest near;
    int rc;

    if (argc < 2 || argv[1][0] == '-') {
        rc = do_run(&p, argc, argv);
        buf_free(&p.overrides);
        return rc;
    }
    near = (struct nearest){ .to = slice_of(argv[1]) };
    for (size_t i = 0; i < NELEM(verbs); i++) {
        nearest_try(&near, verbs[i].name);
        if (strcmp(verbs[i].name, argv[1]) != 0)
            continue;
        if (verbs[i].alone && argc > 2)
            return bad_usage("not understood: ", argv[2]);
        rc = verbs[i].run(&p, argc - 1, argv + 1);
        buf_free(&p.overrides);
        return rc;
    }
    buf_printf(&text, near.word != NULL ? "%s; did you mean %s" : "%s", argv[1], near.word);
    buf_addc(&text, '\0');
    bad_usage("unknown command: ", text.failed ? argv[1] : text.p);
    buf_free(&text);
    return 2;
}
