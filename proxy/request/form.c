/*
 * Which form of a stored response a request gets: the identity, or one that is coded beside it.
 *
 * Model    of the forms that there are, the one that Accept-Encoding weighs highest, of equal ones
 *          the one that the route names first (sem_coding_order). Who says no-transform has what
 *          the origin sent (RFC 9111 5.2.1.6); a part is cut out of the identity.
 *          A client may name, in a condition, the tag of any form that it takes: also of one that
 *          is not made yet, or no more. A 304 says the tag that the client named, for by
 *          another it would find nothing to freshen (RFC 9111 4.3.4).
 *          Conditions that the origin is to judge name the tags that ours were made of beside them:
 *          an origin may have tags that look like ours.
 * Threads  any; on data of its own.
 */
#include "request/priv.h"

const struct form *
form_choose(const struct object *o, const struct route *route, const struct http_head *h,
    const struct sem_request *rq)
{
    const struct forms *forms = rcu_load(&o->forms);
    const struct route_compress *z = &route->compress;
    unsigned weight[SEM_CODINGS];
    uint8_t order[SEM_CODINGS];
    size_t n;

    if (forms == NULL || (rq->cc.flags & CC_NO_TRANSFORM))
        return NULL;
    sem_codings(h, weight);
    n = sem_coding_order(weight, z->codings, z->n, order);
    for (size_t i = 0; i < n && order[i] != SEM_IDENTITY; i++)
        for (size_t k = 0; k < forms->n; k++)
            if (forms->at[k].coding == order[i])
                return &forms->at[k];
    return NULL;
}

bool
form_held(const struct request *r, struct slice etag, int64_t last_modified_s, int64_t date_s,
    int64_t now_s, char tag[FORM_TAG_MAX], struct slice *held)
{
    const struct route_compress *z = &r->match.route->compress;
    unsigned weight[SEM_CODINGS];
    uint8_t order[SEM_CODINGS];
    size_t n;

    n = z->n > 0 && http_has(r->head, HF_IF_NONE_MATCH) && etag.n <= FORM_TAG_MAX - SEM_CODED_MORE;
    if (n > 0) {
        sem_codings(r->head, weight);
        n = sem_coding_order(weight, z->codings, z->n, order);
    }
    for (size_t i = 0; i < n; i++) {
        *held = (struct slice){ tag, sem_etag_coded(etag, order[i], tag) };
        if (held->n > 0 && sem_not_modified(r->head, *held, last_modified_s, date_s, now_s))
            return true;
    }
    *held = etag;
    return sem_not_modified(r->head, etag, last_modified_s, date_s, now_s);
}

void
form_conditions(const struct http_field *f, struct buf *b)
{
    struct slice rest = f->value, tag, bare;

    buf_adds(b, f->name);
    buf_addz(b, ": ");
    buf_adds(b, f->value);
    while (http_member(&rest, &tag)) {
        if (!sem_etag_valid(tag) || (bare = sem_etag_uncoded(tag)).p == NULL)
            continue;
        buf_addz(b, ", ");
        buf_adds(b, bare);
        buf_addc(b, '"');
    }
    buf_addz(b, "\r\n");
}
