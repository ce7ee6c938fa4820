"""An HTML page as its parser sees it: elements, ids, links, addresses; for pages that must need no network."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "source", "br", "input", "hr", "base"}
ADDRESSES = {
    "src",
    "srcset",
    "href",
    "action",
    "formaction",
    "data",
    "poster",
    "background",
    "cite",
    "ping",
    "xlink:href",
}


class HtmlPage(HTMLParser):
    """`tags` in order, each with its attributes; `text` of all; raises AssertionError where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of each element of that name."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """All that a browser could fetch or go to, with the attribute's name."""
        return [(name, value) for _, attributes in self.tags for name, value in attributes.items() if name in ADDRESSES]
