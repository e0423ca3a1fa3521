"""A browser for tests of pages: Chromium if it is installed, else QtWebEngine from `make .venv-browser/.ready`."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QT = ROOT / ".venv-browser" / "bin" / "python"
needs_browser = pytest.mark.skipif(
    not CHROMIUM and not QT.exists(), reason="no Chromium on this machine; `make test-browser` installs one"
)


def picture(page: Path, out: Path, width: int, height: int = 3000) -> Path:
    """``page`` as a PNG in a window of that size, in pixels."""
    if not CHROMIUM:
        return _qt(page, out, "picture", width, height)
    # Chromium's own window is at least 500 pixels wide; a frame can be as narrow as a phone.
    frame = out.with_suffix(".html")
    style = f'style="border:0" width={width} height={height}'
    frame.write_text(f'<body style="margin:0"><iframe src="{page.as_uri()}" {style}>', encoding="utf-8")
    _chromium(frame, out.parent, f"--window-size={max(width, 500)},{height}", f"--screenshot={out}")
    return out


def pdf(page: Path, out: Path) -> Path:
    """``page`` as it is printed."""
    if not CHROMIUM:
        return _qt(page, out, "pdf")
    _chromium(page, out.parent, "--no-pdf-header-footer", f"--print-to-pdf={out}")
    return out


def dom(page: Path, folder: Path, width: int) -> str:
    """``page`` as HTML, after its scripts have run."""
    if not CHROMIUM:
        return _qt(page, folder / "dom.html", "dom", width).read_text(encoding="utf-8")
    return _chromium(page, folder, f"--window-size={width},800", "--dump-dom")


def _chromium(page: Path, folder: Path, *arguments: str) -> str:
    """Chromium without a window and without the network."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder}/profile", *arguments, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def _qt(page: Path, out: Path, kind: str, width: int = 1280, height: int = 800) -> Path:
    job = {"url": page.as_uri(), "width": width, "height": height, kind: str(out)}
    asked = out.with_suffix(".json")
    asked.write_text(json.dumps(job), encoding="utf-8")
    ran = subprocess.run(
        [QT, Path(__file__).with_name("qt_page.py"), asked], capture_output=True, text=True, timeout=150
    )
    assert ran.returncode == 0 and out.exists(), ran.stderr
    return out
