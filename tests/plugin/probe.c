/*
 * A plugin for tests, built as anybody's would be: by plugins/abi.h as `pkg-config weir` finds it.
 *
 * What it does a request says in fields: X-Probe-HOOK (of the request; at response and store of the
 * origin's answer) has words such as "fail", "suspend", "key=a", "tag=b".
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <weir/abi.h>

#ifndef PROBE_ABI
#define PROBE_ABI WEIR_ABI
#endif

struct probe { struct weir_self *self; struct weir_text greeting; int refuse_route; };
struct its_route { struct weir_text stamp; uint64_t limit; };

static const struct weir_host *host;
static struct weir_counter *calls;
static struct weir_timer *naps;
static struct weir_ticket *held;        /* "hold": resumed by "release" */
static pthread_mutex_t held_mtx = PTHREAD_MUTEX_INITIALIZER;

static struct weir_text
text(const char *z)
{
    return (struct weir_text){ z, strlen(z) };
}

/* The value of a word of the form name=value, or "" of one without; .p NULL: it is not there. */
static struct weir_text
word(struct weir_text t, const char *name)
{
    size_t n = strlen(name);

    while (t.n > 0) {
        const char *space = memchr(t.p, ' ', t.n);
        size_t k = space != NULL ? (size_t)(space - t.p) : t.n;

        if (k == n && memcmp(t.p, name, n) == 0)
            return text("");
        if (k > n && t.p[n] == '=' && memcmp(t.p, name, n) == 0)
            return (struct weir_text){ t.p + n + 1, k - n - 1 };
        t.p += k < t.n ? k + 1 : k;
        t.n -= k < t.n ? k + 1 : k;
    }
    return (struct weir_text){ NULL, 0 };
}

static void *
nap(void *ticket)
{
    usleep(2000);
    host->resume(ticket);
    return NULL;
}

static int
suspend(struct weir_request *r)
{
    struct weir_ticket *t = host->suspend(r);
    pthread_t thread;

    if (t == NULL)
        return WEIR_FAILED;
    *host->slot(r) = host->alloc(r, 1);
    host->observe(naps, 2000000);
    if (pthread_create(&thread, NULL, nap, t) != 0)
        host->resume(t);                /* before the hook returns */
    else
        pthread_detach(thread);
    return WEIR_SUSPENDED;
}

static int
hold(struct weir_request *r)
{
    *host->slot(r) = host->alloc(r, 1);
    pthread_mutex_lock(&held_mtx);
    held = host->suspend(r);
    pthread_mutex_unlock(&held_mtx);
    return WEIR_SUSPENDED;
}

static int
release(void)
{
    struct weir_ticket *t;

    pthread_mutex_lock(&held_mtx);
    t = held;
    held = NULL;
    pthread_mutex_unlock(&held_mtx);
    if (t != NULL)
        host->resume(t);
    return WEIR_NEXT;
}

/* A command to Redis: who asks it is the hook, or a thread of the probe's own. */
struct asked { struct weir_self *self; struct weir_ticket *ticket; char key[32], reply[200]; };

static void
put_reply(char *to, size_t n, const struct weir_reply *r)
{
    size_t used;

    if (r == NULL)
        snprintf(to, n, "none");
    else if (r->kind == WEIR_REPLY_INTEGER)
        snprintf(to, n, "%d", (int)r->integer);
    else if (r->kind == WEIR_REPLY_NIL)
        snprintf(to, n, "nil");
    else if (r->kind != WEIR_REPLY_LIST)
        snprintf(to, n, "%s%.*s", r->kind == WEIR_REPLY_ERROR ? "!" : "", (int)r->text.n, r->text.p);
    else
        for (size_t i = 0; i < r->n && (used = strlen(to)) + 2 < n; i++) {
            to[used] = i == 0 ? '[' : ',';
            put_reply(to + used + 1, n - used - 1, r->at[i]);
        }
}

static void
on_reply(void *arg, const struct weir_reply *r)
{
    struct asked *a = arg;

    put_reply(a->reply, sizeof a->reply, r);
    host->resume(a->ticket);
}

static void *
ask(void *arg)
{
    struct asked *a = arg;
    struct weir_text argv[] = { text("EVAL"), text("local n = redis.call('INCR', KEYS[1]) "
        "if n == 3 then return redis.error_reply('no three') end "
        "return n == 2 and {n, {'two', false}, KEYS[1]} or n"), text("1"), text(a->key) };

    if (host->redis(a->self, argv, 4, 3, 0, on_reply, a) == -1) {
        strcpy(a->reply, "refused");
        host->resume(a->ticket);
    }
    return NULL;
}

/* Called again, it tells the reply in a field. */
static int
redis(struct probe *p, struct weir_request *r, struct weir_text name, int elsewhere)
{
    struct asked *a = *host->slot(r);
    pthread_t thread;

    if (a != NULL) {
        host->set_field(r, WEIR_OF_RESPONSE, "X-Redis", text(a->reply));
        free(a);
        return WEIR_NEXT;
    }
    a = *host->slot(r) = calloc(1, sizeof *a);
    a->self = p->self;
    a->ticket = host->suspend(r);
    memcpy(a->key, name.p, name.n < 31 ? name.n : 31);
    if (!elsewhere)
        ask(a);
    else if (pthread_create(&thread, NULL, ask, a) == 0)
        pthread_detach(thread);
    return WEIR_SUSPENDED;
}

static void
add_both(struct weir_request *r, struct weir_text what)
{
    struct weir_text v = word(what, "key");

    if (v.p != NULL)
        host->add_key(r, "probe", v);
    v = word(what, "tag");
    if (v.p != NULL)
        host->add_tag(r, v);
}

/* What all hooks understand. WEIR_NEXT: nothing of it. */
static int
common(struct weir_request *r, struct weir_text what)
{
    if (host->number(r, WEIR_EXPLAINED) != 1)
        host->count(calls, 1);
    if (word(what, "fail").p != NULL)
        return WEIR_FAILED;
    if (word(what, "nonsense").p != NULL)
        return 77;
    if (word(what, "suspend").p != NULL && *host->slot(r) == NULL)
        return suspend(r);
    if (word(what, "hold").p != NULL && *host->slot(r) == NULL)
        return hold(r);
    if (word(what, "release").p != NULL)
        return release();
    return WEIR_NEXT;
}

static int
request(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text what = host->field(r, WEIR_OF_REQUEST, "x-probe-request", 0), v;
    struct its_route *its = route;
    struct probe *p = plugin;
    int rc = common(r, what);

    if (rc != WEIR_NEXT)
        return rc;
    if ((v = word(what, "redis")).p != NULL)
        return redis(p, r, v, word(what, "elsewhere").p != NULL);
    if (word(what, "answer").p != NULL) {
        host->set_field(r, WEIR_OF_RESPONSE, "X-Greeting", p->greeting);
        return host->answer(r, 203, "text/x-probe", host->fact(r, WEIR_PATH));
    }
    if (word(what, "refuse").p != NULL)
        return host->refuse(r, 403, "the probe says no");
    if (word(what, "pass").p != NULL)
        host->mark(r, WEIR_MARK_PASS);
    if (word(what, "authorized").p != NULL)
        host->mark(r, WEIR_MARK_AUTHORIZED);
    v = word(what, "set");
    if (v.p != NULL && host->set_field(r, WEIR_OF_REQUEST, "X-Set", v) == -1)
        return WEIR_FAILED;
    v = word(what, "forbidden");
    if (v.p != NULL && (host->set_field(r, WEIR_OF_REQUEST, "Content-Length", v) != -1 ||
        host->set_field(r, WEIR_OF_REQUEST, "X-A", text("a\r\nB: c")) != -1 ||
        host->set_ttl(r, 1, 1) != -1))
        return WEIR_FAILED;             /* was taken */
    if (its->stamp.p != NULL)
        host->set_field(r, WEIR_OF_RESPONSE, "X-Stamp", its->stamp);
    host->set_field(r, WEIR_OF_REQUEST, "X-Param", host->param(r, "id"));
    add_both(r, what);
    return WEIR_NEXT;
}

static int
key(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text what = host->field(r, WEIR_OF_REQUEST, "x-probe-key", 0);
    int rc = common(r, what);

    (void)plugin, (void)route;
    if (rc == WEIR_NEXT)
        add_both(r, what);
    return rc == WEIR_NEXT && host->fact(r, WEIR_KEY).n == 0 ? WEIR_FAILED : rc;
}

static int
response(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text what = host->field(r, WEIR_OF_RESPONSE, "x-probe-response", 0), v;
    int rc = common(r, what);
    char number[32] = "";

    (void)plugin, (void)route;
    if (rc != WEIR_NEXT || what.p == NULL)
        return rc;
    v = word(what, "ttl");
    if (v.p != NULL)
        host->set_ttl(r, atoi(memcpy(number, v.p, v.n < 31 ? v.n : 31)) * 1000,
            word(what, "force").p != NULL);
    if (word(what, "nostore").p != NULL)
        host->mark(r, WEIR_MARK_NO_STORE);
    v = word(what, "set");
    if (v.p != NULL)
        host->set_field(r, WEIR_OF_RESPONSE, "X-Set", v);
    v = word(what, "tag");
    if (v.p != NULL)
        host->add_tag(r, v);
    host->set_field(r, WEIR_OF_RESPONSE, "X-Secret", (struct weir_text){ NULL, 0 });
    return WEIR_NEXT;
}

static int
store(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text what = host->field(r, WEIR_OF_RESPONSE, "x-probe-store", 0);
    int rc = common(r, what);

    (void)plugin, (void)route;
    if (rc == WEIR_NEXT && word(what, "nostore").p != NULL)
        host->mark(r, WEIR_MARK_NO_STORE);
    if (rc == WEIR_NEXT && word(what, "body").p != NULL)
        host->add_tag(r, host->fact(r, WEIR_BODY));
    return rc;
}

static int
deliver(void *plugin, void *route, struct weir_request *r)
{
    struct weir_text what = host->field(r, WEIR_OF_REQUEST, "x-probe-deliver", 0), v;
    char status[32];
    int rc = common(r, what);

    (void)plugin, (void)route;
    if (rc != WEIR_NEXT)
        return rc;
    v = word(what, "set");
    if (v.p != NULL)
        host->set_field(r, WEIR_OF_RESPONSE, "X-Set", v);
    snprintf(status, sizeof status, "%d", (int)host->number(r, WEIR_STATUS));
    host->add_field(r, WEIR_OF_RESPONSE, "X-Status", text(status));
    if (word(what, "type").p != NULL)
        host->set_field(r, WEIR_OF_RESPONSE, "X-Type",
            host->field(r, WEIR_OF_RESPONSE, "content-type", 0));
    return WEIR_NEXT;
}

static int
tell(void *plugin, struct weir_request *r, const char *hook)
{
    struct weir_text method = host->fact(r, WEIR_METHOD), path = host->fact(r, WEIR_PATH);
    struct weir_text outcome = host->fact(r, WEIR_OUTCOME), id = host->fact(r, WEIR_WRITE_ID);
    struct probe *p = plugin;
    char line[400];

    snprintf(line, sizeof line, "%s %.*s %.*s status=%d outcome=%.*s id=%.*s bytes=%d attempts=%d",
        hook, (int)method.n, method.p, (int)path.n, path.p, (int)host->number(r, WEIR_STATUS),
        (int)outcome.n, outcome.p, (int)id.n, id.p, (int)host->number(r, WEIR_BYTES_OUT),
        (int)host->number(r, WEIR_ATTEMPTS));
    host->log(p->self, WEIR_LOG_INFO, line);
    return WEIR_NEXT;
}

static int
accepted(void *plugin, void *route, struct weir_request *r)
{
    (void)route;
    return tell(plugin, r, "accepted");
}

static int
delivered(void *plugin, void *route, struct weir_request *r)
{
    (void)route;
    return tell(plugin, r, "delivered");
}

static int
done(void *plugin, void *route, struct weir_request *r)
{
    (void)route;
    return tell(plugin, r, "done");
}

static void
tick(void *plugin)
{
    static int ticks;
    struct probe *p = plugin;

    if (ticks++ == 0)
        host->log(p->self, WEIR_LOG_INFO, "tick");
}

static int
open_plugin(const struct weir_host *h, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    struct probe *p;

    if (host == NULL) {                 /* at a reload hooks read them */
        host = h;
        calls = h->counter(self, "probe_calls", "Calls of the probe.");
        naps = h->timer(self, "probe_nap", "Naps of the probe.");
    }
    if (memcmp(values[0].text.p, "bad", 3) == 0) {
        h->complain(self, "greeting", "is bad; a good one");
        return -1;
    }
    p = calloc(1, sizeof *p);
    p->self = self;
    p->greeting = values[0].text;
    p->refuse_route = (int)values[1].number;
    h->log(self, WEIR_LOG_INFO, !WEIR_HAS(h, redis) || h->redis(self, NULL, 0, 0, 0, NULL, NULL) == -1 ?
        "opened" : "opened, there is a Redis");
    *out = p;
    return 0;
}

static void
close_plugin(void *plugin)
{
    struct probe *p = plugin;

    release();
    host->log(p->self, WEIR_LOG_INFO, "closed");
    free(p);
}

static int
route_open(void *plugin, struct weir_self *self, const char *name,
    const struct weir_value *values, void **out)
{
    struct probe *p = plugin;
    struct its_route *its;

    (void)name;
    if (p->refuse_route) {
        host->complain(self, NULL, "no route is good enough");
        return -1;
    }
    its = calloc(1, sizeof *its);
    its->stamp = values[0].text;
    its->limit = values[1].number;
    if (values[2].given)
        host->only(self, (unsigned)values[2].number);
    *out = its;
    return 0;
}

static void
route_close(void *plugin, void *route)
{
    (void)plugin;
    free(route);
}

static const struct weir_option options[] = {
    { "greeting", WEIR_TEXT, 0, "hello", NULL, NULL, NULL, "What an answer of its own says." },
    { "refuse_route", WEIR_BOOL, 0, "false", NULL, NULL, NULL, "Opens for no route." },
    { "secret", WEIR_TEXT, WEIR_SECRET, NULL, NULL, NULL, NULL, "Is not shown." },
    { "mode", WEIR_WORD, 0, "one", NULL, NULL, "one, two", "One or two." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};
static const struct weir_option route_options[] = {
    { "stamp", WEIR_TEXT, 0, NULL, NULL, NULL, NULL, "A field of every answer." },
    { "limit", WEIR_COUNT, 0, "5", "1", "10", NULL, "A number." },
    { "hooks", WEIR_COUNT, 0, NULL, "0", "255", NULL, "Only these." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
    .abi = PROBE_ABI, .size = sizeof(struct weir_plugin), .name = "probe", .version = "1",
    .meaning = "For tests.", .options = options, .route_options = route_options,
    .open = open_plugin, .close = close_plugin, .route_open = route_open,
    .route_close = route_close, .tick = tick, .request = request, .key = key,
    .response = response, .store = store, .deliver = deliver, .accepted = accepted,
    .delivered = delivered, .done = done,
};
