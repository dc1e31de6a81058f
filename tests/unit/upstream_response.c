/* What an origin may send, and what becomes of it and of its connection. */
#include "upstream_kit.h"

#define OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static const char *answer;              /* of the script below; set before it starts */

static void
serve_answer(struct script *s, int fd, unsigned nth)
{
    char head[4096];

    (void)nth;
    while (read_head(s, fd, head, sizeof head))
        say(fd, answer);
}

static void
serve_answer_and_close(struct script *s, int fd, unsigned nth)
{
    char head[4096];

    (void)nth;
    if (read_head(s, fd, head, sizeof head))
        say(fd, answer);
}

static void
serve_bytewise(struct script *s, int fd, unsigned nth)
{
    char head[4096];

    (void)nth;
    while (read_head(s, fd, head, sizeof head))
        for (const char *p = answer; *p != '\0'; p++) {
            if (send(fd, p, 1, MSG_NOSIGNAL) < 0)
                return;
            if (p - answer < 60 || (p - answer) % 7 == 0)
                nap_ms(1);
        }
}

/* The end of the body comes later than the head, and together with what stands behind it. */
static void
serve_in_two(struct script *s, int fd, unsigned nth)
{
    char head[4096];
    size_t first = strlen(answer) - 8;

    (void)nth;
    while (read_head(s, fd, head, sizeof head)) {
        if (send(fd, answer, first, MSG_NOSIGNAL) < 0)
            return;
        nap_ms(30);
        say(fd, answer + first);
    }
}

static void
expect_two(const char *method, const char *text, const char *body, unsigned connections)
{
    struct script sc;
    struct kit k;
    struct shot s;

    answer = text;
    kit_one(&k, 1, &sc, serve_answer);
    kit_open(&k);
    for (int i = 0; i < 2; i++) {
        shot_do(&s, &k, 0, method);
        assert_int_equal(s.ends, 1);
        assert_body(&s, body);
        assert_int_equal(s.times.reused, i == 1 && connections == 1);
        shot_fini(&s);
        nap_ms(20);
    }
    assert_int_equal(atomic_load(&sc.accepted), connections);
    kit_end(&k, &sc);
}

static void
expect_fault(void (*serve)(struct script *, int, unsigned), const char *method, const char *text,
    const char *cause, bool mid_body)
{
    struct script sc;
    struct kit k;
    struct shot s;

    answer = text;
    kit_one(&k, 1, &sc, serve);
    k.conf.retry_attempts = 0;
    kit_open(&k);
    shot_do(&s, &k, 0, method);
    assert_fault(&s, 502, cause);
    assert_int_equal(s.fault.mid_body, mid_body);
    assert_true(s.fault.reached);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
a_connection_is_kept_and_used_again(void **state)
{
    (void)state;
    expect_two("GET", OK_TEXT, "hello", 1);
}

static void
a_response_to_head_has_no_body_whatever_its_length_says(void **state)
{
    (void)state;
    expect_two("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", 1);
}

static void
a_304_and_a_204_have_no_body(void **state)
{
    (void)state;
    expect_two("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", 1);
    expect_two("GET", "HTTP/1.1 204 No Content\r\n\r\n", "", 1);
}

static void
connection_close_is_believed(void **state)
{
    (void)state;
    expect_two("GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "hello", 2);
    expect_two("GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 2);
}

static void
more_than_was_promised_is_a_fault_before_the_head_is_passed_on(void **state)
{
    (void)state;
    expect_fault(serve_answer, "GET", OK_TEXT "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "http_protocol_error", false);
    expect_fault(serve_answer, "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx",
        "http_protocol_error", false);
    expect_fault(serve_answer, "GET", "HTTP/1.1 304 Not Modified\r\n\r\nhello",
        "http_protocol_error", false);
    expect_fault(serve_answer, "GET", "HTTP/1.1 204 No Content\r\n\r\nhello",
        "http_protocol_error", false);
    expect_fault(serve_answer, "HEAD", OK_TEXT, "http_protocol_error", false);
    expect_fault(serve_answer, "GET", CHUNKED "5\r\nhello\r\n0\r\n\r\nx",
        "http_protocol_error", false);
    expect_fault(serve_answer, "GET", CHUNKED "5\r\nhello!", "http_protocol_error", false);
}

static void
more_than_was_promised_behind_the_body_is_a_fault_and_no_end(void **state)
{
    (void)state;
    expect_fault(serve_in_two, "GET", CHUNKED "5\r\nhello\r\n0\r\n\r\nx", "http_protocol_error",
        true);
    expect_fault(serve_in_two, "GET", OK_TEXT "EXTRA", "http_protocol_error", true);
}

static void
a_chunked_response_may_be_split_anywhere(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 7\r\n\r\n";
    kit_one(&k, 1, &sc, serve_bytewise);
    kit_open(&k);
    for (int i = 0; i < 2; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_int_equal(s.ends, 1);
        assert_body(&s, "hello");
        assert_memory_equal(s.trailer.p, "X-Sum: 7\r\n", s.trailer.n);
        assert_int_equal(s.trailer.n, 10);
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&sc.accepted), 1);
    kit_end(&k, &sc);
}

static void
a_body_may_end_with_the_connection(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    answer = "HTTP/1.1 200 OK\r\n\r\nall of it";
    kit_one(&k, 1, &sc, serve_answer_and_close);
    kit_open(&k);
    shot_do(&s, &k, 0, "GET");
    assert_int_equal(s.ends, 1);
    assert_body(&s, "all of it");
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
a_truncated_response_is_a_fault_in_mid_body(void **state)
{
    (void)state;
    expect_fault(serve_answer_and_close, "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "http_response_incomplete", true);
    expect_fault(serve_answer_and_close, "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "http_response_incomplete", true);
    expect_fault(serve_answer_and_close, "GET", "HTTP/1.1 200 OK\r\nContent-Le",
        "http_response_incomplete", false);
    expect_fault(serve_answer_and_close, "GET", "", "connection_terminated", false);
}

static void
rubbish_and_ambiguous_framing_are_refused(void **state)
{
    static const char *const texts[] = {
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    };

    (void)state;
    for (size_t i = 0; i < NELEM(texts); i++)
        expect_fault(serve_answer, "GET", texts[i], "http_protocol_error", false);
    expect_fault(serve_answer, "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "http_protocol_error", false);
    expect_fault(serve_in_two, "GET", CHUNKED "5\r\nhello\r\na!\r\nhello", "http_protocol_error",
        true);
}

static void
a_head_over_64_kib_is_refused(void **state)
{
    static char text[70000];

    (void)state;
    memset(text, 'a', sizeof text - 1);
    memcpy(text, "HTTP/1.1 200 OK\r\nX: ", 20);
    expect_fault(serve_answer, "GET", text, "http_response_header_section_size", false);
}

static void
interim_responses_are_passed_on_but_100_is_not(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" OK_TEXT;
    kit_one(&k, 1, &sc, serve_answer);
    kit_open(&k);
    for (int i = 0; i < 2; i++) {
        shot_do(&s, &k, 0, "GET");
        assert_int_equal(s.interims, 1);
        assert_int_equal(s.continues, 0);
        assert_int_equal(s.status, 200);
        assert_memory_equal(s.interim_fields.p, "Link: </a>\r\n", 12);
        assert_body(&s, "hello");
        shot_fini(&s);
    }
    assert_int_equal(atomic_load(&sc.accepted), 1);
    kit_end(&k, &sc);
}

static void
endless_interim_responses_are_a_fault(void **state)
{
    static char text[8000];

    (void)state;
    text[0] = '\0';
    for (int i = 0; i < 100; i++)
        strcat(text, "HTTP/1.1 103 Early Hints\r\n\r\n");
    expect_fault(serve_answer, "GET", text, "http_protocol_error", false);
}

static void
serve_then_babble(struct script *s, int fd, unsigned nth)
{
    char head[4096];

    while (read_head(s, fd, head, sizeof head)) {
        say(fd, OK_TEXT);
        if (nth == 0) {
            nap_ms(30);
            say(fd, OK_TEXT);
        }
    }
}

static void
bytes_on_an_idle_connection_close_it(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_then_babble);
    kit_open(&k);
    shot_hello(&k, 0);
    await_connections(0);
    shot_do(&s, &k, 0, "GET");
    assert_body(&s, "hello");
    assert_false(s.times.reused);
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
serve_tunnel(struct script *s, int fd, unsigned nth)
{
    char head[4096];
    ssize_t n;

    (void)nth;
    if (!read_head(s, fd, head, sizeof head))
        return;
    assert_non_null(strstr(head, "\r\nConnection: upgrade\r\nUpgrade: echo\r\n"));
    say(fd, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi ");
    while ((n = recv(fd, head, sizeof head, 0)) > 0)
        if (send(fd, head, (size_t)n, MSG_NOSIGNAL) < 0)
            return;
    say(fd, " bye");
}

static void
tunnel_hook(struct shot *s, enum when w)
{
    if (w == ON_HEAD)
        exchange_send(s->x, SLICE("ping"));
    else if (w == ON_DATA && s->body.n == 7)
        exchange_send_end(s->x, (struct slice){ NULL, 0 });
}

static void
an_upgrade_becomes_a_tunnel(void **state)
{
    struct script sc;
    struct kit k;
    struct shot s;

    (void)state;
    kit_one(&k, 1, &sc, serve_tunnel);
    kit_open(&k);
    shot_init(&s, &k, 0, "GET");
    s.r.upgrade = SLICE("echo");
    s.hook = tunnel_hook;
    shot_fire(&s);
    shot_wait(&s);
    assert_int_equal(s.status, 101);
    assert_int_equal(s.ends, 1);
    assert_body(&s, "hi ping bye");
    shot_fini(&s);
    kit_end(&k, &sc);
}

static void
only_the_protocol_that_was_asked_for_may_be_switched_to(void **state)
{
    static const struct { const char *fields; bool ok; } cases[] = {
        { "Connection: upgrade\r\nUpgrade: echo\r\n", true },
        { "Connection: Upgrade\r\nUpgrade: , ECHO\r\n", true },
        { "Connection: upgrade\r\nUpgrade: h2c\r\n", false },
        { "Connection: upgrade\r\nUpgrade: echo, h2c\r\n", false },
        { "Connection: upgrade\r\nUpgrade: echo\r\nUpgrade: echo\r\n", false },
        { "Connection: upgrade\r\nUpgrade: echo/2\r\n", false },
        { "Connection: upgrade\r\nUpgrade:\r\n", false },
        { "Connection: upgrade\r\n", false },
        { "Upgrade: echo\r\n", false },
    };
    char text[200];

    (void)state;
    for (size_t i = 0; i < NELEM(cases); i++) {
        struct script sc;
        struct kit k;
        struct shot s;

        snprintf(text, sizeof text, "HTTP/1.1 101 Switching Protocols\r\n%s\r\n", cases[i].fields);
        answer = text;
        kit_one(&k, 1, &sc, serve_answer_and_close);
        kit_open(&k);
        shot_init(&s, &k, 0, "GET");
        s.r.upgrade = SLICE("echo");
        shot_fire(&s);
        shot_wait(&s);
        assert_int_equal(s.ends, cases[i].ok);
        assert_int_equal(s.faults, !cases[i].ok);
        if (!cases[i].ok)
            assert_int_equal(s.fault.status, 502);
        shot_fini(&s);
        kit_end(&k, &sc);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_kept_and_used_again),
        cmocka_unit_test(a_response_to_head_has_no_body_whatever_its_length_says),
        cmocka_unit_test(a_304_and_a_204_have_no_body),
        cmocka_unit_test(connection_close_is_believed),
        cmocka_unit_test(more_than_was_promised_is_a_fault_before_the_head_is_passed_on),
        cmocka_unit_test(more_than_was_promised_behind_the_body_is_a_fault_and_no_end),
        cmocka_unit_test(a_chunked_response_may_be_split_anywhere),
        cmocka_unit_test(a_body_may_end_with_the_connection),
        cmocka_unit_test(a_truncated_response_is_a_fault_in_mid_body),
        cmocka_unit_test(rubbish_and_ambiguous_framing_are_refused),
        cmocka_unit_test(a_head_over_64_kib_is_refused),
        cmocka_unit_test(interim_responses_are_passed_on_but_100_is_not),
        cmocka_unit_test(endless_interim_responses_are_a_fault),
        cmocka_unit_test(bytes_on_an_idle_connection_close_it),
        cmocka_unit_test(an_upgrade_becomes_a_tunnel),
        cmocka_unit_test(only_the_protocol_that_was_asked_for_may_be_switched_to),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
