/*
 * HTTP dates (RFC 9110 5.6.7): the three forms in, IMF-fixdate out.
 *
 * Model    the forms are matched to the letter, but for case (RFC 9111 4.2: a cache should match
 *          names without it) and for the day of the week, which need not be the date's. The
 *          calendar is the proleptic Gregorian one, counted in eras of 400 years from 1 March of
 *          year 0 (Howard Hinnant, "chrono-compatible low-level date algorithms").
 */
#include "http/scan.h"

#define DAY_S 86400

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char weekdays[] = "SunMonTueWedThuFriSat";

/* What is left of the text; `ok` turns false at the first mismatch and stays so. */
struct text {
    const char *p, *end;
    bool        ok;
};

static void
expect(struct text *t, const char *literal)
{
    size_t n = strlen(literal);

    t->ok = t->ok && (size_t)(t->end - t->p) >= n && strncasecmp(t->p, literal, n) == 0;
    if (t->ok)
        t->p += n;
}

static int
digits(struct text *t, int n)
{
    int v = 0;

    t->ok = t->ok && t->end - t->p >= n;
    for (int i = 0; t->ok && i < n; i++) {
        t->ok = is_digit(*t->p);
        v = v * 10 + (*t->p++ - '0');
    }
    return v;
}

/* The index of the three-letter name at t->p in `names`. */
static int
name3(struct text *t, const char *names)
{
    t->ok = t->ok && t->end - t->p >= 3;
    for (int i = 0; t->ok && names[i * 3] != '\0'; i++)
        if (strncasecmp(t->p, names + i * 3, 3) == 0) {
            t->p += 3;
            return i;
        }
    t->ok = false;
    return 0;
}

struct date { int year, month, day, hour, minute, second; };       /* month and day from 1 */

static void
clock_time(struct text *t, struct date *d)
{
    d->hour = digits(t, 2);
    expect(t, ":");
    d->minute = digits(t, 2);
    expect(t, ":");
    d->second = digits(t, 2);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static bool
imf_fixdate(struct slice s, struct date *d)
{
    struct text t = { s.p, s.p + s.n, true };

    name3(&t, weekdays);
    expect(&t, ", ");
    d->day = digits(&t, 2);
    expect(&t, " ");
    d->month = name3(&t, months) + 1;
    expect(&t, " ");
    d->year = digits(&t, 4);
    expect(&t, " ");
    clock_time(&t, d);
    expect(&t, " GMT");
    return t.ok && t.p == t.end;
}

/* "Sun Nov  6 08:49:37 1994" */
static bool
asctime_date(struct slice s, struct date *d)
{
    struct text t = { s.p, s.p + s.n, true };
    bool padded;

    name3(&t, weekdays);
    expect(&t, " ");
    d->month = name3(&t, months) + 1;
    expect(&t, " ");
    padded = t.ok && t.p < t.end && *t.p == ' ';
    t.p += padded;
    d->day = digits(&t, padded ? 1 : 2);
    expect(&t, " ");
    clock_time(&t, d);
    expect(&t, " ");
    d->year = digits(&t, 4);
    return t.ok && t.p == t.end;
}

/* "Sunday, 06-Nov-94 08:49:37 GMT"; the year is 0..99. */
static bool
rfc850_date(struct slice s, struct date *d)
{
    static const char *const tails[] = { "day", "day", "sday", "nesday", "rsday", "day", "urday" };
    struct text t = { s.p, s.p + s.n, true };

    expect(&t, tails[name3(&t, weekdays)]);
    expect(&t, ", ");
    d->day = digits(&t, 2);
    expect(&t, "-");
    d->month = name3(&t, months) + 1;
    expect(&t, "-");
    d->year = digits(&t, 2);
    expect(&t, " ");
    clock_time(&t, d);
    expect(&t, " GMT");
    return t.ok && t.p == t.end;
}

static bool
is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static bool
is_real(const struct date *d)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    return d->day >= 1 && d->day <= days[d->month - 1] + (d->month == 2 && is_leap(d->year)) &&
        d->hour < 24 && d->minute < 60 && d->second <= 60;      /* 60: a leap second */
}

static int64_t
to_seconds(const struct date *d)
{
    int64_t y = d->year - (d->month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * ((d->month + 9) % 12) + 2) / 5 + d->day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    int64_t days = era * 146097 + day_of_era - 719468;

    return days * DAY_S + d->hour * 3600 + d->minute * 60 + d->second;
}

/* Seconds outside of what four digits of a year can say are moved to the nearest that they can. */
static struct date
from_seconds(int64_t s)
{
    const int64_t least = -62167219200, most = 253402300799;   /* the years 0 and 9999 */
    int64_t days, era, day_of_era, year_of_era, day_of_year, mp;
    struct date d;

    s = s < least ? least : s > most ? most : s;
    days = (s >= 0 ? s : s - (DAY_S - 1)) / DAY_S;
    s -= days * DAY_S;
    days += 719468;
    era = (days >= 0 ? days : days - 146096) / 146097;
    day_of_era = days - era * 146097;
    year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    mp = (5 * day_of_year + 2) / 153;
    d.day = (int)(day_of_year - (153 * mp + 2) / 5 + 1);
    d.month = (int)(mp < 10 ? mp + 3 : mp - 9);
    d.year = (int)(year_of_era + era * 400 + (d.month <= 2));
    d.hour = (int)(s / 3600);
    d.minute = (int)(s / 60 % 60);
    d.second = (int)(s % 60);
    return d;
}

/* RFC 9110 5.6.7: a date that seems more than 50 years in the future is the last past one with the
 * same two digits. */
static int64_t
two_digit_year(struct date *d, int64_t now_s)
{
    struct date now = from_seconds(now_s), limit = now;

    limit.year += 50;
    d->year += now.year / 100 * 100;
    if (d->year + 100 <= now.year + 50)
        d->year += 100;
    if (d->year > 99 && to_seconds(d) > to_seconds(&limit))
        d->year -= 100;
    return is_real(d) ? to_seconds(d) : HTTP_NO_DATE;
}

int64_t
http_date(struct slice s, int64_t now_s)
{
    struct date d = { 0 };

    if (imf_fixdate(s, &d) || asctime_date(s, &d))
        return is_real(&d) ? to_seconds(&d) : HTTP_NO_DATE;
    if (rfc850_date(s, &d))
        return two_digit_year(&d, now_s);
    return HTTP_NO_DATE;
}

static void
put2(char *p, int v)
{
    p[0] = (char)('0' + v / 10);
    p[1] = (char)('0' + v % 10);
}

void
http_date_put(char out[HTTP_DATE_LEN], int64_t seconds)
{
    struct date d = from_seconds(seconds);
    struct date midnight = { d.year, d.month, d.day, 0, 0, 0 };
    int64_t days = to_seconds(&midnight) / DAY_S;
    int weekday = (int)((days % 7 + 7 + 4) % 7);        /* 1 January 1970 was a Thursday */

    memcpy(out, "Sun, 06 Nov 1994 08:49:37 GMT", HTTP_DATE_LEN);
    memcpy(out, weekdays + weekday * 3, 3);
    put2(out + 5, d.day);
    memcpy(out + 8, months + (d.month - 1) * 3, 3);
    put2(out + 12, d.year / 100);
    put2(out + 14, d.year % 100);
    put2(out + 17, d.hour);
    put2(out + 20, d.minute);
    put2(out + 23, d.second);
}

int64_t
http_retry_after(const struct http_head *response, int64_t now_ms)
{
    struct slice v = http_value(response, HF_RETRY_AFTER);
    int64_t at, sent;
    uint64_t seconds;

    if (v.p == NULL)
        return -1;
    if (slice_u64(v, &seconds))
        return seconds < DAY_S ? (int64_t)seconds * 1000 : DAY_S * 1000;
    at = http_date(v, now_ms / 1000);
    if (at == HTTP_NO_DATE)
        return -1;
    sent = http_date(http_value(response, HF_DATE), now_ms / 1000);    /* by the origin's clock */
    at -= sent != HTTP_NO_DATE ? sent : now_ms / 1000;
    if (at <= 0)
        return 0;
    return at < DAY_S ? at * 1000 : DAY_S * 1000;
}
