/*
 * Content codings: what a request takes (RFC 9110 12.5.3), and the entity tags of coded forms
 * (8.8.3.3).
 *
 * Model    each coding that we make, and identity, has a weight in thousandths; 0 is refused.
 *            - what Accept-Encoding names has the weight it says, 1 without; "*" stands for each
 *              coding that is not named, identity among them.
 *            - identity that neither a name nor "*" speaks of is acceptable: it has the least
 *              weight that there is, so that any coding the client names goes before it.
 *            - no Accept-Encoding accepts anything by the letter of 12.5.3, but those who send none
 *              are mostly those who decode nothing: they have identity. So has an empty one.
 *            - a member that the grammar does not make says nothing; of one said twice the lower
 *              weight counts.
 *          Where nothing is acceptable identity is sent, as the clause allows.
 * Tags     a strong tag of the identity tells a coded form apart by a suffix: "abc" is "abc-br". A
 *          weak one may stand for all forms of one state (8.8.1) and stays. What is no entity-tag
 *          at all has no coded form.
 * Threads  pure functions.
 */
#include "semantics/priv.h"

#define WEIGHT_UNSAID (-1)

static const struct slice names[SEM_CODINGS] = {
    [SEM_IDENTITY] = SLICE("identity"), [SEM_GZIP] = SLICE("gzip"), [SEM_BR] = SLICE("br"),
    [SEM_ZSTD] = SLICE("zstd"),
};

struct slice
sem_coding_name(enum sem_coding c)
{
    return names[c];
}

enum sem_coding
sem_coding(struct slice name)
{
    if (slice_ieq(name, SLICE("x-gzip")))
        return SEM_GZIP;                /* 8.4.1.3 */
    for (enum sem_coding c = 0; c < SEM_CODINGS; c++)
        if (slice_ieq(name, names[c]))
            return c;
    return SEM_CODINGS;
}

/* coding [ OWS ";" OWS "q=" qvalue ]. -1: the grammar does not make it. */
static int
read_member(struct slice member, struct slice *name)
{
    struct slice rest = member;

    slice_cut(&rest, ';', name);
    *name = slice_trim(*name);
    if (rest.p == NULL)
        return SEM_WEIGHT_ONE;
    rest = slice_trim(rest);
    if (rest.n < 3 || (rest.p[0] | 0x20) != 'q' || rest.p[1] != '=')
        return -1;
    return accept_weight((struct slice){ rest.p + 2, rest.n - 2 });
}

static void
lower(int *weight, int q)
{
    if (*weight == WEIGHT_UNSAID || q < *weight)
        *weight = q;
}

void
sem_codings(const struct http_head *request, unsigned weight[SEM_CODINGS])
{
    int said[SEM_CODINGS + 1];          /* the last: of "*" */
    struct http_list it = { 0 };
    struct slice member, name;

    for (unsigned c = 0; c <= SEM_CODINGS; c++)
        said[c] = WEIGHT_UNSAID;
    while (http_list_next(request, HF_ACCEPT_ENCODING, &it, &member)) {
        int q = read_member(member, &name);
        enum sem_coding c = sem_coding(name);

        if (q >= 0 && (c < SEM_CODINGS || slice_eq(name, SLICE("*"))))
            lower(&said[c], q);
    }
    for (unsigned c = 0; c < SEM_CODINGS; c++) {
        if (said[c] == WEIGHT_UNSAID)
            said[c] = said[SEM_CODINGS];
        if (said[c] == WEIGHT_UNSAID)
            said[c] = c == SEM_IDENTITY;
        weight[c] = (unsigned)said[c];
    }
}

size_t
sem_coding_order(const unsigned weight[SEM_CODINGS], const uint8_t *made, size_t n,
    uint8_t order[SEM_CODINGS])
{
    size_t k = 0;

    for (size_t i = 0; i <= n; i++) {
        uint8_t c = i < n ? made[i] : SEM_IDENTITY;
        size_t at = k;

        if (weight[c] == 0)
            continue;
        for (; at > 0 && weight[order[at - 1]] < weight[c]; at--)
            order[at] = order[at - 1];
        order[at] = c;
        k++;
    }
    if (k == 0)
        order[k++] = SEM_IDENTITY;
    return k;
}

bool
sem_about_bytes(const struct http_field *f)
{
    static const struct slice digests[] = { SLICE("Content-Digest"), SLICE("Repr-Digest"),
        SLICE("Digest"), SLICE("Content-MD5") };

    if (f->id == HF_CONTENT_LENGTH || f->id == HF_CONTENT_ENCODING || f->id == HF_ACCEPT_RANGES)
        return true;
    for (size_t i = 0; i < NELEM(digests); i++)
        if (slice_ieq(f->name, digests[i]))
            return true;
    return false;
}

size_t
sem_etag_coded(struct slice etag, enum sem_coding c, char *out)
{
    size_t n = etag.n;

    if (!sem_etag_valid(etag))
        return 0;
    memcpy(out, etag.p, n);
    if (c == SEM_IDENTITY || etag.p[0] == 'W')
        return n;
    out[n - 1] = '-';
    memcpy(out + n, names[c].p, names[c].n);
    n += names[c].n;
    out[n++] = '"';
    return n;
}

struct slice
sem_etag_uncoded(struct slice etag)
{
    for (enum sem_coding c = SEM_GZIP; c < SEM_CODINGS; c++) {
        struct slice name = names[c];
        size_t end = etag.n - 1, less = name.n + 1;

        if (etag.n > less + 2 && etag.p[0] == '"' && etag.p[end - less] == '-' &&
            memcmp(etag.p + end - name.n, name.p, name.n) == 0)
            return (struct slice){ etag.p, end - less };
    }
    return (struct slice){ NULL, 0 };
}
