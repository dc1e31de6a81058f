/*
 * The journal's file: whose it is, damage, no room, what is let go.
 */
#include "write/journal_priv.h"
#include "write_vfs.h"

#include <dirent.h>

#define PAGE 2048

static void
poke(const char *path, long offset, const void *bytes, size_t n)
{
    int fd = open(path, O_RDWR);

    assert_true(fd != -1 && pwrite(fd, bytes, n, offset) == (ssize_t)n);
    close(fd);
}

static unsigned
files_like(const struct kit *k, const char *part)
{
    DIR *d = opendir(k->directory);
    unsigned n = 0;

    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d)) != NULL; )
        n += strstr(f->d_name, part) != NULL;
    closedir(d);
    return n;
}

static void
sql(const struct kit *k, const char *text)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(k->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static unsigned
number(const struct kit *k, const char *text)
{
    sqlite3_stmt *st;
    sqlite3 *db;
    unsigned n;

    assert_int_equal(sqlite3_open(k->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    n = (unsigned)sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return n;
}

static void
fill(struct kit *k, unsigned n, uint64_t *last)
{
    struct journal_op *ops = calloc(n, sizeof *ops), **all = calloc(n, sizeof *all);
    static const char body[700];

    for (unsigned i = 0; i < n; i++) {
        ops[i] = kit_write(i + 1, (struct slice){ body, sizeof body });
        ops[i].durable = WRITE_OS;
        all[i] = &ops[i];
    }
    kit_do_together(k->j, all, n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(ops[i].result, JOURNAL_DONE);
    *last = ops[n - 1].row.seq;
    free(all);
    free(ops);
}

/* ---- whose it is ----------------------------------------------------------------------------- */

static void
its_files_are_for_its_owner_alone(void **state)
{
    struct kit k;
    struct stat st;
    char path[128];

    (void)state;
    kit_new(&k);
    kit_open(&k);
    kit_accept(&k, 1, SLICE("x"));
    for (unsigned i = 0; i < 3; i++) {
        static const char *const suffixes[] = { "", "-wal", ".lock" };

        snprintf(path, sizeof path, "%s%s", k.path, suffixes[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    kit_end(&k);
}

static void
a_second_process_is_refused(void **state)
{
    struct kit k;
    struct err e;
    pid_t pid;
    int status;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    pid = fork();
    if (pid == 0) {
        struct kit other = k;
        char who[32];

        snprintf(who, sizeof who, "process %d has it open", (int)getppid());
        _exit(kit_open_with(&other, &kit_limits, &e) == -1 && strstr(e.text, who) != NULL
            && strstr(e.text, k.path) != NULL ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    kit_accept(&k, 1, SLICE("x"));
    kit_end(&k);
}

static void
a_directory_that_is_not_there_is_an_error(void **state)
{
    struct kit k;
    struct err e;

    (void)state;
    kit_new(&k);
    snprintf(k.path, sizeof k.path, "%s/no/journal", k.directory);
    assert_int_equal(kit_open_with(&k, &kit_limits, &e), -1);
    assert_non_null(strstr(e.text, "directory"));
    kit_end(&k);
}

static void
another_programs_file_is_left_as_it_is(void **state)
{
    struct kit k;
    struct err e;
    struct stat st;

    (void)state;
    kit_new(&k);
    sql(&k, "CREATE TABLE t(a); PRAGMA user_version = 1");
    assert_int_equal(kit_open_with(&k, &kit_limits, &e), -1);
    assert_non_null(strstr(e.text, "another program's"));
    sql(&k, "INSERT INTO t VALUES(1); PRAGMA application_id = 7");
    close(open(k.path, O_WRONLY | O_TRUNC));
    poke(k.path, 0, "some text", 9);
    assert_int_equal(kit_open_with(&k, &kit_limits, &e), -1);
    assert_int_equal(stat(k.path, &st), 0);
    assert_int_equal(st.st_size, 9);
    assert_int_equal(files_like(&k, "journal"), 1);
    kit_end(&k);
}

static void
a_later_schema_is_refused(void **state)
{
    struct kit k;
    struct err e;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    kit_accept(&k, 1, SLICE("x"));
    journal_close(&k.j);
    sql(&k, "PRAGMA user_version = 2");
    assert_int_equal(kit_open_with(&k, &kit_limits, &e), -1);
    assert_non_null(strstr(e.text, "later version"));
    sql(&k, "PRAGMA user_version = 1");
    kit_open(&k);
    assert_int_equal(k.nfound, 1);
    kit_end(&k);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static void
a_row_whose_sum_is_wrong_becomes_uncertain(void **state)
{
    struct journal_figures f;
    struct write_content c;
    struct write_row r;
    struct kit k;
    struct err e;
    uint64_t a, b;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    a = kit_accept(&k, 1, SLICE("x"));
    b = kit_accept(&k, 2, SLICE("y"));
    kit_accept(&k, 3, SLICE("z"));
    journal_close(&k.j);
    sql(&k, "UPDATE writes SET lane = 0, c1 = 99 WHERE c1 = 1;"
        "UPDATE content SET body = 'other' WHERE seq = (SELECT seq FROM writes WHERE c1 = 2)");
    kit_open(&k);
    assert_int_equal(k.nfound, 2);      /* its content is looked at when it is read */
    assert_int_equal(journal_read(k.j, a, &r, NULL, &e), 1);
    assert_int_equal(r.state, WRITE_UNCERTAIN);
    assert_int_equal(journal_read(k.j, b, &r, &c, &e), -1);
    assert_non_null(strstr(e.text, "content"));
    kit_accept(&k, 4, SLICE(""));       /* behind the condemnation */
    assert_int_equal(journal_read(k.j, b, &r, &c, &e), 1);
    assert_int_equal(r.state, WRITE_UNCERTAIN);
    assert_true(c.url.p == NULL && strstr(c.cause.p, "content") != NULL);
    assert_true(k.condemned.seq == b && k.condemned.c1 == 2 && k.known);
    assert_int_equal(k.condemned.state, WRITE_UNCERTAIN);
    journal_figures(k.j, &f);
    assert_int_equal(f.pending, 2);
    assert_int_equal(f.dead, 2);
    assert_true(f.takes);
    kit_end(&k);
}

static void
an_index_that_lost_an_entry_is_made_anew(void **state)
{
    struct write_row r;
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    kit_accept(&k, 1, SLICE("x"));
    journal_close(&k.j);
    /* a schema without the index, a row, and the schema with it again */
    sql(&k, "PRAGMA writable_schema = 1; CREATE TABLE keep AS SELECT * FROM sqlite_master WHERE "
        "name = 'writes_c1'; DELETE FROM sqlite_master WHERE name = 'writes_c1'");
    sql(&k, "DELETE FROM writes");
    sql(&k, "PRAGMA writable_schema = 1; INSERT INTO sqlite_master SELECT * FROM keep; "
        "DELETE FROM keep");
    kit_open(&k);
    assert_int_equal(journal_next(k.j, 0, 1, 0, false, &r), 0);
    kit_accept(&k, 1, SLICE("x"));
    assert_int_equal(journal_next(k.j, 0, 1, 0, false, &r), 1);
    kit_end(&k);
}

static unsigned
saved(struct kit *k)
{
    struct journal_figures f;

    journal_figures(k->j, &f);
    return (unsigned)(f.pending + f.dead);
}

static void
a_file_that_is_cut_off_is_set_aside_and_what_is_left_of_it_taken_over(void **state)
{
    struct kit k;
    struct stat st;
    uint64_t last, next;
    unsigned n;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    fill(&k, 1000, &last);
    journal_close(&k.j);
    assert_int_equal(stat(k.path, &st), 0);
    assert_int_equal(truncate(k.path, st.st_size / 2), 0);
    kit_open(&k);
    n = saved(&k);
    assert_true(n > 300 && n < 1000);
    assert_int_equal(files_like(&k, "damaged"), 1);
    fill(&k, 1, &next);
    assert_true(next > last);           /* the cut ones' numbers too were given */
    kit_again(&k);
    assert_int_equal(saved(&k), n + 1);
    assert_int_equal(files_like(&k, "damaged"), 1);
    kit_end(&k);
}

static void
a_file_without_a_byte_is_set_aside_and_one_that_is_gone_made_anew(void **state)
{
    struct kit k;
    uint64_t last;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    fill(&k, 10, &last);
    journal_close(&k.j);
    assert_int_equal(truncate(k.path, 0), 0);
    kit_open(&k);
    assert_int_equal(saved(&k), 0);
    assert_int_equal(files_like(&k, "damaged"), 1);
    journal_close(&k.j);
    unlink(k.path);
    kit_open(&k);
    kit_end(&k);
}

static unsigned
count_readable(struct kit *k, uint64_t last)
{
    unsigned n = 0;

    for (uint64_t seq = 1; seq <= last; seq++) {
        struct write_content c;
        struct write_row r;

        n += journal_read(k->j, seq, &r, &c, NULL) == 1;
    }
    return n;
}

/* Whichever page it is, of the file: nothing crashes, and most is taken over or still there. */
static void
one_page_of_the_file_may_be_overwritten(void **state)
{
    static char noise[PAGE];
    struct kit k;
    struct stat st;
    uint64_t last;
    char copy[128], command[512];
    int errors = dup(STDERR_FILENO);
    struct journal_op op;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    fill(&k, 300, &last);
    journal_close(&k.j);
    snprintf(copy, sizeof copy, "%s/copy", k.directory);
    snprintf(command, sizeof command, "cp %s %s", k.path, copy);
    assert_int_equal(system(command), 0);
    assert_int_equal(stat(k.path, &st), 0);
    memset(noise, 0xa5, sizeof noise);
    dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);   /* a line for each */
    for (long page = 0; page < st.st_size / PAGE; page++) {
        poke(k.path, page * PAGE, noise, PAGE);
        kit_open(&k);
        count_readable(&k, last);
        journal_close(&k.j);
        kit_open(&k);                   /* what a reader found is set aside now */
        assert_true(count_readable(&k, last) >= 290);
        op = kit_write(1, SLICE("x"));
        if (kit_do(k.j, &op) == JOURNAL_FULL) { /* idle work came upon it first */
            kit_again(&k);
            kit_do(k.j, &op);
        }
        assert_int_equal(op.result, JOURNAL_DONE);
        journal_close(&k.j);
        snprintf(command, sizeof command, "cp %s %s; rm -f %s.damaged*", copy, k.path, k.path);
        assert_int_equal(system(command), 0);
    }
    dup2(errors, STDERR_FILENO);
    close(errors);
    kit_end(&k);
}

/* ---- room ------------------------------------------------------------------------------------ */

static void
a_full_journal_takes_none_until_there_is_room_and_settles_all_the_same(void **state)
{
    const struct journal_limits small = { 2 * KIT_MIB, KIT_MIB, 3600000, 1000000 };
    static const char body[8000];
    struct journal_op op;
    struct journal_figures f;
    struct kit k;
    struct err e;
    uint64_t n = 0;

    (void)state;
    kit_new(&k);
    assert_int_equal(kit_open_with(&k, &small, &e), 0);
    do {
        op = kit_write(1, (struct slice){ body, sizeof body });
        op.durable = WRITE_OS;
    } while (kit_do(k.j, &op) == JOURNAL_DONE && ++n < 10000);
    assert_int_equal(op.result, JOURNAL_FULL);
    assert_non_null(strstr(op.why, "journal.size"));
    assert_true(n > 50 && n < 300);
    journal_figures(k.j, &f);
    assert_false(f.takes);
    assert_true(f.bytes <= 2 * KIT_MIB);
    for (uint64_t seq = 1; seq <= n / 2; seq++)
        assert_int_equal(kit_state(&k, seq, WRITE_DELIVERED, ""), JOURNAL_DONE);
    for (uint64_t i = 0; i < n / 3; i++)
        kit_accept(&k, 1, (struct slice){ body, sizeof body });
    kit_end(&k);
}

static void
as_many_as_depth_are_pending(void **state)
{
    const struct journal_limits shallow = { 64 * KIT_MIB, KIT_MIB, 3600000, 2 };
    struct journal_op op = kit_write(1, SLICE("x"));
    struct kit k;
    struct err e;
    uint64_t a;

    (void)state;
    kit_new(&k);
    assert_int_equal(kit_open_with(&k, &shallow, &e), 0);
    a = kit_accept(&k, 1, SLICE("x"));
    kit_accept(&k, 1, SLICE("x"));
    assert_int_equal(kit_do(k.j, &op), JOURNAL_FULL);
    assert_non_null(strstr(op.why, "depth"));
    kit_state(&k, a, WRITE_REJECTED, "");
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    kit_end(&k);
}

static void
a_full_disk_is_refused_and_then_not(void **state)
{
    struct kit k;
    struct journal_op op;
    struct journal_figures f;
    static const char body[8000];
    unsigned accepted = 0, before;

    (void)state;
    kit_new(&k);
    snprintf(vfs_below, sizeof vfs_below, "%s", k.directory);
    kit_open(&k);
    vfs_full_at = KIT_MIB;
    do {
        op = kit_write(1, (struct slice){ body, sizeof body });
    } while (kit_do(k.j, &op) == JOURNAL_DONE && ++accepted < 10000);
    assert_int_equal(op.result, JOURNAL_FULL);
    journal_figures(k.j, &f);
    assert_false(f.takes);
    assert_int_equal(f.pending, accepted);
    before = accepted;
    vfs_full_at = INT64_MAX;
    do {
        usleep(50000);                  /* it looks once a second */
        journal_figures(k.j, &f);
    } while (!f.takes);
    kit_accept(&k, 1, (struct slice){ body, sizeof body });
    kit_again(&k);
    assert_int_equal(saved(&k), before + 1);
    vfs_below[0] = '\0';
    kit_end(&k);
}

static void
a_full_disk_is_no_reason_not_to_open(void **state)
{
    struct journal_figures f;
    struct journal_op op;
    uint64_t last;
    struct kit k;

    (void)state;
    kit_new(&k);
    snprintf(vfs_below, sizeof vfs_below, "%s", k.directory);
    kit_open(&k);
    fill(&k, 10, &last);
    vfs_full_at = 0;
    kit_again(&k);
    assert_int_equal(saved(&k), 10);
    op = kit_write(1, SLICE("x"));
    assert_int_equal(kit_do(k.j, &op), JOURNAL_FULL);
    vfs_full_at = INT64_MAX;
    do {
        usleep(50000);
        journal_figures(k.j, &f);
    } while (!f.takes);
    op = kit_write(1, SLICE("x"));
    assert_int_equal(kit_do(k.j, &op), JOURNAL_DONE);
    assert_true(op.row.seq > last);
    kit_end(&k);
    vfs_below[0] = '\0';
}

/* What a reader saw of the file is known to the next opening, also where the disk was full then. */
static void
a_damaged_file_is_marked_as_soon_as_its_disk_takes_that(void **state)
{
    struct journal_figures f = { .takes = true };
    uint64_t last;
    struct kit k;

    (void)state;
    kit_new(&k);
    snprintf(vfs_below, sizeof vfs_below, "%s", k.directory);
    kit_open(&k);
    fill(&k, 10, &last);
    vfs_full_at = 0;
    atomic_store(&k.j->damaged, true);
    while (f.takes) {                   /* it has tried to */
        usleep(10000);
        journal_figures(k.j, &f);
    }
    vfs_full_at = INT64_MAX;
    kit_again(&k);
    assert_int_equal(files_like(&k, "damaged"), 1);
    assert_int_equal(saved(&k), 10);
    kit_end(&k);
    vfs_below[0] = '\0';
}

/* ---- what is let go -------------------------------------------------------------------------- */

static void
settled_writes_are_let_go_after_their_time_and_dead_ones_never(void **state)
{
    const struct journal_limits short_lived = { 64 * KIT_MIB, KIT_MIB, 1, 1000000 };
    struct write_row r;
    struct kit k;
    struct err e;
    uint64_t last;

    (void)state;
    kit_new(&k);
    assert_int_equal(kit_open_with(&k, &short_lived, &e), 0);
    fill(&k, 600, &last);
    for (uint64_t seq = last - 599; seq <= last; seq++)
        kit_state(&k, seq, seq % 100 == 0 ? WRITE_EXPIRED : WRITE_DELIVERED, "");
    while (journal_read(k.j, last - 1, &r, NULL, &e) == 1 || journal_read(k.j, last - 501, &r, NULL,
            &e) == 1)
        usleep(20000);                  /* until the journal's tick */
    journal_close(&k.j);
    assert_int_equal(number(&k, "SELECT count(*) FROM settled"), 0);
    assert_int_equal(number(&k, "SELECT count(*) FROM content"), 6);
    assert_int_equal(number(&k, "SELECT count(*) FROM writes"), 6);
    kit_end(&k);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_files_are_for_its_owner_alone),
        cmocka_unit_test(a_second_process_is_refused),
        cmocka_unit_test(a_directory_that_is_not_there_is_an_error),
        cmocka_unit_test(another_programs_file_is_left_as_it_is),
        cmocka_unit_test(a_later_schema_is_refused),
        cmocka_unit_test(a_row_whose_sum_is_wrong_becomes_uncertain),
        cmocka_unit_test(an_index_that_lost_an_entry_is_made_anew),
        cmocka_unit_test(a_file_that_is_cut_off_is_set_aside_and_what_is_left_of_it_taken_over),
        cmocka_unit_test(a_file_without_a_byte_is_set_aside_and_one_that_is_gone_made_anew),
        cmocka_unit_test(one_page_of_the_file_may_be_overwritten),
        cmocka_unit_test(a_full_journal_takes_none_until_there_is_room_and_settles_all_the_same),
        cmocka_unit_test(as_many_as_depth_are_pending),
        cmocka_unit_test(a_full_disk_is_refused_and_then_not),
        cmocka_unit_test(a_full_disk_is_no_reason_not_to_open),
        cmocka_unit_test(a_damaged_file_is_marked_as_soon_as_its_disk_takes_that),
        cmocka_unit_test(settled_writes_are_let_go_after_their_time_and_dead_ones_never),
    };

    vfs_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
