/*
 * The last purges that were asked for at this port, for /stats: who looks at a cache that went cold
 * wants to know.
 *
 *   "purges": [{"at_ms": 1763..., "soft": b, "dry_run": false, "objects": n, "items": [...]}, ...]
 *
 * newest first, as POST /purge answered them, with the first few of their items. Those that writes
 * make and those of other instances are in the counters.
 * Threads  the admin loop's alone; /stats is made there.
 */
#include <stdlib.h>

#include "admin/inside.h"
#include "stats/stats.h"

#define RECENT_MAX 20

struct recent {
    size_t next;                        /* place of the next one */
    struct buf at[RECENT_MAX];          /* members of an object; empty: none yet */
};

static struct recent *shown;            /* of the newest port: a source of figures stays for good */

static void
figures_json(struct buf *b, void *arg)
{
    const char *comma = "";

    (void)arg;
    if (shown == NULL)
        return;
    buf_addz(b, ",\n\"purges\": [");
    for (size_t i = 1; i <= RECENT_MAX; i++) {
        const struct buf *text = &shown->at[(shown->next + RECENT_MAX - i) % RECENT_MAX];

        if (text->n == 0)
            break;
        buf_printf(b, "%s\n  {%.*s}", comma, SLICE_ARG(buf_slice(text)));
        comma = ",";
    }
    buf_addc(b, ']');
}

int
recent_begin(struct admin *a)
{
    static struct stats_source source = { .json = figures_json };
    static bool registered;

    a->recent = calloc(1, sizeof *a->recent);
    if (a->recent == NULL)
        return -1;
    shown = a->recent;
    if (!registered)
        stats_source_add(&source);
    registered = true;
    return 0;
}

void
recent_end(struct admin *a)
{
    if (a->recent == NULL)
        return;
    if (shown == a->recent)
        shown = NULL;
    for (size_t i = 0; i < RECENT_MAX; i++)
        buf_free(&a->recent->at[i]);
    free(a->recent);
    a->recent = NULL;
}

void
recent_add(struct admin *a, struct slice results)
{
    struct buf *b = &a->recent->at[a->recent->next];

    b->n = 0;
    buf_printf(b, "\"at_ms\": %lld", (long long)wall_ms());
    buf_adds(b, results);
    if (b->failed)
        buf_free(b);                    /* without memory it is not remembered */
    a->recent->next = (a->recent->next + 1) % RECENT_MAX;
}
