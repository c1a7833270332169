"""A page taken apart: its elements, its words, and its forms as a browser without scripts would send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

INLINE = {"a", "b", "code", "span", "time", "abbr"}
VOID = {"input", "meta", "link", "br", "img", "hr", "option", "line", "rect", "circle", "path"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: list[str]
    text: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)


@dataclass
class Form:
    method: str
    action: str
    fields: list[tuple[str, str]]
    buttons: list[str]
    elements: list[Element]

    def filled(self, **changed: str | list[str] | None) -> list[tuple[str, str]]:
        """What is sent: the values as they stand, but for those named here; None leaves a field out."""
        told = [(name, value) for name, value in self.fields if name not in changed]
        for name, value in changed.items():
            if value is not None:
                told += [(name, one) for one in ([value] if isinstance(value, str) else value)]
        return told


class Page(HTMLParser):
    """
    Args:
        text: of the page.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.forms: list[Form] = []
        self._open: list[Element] = []
        self._form: Form | None = None
        self._select: list[tuple[str, str, bool]] | None = None
        self._area: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        element = Element(tag, told, [one.tag for one in self._open])
        if tag not in INLINE:
            self.handle_space()
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)
        if tag == "form":
            self._form = Form(told.get("method", "get"), told.get("action", ""), [], [], [])
            self.forms.append(self._form)
        if self._form is None:
            return
        self._form.elements.append(element)
        name = told.get("name")
        if tag == "input" and name:
            if told.get("type") in ("checkbox", "radio"):
                if "checked" in told:
                    self._form.fields.append((name, told.get("value", "on")))
            elif told.get("type") != "file":
                self._form.fields.append((name, told.get("value", "")))
        elif tag == "select" and name:
            self._select = []
        elif tag == "option" and self._select is not None:
            self._select.append((self._last("select"), told.get("value", ""), "selected" in told))
        elif tag == "textarea" and name:
            self._area = []

    def _last(self, tag: str) -> str:
        return next(e.attributes["name"] for e in reversed(self._open) if e.tag == tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if self._form is not None and tag == "select" and self._select:
            chosen = [one for one in self._select if one[2]] or self._select[:1]
            self._form.fields.append((chosen[0][0], chosen[0][1]))
            self._select = None
        if self._form is not None and tag == "textarea" and self._area is not None:
            self._form.fields.append((self._last("textarea"), "".join(self._area)))
            self._area = None
        if tag == "form":
            self._form = None
        while self._open:
            if self._open.pop().tag == tag:
                break

    def handle_space(self) -> None:
        for element in self._open:
            element.text.append(" ")

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text.append(data)
        if self._area is not None:
            self._area.append(data)

    def every(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def form(self, action: str) -> Form:
        found = [form for form in self.forms if form.action.split("?")[0].endswith(action)]
        assert found, f"no form leads to {action}: {[form.action for form in self.forms]}"
        return found[0]

    @property
    def words(self) -> str:
        return next(element for element in self.elements if element.tag == "main").words
