/*
 * A batch: many writes as one request, and what its one answer means for each.
 *
 * Model    the contents, in order, are the elements of a JSON array, or the lines of NDJSON. An
 *          answer of 2xx is everyone's, unless its content is an array, or has a member that is
 *          one, with as many elements as the batch: then each is the result of one write, by its
 *          `status` or `statusCode`; in a 207 also by its `code`, or a number alone, which may be
 *          anything elsewhere. A 207 must have them: it says that they differ. What comes to
 *          nothing as a whole fails all of them; with a status by which the origin refuses them,
 *          they are tried again first, in fewer and fewer together. Not with 408 and 5xx where no
 *          promise allows it: it may have done some.
 * Threads  the write loop.
 */
#include "write/deliver.h"

#include <jansson.h>
#include <stdlib.h>

/* A line of NDJSON: line ends stand between tokens of JSON alone, where a space does as well. */
static void
add_content(struct buf *b, struct slice s, bool lines)
{
    size_t at = b->n;

    buf_adds(b, slice_trim(s));
    for (size_t i = at; lines && !b->failed && i < b->n; i++)
        if (b->p[i] == '\n' || b->p[i] == '\r')
            b->p[i] = ' ';
}

int
batch_body(struct delivery *d)
{
    bool lines = d->route->conf->write_batch_format == WRITE_BATCH_NDJSON;
    struct buf b = { 0 };

    if (!lines)
        buf_addc(&b, '[');
    for (size_t i = 0; i < d->nitems; i++) {
        if (i > 0 && !lines)
            buf_addc(&b, ',');
        add_content(&b, d->items[i].content.body, lines);
        if (lines)
            buf_addc(&b, '\n');
    }
    if (!lines)
        buf_addc(&b, ']');
    d->body = pool_slice(d->pool, buf_slice(&b));
    buf_free(&b);
    return d->body.p != NULL ? 0 : -1;
}

/* The elements that are the results, one for each; NULL: there are none. */
static json_t *
results_of(json_t *answer, size_t n)
{
    const char *name;
    json_t *member;

    if (json_is_array(answer) && json_array_size(answer) == n)
        return answer;
    json_object_foreach(answer, name, member)
        if (json_is_array(member) && json_array_size(member) == n)
            return member;
    return NULL;
}

/* 0: it tells none. multi: of a 207. */
static unsigned
status_of(const json_t *result, bool multi)
{
    static const char *const names[] = { "status", "statusCode", "code" };
    const json_t *v = multi ? result : NULL;
    long n;

    for (size_t i = 0; json_is_object(result) && i < (multi ? 3 : 2); i++)
        if ((v = json_object_get(result, names[i])) != NULL)
            break;
    n = json_is_integer(v) ? (long)json_integer_value(v) :
        json_is_string(v) ? strtol(json_string_value(v), NULL, 10) : 0;
    return n >= 200 && n <= 599 ? (unsigned)n : 0;
}

static void
settle_each(struct delivery *d, const json_t *results, unsigned status, int64_t after)
{
    unsigned whole = status == 207 ? 500 : status;

    for (size_t i = 0; i < d->nitems; i++) {
        struct policy_heard h = { .answered = true,
            .status = status_of(json_array_get(results, i), status == 207) };

        if (h.status == 0)
            h.status = whole;
        delivery_judge(d, &d->items[i], &h, after, "");
    }
}

static void
settle_all(struct delivery *d, const struct policy_heard *h, int64_t after)
{
    for (size_t i = 0; i < d->nitems; i++) {
        struct item *it = &d->items[i];

        delivery_judge(d, it, h, after, "");
        if (it->to == WRITE_REJECTED && d->nitems > 1 && h->status < 500 && h->status != 408) {
            it->to = WRITE_WAITING;     /* one of them may be the reason */
            it->delay_ms = 0;
            it->cause = "its batch was refused";
        }
    }
}

void
batch_settle(struct delivery *d, const struct fill_view *v, struct slice body)
{
    struct policy_heard h = { .answered = true, .status = v->status };
    int64_t after = http_retry_after(v->response, wall_ms());
    bool good = v->status >= 200 && v->status <= 299;
    json_t *answer = good && v->complete && body.n > 0 ? json_loadb(body.p, body.n, 0, NULL) : NULL;
    json_t *results = answer != NULL ? results_of(answer, d->nitems) : NULL;

    if (results != NULL) {
        settle_each(d, results, v->status, after);
    } else if (v->status == 207) {      /* who knows */
        h = (struct policy_heard){ .reached = true };
        settle_all(d, &h, after);
    } else {
        settle_all(d, &h, after);
    }
    json_decref(answer);
}
