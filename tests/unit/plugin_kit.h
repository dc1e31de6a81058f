/* tests/unit/plugin_kit.h -- plugins that pass on what they are asked, and a request for them. */
#ifndef WEIR_TEST_PLUGIN_KIT_H
#define WEIR_TEST_PLUGIN_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dlfcn.h>

#include "plugin/inside.h"
#include "tests/plugin/relay.h"

#define TABLE(kind) TEST_PLUGINS "/" kind ".so"

static struct relay *relay;             /* the loaded library's */
static const struct weir_plugin *relay_table;
static const struct weir_host *host;

static void __attribute__((unused))
no_complaint(void *arg, const struct plugin_complaint *c)
{
    (void)arg;
    fail_msg("complained of %s: %s", c->option != NULL ? c->option : "itself", c->text);
}

static int __attribute__((unused))
load_relay(void **state)
{
    struct err e;
    void *handle;

    (void)state;
    relay_table = plugin_load(TABLE("relay"), "relay", &e);
    handle = dlopen(TABLE("relay"), RTLD_NOW | RTLD_NOLOAD);
    if (relay_table == NULL || handle == NULL)
        return -1;
    relay = dlsym(handle, "relay");
    dlclose(handle);
    return relay != NULL ? 0 : -1;
}

/* A route that uses `n` of them, and a request on it. */
struct asked {
    struct plugin_uses *uses;           /* owned */
    struct pool *pool;                  /* owned */
    struct weir_request *r;
    struct http_field fields[8];
    struct http_head head;
};

static void __attribute__((unused))
ask_begin(struct asked *a, size_t n, bool skip_errors, int64_t timeout_ms)
{
    *a = (struct asked){ .pool = pool_new() };
    a->uses = calloc(1, sizeof *a->uses + n * sizeof a->uses->at[0]);
    relay->opened = relay->closed = 0;
    relay->open_wrong = relay->route_wrong = NULL;
    for (; a->uses->n < n; a->uses->n++) {
        struct plugin *p = plugin_open(relay_table, NULL, skip_errors, timeout_ms, no_complaint,
            NULL);

        assert_non_null(p);
        assert_int_equal(plugin_use_open(p, "/**", NULL, &a->uses->at[a->uses->n], no_complaint,
            NULL), 0);
        a->uses->hooks |= a->uses->at[a->uses->n].hooks;
    }
    host = relay->host;
    a->r = plugin_request(a->uses, a->pool);
    a->r->route = "/**";
    a->fields[0] = (struct http_field){ SLICE("Host"), SLICE("h"), http_id(SLICE("Host")) };
    a->fields[1] = (struct http_field){ SLICE("X-A"), SLICE("1"), HF_NONE };
    a->head = (struct http_head){ .fields = a->fields, .nfields = 2, .cap = 8 };
    a->r->head[WEIR_OF_REQUEST] = a->r->head[WEIR_OF_RESPONSE] = &a->head;
}

static void __attribute__((unused))
ask_end(struct asked *a)
{
    plugin_end(a->r);
    for (size_t i = 0; i < a->uses->n; i++) {
        struct plugin *p = a->uses->at[i].plugin;

        plugin_use_close(&a->uses->at[i]);
        plugin_close(&p);
    }
    assert_int_equal(relay->closed, a->uses->n);
    pool_free(&a->pool);
    free(a->uses);
}

static uint64_t __attribute__((unused))
errors_at(const struct asked *a, enum plugin_hook hook)
{
    return a->uses->at[0].plugin->library->errors[hook];
}

static struct weir_text __attribute__((unused))
text(const char *z)
{
    return (struct weir_text){ z, strlen(z) };
}

#endif
