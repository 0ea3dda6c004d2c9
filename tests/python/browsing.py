"""A browser without a window, for tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HUNG_S = 60.0
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1600,1200"),
]

T = TypeVar("T")


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """Chromium with a profile of its own; :class:`FileNotFoundError` where there is none."""
    try:
        from selenium import webdriver
    except ImportError as absent:
        raise FileNotFoundError(str(absent)) from absent
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise FileNotFoundError("no chromium, or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


class Page:
    """What a page shows, read as somebody does who waits until it shows it."""

    def __init__(self, chrome: Chrome) -> None:
        self.chrome = chrome

    def texts(self, selector: str) -> list[str]:
        """The text of each element, in one look: rows may change between two."""
        script = "return [...document.querySelectorAll(arguments[0])].map(it => it.innerText)"
        found: list[str] = self.chrome.execute_script(script, selector)
        return found

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return len(self.texts(selector))

    def until(self, read: Callable[[Page], T], is_right: Callable[[T], bool]) -> T:
        """What is read once it is right."""
        from selenium.webdriver.support.wait import WebDriverWait

        last: list[T] = []

        def look(_: Chrome) -> bool:
            last[:] = [read(self)]
            return is_right(last[0])

        WebDriverWait(self.chrome, HUNG_S, 0.05).until(look, f"it showed {last}")
        return last[0]

    def until_text(self, selector: str, *wanted: str) -> None:
        """Until the elements' texts are these."""
        self.until(lambda page: page.texts(selector), lambda texts: texts == list(wanted))
