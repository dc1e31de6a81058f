/*
 * Dates. What is read is written as IMF-fixdate and read back to the same second; what was an
 * IMF-fixdate has 29 bytes. The first eight bytes are the time now, and a time to write.
 */
#include "http/http.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
reads_back(int64_t s, int64_t now)
{
    char out[HTTP_DATE_LEN];

    http_date_put(out, s);
    if (http_date((struct slice){ out, sizeof out }, now) != s)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t now, s;

    if (size < 8)
        return 0;
    memcpy(&now, data, 8);
    s = http_date((struct slice){ (const char *)data + 8, size - 8 }, now);
    /* A second past the end of 9999 is what a leap second there would be. */
    if (s != HTTP_NO_DATE && s <= 253402300799)
        reads_back(s, now);
    if (now >= -62167219200 && now <= 253402300799)
        reads_back(now, now);
    return 0;
}
