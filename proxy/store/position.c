/*
 * Purge sequences of this process and positions of the stream that all instances purge by.
 *
 * Model    each entry of the stream stands at a position (the id of a Redis stream's entry), and
 *          was a purge here: a foreign entry with the sequence that it was applied with, an own one
 *          with that from which it was in force at home, which may be before foreign ones with
 *          lower positions. So of two orders neither follows from the other.
 *            A stamp's position is the last P such that all entries up to P have a sequence of at
 *          most the stamp: what was fetched under the stamp is younger than all of them, whoever
 *          reads it.
 *            A position's stamp is the largest S such that all entries with a sequence up to S
 *          stand at P or before: who stored at P has seen all that happened here up to S. Own
 *          purges that have no place yet stand behind everything.
 *          Both may be lower than they need be, which refuses a response for nothing; never higher.
 * Entries  in the order of the stream. `last` is the greatest sequence of an entry and those before
 *          it, so a stamp's position is found by halving. When there is no room, each two become
 *          one: with the later position, and the span of both, which is on the low side for either
 *          question. So history loses grain and not its beginning.
 * Threads  any; a lock of its own, under which nothing else is taken.
 */
#include "store/inside.h"

#include <stdlib.h>

static void
drop_grain(struct positions *p)
{
    for (size_t i = 0; i < p->n / 2; i++) {
        const struct position *a = &p->at[2 * i], *b = a + 1;

        p->at[i] = (struct position){ .place = b->place, .last = b->last,
            .first = a->first < b->first ? a->first : b->first };
    }
    p->n /= 2;
}

void
store_position_add(struct store *s, uint64_t first, uint64_t last, struct store_position at)
{
    struct positions *p = &s->positions;
    uint64_t before;

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&p->lock);
    if (p->known) {
        if (p->n == POSITIONS)
            drop_grain(p);
        before = p->n > 0 ? p->at[p->n - 1].last : p->since;
        p->at[p->n++] = (struct position){ .place = at, .first = first,
            .last = last > before ? last : before };
    }
    pthread_mutex_unlock(&p->lock);
}

void
store_position_wait(struct store *s, uint64_t first)
{
    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&s->positions.lock);
    s->positions.waiting = first;
    pthread_mutex_unlock(&s->positions.lock);
}

void
store_position_begin(struct store *s, struct store_position at)
{
    struct positions *p = &s->positions;

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&p->lock);
    if (p->at == NULL)
        p->at = malloc(POSITIONS * sizeof *p->at);
    p->n = 0;
    p->base = at;
    p->since = store_stamp(s);
    p->known = p->at != NULL;
    pthread_mutex_unlock(&p->lock);
}

bool
store_position(struct store *s, uint64_t stamp, struct store_position *at)
{
    struct positions *p = &s->positions;
    size_t low = 0, high;
    bool known;

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&p->lock);
    known = p->known && stamp >= p->since;
    for (high = p->n; low < high; ) {
        size_t middle = low + (high - low) / 2;

        if (p->at[middle].last > stamp)
            high = middle;
        else
            low = middle + 1;
    }
    *at = low > 0 ? p->at[low - 1].place : p->base;
    pthread_mutex_unlock(&p->lock);
    return known;
}

bool
store_position_settled(struct store *s, uint64_t stamp)
{
    bool settled;

    CHECK(s, STORE_MAGIC);
    pthread_mutex_lock(&s->positions.lock);
    settled = s->positions.waiting > stamp;
    pthread_mutex_unlock(&s->positions.lock);
    return settled;
}

bool
store_stamp_of(struct store *s, struct store_position at, uint64_t *stamp)
{
    struct positions *p = &s->positions;
    uint64_t most = store_stamp(s);     /* before the look: a purge is in there before it counts */
    bool known;

    pthread_mutex_lock(&p->lock);
    known = p->known && store_position_cmp(at, p->base) >= 0;
    if (p->waiting <= most)
        most = p->waiting - 1;
    for (size_t i = p->n; i > 0 && store_position_cmp(p->at[i - 1].place, at) > 0; i--)
        if (p->at[i - 1].first <= most)
            most = p->at[i - 1].first - 1;
    pthread_mutex_unlock(&p->lock);
    *stamp = most;
    return known;
}
