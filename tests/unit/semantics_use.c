/*
 * When a stored response may answer a request, fresh or stale.
 */
#include "semantics_util.h"

#define FLAG(name) META_##name

static const struct use_case {
    const char   *clause, *request;
    int64_t       lifetime_s, age_s;
    unsigned      flags;
    int32_t       swr, sie;
    bool          soft;
    enum sem_use  use;
    const char   *why;                  /* NULL when fresh */
    bool          on_error;             /* may it be served when the origin fails? */
} use_cases[] = {
#define FRESH_ NULL, false
    /* fresh and not */
    { "4.2", "", 60, 0, 0, -1, -1, false, SEM_FRESH, FRESH_ },
    { "4.2", "", 60, 59, 0, -1, -1, false, SEM_FRESH, FRESH_ },
    { "4.2, lifetime must exceed age", "", 60, 60, 0, -1, -1, false, SEM_VALIDATE, "stale", false },
    { "4.2", "", 60, 61, 0, -1, -1, false, SEM_VALIDATE, "stale", false },
    { "4.2, never fresh", "", 0, 0, 0, -1, -1, false, SEM_VALIDATE, "stale", false },
    { "softly purged", "", 60, 0, 0, -1, -1, true, SEM_VALIDATE, "stale", false },
    /* a part: fresh it serves who wants no more, and stale nobody */
    { "3.3", "", 60, 59, FLAG(PARTIAL), -1, -1, false, SEM_PART, FRESH_ },
    { "3.3", "", 60, 60, FLAG(PARTIAL), -1, -1, false, SEM_VALIDATE, "stale", false },
    { "3.3", "", 60, 0, FLAG(PARTIAL), -1, -1, true, SEM_VALIDATE, "stale", false },
    { "3.3", "Cache-Control: max-stale", 60, 61, FLAG(PARTIAL), 60, 60, false, SEM_VALIDATE, "stale", true },
    { "3.3", "Cache-Control: no-cache", 60, 0, FLAG(PARTIAL), -1, -1, false, SEM_VALIDATE, "request-no-cache",
        false },
    { "3.5", "Authorization: x", 60, 0, FLAG(PARTIAL), -1, -1, false, SEM_CANNOT, "authorization", false },
    /* no-cache */
    { "5.2.2.4", "", 60, 0, FLAG(NO_CACHE), -1, 60, false, SEM_VALIDATE, "no-cache", false },
    { "5.2.2.4", "Cache-Control: max-stale", 60, 99, FLAG(NO_CACHE), 60, 60, false, SEM_VALIDATE,
        "no-cache", false },
    { "5.2.1.4", "Cache-Control: no-cache", 60, 0, 0, 60, 60, false, SEM_VALIDATE,
        "request-no-cache", false },
    { "5.4", "Pragma: no-cache", 60, 0, 0, 60, 60, false, SEM_VALIDATE, "request-no-cache", false },
    { "5.4", "Pragma: no-cache\nCache-Control: x", 60, 0, 0, -1, -1, false, SEM_FRESH, FRESH_ },
    /* max-age of the client */
    { "5.2.1.1", "Cache-Control: max-age=0", 60, 1, 0, -1, -1, false, SEM_VALIDATE,
        "request-max-age", false },
    { "5.2.1.1", "Cache-Control: max-age=0", 60, 0, 0, -1, -1, false, SEM_FRESH, FRESH_ },
    { "5.2.1.1", "Cache-Control: max-age=10", 60, 10, 0, -1, -1, false, SEM_FRESH, FRESH_ },
    { "5.2.1.1", "Cache-Control: max-age=10", 60, 11, 0, -1, -1, false, SEM_VALIDATE,
        "request-max-age", false },
    { "5.2.1.1", "Cache-Control: max-age=600", 3600, 1800, 0, -1, -1, false, SEM_VALIDATE,
        "request-max-age", false },
    { "5.2.1.1, nothing stale", "Cache-Control: max-age=600", 60, 61, 0, 60, -1, false,
        SEM_VALIDATE, "stale", false },
    { "5.2.1.1, unless max-stale", "Cache-Control: max-age=600, max-stale=60", 60, 61, 0, -1, -1,
        false, SEM_STALE, "max-stale", false },
    { "5.2.1.1, still too old", "Cache-Control: max-age=1, max-stale", 60, 61, 0, -1, -1, false,
        SEM_VALIDATE, "request-max-age", false },
    { "4.2.1, invalid", "Cache-Control: max-age=x", 60, 1, 0, -1, -1, false, SEM_VALIDATE,
        "request-max-age", false },
    /* min-fresh */
    { "5.2.1.3", "Cache-Control: min-fresh=10", 60, 50, 0, -1, -1, false, SEM_FRESH, FRESH_ },
    { "5.2.1.3", "Cache-Control: min-fresh=10", 60, 51, 0, -1, -1, false, SEM_VALIDATE,
        "request-min-fresh", false },
    { "5.2.1.3", "Cache-Control: min-fresh=2000", 1500, 0, 0, -1, -1, false, SEM_VALIDATE,
        "request-min-fresh", false },
    { "5.2.1.3", "Cache-Control: min-fresh=1000", 1500, 1000, 0, -1, -1, false, SEM_VALIDATE,
        "request-min-fresh", false },
    { "5.2.1.3, not stale", "Cache-Control: min-fresh=0", 60, 61, 0, 60, -1, false, SEM_VALIDATE,
        "request-min-fresh", false },
    /* max-stale */
    { "5.2.1.2", "Cache-Control: max-stale", 60, 999999, 0, -1, -1, false, SEM_STALE, "max-stale",
        false },
    { "5.2.1.2", "Cache-Control: max-stale=10", 60, 70, 0, -1, -1, false, SEM_STALE, "max-stale",
        false },
    { "5.2.1.2", "Cache-Control: max-stale=10", 60, 71, 0, -1, -1, false, SEM_VALIDATE, "stale",
        false },
    { "5.2.1.2", "Cache-Control: max-stale=1000", 1500, 2000, 0, -1, -1, false, SEM_STALE,
        "max-stale", false },
    { "5.2.1.2, several", "Cache-Control: max-stale, max-stale=10", 60, 71, 0, -1, -1, false,
        SEM_VALIDATE, "stale", false },
    { "5.2.1.2, invalid", "Cache-Control: max-stale=x", 60, 61, 0, -1, -1, false, SEM_VALIDATE,
        "stale", false },
    { "4.2.4", "Cache-Control: max-stale", 60, 61, FLAG(MUST_REVALIDATE), -1, -1, false,
        SEM_VALIDATE, "must-revalidate", false },
    { "softly purged", "Cache-Control: max-stale=10", 60, 0, 0, -1, -1, true, SEM_STALE,
        "max-stale", false },
    /* must-revalidate is about what is stale */
    { "5.2.2.2", "", 60, 59, FLAG(MUST_REVALIDATE), -1, -1, false, SEM_FRESH, FRESH_ },
    { "5.2.2.2", "", 60, 60, FLAG(MUST_REVALIDATE), 60, 60, false, SEM_VALIDATE, "must-revalidate",
        false },
    { "5.2.2.2", "", 60, 0, FLAG(MUST_REVALIDATE), 60, 60, true, SEM_VALIDATE, "must-revalidate",
        false },
    /* stale-while-revalidate */
    { "RFC 5861 3", "", 60, 60, 0, 10, -1, false, SEM_STALE_REVALIDATE, "stale-while-revalidate",
        false },
    { "RFC 5861 3", "", 60, 70, 0, 10, -1, false, SEM_STALE_REVALIDATE, "stale-while-revalidate",
        false },
    { "RFC 5861 3", "", 60, 71, 0, 10, -1, false, SEM_VALIDATE, "stale", false },
    { "RFC 5861 3, zero", "", 60, 60, 0, 0, -1, false, SEM_VALIDATE, "stale", false },
    { "RFC 5861 3, softly purged", "", 60, 0, 0, 10, -1, true, SEM_STALE_REVALIDATE,
        "stale-while-revalidate", false },
    { "RFC 5861 3 before max-stale", "Cache-Control: max-stale", 60, 61, 0, 10, -1, false,
        SEM_STALE_REVALIDATE, "stale-while-revalidate", false },
    { "RFC 5861 3, fresh", "", 60, 1, 0, 10, -1, false, SEM_FRESH, FRESH_ },
    /* stale-if-error */
    { "RFC 5861 4", "", 60, 61, 0, -1, 10, false, SEM_VALIDATE, "stale", true },
    { "RFC 5861 4", "", 60, 70, 0, -1, 10, false, SEM_VALIDATE, "stale", true },
    { "RFC 5861 4", "", 60, 71, 0, -1, 10, false, SEM_VALIDATE, "stale", false },
    { "RFC 5861 4, zero", "", 60, 60, 0, -1, 0, false, SEM_VALIDATE, "stale", false },
    { "RFC 5861 4, of the request", "Cache-Control: stale-if-error=10", 60, 61, 0, -1, -1, false,
        SEM_VALIDATE, "stale", true },
    { "RFC 5861 4, of the request", "Cache-Control: stale-if-error=0", 60, 61, 0, -1, 60, false,
        SEM_VALIDATE, "stale", false },
    { "RFC 5861 4, of the request", "Cache-Control: stale-if-error=10", 60, 61,
        FLAG(MUST_REVALIDATE), -1, -1, false, SEM_VALIDATE, "must-revalidate", false },
    { "RFC 5861 4, of the request", "Cache-Control: stale-if-error=10", 60, 61, FLAG(NO_CACHE), -1,
        -1, false, SEM_VALIDATE, "no-cache", false },
    /* Authorization */
#define AUTH "Authorization: Bearer x"
    { "3.5", AUTH, 60, 0, 0, -1, 60, false, SEM_CANNOT, "authorization", false },
    { "3.5", AUTH, 60, 61, 0, 60, 60, false, SEM_CANNOT, "authorization", false },
    { "3.5", AUTH, 60, 0, FLAG(SHARED_AUTH), -1, -1, false, SEM_FRESH, FRESH_ },
    { "3.5", AUTH, 60, 61, FLAG(SHARED_AUTH), -1, 60, false, SEM_VALIDATE, "stale", true },
    { "3.5", "", 60, 0, FLAG(SHARED_AUTH), -1, -1, false, SEM_FRESH, FRESH_ },
    { "3.5 before no-cache", AUTH "\nCache-Control: no-cache", 60, 0, 0, -1, -1, false, SEM_CANNOT,
        "authorization", false },
};

static void
stored_responses_are_reused_as_the_clauses_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < NELEM(use_cases); i++) {
        const struct use_case *c = &use_cases[i];
        struct sem_request rq = asked("GET", c->request);
        struct sem_meta m = { .response_ms = NOW_MS, .date_ms = NOW_MS, .status = 200,
            .lifetime_ms = c->lifetime_s * 1000, .last_modified_s = HTTP_NO_DATE,
            .swr_s = c->swr, .sie_s = c->sie, .flags = (uint16_t)c->flags };
        const char *why = "unset";
        int64_t now = NOW_MS + c->age_s * 1000;
        enum sem_use use = sem_use(&rq, &m, now, c->soft, &why);

        if (use != c->use || strcmp(why != NULL ? why : "", c->why != NULL ? c->why : "") != 0)
            fail_msg("%s: %s: age %lld of %lld: %d %s", c->clause, c->request, (long long)c->age_s,
                (long long)c->lifetime_s, use, why != NULL ? why : "");
        if (c->use != SEM_FRESH && !c->soft &&
            sem_stale_on_error(&rq, &m, now) != c->on_error)
            fail_msg("%s: %s: on error", c->clause, c->request);
    }
}

static void
age_from_before_it_came_counts(void **state)
{
    struct sem_meta m = { .response_ms = NOW_MS, .age_ms = 50000, .lifetime_ms = 60000,
        .swr_s = -1, .sie_s = -1 };
    struct sem_request rq = asked("GET", "");
    const char *why;

    (void)state;
    assert_int_equal(sem_use(&rq, &m, NOW_MS + 9999, false, &why), SEM_FRESH);
    assert_int_equal(sem_use(&rq, &m, NOW_MS + 10000, false, &why), SEM_VALIDATE);
}

/* The property behind the table: whatever is asked, nothing that must be validated is reused. */
static void
nothing_is_reused_against_its_own_word(void **state)
{
    static const char *const requests[] = { "", "Cache-Control: max-stale",
        "Cache-Control: max-stale=9, max-age=9", "Cache-Control: min-fresh=1", AUTH,
        "Cache-Control: stale-if-error=99", "Pragma: no-cache" };

    (void)state;
    for (unsigned flags = 0; flags < 64; flags++) {
        for (size_t r = 0; r < NELEM(requests); r++) {
            for (int64_t age = 0; age < 40; age++) {
                struct sem_request rq = asked("GET", requests[r]);
                struct sem_meta m = { .response_ms = NOW_MS, .lifetime_ms = 20000, .swr_s = 5,
                    .sie_s = 5, .flags = (uint16_t)flags };
                int64_t now = NOW_MS + age * 1000;
                const char *why;
                enum sem_use use = sem_use(&rq, &m, now, false, &why);
                bool served = use != SEM_VALIDATE && use != SEM_CANNOT;

                assert_false(served && (flags & META_NO_CACHE));
                assert_false(served && age >= 20 && (flags & META_MUST_REVALIDATE));
                assert_false(served && rq.authorization && !(flags & META_SHARED_AUTH));
                assert_false(use == SEM_FRESH && age >= 20);
                assert_true(use == SEM_FRESH || why != NULL);
                assert_false(sem_stale_on_error(&rq, &m, now) &&
                    (flags & (META_NO_CACHE | META_MUST_REVALIDATE)));
            }
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_responses_are_reused_as_the_clauses_say),
        cmocka_unit_test(age_from_before_it_came_counts),
        cmocka_unit_test(nothing_is_reused_against_its_own_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
