/*
 * Numbers and ids of a journal that was moved: proxy/write/id.c, journal_priv.h.
 */
#define sum_of kit_sum_of                /* the journal has one too */
#include "write_kit.h"
#undef sum_of
#include "write/share.h"

/* Where what a journal had as `old` would be in Redis: its partition is any. */
static unsigned
some_part(uint64_t old)
{
    return (unsigned)(old * 37 % JOURNAL_PARTS);
}

static void
numbers_of_a_file_stay_apart_and_in_order_within_a_partition(void **state)
{
    uint64_t last[JOURNAL_PARTS] = { 0 };

    (void)state;
    for (uint64_t old = 1; old < 20000; old++) {
        unsigned part = some_part(old);
        uint64_t seq = journal_moved(old, 0, part);

        assert_int_equal(journal_part(seq), part);
        assert_int_equal(seq / JOURNAL_PARTS, old);         /* the counter goes on with it */
        assert_true(seq > last[part]);
        last[part] = seq;
    }
    assert_true(journal_moved(JOURNAL_MOVABLE - 1, 0, 63) < (uint64_t)1 << 40);
}

static void
what_redis_gave_keeps_its_number_and_stands_before_what_a_file_gave(void **state)
{
    const uint64_t upto = 6463;

    (void)state;
    for (uint64_t seq = 1; seq <= upto; seq++)
        assert_int_equal(journal_moved(seq, upto, journal_part(seq)), seq);
    for (unsigned part = 0; part < JOURNAL_PARTS; part++)
        assert_true(journal_moved(upto + 1, upto, part) > upto);
}

static void
put_number(const char *path, const char *name, uint64_t value)
{
    sqlite3 *db = NULL;
    char sql[128];

    snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO meta(name, value) VALUES('%s', %llu)", name,
        (unsigned long long)value);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void
put_settled(const char *path, const struct write_row *r)
{
    sqlite3_stmt *st;
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, writer_sql[S_SETTLED_ADD], -1, &st, NULL), SQLITE_OK);
    row_bind(st, r);
    assert_int_equal(step(st), SQLITE_OK);
    sqlite3_finalize(st);
    sqlite3_close(db);
}

static void
ids_lead_to_their_writes_wherever_these_were_numbered(void **state)
{
    char first[WRITE_ID_N + 1], fleet[WRITE_ID_N + 1], later[WRITE_ID_N + 1];
    uint64_t now = journal_moved(5, 0, 9), upto = 100 * JOURNAL_PARTS - 1, seq;
    struct write_row row = { .seq = now, .c1 = 1, .state = WRITE_DELIVERED,
        .settled_ms = wall_ms() };              /* or its time is out when the journal opens */
    struct kit k;

    (void)state;
    kit_new(&k);
    kit_open(&k);
    journal_id(k.j, 5, first);                  /* by the first file */
    journal_close(&k.j);
    put_number(k.path, "shared", upto);         /* it was in Redis since, and came back */
    put_number(k.path, "reserved", upto + 1);
    kit_open(&k);
    assert_int_equal(journal_id_seq(k.j, SLICE("00000000000000000000000000000000"), &seq), 0);
    assert_int_equal(journal_id_seq(k.j, slice_of(first), &seq), 1);
    assert_int_equal(seq / JOURNAL_PARTS, 5);   /* of no row yet */
    journal_close(&k.j);
    put_settled(k.path, &row);
    kit_open(&k);
    assert_int_equal(journal_id_seq(k.j, slice_of(first), &seq), 1);
    assert_int_equal(seq, now);
    journal_id(k.j, now, fleet);                /* as Redis told it */
    assert_string_not_equal(fleet, first);
    assert_int_equal(journal_id_seq(k.j, slice_of(fleet), &seq), 1);
    assert_int_equal(seq, now);
    journal_id(k.j, upto + 1, later);           /* by this file */
    assert_int_equal(journal_id_seq(k.j, slice_of(later), &seq), 1);
    assert_int_equal(seq, upto + 1);
    journal_close(&k.j);
    kit_end(&k);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_a_file_stay_apart_and_in_order_within_a_partition),
        cmocka_unit_test(what_redis_gave_keeps_its_number_and_stands_before_what_a_file_gave),
        cmocka_unit_test(ids_lead_to_their_writes_wherever_these_were_numbered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
