/*
 * Who is asked, in which order, what becomes of errors, and what a hook may do.
 */
#include "plugin_kit.h"

/* ---- who is asked ---------------------------------------------------------------------------- */

static char order[64];                  /* who was asked: '1', '2' ... */
static int says[4];                     /* what they return, from the first */
static unsigned answer_by;              /* who answers before that */

static int
told(unsigned hook, size_t plugin, struct weir_request *r)
{
    (void)hook;
    strncat(order, &"?123"[plugin], 1);
    if (answer_by == plugin)
        (void)host->answer(r, 203, NULL, text("mine"));
    return says[plugin - 1];
}

static enum plugin_verdict
run(struct asked *a, enum plugin_hook hook, int first, int second, int third)
{
    order[0] = '\0';
    says[0] = first;
    says[1] = second;
    says[2] = third;
    relay->hook = told;
    return plugin_run(a->r, hook);
}

static void
all_are_asked_in_their_order(void **state)
{
    struct asked a;

    (void)state;
    ask_begin(&a, 3, false, 1000);
    for (unsigned hook = 0; hook < PLUGIN_HOOKS_N; hook++) {
        assert_int_equal(run(&a, hook, WEIR_NEXT, WEIR_NEXT, WEIR_NEXT), PLUGIN_NEXT);
        assert_string_equal(order, "123");
    }
    ask_end(&a);
}

static void
a_plugin_is_asked_at_the_hooks_that_it_needs_alone(void **state)
{
    struct asked a;

    (void)state;
    relay->only = HOOK_BIT(DELIVER) | HOOK_BIT(DONE);
    relay->route_only = HOOK_BIT(DONE) | HOOK_BIT(KEY);     /* no more than the whole needs */
    ask_begin(&a, 2, false, 1000);
    relay->only = relay->route_only = 0;
    assert_int_equal(a.uses->hooks, HOOK_BIT(DONE));
    assert_int_equal(run(&a, HOOK_DELIVER, WEIR_FAILED, WEIR_FAILED, 0), PLUGIN_NEXT);
    assert_string_equal(order, "");
    assert_int_equal(run(&a, HOOK_DONE, WEIR_NEXT, WEIR_NEXT, 0), PLUGIN_NEXT);
    assert_string_equal(order, "12");
    host->only(relay->self, 0);                             /* too late */
    ask_end(&a);
}

static void
an_answer_ends_the_asking(void **state)
{
    struct asked a;

    (void)state;
    ask_begin(&a, 3, false, 1000);
    answer_by = 2;
    assert_int_equal(run(&a, HOOK_REQUEST, WEIR_NEXT, WEIR_ANSWERED, WEIR_NEXT), PLUGIN_ANSWERED);
    assert_string_equal(order, "12");
    assert_int_equal(a.r->answer_status, 203);
    assert_string_equal(a.r->answer_type, "text/plain");
    assert_true(slice_eq(a.r->answer_body, SLICE("mine")));
    answer_by = 0;
    ask_end(&a);
}

static void
an_answer_that_its_plugin_does_not_stand_by_is_none(void **state)
{
    struct asked a;

    (void)state;
    ask_begin(&a, 3, true, 1000);
    answer_by = 1;
    assert_int_equal(run(&a, HOOK_REQUEST, WEIR_NEXT, WEIR_NEXT, WEIR_NEXT), PLUGIN_NEXT);
    assert_int_equal(a.r->answer_status, 0);
    assert_int_equal(run(&a, HOOK_REQUEST, WEIR_FAILED, WEIR_ANSWERED, WEIR_NEXT), PLUGIN_NEXT);
    assert_string_equal(order, "123");          /* the second has none of its own */
    assert_int_equal(a.r->answer_status, 0);
    answer_by = 0;
    ask_end(&a);
}

static void
an_error_ends_the_request_or_is_skipped(void **state)
{
    static const int wrong[] = { WEIR_FAILED, 77, WEIR_ANSWERED, WEIR_SUSPENDED };

    (void)state;
    for (size_t i = 0; i < NELEM(wrong); i++)
        for (int skip = 0; skip < 2; skip++) {
            struct asked a;
            uint64_t before;

            ask_begin(&a, 3, skip != 0, 1000);
            before = errors_at(&a, HOOK_KEY);
            assert_int_equal(run(&a, HOOK_KEY, WEIR_NEXT, wrong[i], WEIR_NEXT),
                skip ? PLUGIN_NEXT : PLUGIN_FAILED);
            assert_string_equal(order, skip ? "123" : "12");
            assert_int_equal(errors_at(&a, HOOK_KEY), before + 1);
            assert_string_equal(a.r->by, "relay");
            ask_end(&a);
        }
}

/* ---- what it may do -------------------------------------------------------------------------- */

static struct weir_ticket *ticket;

static bool set_request(struct weir_request *r)
{ return host->set_field(r, WEIR_OF_REQUEST, "X-A", text("2")) == 0; }
static bool add_request(struct weir_request *r)
{ return host->add_field(r, WEIR_OF_REQUEST, "X-A", text("2")) == 0; }
static bool set_response(struct weir_request *r)
{ return host->set_field(r, WEIR_OF_RESPONSE, "X-A", text("2")) == 0; }
static bool set_key(struct weir_request *r) { return host->add_key(r, "k", text("v")) == 0; }
static bool set_tag(struct weir_request *r) { return host->add_tag(r, text("t")) == 0; }
static bool set_ttl(struct weir_request *r) { return host->set_ttl(r, 1, 0) == 0; }
static bool pass(struct weir_request *r) { return host->mark(r, WEIR_MARK_PASS) == 0; }
static bool no_store(struct weir_request *r) { return host->mark(r, WEIR_MARK_NO_STORE) == 0; }
static bool authorized(struct weir_request *r) { return host->mark(r, WEIR_MARK_AUTHORIZED) == 0; }
static bool answer(struct weir_request *r)
{ return host->answer(r, 200, NULL, text("a")) == WEIR_ANSWERED; }
static bool refuse(struct weir_request *r) { return host->refuse(r, 403, "no") == WEIR_ANSWERED; }
static bool suspend(struct weir_request *r) { return (ticket = host->suspend(r)) != NULL; }

#define ON_KEY (HOOK_BIT(REQUEST) | HOOK_BIT(KEY))
static const struct { bool (*does)(struct weir_request *r); unsigned hooks; } acts[] = {
    { set_request, ON_KEY }, { add_request, ON_KEY },
    { set_response, ON_KEY | HOOK_BIT(RESPONSE) | HOOK_BIT(DELIVER) },
    { set_key, ON_KEY }, { set_tag, ON_KEY | HOOK_BIT(RESPONSE) | HOOK_BIT(STORE) },
    { set_ttl, HOOK_BIT(RESPONSE) }, { pass, ON_KEY },
    { no_store, HOOK_BIT(RESPONSE) | HOOK_BIT(STORE) }, { authorized, ON_KEY },
    { answer, ON_KEY }, { refuse, ON_KEY }, { suspend, ON_KEY | HOOK_BIT(DELIVER) },
};
static size_t act;
static bool did;

static int
acting(unsigned hook, size_t plugin, struct weir_request *r)
{
    (void)hook, (void)plugin;
    did = acts[act].does(r);
    return WEIR_NEXT;
}

/* Has anything of it been changed by a plugin? */
static bool
is_changed(const struct weir_request *r)
{
    return r->edited[0] || r->edited[1] || r->nedits > 0 || r->keys.n > 0 || r->tags.n > 0 ||
        r->ttl_ms != -1 || r->pass || r->no_store || r->authorized || r->answer_status != 0 ||
        r->ticket != NULL;
}

static void
a_hook_does_what_its_place_allows_and_nothing_else(void **state)
{
    struct loop *loop = loop_new(0, NULL);

    (void)state;
    for (act = 0; act < NELEM(acts); act++)
        for (unsigned hook = 0; hook < PLUGIN_HOOKS_N; hook++) {
            struct asked a;

            ask_begin(&a, 1, false, 1000);
            a.r->loop = loop;
            ticket = NULL;
            relay->hook = acting;
            assert_int_equal(plugin_run(a.r, hook), PLUGIN_NEXT);
            if (did != ((acts[act].hooks >> hook & 1) != 0))
                fail_msg("act %zu at hook %u", act, hook);
            if (!did)
                assert_false(is_changed(a.r));
            if (ticket != NULL)
                host->resume(ticket);
            assert_false(acts[act].does(a.r));  /* outside of any hook */
            ask_end(&a);
        }
    loop_free(&loop);
}

static int
editing(unsigned hook, size_t plugin, struct weir_request *r)
{
    static const char *const never[] = { "Connection", "Keep-Alive", "Transfer-Encoding", "TE",
        "Upgrade", "Content-Length", "Via", "Proxy-Connection", "a b", "", "a:" };
    static const char *const of_request[] = { "Host", "Expect", "CDN-Loop" };
    static const char *const values[] = { "a\r\nB: c", "a\nb", " a", "a ", "\x01" };
    struct weir_text none = { NULL, 0 };

    (void)hook, (void)plugin;
    for (size_t i = 0; i < NELEM(never); i++)
        for (int which = 0; which < 2; which++) {
            assert_int_equal(host->set_field(r, which, never[i], text("a")), -1);
            assert_int_equal(host->set_field(r, which, never[i], none), -1);
            assert_int_equal(host->add_field(r, which, never[i], text("a")), -1);
        }
    for (size_t i = 0; i < NELEM(of_request); i++)
        assert_int_equal(host->set_field(r, WEIR_OF_REQUEST, of_request[i], text("a")), -1);
    assert_int_equal(host->set_field(r, WEIR_OF_RESPONSE, "Age", text("1")), -1);
    assert_int_equal(host->set_field(r, WEIR_OF_RESPONSE, "Content-Range", text("1")), -1);
    for (size_t i = 0; i < NELEM(values); i++)
        assert_int_equal(host->set_field(r, WEIR_OF_REQUEST, "X-B", text(values[i])), -1);
    assert_int_equal(host->set_field(r, WEIR_OF_REQUEST, NULL, text("a")), -1);
    assert_int_equal(host->add_field(r, WEIR_OF_REQUEST, "X-B", none), -1);
    assert_int_equal(host->set_field(r, 2, "X-B", text("a")), -1);
    assert_int_equal(host->mark(r, 99), -1);
    assert_int_equal(host->add_key(r, "", text("a")), -1);
    assert_int_equal(host->add_key(r, NULL, text("a")), -1);
    assert_int_equal(host->add_tag(r, none), -1);
    assert_int_equal(host->add_tag(r, text("")), -1);
    for (unsigned status = 0; status < 1000; status += status == 199 ? 1 : 103)
        if (status < 200 || status > 599)
            assert_int_equal(host->answer(r, status, NULL, none), WEIR_FAILED);
    assert_int_equal(host->answer(r, 206, NULL, none), WEIR_FAILED);
    assert_int_equal(host->answer(r, 304, NULL, none), WEIR_FAILED);
    assert_int_equal(host->answer(r, 200, "a\r\nb", none), WEIR_FAILED);
    return WEIR_NEXT;
}

static void
what_would_break_a_message_is_refused_and_changes_nothing(void **state)
{
    struct asked a;

    (void)state;
    ask_begin(&a, 1, false, 1000);
    relay->hook = editing;
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    assert_false(is_changed(a.r));
    assert_ptr_equal(a.r->head[WEIR_OF_REQUEST], &a.head);
    ask_end(&a);
}

static int
adding(unsigned hook, size_t plugin, struct weir_request *r)
{
    int rc = 0;

    (void)hook, (void)plugin;
    for (unsigned i = 0; i < 16; i++)
        rc |= host->add_key(r, "k", text("v"));
    for (unsigned i = 0; i < 256; i++)
        rc |= host->add_tag(r, text("t"));
    assert_int_equal(rc, 0);
    assert_int_equal(host->add_key(r, "k", text("v")), -1);
    assert_int_equal(host->add_tag(r, text("t")), -1);
    for (unsigned i = 0; i < 2 * HTTP_FIELDS_MAX; i++)
        rc |= host->add_field(r, WEIR_OF_REQUEST, "X-B", text("b"));
    assert_int_equal(rc, -1);
    assert_int_equal(r->head[WEIR_OF_REQUEST]->nfields, HTTP_FIELDS_MAX);
    return WEIR_NEXT;
}

static void
parts_tags_and_fields_have_an_end(void **state)
{
    struct asked a;

    (void)state;
    ask_begin(&a, 1, false, 1000);
    relay->hook = adding;
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    assert_int_equal(a.r->keys.n, 16);
    assert_int_equal(a.r->tags.n, 256);
    ask_end(&a);
}

static int
changing(unsigned hook, size_t plugin, struct weir_request *r)
{
    (void)hook;
    if (plugin == 1) {
        assert_ptr_equal(*host->slot(r), NULL);
        *host->slot(r) = r;
        host->set_field(r, WEIR_OF_REQUEST, "x-a", text("2"));
        host->add_field(r, WEIR_OF_REQUEST, "X-A", text("3"));
    } else {
        assert_ptr_equal(*host->slot(r), NULL);     /* each has its own */
        assert_int_equal(host->field(r, WEIR_OF_REQUEST, "X-a", 0).p[0], '2');
        assert_int_equal(host->field(r, WEIR_OF_REQUEST, "X-a", 1).p[0], '3');
        assert_null(host->field(r, WEIR_OF_REQUEST, "X-a", 2).p);
        assert_int_equal(host->fact(r, WEIR_BODY).n, 0);
        assert_null(host->fact(r, 99).p);           /* of a later version */
        assert_int_equal(host->number(r, 99), -1);
        assert_int_equal(host->number(r, WEIR_STATUS), -1);
        assert_null(host->param(r, "id").p);
    }
    return WEIR_NEXT;
}

static void
the_next_plugin_sees_what_the_one_before_changed(void **state)
{
    struct asked a;

    (void)state;
    ask_begin(&a, 2, false, 1000);
    relay->hook = changing;
    assert_int_equal(plugin_run(a.r, HOOK_REQUEST), PLUGIN_NEXT);
    assert_true(a.r->edited[WEIR_OF_REQUEST]);
    assert_int_equal(a.head.nfields, 2);            /* the request's own head stays */
    assert_true(slice_eq(a.head.fields[1].value, SLICE("1")));
    ask_end(&a);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_asked_in_their_order),
        cmocka_unit_test(a_plugin_is_asked_at_the_hooks_that_it_needs_alone),
        cmocka_unit_test(an_answer_ends_the_asking),
        cmocka_unit_test(an_answer_that_its_plugin_does_not_stand_by_is_none),
        cmocka_unit_test(an_error_ends_the_request_or_is_skipped),
        cmocka_unit_test(a_hook_does_what_its_place_allows_and_nothing_else),
        cmocka_unit_test(what_would_break_a_message_is_refused_and_changes_nothing),
        cmocka_unit_test(parts_tags_and_fields_have_an_end),
        cmocka_unit_test(the_next_plugin_sees_what_the_one_before_changed),
    };

    return cmocka_run_group_tests(tests, load_relay, NULL);
}
