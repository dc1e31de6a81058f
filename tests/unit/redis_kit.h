/*
 * What the tests of redis/ share: real servers as child processes, scripted peers on a loopback
 * port, a loop on a thread, and "shots": commands sent on it whose ends the test's thread awaits.
 */
#ifndef REDIS_KIT_H
#define REDIS_KIT_H

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "redis/redis.h"
#include "stats/stats.h"

#define UNUSED __attribute__((unused))
#define LONG_MS 10000                   /* more than anything takes that ends well */

/* ---- sockets ------------------------------------------------------------------------------- */

/* -1: the port is taken. */
static UNUSED int
try_listen(uint16_t *port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(*port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof in;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (void *)&in, sizeof in) == -1 || listen(fd, 64) == -1) {
        close(fd);
        return -1;
    }
    assert_int_equal(getsockname(fd, (void *)&in, &len), 0);
    *port = ntohs(in.sin_port);
    return fd;
}

static UNUSED int
listen_on(uint16_t *port)
{
    int fd = try_listen(port);

    assert_true(fd != -1);
    return fd;
}

static UNUSED bool
is_free(uint16_t port)
{
    int fd = try_listen(&port);

    if (fd != -1)
        close(fd);
    return fd != -1;
}

/* Below those that the kernel gives to outgoing connections; a cluster's bus is 10000 above. */
static UNUSED uint16_t
free_port(void)
{
    uint16_t port;

    do
        port = (uint16_t)(11000 + random_fast() % 11000);
    while (!is_free(port) || !is_free((uint16_t)(port + 10000)));
    return port;
}

static UNUSED int
dial(uint16_t port)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (void *)&in, sizeof in) == 0)
        return fd;
    close(fd);
    return -1;
}

/* ---- real servers -------------------------------------------------------------------------- */

struct rserver { pid_t pid; uint16_t port; char dir[64]; };

static UNUSED void
await_ready(int fd, const char *word)
{
    char log[16384];
    size_t n = 0;
    ssize_t got;

    while ((got = read(fd, log + n, sizeof log - 1 - n)) > 0) {
        n += (size_t)got;
        log[n] = '\0';
        if (strstr(log, word) != NULL) {
            close(fd);                  /* it ignores SIGPIPE */
            return;
        }
    }
    log[n] = '\0';
    fail_msg("the server did not start: %s", log);
}

/* Runs redis-server with these arguments (NULL-terminated) in s->dir until its log says `word`. */
static UNUSED void
rserver_exec(struct rserver *s, char **argv, const char *word)
{
    int out[2];

    assert_int_equal(pipe(out), 0);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        close(out[1]);
        execvp("redis-server", argv);
        _exit(127);
    }
    close(out[1]);
    await_ready(out[0], word);
}

static UNUSED void
rserver_dir(struct rserver *s)
{
    snprintf(s->dir, sizeof s->dir, "/tmp/weir-redis-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
}

/* On s->port, or a free one when it is 0; `more`: arguments, separated by blanks. */
static UNUSED void
rserver_start(struct rserver *s, const char *more)
{
    char port[16], rest[512], *argv[48] = { "redis-server", "--port", port, "--bind", "127.0.0.1",
        "--save", "", "--appendonly", "no", "--enable-debug-command", "yes", "--dir", s->dir,
        "--repl-diskless-sync-delay", "0" }, *save = NULL;
    size_t n = 15;

    if (s->port == 0)
        s->port = free_port();
    if (s->dir[0] == '\0')
        rserver_dir(s);
    snprintf(port, sizeof port, "%u", s->port);
    snprintf(rest, sizeof rest, "%s", more);
    for (char *w = strtok_r(rest, " ", &save); w != NULL && n < 46; w = strtok_r(NULL, " ", &save))
        argv[n++] = w;
    rserver_exec(s, argv, "Ready to accept connections");
}

static UNUSED void
rserver_kill(struct rserver *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGKILL);
    kill(s->pid, SIGCONT);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static UNUSED void
rserver_stop(struct rserver *s)
{
    char command[128];

    rserver_kill(s);
    if (s->dir[0] != '\0') {
        snprintf(command, sizeof command, "rm -rf '%s'", s->dir);
        assert_int_equal(system(command), 0);
    }
    memset(s, 0, sizeof *s);
}

static UNUSED ssize_t
tell_once(uint16_t port, const char *command, char *answer, size_t size)
{
    struct pollfd p = { .fd = dial(port), .events = POLLIN };
    ssize_t n = -1;

    assert_true(p.fd != -1);
    if (send(p.fd, command, strlen(command), MSG_NOSIGNAL) == (ssize_t)strlen(command) &&
        send(p.fd, "\r\n", 2, MSG_NOSIGNAL) == 2 && poll(&p, 1, LONG_MS) == 1)
        n = recv(p.fd, answer, size, 0);
    close(p.fd);
    return n;
}

/* Tells a server an inline command; its answer's first bytes, in a static buffer. Sentinel ends all
 * connections of whom it makes a master or a replica: then it is told again. */
static UNUSED const char *
tell_server(uint16_t port, const char *command)
{
    static char answer[4096];
    ssize_t n = -1;

    for (int i = 0; i < 5 && n <= 0; i++)
        n = tell_once(port, command, answer, sizeof answer - 1);
    assert_true(n > 0);
    answer[n] = '\0';
    return answer;
}

/* ---- a real cluster ------------------------------------------------------------------------ */

static UNUSED void
cluster_tell(struct rserver *node, const char *fmt, ...)
{
    char command[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    if (tell_server(node->port, command)[0] == '-')
        fail_msg("%s: %s", command, tell_server(node->port, command));
}

static UNUSED void
cluster_await(struct rserver *node, const char *command, const char *part)
{
    int64_t until = now_us() + LONG_MS * 1000;

    while (strstr(tell_server(node->port, command), part) == NULL) {
        if (now_us() > until)
            fail_msg("%s at %u: %s", command, node->port, tell_server(node->port, command));
        poll(NULL, 0, 5);
    }
}

/* The first three have the slots, the others none. */
static UNUSED void
cluster_start(struct rserver *nodes, unsigned n)
{
    char known[32];

    for (unsigned i = 0; i < n; i++)
        rserver_start(&nodes[i], "--cluster-enabled yes --cluster-node-timeout 1000 "
            "--cluster-require-full-coverage no --repl-diskless-load swapdb");
    cluster_tell(&nodes[0], "CLUSTER ADDSLOTSRANGE 0 5460");
    cluster_tell(&nodes[1], "CLUSTER ADDSLOTSRANGE 5461 10922");
    cluster_tell(&nodes[2], "CLUSTER ADDSLOTSRANGE 10923 16383");
    for (unsigned i = 0; i < n; i++)
        cluster_tell(&nodes[i], "CLUSTER SET-CONFIG-EPOCH %u", i + 1);
    for (unsigned i = 1; i < n; i++)
        cluster_tell(&nodes[i], "CLUSTER MEET 127.0.0.1 %u", nodes[0].port);
    snprintf(known, sizeof known, "cluster_known_nodes:%u", n);
    for (unsigned i = 0; i < n; i++) {
        cluster_await(&nodes[i], "CLUSTER INFO", "cluster_slots_ok:16384");
        cluster_await(&nodes[i], "CLUSTER INFO", known);
        cluster_await(&nodes[i], "CLUSTER INFO", "cluster_state:ok");
    }
}

/* ---- a scripted peer ----------------------------------------------------------------------- */

#define PEER_CONNS 64

struct peer {
    int          listener;
    uint16_t     port;
    void       (*serve)(struct peer *, int fd, unsigned nth);
    atomic_uint  accepted;
    atomic_int   step;
    pthread_t    acceptor, threads[PEER_CONNS];
    int          fds[PEER_CONNS];
};

struct peer_conn { struct peer *p; int fd; unsigned nth; };

static UNUSED void *
peer_conn(void *arg)
{
    struct peer_conn c = *(struct peer_conn *)arg;

    free(arg);
    c.p->serve(c.p, c.fd, c.nth);
    shutdown(c.fd, SHUT_RDWR);
    return NULL;
}

static UNUSED void *
peer_accept(void *arg)
{
    struct peer *p = arg;
    int fd;

    while ((fd = accept(p->listener, NULL, NULL)) != -1) {
        struct peer_conn *c = malloc(sizeof *c);
        unsigned nth = atomic_load(&p->accepted);

        assert_true(nth < PEER_CONNS);
        *c = (struct peer_conn){ p, fd, nth };
        p->fds[nth] = fd;
        atomic_fetch_add(&p->accepted, 1);      /* before anybody is answered */
        assert_int_equal(pthread_create(&p->threads[nth], NULL, peer_conn, c), 0);
    }
    return NULL;
}

static UNUSED void
peer_start(struct peer *p, void (*serve)(struct peer *, int, unsigned))
{
    memset(p, 0, sizeof *p);
    p->serve = serve;
    p->listener = listen_on(&p->port);
    assert_int_equal(pthread_create(&p->acceptor, NULL, peer_accept, p), 0);
}

static UNUSED void
peer_stop(struct peer *p)
{
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->acceptor, NULL);
    for (unsigned i = 0; i < atomic_load(&p->accepted); i++)
        shutdown(p->fds[i], SHUT_RDWR);
    for (unsigned i = 0; i < atomic_load(&p->accepted); i++) {
        pthread_join(p->threads[i], NULL);
        close(p->fds[i]);
    }
    close(p->listener);
}

static UNUSED bool
peer_line(int fd, char *line, size_t size)
{
    size_t n = 0;

    while (n < size - 1 && recv(fd, line + n, 1, 0) == 1)
        if (line[n++] == '\n') {
            line[n] = '\0';
            return true;
        }
    return false;
}

/* Reads a command, its words behind blanks: false at the end. */
static UNUSED bool
peer_command(int fd, char *text, size_t size)
{
    char line[1024];
    int words;

    text[0] = '\0';
    if (!peer_line(fd, line, sizeof line) || sscanf(line, "*%d", &words) != 1)
        return false;
    for (int i = 0; i < words; i++) {
        if (!peer_line(fd, line, sizeof line) || !peer_line(fd, line, sizeof line))
            return false;
        line[strcspn(line, "\r")] = '\0';
        snprintf(text + strlen(text), size - strlen(text), "%s%s", i > 0 ? " " : "", line);
    }
    return true;
}

static UNUSED void
peer_say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0) {
        /* it has left: what the test is about */
    }
}

/* Answers the greeting; the first command behind it is in `text`. */
static UNUSED bool
peer_greet(int fd, char *text, size_t size)
{
    while (peer_command(fd, text, size)) {
        if (strncmp(text, "CLIENT", 6) == 0)
            peer_say(fd, "+OK\r\n");
        else if (strcmp(text, "PING") == 0)
            peer_say(fd, "+PONG\r\n");
        else
            return true;
    }
    return false;
}

/* ---- a client on a loop -------------------------------------------------------------------- */

struct rig { struct loop *loop; pthread_t thread; struct redis *r; };

static UNUSED void *
rig_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

static UNUSED void
rig_start(struct rig *rig, const struct redis_conf *conf)
{
    struct err e;

    signal(SIGPIPE, SIG_IGN);
    rig->loop = loop_new(0, &e);
    assert_non_null(rig->loop);
    rig->r = redis_new(conf, &rig->loop, 1, &e);
    if (rig->r == NULL)
        fail_msg("%s", e.text);
    assert_int_equal(pthread_create(&rig->thread, NULL, rig_loop, rig->loop), 0);
}

/* To one server, with a patience that a busy machine needs. */
static UNUSED void
rig_single(struct rig *rig, uint16_t port)
{
    struct redis_server server = { "127.0.0.1", port };
    struct redis_conf conf = { .servers = &server, .nservers = 1, .connect_ms = 2000 };

    rig_start(rig, &conf);
}

static UNUSED void
rig_stop(struct rig *rig)
{
    loop_stop(rig->loop);
    pthread_join(rig->thread, NULL);
    redis_free(&rig->r);
    loop_free(&rig->loop);
}

/* Runs `what` on the loop's thread and waits until it has. */
struct onloop {
    struct loop_msg msg;
    void          (*what)(void *);
    void           *arg;
    pthread_mutex_t mtx;
    pthread_cond_t  cond;
    bool            over;
};

static UNUSED void
onloop_run(struct loop_msg *m)
{
    struct onloop *o = CONTAINER(m, struct onloop, msg);

    o->what(o->arg);
    pthread_mutex_lock(&o->mtx);
    o->over = true;
    pthread_cond_signal(&o->cond);
    pthread_mutex_unlock(&o->mtx);
}

static UNUSED void
on_loop(struct rig *rig, void (*what)(void *), void *arg)
{
    struct onloop o = { .msg.run = onloop_run, .what = what, .arg = arg,
        .mtx = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

    loop_post(rig->loop, &o.msg);
    pthread_mutex_lock(&o.mtx);
    while (!o.over)
        pthread_cond_wait(&o.cond, &o.mtx);
    pthread_mutex_unlock(&o.mtx);
}

struct shot {
    struct rig       *rig;
    const char       *text;             /* words between blanks */
    const char       *key;
    int64_t           within_ms;
    uint64_t          only;             /* on that connection */
    bool              alone, forget;
    struct redis_ask *ask;
    /* what came of it */
    bool              sent;
    pthread_mutex_t   mtx;
    pthread_cond_t    cond;
    unsigned          ended;
    enum redis_cause  cause;
    int               type;
    int64_t           integer;
    size_t            n;
    char              answer[256];
    int64_t           took_us;
    uint64_t          connection;
};

static UNUSED void
shot_done(void *arg, enum redis_cause cause, const struct redis_reply *r)
{
    struct shot *s = arg;

    pthread_mutex_lock(&s->mtx);
    s->ended++;
    s->cause = cause;
    s->took_us = now_us() - s->took_us;
    s->type = -1;
    if (r != NULL) {
        s->type = (int)r->type;
        s->integer = r->integer;
        s->connection = r->connection;
        s->n = r->type == REPLY_ARRAY ? r->n : r->text.n;
        snprintf(s->answer, sizeof s->answer, "%.*s", (int)(r->text.n < 255 ? r->text.n : 255),
            r->text.p != NULL ? r->text.p : "");
    }
    pthread_cond_signal(&s->cond);
    pthread_mutex_unlock(&s->mtx);
}

static UNUSED void
shot_send(void *arg)
{
    struct shot *s = arg;
    struct slice words[32], rest = slice_of(s->text);
    struct redis_command c = { .argv = words, .key = slice_of(s->key), .alone = s->alone,
        .connection = s->only, .within_us = s->within_ms * 1000, .done = s->forget ? NULL : shot_done, .arg = s };

    while (c.argc < NELEM(words) && slice_cut(&rest, ' ', &words[c.argc]))
        c.argc++;
    s->took_us = now_us();
    s->ask = redis_send(s->rig->r, &c, &s->cause);
    s->sent = s->ask != NULL;
    assert_int_equal(s->ended, 0);      /* never from inside redis_send */
}

static UNUSED void
shot_init(struct shot *s, struct rig *rig, int64_t within_ms, const char *text)
{
    memset(s, 0, sizeof *s);
    s->rig = rig;
    s->text = text;
    s->within_ms = within_ms;
    pthread_mutex_init(&s->mtx, NULL);
    pthread_cond_init(&s->cond, NULL);
}

static UNUSED void
shoot(struct shot *s, struct rig *rig, int64_t within_ms, const char *text)
{
    shot_init(s, rig, within_ms, text);
    on_loop(rig, shot_send, s);
}

static UNUSED enum redis_cause
await_shot(struct shot *s)
{
    if (!s->sent)
        return s->cause;
    pthread_mutex_lock(&s->mtx);
    while (s->ended == 0)
        pthread_cond_wait(&s->cond, &s->mtx);
    pthread_mutex_unlock(&s->mtx);
    return s->cause;
}

/* One command, its end awaited; what it brought is in a static shot. */
static struct shot one;

static UNUSED enum redis_cause
ask_within(struct rig *rig, int64_t within_ms, const char *text)
{
    shoot(&one, rig, within_ms, text);
    return await_shot(&one);
}

static UNUSED enum redis_cause
ask(struct rig *rig, const char *text)
{
    return ask_within(rig, LONG_MS, text);
}

/* On that connection alone. */
static UNUSED enum redis_cause
ask_on(struct rig *rig, uint64_t connection, const char *text)
{
    shot_init(&one, rig, LONG_MS, text);
    one.only = connection;
    on_loop(rig, shot_send, &one);
    return await_shot(&one);
}

/* Asks again and again until it ends so. */
static UNUSED void
ask_until(struct rig *rig, const char *text, enum redis_cause want)
{
    int64_t until = now_us() + 2 * LONG_MS * 1000;
    enum redis_cause c;

    while ((c = ask_within(rig, 1000, text)) != want) {
        if (now_us() > until)
            fail_msg("%s: %s, not %s", text, redis_cause_name(c), redis_cause_name(want));
        poll(NULL, 0, 5);
    }
}

/* ---- the log ------------------------------------------------------------------------------- */

struct tap { int old; FILE *file; };

static UNUSED void
tap_log(struct tap *t)
{
    t->file = tmpfile();
    assert_non_null(t->file);
    t->old = dup(2);
    dup2(fileno(t->file), 2);
}

/* How often `part` stands in what was logged since; puts the log back. */
static UNUSED unsigned
untap_log(struct tap *t, const char *part)
{
    char line[2048];
    unsigned n = 0;

    dup2(t->old, 2);
    close(t->old);
    rewind(t->file);
    while (fgets(line, sizeof line, t->file) != NULL)
        n += strstr(line, part) != NULL;
    fclose(t->file);
    return n;
}

struct sum { uint64_t asked, failed[REDIS_CAUSES]; char state[32]; };

/* ---- figures ------------------------------------------------------------------------------- */

static UNUSED void
add_server(void *arg, const struct redis_server_figures *f)
{
    struct sum *sum = arg;

    sum->asked += f->asked;
    for (int i = 0; i < REDIS_CAUSES; i++)
        sum->failed[i] += f->failed[i];
    snprintf(sum->state, sizeof sum->state, "%s", f->state);
}

static UNUSED struct sum
sum_of(struct rig *rig)
{
    struct sum sum = { 0 };

    redis_figures(rig->r, add_server, &sum);
    return sum;
}

#endif
