/*
 * Every mistake is reported at its place, with what is allowed; what one mistake leads to is not
 * reported a second time.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config/config.h"

#define ORIGIN "origins: {api: {servers: [http://127.0.0.1:8000]}}\n"

/* The report of a text, in the form that `weir check` prints. Free it. */
static char *
report_of(const char *text, size_t n)
{
    struct config_report r = { 0 };
    struct conf *c = config_parse(text, n, "f", NULL, &r);
    char *out = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&out, &size);

    config_report_print(&r, "f", f);
    fclose(f);
    assert_int_equal(c == NULL, r.errors > 0);
    conf_unref(&c);
    config_report_free(&r);
    return out;
}

struct sample { const char *text, *report; };

static void
check(const struct sample *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *got = report_of(s[i].text, strlen(s[i].text));

        if (strcmp(got, s[i].report) != 0)
            print_error("text:\n%s\n", s[i].text);
        assert_string_equal(got, s[i].report);
        free(got);
    }
}

static void
unknown_keys_name_the_nearest_known_one(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "lisen: 1\n", "f:2:1: lisen: unknown key; did you mean listen\n" },
        { ORIGIN "cache:\n  memroy: 1MiB\n", "f:3:3: cache.memroy: unknown key; did you mean "
        "memory\n" },
        { ORIGIN "max_object: 1MiB\n",
            "f:2:1: max_object: unknown key; did you mean cache.max_object, nested\n" },
        { ORIGIN "cache: {zzzzzz: 1}\n", "f:2:9: cache.zzzzzz: unknown key; known here are memory, "
        "max_object, variants, pass_for, targeted, status_key, disk, redis\n" },
        { ORIGIN "cache.memory: 1MiB\n", "f:2:1: cache.memory: unknown key; dots in the reference "
        "are nesting, as `cache: {memory: 256MiB}`\n" },
        { ORIGIN "routes:\n- {pth: /}\n", "f:3:4: routes[0].pth: unknown key; did you mean "
        "path\n" },
        { "origins: {api: {servers: http://a, pol: {max: 1}}}\n",
            "f:1:36: origins.api.pol: unknown key; did you mean pool\n" },
        { ORIGIN "listen: {limits: {hed: 1KiB}}\n",
            "f:2:19: listen.limits.hed: unknown key; did you mean head\n" },
        { ORIGIN "plugins: [{zzzzzz: 1}]\n", "f:2:12: plugins[0].zzzzzz: unknown key; known here "
            "are name, file, on_error, everywhere, timeout, options\n" },
        { ORIGIN "plugins: [{name: a, option: {}}]\n", "f:2:21: plugins[0].option: unknown key; "
            "did you mean options\n" },
        { ORIGIN "routes: [{plugin: {}}]\n", "f:2:11: routes[0].plugin: unknown key; did you mean "
            "plugins\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
writes_say_what_they_need_and_what_they_promise(void **state)
{
#define JOURNAL "journal: {path: /var/lib/weir/journal}\n"
#define OF_SEVERAL ", or, of several instances, `journal: {redis: {url: redis://127.0.0.1:6379}}`\n"
#define BACK ORIGIN JOURNAL "routes: [{policy: write-back, write: "
    static const struct sample samples[] = {
        { ORIGIN "routes: [{policy: write-back}]\n", "f:2:19: routes[0].policy: needs a journal; "
            "say where at the top: `journal: {path: /var/lib/weir/journal}`" OF_SEVERAL },
        { ORIGIN "routes: [{policy: pass, write: {idempotency: 1h}}]\n", "f:2:46: "
            "routes[0].write.idempotency: needs a journal; say where at the top: `journal: {path: "
            "/var/lib/weir/journal}`" OF_SEVERAL },
        { ORIGIN "routes: [{write: {fill: refetch}}]\n", "f:2:25: warning: routes[0].write.fill: "
            "has no effect without policy write-back or write-through; leave it out\n" },
        { ORIGIN "routes: [{policy: write-through, write: {fill: response, rate: 1/s}}]\n",
            "f:2:64: warning: routes[0].write.rate: has no effect without policy write-back; leave "
            "it out\n" },
        { ORIGIN "journal: {redis: {url: redis://h}}\nroutes: [{policy: write-back}]\n", "" },
        { BACK "{key: \"{header.x-device}\", rate: 500/s, ack: 204}}]\n", "" },
        { ORIGIN "journal: {path: /j}\nroutes: [{policy: pass, write: {idempotency: 1h, "
            "idempotent: true, durability: os, max_body: 1KiB}}]\n", "" },
        { BACK "{key: \"{hedder.x}\"}}]\n", "f:3:44: routes[0].write.key: unknown placeholder "
            "{hedder.x}; did you mean {header.NAME}?\n" },
        { BACK "{key: \"{response.header.x}\"}}]\n", "f:3:44: routes[0].write.key: looks at the "
            "response, and there is none yet; placeholders of the request alone\n" },
        { BACK "{durability: memory}}]\n", "f:3:51: warning: routes[0].write.durability: "
            "promises nothing of what is acknowledged, which is kept as with os; use os, or fsync "
            "for what must survive a loss of power\n" },
        { BACK "{pending_scope: all}}]\n", "f:3:54: warning: routes[0].write.pending_scope: shows "
            "everybody what one client wrote, before the origin has judged it; make sure that "
            "every client may write what all the others read, or use client\n" },
        { BACK "{backoff: {min: 1m, max: 1s}}}]\n", "f:3:54: routes[0].write.backoff.min: is more "
            "than write.backoff.max; at most that\n" },
        { BACK "{batch: {max: 10}}}]\n", "f:3:52: routes[0].write.batch.max: stands without "
            "write.batch.to; a path of the origin\n" },
        { BACK "{rate: 0/s}}]\n", "f:3:45: routes[0].write.rate: \"0/s\" is not understood; a rate "
            "such as 500/s, 30/m or 10/h\n" },
        { BACK "{ack: 203}}]\n", "f:3:44: routes[0].write.ack: \"203\" is not known, did you mean "
            "202; 202, 200, 201 or 204\n" },
        { BACK "{omit: [X-Tenant]}, purge: \"t:{header.x-tenant}\"}]\n", "f:3:65: routes[0].purge: "
            "looks at x-tenant, which request.remove or write.omit takes away before the delivery; "
            "leave it there, or use another field\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
a_disk_tier_has_a_directory(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "cache: {disk: {path: /nowhere/at/all, size: 2GiB}}\n", "" },
        { ORIGIN "cache: {disk: {size: 2GiB}}\n", "f:2:15: cache.disk: says not where; a "
            "directory, as `disk: {path: /var/lib/weir/cache, size: 1GiB}`\n" },
        { ORIGIN "cache: {disk: {path: /dev/null}}\n", "f:2:22: cache.disk.path: /dev/null is no "
            "directory; a directory, or the path of one to be made\n" },
        { ORIGIN "cache: {disk: {path: /x, size: 1MiB}}\n", "f:2:32: cache.disk.size: \"1MiB\" "
            "is too small; a size such as 64KiB, 256MiB, 1GiB, within 16MiB..16TiB\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
values_of_the_wrong_kind_say_what_is_allowed(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "workers: many\n",
            "f:2:10: workers: \"many\" is not understood; a whole number, within 0..256\n" },
        { ORIGIN "workers: 257\n", "f:2:10: workers: \"257\" is too large; a whole number, within "
        "0..256\n" },
        { ORIGIN "cache: {memory: 1KiB}\n", "f:2:17: cache.memory: \"1KiB\" is too small; a size "
            "such as 64KiB, 256MiB, 1GiB, within 1MiB..16TiB\n" },
        { ORIGIN "workers: -1\n",
            "f:2:10: workers: \"-1\" is not understood; a whole number, within 0..256\n" },
        { ORIGIN "drain: 30\n", "f:2:8: drain: \"30\" is not understood; a duration such as 50ms, "
        "30s, 5m, 2h, 1d, within 0s..1h\n" },
        { ORIGIN "drain: 30 s\n", "f:2:8: drain: \"30 s\" is not understood; a duration such as "
        "50ms, 30s, 5m, 2h, 1d, within 0s..1h\n" },
        { ORIGIN "drain: 2d\n", "f:2:8: drain: \"2d\" is too large; a duration such as 50ms, 30s, "
        "5m, 2h, 1d, within 0s..1h\n" },
        { ORIGIN "drain:\n", "f:2:7: drain: no value; a duration such as 50ms, 30s, 5m, 2h, 1d, "
        "within 0s..1h\n" },
        { ORIGIN "drain: [1s]\n", "f:2:8: drain: a list; a duration such as 50ms, 30s, 5m, 2h, 1d, "
        "within 0s..1h\n" },
        { ORIGIN "cache: {memory: 256MB}\n", "f:2:17: cache.memory: \"256MB\" is not understood; a "
        "size such as 64KiB, 256MiB, 1GiB, within 1MiB..16TiB\n" },
        { ORIGIN "cache: {memory: 99999999999999999999TiB}\n", "f:2:17: cache.memory: "
        "\"99999999999999999999TiB\" is not understood; a size such as 64KiB, 256MiB, 1GiB, within "
        "1MiB..16TiB\n" },
        { ORIGIN "cache: {memory: 9000000TiB}\n", "f:2:17: cache.memory: \"9000000TiB\" is not "
        "understood; a size such as 64KiB, 256MiB, 1GiB, within 1MiB..16TiB\n" },
        { ORIGIN "cache: 5\n", "f:2:8: cache: a single value; a mapping of its options\n" },
        { ORIGIN "routes:\n  - path: /a\n    response: {replay: [X-A]}\n",
            "f:4:25: routes[0].response.replay[0]: \"X-A\" is stored and replayed anyway, or never; a "
            "field of one exchange such as Set-Cookie or Clear-Site-Data\n" },
        { ORIGIN "via: " "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\n",
            "f:2:6: via: is longer than 128 characters; a short name such as edge-1\n" },
        { ORIGIN "routes:\n  - path: /a\n    compress: [br, deflate]\n",
            "f:4:20: routes[0].compress[1]: \"deflate\" is no coding that weir makes; zstd, br or gzip\n" },
        { ORIGIN "routes:\n  - path: /a\n    compress: [gzip, br, gzip]\n",
            "f:4:26: routes[0].compress[2]: named twice; once\n" },
        { ORIGIN "routes:\n  - path: /a\n    compress: identity\n",
            "f:4:15: routes[0].compress: \"identity\" is no coding that weir makes; zstd, br or gzip\n" },
        { ORIGIN "cache: {targeted: [CDN-Cache-Control, a b]}\n",
            "f:2:39: cache.targeted[1]: \"a b\" is none; a field name such as CDN-Cache-Control\n" },
        { ORIGIN "cache: {status_key: yes}\n",
            "f:2:21: cache.status_key: \"yes\" is not known; true or false\n" },
        { ORIGIN "log: {level: wran}\n", "f:2:14: log.level: \"wran\" is not known, did you mean "
        "warn; error, warn, info or debug\n" },
        { ORIGIN "via: a b\n", "f:2:6: via: \"a b\" is no such word; a word of letters, digits and "
        "- _ .\n" },
        { ORIGIN "ttl: {short: 5x}\n", "f:2:14: ttl.short: \"5x\" is not understood; a duration "
        "such as 50ms, 30s, 5m, 2h, 1d\n" },
        { ORIGIN "ttl: {5m: 1s}\n",
            "f:2:7: ttl.5m: looks like a duration; a name that begins with a letter\n" },
        { ORIGIN "ttl: {long: 2h}\nroutes: [{ttl: lnog}]\n", "f:3:16: routes[0].ttl: \"lnog\" is "
        "no duration and no name of the top-level ttl, did you mean long; a duration, or a name of "
        "the top-level ttl, within 0s..10y\n" },
        { ORIGIN "routes: {path: /}\n",
            "f:2:9: routes: no list; routes, each behind a dash: - {path: /**, origin: api}\n" },
        { ORIGIN "routes: [5]\n",
            "f:2:10: routes[0]: no mapping; a route, as {path: /api/users/{id}, origin: api}\n" },
        { ORIGIN "routes: [{negative_ttl: {99: 1s}}]\n",
            "f:2:26: routes[0].negative_ttl.99: \"99\" is no status; 200..599\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
addresses_and_urls_are_strict(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "listen: 8080\n", "f:2:9: listen: \"8080\" is no address with a port (a numeric "
            "one: 127.0.0.1:8080, [::]:8080); ADDRESS:PORT, or off\n" },
        { ORIGIN "listen: [127.0.0.1:65536]\n", "f:2:10: listen[0]: \"127.0.0.1:65536\" is no "
        "address with a port (a numeric one: 127.0.0.1:8080, [::]:8080); ADDRESS:PORT, or off\n" },
        { ORIGIN "listen: \"off\"\n",
            "f:2:9: listen.address: a listener that is off; leave it out, or an address with a "
            "port\n" },
        { ORIGIN "listen: [0.0.0.0:8080, 127.0.0.1:8080]\n",
            "f:2:24: listen[1]: 127.0.0.1:8080 is taken by listen[0] already (0.0.0.0:8080); "
            "another port\n" },
        /* IPv6 takes nothing else, so that each family may have the port */
        { ORIGIN "listen: [\"0.0.0.0:80\", \"[::]:80\", \"[::]:8081\"]\n", "" },
        { ORIGIN "listen: [\"[::]:80\", \"[::1]:80\"]\n",
            "f:2:21: listen[1]: [::1]:80 is taken by listen[0] already ([::]:80); another port\n" },
        { ORIGIN "listen: \"[::ffff:127.0.0.1]:80\"\n", "f:2:9: listen: [::ffff:127.0.0.1]:80 is "
            "an IPv4 address in IPv6 dress, which is not listened on; the IPv4 address, as "
            "127.0.0.1:8080\n" },
        { ORIGIN "listen: 127.0.0.1:8081\n", "f:1:1: admin.listen: 127.0.0.1:8081 is taken by "
        "listen already (127.0.0.1:8081); another port\n" },
        { ORIGIN "listen: {trust: [10.1.2.3/8, x]}\n", "f:2:18: listen.trust[0]: \"10.1.2.3/8\" "
        "has bits behind its prefix of 8; a network such as 10.0.0.0/8, or a list\n"
            "f:2:30: listen.trust[1]: \"x\" is no network; a network such as 10.0.0.0/8, or a "
            "list\n" },
        { "origins: {a: {servers: ftp://x}}\n", "f:1:24: origins.a.servers: \"ftp://x\" does not "
        "begin with http:// or https://; a URL http[s]://HOST[:PORT], or a list\n" },
        { "origins: {a: {servers: http://h/p}}\n", "f:1:24: origins.a.servers: \"http://h/p\" has "
        "something behind the host; a path goes into rewrite.prefix of the route; a URL "
        "http[s]://HOST[:PORT], or a list\n" },
        { "origins: {a: {servers: \"http://u:p@h\"}}\n", "f:1:24: origins.a.servers: a URL with a "
        "user's name or password; send Authorization with request.set; a URL "
        "http[s]://HOST[:PORT], or a list\n" },
        { "origins: {a: {servers: \"http://h:0\"}}\n", "f:1:24: origins.a.servers: \"http://h:0\" "
        "has no valid port; a URL http[s]://HOST[:PORT], or a list\n" },
        { "origins: {a: {servers: []}}\n",
            "f:1:24: origins.a.servers: no server; at least one, as http://127.0.0.1:8000\n" },
        { "origins: {a: {}}\n",
            "f:1:14: origins.a.servers: no server; at least one, as http://127.0.0.1:8000\n" },
        { ORIGIN "routes: [{host: [\"a:80\", \"a.*\"]}]\n", "f:2:18: routes[0].host[0]: \"a:80\" "
        "has a port; a route matches the host alone; a host, or a list of hosts\nf:2:26: "
        "routes[0].host[1]: \"a.*\" has a * elsewhere than in front; example.com, or *.example.com "
        "for any subdomain (leave `host` out for any host); a host, or a list of hosts\n" },
        { "origins: {\"\": {servers: http://a}}\n",
            "f:1:11: origins.: no name for an origin; a word such as api\n" },
        { ORIGIN "dns: {servers: [dns.example]}\n", "f:2:17: dns.servers[0]: \"dns.example\" is no "
        "name server; an address such as 10.0.0.2 or 10.0.0.2:53\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
text_that_is_no_yaml_says_where(void **state)
{
    static const struct sample samples[] = {
        { "a: b: c\n", "f:1:5: not YAML: mapping values are not allowed in this context; check "
            "indentation, colons and quotes\n" },
        { "cache:\n\tmemory: 1MiB\n", "f:2:1: a tab cannot indent or separate here; spaces\n" },
        { "a: {b: ${X}}\n", "f:1:9: not YAML: did not find expected ',' or '}', while parsing a "
        "flow mapping (from line 1); put \"${NAME}\" in quotes inside { } and [ ]\n" },
        { ORIGIN "---\ndrain: 1s\n", "f:2:1: a second document begins here; one document a "
        "file\n" },
        { "caf\xe9: 1\n", "f:1:5: not readable as text (invalid trailing UTF-8 octet); UTF-8 "
        "without control characters\n" },
        { "[1]\n", "f:1:1: no mapping; options by name, as `listen: 0.0.0.0:8080`\n" },
        { "just text\n", "f:1:1: no mapping; options by name, as `listen: 0.0.0.0:8080`\n" },
        { ORIGIN "? [a]\n: b\n", "f:2:3: a key is no word; a name followed by a colon\n" },
        { ORIGIN "drain: !far 1s\n", "f:2:8: drain: the tag \"!far\" has no meaning here; a plain "
        "value\n" },
        { ORIGIN "drain: 1s\ncache: {}\ndrain: 2s\n", "f:4:1: \"drain\" is given twice, first in "
        "line 2; once\n" },
        { ORIGIN "via: \"a\\0b\"\n", "f:2:6: via: has a NUL character; text without it\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
anchors_cannot_be_abused(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "x-a: *b\n", "f:2:6: not YAML: found undefined alias; check brackets and colons, "
            "and put texts with { } * in quotes\n" },
        { ORIGIN "x-a: &a [*a]\n",
            "f:2:6: x-a[0]: an alias names what it stands in; an alias of something else\n" },
        { ORIGIN "x-a: &a {b: *a}\n",
            "f:2:6: x-a.b: an alias names what it stands in; an alias of something else\n" },
        { ORIGIN "<<: 5\n", "f:2:5: << merges what is no mapping; an alias of a mapping, or a list "
        "of them\n" },
    };
    struct buf b = { 0 };
    char *got;

    (void)state;
    check(samples, NELEM(samples));
    buf_addz(&b, ORIGIN "x-0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 10; i++) {
        buf_printf(&b, "x-%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++)
            buf_printf(&b, "%s*a%d", k > 0 ? "," : "", i - 1);
        buf_addz(&b, "]\n");
    }
    got = report_of(b.p, b.n);
    assert_non_null(strstr(got, "aliases unfold into too much; at most 200000 values in all\n"));
    free(got);
    buf_free(&b);
    for (int i = 0; i < 40; i++)
        buf_addz(&b, i == 0 ? "x-deep: [" : "[");
    for (int i = 0; i < 40; i++)
        buf_addz(&b, "]");
    got = report_of(b.p, b.n);
    assert_non_null(strstr(got, "nested too deeply; at most 32 levels\n"));
    free(got);
    buf_free(&b);
}

static void
environment_variables_must_be_set(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "via: ${WEIR_TEST_UNSET}\n", "f:2:6: via: the environment variable "
            "WEIR_TEST_UNSET is not set; set it, or write $${ for the text ${\n" },
        { ORIGIN "drain: ${5}\n", "f:2:8: drain: ${ is not followed by a name and }; an "
        "environment variable is written ${NAME}, and $${ stands for the text ${\n" },
        { ORIGIN "via: x${A\n", "f:2:6: via: ${ is not followed by a name and }; an environment "
        "variable is written ${NAME}, and $${ stands for the text ${\n" },
    };

    (void)state;
    unsetenv("WEIR_TEST_UNSET");
    check(samples, NELEM(samples));
}

static void
origins_must_resolve(void **state)
{
#define TWO "origins: {api: {servers: http://a}, web: {servers: http://b}}\n"
    static const struct sample samples[] = {
        { "drain: 1s\n", "f:1:1: origins: no origin to stand in front of; `origins: {api: "
            "{servers: [http://127.0.0.1:8000]}}`, or --origin URL\n" },
        { ORIGIN "routes: [{origin: apj}]\n",
            "f:2:19: routes[0].origin: no origin has the name \"apj\"; did you mean api\n" },
        { ORIGIN "routes: [{origin: zzzzz}]\n",
            "f:2:19: routes[0].origin: no origin has the name \"zzzzz\"; one of `origins`\n" },
        { TWO "routes: [{path: /x}]\n",
            "f:2:10: routes[0].origin: no origin, and there are several; the name of one\n" },
        { TWO, "f: routes[0].origin: several origins and no routes; say in `routes` which takes "
        "what\n" },
        { TWO "routes: [{origin: api}]\n", "f:1:37: warning: origins.web: no route uses it; name "
        "it as a route's origin, or leave it out\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
equal_routes_name_both_lines(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "routes:\n- {path: \"/a/{x}\"}\n- {path: /b}\n- {path: \"/a/*\"}\n",
            "f:5:3: routes[2]: takes the same requests as routes[0] in line 3, and neither is more "
            "specific (this is line 5); another path, host, method or `headers`\n" },
        { ORIGIN "routes:\n- {path: /a, name: n}\n- {path: /b, name: n}\n",
            "f:4:20: routes[1].name: \"n\" is the name of routes[0] in line 3; another\n" },
        { ORIGIN "routes:\n- {path: /a, methods: GET}\n- {path: /a, methods: POST}\n",
            "f:4:3: warning: routes[1]: has the path, and so the name, of routes[0] in line 3: "
            "figures and purges by route take both as one; give it a `name`\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
routes_that_cannot_work_are_refused(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "routes: [{path: x}]\n", "f:2:17: routes[0].path: a path template starts with /; "
            "a path template such as /api/users/{id}\n" },
        { ORIGIN "routes: [{methods: [get]}]\n", "f:2:21: routes[0].methods[0]: \"get\" is no "
        "method that clients send; methods are upper case: GET\n" },
        { ORIGIN "routes: [{headers: [\"a b\"]}]\n",
            "f:2:21: routes[0].headers[0]: \"a b\" is none; a field name such as X-Tenant\n" },
        { ORIGIN "routes: [{request: {set: {Host: a}}}]\n", "f:2:27: routes[0].request.set.Host: "
        "the host of a request is no field to edit; `host` of the origin\n" },
        { ORIGIN "routes: [{request: {add: {transfer-encoding: chunked}}}]\n",
            "f:2:27: routes[0].request.add.transfer-encoding: it belongs to one connection and "
            "never crosses (RFC 9110 7.6.1); leave it out\n" },
        { ORIGIN "routes: [{response: {set: {Content-Length: 5}}}]\n",
        "f:2:28: routes[0].response.set.Content-Length: weir writes it from the body; leave it "
        "out\n" },
        { ORIGIN "routes: [{response: {set: {\"a b\": x}}}]\n",
            "f:2:28: routes[0].response.set: \"a b\" is no field name; letters, digits and -\n" },
        { ORIGIN "routes: [{response: {set: {A: \"x\\r\\ny\"}}}]\n",
        "f:2:31: routes[0].response.set.A: the value has a control character, or a space at an "
        "end; a text as RFC 9110 5.5 has it\n" },
        { ORIGIN "routes: [{response: {remove: [Connection]}}]\n",
        "f:2:31: routes[0].response.remove[0]: it belongs to one connection and never crosses (RFC "
        "9110 7.6.1); leave it out\n" },
        { ORIGIN "routes: [{query: {ignore: a, keep: b}}]\n",
            "f:2:27: routes[0].query.ignore: stands beside query.keep; one of them\n" },
        { ORIGIN "routes: [{max_object: 1GiB}]\n",
            "f:2:23: routes[0].max_object: is more than cache.memory; at most 32640KiB of it, or "
            "more cache.memory\n" },
        { ORIGIN "cache: {max_object: 300MiB}\n",
            "f:2:21: cache.max_object: is more than cache.memory; at most 32640KiB of it, or more "
            "cache.memory\n" },
        { "origins: {a: {servers: http://a, pool: {min: 5, max: 2}}}\n",
            "f:1:46: origins.a.pool.min: is more than pool.max; at most 2\n" },
        { ORIGIN "listen: {limits: {head: 1KiB, uri: 2KiB}}\n",
            "f:2:36: listen.limits.uri: is more than limits.head; at most that\n" },
        { ORIGIN "listen: {proxy_protocol: true}\n", "f:2:26: listen.proxy_protocol: nobody is "
        "trusted to speak it; name the proxies in `trust`\n" },
        { ORIGIN "listen: {purge: {networks: 10.0.0.0/8}}\n",
            "f:2:28: listen.purge.networks: PURGE without a token; purge.token_file as well\n" },
        { ORIGIN "admin: {listen: 0.0.0.0:8081}\n", "f:2:17: admin.listen: 0.0.0.0:8081 is open to "
        "others and has no token; admin.token_file, or an address of loopback such as "
        "127.0.0.1:8081\n" },
    };
    char *got;

    (void)state;
    check(samples, NELEM(samples));
    /* the words of a template's own messages are the key room's */
    got = report_of(ORIGIN "routes: [{path: \"/a/{id}\", tags: [\"a\", \"x:{ix}\"]}]\n",
        strlen(ORIGIN "routes: [{path: \"/a/{id}\", tags: [\"a\", \"x:{ix}\"]}]\n"));
    assert_true(strncmp(got, "f:2:40: routes[0].tags[1]: ", 27) == 0);
    free(got);
}

#define REDIS(options) ORIGIN "cache: {redis: {" options "}}\n"
#define SUCH "; a server, as redis://127.0.0.1:6379 or rediss://redis.example:6379/1\n"

static void
redis_is_named_by_a_url_without_secrets(void **state)
{
    static const struct sample samples[] = {
        { REDIS("url: redis://h"), "" },
        { REDIS("url: 'redis://[::1]:7000/3', lease: 1s, lease_lost: serve"), "" },
        { REDIS("username: a"), "f:2:16: cache.redis.url: no server; one, as redis://127.0.0.1:6379\n" },
        { ORIGIN "routes: [{path: /**, on_failure: shed}]\n", "f:2:34: warning: "
            "routes[0].on_failure: has no effect without cache.redis.url; leave it out\n" },
        { REDIS("url: http://h"), "f:2:22: cache.redis.url: \"http://h\" does not begin with "
            "redis:// or rediss://" SUCH },
        { REDIS("url: redis://u:secret@h"), "f:2:22: cache.redis.url: it has a user's name or "
            "password in it: a configuration is shown to many; use username and password_file" SUCH },
        { REDIS("url: redis://"), "f:2:22: cache.redis.url: \"redis://\" has no valid host" SUCH },
        { REDIS("url: redis://h:0"), "f:2:22: cache.redis.url: \"redis://h:0\" has no valid port"
            SUCH },
        { REDIS("url: redis://h/x"), "f:2:22: cache.redis.url: \"redis://h/x\" has something behind "
            "the host that is no database's number" SUCH },
        { REDIS("url: redis://h, prefix: 'a{b}'"), "f:2:41: cache.redis.prefix: 1 to 64 printable "
            "characters of ASCII without spaces and braces are wanted; such as weir:\n" },
        { REDIS("url: redis://h, username: a"), "f:2:43: warning: cache.redis.username: a user "
            "without a password; cache.redis.password_file as well\n" },
        { REDIS("url: redis://h, tls: {verify: false}"), "f:2:38: warning: cache.redis.tls: has no "
            "effect; the url is not rediss://\n" },
        { REDIS("url: rediss://h, tls: {verify: false}"), "f:2:48: warning: cache.redis.tls.verify: "
            "certificates are not verified: whoever is between can read and change everything\n" },
        { REDIS("url: rediss://h, tls: {cert_file: /dev/null}"), "f:2:39: cache.redis.tls.cert_file: "
            "one without the other; tls.cert_file and tls.key_file\n" },
        { REDIS("url: [redis://a, redis://b], cluster: true"), "" },
        { REDIS("url: [redis://a/1, redis://b:1/1], sentinel: {master: m, username: u}"), "" },
        { REDIS("url: [redis://a, redis://b]"), "f:2:22: cache.redis.url: several servers; with "
            "sentinel.master, or cluster: true, or one\n" },
        { REDIS("url: [redis://a, rediss://b], cluster: true"), "f:2:34: cache.redis.url[1]: is not "
            "as the one before; of all the same scheme and the same database\n" },
        { REDIS("url: redis://a, cluster: true, sentinel: {master: m}"), "f:2:42: "
            "cache.redis.cluster: a cluster has no sentinels; cluster or sentinel.master\n" },
        { REDIS("url: redis://a/1, cluster: true"), "f:2:22: cache.redis.url: a cluster has no "
            "database but 0; without one\n" },
        { REDIS("url: redis://a, sentinel: {username: u}"), "f:2:43: warning: cache.redis.sentinel: "
            "has no effect; there is no sentinel.master\n" },
        { REDIS("url: redis://h, lease_lost: never"), "f:2:45: cache.redis.lease_lost: \"never\" is "
            "not known; revalidate or serve\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
a_journal_in_redis_is_checked_as_a_cache_there_and_stands_alone(void **state)
{
#define IN_REDIS(options) ORIGIN "journal: {redis: {" options "}}\n"
#define BOTH(journal, cache) ORIGIN "journal: {redis: {" journal "}}\ncache: {redis: {" cache "}}\n"
#define OF_CACHE "is of cache.redis too, and what a cache may evict a journal must keep; " \
    "maxmemory-policy noeviction there, or a Redis of its own\n"
    static const struct sample samples[] = {
        { IN_REDIS("url: redis://h, timeout: 10ms, replicas: 2"), "" },
        { IN_REDIS("url: [redis://a, redis://b], cluster: true, prefix: 'writes:'"), "" },
        { IN_REDIS("url: redis://h, timeout: 9ms"), "f:2:44: journal.redis.timeout: \"9ms\" is too "
            "small; a duration such as 50ms, 30s, 5m, 2h, 1d, within 10ms..30s\n" },
        { IN_REDIS("username: a"), "f:2:18: journal.redis.url: no server; one, as "
            "redis://127.0.0.1:6379\n" },
        { IN_REDIS("url: http://h"), "f:2:24: journal.redis.url: \"http://h\" does not begin with "
            "redis:// or rediss://" SUCH },
        { IN_REDIS("url: redis://h, prefix: 'a{b}'"), "f:2:43: journal.redis.prefix: 1 to 64 "
            "printable characters of ASCII without spaces and braces are wanted; such as weir:\n" },
        { IN_REDIS("url: redis://h, username: a"), "f:2:45: warning: journal.redis.username: a "
            "user without a password; journal.redis.password_file as well\n" },
        { IN_REDIS("url: rediss://h, tls: {key_file: /dev/null}"), "f:2:41: "
            "journal.redis.tls.key_file: one without the other; tls.cert_file and tls.key_file\n" },
        { IN_REDIS("url: redis://h, max_ttl: 1m"), "f:2:35: journal.redis.max_ttl: unknown key; "
            "did you mean cache.redis.max_ttl, nested\n" },
        { ORIGIN "journal: {path: /j, redis: {url: redis://h}}\n", "f:2:34: journal.redis.url: "
            "stands beside journal.path, and a journal is in one place; one or the other (`weir "
            "writes move` takes what is in a file over)\n" },
        { BOTH("url: redis://h", "url: redis://h:6380"), "" },
        { BOTH("url: redis://h/1", "url: redis://H:6379"), "f:2:24: warning: journal.redis.url: "
            OF_CACHE },
        { BOTH("url: [redis://a, redis://b], cluster: true", "url: redis://b"), "f:2:36: warning: "
            "journal.redis.url[1]: " OF_CACHE },
        { BOTH("url: redis://s, sentinel: {master: m}", "url: redis://s, sentinel: {master: n}"),
            "" },
        { BOTH("url: redis://s, sentinel: {master: m}", "url: redis://s, sentinel: {master: m}"),
            "f:2:24: warning: journal.redis.url: " OF_CACHE },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
configurations_that_leak_are_warned_of(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "routes: [{force_ttl: 1m}]\n", "f:2:22: warning: routes[0].force_ttl: stores for "
            "everybody what the origin says is private, answers to requests with Authorization, "
            "and those with Set-Cookie (without that field); make sure that all clients may see "
            "them, or use ttl\n" },
        { ORIGIN "routes: [{force_ttl: 1m, key: {headers: [Authorization, Cookie]}}]\n",
            "f:2:57: warning: routes[0].key.headers[1]: Cookie has unboundedly many values: hardly "
            "a request finds another's answer; leave it out, or a field with few values\n" },
        { ORIGIN "routes: [{key: {host: false}}]\n", "f:2:23: warning: routes[0].key.host: several "
        "hosts match and share their entries: one is answered with what another said; keep it "
        "true, or name one host\n" },
        { ORIGIN "routes: [{host: a, key: {host: false}}]\n", "" },
        { ORIGIN "routes: [{cache_methods: [POST]}]\n", "f:2:27: warning: "
            "routes[0].cache_methods[0]: promises that the origin changes nothing on POST here: "
            "one whose content was seen before does not reach it while the answer is fresh, and "
            "none purges; make sure, or leave it out\n" },
        { ORIGIN "routes: [{cache_methods: [PUT]}]\n", "f:2:27: routes[0].cache_methods[0]: PUT "
            "does not ask for anything that could be stored; POST, or a method of the origin's "
            "own that only reads\n" },
        { ORIGIN "routes: [{cache_methods: [QUERY]}]\n", "f:2:27: warning: "
            "routes[0].cache_methods[0]: is answered from the cache anyway; leave it out\n" },
        { ORIGIN "routes: [{cache_methods: [SEARCH], policy: pass}]\n", "f:2:26: warning: "
            "routes[0].cache_methods: has no effect with policy pass; leave it out\n" },
        { ORIGIN "routes: [{response: {set: {Vary: User-Agent}}}]\n", "f:2:28: warning: "
        "routes[0].response.set.Vary: Vary with unboundedly many values: hardly a request finds "
        "another's answer; vary on what has few values\n" },
        { ORIGIN "routes: [{policy: pass, ttl: 1m}]\n",
            "f:2:30: warning: routes[0].ttl: has no effect with policy pass; leave it out\n" },
        { "origins: {a: {servers: https://a, tls: {verify: false}}}\n", "f:1:49: warning: "
        "origins.a.tls.verify: certificates are not verified: whoever is between can read and "
        "change everything\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
an_object_limit_that_the_store_would_not_keep_is_warned_of(void **state)
{
    static const struct sample samples[] = {
        { ORIGIN "cache: {memory: 64MiB, max_object: 9MiB}\n", "f:2:36: warning: cache.max_object: is "
        "more than one object may take of cache.memory, an eighth with its head: it is taken as "
        "8064KiB; at most that, or more cache.memory\n" },
        { ORIGIN "routes: [{max_object: 32MiB}]\n", "f:2:23: warning: routes[0].max_object: is "
        "more than one object may take of cache.memory, an eighth with its head: it is taken as "
        "32640KiB; at most that, or more cache.memory\n" },
        { ORIGIN "cache: {memory: 64MiB, max_object: 8064KiB}\n", "" },
        /* the default is taken down to it in silence; pass stores nothing */
        { ORIGIN "cache: {memory: 1MiB}\n", "" },
        { ORIGIN "routes: [{policy: pass, max_object: 32MiB}]\n",
            "f:2:37: warning: routes[0].max_object: has no effect with policy pass; leave it out\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
one_mistake_is_not_reported_twice(void **state)
{
    static const struct sample samples[] = {
        /* neither as a route of all paths that conflicts with another, nor for its placeholders */
        { ORIGIN "routes:\n- {path: \"/a/**/b\", tags: \"{id}\"}\n- {path: /**}\n",
            "f:3:10: routes[0].path: ** stands for the rest of the path and must be the last "
            "segment; a path template such as /api/users/{id}\n" },
        /* nor as a second listener of the default address */
        { ORIGIN "listen: [\"x\", 0.0.0.0:8080]\n", "f:2:10: listen[0]: \"x\" is no address with a "
            "port (a numeric one: 127.0.0.1:8080, [::]:8080); ADDRESS:PORT, or off\n" },
    };

    (void)state;
    check(samples, NELEM(samples));
}

static void
thousands_of_problems_end_in_a_last_line(void **state)
{
    struct buf b = { 0 };
    struct config_report r = { 0 };

    (void)state;
    buf_addz(&b, ORIGIN);
    for (int i = 0; i < 5000; i++)
        buf_printf(&b, "k%d: 1\n", i);
    assert_null(config_parse(b.p, b.n, "f", NULL, &r));
    assert_int_equal(r.errors, 5000);
    assert_int_equal(r.n, 2001);
    assert_string_equal(r.at[2000].text, "there are more problems; mend these first");
    config_report_free(&r);
    buf_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_keys_name_the_nearest_known_one),
        cmocka_unit_test(writes_say_what_they_need_and_what_they_promise),
        cmocka_unit_test(a_disk_tier_has_a_directory),
        cmocka_unit_test(values_of_the_wrong_kind_say_what_is_allowed),
        cmocka_unit_test(addresses_and_urls_are_strict),
        cmocka_unit_test(text_that_is_no_yaml_says_where),
        cmocka_unit_test(anchors_cannot_be_abused),
        cmocka_unit_test(environment_variables_must_be_set),
        cmocka_unit_test(origins_must_resolve),
        cmocka_unit_test(equal_routes_name_both_lines),
        cmocka_unit_test(routes_that_cannot_work_are_refused),
        cmocka_unit_test(redis_is_named_by_a_url_without_secrets),
        cmocka_unit_test(a_journal_in_redis_is_checked_as_a_cache_there_and_stands_alone),
        cmocka_unit_test(configurations_that_leak_are_warned_of),
        cmocka_unit_test(an_object_limit_that_the_store_would_not_keep_is_warned_of),
        cmocka_unit_test(one_mistake_is_not_reported_twice),
        cmocka_unit_test(thousands_of_problems_end_in_a_last_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
