/*
 * api_key -- lets requests in that bring a key of a file, of which that file knows the hash alone.
 *
 * Model    a line of the file is `HASH NAME`: the SHA-256 of a key in hex, and who has it. Keys are
 *          random and long, so a plain hash is enough: nobody can try them all. The file is read
 *          when the plugin opens, and again when it changes; a file that cannot be read or has a
 *          bad line leaves the keys as they were, and says so. A key is looked up by its hash, so
 *          that how long it takes tells nothing of the keys that there are.
 *          The key does not go to the origin, the name may; and the name may be a part of the cache
 *          key, so that each has its own answers.
 * Threads  hooks read under a lock that only a new file takes for writing.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "plugins/abi.h"
#include "plugins/watched.h"

#define LINE_MAX_N 512

struct entry { unsigned char hash[SHA256_DIGEST_LENGTH]; char *name; unsigned line; };
struct keys { struct entry *at; size_t n; };

struct plugin {
    struct weir_self *self;
    struct watched file;                /* main thread */
    const char *field;                  /* the configuration's */
    pthread_rwlock_t lock;
    struct keys keys;                   /* under lock; sorted by hash */
};

struct route { int scope_name; const char *forward; const struct weir_text *allow; size_t nallow; };

static const struct weir_host *host;
static struct weir_counter *refused, *reloads, *bad_files;

/* ---- the file -------------------------------------------------------------------------------- */

static int
by_hash(const void *a, const void *b)
{
    return memcmp(((const struct entry *)a)->hash, ((const struct entry *)b)->hash,
        SHA256_DIGEST_LENGTH);
}

static void
keys_free(struct keys *k)
{
    for (size_t i = 0; i < k->n; i++)
        free(k->at[i].name);
    free(k->at);
    *k = (struct keys){ NULL, 0 };
}

static int
hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ?
        (c | 32) - 'a' + 10 : -1;
}

/* NULL, or what is wrong with the line. Empty ones and comments are nothing. */
static const char *
take_line(struct keys *k, char *line, unsigned number)
{
    struct entry e = { .line = number }, *at;
    char *name;

    line[strcspn(line, "\r\n")] = '\0';
    if (line[0] == '\0' || line[0] == '#')
        return NULL;
    for (size_t i = 0; i < sizeof e.hash; i++) {
        int high = hex(line[2 * i]), low = high >= 0 ? hex(line[2 * i + 1]) : -1;

        if (low < 0)
            return "does not begin with a SHA-256 of 64 hex digits";
        e.hash[i] = (unsigned char)(high << 4 | low);
    }
    name = line + 2 * sizeof e.hash;
    if (*name != ' ' && *name != '\t')
        return "has no name behind the hash";
    name += strspn(name, " \t");
    if (*name == '\0' || strpbrk(name, " \t") != NULL)
        return "has no name of one word behind the hash";
    at = realloc(k->at, (k->n + 1) * sizeof *at);
    if (at != NULL)
        k->at = at;
    e.name = at != NULL ? strdup(name) : NULL;
    if (e.name == NULL)
        return "does not fit into memory";
    k->at[k->n++] = e;
    return NULL;
}

/* Sorted: a line with the key of one before it, which would have two names; 0: none. */
static unsigned
twice(const struct keys *k)
{
    for (size_t i = 1; i < k->n; i++)
        if (by_hash(&k->at[i - 1], &k->at[i]) == 0)
            return k->at[i - 1].line > k->at[i].line ? k->at[i - 1].line : k->at[i].line;
    return 0;
}

/* -1 with why (room for 256). */
static int
read_keys(const char *file, struct keys *k, char *why)
{
    FILE *f = fopen(file, "re");
    const char *wrong = NULL;
    char line[LINE_MAX_N];
    unsigned number = 0;

    if (f == NULL) {
        snprintf(why, 256, "cannot be read: %s", strerror(errno));
        return -1;
    }
    while (wrong == NULL && fgets(line, sizeof line, f) != NULL) {
        number++;
        wrong = strlen(line) == sizeof line - 1 ? "is too long" : take_line(k, line, number);
    }
    if (wrong == NULL && ferror(f))
        wrong = "cannot be read";
    fclose(f);
    if (wrong == NULL && k->n > 1) {
        qsort(k->at, k->n, sizeof *k->at, by_hash);
        number = twice(k);
        wrong = number > 0 ? "has a key that stands above already" : NULL;
    }
    if (wrong != NULL) {
        snprintf(why, 256, "line %u %s; lines of `HASH NAME`", number, wrong);
        keys_free(k);
        return -1;
    }
    return 0;
}

static void
tick(void *plugin)
{
    struct plugin *p = plugin;
    struct keys next = { NULL, 0 }, was;
    char why[256], text[512];

    if (!watched_changed(&p->file))
        return;
    if (read_keys(p->file.path, &next, why) == -1) {
        host->count(bad_files, 1);
        snprintf(text, sizeof text, "%.200s %s; the keys stay as they were", p->file.path, why);
        host->log(p->self, WEIR_LOG_ERROR, text);
        return;
    }
    pthread_rwlock_wrlock(&p->lock);
    was = p->keys;
    p->keys = next;
    pthread_rwlock_unlock(&p->lock);
    keys_free(&was);
    host->count(reloads, 1);
    snprintf(text, sizeof text, "%zu keys", next.n);
    host->log(p->self, WEIR_LOG_INFO, text);
}

/* ---- a request ------------------------------------------------------------------------------- */

static int
refuse(struct weir_request *r, unsigned status, const char *detail)
{
    static const char challenge[] = "ApiKey realm=\"api\"";

    if (host->number(r, WEIR_EXPLAINED) != 1)
        host->count(refused, 1);
    if (status == 401)
        host->set_field(r, WEIR_OF_RESPONSE, "WWW-Authenticate",
            (struct weir_text){ challenge, sizeof challenge - 1 });
    return host->refuse(r, status, detail);
}

/* The name behind the key, in the request's memory; .p NULL: it is nobody's. */
static struct weir_text
name_of(struct plugin *p, struct weir_request *r, struct weir_text key)
{
    struct weir_text name = { NULL, 0 };
    struct entry wanted, *found;
    char *copy;

    SHA256((const unsigned char *)key.p, key.n, wanted.hash);
    pthread_rwlock_rdlock(&p->lock);
    found = p->keys.n == 0 ? NULL :
        bsearch(&wanted, p->keys.at, p->keys.n, sizeof wanted, by_hash);
    copy = found != NULL ? host->alloc(r, strlen(found->name) + 1) : NULL;
    if (copy != NULL)
        name = (struct weir_text){ strcpy(copy, found->name), strlen(found->name) };
    pthread_rwlock_unlock(&p->lock);
    return name;
}

static int
is_allowed(const struct route *route, struct weir_text name)
{
    for (size_t i = 0; i < route->nallow; i++)
        if (route->allow[i].n == name.n && memcmp(route->allow[i].p, name.p, name.n) == 0)
            return 1;
    return route->nallow == 0;
}

static int
request(void *plugin, void *route, struct weir_request *r)
{
    const struct route *its = route;
    struct plugin *p = plugin;
    struct weir_text key = host->field(r, WEIR_OF_REQUEST, p->field, 0), name;

    if (key.p == NULL || key.n == 0)
        return refuse(r, 401, "this needs an API key");
    if (host->field(r, WEIR_OF_REQUEST, p->field, 1).p != NULL)
        return refuse(r, 401, "there is more than one API key");
    name = name_of(p, r, key);
    if (name.p == NULL)
        return refuse(r, 401, "this API key is not known");
    if (!is_allowed(its, name))
        return refuse(r, 403, "this API key is not for this");
    if (host->set_field(r, WEIR_OF_REQUEST, p->field, (struct weir_text){ NULL, 0 }) == -1 ||
        (its->forward != NULL && host->set_field(r, WEIR_OF_REQUEST, its->forward, name) == -1) ||
        (its->scope_name && host->add_key(r, "api_key", name) == -1))
        return refuse(r, 503, "out of memory");     /* also with on_error: skip */
    return WEIR_NEXT;
}

/* ---- open and close -------------------------------------------------------------------------- */

/* Once: at a reload hooks read them. */
static void
name_counters(const struct weir_host *h, struct weir_self *self)
{
    host = h;
    refused = h->counter(self, "api_key_refused",
        "Requests without a key that is known and allowed.");
    reloads = h->counter(self, "api_key_reloads", "Times that a changed file of keys was taken.");
    bad_files = h->counter(self, "api_key_bad_files", "Times that a changed file was not taken.");
}

static int
open_plugin(const struct weir_host *h, struct weir_self *self, const struct weir_value *values,
    void **out)
{
    struct plugin *p = calloc(1, sizeof *p);
    char why[256], text[512];

    if (host == NULL)
        name_counters(h, self);
    if (p == NULL) {
        h->complain(self, NULL, "out of memory");
        return -1;
    }
    p->self = self;
    p->file.path = values[0].text.p;
    p->field = values[1].text.p;
    if (!h->may_set(WEIR_OF_REQUEST, p->field)) {
        h->complain(self, "field", "is no name of a request field that a plugin may take away");
        free(p);
        return -1;
    }
    watched_changed(&p->file);
    if (read_keys(p->file.path, &p->keys, why) == -1) {
        snprintf(text, sizeof text, "%.200s %s", p->file.path, why);
        h->complain(self, "file", text);
        free(p);
        return -1;
    }
    pthread_rwlock_init(&p->lock, NULL);
    *out = p;
    return 0;
}

static void
close_plugin(void *plugin)
{
    struct plugin *p = plugin;

    keys_free(&p->keys);
    pthread_rwlock_destroy(&p->lock);
    free(p);
}

static int
route_open(void *plugin, struct weir_self *self, const char *name,
    const struct weir_value *values, void **out)
{
    struct route *r = calloc(1, sizeof *r);

    (void)plugin;
    (void)name;
    if (r == NULL) {
        host->complain(self, NULL, "out of memory");
        return -1;
    }
    r->scope_name = strcmp(values[0].text.p, "name") == 0;
    r->forward = values[1].text.p;
    r->allow = values[2].texts;
    r->nallow = values[2].ntexts;
    if (r->forward != NULL && !host->may_set(WEIR_OF_REQUEST, r->forward)) {
        host->complain(self, "forward", "is no name of a request field that a plugin may set");
        free(r);
        return -1;
    }
    *out = r;
    return 0;
}

static void
route_close(void *plugin, void *route)
{
    (void)plugin;
    free(route);
}

static const struct weir_option options[] = {
    { "file", WEIR_FILE, WEIR_REQUIRED, NULL, NULL, NULL, NULL,
      "Lines of `HASH NAME`: the SHA-256 of a key in hex, and who has it. Read again when it "
      "changes." },
    { "field", WEIR_TEXT, 0, "X-API-Key", NULL, NULL, NULL, "The request field with the key." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

static const struct weir_option route_options[] = {
    { "scope", WEIR_WORD, 0, "all", NULL, NULL, "all, name",
      "Who shares what is stored. all: everybody with a key; name: each name has its own." },
    { "forward", WEIR_TEXT, 0, NULL, NULL, NULL, NULL,
      "The field in which the origin gets the name; the key itself never goes there." },
    { "allow", WEIR_TEXTS, 0, NULL, NULL, NULL, NULL, "The only names that may; all unless said." },
    { NULL, 0, 0, NULL, NULL, NULL, NULL, NULL },
};

const struct weir_plugin weir_plugin = {
    .abi = WEIR_ABI, .size = sizeof(struct weir_plugin), .name = "api_key", .version = "1",
    .meaning = "Lets requests in that bring a key of a file of hashes.",
    .options = options, .route_options = route_options, .open = open_plugin,
    .close = close_plugin, .route_open = route_open, .route_close = route_close, .tick = tick,
    .request = request,
};
