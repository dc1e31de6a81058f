/*
 * store -- what the memory tier costs.
 *
 *   store objects [N]       N objects (a million) with 1 KiB bodies: resident bytes per object beyond its key,
 *                            head and body. To reach: at most 300.
 *   store churn [MiB] [S]   fills the limit four times over with bodies of 100 B to 200 KiB, S objects a second
 *                            and no more (0: as fast as it goes), and looks at the resident size. To reach: the
 *                            limit and 10 %, beyond the process's size before.
 *   store get               instructions are counted from outside: ten million hits over 1000 keys
 *
 * Linked with jemalloc, as the process is. Exits 1 where the goal is missed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "stats/stats.h"
#include "store/store.h"

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=60\r\n" \
    "ETag: \"5f3a9c1e7b\"\r\nLast-Modified: Sat, 21 Nov 2026 04:00:00 GMT\r\n" \
    "Date: Sat, 21 Nov 2026 04:00:00 GMT\r\nContent-Length: 1024\r\n"

/* What is freed goes back at once, or it would be resident beside what is stored next; the caches of the threads
 * keep that from costing on small buffers. Bodies of 1 KiB stand 32 to a slab instead of 4, which saves
 * jemalloc's 128 bytes a slab. */
extern const char *malloc_conf;
const char *malloc_conf = "dirty_decay_ms:0,muzzy_decay_ms:0,tcache_max:65536,slab_sizes:1024-1024:8|4096-4096:16";

static int64_t
resident(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size, pages = 0;

    if (f != NULL && fscanf(f, "%ld %ld", &size, &pages) != 2)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

static struct key
key_of(unsigned i, char text[64])
{
    size_t n = (size_t)snprintf(text, 64, "http://localhost:8080/object/%u", i);
    struct key k = { .bytes = { text, n }, .url_n = (uint32_t)n, .path_at = 21 };

    k.hash = k.url_hash = key_hash(k.bytes);
    return k;
}

static size_t                       /* of the key */
put(struct store *s, unsigned i, size_t body_n, enum store_result *r)
{
    static const char zero[200 << 10];
    char text[64];
    struct key k = key_of(i, text);
    struct store_parts p = { .key = &k, .head = SLICE(HEAD), .status_n = 17, .stamp = store_stamp(s) };

    p.body = body_new(body_n);
    if (p.body == NULL || body_append(p.body, (struct slice){ zero, body_n }) == -1)
        log_fatal("memory is out");
    *r = store_put(s, &p, NULL);
    body_unref(&p.body);
    return k.bytes.n;
}

static int
objects(unsigned n)
{
    struct store *s = store_new((int64_t)4 << 30, 16, NULL);
    int64_t before = resident(), own = 0;
    struct store_figures f;
    double each, counted;

    for (unsigned i = 0; i < n; i++) {
        enum store_result r;

        own += (int64_t)(put(s, i, 1024, &r) + sizeof HEAD - 1 + 1024);
        if (r != STORE_STORED)
            log_fatal("object %u was not stored", i);
    }
    rcu_drain();
    store_figures(s, &f);
    each = (double)(resident() - before - own) / n;
    counted = ((double)f.bytes - (double)own) / n;
    printf("%u objects: %.0f bytes each beyond key, head and body resident, %.0f counted\n", n, each, counted);
    return each <= 300 ? 0 : 1;
}

static size_t
churn_size(void)
{
    double u = (double)(random_fast() % 1000000) / 1e6;

    return (size_t)(100 * __builtin_pow(2048, u));      /* 100 B to 200 KiB, evenly by magnitude */
}

static int
churn(int64_t mib, unsigned rate)
{
    int64_t limit = mib << 20, before, peak = 0, put_bytes = 0, start = now_us();
    struct store *s = store_new(limit, 16, NULL);
    unsigned i = 0, refused = 0;
    struct store_figures f;

    for (before = resident(); put_bytes < 4 * limit; i++) {
        size_t n = churn_size();
        enum store_result r;

        put(s, i, n, &r);
        if (r == STORE_STORED)
            put_bytes += (int64_t)n;
        else
            refused++;
        if (i % 256 == 0 && resident() > peak)
            peak = resident();
        while (rate > 0 && now_us() - start < (int64_t)i * 1000000 / rate)
            usleep(500);
    }
    store_figures(s, &f);
    printf("limit %ld MiB: counted %.3f of it, resident %.3f at the end, %.3f at the peak "
        "(%u put, %u refused, %.1f s; before: %.1f MiB)\n", (long)mib, (double)f.bytes / (double)limit,
        (double)(resident() - before) / (double)limit, (double)(peak - before) / (double)limit, i, refused,
        (double)(now_us() - start) / 1e6, (double)before / 1048576);
    return peak - before <= limit + limit / 10 ? 0 : 1;
}

static int
hits(void)
{
    struct store *s = store_new(64 << 20, 16, NULL);
    int64_t start;
    unsigned found = 0;

    for (unsigned i = 0; i < 1000; i++) {
        enum store_result r;

        put(s, i, 1024, &r);
    }
    start = now_us();
    for (unsigned i = 0; i < 1000; i++) {
        char text[64];
        struct key k = key_of(i, text);

        for (unsigned n = 0; n < 10000; n++) {
            struct object *o;
            bool soft;

            rcu_begin();
            found += store_get(s, &k, NULL, 0, &o, &soft) == STORE_HIT;
            rcu_end();
        }
    }
    printf("%u hits, %.1f ns each\n", found, (double)(now_us() - start) * 1e3 / 1e7);
    return 0;
}

int
main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    unsigned long a = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;

    if (stats_init(NULL) == -1)
        return 1;
    rcu_enter_thread();
    if (strcmp(what, "objects") == 0)
        return objects(a > 0 ? (unsigned)a : 1000000);
    if (strcmp(what, "churn") == 0)
        return churn(a > 0 ? (int64_t)a : 256, argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 0);
    if (strcmp(what, "get") == 0)
        return hits();
    fprintf(stderr, "usage: store objects [N] | churn [MiB] [objects a second] | get\n");
    return 2;
}
