/*
 * What is asked of the writes, from asking to the answer.
 *
 * Model    an ask is made on the asker's loop and answered there, by way of the write loop or of
 *          the journal's thread. Its memory goes when it was answered; forgotten ones are answered
 *          too, to nobody. All stand in one list, so that the end finds those that no loop runs
 * for.
 * Threads  `done` is the asker's loop's alone; the rest belongs to who has it at the moment.
 */
#include "write/priv.h"

#include <stdlib.h>

struct write_ask *
ask_new(struct writes *w, struct loop *l, void *arg)
{
    struct write_ask *a = calloc(1, sizeof *a);

    CHECK(w, WRITES_MAGIC);
    if (a == NULL) {
        COUNT(memory_failures);
        return NULL;
    }
    a->magic = WRITE_ASK_MAGIC;
    a->w = w;
    a->l = l;
    a->arg = arg;
    a->answer.why = "";
    pthread_mutex_lock(&w->mtx);
    a->next = w->asks;
    if (a->next != NULL)
        a->next->prev = a;
    w->asks = a;
    pthread_mutex_unlock(&w->mtx);
    return a;
}

void
ask_free(struct write_ask *a)
{
    CHECK(a, WRITE_ASK_MAGIC);
    pthread_mutex_lock(&a->w->mtx);
    if (a->prev != NULL)
        a->prev->next = a->next;
    else
        a->w->asks = a->next;
    if (a->next != NULL)
        a->next->prev = a->prev;
    pthread_mutex_unlock(&a->w->mtx);
    buf_free(&a->text);
    pool_free(&a->pool);
    wop_free(a->op);
    a->magic = 0;
    free(a);
}

static void
run_ask(struct loop_msg *m)
{
    struct write_ask *a = CONTAINER(m, struct write_ask, msg);

    CHECK(a, WRITE_ASK_MAGIC);
    a->run(a);
}

void
ask_post(struct write_ask *a)
{
    a->msg.run = run_ask;
    loop_post(a->w->loop, &a->msg);
}

static void
run_answer(struct loop_msg *m)
{
    struct write_ask *a = CONTAINER(m, struct write_ask, msg);

    CHECK(a, WRITE_ASK_MAGIC);
    if (a->done != NULL)
        a->done(a->arg, &a->answer);
    if (a->seen != NULL)
        a->seen(a->arg, &a->view);
    ask_free(a);
}

void
ask_answer(struct write_ask *a, enum write_outcome outcome, const char *why)
{
    a->answer.outcome = outcome;
    a->answer.why = why != NULL ? why : "";
    if (a->text.n > 0 && !a->text.failed)
        a->answer.json = buf_slice(&a->text);
    a->msg.run = run_answer;
    loop_post(a->l, &a->msg);
}

void
write_forget(struct write_ask **ap)
{
    struct write_ask *a = *ap;

    *ap = NULL;
    if (a == NULL)
        return;
    CHECK(a, WRITE_ASK_MAGIC);
    a->done = NULL;
    a->seen = NULL;
}

struct slice
ask_copy(struct write_ask *a, struct slice s, bool *ok)
{
    if (s.p == NULL)
        return s;
    if (a->pool == NULL)
        a->pool = pool_new();
    s = a->pool != NULL ? pool_slice(a->pool, s) : (struct slice){ NULL, 0 };
    *ok = *ok && s.p != NULL;
    return s;
}
