/*
 * Options of plugins: judged by their own tables as ours are, and handed over as the ABI has them.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dlfcn.h>

#include "config/config.h"
#include "tests/plugin/relay.h"

#define ORIGIN "origins: {api: {servers: [http://127.0.0.1:8000]}}\n"
#define RELAY  "plugins: [{name: relay, file: " TEST_PLUGINS "/relay.so"
#define OPTIONS(o)  ORIGIN RELAY ", options: {" o "}}]\n"
#define ON_ROUTE(o) ORIGIN RELAY "}]\nroutes: [{path: /**, plugins: {relay: " o "}}]\n"
#define RIGHT  "word: two, rate: 20/s, loud: false, size: 64KiB, text: s3cret"

static struct relay *relay;

static struct conf *
parse(const char *yaml, char **report)
{
    struct config_report r = { 0 };
    struct conf *c = config_parse(yaml, strlen(yaml), "f", NULL, &r);
    size_t size = 0;
    FILE *f = open_memstream(report, &size);

    config_report_print(&r, "f", f);
    fclose(f);
    config_report_free(&r);
    return c;
}

static void
refused(const char *yaml, const char *why)
{
    char *report = NULL;
    struct conf *c = parse(yaml, &report);

    if (strcmp(report, why) != 0)
        print_error("%s", yaml);
    assert_string_equal(report, why);
    assert_null(c);
    free(report);
}

static struct conf *
taken(const char *yaml)
{
    char *report = NULL;
    struct conf *c = parse(yaml, &report);

    assert_string_equal(report, "");
    assert_non_null(c);
    free(report);
    return c;
}

enum { COUNT_, SIZE_, WAIT_, RATE_, LOUD_, TEXT_, FILE_, WORD_, LIST_ };

static void
defaults_are_handed_over_in_the_order_of_the_table(void **state)
{
    struct conf *c = taken(ORIGIN RELAY "}]\n");
    const struct weir_value *v = relay->values;

    (void)state;
    for (unsigned i = COUNT_; i <= LIST_; i++) {
        assert_int_equal(v[i].given, 0);
        assert_int_equal(v[i].set, i != SIZE_ && i != TEXT_ && i != FILE_);
    }
    assert_int_equal(v[COUNT_].number, 3);
    assert_int_equal(v[SIZE_].number, 0);
    assert_int_equal(v[WAIT_].number, 50);
    assert_int_equal(v[RATE_].number, 100000);      /* microseconds for each */
    assert_int_equal(v[LOUD_].number, 1);
    assert_null(v[TEXT_].text.p);
    assert_string_equal(v[WORD_].text.p, "one");
    assert_int_equal(v[LIST_].ntexts, 2);
    assert_string_equal(v[LIST_].texts[1].p, "b");
    conf_unref(&c);
}

static void
what_a_person_writes_is_handed_over(void **state)
{
    struct conf *c = taken(OPTIONS("count: 10, wait: 1m, file: /f, list: [x], " RIGHT));
    const struct weir_value *v = relay->values;

    (void)state;
    for (unsigned i = COUNT_; i <= LIST_; i++)
        assert_true(v[i].given && v[i].set);
    assert_int_equal(v[COUNT_].number, 10);
    assert_int_equal(v[SIZE_].number, 65536);
    assert_int_equal(v[WAIT_].number, 60000);
    assert_int_equal(v[RATE_].number, 50000);
    assert_int_equal(v[LOUD_].number, 0);
    assert_int_equal(v[TEXT_].text.n, 6);
    assert_string_equal(v[FILE_].text.p, "/f");
    assert_string_equal(v[WORD_].text.p, "two");
    assert_int_equal(v[LIST_].ntexts, 1);
    conf_unref(&c);
    c = taken(OPTIONS("list: []"));
    assert_int_equal(relay->values[LIST_].ntexts, 0);
    conf_unref(&c);
}

static void
limits_words_and_names_are_judged_at_their_place(void **state)
{
    size_t before = strlen(RELAY ", options: {");
    static const struct { const char *options; int at; const char *why; } samples[] = {
        { "count: 11", 7, "count: \"11\" is too large; a whole number, within 1..10" },
        { "count: some", 7, "count: \"some\" is not understood; a whole number, within 1..10" },
        { "size: 2MiB", 6, "size: \"2MiB\" is too large; a size such as 64KiB, 256MiB, 1GiB, within "
            "1KiB..1MiB" },
        { "wait: long", 6, "wait: \"long\" is not understood; a duration such as 50ms, 30s, 5m, "
            "2h, 1d" },
        { "word: three", 6, "word: \"three\" is not known; one of one, two" },
        { "loud: loudly", 6, "loud: \"loudly\" is not known; true or false" },
        { "wrod: one", 0, "wrod: unknown key; did you mean word" },
        { "count: {a: 1}", 7, "count: a mapping; a whole number, within 1..10" },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(samples); i++) {
        char yaml[1000], why[400];

        snprintf(yaml, sizeof yaml, ORIGIN RELAY ", options: {%s}}]\n", samples[i].options);
        snprintf(why, sizeof why, "f:2:%zu: plugins[0].options.%s\n",
            before + 1 + (size_t)samples[i].at, samples[i].why);
        refused(yaml, why);
    }
}

static void
a_table_that_is_malformed_is_the_plugins_fault(void **state)
{
    (void)state;
    refused(ORIGIN "plugins: [{name: relay, file: " TEST_PLUGINS "/options.so}]\n",
        "f:2:11: plugins[0].options: the plugin's table of options is malformed at \"a.b\"\n");
}

static void
what_the_plugin_finds_is_reported_at_the_option_that_it_names(void **state)
{
    char why[200];

    (void)state;
    relay->open_wrong = "word";
    snprintf(why, sizeof why, "f:2:%zu: plugins[0].options.word: is wrong; a right one\n",
        strlen(RELAY ", options: {word: ") + 1);
    refused(OPTIONS("word: two"), why);
    relay->open_wrong = "";
    snprintf(why, sizeof why, "f:2:%zu: plugins[0].options: plugin relay: is wrong; a right one\n",
        strlen(RELAY ", options: ") + 1);
    refused(OPTIONS("word: two"), why);
    relay->open_wrong = NULL;
    relay->route_wrong = "must";
    refused(ON_ROUTE("{must: a}"), "f:3:46: routes[0].plugins.relay.must: is wrong here\n");
    relay->route_wrong = NULL;
}

static void
a_route_has_its_own_options_and_says_what_is_missing(void **state)
{
    size_t closed = relay->closed, routes = relay->routes;
    struct conf *c = taken(ON_ROUTE("{must: a}"));
    char why[200];

    (void)state;
    assert_string_equal(relay->route_values[0].text.p, "a");
    assert_int_equal(relay->routes, routes + 1);
    conf_unref(&c);
    assert_int_equal(relay->routes, routes);
    assert_int_equal(relay->closed, closed + 1);
    refused(ON_ROUTE("true"), "f:3:10: routes[0].plugins.relay.must: missing; text\n");
    refused(ORIGIN RELAY "}]\nroutes: [{path: /**, plugins: {rely: {must: a}}}]\n",
        "f:3:32: routes[0].plugins.rely: no plugin of that name, did you mean relay; one of the "
        "top-level `plugins`\n");
    snprintf(why, sizeof why, "f:2:%zu: plugins[1]: relay is there already; each plugin once\n",
        strlen(RELAY "}, ") + 1);
    refused(ORIGIN RELAY "}, relay]\n", why);
}

static void
a_secret_is_not_written_out(void **state)
{
    struct conf *c = taken(OPTIONS(RIGHT));
    struct buf b = { 0 };

    (void)state;
    config_dump(c, &b);
    buf_addc(&b, '\0');
    assert_null(strstr(b.p, "s3cret"));
    assert_non_null(strstr(b.p, "text: \"(hidden)\""));
    assert_non_null(strstr(b.p, "word: \"two\""));
    buf_free(&b);
    conf_unref(&c);
}

/* The library stays loaded: what is found in it now is what the configurations meet. */
static int
start(void **state)
{
    void *handle = dlopen(TEST_PLUGINS "/relay.so", RTLD_NOW | RTLD_NODELETE);

    (void)state;
    if (handle == NULL)
        return -1;
    relay = dlsym(handle, "relay");
    dlclose(handle);
    return relay != NULL ? 0 : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_handed_over_in_the_order_of_the_table),
        cmocka_unit_test(what_a_person_writes_is_handed_over),
        cmocka_unit_test(limits_words_and_names_are_judged_at_their_place),
        cmocka_unit_test(a_table_that_is_malformed_is_the_plugins_fault),
        cmocka_unit_test(what_the_plugin_finds_is_reported_at_the_option_that_it_names),
        cmocka_unit_test(a_route_has_its_own_options_and_says_what_is_missing),
        cmocka_unit_test(a_secret_is_not_written_out),
    };

    return cmocka_run_group_tests(tests, start, NULL);
}
