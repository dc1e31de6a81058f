/*
 * config -- loads, checks and describes the configuration.
 *
 * Model    libyaml gives a document; the tables of config/schema/ judge each node of it. Every
 *          problem is collected with its place; only a configuration without errors becomes a
 *          struct conf. Start-up and reload: any one thread, blocking file I/O.
 */
#ifndef WEIR_CONFIG_H
#define WEIR_CONFIG_H

#include <stdio.h>

#include "base/base.h"
#include "config/conf.h"

struct config_problem {
    bool        warning;
    int         line, column;               /* 1-based; 0: the file as a whole */
    const char *path;                       /* "routes[2].ttl"; "" for the document */
    const char *text;                       /* "what is wrong; what is allowed" */
};
struct config_report {                      /* zero-initialise; config_report_free */
    struct config_problem *at;              /* in the order of the file */
    size_t n, errors;
    struct pool *pool;
};
void config_report_free(struct config_report *r);
/* "FILE:LINE:COLUMN: PATH: text", one a line, warnings marked "warning: ". */
void config_report_print(const struct config_report *r, const char *file, FILE *out);

/* Loads and checks a file. The configuration (one reference, the caller's), or NULL when the report
 * has an error. Warnings come with a configuration. `origin` (may be NULL): the URL of --origin,
 * which stands for an absent `origins` and `routes`. */
struct conf *config_load(const char *file, const char *origin, struct config_report *r);
/* The same from text; name is what messages call it. text == NULL: the embedded defaults. */
struct conf *config_parse(const char *text, size_t n, const char *name, const char *origin,
    struct config_report *r);

/* What changed between two configurations and takes effect only by a restart: appends lines
 * "PATH: ..." to b; the number of them. */
size_t config_restart_needed(const struct conf *was, const struct conf *is, struct buf *b);
/* Makes `is` what can be in force in a process that runs with `was`: what needs a restart stays as
 * it is there, listeners too (each with its new options where `is` has its address). Appends what
 * config_restart_needed says, and keeps it in is->waiting. -1: memory is out, `is` is not for
 * use. */
int config_take_over(const struct conf *was, struct conf *is, struct buf *b);

/* "50ms", "30s", "5m" into *ms, as options have it; false when it is none. */
bool config_duration(struct slice s, int64_t *ms);

void config_reference(FILE *out);           /* config/REFERENCE.md */
/* The options of a plugin: of that name where plugins are installed, or of a file (with a slash).
 * -1 with *e. */
int  config_reference_plugin(const char *name, FILE *out, struct err *e);
void config_schema(FILE *out);              /* config/weir.schema.json */
/* The effective configuration with defaults, as YAML, without any secret's content. */
void config_dump(const struct conf *c, struct buf *b);

#endif
