/*
 * Before a flight takes off that no client waits for: has another instance fetched it?
 *
 * Model    what is stored and stale is served while it is fetched anew, by one of the instances
 *          that share a Redis. Such a flight looks there, and waits for who has the lease: its
 *          clients have their answers. Where memory has something fresh then, it ends; else it asks
 *          about what memory has by now.
 *          Where Redis fails, what is served meanwhile is what the route's `on_failure` wants
 *          served, unless that is to fetch.
 */
#include "fill/flight.h"

/* What stands under its key now, if its request may have it; a reference. NULL: nothing. *fresh:
 * it need not be fetched any more. */
static struct object *
stored(const struct flight *f, bool *fresh)
{
    int64_t now = wall_ms();
    struct object *o = NULL;
    const char *why;
    bool soft, hit;

    rcu_begin();
    hit = store_get(f->fills->store, &f->key, f->request, now, &o, &soft) == STORE_HIT;
    *fresh = hit && sem_use(&f->semantics, &o->meta, now, soft, &why) == SEM_FRESH;
    o = hit ? object_ref(o) : NULL;
    rcu_end();
    return o;
}

/* Takes o. */
static bool
validates(struct flight *f, struct object *o)
{
    struct buf b = { 0 };
    bool ok;

    object_unref(&f->stale);
    f->stale = o;
    buf_add(&b, f->send.fields.p, f->conditions_at);
    if (!f->semantics.promised)
        flight_conditions(o, &b);
    f->send.fields = pool_slice(f->pool, buf_slice(&b));
    ok = !b.failed && f->send.fields.p != NULL;
    buf_free(&b);
    return ok;
}

/* Who joined looks again. */
static void
end(struct flight *f)
{
    flight_unlist(f);                   /* nobody joins any more */
    pthread_mutex_lock(&f->mtx);
    response_release(f, FILL_AGAIN);
    flight_wake(f);
    pthread_mutex_unlock(&f->mtx);
    flight_landed(f);
}

static void
on_tier(void *arg, const struct tier_result *a)
{
    struct flight *f = arg;
    struct object *o;
    bool fresh;

    CHECK(f, FLIGHT_MAGIC);
    f->ask = NULL;
    f->lease = a->lease;
    o = stored(f, &fresh);
    if (fresh || (a->answer == TIER_FAILED && f->route->on_failure != ON_FAILURE_BYPASS)) {
        object_unref(&o);
        end(f);
        return;
    }
    if (o == f->stale)
        object_unref(&o);
    else if (o != NULL && !validates(f, o)) {
        flight_no_memory(f);
        return;
    }
    flight_stamp(f);
    flight_take_off(f);
}

void
flight_look_first(struct flight *f)
{
    const struct tier_want w = { .key = &f->key, .request = f->request, .have_stale = true,
        .lease = true, .done = on_tier, .arg = f };
    struct tier_result now = { .by = TIER_REDIS };

    f->ask = tier_get(f->fills->tiers, f->home, &w, &now.answer);
    if (f->ask != NULL)
        return;
    if (now.answer == TIER_FAILED)
        on_tier(f, &now);
    else
        flight_take_off(f);
}
