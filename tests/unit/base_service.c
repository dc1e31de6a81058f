/* The service manager, played by the test: what it is told, and which of its sockets are taken. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"

#define NAME "@weir-unit-service-%d"

static int manager = -1;

static int
setup(void **state)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    char name[64];
    int n = snprintf(name, sizeof name, NAME, (int)getpid());

    (void)state;
    memcpy(at.sun_path + 1, name + 1, (size_t)n - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager, (struct sockaddr *)&at,
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    close(manager);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    return 0;
}

/* The next datagram; "" when there is none. */
static const char *
told(void)
{
    static char text[600];
    ssize_t n = recv(manager, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void
what_is_told_arrives_as_one_datagram(void **state)
{
    (void)state;
    service_notify("READY=1\nSTATUS=%s", "serving");
    assert_string_equal(told(), "READY=1\nSTATUS=serving");
    assert_string_equal(told(), "");
}

static void
without_a_manager_nothing_is_told(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    service_notify("READY=1");
    setenv("NOTIFY_SOCKET", "no path", 1);
    service_notify("READY=1");
    assert_string_equal(told(), "");
}

static void
the_watchdog_is_fed_while_every_loop_answers_and_not_otherwise(void **state)
{
    struct err e;
    struct loop *loops[2] = { loop_new(0, &e), loop_new(1, &e) };
    struct watchdog *w;

    (void)state;
    setenv("WATCHDOG_USEC", "4", 1);
    w = watchdog_new(loops, 2);
    assert_non_null(w);
    watchdog_tick(w);
    assert_string_equal(told(), "WATCHDOG=1");      /* and both are asked */
    usleep(10);
    watchdog_tick(w);
    assert_string_equal(told(), "");
    loop_stop(loops[0]);
    loop_run(loops[0]);
    watchdog_tick(w);
    assert_string_equal(told(), "");                /* the other one hangs */
    loop_stop(loops[1]);
    loop_run(loops[1]);
    watchdog_tick(w);
    assert_string_equal(told(), "WATCHDOG=1");
    loop_stop(loops[0]);
    loop_run(loops[0]);
    watchdog_only(w, 1);
    watchdog_tick(w);
    assert_string_equal(told(), "WATCHDOG=1");      /* the other one is not run any more */
    watchdog_only(NULL, 1);
    loop_free(&loops[0]);
    loop_free(&loops[1]);
    watchdog_free(&w);
}

static void
a_watchdog_that_is_not_asked_for_or_another_process_s_is_none(void **state)
{
    char pid[32];
    struct watchdog *w;

    (void)state;
    assert_null(watchdog_new(NULL, 0));
    setenv("WATCHDOG_USEC", "0", 1);
    assert_null(watchdog_new(NULL, 0));
    setenv("WATCHDOG_USEC", "1000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    assert_null(watchdog_new(NULL, 0));
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    w = watchdog_new(NULL, 0);
    assert_non_null(w);
    watchdog_free(&w);
    watchdog_tick(NULL);
}

/* Puts a listening socket of family at descriptor `fd`; its address. */
static struct sockaddr_storage
listen_at(int fd, int family, bool listening)
{
    struct sockaddr_storage at = { .ss_family = (sa_family_t)family };
    struct sockaddr_in *v4 = (void *)&at;
    struct sockaddr_in6 *v6 = (void *)&at;
    socklen_t n = family == AF_INET ? sizeof *v4 : sizeof *v6;
    int s = socket(family, SOCK_STREAM, 0);

    if (family == AF_INET)
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        v6->sin6_addr = in6addr_loopback;
    assert_int_equal(bind(s, (struct sockaddr *)&at, n), 0);
    if (listening)
        assert_int_equal(listen(s, 1), 0);
    assert_int_equal(getsockname(s, (struct sockaddr *)&at, &n), 0);
    if (s != fd) {
        assert_int_equal(dup2(s, fd), fd);
        close(s);
    }
    return at;
}

static bool
has_ipv6(void)
{
    struct sockaddr_in6 at = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int s = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = s != -1 && bind(s, (struct sockaddr *)&at, sizeof at) == 0;

    if (s != -1)
        close(s);
    return has;
}

static void
sockets_are_taken_by_address_once_and_none_is_forgotten(void **state)
{
    struct sockaddr_storage one, two;
    char pid[32];
    struct err e;

    (void)state;
    close(manager);                     /* descriptors from 3 on are the manager's */
    one = listen_at(3, AF_INET, true);
    two = listen_at(4, has_ipv6() ? AF_INET6 : AF_INET, true);
    listen_at(5, AF_INET, false);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_FDS", "3", 1);
    setenv("LISTEN_PID", "1", 1);
    assert_int_equal(service_socket((struct sockaddr *)&one), -1);  /* somebody else's */
    assert_int_equal(service_sockets_taken(&e), 0);
    setenv("LISTEN_PID", pid, 1);
    assert_int_equal(service_socket((struct sockaddr *)&two), 4);
    assert_true(fcntl(4, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(4, F_GETFL) & O_NONBLOCK);
    assert_int_equal(service_socket((struct sockaddr *)&two), -1);
    assert_int_equal(service_sockets_taken(&e), -1);
    assert_non_null(strstr(e.text, "listens on 127.0.0.1:"));
    assert_int_equal(service_socket((struct sockaddr *)&one), 3);
    assert_int_equal(service_sockets_taken(&e), -1);
    assert_string_equal(e.text, "socket 5 of the service manager does not listen on TCP");
    setenv("LISTEN_FDS", "2", 1);
    assert_int_equal(service_sockets_taken(&e), 0);
    for (int fd = 3; fd <= 5; fd++)
        close(fd);
    manager = -1;
}

static void
a_process_that_takes_over_has_the_sockets_of_the_other_and_is_watched_as_it_was(void **state)
{
    struct sockaddr_storage one, two, three;
    struct loop *none = NULL;
    struct watchdog *w;
    struct err e;

    (void)state;
    close(manager);
    manager = -1;
    setenv("LISTEN_FDS", "1", 1);       /* left by the other, as is the next */
    setenv("LISTEN_PID", "1", 1);
    setenv("WATCHDOG_USEC", "1000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    one = listen_at(20, AF_INET, true);
    two = listen_at(22, AF_INET, true);
    three = listen_at(24, AF_INET, true);
    assert_int_equal(service_inherit(SLICE("20 x"), &e), -1);
    assert_int_equal(service_inherit(SLICE("20 22"), &e), 0);
    assert_int_equal(service_socket((struct sockaddr *)&three), -1);
    assert_int_equal(service_socket((struct sockaddr *)&two), 22);
    assert_true(fcntl(22, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(service_sockets_taken(&e), -1);
    assert_non_null(strstr(e.text, "the process that runs listens on 127.0.0.1:"));
    assert_int_equal(service_socket((struct sockaddr *)&one), 20);
    assert_int_equal(service_sockets_taken(&e), 0);
    w = watchdog_new(&none, 0);
    assert_non_null(w);
    watchdog_free(&w);
    for (int fd = 20; fd <= 24; fd += 2)
        close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_told_arrives_as_one_datagram, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_manager_nothing_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(
            the_watchdog_is_fed_while_every_loop_answers_and_not_otherwise, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_watchdog_that_is_not_asked_for_or_another_process_s_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(
            sockets_are_taken_by_address_once_and_none_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(    /* the last: there is no way back */
            a_process_that_takes_over_has_the_sockets_of_the_other_and_is_watched_as_it_was,
            setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
