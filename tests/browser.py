"""Chromium without a window, for pages that a person uses: on PATH, or where `deploy/system.sh browser` puts it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.common.exceptions import TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from tests.programs import LIBRARIES, SYSTEM, program

PATIENCE_S = 30.0


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go to a page."""
        self.driver.get(url)

    def see(self, xpath: str) -> WebElement:
        """What a person looks for, once it is there."""
        return self._once(expected_conditions.visibility_of_element_located((By.XPATH, xpath)), xpath)

    def text(self) -> str:
        """All that the page says."""
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def says(self, words: str) -> None:
        """Wait until the page says this."""
        self._once(lambda _: words in self.text(), words)

    def _once(self, holds: Callable[[Chrome], Any], what: str) -> Any:
        """What holds in the end; an AssertionError says what is on the page instead."""
        try:
            return WebDriverWait(self.driver, PATIENCE_S).until(holds)
        except TimeoutException:
            raise AssertionError(f"{what!r} is not on {self.driver.current_url}: {self.text()[:3000]}") from None


@contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """A browser that keeps what it keeps in `home`."""
    found, options = program("chromedriver", "deploy/system.sh browser"), ChromeOptions()
    if Path(found).is_relative_to(SYSTEM):
        options.binary_location = str(SYSTEM / "lib" / "chromium" / "chromium")
    for one in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,1200"):
        options.add_argument(one)
    around = {**os.environ, "HOME": str(home), "LD_LIBRARY_PATH": f"{LIBRARIES}:{LIBRARIES / 'pulseaudio'}"}
    driver = Chrome(options, Service(found, env=around))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
