/*
 * Plugins for the unit tests of their loading and calling, one a TABLE_: `relay` is whole, of the
 * others each has one thing wrong.
 */
#include <stddef.h>
#include <stdint.h>

#include "tests/plugin/relay.h"

#ifdef TABLE_none

extern const int a_shared_object;
const int a_shared_object = 1;

#else

extern struct relay relay;
struct relay relay;

#define HOOK(nth, name)                                                         \
    static int                                                                  \
    name(void *plugin, void *route, struct weir_request *r)                     \
    {                                                                           \
        (void)route;                                                            \
        return relay.hook(nth, (size_t)(uintptr_t)plugin, r);                   \
    }
HOOK(0, request)
HOOK(1, key)
HOOK(2, response)
HOOK(3, store)
HOOK(4, deliver)
HOOK(5, accepted)
HOOK(6, delivered)
HOOK(7, done)

static int
open_plugin(const struct weir_host *host, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    relay.host = host;
    relay.self = self;
    relay.values = values;
    if (relay.open_wrong != NULL) {
        host->complain(self, relay.open_wrong[0] != '\0' ? relay.open_wrong : NULL, "is wrong; a "
            "right one");
        return -1;
    }
    if (relay.only != 0)
        host->only(self, relay.only);
    *out = (void *)(uintptr_t)++relay.opened;
    return 0;
}

static void
close_plugin(void *plugin)
{
    (void)plugin;
    relay.closed++;
}

static int
route_open(void *plugin, struct weir_self *self, const char *route,
    const struct weir_value *values, void **out)
{
    (void)plugin, (void)route, (void)out;
    relay.route_values = values;
    if (relay.route_wrong != NULL) {
        relay.host->complain(self, relay.route_wrong, "is wrong here");
        return -1;
    }
    if (relay.route_only != 0)
        relay.host->only(self, relay.route_only);
    relay.routes++;
    return 0;
}

static void
route_close(void *plugin, void *route)
{
    (void)plugin, (void)route;
    relay.routes--;
}

static const struct weir_option options[] = {
    { "count", WEIR_COUNT, 0, "3", "1", "10", NULL, "A count." },
    { "size", WEIR_SIZE, 0, NULL, "1KiB", "1MiB", NULL, "A size." },
    { "wait", WEIR_DURATION, 0, "50ms", NULL, NULL, NULL, "A duration." },
    { "rate", WEIR_RATE, 0, "10/s", NULL, NULL, NULL, "A rate." },
    { "loud", WEIR_BOOL, 0, "true", NULL, NULL, NULL, "Yes or no." },
    { "text", WEIR_TEXT, WEIR_SECRET, NULL, NULL, NULL, NULL, "A text." },
    { "file", WEIR_FILE, 0, NULL, NULL, NULL, NULL, "A file." },
    { "word", WEIR_WORD, 0, "one", NULL, NULL, "one, two", "A word." },
    { "list", WEIR_TEXTS, 0, "a, b", NULL, NULL, NULL, "Texts." },
#ifdef TABLE_options
    { "a.b", WEIR_WORD, 0, NULL, NULL, NULL, NULL, "A name with a dot." },
#endif
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

static const struct weir_option route_options[] = {
    { "must", WEIR_TEXT, WEIR_REQUIRED, NULL, NULL, NULL, NULL, "Has to be there." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
#ifdef TABLE_abi
    .abi = WEIR_ABI + 1,
#else
    .abi = WEIR_ABI,
#endif
#ifdef TABLE_size
    .size = offsetof(struct weir_plugin, done),
#else
    .size = sizeof(struct weir_plugin),
#endif
#ifdef TABLE_name
    .name = "re lay",
#else
    .name = "relay",
#endif
#ifdef TABLE_open
    .open = 1 ? NULL : open_plugin,
#else
    .open = open_plugin,
#endif
    .version = "1", .meaning = "Passes on what it is asked.",
    .options = options, .route_options = route_options, .close = close_plugin,
    .route_open = route_open, .route_close = route_close,
    .request = request, .key = key, .response = response, .store = store, .deliver = deliver,
    .accepted = accepted, .delivered = delivered, .done = done,
};

#endif
