"""Loads one page in QtWebKit and prints what it left in window.__result, on the line that starts with "RESULT ".

    QT_QPA_PLATFORM=offscreen python3 qtwebkit_run.py URL SECONDS [FILE_WITH_SCRIPT_TO_RUN_FIRST]

Runs under the system's own python3, not under ours: the bindings come from a distribution package.
"""

import os
import sys
import time
from pathlib import Path

from PyQt5.QtCore import QTimer, QUrl
from PyQt5.QtWebKit import QWebSettings
from PyQt5.QtWebKitWidgets import QWebPage
from PyQt5.QtWidgets import QApplication

POLL_MILLISECONDS = 50


class Page(QWebPage):
    def javaScriptConsoleMessage(self, message, line, source):
        print(f"CONSOLE {message} ({source}:{line})", flush=True)

    def javaScriptAlert(self, frame, message):
        print("ALERT " + message, flush=True)


def main():
    url, seconds = sys.argv[1], float(sys.argv[2])
    first = Path(sys.argv[3]).read_text(encoding="utf-8") if len(sys.argv) > 3 else ""
    app = QApplication(sys.argv[:1])
    page = Page()
    page.settings().setAttribute(QWebSettings.LocalStorageEnabled, True)
    end = time.monotonic() + seconds
    code = 2

    def prepare(frame):
        if first:
            frame.javaScriptWindowObjectCleared.connect(lambda: frame.evaluateJavaScript(first))

    page.frameCreated.connect(prepare)
    prepare(page.mainFrame())

    def poll():
        nonlocal code
        value = page.mainFrame().evaluateJavaScript("window.__result ? String(window.__result) : ''")
        if value or time.monotonic() > end:
            print("RESULT " + (value or ""), flush=True)
            code = 0 if value else 2
            timer.stop()
            app.quit()

    timer = QTimer()
    timer.timeout.connect(poll)
    timer.start(POLL_MILLISECONDS)
    page.mainFrame().load(QUrl(url))
    app.exec_()
    sys.stdout.flush()
    os._exit(code)  # Qt's own teardown may crash; the answer is already out


main()
