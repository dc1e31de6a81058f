/*
 * The names of origins, looked up once at start and reload: a slip of the pen is told before the first request
 * fails by it. Nothing waits for it, and nothing but the log comes of it: the look-ups that count
 * are upstream/'s, at each connection.
 *
 * Threads  one of its own, which ends with the last name; it holds the configuration.
 */
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>

#include "front/front.h"

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
        "requests are answered 502 until then", c->file != NULL ? c->file : "command line", line, o->id,
        url->text, gai_strerror(rc));
}

static void *
look_up_all(void *arg)
{
    struct conf *c = arg;

    for (size_t i = 0; i < c->norigins; i++)
        for (size_t k = 0; k < c->origins[i].servers.n; k++)
            look_up(c, &c->origins[i], &c->origins[i].servers.at[k]);
    conf_unref(&c);
    return NULL;
}

void
front_look_up(struct conf *c)
{
    pthread_t thread;

    if (c->dns_servers.n > 0)
        return;                         /* the C library asks others */
    c = conf_ref(c);
    if (pthread_create(&thread, NULL, look_up_all, c) == 0)
        pthread_detach(thread);
    else
        conf_unref(&c);
}
