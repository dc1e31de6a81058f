/*
 * `weir top`: the figures on a terminal, live.
 *
 * Model    one thread: while it waits for the next event of /stats/stream it waits for keys too
 *          (client_exchange.c). The screen is opened by the first event, so that what is wrong
 *          with the command line or the address is said as elsewhere. A stream that ends is opened
 *          again, once a second, and the screen says so. Signals that end a process set a flag, and
 *          the terminal is given back on the way out; for those of our own faults it is given back
 *          in the handler.
 * Not here what the screen shows (client_top_draw.c).
 */
#include <curses.h>
#include <getopt.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "admin/client_top.h"

#define AGAIN_US 1000000
#define NEWS_US  10000000

static const char usage_text[] =
    "usage: weir top [--window 10s|1m|5m] [--sort rate|hits|p50|p99|max|name] [--filter TEXT]\n"
    "Keys: q ends; s sorts by the next column, r the other way round; / filters routes and\n"
    "outcomes; p pauses; w takes the next window; v shows origins, the slowest requests or the\n"
    "last purges; up, down, page up, page down, home scroll.\n"
    "It takes --admin URL (default " DEFAULT_ADMIN "), --token-file FILE and --timeout SECONDS\n"
    "(30).\n";

enum { OPT_WINDOW = CLIENT_OPTIONS, OPT_SORT, OPT_FILTER, OPT_HELP };

static const struct option options[] = {
    CLIENT_OPTION_TABLE,
    { "window", required_argument, NULL, OPT_WINDOW },
    { "sort", required_argument, NULL, OPT_SORT },
    { "filter", required_argument, NULL, OPT_FILTER }, { "help", no_argument, NULL, OPT_HELP },
    { NULL, 0, NULL, 0 },
};

const char *const top_sorts[TOP_SORTS] = { "rate", "hits", "p50", "p99", "max", "name" };
static const char *const windows[] = { "10s", "1m", "5m" };

static volatile sig_atomic_t ended;     /* the signal that said so */
static struct termios before;           /* how the terminal was */

/* ---- the terminal ---------------------------------------------------------------------------- */

static void
on_end(int signal)
{
    ended = signal;
}

/* Our own fault: the terminal is given back by what a handler may call, then that takes its
 * course. */
static void
on_fault(int signal)
{
    static const char back[] = "\033[?1049l\033[?1l\033>\033[?25h\033[0m\r\n";
    ssize_t n = write(STDOUT_FILENO, back, sizeof back - 1);

    (void)n;
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
    raise(signal);                      /* SA_RESETHAND, and not held back: now as ever */
}

static void
catch_signals(void)
{
    static const int ends[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    static const int faults[] = { SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL };
    struct sigaction end = { .sa_handler = on_end };
    struct sigaction fault = { .sa_handler = on_fault, .sa_flags = (int)SA_RESETHAND | SA_NODEFER };

    for (size_t i = 0; i < NELEM(ends); i++)
        sigaction(ends[i], &end, NULL);
    for (size_t i = 0; i < NELEM(faults); i++)
        sigaction(faults[i], &fault, NULL);
}

/* Once. -1: this terminal cannot be drawn on. */
static int
screen_open(void)
{
    if (stdscr != NULL)
        return 0;
    if (newterm(NULL, stdout, stdin) == NULL)
        return -1;
    catch_signals();                    /* behind newterm's own */
    cbreak();
    noecho();
    nonl();
    curs_set(0);
    nodelay(stdscr, TRUE);
    keypad(stdscr, TRUE);
    set_escdelay(25);
    return 0;
}

static void
screen_close(void)
{
    if (stdscr == NULL)
        return;
    curs_set(1);
    endwin();
}

/* ---- keys ------------------------------------------------------------------------------------ */

static void
type_key(struct top *t, int key)
{
    size_t n = strlen(t->filter);

    if (key == '\r' || key == '\n' || key == KEY_ENTER)
        t->typing = false;
    else if (key == 27)
        t->typing = false, t->filter[0] = '\0';
    else if (key == KEY_BACKSPACE || key == 127 || key == 8) {
        while (n > 0 && ((unsigned char)t->filter[n - 1] & 0xc0) == 0x80)
            n--;                        /* all of a character in UTF-8 */
        t->filter[n > 0 ? n - 1 : 0] = '\0';
    } else if (key >= 0x20 && key <= 0xff && n + 1 < sizeof t->filter)
        t->filter[n] = (char)key, t->filter[n + 1] = '\0';
}

static const char *
next_window(const char *window)
{
    for (size_t i = 0; i + 1 < NELEM(windows); i++)
        if (strcmp(windows[i], window) == 0)
            return windows[i + 1];
    return windows[0];
}

static void
scroll_by(struct top *t, long n)
{
    long first = (long)t->first + n;

    t->first = first < 0 ? 0 : (size_t)first;   /* not behind the last: top_draw */
}

/* True: the stream is left, for its end or for one of another window. */
static bool
take_key(struct top *t, int key)
{
    const char *window = t->window;

    if (t->typing) {
        type_key(t, key);
        return false;
    }
    switch (key) {
    case 'q': case 'Q': case 3: ended = SIGINT; break;
    case 's': t->sort = (t->sort + 1) % TOP_SORTS; break;
    case 'r': t->backwards = !t->backwards; break;
    case 'p': case ' ': t->paused = !t->paused; break;
    case 'w': t->window = next_window(t->window); break;
    case 'v': t->view = (t->view + 1) % TOP_VIEWS; break;
    case '/': t->typing = true; break;
    case KEY_UP: case 'k': scroll_by(t, -1); break;
    case KEY_DOWN: case 'j': scroll_by(t, 1); break;
    case KEY_PPAGE: scroll_by(t, -10); break;
    case KEY_NPAGE: scroll_by(t, 10); break;
    case KEY_HOME: t->first = 0; break;
    default: break;
    }
    return ended != 0 || t->window != window;
}

static bool
on_key(void *arg)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
    struct top *t = arg;
    bool enough = ended != 0;
    int key;

    if (stdscr == NULL)                 /* no keys yet */
        return enough;
    while (!enough && (key = getch()) != ERR)
        enough = take_key(t, key);
    if (poll(&p, 1, 0) == 1 && (p.revents & POLLIN) == 0)
        ended = SIGHUP;                 /* the terminal is gone */
    enough = enough || ended != 0;
    if (!enough)
        top_draw(t);
    return enough;
}

/* ---- the stream ------------------------------------------------------------------------------ */

static void
note_again(struct top *t, const json_t *doc)
{
    json_int_t was = json_integer_value(json_object_get(t->doc, "start_ms"));
    json_int_t now = json_integer_value(json_object_get(doc, "start_ms"));

    if (t->doc == NULL || t->connected)
        return;
    snprintf(t->news, sizeof t->news, now != was ? "connected again: the server was restarted" :
        "connected again");
    t->news_until_us = now_us() + NEWS_US;
}

static bool
on_event(void *arg, struct slice kind, struct slice data)
{
    struct top *t = arg;
    json_t *doc = slice_eq(kind, SLICE("stats")) ? json_loadb(data.p, data.n, 0, NULL) : NULL;

    if (doc == NULL || screen_open() == -1) {
        json_decref(doc);
        return doc != NULL;
    }
    note_again(t, doc);
    t->connected = true;
    if (now_us() >= t->news_until_us)
        t->news[0] = '\0';
    if (!t->paused || t->doc == NULL) {
        json_decref(t->doc);
        t->doc = doc;
    } else {
        json_decref(doc);
    }
    top_draw(t);
    return ended != 0;
}

/* The first line of what went wrong. */
static void
note_lost(struct top *t, int status, const char *errors)
{
    t->connected = false;
    if (status == -1 && errors != NULL && errors[0] != '\0')
        snprintf(t->news, sizeof t->news, "connection lost, trying again: %.*s",
            (int)strcspn(errors, "\n"), errors);
    else if (status != -1 && status != 200)
        snprintf(t->news, sizeof t->news, "status %d, trying again", status);
    else
        snprintf(t->news, sizeof t->news, "connection lost, trying again");
}

/* One stream, to its end. The status, or -1; its text in *errors, the caller's. */
static int
follow(struct top *t, struct buf *out, char **errors)
{
    char target[64];
    size_t n;
    int status;

    snprintf(target, sizeof target, "/stats/stream?windows=%s", t->window);
    t->client.errors = open_memstream(errors, &n);
    status = client_follow(&t->client, target, on_event, t, out);
    if (t->client.errors != NULL)
        fclose(t->client.errors);
    t->client.errors = NULL;
    return status;
}

static int
run(struct top *t)
{
    const char *window = NULL;
    int rc = 0;

    while (ended == 0) {
        struct buf out = { 0 };
        char *errors = NULL;
        int status;

        window = t->window;
        status = follow(t, &out, &errors);
        if (stdscr == NULL) {           /* it was never drawn: as other commands do */
            fputs(errors != NULL ? errors : "", stderr);
            rc = client_finish(&t->client, status, &out);
            if (status == 200 && ended == 0)
                rc = fprintf(stderr, "weir top: this terminal (TERM) is not known, or %s is no "
                    "admin port; weir stats prints once\n", t->client.base) > 0;
            ended = SIGINT;
        } else if (ended == 0 && t->window == window) {
            note_lost(t, status, errors);
            top_draw(t);
            client_rest(&t->client, AGAIN_US);
        }
        free(errors);
        buf_free(&out);
    }
    screen_close();
    return rc;
}

/* ---- the command line ------------------------------------------------------------------------ */

static int
refused(const char *option, const char *value)
{
    fprintf(stderr, "weir top: --%s %s is not understood\n%s", option, value, usage_text);
    return 2;
}

static int
take_option(struct top *t, int opt, const char *value)
{
    switch (opt) {
    case CLIENT_ADMIN: case CLIENT_TOKEN: case CLIENT_WAIT:
        return client_option(&t->client, opt, value);
    case OPT_WINDOW:
        for (size_t i = 0; i < NELEM(windows); i++)
            if (strcmp(windows[i], value) == 0) {
                t->window = windows[i];
                return 0;
            }
        return refused("window", value);
    case OPT_SORT:
        for (t->sort = 0; t->sort < TOP_SORTS; t->sort++)
            if (strcmp(top_sorts[t->sort], value) == 0)
                return 0;
        return refused("sort", value);
    case OPT_FILTER:
        snprintf(t->filter, sizeof t->filter, "%s", value);
        return 0;
    default:
        fputs(usage_text, stderr);
        return 2;
    }
}

int
client_top(int argc, char **argv)
{
    struct top t = { .client = { .base = DEFAULT_ADMIN, .wait_us = DEFAULT_WAIT * 1000000,
        .on_key = on_key, .on_key_arg = &t }, .window = windows[0] };
    int opt, rc = 0;
    struct err e;

    if (options_exact(argc, argv, "", options, &e) == -1) {
        fprintf(stderr, "weir top: %s\n%s", e.text, usage_text);
        return 2;
    }
    optind = 1;
    while (rc == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == OPT_HELP) {
            fputs(usage_text, stdout);
            goto out;
        }
        rc = take_option(&t, opt, optarg);
    }
    if (rc == 0 && optind < argc) {
        fputs(usage_text, stderr);
        rc = 2;
    } else if (rc == 0 && (tcgetattr(STDIN_FILENO, &before) == -1 || !isatty(STDOUT_FILENO))) {
        fprintf(stderr, "weir top: a terminal is wanted; weir stats prints once\n");
        rc = 2;
    }
    if (rc == 0) {
        setlocale(LC_ALL, "");
        rc = run(&t);
    }
out:
    json_decref(t.doc);
    free(t.client.token);
    return rc;
}
