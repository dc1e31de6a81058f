/*
 * The disk tier when something ends before its time: the process, the machine, the disk.
 *
 * A child is this program anew (exec: a fork would leave RCU's threads behind), told by its
 * arguments what to do and where.
 */
#include "tier_kit.h"

#include <sys/resource.h>

/* ---- children ------------------------------------------------------------------------------- */

static void
child_bench(struct bench *b, const char *dir)
{
    *b = (struct bench){ .size = 32 * MIB };
    snprintf(b->dir, sizeof b->dir, "%s", dir);
    bench_open(b);
}

static void
keep_numbered(struct bench *b, int i, size_t n)
{
    char key[64], tag[16];

    snprintf(key, sizeof key, "http://h/%d", i);
    snprintf(tag, sizeof tag, "t%d", i);
    KEEP(b, .key = key, .body_n = n, .tags = { tag });
}

/* Keeps a hundred, purges every third, and is killed at once. */
static void
child_purges(const char *dir)
{
    struct bench b;

    child_bench(&b, dir);
    for (int i = 0; i < 100; i++)
        keep_numbered(&b, i, 3000);
    settle(&b);
    for (int i = 0; i < 100; i += 3) {
        char tag[16];

        snprintf(tag, sizeof tag, "t%d", i);
        purge(b.s, STORE_PURGE_TAG, tag, false);
    }
    kill(getpid(), SIGKILL);
}

/* Keeps and purges without end; says in the file "said" how far its purges came. */
static void
child_churns(const char *dir)
{
    struct bench b;
    char path[128];
    int fd;

    child_bench(&b, dir);
    snprintf(path, sizeof path, "%s.said", dir);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    for (int i = 0;; i++) {
        char tag[16];

        keep_numbered(&b, i, (size_t)(i * 997 % 60000));
        snprintf(tag, sizeof tag, "t%d", i - 7);
        if (i % 4 == 0 && i >= 7) {
            purge(b.s, STORE_PURGE_TAG, tag, false);
            assert_int_equal(pwrite(fd, &i, sizeof i, 0), sizeof i);
        }
        if (i % 16 == 0)
            usleep(200);
    }
}

/* No file may grow beyond a little: writes fail as on a full disk. What was there is found again
 * when there is room. */
static void
child_full(const char *dir)
{
    struct rlimit limit = { 512 * 1024, RLIM_INFINITY };
    struct bench b;
    uint64_t drops;

    signal(SIGXFSZ, SIG_IGN);
    child_bench(&b, dir);
    KEEP(&b, .key = "http://h/first", .body = "first");
    KEEP(&b, .key = "http://h/purged", .body = "purged", .tags = { "gone" });
    settle(&b);
    setrlimit(RLIMIT_FSIZE, &limit);
    for (int i = 0; i < 400 && !figures(&b).failing; i++) {
        keep_numbered(&b, i, 20000);
        usleep(500);
    }
    assert_true(figures(&b).failing);
    while (figures(&b).queued_bytes > 0)
        usleep(500);
    drops = stats_counter(STATS_disk_drops);
    KEEP(&b, .key = "http://h/dropped", .body = "dropped");
    assert_int_equal(stats_counter(STATS_disk_drops), drops + 1);
    assert_int_equal(ask(&b, "http://h/purged"), FOUND);
    purge(b.s, STORE_PURGE_TAG, "gone", false);
    assert_int_not_equal(ask(&b, "http://h/purged"), FOUND);
    assert_int_equal(get(b.s, "http://h/purged"), STORE_MISS);
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &limit);
    while (figures(&b).failing)
        usleep(1000);
    assert_int_equal(ask(&b, "http://h/first"), FOUND);
    KEEP(&b, .key = "http://h/after", .body = "after");
    settle(&b);
    bench_close(&b);
}

static const struct { const char *name; void (*run)(const char *dir); } children[] = {
    { "purges", child_purges }, { "churns", child_churns }, { "full", child_full },
};

static pid_t
child(const struct bench *b, const char *name)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl("/proc/self/exe", "tier_crash", name, b->dir, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int
ended(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static int
fresh(void **state)
{
    struct bench *b = malloc(sizeof *b);

    bench_make(b, 32 * MIB);
    *state = b;
    return 0;
}

#define FRESH(f) cmocka_unit_test_setup_teardown(f, fresh, teardown)

/* ---- the process ends ----------------------------------------------------------------------- */

static void
what_was_purged_before_a_kill_does_not_come_back(void **state)
{
    struct bench *b = *state;

    for (int round = 0; round < 5; round++) {
        int status = ended(child(b, "purges"));

        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        bench_open(b);
        settle(b);
        for (int i = 0; i < 100; i++) {
            char key[64];

            snprintf(key, sizeof key, "http://h/%d", i);
            assert_int_equal(ask(b, key) == FOUND, i % 3 != 0);
        }
        bench_close(b);
    }
}

/* What was kept has the bytes that it had; what the child said it purged is not there. */
static void
inspect(struct bench *b, int said)
{
    for (int i = 0; i < said + 100; i++) {
        char key[64];
        bool gone = i + 7 <= said && (i + 7) % 4 == 0;
        struct test_key k;
        struct test_request rq;
        struct object *o = NULL;
        bool soft;

        snprintf(key, sizeof key, "http://h/%d", i);
        if (ask(b, key) != FOUND)
            continue;
        if (gone)
            fail_msg("%s came back, purges were done up to %d", key, said);
        rcu_begin();
        if (store_get(b->s, key_fill(&k, key), request_fill(&rq, NULL), 0, &o, &soft) == STORE_HIT)
            assert_int_equal(body_size(o->body), i * 997 % 60000);
        rcu_end();
    }
}

static void
killed_at_any_moment_it_opens_with_nothing_wrong_in_it(void **state)
{
    struct bench *b = *state;
    char path[128];

    snprintf(path, sizeof path, "%s.said", b->dir);
    for (int round = 0; round < 12; round++) {
        uint64_t bad = stats_counter(STATS_disk_bad), failures = stats_counter(STATS_disk_failures);
        pid_t pid = child(b, "churns");
        int fd, said = 0;

        usleep(20000 + (useconds_t)(random_fast() % 150000));
        kill(pid, SIGKILL);
        ended(pid);
        if ((fd = open(path, O_RDONLY)) != -1) {
            if (pread(fd, &said, sizeof said, 0) != sizeof said)
                said = 0;
            close(fd);
            unlink(path);
        }
        bench_open(b);
        settle(b);
        inspect(b, said);
        assert_int_equal(stats_counter(STATS_disk_bad), bad);
        assert_int_equal(stats_counter(STATS_disk_failures), failures);
        assert_int_equal(access(in_dir(b, "cache.db" FILE_ASIDE), F_OK), -1);
        bench_close(b);
    }
}

/* ---- the machine stops ---------------------------------------------------------------------- */

/* The file of purges says in which run of the machine it was opened, and whether it was closed. */
static void
patch(struct bench *b, const char *name, off_t at, const void *p, size_t n)
{
    int fd = open(in_dir(b, name), O_RDWR);

    assert_int_equal(pwrite(fd, p, n, at), n);
    close(fd);
}

#define AT_BOOT  16
#define AT_CLEAN 56

static void
after_a_power_failure_it_begins_empty(void **state)
{
    struct bench *b = *state;
    const uint32_t unclean = 0;

    bench_open(b);
    KEEP(b, .key = "http://h/a", .body = "a");
    forget_memory(b);
    bench_close(b);
    patch(b, "purges", AT_BOOT, "another", 7);
    bench_open(b);                      /* it was closed */
    assert_int_equal(ask(b, "http://h/a"), FOUND);
    bench_close(b);
    patch(b, "purges", AT_CLEAN, &unclean, sizeof unclean);
    bench_open(b);                      /* it was not, but the machine is the same */
    assert_int_equal(ask(b, "http://h/a"), FOUND);
    bench_close(b);
    patch(b, "purges", AT_CLEAN, &unclean, sizeof unclean);
    patch(b, "purges", AT_BOOT, "another", 7);
    bench_open(b);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
    assert_int_equal(ask(b, "http://h/a"), AT_ONCE);
}

static void
without_its_purges_it_begins_empty(void **state)
{
    struct bench *b = *state;

    bench_open(b);
    KEEP(b, .key = "http://h/a", .body = "a");
    settle(b);
    bench_close(b);
    unlink(in_dir(b, "purges"));
    bench_open(b);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

/* ---- the file is damaged -------------------------------------------------------------------- */

static void
fill_some(struct bench *b)
{
    for (int i = 0; i < 60; i++)
        keep_numbered(b, i, (size_t)(i * 997 % 60000));
    settle(b);
}

/* Whatever is overwritten, but for what says whose file it is: it opens, and what it gives is what was
 * kept. */
static void
whatever_is_overwritten_in_the_file_it_goes_on(void **state)
{
    struct bench *b = *state;
    unsigned char junk[3000];
    struct stat st;

    for (int round = 0; round < 25; round++) {
        bench_open(b);
        fill_some(b);
        bench_close(b);
        assert_int_equal(stat(in_dir(b, "cache.db"), &st), 0);
        random_bytes(junk, sizeof junk);
        for (int i = 0; i < 1 + round / 4; i++) {
            off_t at = round == 0 ? 0 :
                100 + (off_t)(random_fast() % (uint64_t)(st.st_size - 100));    /* the header is */

            patch(b, "cache.db", at, junk, 1 + random_fast() % sizeof junk);
        }
        if (round % 5 == 4)
            assert_int_equal(truncate(in_dir(b, "cache.db"), random_fast() % st.st_size), 0);
        bench_open(b);
        inspect(b, 0);
        for (int i = 0; i < 60; i++)
            keep_numbered(b, i, (size_t)(i * 997 % 60000));
        purge(b->s, STORE_PURGE_PREFIX, "http://h/1", false);
        while (figures(b).queued_bytes > 0 || figures(b).loading)
            usleep(500);
        (void)erase(b);
        bench_close(b);
    }
}

static void
a_record_with_a_changed_byte_is_a_miss_counted_and_removed(void **state)
{
    struct bench *b = *state;
    uint64_t bad = stats_counter(STATS_disk_bad);
    sqlite3 *db;

    bench_open(b);
    KEEP(b, .key = "http://h/a", .body = "body-of-a");
    settle(b);
    bench_close(b);
    assert_int_equal(sqlite3_open(in_dir(b, "cache.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE content SET value = "
        "cast(replace(cast(value AS BLOB), 'body-of-a', 'body-of-b') AS BLOB)", NULL, NULL, NULL),
        SQLITE_OK);
    sqlite3_close(db);
    bench_open(b);
    assert_int_equal(ask(b, "http://h/a"), NOTHING);
    assert_int_equal(stats_counter(STATS_disk_bad), bad + 1);
    settle(b);
    assert_int_equal(figures(b).objects, 0);
}

/* ---- the path is of no use ------------------------------------------------------------------ */

static void
refused(struct bench *b, const char *says)
{
    struct err e;

    if (bench_open_e(b, &e))
        fail_msg("it was opened");
    if (strstr(e.text, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static void
put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void
what_is_somebody_elses_is_refused_and_stays_as_it_is(void **state)
{
    struct bench *b = *state, other;
    char said[128];

    bench_open(b);
    other = *b;
    refused(&other, "another process has it open");
    bench_close(b);
    bench_open(b);
    bench_close(b);

    unlink(in_dir(b, "purges"));
    put_file(in_dir(b, "cache.db"), "somebody's notes, of whatever length they may be, and of "
        "nothing that a cache would know; a hundred bytes at the least");
    refused(b, "another program's file");
    put_file(in_dir(b, "purges"), "a diary\n");
    refused(b, "another program's file");
    assert_int_equal(access(in_dir(b, "cache.db"), F_OK), 0);
    unlink(in_dir(b, "purges"));
    unlink(in_dir(b, "cache.db"));
    snprintf(said, sizeof said, "%.60s/a/b", b->dir);
    other = (struct bench){ .size = b->size };
    snprintf(other.dir, sizeof other.dir, "%.63s", said);
    refused(&other, "must exist and be writable");
    put_file(in_dir(b, "a"), "x");
    snprintf(other.dir, sizeof other.dir, "%.60s/a", b->dir);
    refused(&other, "cannot open");
}

/* ---- the disk is full ----------------------------------------------------------------------- */

static void
a_full_disk_drops_what_would_be_kept_until_there_is_room(void **state)
{
    struct bench *b = *state;
    int status = ended(child(b, "full"));

    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    bench_open(b);
    assert_int_equal(ask(b, "http://h/first"), FOUND);
    assert_int_equal(ask(b, "http://h/after"), FOUND);
    assert_int_not_equal(ask(b, "http://h/purged"), FOUND);
}

static void *volatile run_child_dir;

static void
run_child(void **state)
{
    void (*run)(const char *dir) = *state;

    run(run_child_dir);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FRESH(what_was_purged_before_a_kill_does_not_come_back),
        FRESH(killed_at_any_moment_it_opens_with_nothing_wrong_in_it),
        FRESH(after_a_power_failure_it_begins_empty),
        FRESH(without_its_purges_it_begins_empty),
        FRESH(whatever_is_overwritten_in_the_file_it_goes_on),
        FRESH(a_record_with_a_changed_byte_is_a_miss_counted_and_removed),
        FRESH(what_is_somebody_elses_is_refused_and_stays_as_it_is),
        FRESH(a_full_disk_drops_what_would_be_kept_until_there_is_room),
    };

    if (argc == 3)
        for (size_t i = 0; i < NELEM(children); i++)
            if (strcmp(argv[1], children[i].name) == 0) {
                const struct CMUnitTest one[] = {
                    cmocka_unit_test_prestate(run_child, (void *)(uintptr_t)children[i].run),
                };

                run_child_dir = argv[2];
                return RUN(one);
            }
    return RUN(tests);
}
