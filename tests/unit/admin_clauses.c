/*
 * The table of clauses: every word that a decision may give has its line there.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin/explain.h"

/* What says why without being a reason against the cache. */
static const char *const outcomes[] = { "stale-while-revalidate", "max-stale", "stale-if-error" };

static bool
is_word(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strchr("abcdefghijklmnopqrstuvwxyz-_", s[i]) == NULL)
            return false;
    return n > 0;
}

/* Each string literal behind `before` in the text, if it has the form of a word. */
static unsigned
look(const char *file, const char *text, const char *before, bool against)
{
    unsigned found = 0;

    for (const char *p = text; (p = strstr(p, before)) != NULL;) {
        const char *end = strchr(p += strlen(before), '"');
        char word[64];
        const struct clause *c;
        bool outcome = false;

        if (end == NULL || !is_word(p, (size_t)(end - p)) || end - p >= (ptrdiff_t)sizeof word)
            continue;
        snprintf(word, sizeof word, "%.*s", (int)(end - p), p);
        for (size_t i = 0; i < NELEM(outcomes); i++)
            outcome = outcome || strcmp(word, outcomes[i]) == 0;
        c = clause_of(word);
        if (c == NULL)
            fail_msg("%s: \"%s\" is in no line of admin/clauses.def", file, word);
        if (against && !outcome && c->change[0] == '\0')
            fail_msg("%s: nothing is said of what to change for \"%s\"", file, word);
        found++;
    }
    return found;
}

static unsigned
look_in(const char *room)
{
    static const struct { const char *before; bool against; } places[] = {
        { "why = \"", true }, { "return \"", true }, { "forward(r, \"", true },
        { "forbids(t, \"", true },
        { "sem_forbids(t, \"", true }, { "sem_gives(t, \"", false }, { "sem_note(t, \"", true },
    };
    char path[512];
    struct dirent *e;
    unsigned found = 0;
    DIR *d;

    snprintf(path, sizeof path, SOURCE_DIR "/proxy/%s", room);
    d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        static char text[1 << 18];
        FILE *f;
        size_t n;

        if (strlen(e->d_name) < 3 || strcmp(e->d_name + strlen(e->d_name) - 2, ".c") != 0)
            continue;
        snprintf(path, sizeof path, SOURCE_DIR "/proxy/%s/%s", room, e->d_name);
        f = fopen(path, "re");
        assert_non_null(f);
        n = fread(text, 1, sizeof text - 1, f);
        text[n] = '\0';
        fclose(f);
        for (size_t i = 0; i < NELEM(places); i++)
            if (strcmp(places[i].before, "return \"") != 0 || strcmp(room, "request") != 0)
                found += look(path, text, places[i].before, places[i].against);
    }
    closedir(d);
    return found;
}

static void
every_word_that_a_decision_gives_has_a_clause_and_what_to_change(void **state)
{
    (void)state;
    assert_true(look_in("semantics") > 50);
    assert_true(look_in("fill") > 4);
    assert_true(look_in("request") > 3);
    assert_true(look_in("route") > 5);
}

static void
what_is_no_word_has_no_clause(void **state)
{
    (void)state;
    assert_null(clause_of("nonsense"));
    assert_null(clause_of(""));
    assert_null(clause_of(NULL));
    assert_string_equal(clause_of("private")->source, "RFC 9111 5.2.2.7");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_word_that_a_decision_gives_has_a_clause_and_what_to_change),
        cmocka_unit_test(what_is_no_word_has_no_clause),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
