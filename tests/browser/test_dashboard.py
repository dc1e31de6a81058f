"""The dashboard of the admin port in a real browser: what an operator sees and does there."""
import contextlib
import json
import os

import pytest

import canned
import harness
import looks

FRESH = [("Cache-Control", "max-age=600")]


def opened(page, w):
    page.goto(w.admin_url + "/")
    page.see("#state", "live")
    return page


def answers(w):
    with contextlib.suppress(OSError):
        return w.api("GET", "/healthz").status


def row(page, name):
    """The cells of a route's row, by their text; None when it is not in sight."""
    return page.js("""[...document.querySelectorAll('.grid-row:not([hidden])')].filter(
        (r) => r.children[0].textContent === %s).map((r) => [...r.children].map((c) => c.textContent))[0]""" % json.dumps(name))


def test_what_happens_is_seen_while_it_happens(origin, weir, redis, tmp_path, page):
    origin.on("/api/a", body=b"x" * 100, headers=FRESH)
    origin.on("/slow", body=b"y", headers=[("Cache-Control", "no-store")])
    w = weir(cache={"memory": "16MiB", "disk": {"path": str(tmp_path / "disk"), "size": "16MiB"}, "redis": {"url": redis.url}},
             routes=[{"path": "/api/{id}"}, {"path": "/long", "name": "x" * 200}, {"path": "/**"}])
    opened(page, w)
    page.see("#routes", "No request in this time.")
    for _ in range(4):
        assert w.get("/api/a").status == 200
    page.until("document.querySelector('#tiles dd')?.innerText !== '0 /s'")
    page.see("#outcomes", "hit")
    assert page.until("[...document.querySelectorAll('#outcomes tbody tr')].map((r) => r.cells[0].innerText + ' ' "
                      "+ r.cells[3].innerText).join() === 'hit 3,miss 1'")
    assert row(page, "/api/{id}")[2] == "75.0 %"
    w.get("/slow?why")
    page.see("#slowest-table", "/slow?why")
    long = "[...document.querySelectorAll('#slowest-table td.short')].find((td) => td.title.startsWith('xxx'))"
    w.get("/long")                      # a route's name of any length leaves the request its room
    page.until("Boolean(%s)" % long)
    assert page.js(long + ".offsetWidth") < page.js(long + ".previousElementSibling.offsetWidth")
    page.see("#origins-table", origin.url)
    assert page.text("#origins-table tbody td.good") == "up"
    tiers = page.text("#tiers-table")
    assert [line.split()[0] for line in tiers.splitlines()[1:]] == ["memory", "disk", "Redis"] and "failing" not in tiers
    page.see("#bus", "purges are shared by 1 instance, lease held")
    page.see("#journal", "none is configured")
    assert page.js("document.querySelectorAll('.uplot canvas').length") == 3
    assert all(url.startswith(w.admin_url + "/") for url in page.requests)


def test_the_policy_lets_nothing_else_in(origin, weir, page):
    opened(page, weir())
    assert page.js("fetch(%s).then(() => 'came', () => 'refused')" % json.dumps(origin.url + "/x")) == "refused"
    assert page.js("""(() => { try { document.body.innerHTML = '<b>x</b>'; return 'written'; }
        catch (e) { return e.name; } })()""") == "TypeError"
    page.js("""(() => { const s = document.createElement('style'); s.textContent = 'body{display:none}';
        document.head.append(s); })()""")
    assert page.js("getComputedStyle(document.body).display") == "block"
    assert origin.requests == []
    refused = [f for f in page.faults if "Content Security Policy" in f or "TrustedHTML" in f or "blocked" in f.lower()]
    assert len(refused) >= 2 and refused == page.faults
    page.faults.clear()


def test_a_purge_is_counted_first_by_keyboard_alone(origin, weir, page):
    origin.on("/a", body=b"x", headers=FRESH)
    origin.on("/b", body=b"x", headers=FRESH)
    w = weir(routes=[{"path": "/{id}", "tags": ["t:{id}", "all"]}])
    w.get("/a")
    w.get("/b")
    opened(page, w)
    page.focus("#purge-kind")
    page.press("Tab")
    page.type("t:a\nt:none")
    page.press("Tab")
    assert page.focused() == "purge-soft"
    page.press("Tab")
    assert page.focused() == "purge-erase"
    page.press("Tab")
    page.press("Enter")
    page.see("#purge-result", "A purge would take 1 response.")
    page.press("Tab")
    assert page.focused() == "purge-go"
    page.press("Enter")
    page.see("#purge-result", "Purged 1 response.")
    assert w.get("/b").cache_status.hit and not w.get("/a").cache_status.hit
    page.see("#purges-table", "tag t:a, tag t:none")
    assert page.js("document.querySelector('#purge-go').disabled")

    # to be erased is counted likewise, and is no soft purge
    w.get("/a")
    page.js("document.querySelector('#purge-soft').checked = true")
    page.click("#purge-erase")
    assert not page.js("document.querySelector('#purge-soft').checked")
    page.click("#purge-form .primary")
    page.see("#purge-go", "Erase 1 response")
    page.click("#purge-go")
    page.see("#purge-result", "Erased 1 response.")
    page.see("#purges-table", "erased")
    page.click("#purge-soft")
    assert not page.js("document.querySelector('#purge-erase').checked")
    page.click("#purge-soft")

    # what was not counted cannot be purged
    page.focus("#purge-values")
    page.press("ArrowDown")
    page.type("x")
    page.press("Enter")
    assert page.js("document.querySelector('#purge-go').disabled")
    page.js("document.querySelector('#purge-kind').value = 'route'")
    page.expect_status(400)
    page.click("#purge-form .primary")
    page.see("#purge-result", "not understood, so nothing was purged")


def test_a_url_is_explained(origin, weir, page):
    origin.on("/a", body=b"x", headers=FRESH + [("Vary", "Accept-Language")])
    w = weir()
    w.get("/a", [("Accept-Language", "de")])
    opened(page, w)
    page.focus("#explain-url")
    page.type(w.url + "/a")
    page.press("Tab")
    page.type("Accept-Language: de")
    page.press("Tab")
    page.press("Enter")
    page.see("#explain-result", "answered from the cache")
    page.see("#explain-result", "max-age")
    page.focus("#explain-fields")
    page.js("document.activeElement.select()")
    page.type("Cache-Control: no-cache")
    page.click("#explain-form .primary")
    page.until("!document.querySelector('#explain-result .lead').innerText.includes('answered from the cache')")


def test_dead_letters_are_tried_again_and_dropped(origin, weir, tmp_path, page):
    origin.on("/e/1", status=400)
    origin.on("/e/2", status=400)
    w = weir(journal={"path": str(tmp_path / "journal")},
             routes=[{"path": "/e/{id}", "policy": "write-back", "write": {"key": "{path.id}"}}, {"path": "/**"}])
    opened(page, w)
    page.see("#letters-table", "None.")
    for i in "12":
        assert w.request("PUT", "/e/" + i, body=b"x").status == 202
    page.until("document.querySelectorAll('#letters-table .danger').length === 2")
    page.see("#journal", "Dead letters\n2")
    origin.on("/e/1", status=200)
    page.click("#letters-table tr:nth-child(1) button")
    origin.wait("/e/1", 2)
    page.until("document.querySelectorAll('#letters-table .danger').length === 1")
    page.click("#letters-table .danger")
    page.see("#confirm", "/e/2")
    page.press("Enter")                 # Cancel has the focus
    assert page.js("document.querySelectorAll('#letters-table .danger').length") == 1
    page.click("#letters-table .danger")
    page.click("#confirm-yes")
    page.see("#letters-table", "None.")
    page.see("#journal", "Dead letters\n0")
    assert w.stats()["writes"]["dead"] == 0 and origin.count("/e/2") == 1


def test_the_keyboard_reaches_everything_and_shows_where_it_is(origin, weir, tmp_path, page):
    opened(page, weir(journal={"path": str(tmp_path / "journal")}))
    page.see("#letters-table", "None.")
    seen = []
    for _ in range(80):
        page.press("Tab")
        at = page.js("""(() => {
            const e = document.activeElement, shown = e.matches('.segments input') ? e.nextElementSibling : e;
            const r = shown.getBoundingClientRect();
            return e === document.body ? null : {
                name: e.id || (e.name ? e.name + '=' + e.value : e.textContent.trim()), ring: getComputedStyle(shown).outlineStyle,
                seen: r.top >= 0 && r.bottom <= innerHeight && r.width > 0 };
        })()""")
        if at is None:
            break
        assert at["ring"] == "solid" and at["seen"], at
        seen.append(at["name"])
    order = ["Skip to the routes", "Overview", "Writes", "window=1m", "pause", "quantile=p99_us", "filter", "grid",
             "Route", "Bytes/s", "purge-kind", "purge-values", "purge-soft", "purge-erase", "Dry run", "explain-method", "explain-url",
             "explain-fields", "letters-state"]
    assert [at for at in seen if at in order] == order, seen


def test_the_token_is_asked_for_and_goes_with_the_tab(weir, tmp_path, page):
    (tmp_path / "token").write_text("open-sesame\n")
    (tmp_path / "token").chmod(0o600)
    w = weir(yaml="listen: '{listen}'\nadmin: {listen: '{admin}', token_file: %s}\n"
                  "origins: {api: {servers: ['{origin}']}}\nroutes: [{path: /**}]\n" % (tmp_path / "token"), wait=False)
    harness.eventually(lambda: answers(w))
    page.expect_status(401)
    page.goto(w.admin_url + "/")
    page.see("#token", "asks for its token")
    for text, first in ("wrong", "true"), ("open-sesame", "false"):
        page.until("document.querySelector('#token').open && document.activeElement.id === 'token-value' && "
                   "document.querySelector('#token-wrong').hidden === %s" % first)
        if first == "false":
            page.see("#token-wrong", "That is not the token.")
        page.type(text)
        page.press("Enter")
    page.see("#state", "live")
    assert page.js("[document.cookie, localStorage.length, sessionStorage.length].join()") == ",0,1"
    assert not any("sesame" in url for url in page.requests)
    page.goto(w.admin_url + "/dashboard/index.html")
    page.see("#state", "live")
    assert not page.js("document.querySelector('#token').open")


def test_five_hundred_routes_are_sorted_filtered_and_walked(origin, weir, page):
    origin.on("*", body=b"x" * 10, headers=FRESH)
    w = weir(routes=[{"path": "/service-%03d/{id}" % i} for i in range(500)])
    with w.client() as c:
        for i in range(500):
            for _ in range(3 if i == 250 else 1):
                assert c.get("/service-%03d/x" % i).status == 200
    opened(page, w)
    page.see("#routes-count", "500 in use")
    assert page.until("document.querySelector('#grid').getAttribute('aria-rowcount')") == "501"
    assert page.js("document.querySelectorAll('.grid-row').length") < 40
    assert row(page, "/service-250/{id}") is not None            # the busiest first
    page.focus("#grid-head div:nth-child(1) button")
    page.press("Enter")
    page.until("document.querySelector('#grid-head div').getAttribute('aria-sort') === 'ascending'")
    page.focus("#grid")
    page.press("End")
    page.until("document.querySelector('#grid-space').innerText.includes('/service-499/{id}')")
    assert page.js("document.querySelectorAll('.grid-row').length") < 40
    page.press("Home")
    for _ in range(2):
        page.press("ArrowDown")
    page.press("Enter")
    page.see("#scope", "/service-002/{id}")
    assert page.js("[...document.querySelectorAll('[aria-selected=true]')].map((e) => e.children[0].innerText).join()") \
        == "/service-002/{id}"
    page.until("document.querySelector('#outcomes tbody tr td:nth-child(4)')?.innerText === '1'")
    page.press("Escape")
    page.see("#scope", "all routes")
    page.js("document.activeElement.blur()")
    page.press("/")
    assert page.focused() == "filter"
    page.type("49 serv")
    page.see("#routes-count", "15 of 500")
    page.press("ArrowDown")
    assert page.focused() == "grid"


def test_it_goes_on_after_silence_and_a_restart_and_can_be_held(origin, weir, page):
    w = weir()
    opened(page, w)
    w.pause()
    page.see("#state", "lost")
    w.resume()
    page.see("#state", "live")
    page.click("#pause")
    page.see("#state", "paused")
    page.click("#pause")
    page.see("#state", "live")
    assert w.stop() == 0
    page.see("#state", "lost")
    w.start()
    page.see("#state", "live")


def test_the_charts_library_is_the_one_that_npm_has():
    folder = os.path.join(os.path.dirname(__file__), "..", "..", "proxy", "admin", "dashboard")
    package = os.path.join(folder, "node_modules", "uplot")
    if not os.path.isdir(package):
        pytest.skip("no proxy/admin/dashboard/node_modules: npm ci there makes it, and checks its integrity")
    for name, where in ("uPlot.iife.min.js", "dist"), ("uPlot.min.css", "dist"), ("LICENSE", ""):
        with open(os.path.join(folder, "uplot", name), "rb") as ours, \
                open(os.path.join(package, where, name), "rb") as theirs:
            assert ours.read() == theirs.read(), name


@pytest.mark.parametrize("name, width, height, dark, mobile", [
    ("light", 1440, 2420, False, False), ("dark", 1440, 2420, True, False), ("phone", 390, 3480, False, True)])
def test_it_looks_as_it_should(weir, page, tmp_path, name, width, height, dark, mobile):
    w = weir()
    page.size(width, height, mobile)
    page.dark(dark)
    page.before(canned.script())
    opened(page, w)
    page.until(canned.READ)
    page.see("#letters-table", "uncertain")
    page.js("""(() => { const s = new CSSStyleSheet(); s.replaceSync('#about { visibility: hidden }');
        document.adoptedStyleSheets = [s]; })()""")       # it names the port
    page.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.js("document.documentElement.scrollWidth") <= width
    looks.compare(page.screenshot(), "dashboard-" + name, tmp_path)
