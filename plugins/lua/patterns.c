/*
 * Lua's patterns (reference manual 5.1, 5.4.1), within the time that a call has.
 *
 * Model    those of LuaJIT run in one C call, in which nothing looks at the clock: a pattern such
 *          as ".-.-.-x" takes minutes for a field of a few kilobytes. So they are done here. A
 *          pattern is first made a list of items; then it is tried, with backtracking, and each so
 *          many tries, or bytes that one looks through, the time is looked at. What is malformed is
 *          an error before anything is tried. A `^` in gmatch stands for itself, as in 5.1.
 */
#include <ctype.h>
#include <string.h>

#include "plugins/lua/inside.h"

#define CAPTURES_MAX 32
#define DEPTH_MAX    200                /* of items that can be taken back */
#define ITEMS_LOCAL  48                 /* of a pattern that needs no memory */
#define TRIES        1024               /* between two looks at the clock: some microseconds */
#define SET_PART     8                  /* bytes of a set that take as long as a try, ... */
#define COPY_PART    256                /* ... and of what is compared or copied */

enum kind { IT_CHAR, IT_ANY, IT_CLASS, IT_SET, /* one byte; may have a suffix */
    IT_BALANCE, IT_FRONTIER, IT_OPEN, IT_CLOSE, IT_POSITION, IT_AGAIN, IT_END, IT_STOP };

struct item {
    unsigned char kind;
    unsigned char c;                    /* CHAR, CLASS; the number of a capture */
    char suffix;                        /* '*', '+', '-', '?', or '\0' */
    const char *set, *set_end;          /* SET, FRONTIER: between [ and ]. BALANCE: both bytes */
};

struct capture { const char *at; ptrdiff_t n; };
#define OPEN_N     (-1)
#define POSITION_N (-2)

struct match {
    lua_State *L;
    const char *start, *end;            /* of the subject */
    const struct item *items;
    unsigned depth, ncaptures;
    size_t tries;                       /* since the last look at the clock */
    struct capture captures[CAPTURES_MAX];
};

/* ---- a pattern as items ---------------------------------------------------------------------- */

struct reader {
    lua_State *L;
    const char *p, *end;
    struct item *items;
    size_t n;
    unsigned ncaptures;
    bool closed[CAPTURES_MAX];
};

static void
take_set(struct reader *r, struct item *it)
{
    it->set = r->p;
    if (r->p < r->end && *r->p == '^')
        r->p++;
    for (bool first = true; r->p < r->end && (first || *r->p != ']'); first = false)
        r->p += *r->p == '%' && r->end - r->p > 1 ? 2 : 1;
    if (r->p == r->end)
        luaL_error(r->L, "malformed pattern (missing ']')");
    it->set_end = r->p++;
}

static void
take_capture(struct reader *r, struct item *it)
{
    bool position = r->p < r->end && *r->p == ')';

    if (r->ncaptures >= CAPTURES_MAX) {
        luaL_error(r->L, "too many captures");
        return;
    }
    it->kind = position ? IT_POSITION : IT_OPEN;
    it->c = (unsigned char)r->ncaptures;
    r->closed[r->ncaptures++] = position;
    r->p += position ? 1 : 0;
}

static void
take_close(struct reader *r, struct item *it)
{
    unsigned i = r->ncaptures;

    while (i > 0 && r->closed[i - 1])
        i--;
    if (i == 0)
        luaL_error(r->L, "invalid pattern capture");
    r->closed[i - 1] = true;
    it->kind = IT_CLOSE;
    it->c = (unsigned char)(i - 1);
}

/* Behind a '%'. */
static void
take_escape(struct reader *r, struct item *it)
{
    if (r->p == r->end)
        luaL_error(r->L, "malformed pattern (ends with '%%')");
    it->c = (unsigned char)*r->p++;
    if (it->c == 'b') {
        it->kind = IT_BALANCE;
        it->set = r->p;
        if (r->end - r->p < 2)
            luaL_error(r->L, "unbalanced pattern");
        r->p += 2;
    } else if (it->c == 'f') {
        it->kind = IT_FRONTIER;
        if (r->p == r->end || *r->p++ != '[')
            luaL_error(r->L, "missing '[' after '%%f' in pattern");
        take_set(r, it);
    } else if (isdigit(it->c)) {
        it->kind = IT_AGAIN;
        it->c = (unsigned char)(it->c - '1');
        if (it->c >= r->ncaptures || !r->closed[it->c])
            luaL_error(r->L, "invalid capture index");
    } else {
        it->kind = IT_CLASS;
    }
}

static void
take_item(struct reader *r)
{
    struct item *it = &r->items[r->n++];
    char c = *r->p++;

    *it = (struct item){ .kind = IT_CHAR, .c = (unsigned char)c };
    if (c == '(')
        take_capture(r, it);
    else if (c == ')')
        take_close(r, it);
    else if (c == '%')
        take_escape(r, it);
    else if (c == '[') {
        it->kind = IT_SET;
        take_set(r, it);
    } else if (c == '.')
        it->kind = IT_ANY;
    else if (c == '$' && r->p == r->end)
        it->kind = IT_END;
    if (it->kind <= IT_SET && r->p < r->end && memchr("*+-?", *r->p, 4) != NULL)
        it->suffix = *r->p++;
}

/* items: room for one more than the pattern has bytes. */
static void
read_pattern(lua_State *L, const char *p, size_t n, struct item *items)
{
    struct reader r = { .L = L, .p = p, .end = p + n, .items = items };

    while (r.p < r.end)
        take_item(&r);
    for (unsigned i = 0; i < r.ncaptures; i++)
        if (!r.closed[i])
            luaL_error(L, "unfinished capture");
    items[r.n] = (struct item){ .kind = IT_STOP };
}

/* ---- trying ---------------------------------------------------------------------------------- */

static void
count_bytes(struct match *m, size_t n)
{
    m->tries += n;
    if (m->tries < TRIES)
        return;
    m->tries = 0;
    check_limits(m->L, 1);
}

static void
count_try(struct match *m)
{
    count_bytes(m, 1);
}

static bool
is_of_class(unsigned char c, unsigned char class)
{
    bool is;

    switch (class | 32) {
    case 'a': is = isalpha(c) != 0; break;
    case 'c': is = iscntrl(c) != 0; break;
    case 'd': is = isdigit(c) != 0; break;
    case 'g': is = isgraph(c) != 0; break;
    case 'l': is = islower(c) != 0; break;
    case 'p': is = ispunct(c) != 0; break;
    case 's': is = isspace(c) != 0; break;
    case 'u': is = isupper(c) != 0; break;
    case 'w': is = isalnum(c) != 0; break;
    case 'x': is = isxdigit(c) != 0; break;
    case 'z': is = c == 0; break;
    default:  return c == class;
    }
    return is == (islower(class) != 0);
}

static bool
is_in_set(struct match *m, const struct item *it, unsigned char c)
{
    const char *p = it->set;
    bool not = *p == '^', in = false;

    count_bytes(m, (size_t)(it->set_end - p) / SET_PART);
    for (p += not; p < it->set_end && !in; p++) {
        if (*p == '%' && it->set_end - p > 1) {
            in = is_of_class(c, (unsigned char)*++p);
        } else if (it->set_end - p > 2 && p[1] == '-') {
            in = (unsigned char)p[0] <= c && c <= (unsigned char)p[2];
            p += 2;
        } else {
            in = (unsigned char)*p == c;
        }
    }
    return in != not;
}

static bool
fits(struct match *m, const struct item *it, const char *s)
{
    count_try(m);
    if (s == m->end)
        return false;
    switch (it->kind) {
    case IT_ANY:   return true;
    case IT_CLASS: return is_of_class((unsigned char)*s, it->c);
    case IT_SET:   return is_in_set(m, it, (unsigned char)*s);
    default:       return (unsigned char)*s == it->c;
    }
}

static const char *try(struct match *m, const char *s, const struct item *it);

/* As many as there are, then fewer. */
static const char *
try_most(struct match *m, const char *s, const struct item *it)
{
    ptrdiff_t n = 0, least = it->suffix == '+' ? 1 : 0;
    const char *end = NULL;

    while (fits(m, it, s + n))
        n++;
    for (; end == NULL && n >= least; n--)
        end = try(m, s + n, it + 1);
    return end;
}

/* As few as will do. */
static const char *
try_least(struct match *m, const char *s, const struct item *it)
{
    const char *end = try(m, s, it + 1);

    while (end == NULL && fits(m, it, s))
        end = try(m, ++s, it + 1);
    return end;
}

static const char *
try_capture(struct match *m, const char *s, const struct item *it)
{
    struct capture *c = &m->captures[it->c], was = *c;
    unsigned n = m->ncaptures;
    const char *end;

    if (it->kind == IT_CLOSE) {
        c->n = s - c->at;
    } else {
        *c = (struct capture){ s, it->kind == IT_OPEN ? OPEN_N : POSITION_N };
        m->ncaptures = n + 1;
    }
    end = try(m, s, it + 1);
    if (end == NULL) {
        *c = was;
        m->ncaptures = n;
    }
    return end;
}

/* From the first of a pair to behind its last; NULL: there is no such. */
static const char *
balanced(struct match *m, const char *s, const struct item *it)
{
    size_t open = 0;

    if (s == m->end || *s != it->set[0])
        return NULL;
    for (; s < m->end; s++) {
        count_try(m);
        if (*s == it->set[1] && open > 0 && --open == 0)
            return s + 1;
        if (*s == it->set[0])
            open++;
    }
    return NULL;
}

static bool
is_frontier(struct match *m, const char *s, const struct item *it)
{
    return !is_in_set(m, it, s == m->start ? 0 : (unsigned char)s[-1]) &&
        is_in_set(m, it, s == m->end ? 0 : (unsigned char)*s);
}

/* Behind what a capture holds, if that stands here. */
static const char *
again(struct match *m, const char *s, const struct item *it)
{
    const struct capture *c = &m->captures[it->c];

    if (c->n < 0 || m->end - s < c->n)
        return NULL;
    count_bytes(m, (size_t)c->n / COPY_PART);
    return memcmp(s, c->at, (size_t)c->n) == 0 ? s + c->n : NULL;
}

/* Where items from here on end; NULL: they do not match. */
static const char *
try(struct match *m, const char *s, const struct item *it)
{
    const char *end = NULL;

    if (++m->depth > DEPTH_MAX)
        luaL_error(m->L, "pattern too complex");
    for (bool taken = false; s != NULL && !taken; it++) {
        count_try(m);
        taken = true;
        if (it->kind == IT_STOP)
            end = s;
        else if (it->kind == IT_OPEN || it->kind == IT_CLOSE || it->kind == IT_POSITION)
            end = try_capture(m, s, it);
        else if (it->suffix == '*' || it->suffix == '+')
            end = try_most(m, s, it);
        else if (it->suffix == '-')
            end = try_least(m, s, it);
        else if (it->suffix == '?' && fits(m, it, s) && (end = try(m, s + 1, it + 1)) != NULL)
            break;
        else
            taken = false;
        if (taken || it->suffix == '?')
            continue;
        if (it->kind <= IT_SET)
            s = fits(m, it, s) ? s + 1 : NULL;
        else if (it->kind == IT_BALANCE)
            s = balanced(m, s, it);
        else if (it->kind == IT_AGAIN)
            s = again(m, s, it);
        else if (it->kind == IT_FRONTIER ? !is_frontier(m, s, it) : s != m->end)
            s = NULL;
    }
    m->depth--;
    return end;
}

/* ---- captures -------------------------------------------------------------------------------- */

/* The i-th; the whole match where the pattern has none. */
static void
push_capture(struct match *m, unsigned i, const char *s, const char *end)
{
    if (i >= m->ncaptures && i > 0)
        luaL_error(m->L, "invalid capture index");
    if (i >= m->ncaptures)
        lua_pushlstring(m->L, s, (size_t)(end - s));
    else if (m->captures[i].n == POSITION_N)
        lua_pushinteger(m->L, m->captures[i].at - m->start + 1);
    else
        lua_pushlstring(m->L, m->captures[i].at, (size_t)m->captures[i].n);
}

/* All of them; whole: the match itself where there are none. */
static int
push_captures(struct match *m, const char *s, const char *end, bool whole)
{
    unsigned n = m->ncaptures == 0 && whole ? 1 : m->ncaptures;

    luaL_checkstack(m->L, (int)n + 4, "too many captures");
    for (unsigned i = 0; i < n; i++)
        push_capture(m, i, s, end);
    return (int)n;
}

/* ---- the four functions ---------------------------------------------------------------------- */

/* Begins with the subject and the pattern at 1 and 2. local: for short patterns. True: it is held
 * at the beginning. */
static bool
begin(lua_State *L, struct match *m, struct item *local, bool may_anchor)
{
    size_t n, pn;
    const char *s = luaL_checklstring(L, 1, &n), *p = luaL_checklstring(L, 2, &pn);
    bool anchor = may_anchor && pn > 0 && *p == '^';
    struct item *items = local;

    lua_settop(L, 4);                   /* items stand behind all arguments */
    *m = (struct match){ .L = L, .start = s, .end = s + n };
    if (pn >= ITEMS_LOCAL)
        items = lua_newuserdata(L, (pn + 1) * sizeof *items);
    read_pattern(L, p + anchor, pn - anchor, items);
    m->items = items;
    check_limits(L, 1);
    return anchor;
}

static const char *
try_at(struct match *m, const char *s)
{
    m->ncaptures = 0;
    m->depth = 0;
    return try(m, s, m->items);
}

/* The place that a script means by its third argument. */
static const char *
place(lua_State *L, const char *s, size_t n)
{
    lua_Integer i = luaL_optinteger(L, 3, 1);

    i = i > 0 ? i - 1 : i < 0 ? i + (lua_Integer)n : 0;
    return s + (i < 0 ? 0 : i > (lua_Integer)n ? (lua_Integer)n : i);
}

static int
find_plain(lua_State *L)
{
    size_t n, pn;
    const char *s = luaL_checklstring(L, 1, &n), *p = luaL_checklstring(L, 2, &pn);
    const char *from = place(L, s, n), *at = memmem(from, (size_t)(s + n - from), p, pn);

    if (at == NULL)
        return 0;
    lua_pushinteger(L, at - s + 1);
    lua_pushinteger(L, at - s + (lua_Integer)pn);
    return 2;
}

static int
search(lua_State *L, bool find)
{
    struct item local[ITEMS_LOCAL];
    struct match m;
    bool anchor = begin(L, &m, local, true);
    const char *s = place(L, m.start, (size_t)(m.end - m.start)), *end;

    for (; (end = try_at(&m, s)) == NULL; s++)
        if (anchor || s == m.end)
            return 0;
    if (!find)
        return push_captures(&m, s, end, true);
    lua_pushinteger(L, s - m.start + 1);
    lua_pushinteger(L, end - m.start);
    return 2 + push_captures(&m, s, end, false);
}

static int
string_find(lua_State *L)
{
    const char *p = luaL_checkstring(L, 2);
    int n = lua_toboolean(L, 4) || (strpbrk(p, "^$*+?.([%-") == NULL &&
        strlen(p) == lua_objlen(L, 2)) ? find_plain(L) : search(L, true);

    if (n > 0)
        return n;
    lua_pushnil(L);
    return 1;
}

static int
string_match(lua_State *L)
{
    int n = search(L, false);

    if (n > 0)
        return n;
    lua_pushnil(L);
    return 1;
}

/* Upvalues: the subject, the pattern, where to go on. */
static int
next_match(lua_State *L)
{
    lua_Integer from = lua_tointeger(L, lua_upvalueindex(3));
    struct item local[ITEMS_LOCAL];
    const char *end = NULL, *s;
    struct match m;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, lua_upvalueindex(2));
    begin(L, &m, local, false);
    for (s = m.start + from; s <= m.end && (end = try_at(&m, s)) == NULL; s++)
        ;
    if (end == NULL)
        return 0;
    lua_pushinteger(L, end - m.start + (end == s));
    lua_replace(L, lua_upvalueindex(3));
    return push_captures(&m, s, end, true);
}

static int
string_gmatch(lua_State *L)
{
    luaL_checkstring(L, 1);
    luaL_checkstring(L, 2);
    lua_settop(L, 2);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, next_match, 3);
    return 1;
}

/* A text with %0 to %9 in it. */
static void
add_text(struct match *m, luaL_Buffer *b, const char *s, const char *end)
{
    size_t n;
    const char *t = lua_tolstring(m->L, 3, &n), *t_end = t + n;

    for (; t < t_end; t++) {
        count_try(m);
        if (*t != '%' || t_end - t < 2) {
            luaL_addchar(b, *t);
        } else if (!isdigit((unsigned char)*++t)) {
            luaL_addchar(b, *t);
        } else if (*t == '0') {
            luaL_addlstring(b, s, (size_t)(end - s));
        } else {
            push_capture(m, (unsigned)(*t - '1'), s, end);
            luaL_addvalue(b);
        }
    }
}

/* What stands for the match: of a text, a table or a function. */
static void
add_instead(struct match *m, luaL_Buffer *b, const char *s, const char *end)
{
    lua_State *L = m->L;

    if (lua_type(L, 3) == LUA_TTABLE) {
        push_capture(m, 0, s, end);
        lua_gettable(L, 3);
    } else if (lua_type(L, 3) == LUA_TFUNCTION) {
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(m, s, end, true), 1);
    } else {
        add_text(m, b, s, end);
        return;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        lua_pushlstring(L, s, (size_t)(end - s));
    } else if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    }
    luaL_addvalue(b);
}

static int
string_gsub(lua_State *L)
{
    struct item local[ITEMS_LOCAL];
    struct match m;
    bool anchor = begin(L, &m, local, true);
    lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)(m.end - m.start) + 1), n = 0;
    const char *s = m.start, *end;
    int type = lua_type(L, 3);
    luaL_Buffer b;

    if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TTABLE && type != LUA_TFUNCTION)
        return luaL_argerror(L, 3, "string/function/table expected");
    luaL_buffinit(L, &b);
    while (n < most) {
        end = try_at(&m, s);
        if (end != NULL) {
            n++;
            add_instead(&m, &b, s, end);
        }
        if (end != NULL && end > s)
            s = end;
        else if (s < m.end)
            luaL_addchar(&b, *s++);
        else
            break;
        if (anchor)
            break;
    }
    luaL_addlstring(&b, s, (size_t)(m.end - s));
    luaL_pushresult(&b);
    lua_pushinteger(L, n);
    return 2;
}

const luaL_Reg pattern_functions[] = {
    { "find", string_find }, { "match", string_match }, { "gmatch", string_gmatch },
    { "gsub", string_gsub }, { NULL, NULL },
};
