/*
 * Problems: collected with their places, sorted as the file has them, printed one a line.
 *
 * A report never grows without bound: a file with thousands of problems says so in its last line.
 */
#include "config/inside.h"

#include <stdlib.h>

#define PROBLEMS_MAX 2000

static void
report_add(struct load *l, bool warn, struct conf_where w, const char *path, const char *text)
{
    struct config_report *r = l->report;
    struct config_problem *at;

    if (!warn)
        r->errors++;
    if (r->n >= PROBLEMS_MAX) {
        /* The first of the surplus takes the place behind all others; the rest is only counted. */
        if (r->n == PROBLEMS_MAX && r->pool != NULL && (at = realloc(r->at,
            (r->n + 1) * sizeof *at)) != NULL) {
            r->at = at;
            r->at[r->n++] = (struct config_problem){ .warning = warn, .line = w.line,
                .column = w.column, .path = "", .text = "there are more problems; mend these "
                "first" };
        }
        return;
    }
    at = (r->n & (r->n - 1)) == 0 ? realloc(r->at, (r->n == 0 ? 1 : r->n * 2) * sizeof *at) : r->at;
    if (at == NULL) {
        l->no_memory = true;
        return;
    }
    r->at = at;
    path = pool_dup(r->pool, path, strlen(path));
    text = pool_dup(r->pool, text, strlen(text));
    r->at[r->n++] = (struct config_problem){ .warning = warn, .line = w.line, .column = w.column,
        .path = path != NULL ? path : "", .text = text != NULL ? text : "out of memory" };
}

static void
report_va(struct load *l, bool warn, struct conf_where w, const char *path, const char *fmt,
    va_list ap)
{
    struct buf b = { 0 };
    va_list again;
    int n;

    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0 && buf_reserve(&b, (size_t)n + 1) != NULL)
        vsnprintf(b.p, (size_t)n + 1, fmt, again);
    va_end(again);
    report_add(l, warn, w, path, b.p != NULL ? b.p : "out of memory");
    buf_free(&b);
}

void
problem(struct load *l, struct conf_where w, const char *path, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_va(l, false, w, path, fmt, ap);
    va_end(ap);
}

void
warning(struct load *l, struct conf_where w, const char *path, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    report_va(l, true, w, path, fmt, ap);
    va_end(ap);
}

const char *
textf(struct load *l, const char *fmt, ...)
{
    va_list ap;
    char *out;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    out = n >= 0 ? pool_alloc(l->scratch, (size_t)n + 1) : NULL;
    if (out == NULL) {
        l->no_memory = true;
        return "";
    }
    va_start(ap, fmt);
    vsnprintf(out, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return out;
}

const char *
shown(struct load *l, struct slice s)
{
    bool cut = s.n > 60;
    char *out;

    if (cut)
        for (s.n = 60; s.n > 0 && ((unsigned char)s.p[s.n] & 0xc0) == 0x80;)
            s.n--;                      /* not in the middle of a character */
    out = (char *)textf(l, "\"%.*s%s\"", SLICE_ARG(s), cut ? "..." : "");
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return out;
}

static int
by_place(const void *a, const void *b)
{
    const struct config_problem *x = a, *y = b;

    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    return 0;
}

/* By insertion for the few that there are, so that problems of one place keep their order. */
void
report_sort(struct config_report *r)
{
    size_t n = r->n > PROBLEMS_MAX ? PROBLEMS_MAX : r->n;

    for (size_t i = 1; i < n; i++) {
        struct config_problem p = r->at[i];
        size_t k = i;

        for (; k > 0 && by_place(&p, &r->at[k - 1]) < 0; k--)
            r->at[k] = r->at[k - 1];
        r->at[k] = p;
    }
}

void
config_report_free(struct config_report *r)
{
    free(r->at);
    pool_free(&r->pool);
    *r = (struct config_report){ 0 };
}

void
config_report_print(const struct config_report *r, const char *file, FILE *out)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct config_problem *p = &r->at[i];

        fputs(file, out);
        if (p->line > 0)
            fprintf(out, ":%d:%d", p->line, p->column);
        fprintf(out, ": %s%s%s%s\n", p->warning ? "warning: " : "", p->path,
            p->path[0] != '\0' ? ": " : "", p->text);
    }
}
