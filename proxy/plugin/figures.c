/*
 * What plugins count, in /metrics: their own counters, and the errors of their hooks. Times are
 * kept by stats/, which knows percentiles.
 *
 * Threads  counting: any. Names are made by one thread at a time, and stay for the process.
 */
#include "plugin/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "stats/stats.h"

#define NAME_MAX_N 64

struct weir_counter {
    _Atomic uint64_t value;
    struct weir_counter *next;
    char *meaning;                      /* owned */
    char name[];
};

struct weir_timer { unsigned slot; struct weir_timer *next; };

static _Atomic(struct weir_counter *) counters;
static struct weir_timer *timers;

bool
figures_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

    return n > 0 && n <= NAME_MAX_N && name[n] == '\0';
}

/* One line, as the format of /metrics wants it. */
static char *
one_line(const char *text)
{
    char *s = strdup(text != NULL ? text : "");

    for (char *c = s; c != NULL && *c != '\0'; c++)
        if (*c == '\n' || *c == '\r' || *c == '\\')
            *c = ' ';
    return s;
}

struct weir_counter *
figures_counter(const char *name, const char *meaning)
{
    struct weir_counter *c;

    if (name == NULL || !figures_name(name))
        return NULL;
    for (c = atomic_load(&counters); c != NULL; c = c->next)
        if (strcmp(c->name, name) == 0)
            return c;
    c = calloc(1, sizeof *c + strlen(name) + 1);
    if (c == NULL || (c->meaning = one_line(meaning)) == NULL) {
        free(c);
        return NULL;
    }
    strcpy(c->name, name);
    c->next = atomic_load(&counters);
    atomic_store(&counters, c);
    return c;
}

void
plugin_count(struct weir_counter *c, uint64_t n)
{
    if (c != NULL)
        atomic_fetch_add_explicit(&c->value, n, memory_order_relaxed);
}

struct weir_timer *
figures_timer(const char *name, const char *meaning)
{
    char family[NAME_MAX_N + 32], *help;
    struct weir_timer *t;
    unsigned slot;

    if (name == NULL || !figures_name(name))
        return NULL;
    help = one_line(meaning);
    snprintf(family, sizeof family, "weir_plugin_%s_seconds", name);
    slot = stats_timer_slot(family, "", help != NULL ? help : "");
    free(help);
    for (t = timers; t != NULL; t = t->next)
        if (t->slot == slot)
            return t;
    if ((t = malloc(sizeof *t)) == NULL)
        return NULL;
    *t = (struct weir_timer){ slot, timers };
    timers = t;
    return t;
}

void
plugin_observe(struct weir_timer *t, uint64_t ns)
{
    if (t != NULL)
        stats_timer(t->slot, ns);
}

uint64_t
figures_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Of all files that this plugin came from: a reload may name another. */
static uint64_t
errors_of(const struct library *newest, unsigned h)
{
    uint64_t sum = 0;

    for (const struct library *l = newest; l != NULL; l = l->next)
        if (strcmp(l->table->name, newest->table->name) == 0)
            sum += atomic_load_explicit(&l->errors[h], memory_order_relaxed);
    return sum;
}

static bool
is_newest(const struct library *of)
{
    const struct library *l = libraries();

    while (strcmp(l->table->name, of->table->name) != 0)
        l = l->next;
    return l == of;
}

static void
put_errors(struct buf *b)
{
    buf_addz(b, "# HELP weir_plugin_errors_total Calls of a plugin's hook that failed.\n"
        "# TYPE weir_plugin_errors_total counter\n");
    for (struct library *l = libraries(); l != NULL; l = l->next)
        for (unsigned h = 0; h < PLUGIN_HOOKS_N && is_newest(l); h++)
            if (l->hooks[h] != NULL)
                buf_printf(b, "weir_plugin_errors_total{plugin=\"%s\",hook=\"%s\"} %llu\n",
                    l->table->name, hook_names[h], (unsigned long long)errors_of(l, h));
}

static void
put_metrics(struct buf *b, void *arg)
{
    (void)arg;
    put_errors(b);
    for (struct weir_counter *c = atomic_load(&counters); c != NULL; c = c->next)
        buf_printf(b, "# HELP weir_plugin_%s_total %s\n# TYPE weir_plugin_%s_total counter\n"
            "weir_plugin_%s_total %llu\n", c->name, c->meaning, c->name, c->name,
            (unsigned long long)atomic_load_explicit(&c->value, memory_order_relaxed));
}

void
figures_begin(void)
{
    static struct stats_source source = { .metrics = put_metrics };
    static bool begun;

    if (!begun)
        stats_source_add(&source);
    begun = true;
}
