/*
 * The admin port as the network meets it: framing, order, limits, time, and who may.
 */
#include "admin_kit.h"

static unsigned
occurrences(const char *text, const char *what)
{
    unsigned n = 0;

    for (; (text = strstr(text, what)) != NULL; text++)
        n++;
    return n;
}

static void
answers_have_the_fields_that_keep_them_out_of_caches_and_guesses(void **state)
{
    char *a = kit_talk(ASK("GET /healthz", ""));

    (void)state;
    assert_int_equal(kit_status(a), 200);
    assert_non_null(strstr(a, "\r\nCache-Control: no-store\r\n"));
    assert_non_null(strstr(a, "\r\nX-Content-Type-Options: nosniff\r\n"));
    assert_non_null(strstr(a, "\r\nContent-Length: 17\r\n"));
    assert_non_null(strstr(a, "\r\nDate: "));
    assert_non_null(strstr(a, "\r\n\r\n{\"status\": \"ok\"}\n"));
}

static void
every_get_answers(void **state)
{
    static const char *const paths[] = { "/", "/healthz", "/readyz", "/metrics", "/stats" };

    (void)state;
    for (size_t i = 0; i < NELEM(paths); i++) {
        char text[128];

        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST LAST "\r\n", paths[i]);
        kit_expect(text, 200);
    }
    assert_non_null(strstr(kit_talk("GET / HTTP/1.0\r\n" HOST "\r\n"), "POST /purge"));
}

static void
head_has_the_same_head_and_no_content(void **state)
{
    char *a =
        kit_talk("HEAD /healthz HTTP/1.1\r\n" HOST "\r\nGET /readyz HTTP/1.1\r\n" HOST LAST "\r\n");

    (void)state;
    assert_non_null(strstr(a, "Content-Length: 17\r\n"));
    assert_null(strstr(a, "\"ok\""));
    assert_non_null(strstr(a, "\"ready\": true"));
}

static void
a_request_may_come_byte_by_byte(void **state)
{
    static const char text[] = ASK("POST /purge", "Transfer-Encoding: chunked\r\n")
        "5;x=y\r\n{\"tag\r\n8\r\ns\":[\"a\"]\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n";
    int fd = kit_dial();

    (void)state;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        kit_send(fd, text + i, 1);
        if (i % 7 == 0)
            usleep(300);
    }
    assert_int_equal(kit_status(kit_receive(fd)), 200);
}

static void
pipelined_requests_are_answered_in_order(void **state)
{
    struct buf b = { 0 };
    char *a, *at;

    (void)state;
    for (int i = 0; i < 200; i++)
        buf_addz(&b, i % 2 ? "GET /readyz HTTP/1.1\r\n" HOST "\r\n" :
            "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 12\r\n\r\n{\"tag\": \"a\"}");
    buf_addz(&b, ASK("GET /nope", ""));
    buf_addc(&b, '\0');
    at = a = kit_talk(b.p);
    for (int i = 0; i < 200; i++) {
        at = strstr(at, i % 2 ? "\"ready\": true" : "\"done\": true");
        assert_non_null(at);
    }
    assert_non_null(strstr(at, "HTTP/1.1 404 "));
    assert_int_equal(occurrences(a, "HTTP/1.1 "), 201);
    buf_free(&b);
}

static void
what_could_smuggle_is_refused_and_the_connection_closed(void **state)
{
    static const struct { const char *text; int status; } vectors[] = {
        { "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 5\r\n"
            "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400 },
        { "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 400 },
        { "POST /purge HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\n12345", 400 },
        { "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n", 400 },
        { "POST /purge HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n", 400 },
        { "POST /purge HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
            "10000000000000003\r\nabc\r\n0\r\n\r\n", 400 },
        { "POST /purge HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n2\nab\n0\n\n", 400 },
        { "GET /healthz HTTP/1.1\nHost: localhost\n\n", 400 },
        { "GET /healthz HTTP/1.1\r\n" HOST HOST "\r\n", 400 },
        { "GET /healthz HTTP/1.1\r\n\r\n", 400 },
        { "GET /healthz HTTP/1.1\r\n" HOST "X : y\r\n\r\n", 400 },
        { "GET /healthz HTTP/1.1\r\n" HOST "X: y\r\n z\r\n\r\n", 400 },
        { "GET /healthz HTTP/1.257\r\n" HOST "\r\n", 400 },
        { "GET /healthz HTTP/2.0\r\n" HOST "\r\n", 505 },
        { "\x16\x03\x01\x02", 400 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(vectors); i++) {
        struct buf b = { 0 };
        char *a;

        buf_addz(&b, vectors[i].text);
        buf_addz(&b, "GET /healthz HTTP/1.1\r\n" HOST "\r\n");
        buf_addc(&b, '\0');
        a = kit_talk(b.p);
        if (kit_status(a) != vectors[i].status || occurrences(a, "HTTP/1.1 ") != 1)
            fail_msg("%s gave %s", vectors[i].text, a);
        assert_non_null(strstr(a, "application/problem+json"));
        assert_non_null(strstr(a, "\r\nConnection: close\r\n"));
        buf_free(&b);
    }
}

static void
a_head_that_is_too_large_is_refused(void **state)
{
    struct buf b = { 0 };

    (void)state;
    buf_addz(&b, "GET /healthz HTTP/1.1\r\n" HOST);
    for (int i = 0; i < 1000; i++)
        buf_addz(&b, "X-Filler: 01234567890123456789012345678901234567890123456789\r\n");
    buf_addz(&b, "\r\n");
    buf_addc(&b, '\0');
    assert_int_equal(kit_status(kit_talk(b.p)), 431);
    buf_free(&b);
}

static void
a_hundred_mebibytes_of_body_are_refused_and_the_answer_arrives(void **state)
{
    static char block[65536];
    static const char *const heads[] = {
        "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 104857600\r\n\r\n",
        "POST /purge HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n6400000\r\n",
    };

    (void)state;
    memset(block, 'x', sizeof block);
    for (size_t k = 0; k < NELEM(heads); k++) {
        int fd = kit_dial();

        kit_send(fd, heads[k], strlen(heads[k]));
        for (size_t i = 0; i < 1600; i++)
            kit_send(fd, block, sizeof block);
        shutdown(fd, SHUT_WR);
        assert_int_equal(kit_status(kit_receive(fd)), 413);
    }
}

static void
a_client_that_waits_for_100_continue_gets_it_or_the_refusal(void **state)
{
    char text[64] = "";
    int fd = kit_dial();
    static const char head[] = ASK("POST /purge", "Expect: 100-continue\r\nContent-Length: 12\r\n");

    (void)state;
    kit_send(fd, head, sizeof head - 1);
    assert_int_equal(recv(fd, text, 25, MSG_WAITALL), 25);
    assert_string_equal(text, "HTTP/1.1 100 Continue\r\n\r\n");
    kit_send(fd, "{\"tag\": \"a\"}", 12);
    assert_int_equal(kit_status(kit_receive(fd)), 200);
    assert_int_equal(kit_status(kit_talk(
        "POST /purge HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n")),
        413);
}

static void
a_host_or_origin_that_is_not_ours_is_refused(void **state)
{
    static const struct { const char *fields; int status; } vectors[] = {
        { "Host: localhost:1234\r\n", 200 }, { "Host: 127.0.0.1\r\n", 200 },
        { "Host: [::1]:80\r\n", 200 }, { "Host: ops.example:8081\r\n", 200 },
        { "Host: OPS.Example\r\n", 200 }, { "Host: evil.example\r\n", 421 },
        { "Host: 10.1.2.3\r\n", 421 }, { "Host: localhost.evil\r\n", 421 },
        { "Host: localhost:81\r\nOrigin: http://localhost:81\r\n", 200 },
        { "Host: localhost:81\r\nOrigin: http://localhost:82\r\n", 403 },
        { "Host: localhost\r\nOrigin: http://evil.example\r\n", 403 },
        { "Host: localhost\r\nOrigin: null\r\n", 403 },
        { "Host: localhost\r\nOrigin: https://ops.example\r\n", 200 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(vectors); i++) {
        char text[256], *a;

        snprintf(text, sizeof text, "GET /healthz HTTP/1.1\r\n%s" LAST "\r\n", vectors[i].fields);
        a = kit_talk(text);
        if (kit_status(a) != vectors[i].status)
            fail_msg("%s gave %s", vectors[i].fields, a);
    }
    assert_int_equal(kit_status(kit_talk("GET /healthz HTTP/1.0\r\n\r\n")), 421);
}

static void
without_the_token_nothing_is_done(void **state)
{
    static const struct { const char *field; int status; } vectors[] = {
        { "", 401 }, { "Authorization: Bearer wrong1\r\n", 401 },
        { "Authorization: Bearer secret1\r\n", 401 }, { "Authorization: Basic secret\r\n", 401 },
        { "Authorization: secret\r\n", 401 }, { "Authorization: Bearer secret\r\n", 200 },
        { "Authorization: bearer  secret\r\n", 200 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(vectors); i++) {
        char text[256], *a;
        int before = kit.reloads;

        snprintf(text, sizeof text, "POST /reload HTTP/1.1\r\n" HOST LAST "%s\r\n",
            vectors[i].field);
        a = kit_talk(text);
        if (kit_status(a) != vectors[i].status)
            fail_msg("%s gave %s", vectors[i].field, a);
        assert_int_equal(kit.reloads - before, vectors[i].status == 200);
        if (vectors[i].status == 401)
            assert_non_null(strstr(a, "\r\nWWW-Authenticate: Bearer"));
    }
}

static void
wrong_paths_methods_and_types_are_told_apart(void **state)
{
    char *a;

    (void)state;
    kit_expect(ASK("GET /healthz/x", ""), 404);
    a = kit_expect(ASK("DELETE /healthz", ""), 405);
    assert_non_null(strstr(a, "\r\nAllow: GET, HEAD\r\n"));
    a = kit_expect(ASK("GET /purge", ""), 405);
    assert_non_null(strstr(a, "\r\nAllow: POST\r\n"));
    a = kit_expect(ASK("POST /reload", "Content-Type: text/plain\r\n"), 415);
    a = kit_talk(ASK("POST /reload", "Content-Type: application/json; charset=utf-8\r\n"));
    assert_int_equal(kit_status(a), 200);
    assert_int_equal(kit.reloads, 1);
}

static void
a_refused_reload_says_why(void **state)
{
    char *a;

    (void)state;
    kit.refuse_reload = true;
    a = kit_expect(ASK("POST /reload", ""), 422);
    assert_non_null(strstr(a, "weir.yaml:3:1: ttl: \\\"x\\\" is no duration"));
}

static void
clients_that_leave_at_any_moment_leave_nothing_behind(void **state)
{
    static const char text[] =
        "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 12\r\n\r\n{\"tag\": \"a\"}"
        "GET /metrics HTTP/1.1\r\n" HOST "\r\nGET /stats HTTP/1.1\r\n" HOST "\r\n";
    struct linger reset = { .l_onoff = 1 };

    (void)state;
    for (size_t i = 0; i < sizeof text; i++) {
        int fd = kit_dial();

        kit_send(fd, text, i);
        if (i % 3 == 0)
            usleep(200);
        if (i % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    kit_expect(ASK("GET /healthz", ""), 200);
}

static void
slow_heads_and_bodies_get_408_and_a_hundred_and_first_connection_503(void **state)
{
    static const char head[] = "GET /healthz HTT",
        body[] = "POST /purge HTTP/1.1\r\n" HOST "Content-Length: 9\r\n\r\n{";
    int fds[100], more;
    int64_t start = now_us();

    (void)state;
    for (size_t i = 0; i < NELEM(fds); i++) {
        fds[i] = kit_dial();
        kit_send(fds[i], body, sizeof body - 1);
    }
    usleep(100000);
    more = kit_dial();
    assert_int_equal(kit_status(kit_receive(more)), 503);
    for (size_t i = 1; i < NELEM(fds); i += 2)
        close(fds[i]);
    usleep(100000);
    for (size_t i = 1; i < NELEM(fds); i += 2) {
        fds[i] = kit_dial();
        kit_send(fds[i], head, sizeof head - 1);
    }
    for (int k = 0; k < 9; k++) {       /* a byte now and then buys no time */
        usleep(1000000);
        kit_send(fds[0], " ", k < 5);
    }
    for (size_t i = 0; i < NELEM(fds); i++)
        assert_int_equal(kit_status(kit_receive(fds[i])), 408);
    assert_in_range(now_us() - start, 9000000, 18000000);
    kit_expect(ASK("GET /healthz", ""), 200);
}

static void
connections_that_ask_for_nothing_give_way_to_one_that_does(void **state)
{
    static const char head[] = "GET /healthz HTT";
    struct timeval soon = { .tv_sec = 5 };
    int fds[100];
    char byte;

    (void)state;
    for (size_t i = 0; i < NELEM(fds); i++) {
        fds[i] = kit_dial();
        kit_send(fds[i], head, i % 2 ? sizeof head - 1 : 0);
    }
    for (int k = 0; k < 3; k++)
        kit_expect(ASK("GET /healthz", ""), 200);
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    assert_int_equal(recv(fds[0], &byte, 1, 0), 0);     /* the oldest */
    assert_int_equal(recv(fds[99], &byte, 1, MSG_DONTWAIT), -1);
    for (size_t i = 0; i < NELEM(fds); i++)
        close(fds[i]);
}

static int
open_with_token(void **state)
{
    (void)state;
    return kit_start("secret");
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, kit_open, kit_stop)
    const struct CMUnitTest tests[] = {
        T(answers_have_the_fields_that_keep_them_out_of_caches_and_guesses), T(every_get_answers),
        T(head_has_the_same_head_and_no_content), T(a_request_may_come_byte_by_byte),
        T(pipelined_requests_are_answered_in_order),
        T(what_could_smuggle_is_refused_and_the_connection_closed),
        T(a_head_that_is_too_large_is_refused),
        T(a_hundred_mebibytes_of_body_are_refused_and_the_answer_arrives),
        T(a_client_that_waits_for_100_continue_gets_it_or_the_refusal),
        T(a_host_or_origin_that_is_not_ours_is_refused),
        cmocka_unit_test_setup_teardown(without_the_token_nothing_is_done, open_with_token,
            kit_stop),
        T(wrong_paths_methods_and_types_are_told_apart), T(a_refused_reload_says_why),
        T(clients_that_leave_at_any_moment_leave_nothing_behind),
        T(slow_heads_and_bodies_get_408_and_a_hundred_and_first_connection_503),
        T(connections_that_ask_for_nothing_give_way_to_one_that_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
