"""Shows a page in QtWebEngine, which is Chromium from a package mirror: `python qt_page.py job.json`; no test.

A job: ``url``, ``width``, ``height``, and where to write a ``picture``, a ``pdf`` or the ``dom``; each may be left out.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_DISABLE_SANDBOX": "1"}
os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = "--disable-gpu"

from PySide6.QtCore import QEventLoop, QTimer, QUrl
from PySide6.QtWebEngineCore import QWebEngineSettings
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

AT_MOST = 100_000  # ms a step; a test gives up later


def wait(start, signal=None):
    """Call ``start(done)`` and return what ``done`` (or ``signal``) is called with."""
    loop, answers = QEventLoop(), []

    def done(answer=None, *_):
        answers.append(answer)
        loop.quit()

    if signal is not None:
        signal.connect(done)
    QTimer.singleShot(AT_MOST, loop.quit)
    start(done)
    if not answers:
        loop.exec()
    assert answers, "the page did not answer"
    return answers[0]


def show(job):
    view = QWebEngineView()
    view.resize(job["width"], job["height"])
    view.settings().setAttribute(QWebEngineSettings.WebAttribute.ShowScrollBars, False)
    view.show()
    assert wait(lambda done: view.setUrl(QUrl(job["url"])), view.loadFinished), f"{job['url']} cannot be loaded"
    wait(lambda done: QTimer.singleShot(1000, done))  # Qt paints behind the load's back
    if "picture" in job:
        view.grab().save(job["picture"])
    if "pdf" in job:
        wait(lambda done: view.page().printToPdf(job["pdf"]), view.page().pdfPrintingFinished)
    if "dom" in job:
        Path(job["dom"]).write_text(wait(lambda done: view.page().toHtml(done)), encoding="utf-8")


app = QApplication(sys.argv[:1])
show(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
