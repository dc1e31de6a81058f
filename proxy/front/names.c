/*
 * The names of origins, looked up once at start and reload: a slip of the pen is told before the
 * first request fails by it. Nothing waits for it, and nothing but the log comes of it: the
 * look-ups that count are upstream/'s, at each connection.
 *
 * Model    one run at a time, however many reloads come while a name server is silent: the newest
 *          configuration of those that came meanwhile is looked up once the run is over, and none
 *          in between. So at most two configurations are held.
 * Threads  one of its own, which ends with the last name; `under_way` and `next` under mtx.
 */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>

#include "front/front.h"

static pthread_mutex_t mtx = PTHREAD_MUTEX_INITIALIZER;
static bool under_way;
static struct conf *next;               /* owned; came during a run */

static void
look_up(const struct conf *c, const struct conf_origin *o, const struct conf_url *url)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
    int rc = getaddrinfo(url->host, NULL, &hints, &list);
    char line[32] = "";

    if (rc == 0) {
        freeaddrinfo(list);
        return;
    }
    if (o->where.line > 0)
        snprintf(line, sizeof line, ":%d", o->where.line);
    log_warn("%s%s: origin %s: %s: the name does not resolve: %s; correct it, or its DNS; its "
        "requests are answered 502 until then", c->file != NULL ? c->file : "command line", line,
        o->id, url->text, gai_strerror(rc));
}

/* A newer configuration has come: the rest of this one is looked up for nobody. */
static bool
outdated(void)
{
    bool is;

    pthread_mutex_lock(&mtx);
    is = next != NULL;
    pthread_mutex_unlock(&mtx);
    return is;
}

/* The next to look up; NULL ends the run. */
static struct conf *
take(void)
{
    struct conf *c;

    pthread_mutex_lock(&mtx);
    c = next;
    next = NULL;
    under_way = c != NULL;
    pthread_mutex_unlock(&mtx);
    return c;
}

static void *
look_up_all(void *arg)
{
    for (struct conf *c; (c = take()) != NULL; conf_unref(&c))
        for (size_t i = 0; i < c->norigins; i++)
            for (size_t k = 0; k < c->origins[i].servers.n && !outdated(); k++)
                look_up(c, &c->origins[i], &c->origins[i].servers.at[k]);
    return arg;
}

void
front_look_up(struct conf *c)
{
    struct conf *was;
    pthread_t thread;
    bool start;

    if (c->dns_servers.n > 0)
        return;                         /* the C library asks others */
    pthread_mutex_lock(&mtx);
    was = next;
    next = conf_ref(c);
    start = !under_way;
    under_way = true;
    pthread_mutex_unlock(&mtx);
    if (was != NULL)
        conf_unref(&was);
    if (!start)
        return;
    if (pthread_create(&thread, NULL, look_up_all, NULL) == 0)
        pthread_detach(thread);
    else
        while ((c = take()) != NULL)    /* nobody is told */
            conf_unref(&c);
}
