/*
 * Variants: which of a key's stored responses answers a request.
 *
 * Model    a variant is the values that its Vary names, in one form, in the node. The request's
 *          values for that Vary are put into the thread's scratch space, and compared as bytes. One
 *          that does not match may still be what the request prefers to all others by its language,
 *          which stands in its head.
 * Threads  any, in a read section.
 */
#include "store/inside.h"

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static _Thread_local struct buf scratch;
static _Thread_local bool scratch_known;

static void
scratch_free(void *b)
{
    buf_free(b);
}

static void
scratch_init(void)
{
    pthread_key_create(&scratch_key, scratch_free);
}

/* The request's variant for `vary`, in the thread's scratch space; .p == NULL: memory out. */
static struct slice
variant_of(struct slice vary, const struct http_head *req)
{
    if (!scratch_known) {
        pthread_once(&scratch_once, scratch_init);
        pthread_setspecific(scratch_key, &scratch);
        scratch_known = true;
    }
    scratch.n = 0;
    sem_variant(vary, req, &scratch);
    if (scratch.failed) {
        buf_free(&scratch);
        return (struct slice){ 0 };
    }
    return buf_slice(&scratch);
}

static void
choose_by(struct slice vary, const struct http_head *req, struct store_choice *c)
{
    if (c->vary.p != NULL && slice_eq(vary, c->vary))
        return;
    c->vary = vary;
    c->variant = variant_of(vary, req);
}

bool
choice_matches(const struct node *n, const struct http_head *req, struct store_choice *c)
{
    choose_by(node_vary(n), req, c);
    return c->variant.p != NULL && slice_eq(node_variant(n), c->variant);
}

/* The one language of what is stored; .p == NULL: it says none, or several. */
static struct slice
content_language(const struct node *n)
{
    struct slice rest = { n->o.head->bytes, n->o.head->n }, line, name, found = { NULL, 0 };

    while (slice_cut(&rest, '\n', &line)) {
        if (!slice_cut(&line, ':', &name) || !slice_ieq(name, SLICE("Content-Language")))
            continue;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        line = slice_trim(line);
        if (found.p != NULL || line.n == 0 || memchr(line.p, ',', line.n) != NULL)
            return (struct slice){ NULL, 0 };
        found = line;
    }
    return found;
}

bool
choice_prefers(const struct node *n, const struct http_head *req, struct store_choice *c)
{
    struct slice vary = node_vary(n), language;

    if (!sem_by_language(vary) || (language = content_language(n)).p == NULL)
        return false;
    choose_by(vary, req, c);
    return c->variant.p != NULL &&
        sem_language_selects(vary, node_variant(n), c->variant, language);
}
