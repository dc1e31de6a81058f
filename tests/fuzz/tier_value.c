/*
 * Values of a lower tier, and markers of variants: the bytes with their checksum as it stands, and with one that is right,
 * so that what stands behind it is reached. What is good is what store_put and who serves it take.
 */
#include "require.h"

#include <stdlib.h>
#include <string.h>

#include "tier/redis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
use_marker(struct slice in)
{
    struct slice key, vary;

    if (rtier_marker_read(in, &key, &vary) == VALUE_GOOD)
        require(vary.n > 0 && key.n + vary.n < in.n);
}

static void
use(struct slice in)
{
    struct value_parts vp;
    struct value v;
    struct slice vary, variant, name, value;

    use_marker(in);
    if (value_decode(in, &v) != VALUE_GOOD)
        return;
    value_to_parts(&v, &vp);
    (void)value_useful(&v, 1700000000000);
    require(vp.key.path_at <= vp.key.url_n && vp.key.url_n <= vp.key.bytes.n);
    require(vp.p.ntags == v.ntags && vp.p.ngroups == v.ngroups);
    require((size_t)v.etag_at + v.etag_n <= v.head.n && v.status_n <= v.head.n);
    vary = v.vary;
    variant = v.variant;
    while (sem_variant_next(&vary, &variant, &name, &value))
        require(value.p == NULL || value.n <= in.n);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf b = { 0 };

    use((struct slice){ (const char *)data, size });
    buf_add(&b, data, size);
    if (b.n >= 16 && !b.failed) {
        memcpy(b.p, "WEIRVAL\002", 8);
        value_seal(&b);
        use(buf_slice(&b));
        memcpy(b.p, "WEIRVRY\001", 8);
        value_seal(&b);
        use_marker(buf_slice(&b));
    }
    buf_free(&b);
    return 0;
}
