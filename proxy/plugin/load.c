/*
 * Libraries, and plugins of a configuration made of them.
 *
 * Model    a library is known by its file, is loaded once and never unloaded: what a plugin left
 *          behind (a thread, a handler of exit) may run in it to the end. So a file that changes
 *          under the same name is seen after a restart.
 * Threads  one at a time; libraries() any.
 */
#include "plugin/inside.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "stats/stats.h"

static _Atomic(struct library *) all;

const char *const hook_names[PLUGIN_HOOKS_N] = {
#define X(id, member, suspends) #member,
    PLUGIN_HOOKS(X)
#undef X
};

#define X(id, member, suspends) suspends,
const bool hook_suspends[PLUGIN_HOOKS_N] = { PLUGIN_HOOKS(X) };
#undef X

struct library *
libraries(void)
{
    return atomic_load(&all);
}

/* ---- libraries ------------------------------------------------------------------------------- */

static int
judge(const struct weir_plugin *t, const char *file, const char *name, struct err *e)
{
    if (t->abi != WEIR_ABI)
        return err_set(e, 0, "%s is of plugin ABI %u, and this is ABI %u; a build of it for this "
            "version", file, t->abi, (unsigned)WEIR_ABI);
    /* `done` is the last of the first version: who was built for that goes on to be taken. */
    if (!WEIR_HAS(t, done) || t->name == NULL || t->open == NULL || !figures_name(t->name))
        return err_set(e, 0, "%s is no whole plugin: its table has no size, no name or no open()",
            file);
    if (name != NULL && strcmp(name, t->name) != 0)
        return err_set(e, 0, "%s is the plugin %s; the file of %s", file, t->name, name);
    return 0;
}

/* Series of its hooks; one that it has not is never counted in. */
static void
name_timers(struct library *l)
{
    char labels[160];

    for (unsigned h = 0; h < PLUGIN_HOOKS_N; h++) {
        if (l->hooks[h] == NULL)
            continue;
        snprintf(labels, sizeof labels, "plugin=\"%.64s\",hook=\"%s\"", l->table->name,
            hook_names[h]);
        l->timers[h] = stats_timer_slot("weir_plugin_hook_seconds", labels,
            "Of each call of a plugin's hook; quantiles over the last minute.");
    }
}

static struct library *
library_new(const struct weir_plugin *t, const char *file)
{
    struct library *l = calloc(1, sizeof *l);

    if (l == NULL || (l->file = strdup(file)) == NULL) {
        free(l);
        return NULL;
    }
    l->table = t;
#define X(id, member, suspends) l->hooks[HOOK_##id] = t->member;
    PLUGIN_HOOKS(X)
#undef X
    name_timers(l);
    l->next = atomic_load(&all);
    atomic_store(&all, l);
    figures_begin();
    return l;
}

static struct library *
known(const char *file, const struct weir_plugin *t)
{
    for (struct library *l = libraries(); l != NULL; l = l->next)
        if ((file != NULL && strcmp(l->file, file) == 0) || (t != NULL && l->table == t))
            return l;
    return NULL;
}

const struct weir_plugin *
plugin_load(const char *file, const char *name, struct err *e)
{
    const struct weir_plugin *t;
    char path[PATH_MAX];
    struct library *l;
    void *handle;

    if (realpath(file, path) == NULL) {
        err_set(e, errno, "%s cannot be loaded: %s; an existing file", file, strerror(errno));
        return NULL;
    }
    l = known(path, NULL);
    if (l != NULL)
        return judge(l->table, file, name, e) == 0 ? l->table : NULL;
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle == NULL) {
        err_set(e, 0, "%s cannot be loaded: %s", file, dlerror());
        return NULL;
    }
    t = dlsym(handle, "weir_plugin");
    if (t == NULL)
        err_set(e, 0, "%s is no plugin: it exports no weir_plugin", file);
    else if (judge(t, file, name, e) == -1)
        t = NULL;
    else if (known(NULL, t) == NULL && library_new(t, path) == NULL) {  /* no link to a known one */
        err_set(e, ENOMEM, "out of memory");
        t = NULL;
    }
    dlclose(handle);
    return t;
}

/* ---- plugins --------------------------------------------------------------------------------- */

struct plugin *
plugin_open(const struct weir_plugin *table, const struct weir_value *values, bool skip_errors,
    int64_t timeout_ms, plugin_complain *complain, void *arg)
{
    struct plugin *p = calloc(1, sizeof *p);

    if (p == NULL) {
        complain(arg, &(struct plugin_complaint){ NULL, "out of memory" });
        return NULL;
    }
    p->magic = PLUGIN_MAGIC;
    p->library = known(NULL, table);
    assert(p->library != NULL);         /* plugin_load gave it */
    for (unsigned h = 0; h < PLUGIN_HOOKS_N; h++)
        p->hooks |= p->library->hooks[h] != NULL ? 1u << h : 0;
    p->skip_errors = skip_errors;
    p->has_redis = redis_is_configured();
    p->timeout_ms = timeout_ms;
    p->complain = complain;
    p->complain_arg = arg;
    if (table->open(&plugin_host, (struct weir_self *)p, values, &p->state) != 0) {
        free(p);
        return NULL;
    }
    p->complain = NULL;
    return p;
}

const char *
plugin_name(const struct plugin *p)
{
    CHECK(p, PLUGIN_MAGIC);
    return p->library->table->name;
}

void
plugin_close(struct plugin **pp)
{
    struct plugin *p = *pp;

    *pp = NULL;
    if (p == NULL)
        return;
    CHECK(p, PLUGIN_MAGIC);
    if (p->library->table->close != NULL)
        p->library->table->close(p->state);
    p->magic = 0;
    free(p);
}

void
plugin_tick(struct plugin *p)
{
    CHECK(p, PLUGIN_MAGIC);
    if (p->library->table->tick != NULL)
        p->library->table->tick(p->state);
}

int
plugin_use_open(struct plugin *p, const char *route, const struct weir_value *values,
    struct plugin_use *use, plugin_complain *complain, void *arg)
{
    const struct weir_plugin *t = p->library->table;
    unsigned of_all = p->hooks;
    void *state = NULL;
    int rc;

    CHECK(p, PLUGIN_MAGIC);
    p->complain = complain;
    p->complain_arg = arg;
    rc = t->route_open == NULL ? 0 :
        t->route_open(p->state, (struct weir_self *)p, route, values, &state);
    p->complain = NULL;
    if (rc == 0)
        *use = (struct plugin_use){ p, state, p->hooks };
    p->hooks = of_all;
    return rc == 0 ? 0 : -1;
}

void
plugin_use_close(struct plugin_use *use)
{
    const struct weir_plugin *t = use->plugin->library->table;

    if (t->route_close != NULL)
        t->route_close(use->plugin->state, use->state);
    use->state = NULL;
}
