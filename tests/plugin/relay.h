/* tests/plugin/relay.h -- what plugins of table.c and the tests that load them share. */
#ifndef WEIR_TEST_RELAY_H
#define WEIR_TEST_RELAY_H

#include "plugins/abi.h"

/* Exported as `relay`: all that such a plugin is asked it passes on to the test. */
struct relay {
    /* hook: its place among those of struct weir_plugin; plugin: 1, 2 ... as they were opened. */
    int (*hook)(unsigned hook, size_t plugin, struct weir_request *r);
    const char *open_wrong, *route_wrong;       /* options that open and route_open complain of */
    unsigned only, route_only;                  /* hooks that they say they need; 0: all */
    const struct weir_host *host;
    struct weir_self *self;
    const struct weir_value *values, *route_values;
    size_t opened, closed, routes;
};

#endif
