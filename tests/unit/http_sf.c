/*
 * Structured fields (RFC 9651): the RFC's examples, the edges of every type, walking.
 */
#include "http_util.h"

static void
show_text(struct buf *b, struct slice s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 0x20 && s.p[i] < 0x7f)
            buf_addc(b, s.p[i]);
        else
            buf_printf(b, "\\x%02x", (unsigned char)s.p[i]);
}

/* An item as text that says its type: i1 d1.5 s"" t b d@ D ?1, with parameters and inner lists. */
static void
show(struct buf *b, const struct sf_item *item, struct buf *scratch)
{
    static const char letters[] = { [SF_INTEGER] = 'i', [SF_DECIMAL] = 'd', [SF_STRING] = 's',
        [SF_TOKEN] = 't', [SF_BYTES] = 'b', [SF_BOOLEAN] = '?', [SF_DATE] = '@', [SF_DISPLAY] = 'D',
        [SF_INNER] = '(' };
    struct slice rest = item->text, key;
    struct sf_item part;

    buf_addc(b, letters[item->type]);
    switch (item->type) {
    case SF_INTEGER:
    case SF_DECIMAL:
    case SF_BOOLEAN:
    case SF_DATE:
        buf_printf(b, "%lld", (long long)item->integer);
        break;
    case SF_INNER:
        while (sf_inner(&rest, &part, scratch)) {
            show(b, &part, scratch);
            buf_addc(b, ' ');
        }
        buf_addc(b, ')');
        break;
    default:
        show_text(b, item->text);
    }
    for (rest = item->params; sf_param(&rest, &key, &part, scratch);) {
        buf_printf(b, ";%.*s=", SLICE_ARG(key));
        show(b, &part, scratch);
    }
}

static void
walk(enum sf_kind kind, const char *text, size_t n, struct buf *b)
{
    char *copy = malloc(n > 0 ? n : 1);
    struct slice rest = { copy, n }, key;
    struct buf scratch = { 0 };
    struct sf_item item;

    assert_non_null(copy);
    memcpy(copy, text, n);
    if (sf_check(kind, rest) == -1) {
        buf_addz(b, "bad");
    } else if (kind == SF_ITEM) {
        assert_int_equal(sf_item(rest, &item, &scratch), 0);
        show(b, &item, &scratch);
    } else if (kind == SF_LIST) {
        for (const char *comma = ""; sf_list(&rest, &item, &scratch); comma = ", ") {
            buf_addz(b, comma);
            show(b, &item, &scratch);
        }
        assert_int_equal(rest.n, 0);
    } else {
        for (const char *comma = ""; sf_dictionary(&rest, &key, &item, &scratch); comma = ", ") {
            buf_printf(b, "%s%.*s=", comma, SLICE_ARG(key));
            show(b, &item, &scratch);
        }
        assert_int_equal(rest.n, 0);
    }
    buf_free(&scratch);
    free(copy);
}

struct sf_case { const char *text, *want; };

static void
check(enum sf_kind kind, const struct sf_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct buf b = { 0 };

        walk(kind, cases[i].text, strlen(cases[i].text), &b);
        assert_false(b.failed);
        if (!slice_eq(buf_slice(&b), slice_of(cases[i].want)))
            fail_msg("%s: %.*s, not %s", cases[i].text, SLICE_ARG(buf_slice(&b)), cases[i].want);
        buf_free(&b);
    }
}

static void
items_of_all_types(void **state)
{
    static const struct sf_case cases[] = {
        { "42", "i42" }, { "-42", "i-42" }, { "0", "i0" }, { "-0", "i0" }, { "007", "i7" }, { " 5 ", "i5" },
        { "999999999999999", "i999999999999999" }, { "-999999999999999", "i-999999999999999" },
        { "1000000000000000", "bad" }, { "0000000000000001", "bad" }, { "-", "bad" }, { "--1", "bad" }, { "+1", "bad" },
        { "1 2", "bad" }, { "1,2", "bad" }, { "5\t", "bad" }, { "\t5", "bad" }, { "", "bad" }, { "  ", "bad" },
        { "4.5", "d4500" }, { "-1.123", "d-1123" }, { "0.001", "d1" }, { "-0.5", "d-500" }, { "1.50", "d1500" },
        { "999999999999.999", "d999999999999999" }, { "1234567890123.1", "bad" }, { "1.", "bad" }, { ".5", "bad" },
        { "1.2345", "bad" }, { "1.5.5", "bad" }, { "1e3", "bad" }, { "- 1", "bad" }, { "1.-5", "bad" },
        { "\"hello world\"", "shello world" }, { "\"\"", "s" }, { "\"a\\\"b\\\\c\"", "sa\"b\\c" }, { "\"a\\nb\"", "bad" },
        { "\"a", "bad" }, { "\"a\\", "bad" }, { "\"\\\"", "bad" }, { "\"caf\xc3\xa9\"", "bad" }, { "\"a\tb\"", "bad" },
        { "\"\x7f\"", "bad" }, { "'a'", "bad" },
        { "foo123/456", "tfoo123/456" }, { "*foo", "t*foo" }, { "a:b", "ta:b" }, { "A!#$%&'*+-.^_`|~:/", "tA!#$%&'*+-.^_`|~:/" },
        { "a,b", "bad" }, { "a(b", "bad" }, { "(a)", "bad" }, { "_a", "bad" }, { "a\xc3", "bad" },
        { ":cHJldGVuZCB0aGlzIGlzIGJpbmFyeSBjb250ZW50Lg==:", "bpretend this is binary content." }, { "::", "b" },
        { ":aGVsbG8=:", "bhello" }, { ":aGVsbG8:", "bhello" }, { ":/+Ah:", "b\\xff\\xe0!" }, { ":iZ==:", "b\\x89" },
        { ":=:", "bad" }, { ":aGVsbG8", "bad" }, { ":a:", "bad" }, { ":aGVsbG8==:", "bad" }, { ":aGVs====:", "bad" }, { ":aG=sbG8=:", "bad" },
        { ":aG Vs:", "bad" }, { ":-_Ah:", "bad" }, { ":aGVs=:", "bad" },
        { "?1", "?1" }, { "?0", "?0" }, { "?", "bad" }, { "?2", "bad" }, { "?true", "bad" }, { "?01", "bad" },
        { "@1659578233", "@1659578233" }, { "@-1", "@-1" }, { "@0", "@0" }, { "@1.5", "bad" }, { "@", "bad" }, { "@a", "bad" }, { "@ 1", "bad" },
        { "%\"This is intended for display to %c3%bcsers.\"", "DThis is intended for display to \\xc3\\xbcsers." }, { "%\"\"", "D" },
        { "%\"a%22b\\\"", "Da\"b\\" }, { "%\"%f0%9f%98%80\"", "D\\xf0\\x9f\\x98\\x80" }, { "%\"%00\"", "D\\x00" },
        { "%\"%C3%BC\"", "bad" }, { "%\"%c3\"", "bad" }, { "%\"%c3a\"", "bad" }, { "%\"%c0%80\"", "bad" }, { "%\"%ed%a0%80\"", "bad" },
        { "%\"%f5%80%80%80\"", "bad" }, { "%\"%f4%90%80%80\"", "bad" }, { "%\"%e0%80%80\"", "bad" }, { "%\"%80\"", "bad" }, { "%\"%zz\"", "bad" },
        { "%\"a%2\"", "bad" }, { "%\"a", "bad" }, { "%a", "bad" }, { "%", "bad" }, { "%\"\xc3\xbc\"", "bad" }, { "%\"\t\"", "bad" },
        { "5; foo=bar", "i5;foo=tbar" }, { "5;a;b=?0;*c=\"x\"", "i5;a=?1;b=?0;*c=sx" }, { "1;a-b_c.d*=2", "i1;a-b_c.d*=i2" },
        { "1;a=1;a=2", "i1;a=i1;a=i2" }, { "1;  a", "i1;a=?1" }, { "1 ;a", "bad" }, { "1;A", "bad" }, { "1;", "bad" }, { "1;a=", "bad" },
        { "1;1", "bad" }, { "1;a =1", "bad" }, { "1;a= 1", "bad" }, { "1;\ta", "bad" }, { "1;a=(1)", "bad" }, { "1;-a", "bad" },
        { "\"a\\\\\";b=\"c\\\"\"", "sa\\;b=sc\"" },
        { "00", "i0" }, { "-00", "i0" }, { "-01", "i-1" }, { "0.0", "d0" }, { "-0.0", "d0" }, { "00.10", "d100" }, { "1.000", "d1000" },
        { "1..1", "bad" }, { "1.1-", "bad" }, { "-a", "bad" }, { "1-", "bad" }, { "1\xc2\xa0", "bad" }, { "2 .5", "bad" },
        { "?1;a=?0", "?1;a=?0" }, { "?T", "bad" }, { "? 1", "bad" }, { "?-1", "bad" }, { "?1 1", "bad" },
        { "@-62135596800", "@-62135596800" }, { "@253402300799", "@253402300799" }, { "@999999999999999", "@999999999999999" },
        { "@1000000000000000", "bad" }, { "@--1", "bad" }, { "@1;a", "@1;a=?1" }, { "@\"1\"", "bad" },
        { ":====:", "bad" }, { ":aGVsbG8=", "bad" }, { ":aGVsbG8= :", "bad" }, { ":a===:", "bad" }, { ":iQ:", "b\\x89" }, { ":\n:", "bad" },
        { "\"a\\\\\\\"\"", "sa\\\"" }, { "\"\"\"", "bad" }, { "\"a\", \"b\"", "bad" }, { "\"a\\,\"", "bad" },
        { "%\"%25\"", "D%" }, { "%\"%\"", "bad" }, { "%%\"a\"", "bad" }, { "% \"a\"", "bad" }, { "%\"a\"b", "bad" },
        { "%\"%e2%82\"", "bad" }, { "%\"%ef%bb%bf\"", "D\\xef\\xbb\\xbf" }, { "%\"a\";b=%\"c\"", "Da;b=Dc" },
        { "5;a=@1;b=:aA==:;c=%\"d\";e=1.5", "i5;a=@1;b=bh;c=Dd;e=d1500" },
    };

    (void)state;
    check(SF_ITEM, cases, NELEM(cases));
}

static void
lists_with_inner_lists_and_parameters(void **state)
{
    static const struct sf_case cases[] = {
        { "", "" }, { "  ", "" }, { "sugar, tea, rum", "tsugar, ttea, trum" }, { "1,2", "i1, i2" }, { "1\t,\t2", "i1, i2" }, { "1, 2 ", "i1, i2" },
        { "(\"foo\" \"bar\"), (\"baz\"), (\"bat\" \"one\"), ()", "(sfoo sbar ), (sbaz ), (sbat sone ), ()" },
        { "(\"foo\"; a=1;b=2);lvl=5, (\"bar\" \"baz\");lvl=1", "(sfoo;a=i1;b=i2 );lvl=i5, (sbar sbaz );lvl=i1" },
        { "abc;a=1;b=2; cde_456, (ghi;jk=4 l);q=\"9\";r=w", "tabc;a=i1;b=i2;cde_456=?1, (tghi;jk=i4 tl );q=s9;r=tw" },
        { "( 1  2 )", "(i1 i2 )" }, { "(  )", "()" }, { "(\")\" a)", "(s) ta )" }, { "1,1,1", "i1, i1, i1" },
        { ",", "bad" }, { "1,", "bad" }, { "1,,2", "bad" }, { ",1", "bad" }, { "1 2", "bad" }, { "1, ", "bad" }, { "\t1", "bad" },
        { "(", "bad" }, { ")", "bad" }, { "(1", "bad" }, { "(1,2)", "bad" }, { "((1))", "bad" }, { "(1)(2)", "bad" }, { "(1)2", "bad" },
        { "(a\tb)", "bad" }, { "(a\"b\")", "bad" }, { "(1);A", "bad" }, { "1, (", "bad" },
        { "()", "()" }, { "();a, ()", "();a=?1, ()" }, { "(a;b c;d);e", "(ta;b=?1 tc;d=?1 );e=?1" }, { "a;b , c;d\t,e", "ta;b=?1, tc;d=?1, te" },
        { "a;b=1;c=2;b=3", "ta;b=i1;c=i2;b=i3" }, { "a; b=1;  c", "ta;b=i1;c=?1" }, { "a ;b", "bad" }, { "a;\tb", "bad" }, { "a;b= 1", "bad" },
        { "a;b =1", "bad" }, { "a;;b", "bad" }, { "a;b;", "bad" }, { "a,;b", "bad" }, { "(a;)", "bad" }, { "( a b", "bad" }, { "(a  ;b)", "bad" },
        { "(a);b=(c)", "bad" }, { "(abc\"d\"?0)", "bad" }, { "  a", "ta" }, { "a,\tb", "ta, tb" }, { "a\xc2\xa0,b", "bad" }, { "a b, c", "bad" },
    };

    (void)state;
    check(SF_LIST, cases, NELEM(cases));
}

static void
dictionaries(void **state)
{
    static const struct sf_case cases[] = {
        { "", "" }, { "en=\"Applepie\", da=:w4ZibGV0w6ZydGU=:", "en=sApplepie, da=b\\xc3\\x86blet\\xc3\\xa6rte" },
        { "a=?0, b, c; foo=bar", "a=?0, b=?1, c=?1;foo=tbar" }, { "rating=1.5, feelings=(joy sadness)", "rating=d1500, feelings=(tjoy tsadness )" },
        { "a=(1 2), b=3, c=4;aa=bb, d=(5 6);valid", "a=(i1 i2 ), b=i3, c=i4;aa=tbb, d=(i5 i6 );valid=?1" },
        { "foo=1, bar=2", "foo=i1, bar=i2" }, { "a=1,a=2", "a=i1, a=i2" }, { "u=2, i", "u=i2, i=?1" }, { "*a-b.c_d*=1", "*a-b.c_d*=i1" },
        { "max-age=5\t,\tprivate", "max-age=i5, private=?1" }, { "a=1;b=\"x,y\",c", "a=i1;b=sx,y, c=?1" },
        { "A=1", "bad" }, { "a =1", "bad" }, { "a= 1", "bad" }, { "a=", "bad" }, { "a=1,", "bad" }, { ",", "bad" }, { "a,,b", "bad" },
        { "a b", "bad" }, { "=1", "bad" }, { "1=a", "bad" }, { "a=1 b=2", "bad" }, { "a;", "bad" }, { "a=((1))", "bad" }, { "-a=1", "bad" },
        { "a=()", "a=()" }, { "a=();b=?0", "a=();b=?0" }, { "a;b=1, c", "a=?1;b=i1, c=?1" }, { "a=1 ,\t b=2", "a=i1, b=i2" }, { " a=1 ", "a=i1" },
        { "a=?1", "a=?1" }, { "a=@1, b=%\"c\"", "a=@1, b=Dc" }, { "a=1;b=2;b=3", "a=i1;b=i2;b=i3" }, { "\ta=1", "bad" }, { "a=1, ", "bad" },
        { "a,", "bad" }, { ",a", "bad" }, { "a=1;B", "bad" }, { "a==1", "bad" }, { "a=1,,b=2", "bad" }, { "aB=1", "bad" }, { "\"a\"=1", "bad" },
    };

    (void)state;
    check(SF_DICTIONARY, cases, NELEM(cases));
}

static void
a_nul_byte_is_never_valid(void **state)
{
    static const struct { const char *text; size_t n; } bad[] = {
        { "a\0", 2 }, { "\"\0\"", 3 }, { "\0", 1 }, { "1;a\0", 4 }, { "1;\0", 3 }, { ":\0:", 3 }, { "%\"\0\"", 4 },
    };

    (void)state;
    for (size_t i = 0; i < NELEM(bad); i++) {
        struct slice s = { bad[i].text, bad[i].n };

        assert_int_equal(sf_check(SF_ITEM, s), -1);
        assert_int_equal(sf_check(SF_LIST, s), -1);
        assert_int_equal(sf_check(SF_DICTIONARY, s), -1);
    }
}

static void
walkers_stop_at_what_is_malformed_and_at_nothing(void **state)
{
    struct slice rest = SLICE("1, 2,"), none = { NULL, 0 }, key;
    struct buf scratch = { 0 };
    struct sf_item item;

    (void)state;
    assert_true(sf_list(&rest, &item, &scratch));
    assert_false(sf_list(&rest, &item, &scratch));
    assert_false(sf_list(&rest, &item, &scratch));
    assert_false(sf_dictionary(&none, &key, &item, &scratch));
    assert_false(sf_inner(&none, &item, &scratch));
    assert_false(sf_param(&none, &key, &item, &scratch));
    assert_int_equal(sf_item(none, &item, &scratch), -1);
    assert_int_equal(sf_check(SF_LIST, none), 0);
    assert_int_equal(sf_check(SF_ITEM, none), -1);
    buf_free(&scratch);
}

static void
texts_stay_where_they_are_when_scratch_was_reserved(void **state)
{
    struct slice s = SLICE("\"a\\\\\", :aGVsbG8=:, %\"%c3%bc\""), rest = s;
    struct buf scratch = { 0 };
    struct sf_item items[3];

    (void)state;
    assert_non_null(buf_reserve(&scratch, s.n));
    for (int i = 0; i < 3; i++)
        assert_true(sf_list(&rest, &items[i], &scratch));
    assert_slice(items[0].text, "a\\");
    assert_slice(items[1].text, "hello");
    assert_slice(items[2].text, "\xc3\xbc");
    assert_true(scratch.cap <= 128);
    buf_free(&scratch);
}

/* ---- every character where it may and may not stand ---- */

static bool
allowed(const char *set, unsigned c, bool lower, bool upper, bool digit)
{
    return (lower && c >= 'a' && c <= 'z') || (upper && c >= 'A' && c <= 'Z') ||
        (digit && c >= '0' && c <= '9') || (c != 0 && c < 0x80 && strchr(set, (int)c) != NULL);
}

static int
check_with(enum sf_kind kind, const char *before, unsigned c, const char *behind)
{
    struct buf b = { 0 };
    int got;

    buf_addz(&b, before);
    buf_addc(&b, (char)c);
    buf_addz(&b, behind);
    got = sf_check(kind, buf_slice(&b));
    buf_free(&b);
    return got;
}

static void
keys_take_small_letters_digits_and_four_marks(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        int first = allowed("*", c, true, false, false) ? 0 : -1;
        int inside = allowed("*_-.", c, true, false, true) ? 0 : -1;

        assert_int_equal(check_with(SF_DICTIONARY, "", c, "b=1"), c == ' ' ? 0 : first);
        assert_int_equal(check_with(SF_DICTIONARY, "a", c, "b=1"), c == ',' || c == ';' ? 0 :
            c == '=' ? -1 : inside);
        assert_int_equal(check_with(SF_ITEM, "1;", c, "b=1"), c == ' ' ? 0 : first);
        assert_int_equal(check_with(SF_LIST, "(1);a", c, "b=1"), c == ';' ? 0 : inside);
    }
}

static void
tokens_begin_with_a_letter_or_a_star(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        int first = allowed("*", c, true, true, false) ? 0 : -1;
        int inside = allowed("!#$%&'*+-.^_`|~:/", c, true, true, true) ? 0 : -1;

        assert_int_equal(check_with(SF_LIST, "", c, "a"), c == ' ' ? 0 : first);
        assert_int_equal(check_with(SF_LIST, "a", c, "a"), c == ',' || c == ';' ? 0 : inside);
    }
}

static void
strings_take_what_is_printable(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        bool printable = c >= 0x20 && c <= 0x7e;

        assert_int_equal(check_with(SF_ITEM, "\"", c, "a\""), printable && c != '"' && c != '\\' ? 0 : -1);
        assert_int_equal(check_with(SF_ITEM, "\"\\", c, "a\""), c == '"' || c == '\\' ? 0 : -1);
        assert_int_equal(check_with(SF_ITEM, "%\"", c, "a\""), printable && c != '"' && c != '%' ? 0 : -1);
        assert_int_equal(check_with(SF_ITEM, "%\"%c3%", c, "c\""), c == '8' || c == '9' || c == 'a' || c == 'b' ? 0 : -1);
    }
}

static void
numbers_take_fifteen_digits_or_twelve_and_three(void **state)
{
    static const char digits[] = "1111111111111111";
    struct buf b = { 0 };

    (void)state;
    for (int whole = 1; whole <= 16; whole++)
        for (int part = -1; part <= 4; part++)
            for (int minus = 0; minus < 2; minus++) {
                bool good = part == -1 ? whole <= 15 : part >= 1 && part <= 3 && whole <= 12;

                b.n = 0;
                buf_printf(&b, "%s%.*s", minus ? "-" : "", whole, digits);
                if (part >= 0)
                    buf_printf(&b, ".%.*s", part, digits);
                assert_int_equal(sf_check(SF_ITEM, buf_slice(&b)), good ? 0 : -1);
            }
    buf_free(&b);
}

/* ---- sizes that the RFC wants taken (section 3) ---- */

#define MANY 1024

static unsigned
count_list(const struct buf *b, bool inner)
{
    struct slice rest = buf_slice(b);
    struct sf_item item;
    unsigned n = 0;

    assert_int_equal(sf_check(SF_LIST, rest), 0);
    if (inner) {
        assert_true(sf_list(&rest, &item, NULL));
        rest = item.text;
        while (sf_inner(&rest, &item, NULL))
            n++;
    } else {
        while (sf_list(&rest, &item, NULL))
            n++;
    }
    assert_int_equal(rest.n, 0);
    return n;
}

static void
structures_may_be_large(void **state)
{
    struct buf list = { 0 }, inner = { 0 }, dict = { 0 }, params = { 0 };
    struct slice rest;
    struct sf_item item;

    (void)state;
    buf_addc(&inner, '(');
    buf_addc(&params, '1');
    for (int i = 0; i < MANY; i++) {
        buf_printf(&list, "%sa%d", i > 0 ? ", " : "", i);
        buf_printf(&inner, "%s\"i%d\"", i > 0 ? " " : "", i);
        buf_printf(&dict, "%sk%d=%d", i > 0 ? ", " : "", i, i);
        buf_printf(&params, ";p%d=%d", i, i);
    }
    buf_addc(&inner, ')');
    assert_int_equal(count_list(&list, false), MANY);
    assert_int_equal(count_list(&inner, true), MANY);
    rest = buf_slice(&dict);
    assert_int_equal(sf_check(SF_DICTIONARY, rest), 0);
    assert_true(sf_dictionary_get(rest, SLICE("k1023"), &item, NULL));
    assert_int_equal(item.integer, 1023);
    assert_int_equal(sf_item(buf_slice(&params), &item, NULL), 0);
    assert_true(sf_param_get(item.params, SLICE("p1023"), &item, NULL));
    assert_int_equal(item.integer, 1023);
    buf_free(&list);
    buf_free(&inner);
    buf_free(&dict);
    buf_free(&params);
}

static void
texts_and_keys_may_be_long(void **state)
{
    static const char *const before[] = { "\"", "", ":", "%\"", "1;" }, *const behind[] = { "\"", "", ":", "\"", "" };

    (void)state;
    for (size_t i = 0; i < NELEM(before); i++) {
        struct buf b = { 0 };

        buf_addz(&b, before[i]);
        for (int k = 0; k < 16384; k++)
            buf_addc(&b, 'a');
        buf_addz(&b, behind[i]);
        assert_int_equal(sf_check(SF_ITEM, buf_slice(&b)), 0);
        buf_free(&b);
    }
}

/* ---- keys that come twice ---- */

static void
of_a_key_that_comes_twice_the_last_one_counts(void **state)
{
    struct slice dict = SLICE("a=1, b=\"\\\\1\", a=2;x, b=\"\\\\2\", c=\"\\\\3\"");
    struct buf scratch = { 0 };
    struct sf_item item, x;

    (void)state;
    assert_true(sf_dictionary_get(dict, SLICE("a"), &item, &scratch));
    assert_int_equal(item.integer, 2);
    assert_true(sf_param_get(item.params, SLICE("x"), &x, &scratch));
    assert_false(sf_param_get(item.params, SLICE("y"), &x, &scratch));
    assert_true(sf_dictionary_get(dict, SLICE("b"), &item, &scratch));
    assert_slice(item.text, "\\2");
    assert_false(sf_dictionary_get(dict, SLICE("d"), &item, &scratch));
    assert_true(sf_param_get(SLICE(";a=?0;a;a=5"), SLICE("a"), &item, &scratch));
    assert_int_equal(item.type, SF_INTEGER);
    buf_free(&scratch);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_of_all_types),
        cmocka_unit_test(lists_with_inner_lists_and_parameters),
        cmocka_unit_test(dictionaries),
        cmocka_unit_test(a_nul_byte_is_never_valid),
        cmocka_unit_test(walkers_stop_at_what_is_malformed_and_at_nothing),
        cmocka_unit_test(texts_stay_where_they_are_when_scratch_was_reserved),
        cmocka_unit_test(keys_take_small_letters_digits_and_four_marks),
        cmocka_unit_test(tokens_begin_with_a_letter_or_a_star),
        cmocka_unit_test(strings_take_what_is_printable),
        cmocka_unit_test(numbers_take_fifteen_digits_or_twelve_and_three),
        cmocka_unit_test(structures_may_be_large),
        cmocka_unit_test(texts_and_keys_may_be_long),
        cmocka_unit_test(of_a_key_that_comes_twice_the_last_one_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
