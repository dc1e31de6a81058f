/*
 * The access log: forms, escaping, buffering, reopening, and a disk that is full.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "stats/stats.h"

static char path[64], moved[80];

static const struct stats_access record = {
    .wall_ms = 1763700000123, .client = { "192.0.2.1", 9 }, .method = { "GET", 3 },
    .target = { "/a\"b\\c\n", 7 }, .host = { "api.test", 8 }, .route = { "/a", 2 },
    .request_id = { "r1", 2 },
    .user_agent = { "curl/8 \"x\"", 10 }, .protocol = { "HTTP/1.1", 8 }, .status = 200,
    .outcome = OUTCOME_HIT,
    .us = 42,
    .bytes_out = 1024,
};

static int
setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/weir-access-%ld", (long)getpid());
    snprintf(moved, sizeof moved, "%s.1", path);
    return stats_init(NULL);
}

static int
teardown(void **state)
{
    (void)state;
    stats_fini();
    remove(path);
    remove(moved);
    return 0;
}

static size_t
content(const char *file, char *out, size_t cap)
{
    FILE *f = fopen(file, "r");
    size_t n = f != NULL ? fread(out, 1, cap - 1, f) : 0;

    out[n] = '\0';
    if (f != NULL)
        fclose(f);
    return n;
}

static void
json_lines_escape_what_clients_send(void **state)
{
    char text[2048];

    (void)state;
    assert_int_equal(stats_access_open(path, false, NULL), 0);
    stats_access(&record);
    assert_int_equal(content(path, text, sizeof text), 0);      /* buffered */
    stats_access_flush();
    content(path, text, sizeof text);
    assert_string_equal(text,
        "{\"time\":\"2025-11-21T04:40:00.123Z\",\"client\":\"192.0.2.1\",\"method\":\"GET\","
        "\"host\":\"api.test\",\"target\":\"/a\\\"b\\\\c\\u000a\","
        "\"protocol\":\"HTTP/1.1\",\"status\":200,"
        "\"outcome\":\"hit\",\"route\":\"/a\",\"duration_us\":42,\"bytes_in\":0,\"bytes_out\":1024,"
        "\"request_id\":\"r1\",\"user_agent\":\"curl/8 \\\"x\\\"\"}\n");
}

static void
combined_lines_cannot_be_forged(void **state)
{
    char text[2048];

    (void)state;
    assert_int_equal(stats_access_open(path, true, NULL), 0);
    stats_access(&record);
    stats_access_flush();
    content(path, text, sizeof text);
    assert_string_equal(text,
        "192.0.2.1 - - [21/Nov/2025:04:40:00 +0000] \"GET /a\\x22b\\x5cc\\x0a HTTP/1.1\" "
        "200 1024 \"-\" \"curl/8 \\x22x\\x22\"\n");
}

static void
reopening_starts_a_new_file_and_loses_nothing(void **state)
{
    char text[4096];

    (void)state;
    assert_int_equal(stats_access_open(path, true, NULL), 0);
    stats_access(&record);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(stats_access_reopen(NULL), 0);
    assert_true(content(moved, text, sizeof text) > 0);
    stats_access(&record);
    stats_access_flush();
    assert_true(content(path, text, sizeof text) > 0);
}

static void
a_file_that_cannot_be_opened_leaves_the_old_one(void **state)
{
    struct err e;
    char text[4096];

    (void)state;
    assert_int_equal(stats_access_open(path, true, NULL), 0);
    assert_int_equal(stats_access_open("/nonexistent/access.log", true, &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent/access.log"));
    assert_true(atomic_load(&stats_access_on));
    stats_access(&record);
    stats_access_flush();
    assert_true(content(path, text, sizeof text) > 0);
}

static void
a_full_disk_drops_whole_lines_and_counts_them(void **state)
{
    struct rlimit was, full;
    static char text[200000];
    size_t n, lines = 0;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(stats_access_open(path, false, NULL), 0);
    getrlimit(RLIMIT_FSIZE, &was);
    full = was;
    full.rlim_cur = 1000;               /* the kernel takes a part of the second write */
    setrlimit(RLIMIT_FSIZE, &full);
    for (int i = 0; i < 10; i++)
        stats_access(&record);
    stats_access_flush();
    setrlimit(RLIMIT_FSIZE, &was);
    n = content(path, text, sizeof text);
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_true(n > 0 && n <= 1000 && text[n - 1] == '\n');
    assert_int_equal(stats_counter(STATS_access_dropped), 10 - lines);
    stats_access(&record);
    stats_access_flush();
    assert_true(content(path, text, sizeof text) > n);
}

static void
a_device_that_is_full_harms_nobody(void **state)
{
    (void)state;
    assert_int_equal(stats_access_open("/dev/full", false, NULL), 0);
    for (int i = 0; i < 2000; i++)      /* over the buffer's size too */
        stats_access(&record);
    stats_access_flush();
    assert_int_equal(stats_counter(STATS_access_dropped), 2000);
}

static void
what_was_dropped_is_told_in_full_with_the_file_and_a_remedy(void **state)
{
    char said[4096], name[] = "/tmp/weir-losses-XXXXXX";
    int fd = mkstemp(name), was = dup(2);
    unsigned long long sum = 0;

    (void)state;
    assert_int_equal(stats_access_open("/dev/full", false, NULL), 0);
    dup2(fd, 2);
    for (int k = 0; k < 5; k++) {
        for (int i = 0; i < 2000; i++)
            stats_access(&record);
        stats_access_flush();
    }
    stats_access_open("off", false, NULL);
    dup2(was, 2);
    close(was);
    close(fd);
    content(name, said, sizeof said);
    unlink(name);
    for (const char *p = said; (p = strstr(p, "/dev/full: ")) != NULL; p++)
        sum += strtoull(p + strlen("/dev/full: "), NULL, 10);
    assert_int_equal(sum, 10000);
    assert_non_null(strstr(said, "No space left on device; make room"));
    assert_true(strchr(strchr(said, '\n') + 1, '\n')[1] == '\0');      /* two lines */
}

static void *
write_lines(void *arg)
{
    (void)arg;
    for (int i = 0; i < 5000; i++)
        stats_access(&record);
    return NULL;
}

static void
threads_write_whole_lines(void **state)
{
    static char line[4096];
    pthread_t t[4];
    size_t lines = 0;
    FILE *f;

    (void)state;
    assert_int_equal(stats_access_open(path, true, NULL), 0);
    for (size_t i = 0; i < NELEM(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, write_lines, NULL), 0);
    for (int i = 0; i < 20; i++)
        stats_access_reopen(NULL);
    for (size_t i = 0; i < NELEM(t); i++)
        pthread_join(t[i], NULL);
    stats_access_flush();
    f = fopen(path, "r");
    while (fgets(line, sizeof line, f) != NULL) {
        assert_memory_equal(line, "192.0.2.1 - - [", 15);
        assert_non_null(strstr(line, "\"curl/8 \\x22x\\x22\"\n"));
        lines++;
    }
    fclose(f);
    assert_int_equal(lines, 20000);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(json_lines_escape_what_clients_send), T(combined_lines_cannot_be_forged),
        T(reopening_starts_a_new_file_and_loses_nothing),
        T(a_file_that_cannot_be_opened_leaves_the_old_one),
        T(a_full_disk_drops_whole_lines_and_counts_them), T(a_device_that_is_full_harms_nobody),
        T(what_was_dropped_is_told_in_full_with_the_file_and_a_remedy),
        T(threads_write_whole_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
