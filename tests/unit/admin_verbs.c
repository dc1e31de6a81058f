/*
 * What the admin port does: purges, explanations; and the shell's side of it.
 */
#include "admin_kit.h"

/* A fresh 200 for http://api.test<path>, with a tag. */
static void
store_one(const char *path, const char *tag, const char *vary, const char *accept)
{
    const struct route *route = route_table_at(kit.table, 0);
    static const char bytes[] =
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"v1\"\r\nContent-Length: 5\r\n";
    struct http_field field = { SLICE("Accept"), slice_of(accept), HF_ACCEPT };
    struct http_head request = { .method = HTTP_GET, .cap = 1, .fields = &field, .nfields = 1 };
    struct slice tags[] = { slice_of(tag) };
    struct buf key = { 0 }, variant = { 0 };
    struct store_parts p = { 0 };
    struct key k;

    request.have[HF_ACCEPT >> 6] |= UINT64_C(1) << (HF_ACCEPT & 63);
    assert_int_equal(key_make(route->recipe, &request, false, SLICE("api.test"), slice_of(path),
        (struct slice){ NULL, 0 }, &key, &k), 0);
    if (vary[0] != '\0')
        sem_variant(slice_of(vary), &request, &variant);
    p.key = &k;
    p.vary = slice_of(vary);
    p.variant = buf_slice(&variant);
    p.head = (struct slice){ bytes, sizeof bytes - 1 };
    p.status_n = 17;
    p.body = body_new(5);
    assert_int_equal(body_append(p.body, SLICE("12345")), 0);
    body_seal(p.body);
    p.meta = (struct sem_meta){ .response_ms = wall_ms(), .date_ms = wall_ms(),
        .lifetime_ms = 60000, .last_modified_s = HTTP_NO_DATE, .swr_s = -1, .sie_s = -1,
        .status = 200, .flags = META_EXPLICIT };
    p.stamp = store_stamp(kit.store);
    p.route_id = route->id;
    p.tags = tags;
    p.ntags = 1;
    assert_int_equal(store_put(kit.store, &p, NULL), STORE_STORED);
    body_unref(&p.body);
    buf_free(&key);
    buf_free(&variant);
}

static uint64_t
purgeable(const char *tag)
{
    struct store_purge p = { .kind = STORE_PURGE_TAG, .text = slice_of(tag) };

    return store_purge_count(kit.store, &p);
}

static char *
purge(const char *body)
{
    static char text[4096];

    snprintf(text, sizeof text,
        "POST /purge HTTP/1.1\r\n" HOST LAST "Content-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    return kit_talk(text);
}

static void
a_purge_says_what_it_removed(void **state)
{
    char *a;

    (void)state;
    store_one("/a", "red", "", "");
    store_one("/b", "red", "", "");
    store_one("/c", "blue", "", "");
    a = purge("{\"tags\": [\"red\", \"green\"], \"dry_run\": true}");
    assert_int_equal(kit_status(a), 200);
    assert_non_null(strstr(a, "\"dry_run\": true, \"objects\": 2"));
    assert_int_equal(purgeable("red"), 2);
    a = purge("{\"tags\": [\"red\", \"green\"], \"url\": \"http://api.test/c\"}");
    assert_int_equal(kit_status(a), 200);
    assert_non_null(strstr(a, "{\"tag\": \"green\", \"exact\": "));
    assert_int_equal(purgeable("red"), 0);
    assert_int_equal(purgeable("blue"), 0);
}

static void
what_is_not_understood_is_listed_and_nothing_is_purged(void **state)
{
    char *a;

    (void)state;
    store_one("/a", "red", "", "");
    a = purge("{\"tags\": \"red\", \"flocks\": [\"x\"], \"route\": [\"no-such\"], "
        "\"url\": \"nonsense\", \"soft\": 1}");
    assert_int_equal(kit_status(a), 400);
    assert_non_null(strstr(a, "application/problem+json"));
    assert_non_null(strstr(a, "{\"item\": \"flocks\""));
    assert_non_null(strstr(a, "{\"item\": \"no-such\""));
    assert_non_null(strstr(a, "{\"item\": \"nonsense\""));
    assert_non_null(strstr(a, "{\"item\": \"soft\""));
    assert_int_equal(purgeable("red"), 1);
}

static void
a_body_that_is_no_purge_is_a_400(void **state)
{
    static const char *const bodies[] = { "", "{", "[]", "null", "{}", "{\"all\": false}",
        "{\"all\": \"yes\"}", "{\"tags\": []}", "{\"tags\": [\"\"]}", "{\"tags\": [1]}",
        "{\"tags\": \"a\", \"tags\": \"b\"}",
        "{\"tags\": \"\\u0000\"}", "{\"tags\": \"\xff\"}", "{\"tags\": \"a\"} x", "tags=a" };
    char deep[4000] = "";

    (void)state;
    for (size_t i = 0; i < NELEM(bodies); i++) {
        char *a = purge(bodies[i]);

        if (kit_status(a) != 400 || strstr(a, "application/problem+json") == NULL)
            fail_msg("%s gave %s", bodies[i], a);
    }
    memset(deep, '[', sizeof deep - 100);
    assert_int_equal(kit_status(purge(deep)), 400);
}

static void
all_is_everything_and_soft_keeps_it_as_stale(void **state)
{
    char *a;

    (void)state;
    store_one("/a", "red", "", "");
    assert_int_equal(kit_status(purge("{\"tags\": \"red\", \"soft\": true}")), 200);
    a = kit_talk(ASK("GET /explain?url=http%3A%2F%2Fapi.test%2Fa", ""));
    assert_non_null(strstr(a, "\"answer\": \"hit\""));
    assert_non_null(strstr(a, "\"soft_purged\": true"));
    assert_non_null(strstr(a, "\"fresh\": false"));
    assert_int_equal(kit_status(purge("{\"all\": true}")), 200);
    a = kit_talk(ASK("GET /explain?url=http://api.test/a", ""));
    assert_non_null(strstr(a, "\"answer\": \"uri-miss\""));
}

static void
an_explanation_tells_route_key_and_each_variant(void **state)
{
    char *a;

    (void)state;
    store_one("/v", "t", "accept", "text/html");
    store_one("/v", "t", "accept", "application/json");
    a = kit_expect(ASK("GET /explain?url=http://API.test:80/%76&header=Accept:+text/html", ""),
        200);
    assert_non_null(strstr(a,
        "\"route\": {\"name\": \"/**\", \"path\": \"/**\", \"policy\": \"cache-aside\", "
        "\"origin\": \"api\""));
    assert_non_null(strstr(a, "\"key\": \"http://api.test/v\""));
    assert_non_null(strstr(a, "\"answer\": \"hit\""));
    assert_non_null(strstr(a, "{\"selected\": true, \"status\": 200"));
    assert_non_null(strstr(a, "{\"selected\": false, \"status\": 200"));
    assert_non_null(strstr(a, "\"lifetime_s\": 60.000"));
    assert_non_null(strstr(a, "\"fresh\": true, \"use\": \"fresh\", \"why\": null"));
    assert_non_null(strstr(a,
        "\"fields\": {\"Cache-Control\": \"max-age=60\", \"ETag\": \"\\\"v1\\\"\"}"));
    a = kit_talk("GET /explain?url=http://api.test/v&header=Accept:x&"
        "header=Cache-Control:%20no-store HTTP/1.1\r\n"
        HOST LAST "\r\n");
    assert_non_null(strstr(a, "\"answer\": \"vary-miss\""));
    assert_non_null(strstr(a, "\"request\": {\"cacheable\": false, \"why\": \""));
}

static void
an_explanation_of_nonsense_is_a_400(void **state)
{
    static const char *const queries[] = { "", "?", "?url=", "?url=/a", "?url=ftp://x/",
        "?url=http://x/&header=a", "?url=http://x/&header=a%0d%0ab:c", "?url=http://x/%00",
        "?url=http://x/&header=A:b%0D%0A%0D%0AGET",
        "?url=http://x/%20HTTP/1.1", "?what=x" };

    (void)state;
    for (size_t i = 0; i < NELEM(queries); i++) {
        char text[256], *a;

        snprintf(text, sizeof text, ASK("GET /explain%s", ""), queries[i]);
        a = kit_talk(text);
        if (kit_status(a) != 400)
            fail_msg("%s gave %s", queries[i], a);
    }
}

/* Runs the shell's side; its exit code, with what it printed to both streams in out. */
static int
shell(char *out, size_t cap, const char *admin, char **args)
{
    char *argv[20], path[] = "/tmp/weir-test-XXXXXX";
    int argc = 0, rc, fd = mkstemp(path), was1 = dup(1), was2 = dup(2);
    ssize_t n;

    while (args[argc] != NULL) {
        argv[argc] = args[argc];
        argc++;
    }
    argv[argc++] = (char *)"--admin";
    argv[argc++] = (char *)admin;
    argv[argc] = NULL;
    fflush(NULL);
    dup2(fd, 1);
    dup2(fd, 2);
    rc = admin_client(argc, argv);
    fflush(NULL);
    dup2(was1, 1);
    dup2(was2, 2);
    close(was1);
    close(was2);
    n = pread(fd, out, cap - 1, 0);
    out[n > 0 ? n : 0] = '\0';
    close(fd);
    remove(path);
    return rc;
}

#define ARGS(...) (char *[]){ __VA_ARGS__, NULL }

static void
the_shell_purges_explains_reloads_and_shows_figures(void **state)
{
    char out[65536], at[64];

    (void)state;
    snprintf(at, sizeof at, "http://127.0.0.1:%u", kit.port);
    store_one("/a", "it's \"red\"", "", "");
    assert_int_equal(shell(out, sizeof out, at,
        ARGS("purge", "--tag", "it's \"red\"", "--tag", "x", "--dry-run")), 0);
    assert_non_null(strstr(out, "\"objects\": 1"));
    assert_int_equal(shell(out, sizeof out, at,
        ARGS("explain", "http://api.test/a", "-H", "Accept: a/b", "--json")), 0);
    assert_non_null(strstr(out, "\"answer\": \"hit\""));
    assert_int_equal(shell(out, sizeof out, at, ARGS("explain", "http://api.test/a")), 0);
    assert_non_null(strstr(out, "\nhit: answered from the cache\n"));
    assert_int_equal(shell(out, sizeof out, at,
        ARGS("purge", "--url", "http://api.test/a", "--soft")), 0);
    assert_int_equal(shell(out, sizeof out, at, ARGS("purge", "--all")), 0);
    assert_int_equal(shell(out, sizeof out, at, ARGS("explain", "http://api.test/a")), 0);
    assert_non_null(strstr(out, "\nmiss: "));
    assert_int_equal(shell(out, sizeof out, at, ARGS("reload")), 0);
    assert_int_equal(kit.reloads, 1);
    kit.refuse_reload = true;
    assert_int_equal(shell(out, sizeof out, at, ARGS("reload")), 1);
    assert_non_null(strstr(out, "weir.yaml:3:1"));
    stats_request(stats_route_slot("/**"), OUTCOME_HIT, 1234, 10);
    stats_request(stats_route_slot("/**"), OUTCOME_MISS, 50000, 10);
    stats_origin(stats_origin_slot("api/http://o:1"), ORIGIN_TOTAL, 49000);
    stats_tick(now_us());
    assert_int_equal(shell(out, sizeof out, at, ARGS("stats")), 0);
    assert_non_null(strstr(out, "/**"));
    assert_non_null(strstr(out, "hits 50.0 %"));
    assert_non_null(strstr(out, "1.23"));
    assert_non_null(strstr(out, "api/http://o:1"));
}

static void
the_shell_says_what_to_do_about_its_failures(void **state)
{
    char out[65536], at[64];

    (void)state;
    snprintf(at, sizeof at, "http://127.0.0.1:%u", kit.port);
    assert_int_equal(shell(out, sizeof out, at, ARGS("stats")), 1);
    assert_non_null(strstr(out, "--token-file"));
    assert_int_equal(shell(out, sizeof out, "http://127.0.0.1:1", ARGS("stats")), 1);
    assert_non_null(strstr(out, "http://127.0.0.1:1: Connection refused"));
    assert_non_null(strstr(out, "admin.listen"));
    assert_int_equal(shell(out, sizeof out, "nonsense", ARGS("stats")), 1);
    assert_int_equal(shell(out, sizeof out, at, ARGS("purge")), 2);
    assert_int_equal(shell(out, sizeof out, at, ARGS("explain")), 2);
    assert_int_equal(shell(out, sizeof out, at, ARGS("stats", "--token-file", "/nonexistent")), 1);
    assert_non_null(strstr(out, "/nonexistent"));
}

static int
open_with_token(void **state)
{
    (void)state;
    return kit_start("secret");
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, kit_open, kit_stop)
    const struct CMUnitTest tests[] = {
        T(a_purge_says_what_it_removed), T(what_is_not_understood_is_listed_and_nothing_is_purged),
        T(a_body_that_is_no_purge_is_a_400), T(all_is_everything_and_soft_keeps_it_as_stale),
        T(an_explanation_tells_route_key_and_each_variant), T(an_explanation_of_nonsense_is_a_400),
        T(the_shell_purges_explains_reloads_and_shows_figures),
        cmocka_unit_test_setup_teardown(the_shell_says_what_to_do_about_its_failures,
            open_with_token, kit_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
