/*
 * Who fetches, who joins and who is told to look again.
 */
#include "upstream_kit.h"

#include "fill/fill.h"

static struct kit k;
static struct script origin;
static struct store *store;
static struct fills *fills;
static struct route_table *table;
static struct route_match match;
static struct key key;
static struct http_head get = { .method = HTTP_GET, .method_name = { "GET", 3 } };
static char request_bytes[] = "GET";

static void
serve(struct script *s, int fd, unsigned nth)
{
    char head[4096];

    (void)nth;
    while (read_head(s, fd, head, sizeof head))
        say(fd, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na");
}

static int
start(void **state)
{
    struct pool *p = pool_new();
    struct conf *c = pool_zalloc(p, sizeof *c);
    struct err e;

    (void)state;
    key = (struct key){ .bytes = SLICE("http://h/a"), .url_n = 10 };
    key.hash = key.url_hash = key_hash(key.bytes);
    c->magic = CONF_MAGIC;
    atomic_init(&c->refs, 1);
    c->pool = p;
    c->cache_max_object = 1 << 20;
    c->routes = pool_zalloc(p, sizeof *c->routes);
    c->nroutes = 1;
    c->routes[0] = (struct conf_route){ .path = "/**", .name = "/**", .ttl_ms = CONF_UNSET,
        .force_ttl_ms = CONF_UNSET, .swr_ms = CONF_UNSET, .sie_ms = CONF_UNSET,
        .max_object = CONF_UNSET, .first_byte_ms = CONF_UNSET, .between_bytes_ms = CONF_UNSET,
        .key_host = true };
    table = route_table_new(c, NULL, &e);
    conf_unref(&c);
    match.route = route_table_at(table, 0);
    kit_one(&k, 1, &origin, serve);
    kit_open(&k);
    store = store_new(16 << 20, 8, &e);
    fills = fills_new(store, NULL, &e);
    return table != NULL && store != NULL && fills != NULL ? 0 : -1;
}

static int
stop(void **state)
{
    (void)state;
    kit_stop(&k);
    script_stop(&origin);
    fills_free(&fills);
    store_free(&store);
    route_table_unref(&table);
    return 0;
}

/* ---- one request of a test, on the loop ------------------------------------------------------ */

struct asker {
    struct loop_msg msg;
    bool            no_cache;           /* says the request */
    bool            behind, collapsed;
    struct object  *stale;
    struct fill    *fill;
    enum fill_state state;              /* once it waits no more and the answer is whole */
    atomic_bool     done;
};

static void
no_fields(void *arg, struct buf *b)
{
    (void)arg;
    (void)b;
}

static void
on_change(void *arg)
{
    struct asker *a = arg;
    struct fill_view v;

    fill_look(a->fill, &v);
    if (v.state == FILL_WAITING || (v.state == FILL_HEAD && !v.complete && !v.broken))
        return;
    a->state = v.state;
    fill_close(&a->fill);
    atomic_store(&a->done, true);
}

static void
ask_on_loop(struct loop_msg *m)
{
    struct asker *a = CONTAINER(m, struct asker, msg);
    struct http_head h = get;
    struct fill_want w = {
        .mode = FILL_SHARED, .table = table, .match = &match, .origin = k.o, .key = &key,
        .target = SLICE("/a"), .request = &h, .request_bytes = { request_bytes, 3 },
        .stale = a->stale, .host = SLICE("h"), .via = SLICE("weir"), .fields = no_fields,
    };

    h.method_name.p = request_bytes;
    sem_request_read(&h, &w.semantics);
    if (a->no_cache)
        w.semantics.cc.flags |= CC_NO_CACHE;
    if (a->behind) {
        fill_behind(fills, loop_current(), &w);
        atomic_store(&a->done, true);
        return;
    }
    a->fill = fill_open(fills, loop_current(), &w, on_change, a, &a->collapsed);
    assert_non_null(a->fill);
    on_change(a);
}

static void
ask(struct asker *a)
{
    a->msg.run = ask_on_loop;
    loop_post(k.loops[0], &a->msg);
    while (!atomic_load(&a->done))
        nap_ms(1);
}

static struct object *
stored(void)
{
    struct object *o = NULL;
    bool soft;

    rcu_enter_thread();
    rcu_begin();
    if (store_get(store, &key, &get, wall_ms(), &o, &soft) == STORE_HIT)
        o = object_ref(o);
    rcu_end();
    rcu_leave_thread();
    return o;
}

static void
who_missed_what_has_landed_since_looks_again(void **state)
{
    struct asker first = { 0 }, late = { 0 };

    (void)state;
    ask(&first);
    assert_int_equal(first.state, FILL_HEAD);
    ask(&late);                         /* it looked before the first one's answer was stored */
    assert_int_equal(late.state, FILL_AGAIN);
    assert_false(late.collapsed);
    assert_int_equal(atomic_load(&origin.requests), 1);
}

static void
who_may_not_use_what_has_landed_fetches(void **state)
{
    struct asker first = { 0 }, late = { .no_cache = true };

    (void)state;
    ask(&first);
    ask(&late);
    assert_int_equal(late.state, FILL_HEAD);
    assert_int_equal(atomic_load(&origin.requests), 2);
}

static void
who_found_what_is_stored_and_must_validate_it_does_so(void **state)
{
    struct asker first = { 0 }, behind = { .behind = true }, late = { 0 };

    (void)state;
    ask(&first);
    late.stale = stored();
    assert_non_null(late.stale);
    ask(&late);
    assert_int_equal(late.state, FILL_HEAD);
    assert_int_equal(atomic_load(&origin.requests), 2);
    ask(&behind);                       /* and behind an older one nothing is to be done */
    object_unref(&late.stale);
    assert_int_equal(atomic_load(&origin.requests), 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_missed_what_has_landed_since_looks_again, start, stop),
        cmocka_unit_test_setup_teardown(who_may_not_use_what_has_landed_fetches, start, stop),
        cmocka_unit_test_setup_teardown(who_found_what_is_stored_and_must_validate_it_does_so,
            start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
