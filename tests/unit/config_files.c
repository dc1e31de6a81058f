/*
 * Files: the configuration itself, token files, and the examples that are shipped.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "redis/redis.h"

static char dir[] = "/tmp/weir-config-XXXXXX";

static const char *
path_of(const char *name)
{
    static char path[2][128];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", dir, name);
    return path[turn];
}

static void
put_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(path_of(name), "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path_of(name), mode), 0);
}

/* The first problem's text of loading a file; "" when there is none. Static memory. */
static const char *
first_problem(const char *file, struct conf **out)
{
    static char text[512];
    struct config_report r = { 0 };
    struct conf *c = config_load(file, NULL, &r);

    snprintf(text, sizeof text, "%s%s", r.n > 0 && r.at[0].warning ? "warning: " : "",
        r.n > 0 ? r.at[0].text : "");
    if (out != NULL)
        *out = c;
    else
        conf_unref(&c);
    config_report_free(&r);
    return text;
}

static void
a_file_that_cannot_be_read_says_why_and_what_to_do(void **state)
{
    (void)state;
    assert_string_equal(first_problem(path_of("none.yaml"), NULL), "cannot be read: No such file "
        "or directory; name an existing file with -c, or start with --origin URL alone");
    assert_string_equal(first_problem(dir, NULL), "cannot be read: Is a directory; name the file "
        "itself");
    assert_string_equal(first_problem("/dev/zero", NULL), "cannot be read: File too large; at most "
        "16 MiB");
}

/* Loads a file whose admin.token_file is `token`. */
static const char *
with_token(const char *token, struct conf **out)
{
    char text[512];

    snprintf(text, sizeof text, "origins: {a: {servers: http://a}}\nadmin: {listen: 0.0.0.0:8081, "
        "token_file: %s}\nlisten: {purge: {networks: 10.0.0.0/8, token_file: %s}}\n",
        path_of(token),
        path_of(token));
    put_file("conf.yaml", text, 0600);
    return first_problem(path_of("conf.yaml"), out);
}

static void
token_files_are_read_and_judged(void **state)
{
    struct conf *c = NULL;
    char want[256];

    (void)state;
    put_file("good", "s3cret\r\n", 0600);
    assert_string_equal(with_token("good", &c), "");
    assert_string_equal(c->admin_token, "s3cret");
    assert_string_equal(c->purge_tokens[0], "s3cret");
    conf_unref(&c);
    put_file("empty", "\n", 0600);
    snprintf(want, sizeof want, "%s/empty is empty; a file with a token of 1..4096 characters",
        dir);
    assert_string_equal(with_token("empty", NULL), want);
    put_file("words", "two words\n", 0600);
    snprintf(want, sizeof want, "%s/words holds more than a token; one line without spaces, ASCII "
        "alone", dir);
    assert_string_equal(with_token("words", NULL), want);
    snprintf(want, sizeof want, "%s/gone cannot be read: No such file or directory; a file with "
        "the token alone, readable for weir's user", dir);
    assert_string_equal(with_token("gone", NULL), want);
    put_file("open", "s3cret", 0644);
    snprintf(want, sizeof want, "warning: everybody on this machine may read %s/open; chmod o= "
        "%s/open", dir,
        dir);
    assert_string_equal(with_token("open", &c), want);
    assert_non_null(c);
    conf_unref(&c);
}

static void
cache_and_journal_each_have_a_redis_of_their_own(void **state)
{
    static char text[1024];
    struct conf *c = NULL;
    struct redis_conf rc;
    struct err e;

    (void)state;
    put_file("good", "cached\n", 0600);
    put_file("redis-password", "written\n", 0600);
    snprintf(text, sizeof text, "origins: {api: {servers: [http://127.0.0.1:8000]}}\n"
        "cache: {redis: {url: redis://one/2, password_file: %s/good}}\n"
        "journal: {redis: {url: [rediss://two:7000, rediss://three], sentinel: {master: m, "
        "password_file: %s/redis-password}, username: u, password_file: %s/redis-password}}\n",
        dir, dir, dir);
    put_file("conf.yaml", text, 0600);
    assert_string_equal(first_problem(path_of("conf.yaml"), &c), "");
    assert_int_equal(redis_conf_of(&c->redis, c->pool, &rc, &e), 1);
    assert_int_equal(rc.kind, REDIS_SINGLE);
    assert_int_equal(rc.db, 2);
    assert_string_equal(rc.servers[0].host, "one");
    assert_string_equal(rc.password, "cached");
    assert_null(rc.sentinel_password);
    assert_int_equal(redis_conf_of(&c->journal_redis, c->pool, &rc, &e), 1);
    assert_int_equal(rc.kind, REDIS_SENTINEL);
    assert_true(rc.tls && rc.verify);
    assert_int_equal(rc.nservers, 2);
    assert_int_equal(rc.servers[0].port, 7000);
    assert_string_equal(rc.username, "u");
    assert_string_equal(rc.password, "written");
    assert_string_equal(rc.sentinel_password, "written");
    assert_string_equal(c->journal_redis.prefix, "weir:");
    assert_int_equal(c->journal_redis_timeout_ms, 1000);
    assert_true(conf_has_journal(c));
    conf_unref(&c);
}

static void
every_example_passes_check_without_a_word(void **state)
{
    static const char *const names[] = { "minimal", "api", "microcache", "all-options" };
    char file[256];

    (void)state;
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    put_file("admin-token", "a\n", 0600);
    put_file("purge-token", "b\n", 0600);
    put_file("redis-password", "c\n", 0600);
    put_file("ca.pem", "", 0600);
    put_file("weir.pem", "", 0600);
    put_file("weir-key.pem", "", 0600);
    for (size_t i = 0; i < NELEM(names); i++) {
        struct conf *c = NULL;

        snprintf(file, sizeof file, SOURCE_DIR "/config/examples/%s.yaml", names[i]);
        assert_string_equal(first_problem(file, &c), "");
        assert_non_null(c);
        conf_unref(&c);
    }
}

#define OPTION(path, field, kind, def, min, max, applies, meaning) path,
#define REDIS_OPTION(word, field, kind, def, meaning) REDIS_AT word,
static const char *const top[] = {
#include "config/schema/top.def"
};
static const char *const listener[] = {
#include "config/schema/listen.def"
};
static const char *const origin[] = {
#include "config/schema/origin.def"
};
static const char *const route[] = {
#include "config/schema/route.def"
};
#undef OPTION
#undef REDIS_OPTION

/* The example is written in block style down to the options: a key is a line's first word. Returns
 * the line after the one that begins with `word:` below `from`, indented by `depth` at least. */
static const char *
find_word(const char *from, const char *end, const char *word, size_t n)
{
    for (const char *p = from; p != NULL && p < end; p = strchr(p, '\n'), p += p != NULL) {
        const char *w = p + strspn(p, " -");

        if (strncmp(w, word, n) == 0 && w[n] == ':')
            return w + n;
    }
    return NULL;
}

static void
all_of(const char *text, const char *section, const char *next, const char *const *paths, size_t n)
{
    const char *begin = section != NULL ? strstr(text, section) : text;
    const char *end = next != NULL ? strstr(text, next) : text + strlen(text);

    assert_non_null(begin);
    assert_non_null(end);
    for (size_t i = 0; i < n; i++) {
        const char *at = begin;

        for (const char *w = paths[i]; at != NULL && *w != '\0';) {
            size_t len = strcspn(w, ".");

            at = find_word(at, end, w, len);
            w += len + (w[len] == '.');
        }
        if (at == NULL)
            print_error("config/examples/all-options.yaml lacks %s\n", paths[i]);
        assert_non_null(at);
    }
}

static void
the_example_of_all_options_has_them_all(void **state)
{
    static char text[64 << 10];
    FILE *f = fopen(SOURCE_DIR "/config/examples/all-options.yaml", "r");
    size_t n;

    (void)state;
    assert_non_null(f);
    n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    fclose(f);
    all_of(text, NULL, "\nlisten:\n", top, NELEM(top));
    all_of(text, "\nlisten:\n", "\norigins:\n", listener, NELEM(listener));
    all_of(text, "\norigins:\n", "\nroutes:\n", origin, NELEM(origin));
    all_of(text, "\nroutes:\n", NULL, route, NELEM(route));
}

static int
make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int
remove_dir(void **state)
{
    static const char *const names[] = { "conf.yaml", "good", "empty", "words", "open",
        "admin-token", "purge-token", "redis-password", "ca.pem", "weir.pem", "weir-key.pem" };

    (void)state;
    for (size_t i = 0; i < NELEM(names); i++)
        unlink(path_of(names[i]));
    return rmdir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_cannot_be_read_says_why_and_what_to_do),
        cmocka_unit_test(token_files_are_read_and_judged),
        cmocka_unit_test(cache_and_journal_each_have_a_redis_of_their_own),
        cmocka_unit_test(every_example_passes_check_without_a_word),
        cmocka_unit_test(the_example_of_all_options_has_them_all),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
