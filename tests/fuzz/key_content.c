/*
 * Request content in its normal form: JSON, and forms.
 *
 * Held to: no read or write beyond what is there; what has a normal form has it as its own normal
 * form, is no longer, and is JSON or a form still; what has none leaves nothing behind.
 */
#include "key/key.h"
#include "key/priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
hold(struct slice content, bool (*normal)(struct slice, struct buf *))
{
    struct buf once = { 0 }, twice = { 0 };

    buf_addz(&once, "front");
    if (!normal(content, &once)) {
        assert(once.n == 5 && !once.failed);
    } else {
        struct slice form = { once.p + 5, once.n - 5 };

        assert(memcmp(once.p, "front", 5) == 0 && form.n <= content.n);
        assert(normal(form, &twice));
        assert(slice_eq(form, buf_slice(&twice)));
    }
    buf_free(&once);
    buf_free(&twice);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice content = { (const char *)data, size };

    hold(content, content_json);
    hold(content, content_form);
    return 0;
}
