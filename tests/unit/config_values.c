/*
 * What is written arrives: defaults, kinds of value, names for durations, merging, ${ENV}; and what
 * is in force can be written out and read again.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "config/config.h"

#define ORIGIN "origins: {api: {servers: [http://127.0.0.1:8000]}}\n"

static struct conf *
parse(const char *text, const char *origin)
{
    struct config_report r = { 0 };
    struct conf *c = config_parse(text, text != NULL ? strlen(text) : 0, "f", origin, &r);

    if (r.n > 0)
        config_report_print(&r, "f", stderr);
    assert_int_equal(r.n, 0);
    assert_non_null(c);
    config_report_free(&r);
    return c;
}

static void
an_origin_alone_is_a_whole_configuration(void **state)
{
    struct conf *c = parse(NULL, "http://127.0.0.1:8000");
    const struct sockaddr_in *sa = (const struct sockaddr_in *)&c->listeners[0].address.sa;

    (void)state;
    assert_null(c->file);
    assert_int_equal(c->nlisteners, 1);
    assert_string_equal(c->listeners[0].address.text, "0.0.0.0:8080");
    assert_int_equal(sa->sin_family, AF_INET);
    assert_int_equal(ntohs(sa->sin_port), 8080);
    assert_int_equal(c->norigins, 1);
    assert_string_equal(c->origins[0].id, "default");
    assert_int_equal(c->origins[0].servers.n, 1);
    assert_string_equal(c->origins[0].servers.at[0].host, "127.0.0.1");
    assert_int_equal(c->origins[0].servers.at[0].port, 8000);
    assert_false(c->origins[0].servers.at[0].https);
    assert_int_equal(c->nroutes, 1);
    assert_string_equal(c->routes[0].path, "/**");
    assert_string_equal(c->routes[0].name, "/**");
    assert_ptr_equal(c->routes[0].to, &c->origins[0]);
    assert_int_equal(c->routes[0].ttl_ms, CONF_UNSET);
    assert_int_equal(c->routes[0].max_object, CONF_UNSET);
    assert_true(c->routes[0].key_host);
    assert_int_equal(c->cache_memory, 256 << 20);
    assert_int_equal(c->drain_ms, 30000);
    assert_int_equal(c->admin_listen.len, sizeof(struct sockaddr_in));
    assert_true(c->probe_listen.off);
    assert_int_equal(c->listeners[0].limit_head, 32 << 10);
    assert_true(c->origins[0].retry_budget > 0.199 && c->origins[0].retry_budget < 0.201);
    assert_null(c->admin_token);
    assert_null(c->purge_tokens[0]);
    conf_unref(&c);
}

static void
an_empty_file_with_an_origin_is_the_same(void **state)
{
    struct conf *c = parse("# nothing\n", "http://[::1]:81/");

    (void)state;
    assert_string_equal(c->file, "f");
    assert_string_equal(c->origins[0].servers.at[0].host, "::1");
    assert_int_equal(c->origins[0].servers.at[0].port, 81);
    conf_unref(&c);
    c = parse("origins:\nroutes:\n", "https://api.example");
    assert_int_equal(c->origins[0].servers.at[0].port, 443);
    assert_true(c->origins[0].servers.at[0].https);
    conf_unref(&c);
}

static void
every_kind_of_value_arrives(void **state)
{
    struct conf *c = parse(
        "workers: 3\nvia: edge-1.a_b\nslow: 250ms\ndrain: 0\n"
        "cache: {memory: 1048576, max_object: 64KiB, status_key: true}\n"
        "log: {level: debug, format: combined}\n"
        "listen:\n- \"[::]:0\"\n- {address: 127.0.0.1:9, trust: [10.0.0.0/8, \"fd00::/8\", "
        "192.0.2.1, \"::ffff:192.0.2.0/120\"]}\n"
        "origins: {api: {servers: [https://a, http://b:81], balance: least-connections, retry: "
        "{budget: 12.5%}, host: h.example:8080}}\n"
        "routes:\n- path: /a/{id}\n  host: A.example\n  ttl: 1w\n  negative_ttl: {404: 10s, 503: "
        "1s}\n"
        "  tags: t\n  request: {set: {A: 1}, add: {B: [x, y]}, remove: C}\n"
        "  purge_on: any\n", NULL);
    const struct conf_route *r = &c->routes[0];

    (void)state;
    assert_int_equal(c->workers, 3);
    assert_string_equal(c->via, "edge-1.a_b");
    assert_int_equal(c->slow_ms, 250);
    assert_int_equal(c->drain_ms, 0);
    assert_int_equal(c->cache_memory, 1 << 20);
    assert_int_equal(c->cache_max_object, 64 << 10);
    assert_true(c->cache_status_key);
    assert_int_equal(c->log_level, LOG_DEBUG);
    assert_int_equal(c->log_format, LOG_FORM_COMBINED);
    assert_int_equal(c->nlisteners, 2);
    assert_int_equal(c->listeners[0].address.sa.ss_family, AF_INET6);
    assert_int_equal(c->listeners[1].trust.n, 4);
    assert_int_equal(c->listeners[1].trust.at[0].bits, 8);
    assert_int_equal(c->listeners[1].trust.at[1].family, AF_INET6);
    assert_int_equal(c->listeners[1].trust.at[2].bits, 32);
    assert_int_equal(c->listeners[1].trust.at[3].family, AF_INET);      /* IPv4 in IPv6 dress */
    assert_int_equal(c->listeners[1].trust.at[3].bits, 24);
    assert_memory_equal(c->listeners[1].trust.at[3].bytes, "\xc0\0\2\0", 4);
    assert_int_equal(c->origins[0].balance, BALANCE_LEAST_CONNECTIONS);
    assert_true(c->origins[0].retry_budget == 0.125);
    assert_string_equal(c->origins[0].host, "h.example:8080");
    assert_int_equal(r->ttl_ms, 7 * 86400000LL);
    assert_int_equal(r->hosts.n, 1);
    assert_int_equal(r->negative_ttl.n, 2);
    assert_int_equal(r->negative_ttl.at[1].status, 503);
    assert_int_equal(r->negative_ttl.at[1].ttl_ms, 1000);
    assert_int_equal(r->tags.n, 1);
    assert_int_equal(r->request_set.n, 1);
    assert_int_equal(r->request_add.n, 2);
    assert_string_equal(r->request_add.at[1].value, "y");
    assert_string_equal(r->request_remove.at[0], "C");
    assert_int_equal(r->purge_on, PURGE_ON_ANY);
    assert_int_equal(r->where.line, 12);
    assert_int_equal(r->where.column, 3);
    conf_unref(&c);
}

static void
names_of_durations_are_known_wherever_they_stand(void **state)
{
    struct conf *c = parse(ORIGIN "routes: [{ttl: long, stale_if_error: x, negative_ttl: {404: "
        "x}}]\n"
        "ttl: {long: 2h, x: 3s}\n", NULL);

    (void)state;
    assert_int_equal(c->routes[0].ttl_ms, 7200000);
    assert_int_equal(c->routes[0].sie_ms, 3000);
    assert_int_equal(c->routes[0].negative_ttl.at[0].ttl_ms, 3000);
    conf_unref(&c);
}

static void
merge_keys_give_way_to_a_mappings_own(void **state)
{
    struct conf *c = parse(ORIGIN
        "x-a: &a {ttl: 1s, max_object: 2KiB, tags: a}\nx-b: &b {ttl: 2s, tags: b, purge: b}\n"
        "routes:\n- {<<: *a, path: /1, ttl: 9s}\n- {path: /2, <<: [*a, *b]}\n- <<: [*b, *a]\n  "
        "path: /3\n",
        NULL);

    (void)state;
    assert_int_equal(c->routes[0].ttl_ms, 9000);
    assert_int_equal(c->routes[0].max_object, 2048);
    assert_int_equal(c->routes[1].ttl_ms, 1000);
    assert_string_equal(c->routes[1].tags.at[0], "a");
    assert_string_equal(c->routes[1].purge.at[0], "b");
    assert_int_equal(c->routes[2].ttl_ms, 2000);
    conf_unref(&c);
}

static void
the_environment_is_expanded_in_values_alone(void **state)
{
    struct conf *c;

    (void)state;
    setenv("WEIR_TEST_SIZE", "512", 1);
    setenv("WEIR_TEST_TRICK", "x: [1]\ny", 1);
    c = parse(ORIGIN "cache: {memory: \"${WEIR_TEST_SIZE}MiB\"}\nlog: {access: \"$${HOME}$$x$\"}\n"
        "x-${NOPE}: 1\n", NULL);
    assert_int_equal(c->cache_memory, 512 << 20);
    assert_string_equal(c->log_access, "${HOME}$$x$");
    conf_unref(&c);
    /* what a variable holds is a value, never YAML: its line break is a control character */
    {
        static const char text[] = ORIGIN "log: {access: \"${WEIR_TEST_TRICK}\"}\n";
        struct config_report r = { 0 };

        assert_null(config_parse(text, strlen(text), "f", NULL, &r));
        assert_int_equal(r.errors, 1);
        assert_int_equal(r.at[0].line, 2);
        assert_string_equal(r.at[0].path, "log.access");
        config_report_free(&r);
    }
}

static void
a_dump_reads_back_as_itself_and_shows_no_secret(void **state)
{
    struct conf *c, *again;
    struct buf a = { 0 }, b = { 0 };

    (void)state;
    setenv("WEIR_TEST_SECRET", "hunter2", 1);
    c = parse(ORIGIN "ttl: {long: 2h}\nlog: {access: \"/tmp/$${y}\\\\\"}\n"
        "routes:\n- {path: \"/a/{id}\", ttl: long, tags: [\"x:{id}\"], negative_ttl: {404: 90s},\n"
        "   request: {set: {X-Plain: \"${WEIR_TEST_SECRET}\", Authorization: Bearer hunter2, B: "
        "\"1\"},\n"
        "             add: {L: [a, b]}}}\n", NULL);
    config_dump(c, &a);
    assert_null(memmem(a.p, a.n, "hunter2", 7));
    buf_addc(&a, '\0');
    assert_non_null(strstr(a.p, "set: {\"X-Plain\": \"(hidden)\", \"Authorization\": \"(hidden)\", "
        "\"B\": \"1\"}\n"));
    again = parse(a.p, NULL);
    config_dump(again, &b);
    buf_addc(&b, '\0');
    assert_string_equal(a.p, b.p);
    conf_unref(&c);
    conf_unref(&again);
    buf_free(&a);
    buf_free(&b);
}

static void
what_a_reload_cannot_change_is_said(void **state)
{
    struct conf *was = parse(ORIGIN "listen: [127.0.0.1:1, 127.0.0.1:2]\n", NULL);
    struct conf *is = parse(ORIGIN "workers: 2\ncache: {memory: 1GiB}\ndrain: 1s\n"
        "listen: [127.0.0.1:2, 127.0.0.1:3]\n", NULL);
    struct buf b = { 0 };

    (void)state;
    assert_int_equal(config_restart_needed(was, was, &b), 0);
    assert_int_equal(b.n, 0);
    assert_int_equal(config_restart_needed(was, is, &b), 4);
    buf_addc(&b, '\0');
    assert_string_equal(b.p, "workers: is 0 and becomes 2 with a restart\n"
        "cache.memory: is 256MiB and becomes 1GiB with a restart\n"
        "listen: 127.0.0.1:3 is opened with a restart\nlisten: 127.0.0.1:1 is closed with a "
        "restart\n");
    buf_free(&b);
    conf_unref(&was);
    conf_unref(&is);
}

static void
what_needs_a_restart_stays_as_it_runs(void **state)
{
    struct conf *was = parse(ORIGIN "workers: 2\ndns: {servers: [10.0.0.2, 10.0.0.3]}\n"
        "admin: {listen: off}\ncache: {memory: 1MiB}\nlisten:\n"
        "- {address: 127.0.0.1:0, trust: 10.0.0.0/8}\n- 127.0.0.1:0\n- 127.0.0.1:3\n", NULL);
    struct conf *is = parse(ORIGIN "workers: 7\ndrain: 1s\ncache: {memory: 1GiB}\n"
        "routes: [{path: \"/**\", max_object: 100MiB}]\nlisten:\n"
        "- 127.0.0.1:9\n- {address: 127.0.0.1:3, limits: {requests: 5}}\n"
        "- {address: 127.0.0.1:0, limits: {requests: 6}}\n", NULL), *next;
    struct buf b = { 0 };

    (void)state;
    assert_int_equal(config_take_over(was, is, &b), 0);
    b.n = 0;
    conf_unref(&was);                   /* nothing of it is needed */
    assert_int_equal(is->workers, 2);
    assert_int_equal(is->drain_ms, 1000);
    assert_true(is->admin_listen.off);
    assert_string_equal(is->dns_servers.at[1], "10.0.0.3");
    assert_int_equal(is->cache_memory, 1 << 20);
    assert_true(is->cache_max_object <= 1 << 17 && is->routes[0].max_object <= 1 << 17);
    assert_int_equal(is->nlisteners, 3);
    assert_int_equal(is->listeners[0].limit_requests, 6);
    assert_int_equal(is->listeners[0].trust.n, 0);
    assert_string_equal(is->listeners[1].address.text, "127.0.0.1:0");
    assert_int_equal(is->listeners[1].limit_requests, 0);
    assert_int_equal(is->listeners[2].limit_requests, 5);
    assert_non_null(strstr(is->waiting, "workers: is 2 and becomes 7 with a restart\n"));
    assert_non_null(strstr(is->waiting, "listen: 127.0.0.1:9 is opened with a restart\n"));
    assert_non_null(strstr(is->waiting, "listen: 127.0.0.1:0 is closed with a restart\n"));
    config_dump(is, &b);
    assert_true(slice_starts(buf_slice(&b), SLICE("# waits for a restart: workers: is 2 and ")));
    b.n = 0;
    next = parse(ORIGIN "workers: 2\ndns: {servers: [10.0.0.2, 10.0.0.3]}\n"
        "admin: {listen: off}\ncache: {memory: 1MiB}\n"
        "listen: [127.0.0.1:3, 127.0.0.1:0, 127.0.0.1:0]\n", NULL);
    assert_int_equal(config_take_over(is, next, &b), 0);
    assert_int_equal(b.n, 0);
    assert_null(next->waiting);
    buf_free(&b);
    conf_unref(&is);
    conf_unref(&next);
}

static void
ten_thousand_routes_load_in_moments(void **state)
{
    struct buf b = { 0 };
    struct conf *c;

    (void)state;
    buf_addz(&b, ORIGIN "routes:\n");
    for (int i = 0; i < 10000; i++)
        buf_printf(&b, "- {path: \"/api/v1/thing%d/{id}\", ttl: 5m, tags: [\"t%d:{id}\"]}\n", i, i);
    buf_addc(&b, '\0');
    c = parse(b.p, NULL);
    assert_int_equal(c->nroutes, 10000);
    conf_unref(&c);
    buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_origin_alone_is_a_whole_configuration),
        cmocka_unit_test(an_empty_file_with_an_origin_is_the_same),
        cmocka_unit_test(every_kind_of_value_arrives),
        cmocka_unit_test(names_of_durations_are_known_wherever_they_stand),
        cmocka_unit_test(merge_keys_give_way_to_a_mappings_own),
        cmocka_unit_test(the_environment_is_expanded_in_values_alone),
        cmocka_unit_test(a_dump_reads_back_as_itself_and_shows_no_secret),
        cmocka_unit_test(what_a_reload_cannot_change_is_said),
        cmocka_unit_test(what_needs_a_restart_stays_as_it_runs),
        cmocka_unit_test(ten_thousand_routes_load_in_moments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
