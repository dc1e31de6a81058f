/* The look-ups at start and reload: one run at a time, of the newest configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netdb.h>
#include <stdio.h>
#include <unistd.h>

#include "front/front.h"

/* ---- the C library's resolver, which answers when it is let --------------------------------- */

static atomic_int asked, inside, most, shut;
static char last[64];                   /* of the newest question */

int
getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
    struct addrinfo **list)
{
    int now = atomic_fetch_add(&inside, 1) + 1;

    (void)service;
    (void)hints;
    (void)list;
    if (now > atomic_load(&most))
        atomic_store(&most, now);
    if (now == 1)
        snprintf(last, sizeof last, "%s", host);
    atomic_fetch_add(&asked, 1);
    while (atomic_load(&shut))
        usleep(1000);
    atomic_fetch_sub(&inside, 1);
    return EAI_AGAIN;
}

/* ---- configurations ------------------------------------------------------------------------- */

#define CONFS 20

static struct conf_url urls[CONFS];
static struct conf_origin origins[CONFS];
static struct conf confs[CONFS];
static char hosts[CONFS][32];

static void
confs_make(void)
{
    for (int i = 0; i < CONFS; i++) {
        snprintf(hosts[i], sizeof hosts[i], "host-%d.test", i);
        urls[i] = (struct conf_url){ .text = hosts[i], .host = hosts[i] };
        origins[i] = (struct conf_origin){ .id = "api", .servers = { &urls[i], 1 } };
        confs[i] = (struct conf){ .magic = CONF_MAGIC, .origins = &origins[i], .norigins = 1 };
        atomic_init(&confs[i].refs, 1);
    }
}

static int
held(void)
{
    int n = 0;

    for (int i = 0; i < CONFS; i++)
        n += atomic_load(&confs[i].refs) - 1;
    return n;
}

static void
eventually(atomic_int *what, int value)
{
    for (int i = 0; i < 5000 && atomic_load(what) != value; i++)
        usleep(1000);
    assert_int_equal(atomic_load(what), value);
}

static void
all_given_back(void)
{
    for (int i = 0; i < 5000 && held() > 0; i++)
        usleep(1000);
    assert_int_equal(held(), 0);
}

static void
reloads_while_a_name_server_is_silent_wait_as_one(void **state)
{
    (void)state;
    confs_make();
    atomic_store(&shut, 1);
    front_look_up(&confs[0]);
    eventually(&asked, 1);
    for (int i = 1; i < CONFS; i++)
        front_look_up(&confs[i]);
    for (int i = 0; i < 5000 && held() > 2; i++)
        usleep(1000);
    assert_int_equal(held(), 2);        /* the first, and the newest */
    assert_int_equal(atomic_load(&most), 1);
    atomic_store(&shut, 0);
    all_given_back();
    assert_int_equal(atomic_load(&asked), 2);
    assert_string_equal(last, "host-19.test");
    front_look_up(&confs[3]);           /* the run is over: another begins */
    all_given_back();
    assert_int_equal(atomic_load(&asked), 3);
    assert_string_equal(last, "host-3.test");
}

static void
what_is_left_of_an_outdated_configuration_is_not_looked_up(void **state)
{
    struct conf_url many[3] = { { .text = "a", .host = "a" }, { .text = "b", .host = "b" },
        { .text = "c", .host = "c" } };

    (void)state;
    confs_make();
    atomic_store(&asked, 0);
    origins[0].servers = (struct conf_urls){ many, 3 };
    atomic_store(&shut, 1);
    front_look_up(&confs[0]);
    eventually(&asked, 1);
    front_look_up(&confs[1]);
    atomic_store(&shut, 0);
    all_given_back();
    assert_int_equal(atomic_load(&asked), 2);
    assert_string_equal(last, "host-1.test");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reloads_while_a_name_server_is_silent_wait_as_one),
        cmocka_unit_test(what_is_left_of_an_outdated_configuration_is_not_looked_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
