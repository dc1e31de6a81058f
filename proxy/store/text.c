/*
 * A body as one run of bytes, for who looks into it.
 */
#include "store/store.h"

struct slice
body_text(const struct body *b, struct pool *p, uint64_t max)
{
    struct body_cursor c = { 0 };
    struct iovec iov[16];
    uint64_t size = body_size(b);
    char *text = size <= max && b->trimmed == 0 ? pool_alloc(p, size + 1) : NULL;
    size_t n, at = 0;

    if (text == NULL)
        return (struct slice){ NULL, 0 };
    while ((n = body_pieces(b, &c, size, iov, NELEM(iov))) > 0)
        for (size_t i = 0; i < n; i++) {
            memcpy(text + at, iov[i].iov_base, iov[i].iov_len);
            at += iov[i].iov_len;
            body_skip(b, &c, iov[i].iov_len);
        }
    return (struct slice){ text, size };
}
