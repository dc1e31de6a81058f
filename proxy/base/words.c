/*
 * Words that people mistype: the nearest known one, and command lines whose options are taken
 * whole or not at all.
 */
#include "base/base.h"

#include <getopt.h>

/* ---- the nearest word --------------------------------------------------------------------- */

#define WORD_MAX 64

/* Optimal string alignment: insertions, deletions, replacements, neighbours swapped. */
static unsigned
distance(struct slice a, struct slice b)
{
    unsigned row[3][WORD_MAX + 1];

    for (unsigned j = 0; j <= b.n; j++)
        row[0][j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned *at = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];

        at[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned best = up[j - 1] + ((a.p[i - 1] | 32) != (b.p[j - 1] | 32));

            best = up[j] + 1 < best ? up[j] + 1 : best;
            best = at[j - 1] + 1 < best ? at[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1] &&
                up2[j - 2] + 1 < best)
                best = up2[j - 2] + 1;
            at[j] = best;
        }
    }
    return row[a.n % 3][b.n];
}

/* Near enough: a third of the longer word may differ, and one letter always. */
void
nearest_try(struct nearest *n, const char *word)
{
    struct slice w = slice_of(word);
    unsigned d, limit;

    if (w.n > WORD_MAX || n->to.n > WORD_MAX || n->to.n == 0)
        return;
    d = distance(n->to, w);
    limit = (unsigned)(w.n > n->to.n ? w.n : n->to.n) / 3;
    if (d <= (limit > 0 ? limit : 1) && (n->word == NULL || d < n->distance)) {
        n->word = word;
        n->distance = d;
    }
}

/* ---- options ------------------------------------------------------------------------------ */

static int
unknown_option(struct slice name, const struct option *known, struct err *e)
{
    struct nearest near = { .to = name };

    for (const struct option *o = known; o->name != NULL; o++)
        nearest_try(&near, o->name);
    if (near.word != NULL)
        return err_set(e, 0, "unknown option --%.*s; did you mean --%s", SLICE_ARG(name),
            near.word);
    return err_set(e, 0, "unknown option --%.*s", SLICE_ARG(name));
}

/* How many words a long option takes, its value included. */
static int
long_option(const char *text, bool last, const struct option *known, struct err *e)
{
    struct slice name = { text, strcspn(text, "=") };
    const struct option *o = known;

    while (o->name != NULL && !slice_eq(slice_of(o->name), name))
        o++;
    if (o->name == NULL)
        return unknown_option(name, known, e);
    if (o->has_arg == no_argument && text[name.n] == '=')
        return err_set(e, 0, "--%s takes no value", o->name);
    if (o->has_arg == no_argument || text[name.n] == '=')
        return 1;
    return last ? err_set(e, 0, "--%s lacks its value", o->name) : 2;
}

static int
short_options(const char *text, bool last, const char *known, struct err *e)
{
    for (const char *c = text; *c != '\0'; c++) {
        const char *k = *c != ':' ? strchr(known, *c) : NULL;

        if (k == NULL)
            return err_set(e, 0, "unknown option -%c", *c);
        if (k[1] == ':' && c[1] == '\0')
            return last ? err_set(e, 0, "-%c lacks its value", *c) : 2;
        if (k[1] == ':')
            break;
    }
    return 1;
}

int
options_exact(int argc, char **argv, const char *shorts, const struct option *known, struct err *e)
{
    for (int i = 1, took; i < argc; i += took) {
        const char *a = argv[i];
        bool last = i + 1 == argc;

        if (strcmp(a, "--") == 0)
            break;
        took = a[0] != '-' || a[1] == '\0' ? 1 : a[1] == '-' ?
            long_option(a + 2, last, known, e) : short_options(a + 1, last, shorts, e);
        if (took == -1)
            return -1;
    }
    return 0;
}
