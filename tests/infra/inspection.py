"""A look at a page as anybody may meet it: by axe, light and dark, at any width and size of text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Response

from tests.infra.chromium import Person

AXE = "axe-core@4.14.1"
MOST_BYTES = 100_000
NARROWEST = 320
ALL_LOOKS = (("light", 1440), ("dark", 1440), ("dark", 390), ("light", 390))
ONE_LOOK = ALL_LOOKS[:1]
ALL_RULES = "{}"
COLOURS = '{runOnly: ["color-contrast"]}'
"""In the dark, where a page differs from itself by its colours."""
RUN = """axe.run(document, {...%s, resultTypes: ["violations"]}).then((found) => found.violations.map(
  (one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`))"""
WIDER = """(() => { const page = document.documentElement;
  if (page.scrollWidth <= page.clientWidth) return "";
  const sticksOut = (e) => e.getBoundingClientRect().right > page.clientWidth + 1;
  const wide = [...document.body.querySelectorAll("*")].filter(sticksOut);
  const first = wide.slice(0, 3).map((e) => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 30)}`);
  return `${page.scrollWidth - page.clientWidth} px: ${first.join("; ")}`; })()"""
"""What makes a page scroll sideways; empty where it does not."""
TOLD = (
    "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective, e.blockedURI), true)"
)


class Inspector:
    """One tab for all pages, because a new one for each costs more than the look at it."""

    def __init__(self, person: Person, origin: str, axe: Path) -> None:
        self.person = person
        self.page: Page = person.tab()
        self._axe = axe.read_text(encoding="utf-8")
        # As the browser's own tools run it: not by the page's policy, under which nothing foreign runs.
        self._tools = self.page.context.new_cdp_session(self.page)
        self._elsewhere: list[str] = []
        self.page.add_init_script(TOLD)
        self.page.on("request", lambda request: self._asked(request.url, origin))

    def _asked(self, url: str, origin: str) -> None:
        if not url.startswith((origin, "data:")):
            self._elsewhere.append(url)

    def _run(self, expression: str) -> Any:
        wanted = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        return self._tools.send("Runtime.evaluate", wanted)["result"].get("value")

    def look(
        self, url: str, *, status: int = 200, looks: Sequence[tuple[str, int]] = ALL_LOOKS, most_bytes: int = MOST_BYTES
    ) -> dict[str, Any]:
        """Open a page and return what is wrong with it; empty where nothing is."""
        self.person.complaints.clear()
        self._elsewhere.clear()
        answer = self.page.goto(url)
        assert isinstance(answer, Response)
        wrong: dict[str, Any] = {}
        if answer.status != status:
            wrong["status"] = answer.status
        if (size := len(answer.body())) > most_bytes:
            wrong["bytes"] = size
        self._run(self._axe)
        for scheme, width in looks:
            self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
            self.page.set_viewport_size({"width": width, "height": 900})
            if found := self._run(RUN % (COLOURS if scheme == "dark" else ALL_RULES)):
                wrong[f"axe, {scheme}, {width}"] = found
        self.page.set_viewport_size({"width": NARROWEST, "height": 900})
        if sideways := self._run(WIDER):
            wrong[f"scrolls sideways at {NARROWEST}"] = sideways
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self._run("document.documentElement.style.fontSize = '200%'")
        if sideways := self._run(WIDER):
            wrong["scrolls sideways with large text"] = sideways
        # That it answers so is what a browser says of every error page.
        refusal = f"the server responded with a status of {status}"
        if complaints := [one for one in self.person.complaints if status == 200 or refusal not in one]:
            wrong["console"] = complaints
        if self._elsewhere:
            wrong["elsewhere"] = list(self._elsewhere)
        return wrong
