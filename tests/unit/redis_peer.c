/*
 * redis/ against peers that no Redis is: answers cut in the middle, garbage, absurd sizes, silence,
 * half-open connections; and names.
 */
#include "redis_kit.h"

static struct peer peer;
static struct rig rig;

static void
begin_with(void (*serve)(struct peer *, int, unsigned), struct redis_conf *conf)
{
    struct redis_server at;

    peer_start(&peer, serve);
    at = (struct redis_server){ "127.0.0.1", peer.port };
    conf->servers = &at;
    conf->nservers = 1;
    conf->connect_ms = conf->connect_ms > 0 ? conf->connect_ms : 2000;
    rig_start(&rig, conf);
}

static void
begin(void (*serve)(struct peer *, int, unsigned))
{
    struct redis_conf conf = { 0 };

    begin_with(serve, &conf);
}

static void
end(void)
{
    rig_stop(&rig);
    peer_stop(&peer);
}

static void
step_to(int n)
{
    atomic_store(&peer.step, n);
}

static void
await_step(struct peer *p, int n)
{
    while (atomic_load(&p->step) < n)
        poll(NULL, 0, 1);
}

/* ---- what is no answer --------------------------------------------------------------------- */

static void
serve_garbage(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    if (!peer_greet(fd, text, sizeof text))
        return;
    peer_say(fd, nth == 0 ? "HTTP/1.1 400 Bad Request\r\n\r\n" : "+fine\r\n");
    peer_greet(fd, text, sizeof text);
}

static void
garbage_is_a_protocol_error_and_the_next_connection_is_as_good_as_any(void **state)
{
    (void)state;
    begin(serve_garbage);
    assert_int_equal(ask(&rig, "GET a"), REDIS_PROTOCOL);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_string_equal(one.answer, "fine");
    assert_int_equal(atomic_load(&peer.accepted), 2);
    end();
}

static void
serve_absurd(struct peer *p, int fd, unsigned nth)
{
    static const char *const claims[] = { "*2147483647\r\n", "*99999999999999999999\r\n",
        "$-7\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        "HTTP/1.1 400 Bad Request\r\n" };
    char text[256];

    (void)p;
    if (!peer_greet(fd, text, sizeof text))
        return;
    peer_say(fd, claims[nth % NELEM(claims)]);
    peer_greet(fd, text, sizeof text);
}

static void
a_claim_of_absurd_size_is_refused_before_anything_is_allocated(void **state)
{
    (void)state;
    begin(serve_absurd);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(&rig, "GET a"), REDIS_PROTOCOL);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);   /* its log line says what it read last */
    end();
}

static void
serve_endless(struct peer *p, int fd, unsigned nth)
{
    char text[256], many[65536];

    (void)nth;
    memset(many, 'x', sizeof many - 1);
    many[sizeof many - 1] = '\0';
    if (!peer_greet(fd, text, sizeof text))
        return;
    peer_say(fd, "$999999999\r\n");
    while (send(fd, many, sizeof many, MSG_NOSIGNAL) > 0)
        atomic_fetch_add(&p->step, 1);
}

static void
a_reply_larger_than_the_bound_closes_the_connection(void **state)
{
    struct redis_conf conf = { .reply_max = 1 << 20 };

    (void)state;
    begin_with(serve_endless, &conf);
    assert_int_equal(ask(&rig, "GET a"), REDIS_PROTOCOL);
    end();
    assert_true(atomic_load(&peer.step) < 512);         /* 32 MiB: what sockets hold, and the bound */
}

static void
serve_cut(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    if (!peer_greet(fd, text, sizeof text))
        return;
    peer_say(fd, nth == 0 ? "*2\r\n$10\r\nabc" : "+whole\r\n");
    if (nth > 0)
        peer_greet(fd, text, sizeof text);
}

static void
an_answer_cut_in_the_middle_is_none(void **state)
{
    (void)state;
    begin(serve_cut);
    assert_int_equal(ask(&rig, "GET a"), REDIS_CLOSED);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_string_equal(one.answer, "whole");
    end();
}

static void
serve_unasked(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    if (!peer_greet(fd, text, sizeof text))
        return;
    peer_say(fd, nth == 0 ? "+mine\r\n+whose?\r\n" : "+mine\r\n");
    peer_greet(fd, text, sizeof text);
}

static void
an_answer_that_nobody_asked_for_is_given_to_nobody(void **state)
{
    (void)state;
    begin(serve_unasked);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OK);
    assert_string_equal(one.answer, "mine");
    end();
}

/* ---- silence ------------------------------------------------------------------------------- */

static void
serve_half_open(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    while (peer_greet(fd, text, sizeof text))
        if (nth > 0 || strcmp(text, "GET first") == 0)
            peer_say(fd, "+here\r\n");
}

static void
a_half_open_connection_costs_one_deadline_and_is_replaced(void **state)
{
    (void)state;
    begin(serve_half_open);
    assert_int_equal(ask(&rig, "GET first"), REDIS_OK);
    assert_int_equal(ask_within(&rig, 50, "GET second"), REDIS_TIMEOUT);
    ask_until(&rig, "GET second", REDIS_OK);
    assert_int_equal(atomic_load(&peer.accepted), 2);
    end();
}

/* The first connection answers its greeting and one command, no PING behind them. */
static void
serve_leaving(struct peer *p, int fd, unsigned nth)
{
    char text[256];
    bool gone = false;

    (void)p;
    while (peer_command(fd, text, sizeof text)) {
        if (!gone)
            peer_say(fd, "+here\r\n");
        gone = gone || (nth == 0 && strcmp(text, "GET first") == 0);
    }
}

static void
a_connection_that_idles_is_found_dead_before_a_command_pays_for_it(void **state)
{
    struct redis_conf conf = { .connect_ms = 300, .idle_ms = 100 };

    (void)state;
    begin_with(serve_leaving, &conf);
    assert_int_equal(ask(&rig, "GET first"), REDIS_OK);
    while (atomic_load(&peer.accepted) < 2)
        poll(NULL, 0, 1);
    ask_until(&rig, "GET second", REDIS_OK);
    assert_int_equal(sum_of(&rig).failed[REDIS_TIMEOUT], 1);    /* the PING */
    end();
}

static void
serve_never(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    (void)nth;
    while (peer_command(fd, text, sizeof text))
        ;
}

static void
a_server_that_never_greets_is_found_out_within_the_deadline(void **state)
{
    struct redis_conf conf = { .connect_ms = 300 };

    (void)state;
    begin_with(serve_never, &conf);
    assert_int_equal(ask_within(&rig, 50, "GET a"), REDIS_TIMEOUT);
    assert_true(one.took_us < LONG_MS * 1000);
    assert_int_equal(ask_within(&rig, LONG_MS, "GET a"), REDIS_TIMEOUT);       /* connect_ms */
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    end();
}

static void
serve_late(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)nth;
    if (!peer_greet(fd, text, sizeof text))
        return;
    await_step(p, 1);                   /* both are sent */
    peer_say(fd, "$3\r\n");
    await_step(p, 2);                   /* the first has ended */
    peer_say(fd, "one\r\n$3\r\ntwo\r\n");
    peer_greet(fd, text, sizeof text);
    peer_greet(fd, text, sizeof text);
}

static void
a_late_answer_is_thrown_away_in_its_turn(void **state)
{
    struct shot a, b;

    (void)state;
    begin(serve_late);
    shoot(&a, &rig, 200, "GET one");
    shoot(&b, &rig, LONG_MS, "GET two");
    step_to(1);
    assert_int_equal(await_shot(&a), REDIS_TIMEOUT);
    step_to(2);
    assert_int_equal(await_shot(&b), REDIS_OK);
    assert_string_equal(b.answer, "two");
    assert_int_equal(atomic_load(&peer.accepted), 1);
    end();
}

static void
serve_stuck(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    if (!peer_greet(fd, text, sizeof text))
        return;
    peer_say(fd, nth == 0 ? "$10\r\nabc" : "+whole\r\n");
    peer_greet(fd, text, sizeof text);
    peer_greet(fd, text, sizeof text);
}

static void
an_answer_that_stops_in_the_middle_does_not_hold_the_connection_for_ever(void **state)
{
    struct redis_conf conf = { .connect_ms = 200 };

    (void)state;
    begin_with(serve_stuck, &conf);
    assert_int_equal(ask_within(&rig, 50, "GET a"), REDIS_TIMEOUT);
    assert_int_equal(ask(&rig, "GET a"), REDIS_TIMEOUT);
    ask_until(&rig, "GET a", REDIS_OK);
    end();
}

/* ---- the breaker, the pool ----------------------------------------------------------------- */

static void
serve_closing(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)p;
    (void)nth;
    peer_greet(fd, text, sizeof text);
}

static void
a_server_that_closes_again_and_again_is_not_asked_for_a_while(void **state)
{
    (void)state;
    begin(serve_closing);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(&rig, "GET a"), REDIS_CLOSED);
    assert_int_equal(ask(&rig, "GET a"), REDIS_OPEN);
    end();
}

static void
serve_from_step_one(struct peer *p, int fd, unsigned nth)
{
    char text[256];

    (void)nth;
    while (peer_greet(fd, text, sizeof text)) {
        await_step(p, 1);
        peer_say(fd, "+here\r\n");
    }
}

static void
the_pool_grows_to_its_size_while_connections_are_busy(void **state)
{
    struct redis_conf conf = { .pool = 3 };
    static struct shot shots[1000];
    size_t n = 0;

    (void)state;
    begin_with(serve_from_step_one, &conf);
    for (; n < NELEM(shots) && (n < 60 || atomic_load(&peer.accepted) < 3); n++) {
        shoot(&shots[n], &rig, LONG_MS, "GET a");
        poll(NULL, 0, n < 60 ? 0 : 1);          /* one more when the one before is ready */
    }
    step_to(1);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(await_shot(&shots[i]), REDIS_OK);
    assert_int_equal(atomic_load(&peer.accepted), 3);
    end();
}

/* ---- secrets ------------------------------------------------------------------------------- */

static void
serve_telltale(struct peer *p, int fd, unsigned nth)
{
    char text[256], answer[512];

    (void)p;
    (void)nth;
    while (peer_command(fd, text, sizeof text)) {
        snprintf(answer, sizeof answer, "-ERR unknown command, with args beginning with: %s\r\n",
            text);
        peer_say(fd, answer);
    }
}

static void
a_password_that_the_server_repeats_is_not_logged(void **state)
{
    struct redis_conf conf = { .username = "weir", .password = "opensesame" };
    struct tap tap;

    (void)state;
    tap_log(&tap);
    begin_with(serve_telltale, &conf);
    assert_int_equal(ask(&rig, "GET a"), REDIS_AUTH);
    end();
    assert_int_equal(untap_log(&tap, "opensesame"), 0);
}

/* ---- names --------------------------------------------------------------------------------- */

static void
a_name_of_the_hosts_file_is_resolved(void **state)
{
    struct redis_server at = { "localhost", 0 };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000 };

    (void)state;
    peer_start(&peer, serve_half_open);
    at.port = peer.port;
    rig_start(&rig, &conf);
    assert_int_equal(ask(&rig, "GET first"), REDIS_OK);
    end();
}

static void
a_name_that_no_one_knows_is_no_connection(void **state)
{
    struct redis_server at = { "weir-redis.invalid", 6379 };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 500 };
    enum redis_cause c;

    (void)state;
    rig_start(&rig, &conf);
    c = ask(&rig, "GET first");
    assert_true(c == REDIS_REFUSED || c == REDIS_TIMEOUT);      /* as the machine's resolver is */
    assert_int_equal(ask(&rig, "GET first"), REDIS_OPEN);
    rig_stop(&rig);
}

static void
a_client_may_be_freed_while_commands_wait(void **state)
{
    struct shot waits, sent;

    (void)state;
    begin(serve_never);
    shoot(&waits, &rig, LONG_MS, "GET a");
    end();
    begin(serve_from_step_one);
    shoot(&sent, &rig, LONG_MS, "GET a");
    rig_stop(&rig);
    step_to(1);
    peer_stop(&peer);
    assert_int_equal(waits.ended + sent.ended, 0);
}

static void
an_address_of_ipv6_is_one(void **state)
{
    struct redis_server at = { "::1", 1 };
    struct redis_conf conf = { .servers = &at, .nservers = 1, .connect_ms = 2000 };

    (void)state;
    rig_start(&rig, &conf);
    assert_int_equal(ask(&rig, "GET first"), REDIS_REFUSED);
    rig_stop(&rig);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_is_a_protocol_error_and_the_next_connection_is_as_good_as_any),
        cmocka_unit_test(a_claim_of_absurd_size_is_refused_before_anything_is_allocated),
        cmocka_unit_test(a_reply_larger_than_the_bound_closes_the_connection),
        cmocka_unit_test(an_answer_cut_in_the_middle_is_none),
        cmocka_unit_test(an_answer_that_nobody_asked_for_is_given_to_nobody),
        cmocka_unit_test(a_half_open_connection_costs_one_deadline_and_is_replaced),
        cmocka_unit_test(a_connection_that_idles_is_found_dead_before_a_command_pays_for_it),
        cmocka_unit_test(a_server_that_never_greets_is_found_out_within_the_deadline),
        cmocka_unit_test(a_late_answer_is_thrown_away_in_its_turn),
        cmocka_unit_test(an_answer_that_stops_in_the_middle_does_not_hold_the_connection_for_ever),
        cmocka_unit_test(a_server_that_closes_again_and_again_is_not_asked_for_a_while),
        cmocka_unit_test(the_pool_grows_to_its_size_while_connections_are_busy),
        cmocka_unit_test(a_password_that_the_server_repeats_is_not_logged),
        cmocka_unit_test(a_name_of_the_hosts_file_is_resolved),
        cmocka_unit_test(a_name_that_no_one_knows_is_no_connection),
        cmocka_unit_test(a_client_may_be_freed_while_commands_wait),
        cmocka_unit_test(an_address_of_ipv6_is_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
