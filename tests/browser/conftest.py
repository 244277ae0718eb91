"""A real Chromium without a window, with a profile of its own; nothing of it is left after the tests."""

import os
import shutil
from pathlib import Path

import psutil
import pytest

FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "hide-scrollbars",
)


class Page:
    """A page in the browser."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, *, width=1120, height=900, dark=False, scale=1, mobile=False):
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(Path(path).as_uri())
        assert self.script("return document.documentElement.dataset.ready") == "yes", self.console()
        self.settle()
        return self

    def settle(self):
        """Wait until what was asked for is drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def script(self, text, *arguments):
        return self.driver.execute_script(text, *arguments)

    def console(self):
        """Return what the browser has complained of since it was last asked."""
        return [(entry["level"], entry["message"]) for entry in self.driver.get_log("browser")]

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector):
        return [element.text for element in self.all(selector)]

    def hover(self, selector, x, y):
        """Move the mouse to a place in an element, from its upper left corner on."""
        element = self.all(selector)[0]
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.settle()
        left, top = self.script(
            "const box = arguments[0].getBoundingClientRect(); return [box.left, box.top]", element
        )
        self.mouse("mouseMoved", left + x, top + y)

    def mouse(self, kind, x, y, **more):
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})
        self.settle()

    def focus(self, selector):
        self.script("arguments[0].focus()", self.all(selector)[0])
        self.settle()  # it is scrolled to, which hides what is shown beside the mouse

    def press(self, *keys):
        for key in keys:
            for kind in ("keyDown", "keyUp"):
                self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key})
        self.settle()

    @property
    def tip(self):
        """What the box that follows the mouse says, ``None``: it is not shown."""
        return self.script("const tip = document.getElementById('tip'); return tip.hidden ? null : tip.innerText")

    def colour(self, selector, what="background-color"):
        return self.all(selector)[0].value_of_css_property(what)

    def pixel(self, x, y):
        """Return the colour of the canvas at a place."""
        return self.script(
            "const copy = document.createElement('canvas'), pen = copy.getContext('2d'), scale = devicePixelRatio;"
            "pen.drawImage(document.querySelector('canvas'), -arguments[0] * scale, -arguments[1] * scale);"
            "return [...pen.getImageData(0, 0, 1, 1).data]",
            x,
            y,
        )


@pytest.fixture(scope="session")
def driver(nothing_left, tmp_path_factory):
    """Return a driver of the browser."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    assert all(found.values()), f"not all are installed: {found}; apt-get install chromium chromium-driver"
    profile = tmp_path_factory.mktemp("profile")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    homes = dict.fromkeys(
        ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(profile)
    )  # it leaves folders there too
    made = webdriver.Chrome(options=options, service=Service(found["chromedriver"], env={**os.environ, **homes}))
    ours = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    yield made
    made.quit()
    shutil.rmtree(profile)
    _, alive = psutil.wait_procs(ours, timeout=10)
    assert alive == []


@pytest.fixture
def page(driver):
    """Return the browser's page; whatever it complains of is a failure."""
    made = Page(driver)
    made.console()
    yield made
    assert made.console() == []
