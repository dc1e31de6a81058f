/*
 * Names of slots: routes, origin servers and timers by number, states of the request machine.
 *
 * Model    a name gets the next number and keeps it for the life of the process; a binary tree
 *          finds it again. Slot 0 is "(none)" for routes, "(other)" for origin servers, "" for
 *          timers, of which it is none.
 * Threads  any, under the room's lock.
 */
#include "stats/inside.h"

#include <search.h>
#include <stdlib.h>

struct named { unsigned slot; char name[]; };

struct names {
    const char *zero;                   /* what slot 0 is called */
    unsigned max;
    void *tree;                         /* of struct named, which `at` owns */
    struct named **at;                  /* owned */
    size_t n, cap;
};

static struct names routes  = { .zero = "(none)",  .max = ROUTES_MAX };
static struct names origins = { .zero = "(other)", .max = ORIGINS_MAX };
static struct names timers  = { .zero = "", .max = TIMERS_MAX };
static char *timer_helps[TIMERS_MAX];   /* owned */
static char *states[STATES_MAX];        /* owned */

static int
by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* The slot of the new name, or 0 when memory or slots are out. */
static unsigned
names_new(struct names *t, struct named *d)
{
    if (t->n == t->cap) {
        size_t cap = t->cap > 0 ? t->cap * 2 : 64;
        struct named **at = t->n < t->max ? realloc(t->at, cap * sizeof(struct named *)) : NULL;

        if (at == NULL)
            goto fail;
        t->at = at;
        t->cap = cap;
    }
    d->slot = (unsigned)t->n;
    if (t->n >= t->max || tsearch(d, &t->tree, by_name) == NULL)
        goto fail;
    t->at[t->n++] = d;
    return d->slot;

fail:
    free(d);
    return 0;
}

static unsigned
names_slot(struct names *t, const char *name)
{
    size_t n = strlen(name) + 1;
    struct named *d, **found;

    if (t->n == 0 && name != t->zero)
        names_slot(t, t->zero);
    d = malloc(sizeof *d + n);
    if (d == NULL)
        return 0;
    memcpy(d->name, name, n);
    found = tfind(d, &t->tree, by_name);
    if (found == NULL)
        return names_new(t, d);
    free(d);
    return (*found)->slot;
}

unsigned
stats_route_slot(const char *name)
{
    unsigned slot;

    stats_lock();
    slot = names_slot(&routes, name);
    stats_unlock();
    return slot;
}

unsigned
stats_origin_slot(const char *name)
{
    unsigned slot;

    stats_lock();
    slot = names_slot(&origins, name);
    stats_unlock();
    return slot;
}

unsigned
stats_timer_slot(const char *family, const char *labels, const char *help)
{
    struct buf b = { 0 };
    unsigned slot = 0;

    buf_printf(&b, "%s{%s}", family, labels);
    buf_addc(&b, '\0');
    stats_lock();
    if (!b.failed)
        slot = names_slot(&timers, b.p);
    if (slot != 0 && timer_helps[slot] == NULL)
        timer_helps[slot] = strdup(help);
    stats_unlock();
    buf_free(&b);
    return slot;
}

void
stats_state_name(unsigned state, const char *name)
{
    if (state >= STATES_MAX)
        return;
    stats_lock();
    free(states[state]);
    states[state] = strdup(name);
    stats_unlock();
}

/* Slot 0 may be counted in before any name was given. */
size_t route_slots(void)  { return routes.n > 0 ? routes.n : 1; }
size_t origin_slots(void) { return origins.n > 0 ? origins.n : 1; }

size_t timer_slots(void)  { return timers.n; }

const char *
timer_slot_name(size_t slot)
{
    return timers.at[slot]->name;
}

const char *
timer_slot_help(size_t slot)
{
    return timer_helps[slot] != NULL ? timer_helps[slot] : "";
}

const char *
route_slot_name(size_t slot)
{
    return slot < routes.n ? routes.at[slot]->name : routes.zero;
}

const char *
origin_slot_name(size_t slot)
{
    return slot < origins.n ? origins.at[slot]->name : origins.zero;
}

const char *
state_name(unsigned state)
{
    return states[state];
}

static void
free_nothing(void *node)
{
    (void)node;
}

static void
names_clear(struct names *t)
{
    tdestroy(t->tree, free_nothing);
    for (size_t i = 0; i < t->n; i++)
        free(t->at[i]);
    free(t->at);
    t->tree = NULL;
    t->at = NULL;
    t->n = t->cap = 0;
}

void
names_free(void)
{
    names_clear(&routes);
    names_clear(&origins);
    names_clear(&timers);
    for (size_t i = 0; i < TIMERS_MAX; i++) {
        free(timer_helps[i]);
        timer_helps[i] = NULL;
    }
    for (unsigned i = 0; i < STATES_MAX; i++) {
        free(states[i]);
        states[i] = NULL;
    }
}
