"""The pages in Chromium: with scripts and without, by keys alone, on a phone, in the dark."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from office import PEOPLE, Office, open_office

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STAFF = ("/requests", "/requests?reason=privacy", "/calendar", "/models", "/policy", "/certificates", "/system")

# The least contrast of any text that is seen, with what is behind it: WCAG 2.2, 1.4.3.
CONTRAST = """() => {
  const parse = text => { const m = text.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const over = (a, b) => { const k = a[3]; return [0, 1, 2].map(i => a[i] * k + b[i] * (1 - k)).concat([1]); };
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.map(v => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => {
    const found = [];
    for (let e = element; e; e = e.parentElement) found.push(parse(getComputedStyle(e).backgroundColor));
    const box = element.closest('.node')?.querySelector('rect');
    return (box ? [parse(getComputedStyle(box).fill), ...found] : found)
      .reverse().reduce((below, colour) => over(colour, below), [255, 255, 255, 1]);
  };
  const low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.textContent.trim(), element = walk.currentNode.parentElement;
    if (!text || element.closest('.out, .skip, title, option, datalist')) continue;
    if (!element.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(element), ground = behind(element);
    const ink = over(parse(element.closest('svg') ? style.fill : style.color), ground);
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) low.push(`${ratio.toFixed(2)} ${element.tagName} ${text.slice(0, 40)}`);
  }
  return low;
}"""


@contextmanager
def serving(office: Office) -> Iterator[str]:
    """The pages at an address of this machine."""
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(office.app, log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    assert CHROMIUM is not None, "these tests need Chromium on the path"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Office, str]]:
    """Pages that are only looked at."""
    with open_office(tmp_path_factory.mktemp("seen") / "home") as office:
        office.ids = office.every_state()
        office.worker()
        for n, person in enumerate(PEOPLE[1:], start=1):
            office.file(person, regime=("gdpr", "ccpa", "house")[n % 3], reason="safety",
                        received_at=office.service.clock() - timedelta(days=3 * n))  # fmt: skip
        with serving(office) as address:
            yield office, address


@pytest.fixture
def worked(tmp_path: Path) -> Iterator[tuple[Office, str]]:
    """Pages that are worked with."""
    with open_office(tmp_path / "home") as office, serving(office) as address:
        yield office, address


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens a window; at the end no page may have complained."""
    complaints: list[str] = []
    contexts = []

    def window(address: str, key: str | None = None, **options: Any) -> Any:
        context = chromium.new_context(base_url=address, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(address) or complaints.append(f"asked {asked.url}"))
        if key is not None:
            page.goto("/sign-in")
            page.get_by_label("Key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url("**/requests")
        return page

    yield window
    for context in contexts:
        context.close()
    assert complaints == []


def test_a_filter_changes_the_list_and_the_address_without_loading_the_page(seen: Any, visit: Any) -> None:
    office, address = seen
    page = visit(address, office.key("operator"))
    page.evaluate("window.same = true")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Failed").check()
    page.wait_for_url("**status=failed**")
    assert page.locator("#found tbody tr").count() == 1
    assert page.locator("#summary").inner_text().startswith("1 request matches")
    page.get_by_label("Failed").uncheck()
    page.get_by_label("Breached").check()
    page.wait_for_url("**sla=breached**")
    page.wait_for_function("document.querySelector('#tiles [aria-current]') !== null")
    count = page.locator("#tiles [aria-current] b").inner_text()
    assert page.locator("#found tbody tr").count() == int(count) > 0
    assert page.evaluate("window.same") is True
    page.get_by_label("Id or your reference").fill("ticket/3")
    page.get_by_role("button", name="Find").click()
    page.wait_for_url("**q=ticket**")
    assert page.evaluate("window.same") is True
    page.go_back()
    page.wait_for_function("!location.search.includes('ticket')")
    page.locator("#found tbody tr").first.wait_for()
    assert page.get_by_label("Breached").is_checked()


def test_a_request_is_approved_and_another_denied(worked: Any, visit: Any) -> None:
    office, address = worked
    one, two = office.file(PEOPLE[1]), office.file(PEOPLE[2])
    page = visit(address, office.key("approver"))
    page.get_by_role("link", name=one).click()
    page.locator("summary", has_text="Approve").click()
    page.get_by_role("button", name="Approve").click()
    page.get_by_text("The request is approved.", exact=True).wait_for()
    assert office.bench.status(one) == "approved"
    page.goto(f"/requests/{two}")
    page.locator("summary", has_text="Deny").click()
    page.get_by_role("button", name="Deny").click()  # the browser itself asks for the reason
    assert office.bench.status(two) == "verified"
    page.get_by_role("combobox", name="Reason").select_option(label="Suspected fraud")
    page.get_by_label("Note for the history").fill("<b>same</b> address")
    page.get_by_role("button", name="Deny").click()
    page.get_by_text("The request is denied.", exact=True).wait_for()
    assert "<b>same</b> address" in page.locator(".history").inner_text()
    page.reload()  # nothing is sent again, and nothing is told again
    assert page.get_by_text("The request is denied.", exact=True).count() == 0


def test_many_are_held_after_a_look_at_what_would_happen(worked: Any, visit: Any) -> None:
    office, address = worked
    ids = [office.file(person) for person in PEOPLE[1:5]]
    page = visit(address, office.key("operator"))
    for request_id in ids[:3]:
        page.get_by_label(f"Choose {request_id}").check()
    page.get_by_label("Action").select_option("hold")
    page.get_by_role("button", name="Show what would happen").click()
    page.get_by_role("heading", name="Put on hold: 3 requests?").wait_for()
    assert office.bench.status(ids[0]) == "verified"
    page.get_by_role("textbox", name="Reason").fill("a court has asked")
    page.get_by_role("button", name="Put on hold: 3 requests").click()
    page.get_by_text("3 requests put on hold.").wait_for()
    assert [office.bench.status(one) for one in ids] == ["paused"] * 3 + ["verified"]


def test_a_certificate_is_downloaded_and_checked(seen: Any, visit: Any, tmp_path: Path) -> None:
    office, address = seen
    page = visit(address, office.key("auditor"))
    page.goto(f"/requests/{office.ids['fulfilled']}")
    with page.expect_download() as got:
        page.get_by_role("link", name="Download the certificate of orders, exact").click()
    path = tmp_path / "certificate.json"
    got.value.save_as(path)
    page.get_by_role("link", name="Certificates").click()
    page.get_by_label("The certificate's file").set_input_files(path)
    page.get_by_role("button", name="Check it").click()
    page.get_by_role("heading", name="The certificate holds").wait_for()
    path.write_text(path.read_text().replace('"index": ', '"index": 1'))
    page.get_by_label("The certificate's file").set_input_files(path)
    page.get_by_role("button", name="Check it").click()
    page.get_by_role("heading", name="The certificate does not hold").wait_for()


def test_a_running_request_is_followed_by_itself(worked: Any, visit: Any) -> None:
    office, address = worked
    request_id = office.approved(PEOPLE[1])
    page = visit(address, office.key("operator"))
    page.goto(f"/requests/{request_id}")
    page.locator("summary", has_text="Put on hold").click()
    page.get_by_role("textbox", name="Reason").fill("half a sentence")
    office.service.work.plan_approved()
    page.get_by_text("The request has moved on.").wait_for()
    assert page.locator("#live-head .way .here").inner_text().startswith("Planned")
    page.get_by_role("heading", name="Layers").wait_for()
    assert page.get_by_role("textbox", name="Reason").input_value() == "half a sentence"  # what is being typed stays


def test_by_keys_alone(worked: Any, visit: Any) -> None:
    office, address = worked
    request_id = office.file(PEOPLE[1])
    page = visit(address)
    page.goto("/sign-in")
    page.keyboard.type(office.key("approver"))  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_url("**/requests")
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    reach(page, request_id)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{request_id}")
    reach(page, "Approve")
    page.keyboard.press("Space")
    reach(page, "Approve")
    page.keyboard.press("Enter")
    page.get_by_text("The request is approved.", exact=True).wait_for()
    assert office.bench.status(request_id) == "approved"


def focused(page: Any) -> str:
    """The name of what has the focus, which must be seen and marked."""
    told = page.evaluate("""() => {
      const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
      const marked = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 || e.querySelector('rect') !== null;
      const inside = b.width > 0 && b.bottom > 0 && b.top < innerHeight && b.right > 0 && b.left < innerWidth;
      const name = e.innerText || e.labels?.[0]?.innerText || e.getAttribute('aria-label') || e.value || '';
      return [name, e.tagName, marked, inside];
    }""")
    name, tag, marked, inside = told
    if tag not in ("BODY", "MAIN"):
        assert marked, f"{tag} {name} has the focus and does not show it"
        assert inside, f"{tag} {name} has the focus and is not seen"
    return str(name).strip()


def reach(page: Any, name: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page).splitlines()[:1] == [name]:
            return
    raise AssertionError(f"no key leads to {name}")


def test_every_page_can_be_walked_through_by_keys(seen: Any, visit: Any) -> None:
    office, address = seen
    page = visit(address, office.key("operator"))
    for path in (
        "/requests",
        f"/requests/{office.ids['failed']}",
        "/requests/new",
        "/models",
        "/calendar",
        "/certificates",
    ):
        page.goto(path)
        names = []
        for _ in range(200):
            page.keyboard.press("Tab")
            names.append(focused(page))
            if page.evaluate("document.activeElement === document.body"):
                break
        count = page.evaluate(
            "[...document.querySelectorAll('a[href],button,summary,select,textarea,input:not([type=hidden])')]"
            ".filter(e => e.checkVisibility() && !(e.type === 'radio' && !e.checked)).length"
        )
        assert len(names) - 1 >= count, (path, len(names), count)  # and regions that scroll


@pytest.mark.parametrize("width", [360, 768])
def test_no_page_is_wider_than_the_screen(seen: Any, visit: Any, width: int) -> None:
    office, address = seen
    for role in ("operator", "auditor"):
        page = visit(address, office.key(role), viewport={"width": width, "height": 740})
        for path in every_path(office, role):
            page.goto(path)
            page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (path, wide)
            small = page.evaluate("""() => [...document.querySelectorAll('button,.button,nav a,.tick label,summary')]
              .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).map(e => e.innerText)""")
            assert small == [], (path, small)  # WCAG 2.2, 2.5.8: what is pressed has 24 pixels


def every_path(office: Office, role: str) -> list[str]:
    told = [*STAFF, *(f"/requests/{request_id}" for request_id in office.ids.values())]
    if role == "operator":
        return [*told, "/requests/new", "/models/new", "/requests/many?pick=all&action=hold"]
    return [*told, "/audit"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out(seen: Any, visit: Any, scheme: str) -> None:
    office, address = seen
    page = visit(address, color_scheme=scheme)
    page.goto("/sign-in")
    assert page.evaluate(CONTRAST) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 26)") == (scheme == "dark")
    for role in ("operator", "auditor"):
        page = visit(address, office.key(role), color_scheme=scheme)
        for path in every_path(office, role):
            page.goto(path)
            page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            assert page.evaluate(CONTRAST) == [], path


def test_without_scripts_everything_is_there(worked: Any, visit: Any) -> None:
    office, address = worked
    ids = [office.file(person, reason="safety") for person in PEOPLE[1:4]]
    page = visit(address, office.key("approver"), java_script_enabled=False)
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Safety").check()
    page.get_by_role("button", name="Use this filter").click()
    page.wait_for_url("**reason=safety**")
    page.get_by_label("all 3 that match").check()
    page.get_by_label("Action").select_option("approve")
    page.get_by_role("button", name="Show what would happen").click()
    page.get_by_role("button", name="Approve: 3 requests").click()
    page.get_by_text("3 requests approved.").wait_for()
    page.goto(f"/requests/{ids[0]}")
    page.locator("summary", has_text="Put on hold").click()
    page.get_by_role("textbox", name="Reason").fill("court")
    page.get_by_role("button", name="Put on hold").click()
    page.get_by_text("The request is on hold.", exact=True).wait_for()
    assert [office.bench.status(one) for one in ids] == ["paused", "approved", "approved"]
