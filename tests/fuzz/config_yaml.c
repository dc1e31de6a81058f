/*
 * The YAML loader: any bytes give either a configuration or a report with an error, and a
 * configuration can be written out and read again.
 */
#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct config_report r = { 0 };
    struct conf *c = config_parse((const char *)data, n, "fuzz.yaml", "http://127.0.0.1:8000", &r);

    assert((c == NULL) == (r.errors > 0));
    if (c != NULL) {
        struct config_report again_r = { 0 };
        struct buf b = { 0 };
        struct conf *again;

        config_dump(c, &b);
        again = config_parse(b.p, b.n, "dump", NULL, &again_r);
        assert(again != NULL);
        conf_unref(&again);
        config_report_free(&again_r);
        buf_free(&b);
    }
    conf_unref(&c);
    config_report_free(&r);
    return 0;
}
