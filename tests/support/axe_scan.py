"""What axe-core finds wrong with a page, as lines a person can act on."""

from __future__ import annotations

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

# The rest says the same in both colour schemes.
OF_COLOURS = ["color-contrast", "link-in-text-block"]

_RUN = """async ([leftOut, rules]) => {
  const options = {resultTypes: ["violations"], preload: false, iframes: false};
  if (rules) options.runOnly = {type: "rule", values: rules};
  const {violations} = await axe.run({exclude: leftOut}, options);
  return violations;
}"""


def findings(
    page: Page, *, leave_out: tuple[str, ...] = (), only_colours: bool = False
) -> list[str]:
    """A line for each element that breaks a rule: rule, impact, help, element, and what is wrong.

    axe is evaluated by the browser's own debugger, so the page's content security policy stays.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    rules = OF_COLOURS if only_colours else None
    found = page.evaluate(_RUN, [[[selector] for selector in leave_out], rules])
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}\n"
        f"  {' '.join(map(str, node['target']))}\n  {node['html'][:300]}\n  {_reasons(node)}"
        for rule in found
        for node in rule["nodes"]
    ]


def _reasons(node: dict) -> str:
    checks = [*node["any"], *node["all"], *node["none"]]
    return "; ".join(check["message"] for check in checks)
