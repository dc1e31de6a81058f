/*
 * lua -- scripts at every hook, within limits of time and memory.
 *
 * Model    a script defines functions that are named after hooks; those that it does not define
 *          cost nothing, also where a route could else be answered on the fastest path. Each route
 *          runs the plugin's script, or one of its own. How a call runs and what holds it in its
 *          limits is in state.c, what a script sees in sandbox.c, what it does to requests in
 *          request.c.
 * Threads  as of all plugins: hooks on any worker.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugins/lua/inside.h"

const struct weir_host *host;

struct plugin {
    const char *file;                   /* the configuration's; NULL: each route has its own */
    uint64_t time_ms;
    size_t memory;
    struct script *scripts;             /* owned; one of each file */
};

static int
memory_is_out(struct weir_self *self)
{
    host->complain(self, NULL, "out of memory");
    return -1;
}

/* NULL after complain(). */
static struct script *
script_of(struct plugin *p, struct weir_self *self, const char *file)
{
    struct script *s = p->scripts;
    char why[WHY_MAX];

    while (s != NULL && strcmp(s->file, file) != 0)
        s = s->next;
    if (s != NULL)
        return s;
    s = script_open(file, p->time_ms, p->memory, self, why);
    if (s == NULL) {
        host->complain(self, "script", why);
        return NULL;
    }
    s->next = p->scripts;
    p->scripts = s;
    return s;
}

static void
close_plugin(void *plugin)
{
    struct plugin *p = plugin;

    for (struct script *s = p->scripts, *next; s != NULL; s = next) {
        next = s->next;
        script_close(s);
    }
    free(p);
}

static int
open_plugin(const struct weir_host *h, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    struct plugin *p = calloc(1, sizeof *p);

    if (host == NULL)                   /* at a reload others read it */
        host = h;
    if (p == NULL)
        return memory_is_out(self);
    p->file = values[0].text.p;
    p->time_ms = values[1].number;
    p->memory = values[2].number;
    if (p->file != NULL && script_of(p, self, p->file) == NULL) {
        close_plugin(p);
        return -1;
    }
    *out = p;
    return 0;
}

static int
route_open(void *plugin, struct weir_self *self, const char *name,
    const struct weir_value *values, void **out)
{
    struct plugin *p = plugin;
    const char *file = values[0].text.p != NULL ? values[0].text.p : p->file;
    struct route *r;

    (void)name;
    if (file == NULL) {
        host->complain(self, NULL, "there is no script: `script` of the plugin's options, or here");
        return -1;
    }
    for (size_t i = 0; i < values[1].ntexts; i++)
        if (memchr(values[1].texts[i].p, '=', values[1].texts[i].n) == NULL) {
            host->complain(self, "args", "is not of the form NAME=TEXT, as tenant=acme");
            return -1;
        }
    r = calloc(1, sizeof *r);
    if (r == NULL)
        return memory_is_out(self);
    r->script = script_of(p, self, file);
    r->args = values[1].texts;
    r->nargs = values[1].ntexts;
    if (r->script == NULL) {
        free(r);
        return -1;
    }
    host->only(self, r->script->hooks);
    *out = r;
    return 0;
}

static void
route_close(void *plugin, void *route)
{
    (void)plugin;
    free(route);
}

#define HOOK(name, bit)                                                  \
    static int                                                      \
    on_##name(void *plugin, void *route, struct weir_request *r)    \
    {                                                               \
        (void)plugin;                                               \
        return script_call(route, bit, r);                          \
    }
HOOK(request, WEIR_HOOK_REQUEST)
HOOK(key, WEIR_HOOK_KEY)
HOOK(response, WEIR_HOOK_RESPONSE)
HOOK(store, WEIR_HOOK_STORE)
HOOK(deliver, WEIR_HOOK_DELIVER)
HOOK(accepted, WEIR_HOOK_ACCEPTED)
HOOK(delivered, WEIR_HOOK_DELIVERED)
HOOK(done, WEIR_HOOK_DONE)

static const struct weir_option options[] = {
    { "script", WEIR_FILE, 0, NULL, NULL, NULL, NULL,
      "A file in Lua that defines functions named after hooks. Read with the configuration." },
    { "time", WEIR_DURATION, 0, "5ms", "1ms", "1s", NULL,
      "The longest that a call of a hook may run, of CPU time; then it has failed." },
    { "memory", WEIR_SIZE, 0, "8MiB", "1MiB", "256MiB", NULL,
      "The most memory of a state that runs a script; a call that needs more has failed. There are "
      "as many states as workers run it at once." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

static const struct weir_option route_options[] = {
    { "script", WEIR_FILE, 0, NULL, NULL, NULL, NULL, "Instead of the plugin's, on this route." },
    { "args", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL,
      "Texts for the script, as `tenant=acme`: r:arg(\"tenant\")." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
    .abi = WEIR_ABI, .size = sizeof(struct weir_plugin), .name = "lua", .version = "1",
    .meaning = "Runs scripts in Lua at every hook, within limits of time and memory.",
    .options = options, .route_options = route_options, .open = open_plugin,
    .close = close_plugin, .route_open = route_open, .route_close = route_close,
    .request = on_request, .key = on_key, .response = on_response, .store = on_store,
    .deliver = on_deliver, .accepted = on_accepted, .delivered = on_delivered, .done = on_done,
};
