/*
 * tests/fuzz/plugin_kit.h -- a shipped plugin, loaded as Weir loads it, and one request for it.
 */
#ifndef WEIR_FUZZ_PLUGIN_KIT_H
#define WEIR_FUZZ_PLUGIN_KIT_H

#include "plugin/plugin.h"
#include "require.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One plugin on one route. */
struct kit { struct plugin_uses *uses; struct plugin *plugin; };

static void
kit_ignore(void *arg, const struct plugin_complaint *c)
{
    require(c->text != NULL && c->text[0] != '\0');
    ++*(unsigned *)arg;
}

/* false: it does not open, and has said why. */
static bool
kit_open(struct kit *k, const char *name, const struct weir_value *values,
    const struct weir_value *of_route)
{
    struct err e;
    char file[1024];
    const struct weir_plugin *t;
    unsigned complaints = 0;

    snprintf(file, sizeof file, "%s/%s.so", PLUGINS, name);
    t = plugin_load(file, name, &e);
    if (t == NULL) {
        fprintf(stderr, "%s\n", e.text);
        abort();
    }
    log_threshold = LOG_ERROR;
    k->uses = calloc(1, sizeof *k->uses + sizeof k->uses->at[0]);
    k->uses->n = 1;
    k->plugin = plugin_open(t, values, false, 1000, kit_ignore, &complaints);
    if (k->plugin != NULL && plugin_use_open(k->plugin, "/**", of_route, &k->uses->at[0],
            kit_ignore, &complaints) == 0)
        return true;
    require(complaints > 0);
    plugin_close(&k->plugin);
    free(k->uses);
    k->uses = NULL;
    return false;
}

static void
kit_close(struct kit *k)
{
    plugin_use_close(&k->uses->at[0]);
    plugin_close(&k->plugin);
    free(k->uses);
}

#endif
