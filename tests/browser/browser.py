"""Headless Chromium, driven as a person drives it: keys, a mouse, eyes.

    page.goto(url)
    page.click("#purge-go")             # the mouse, in the middle of the element, scrolled to
    page.focus("#purge-values"); page.type("a\\nb")         # keys to whatever has the focus
    page.press("Tab"); page.press("Enter"); page.press("Shift+Tab")
    page.text("#scope"); page.js("document.title")          # what is there now
    page.until("document.title == 'x'")                     # waits, and gives the value
    page.see("#scope", "all routes")                        # waits until the text is there
    page.screenshot()                                       # PNG bytes of the viewport
    page.dark(True); page.size(390, 844, mobile=True)

Page.faults are what must not be: errors on the console, exceptions, violated policies, answers of
400 and above to the page that a test did not foresee (expect_status), requests that leave for
another origin. The fixture `page` fails a test that leaves any.

The protocol is Chromium's own (DevTools), over a pipe: JSON texts with a NUL behind each.
"""
import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time

TIMEOUT = 15.0
KEYS = {                                # name: (code, virtual key, text)
    "Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), " ": ("Space", 32, " "),
    "ArrowDown": ("ArrowDown", 40, ""), "ArrowUp": ("ArrowUp", 38, ""), "PageDown": ("PageDown", 34, ""),
    "Home": ("Home", 36, ""), "End": ("End", 35, ""), "Backspace": ("Backspace", 8, ""), "/": ("Slash", 191, "/"),
    "ArrowRight": ("ArrowRight", 39, ""), "ArrowLeft": ("ArrowLeft", 37, ""),
}
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>%s</dir><cachedir>%s</cachedir>
<match target="pattern"><test name="family" compare="contains"><string>mono</string></test>
<edit name="family" mode="assign" binding="same"><string>DejaVu Sans Mono</string></edit></match>
</fontconfig>"""
FONTS_AT = "/usr/share/fonts/truetype/dejavu/"
FILES = ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"]


def chromium():
    """The program, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def missing():
    """Why no browser can be driven here, or None."""
    if chromium() is None:
        return "no Chromium: install the package chromium"
    if not all(os.path.exists(FONTS_AT + name) for name in FILES):
        return "no fonts of fonts-dejavu-core, in which the pictures are"
    return None


class Browser:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="weir-browser-")
        self._fonts()
        to_it, ours = self._pipe(), self._pipe()
        command = [chromium(), "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
                   "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync",
                   "--disable-extensions", "--disable-default-apps", "--no-proxy-server", "--mute-audio", "--lang=en-US",
                   "--force-color-profile=srgb", "--font-render-hinting=none", "--disable-lcd-text",
                   "--user-data-dir=" + self.directory, "about:blank"]
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(3, 4),
                preexec_fn=lambda: (os.dup2(to_it[0], 3), os.dup2(ours[1], 4)),
                env={**os.environ, "FONTCONFIG_FILE": os.path.join(self.directory, "fonts.conf"),
                     "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": self.directory})
        os.close(to_it[0])
        os.close(ours[1])
        self.out, self.into = os.fdopen(to_it[1], "wb", 0), ours[0]
        self.lock, self.next, self.waiting, self.pages = threading.Lock(), 0, {}, {}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _fonts(self):
        """The same few whatever the machine has, so that a picture here is a picture there."""
        fonts = os.path.join(self.directory, "fonts")
        os.mkdir(fonts)
        for name in FILES:
            os.symlink(FONTS_AT + name, os.path.join(fonts, name))
        with open(os.path.join(self.directory, "fonts.conf"), "w", encoding="utf-8") as f:
            f.write(FONTS % (fonts, os.path.join(self.directory, "fonts-cache")))

    @staticmethod
    def _pipe():
        """Both ends above those that the browser gets as 3 and 4."""
        ends = []
        for fd in os.pipe():
            ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10))
            os.close(fd)
        return ends

    def _read(self):
        rest = b""
        while True:
            data = os.read(self.into, 1 << 20)
            if not data:
                break
            *texts, rest = (rest + data).split(b"\0")
            for text in texts:
                message = json.loads(text)
                if "id" in message:
                    with self.lock:
                        waiting = self.waiting.pop(message["id"], None)
                    if waiting:
                        waiting.put(message)
                elif message.get("sessionId") in self.pages:
                    self.pages[message["sessionId"]].on_event(message["method"], message["params"])

    def call(self, method, session=None, **params):
        answer = queue.Queue()
        with self.lock:
            self.next += 1
            message = {"id": self.next, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            self.waiting[self.next] = answer
            self.out.write(json.dumps(message).encode() + b"\0")
        try:
            got = answer.get(timeout=2 * TIMEOUT)
        except queue.Empty:
            raise AssertionError("the browser did not answer %s" % method) from None
        assert "error" not in got, "%s: %s" % (method, got.get("error"))
        return got["result"]

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (AssertionError, subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        self.reader.join(10)
        self.out.close()
        os.close(self.into)
        shutil.rmtree(self.directory, ignore_errors=True)


class Page:
    """A tab with a storage of its own."""

    def __init__(self, browser):
        self.browser = browser
        self.faults, self.requests, self.expected, self.origin = [], [], set(), None
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.size(1440, 900)
        self.dark(False)

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def on_event(self, method, params):
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.faults.append("exception: %s" % details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.faults.append("console: %s" % [a.get("value", a.get("description")) for a in params["args"]])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            if entry["source"] != "network":             # those are judged by their status
                self.faults.append("%s: %s" % (entry["source"], entry["text"]))
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            self.requests.append(url)
            if self.origin and not url.startswith((self.origin + "/", "data:", "about:")):
                self.faults.append("a request to another origin: " + url)
        elif method == "Network.responseReceived":
            status = params["response"]["status"]
            if status >= 400 and status not in self.expected:
                self.faults.append("%d for %s" % (status, params["response"]["url"]))

    def expect_status(self, *statuses):
        self.expected |= set(statuses)

    def close(self):
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)
        self.browser.pages.pop(self.session, None)

    # ---- eyes

    def js(self, expression):
        got = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise AssertionError("%s: %s" % (expression, got["exceptionDetails"].get("exception", {}).get("description")))
        return got["result"].get("value")

    def until(self, expression, timeout=TIMEOUT, message=None):
        end = time.monotonic() + timeout
        while True:
            value = self.js(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError("%s; it is %r; faults: %s" % (message or expression, value, self.faults))
            time.sleep(0.02)

    def text(self, selector):
        return self.js("(e => e && e.innerText)(document.querySelector(%s))" % json.dumps(selector))

    def see(self, selector, text, timeout=TIMEOUT):
        self.until("(document.querySelector(%s)?.innerText ?? '').includes(%s)" % (json.dumps(selector), json.dumps(text)),
                   timeout, "%r is not seen in %s, but %r" % (text, selector, self.text(selector)))

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    # ---- where it is seen

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def dark(self, on):
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if on else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}])

    def before(self, script):
        """Runs in every document of this page before its own scripts."""
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    # ---- hands

    def goto(self, url):
        self.origin = "/".join(url.split("/")[:3])
        self.call("Page.navigate", url=url)
        self.until("document.readyState == 'complete' && location.href.startsWith(%s)" % json.dumps(url))

    def focus(self, selector):
        self.js("document.querySelector(%s).focus()" % json.dumps(selector))

    def click(self, selector):
        box = self.until("""(e => {
            if (!e || e.disabled) return null;
            e.scrollIntoView({block: 'center', behavior: 'instant'});
            const r = e.getBoundingClientRect();
            return r.width > 0 ? [r.x + r.width / 2, r.y + r.height / 2] : null;
        })(document.querySelector(%s))""" % json.dumps(selector), message="nothing to click at " + selector)
        for kind in "mouseMoved", "mousePressed", "mouseReleased":
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1],
                      button="none" if kind == "mouseMoved" else "left", clickCount=0 if kind == "mouseMoved" else 1)

    def press(self, keys):
        *shift, name = keys.split("+") if len(keys) > 1 else [keys]
        code, number, text = KEYS[name]
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=code, windowsVirtualKeyCode=number,
                      modifiers=8 if shift else 0, **({"text": text} if text and kind == "keyDown" else {}))

    def type(self, text):
        for i, line in enumerate(text.split("\n")):
            if i:
                self.press("Enter")
            self.call("Input.insertText", text=line)

    def focused(self):
        """What has the focus: its id, or its text."""
        return self.js("(e => e.id || e.name && e.name + '=' + e.value || e.textContent.trim())(document.activeElement)")
