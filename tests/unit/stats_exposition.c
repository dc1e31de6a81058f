/*
 * /metrics as promtool judges it, /stats as JSON, and the line of each minute.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "stats/stats.h"

static void
a_source(struct buf *b, void *arg)
{
    buf_printf(b, ", \"%s\": {\"x\": 1}", (const char *)arg);
}

static int
setup(void **state)
{
    static struct stats_source source = { .json = a_source, .arg = "extra" };

    (void)state;
    if (stats_init(NULL) != 0)
        return -1;
    stats_source_add(&source);
    stats_state_name(3, "LOOKUP");
    COUNT(requests);
    stats_request(stats_route_slot("/quo\"te\\back\nline"), OUTCOME_HIT, 1500, 10);
    stats_request(stats_route_slot("/api/{id}"), OUTCOME_MISS, 250000, 20);
    stats_request(stats_route_slot("/api/{id}"), OUTCOME_HIT, 90, 20);
    stats_origin(stats_origin_slot("api/http://127.0.0.1:8000"), ORIGIN_TOTAL, 12345);
    stats_state(3, 12);
    stats_tick(1000000);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    stats_fini();
    return 0;
}

static char *
metrics(void)
{
    struct buf b = { 0 };

    stats_metrics(&b);
    buf_addc(&b, '\0');
    assert_false(b.failed);
    return b.p;
}

/* Runs a shell command with text as its input; its exit status, and its output in out. */
static int
run(const char *command, const char *text, char *out, size_t cap)
{
    char path[] = "/tmp/weir-test-XXXXXX", line[1024];
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "w"), *p;
    size_t n;

    fputs(text, f);
    fclose(f);
    snprintf(line, sizeof line, "%s < %s 2>&1", command, path);
    p = popen(line, "r");
    n = fread(out, 1, cap - 1, p);
    out[n] = '\0';
    remove(path);
    return pclose(p);
}

static void
promtool_accepts_the_metrics_without_a_word(void **state)
{
    char *text = metrics(), out[4096];

    (void)state;
    if (system("command -v promtool > /dev/null") != 0)
        skip();
    assert_int_equal(run("promtool check metrics", text, out, sizeof out), 0);
    assert_string_equal(out, "");
    free(text);
}

static void
metrics_name_counters_summaries_and_histograms_in_base_units(void **state)
{
    char *text = metrics();

    (void)state;
    assert_non_null(strstr(text, "\nweir_requests_total 1\n"));
    assert_non_null(strstr(text, "# TYPE weir_client_bytes_in_bytes_total counter\n"));
    assert_non_null(strstr(text, "weir_request_latency_seconds{route=\"/api/"
                                 "{id}\",outcome=\"hit\",quantile=\"0.99\"} 0.000090\n"));
    assert_non_null(strstr(text, "weir_request_duration_seconds_bucket{route=\"/api/"
                                 "{id}\",outcome=\"miss\",le=\"0.1\"} 0\n"));
    assert_non_null(strstr(text, "weir_request_duration_seconds_bucket{route=\"/api/"
                                 "{id}\",outcome=\"miss\",le=\"0.5\"} 1\n"));
    assert_non_null(strstr(text, "route=\"/quo\\\"te\\\\back\\nline\""));
    assert_non_null(strstr(text, "weir_hit_ratio{route=\"/api/{id}\"} 0.5000\n"));
    assert_non_null(strstr(text, "server=\"api/http://127.0.0.1:8000\",phase=\"total\""));
    free(text);
}

static void
stats_are_one_json_object_with_the_sources_members(void **state)
{
    struct buf b = { 0 };
    char out[4096];

    (void)state;
    stats_json(&b, STATS_ALL_WINDOWS);
    buf_addc(&b, '\0');
    assert_int_equal(run("python3 -c 'import json,sys; d=json.load(sys.stdin); "
                         "assert d[\"extra\"][\"x\"] == 1; assert "
                         "d[\"states\"][\"LOOKUP\"][\"start\"][\"count\"] == 1; "
                         "r={x[\"name\"]:x for x in d[\"routes\"]}; assert "
                         "r[\"/api/{id}\"][\"bytes\"] == 40, r; "
                         "assert d[\"origins\"][0][\"total\"][\"10s\"][\"count\"] == 1; "
                         "assert d[\"counters\"][\"requests\"] == 1'",
                         b.p, out, sizeof out),
        0);
    buf_free(&b);
}

static void
the_summary_is_one_line(void **state)
{
    struct buf b = { 0 };

    (void)state;
    stats_summary(&b);
    buf_addc(&b, '\0');
    assert_null(strchr(b.p, '\n'));
    assert_non_null(strstr(b.p, "3 requests"));
    assert_non_null(strstr(b.p, "hit rate 66.7 %"));
    buf_free(&b);
}

/* Ticks and windows have no part in it: the line may come late, and the tick be late too. */
static void
each_request_is_in_one_summary_line(void **state)
{
    unsigned slot = stats_route_slot("/api/{id}");
    struct buf b = { 0 };

    (void)state;
    stats_summary(&b);
    b.n = 0;
    stats_tick(2000000);
    for (int i = 0; i < 7; i++)
        stats_request(slot, i < 4 ? OUTCOME_HIT : i < 5 ? OUTCOME_MISS : OUTCOME_ERROR, 2000, 0);
    stats_summary(&b);
    buf_addc(&b, '\0');
    assert_non_null(strstr(b.p, "last minute: 7 requests"));
    assert_non_null(strstr(b.p, "hit rate 80.0 %"));
    assert_non_null(strstr(b.p, ", 2 errors;"));
    assert_null(strstr(b.p, "max 250"));            /* of the minute, not of ever */
    b.n = 0;
    stats_summary(&b);
    buf_addc(&b, '\0');
    assert_non_null(strstr(b.p, "last minute: 0 requests (0.0/s), 0 errors;"));
    buf_free(&b);
}

int
main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(promtool_accepts_the_metrics_without_a_word),
        T(metrics_name_counters_summaries_and_histograms_in_base_units),
        T(stats_are_one_json_object_with_the_sources_members),
        T(the_summary_is_one_line),
        T(each_request_is_in_one_summary_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
