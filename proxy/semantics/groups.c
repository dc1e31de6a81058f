/*
 * Groups of stored responses (RFC 9875 2, 3): which ones a field of a response names.
 *
 * Model    both fields are lists of strings (RFC 9651 3.1), over all their lines. A member that is
 *          something else makes the field as if it were not there, parameters are ignored; a group
 *          that is too long is ignored alone.
 * Threads  pure functions.
 * Not here what makes two groups one (the origin of the response, 2.1): fill and purge.
 */
#include "semantics/semantics.h"

static bool
lists_strings(struct slice line)
{
    struct sf_item item;

    if (sf_check(SF_LIST, line) == -1)
        return false;
    while (sf_list(&line, &item, NULL))
        if (item.type != SF_STRING)
            return false;
    return true;
}

int
sem_groups(const struct http_head *response, enum http_id field,
    void (*each)(void *arg, struct slice group), void *arg)
{
    struct buf scratch = { 0 };
    struct sf_item item;
    bool failed = false;

    if (!http_has(response, field))
        return 0;
    for (unsigned i = 0; i < response->nfields; i++)
        if (response->fields[i].id == field && !lists_strings(response->fields[i].value))
            return 0;
    for (unsigned i = 0; i < response->nfields; i++) {
        struct slice rest = response->fields[i].value;

        while (response->fields[i].id == field && sf_list(&rest, &item, &scratch)) {
            failed = failed || scratch.failed;
            if (!failed && item.text.n <= SEM_GROUP_MAX)
                each(arg, item.text);
            scratch.n = 0;
        }
    }
    buf_free(&scratch);
    return failed ? -1 : 0;
}
