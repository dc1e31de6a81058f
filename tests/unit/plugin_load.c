/*
 * What is no plugin of ours is refused by name, and one library is loaded once.
 */
#include "plugin_kit.h"

#include <stdio.h>
#include <unistd.h>

/* A name for a file of the test's own. */
static const char *
here(const char *name)
{
    static char path[2][256];
    static unsigned which;

    which ^= 1;
    snprintf(path[which], sizeof path[which], TEST_PLUGINS "/%s-%d", name, (int)getpid());
    return path[which];
}

static void
refused(const char *file, const char *name, const char *why)
{
    struct err e = { .text = "" };

    assert_null(plugin_load(file, name, &e));
    if (strstr(e.text, why) == NULL)
        fail_msg("%s: %s", file, e.text);
}

static void
what_is_no_plugin_is_refused_and_says_why(void **state)
{
    FILE *f = fopen(here("text"), "w");

    (void)state;
    fputs("no shared object\n", f);
    fclose(f);
    refused(TABLE("missing"), NULL, "/missing.so cannot be loaded: No such file");
    refused(here("text"), NULL, " cannot be loaded: ");
    refused(TEST_PLUGINS, NULL, " cannot be loaded: ");
    refused(TABLE("none"), NULL, "none.so is no plugin: it exports no weir_plugin");
    refused(TABLE("abi"), NULL, "abi.so is of plugin ABI 2, and this is ABI 1");
    refused(TABLE("size"), NULL, "size.so is no whole plugin");
    refused(TABLE("name"), NULL, "name.so is no whole plugin");
    refused(TABLE("open"), NULL, "open.so is no whole plugin");
    unlink(here("text"));
}

static void
a_plugin_of_another_name_is_refused_before_and_after_it_was_loaded(void **state)
{
    struct err e;

    (void)state;
    refused(TABLE("options"), "other", "options.so is the plugin relay; the file of other");
    assert_non_null(plugin_load(TABLE("options"), "relay", &e));
    refused(TABLE("options"), "other", "options.so is the plugin relay; the file of other");
}

static void
a_library_is_loaded_once_by_whatever_name(void **state)
{
    const struct library *newest = libraries();
    struct err e;

    (void)state;
    assert_ptr_equal(plugin_load(TABLE("relay"), NULL, &e), relay_table);
    assert_ptr_equal(plugin_load(TEST_PLUGINS "/../plugins/relay.so", "relay", &e), relay_table);
    assert_int_equal(symlink(TABLE("relay"), here("symbolic")), 0);
    assert_ptr_equal(plugin_load(here("symbolic"), "relay", &e), relay_table);
    assert_int_equal(link(TABLE("relay"), here("hard")), 0);
    refused(here("hard"), "other", "is the plugin relay; the file of other");
    assert_ptr_equal(plugin_load(here("hard"), "relay", &e), relay_table);
    assert_ptr_equal(libraries(), newest);
    unlink(here("symbolic"));
    unlink(here("hard"));
}

static void
heard(void *arg, const struct plugin_complaint *c)
{
    snprintf(arg, 100, "%s: %s", c->option != NULL ? c->option : "(all)", c->text);
}

static void
one_that_does_not_open_may_say_why_and_leaves_nothing_open(void **state)
{
    struct plugin_use use = { .plugin = NULL };
    char said[100] = "";
    struct plugin *p;

    (void)state;
    relay->opened = relay->closed = 0;
    relay->open_wrong = "word";
    assert_null(plugin_open(relay_table, NULL, false, 1000, heard, said));
    assert_string_equal(said, "word: is wrong; a right one");
    relay->open_wrong = "";
    assert_null(plugin_open(relay_table, NULL, false, 1000, heard, said));
    assert_string_equal(said, "(all): is wrong; a right one");
    relay->open_wrong = NULL;
    p = plugin_open(relay_table, NULL, false, 1000, no_complaint, NULL);
    assert_non_null(p);
    relay->route_wrong = "must";
    assert_int_equal(plugin_use_open(p, "/a", NULL, &use, heard, said), -1);
    assert_string_equal(said, "must: is wrong here");
    assert_null(use.plugin);
    relay->route_wrong = NULL;
    plugin_close(&p);
    assert_null(p);
    assert_int_equal(relay->opened, 1);
    assert_int_equal(relay->closed, 1);
    plugin_close(&p);                   /* NULL is fine */
}

static void
complaints_and_figures_are_made_while_it_opens_alone(void **state)
{
    struct plugin *p;

    (void)state;
    p = plugin_open(relay_table, NULL, false, 1000, no_complaint, NULL);
    relay->host->complain(relay->self, NULL, "too late");       /* nobody listens any more */
    assert_null(relay->host->counter(relay->self, "relay_calls", "Calls."));
    assert_null(relay->host->timer(relay->self, "relay_calls", "Calls."));
    relay->host->count(NULL, 1);
    relay->host->observe(NULL, 1);
    plugin_close(&p);
}

static void
figures_are_known_by_their_names(void **state)
{
    struct weir_counter *c = figures_counter("relay_calls", "Calls.");

    (void)state;
    assert_non_null(c);
    assert_ptr_equal(figures_counter("relay_calls", NULL), c);
    assert_ptr_not_equal(figures_counter("relay_more", NULL), c);
    assert_null(figures_counter("relay calls", "A space."));
    assert_null(figures_counter("", "No name."));
    assert_null(figures_counter(NULL, "No name."));
    assert_non_null(figures_timer("relay_nap", "Naps."));
    assert_ptr_equal(figures_timer("relay_nap", NULL), figures_timer("relay_nap", "Naps."));
    assert_null(figures_timer("relay{nap}", "Braces."));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_plugin_is_refused_and_says_why),
        cmocka_unit_test(a_plugin_of_another_name_is_refused_before_and_after_it_was_loaded),
        cmocka_unit_test(a_library_is_loaded_once_by_whatever_name),
        cmocka_unit_test(one_that_does_not_open_may_say_why_and_leaves_nothing_open),
        cmocka_unit_test(complaints_and_figures_are_made_while_it_opens_alone),
        cmocka_unit_test(figures_are_known_by_their_names),
    };

    return cmocka_run_group_tests(tests, load_relay, NULL);
}
