"""Links that nobody writes by hand: chapters, equations, exercises, algorithms, glossary terms.

Texts say "chapter 7", "equations 4 and 5 of chapter 2", "exercise 3", "algorithm 1.2" or use a word
of the glossary, plainly, so that notebooks read well on Colab too. Here those words become links:
never inside links, headings, code and formulas, and never to what is not (yet) in the book. Of a
glossary term a page links the first use.

An equation is found by its ``\\tag{3}``, an exercise and an algorithm by the heading, or the bold
words at the beginning of a paragraph, that name it; each gets an anchor.
"""

import hashlib
import itertools
import json
import re
from html import escape, unescape

from docutils import nodes

CHAPTER_PAGE = re.compile(r"notebooks/(\d\d)_")
TAG = re.compile(r"\\tag\*?\{(\d+[a-z]?)\}")
NUMBERED = re.compile(r"()(\d+)\. ")
NAMED = re.compile(r"(Exercise|Algorithm)\s+(\d+(?:\.\d+)?)\b")

NUMBER = r"(?:\(\d+[a-z]?\)|\d+(?:\.\d+)?[a-z]?(?![\w%]|\.\d))"
REFERENCE = re.compile(
    rf"\b(?P<kind>chapter|equation|exercise|algorithm)(?P<many>s?)\s"
    rf"(?P<first>{NUMBER})(?P<more>(?:(?:,\sand\s|,\sor\s|,\s|\sand\s|\sor\s|\sto\s|\u2013)(?:{NUMBER}))*)"
    rf"(?P<scope>(?:\sof|,)?\schapter\s(?P<of>\d+)\b)?",
    re.IGNORECASE,
)
# "chapter 5's equation 3", "chapter 5, equation 3"
OWNER = re.compile(r"\bchapter\s(\d+)(?:['\u2019]s|,)\s$", re.IGNORECASE)

SENTENCE = re.compile(r"(?:^|[.:?!|]\s)[\"(\u201c\u2018]?$")
# What is no running text.
NOT_IN = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.title,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.comment,
    nodes.rubric,
    nodes.image,
    nodes.label,
    nodes.term,
)
# Pages whose own words are the entries: no term is linked there.
WITHOUT_TERMS = ("book/appendix/glossary", "book/appendix/api", "book/notation")
# Words of the glossary that are also everyday words, or that every page begins with.
COMMON = {
    "accuracy",
    "activation",
    "claim",
    "control",
    "domain",
    "expert",
    "gate",
    "gradient",
    "loss",
    "metric",
    "objective",
    "spread",
    "stem",
    "task",
}
LONGEST = 200  # characters of a definition that a link shows when it is pointed at


def index(env) -> dict:
    """Page -> its anchors: kind -> number -> id. Kept with Sphinx's environment."""
    if not hasattr(env, "course_anchors"):
        env.course_anchors, env.course_terms, env.course_digest = {}, {}, ""
    return env.course_anchors


def purge(app, env, docname):
    index(env).pop(docname, None)
    env.course_terms.pop(docname, None)


def anchor(node, name: str) -> str:
    """The id of a node, which gets one if need be."""
    if name not in node["ids"]:
        node["ids"].append(name)
    return name


def collect(app, doctree):
    """Give equations, exercises and algorithms their anchors, and remember them."""
    anchors = {"equation": {}, "exercise": {}, "algorithm": {}}
    for block in doctree.findall(nodes.math_block):
        for number in TAG.findall(block.astext()):
            anchors["equation"].setdefault(number, anchor(block, f"equation-{number}"))
    for title in doctree.findall(nodes.title):
        match = NAMED.match(title.astext())
        if match and isinstance(title.parent, nodes.section):
            kind, number = match[1].lower(), match[2]
            anchors[kind].setdefault(number, title.parent["ids"][0])
    for words in doctree.findall(nodes.strong):
        before = words.parent.children[: words.parent.index(words)]
        first = isinstance(words.parent, nodes.paragraph) and not any(b.astext() for b in before)
        match = NAMED.match(words.astext())
        if not match and first and under_exercises(words):
            match = NUMBERED.match(words.astext())
        if match and match[2] not in anchors[match[1].lower() or "exercise"]:
            kind, number = match[1].lower() or "exercise", match[2]
            name = f"{kind}-{number.replace('.', '-')}"
            anchors[kind][number] = anchor(words.parent if first else words, name)
    env = app.env
    index(env)[env.docname] = anchors
    env.course_terms[env.docname] = {
        id: meaning(item)
        for item in doctree.findall(nodes.definition_list_item)
        for term in item.findall(nodes.term)
        for id in term["ids"]
    }


def under_exercises(node) -> bool:
    """Whether a node stands in a section of exercises, where bold numbers name them."""
    while node is not None and not isinstance(node, nodes.section):
        node = node.parent
    return node is not None and node.children[0].astext().startswith("Exercise")


def meaning(item) -> str:
    """A definition's words, without the Chinese ones before them, cut at the end of a word."""
    definition = next(iter(item.findall(nodes.definition)), None)
    text = " ".join(definition.astext().split()) if definition else ""
    text = re.sub(r"^[^.]*[\u3400-\u9fff][^.]*\.\s*", "", text)
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " …"


def merge(app, env, docnames, other):
    index(env), index(other)
    for docname in docnames:
        env.course_anchors[docname] = other.course_anchors.get(docname, {})
        env.course_terms[docname] = other.course_terms.get(docname, {})


def targets(env) -> dict:
    """All that can be linked; its digest says whether pages must be written again."""
    return {
        "anchors": {page: index(env)[page] for page in sorted(index(env))},
        "terms": {page: env.course_terms[page] for page in sorted(env.course_terms)},
        "pages": sorted(env.found_docs),
    }


def rewrite_all(app, env):
    digest = hashlib.sha256(json.dumps(targets(env), sort_keys=True).encode()).hexdigest()
    unchanged, env.course_digest = env.course_digest == digest, digest
    return [] if unchanged else list(env.found_docs)


def chapters(env) -> dict[int, str]:
    """Number of a chapter -> its page, for those that are in the book."""
    pages = {page: CHAPTER_PAGE.match(page) for page in env.found_docs}
    return {int(match[1]): page for page, match in pages.items() if match}


def surfaces(term: str) -> list[str]:
    """How a term of the glossary appears in a text; nothing for one that says too little.

    "floating-point operations (FLOPs)" appears as either; "bias (of an estimate)" is not linked,
    because most biases are others.
    """
    match = re.fullmatch(r"(.+?) \((.+)\)", term)
    if match:
        return [match[1], match[2]] if re.search(r"[A-Z]{2}", match[2]) else []
    return [] if term in COMMON else [term]


def spaced(words: str) -> str:
    """The pattern of some words, which a line may break."""
    return r"\s".join(re.escape(word) for word in words.split(" "))


class Terms:
    """The glossary as one pattern, the longest term first."""

    def __init__(self, env):
        self.found = {}  # surface, as the pattern gives it -> (page, id)
        for name, kind, page, id in glossary(env):
            if kind == "term":
                self.found |= dict.fromkeys(surfaces(name), (page, id))
        ordered = sorted(self.found, key=len, reverse=True)
        words = "|".join(self.word(surface) for surface in ordered)
        self.pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w+-])") if ordered else None

    @staticmethod
    def word(surface: str) -> str:
        """The pattern of a term: in the plural too, and with a capital where a sentence begins."""
        if re.search(r"[A-Z]", surface):  # a name, such as MAML or Gram matrix
            return spaced(surface) + r"s?"
        first, rest = surface[0], surface[1:]
        plural = r"(?:s|es)?"
        if rest.endswith("y"):
            rest, plural = rest[:-1], r"(?:y|ies)"
        return f"[{first}{first.upper()}]{spaced(rest)}{plural}"

    def of(self, words: str, begins: bool):
        """(page, id) of the term that a match shows; it may begin a sentence."""
        words = " ".join(words.split())
        for shown in (words, words[0].lower() + words[1:])[: 1 + begins]:
            for form in (shown, shown[:-1], shown[:-2], shown[:-3] + "y"):
                if form in self.found:
                    return self.found[form]
        return None


def glossary(env):
    """(name, kind, page, id) of what the glossary defines."""
    for name, _, kind, page, id, _ in env.get_domain("std").get_objects():
        yield name, kind, page, id


class Linker:
    """Turns the texts of one page into texts and links."""

    def __init__(self, app, docname: str, terms: Terms):
        self.app, self.env, self.docname = app, app.env, docname
        self.chapters = chapters(app.env)
        self.terms = None if docname.startswith(WITHOUT_TERMS) else terms.pattern and terms
        self.linked = set()  # terms

    def link(self, page: str, id: str, words: str, kind: str, title: str = ""):
        address = f"#{id}"
        if page != self.docname:
            address = self.app.builder.get_relative_uri(self.docname, page) + (
                f"#{id}" if id else ""
            )
        node = nodes.reference("", "", internal=True, refuri=address, classes=[f"to-{kind}"])
        if title:
            node["reftitle"] = title
        node += nodes.Text(words)
        return node

    def numbers(self, match, before: str) -> list[tuple[int, int, str, str]]:
        """(start, end, page, id) of each number in a match that leads somewhere."""
        kind, text = match["kind"].lower(), match.string
        owner = OWNER.search(before)
        chapter = match["of"] or (owner and owner[1])
        page = self.chapters.get(int(chapter)) if chapter else self.docname
        places = [(match.start("first"), match["first"])]
        if match["more"] and match["many"]:
            begin = match.start("more")
            places += [
                (begin + number.start(), number[0]) for number in re.finditer(NUMBER, match["more"])
            ]
        links = []
        for place, (start, shown) in enumerate(places):
            number, end = shown.strip("()"), start + len(shown)
            if kind == "chapter":
                target = self.chapters.get(int(number)) if number.isdigit() else None
                found = (target, "") if target and target != self.docname else None
            elif kind == "algorithm":
                found = self.algorithm(number)
            else:
                id = index(self.env).get(page, {}).get(kind, {}).get(number) if page else None
                found = (page, id) if id else None
            if found:  # the first link takes its word along: a digit alone is hard to hit
                links.append((match.start() if place == 0 else start, end, *found))
        of = match["of"] and self.chapters.get(int(match["of"]))
        if of and of != self.docname and links and kind in ("equation", "exercise"):
            start = text.lower().index("chapter", match.start("scope"))
            links.append((start, match.end("scope"), of, ""))
        return links

    def algorithm(self, number: str):
        for page, anchors in index(self.env).items():
            if number in anchors["algorithm"]:
                return page, anchors["algorithm"][number]
        return None

    def spans(self, text: str, within=(), in_table: bool = False) -> list:
        """(start, end, node) of the links in a text, in order, none over another.

        None leads to an id that the text is `within`.
        """
        found = []
        for match in REFERENCE.finditer(text):
            for start, end, page, id in self.numbers(match, text[: match.start()]):
                if page == self.docname and id in within:
                    continue
                kind = match["kind"].lower()
                node = self.link(page, id, text[start:end], kind if id else "chapter")
                found.append((start, end, node))
        if self.terms:
            for match in self.terms.pattern.finditer(text):
                begins = SENTENCE.search(text[: match.start()]) is not None and not in_table
                target = self.terms.of(match[0], begins)
                over = any(start < match.end() and match.start() < end for start, end, _ in found)
                if target is None or target in self.linked or over:
                    continue
                self.linked.add(target)
                page, id = target
                title = self.env.course_terms.get(page, {}).get(id, "")
                node = self.link(page, id, match[0], "term", title)
                found.append((match.start(), match.end(), node))
        return sorted(found, key=lambda span: span[0])

    def replace(self, node):
        text, parts, end, within, in_table = node.astext(), [], 0, set(), False
        above = node.parent
        while above is not None and not isinstance(above, nodes.section):
            within |= set(above.get("ids", ()))
            in_table |= isinstance(above, nodes.entry)
            above = above.parent
        for start, stop, link in self.spans(text, within, in_table):
            parts += [nodes.Text(text[end:start])] if start > end else []
            parts.append(link)
            end = stop
        if parts:
            parts += [nodes.Text(text[end:])] if end < len(text) else []
            node.parent.replace(node, parts)

    def replace_in_html(self, html: str) -> str:
        """The same for an option of a quiz, which is HTML; terms are left alone there."""
        terms, self.terms, closes, parts = self.terms, None, "", []
        for part in re.split(r"(<[^>]*>)", html):
            tag = re.match(r"<(/?)(summary|a|code|pre|h\d|svg)\b", part)
            if tag and not closes and not tag[1]:
                closes = tag[2]
            elif tag and tag[1] and tag[2] == closes:
                closes = ""
            if part.startswith("<") or closes:
                parts.append(part)
                continue
            text, end = unescape(part), 0
            for start, stop, link in self.spans(text):
                address, words = escape(link["refuri"]), escape(link.astext(), quote=False)
                kind = f"{' '.join(link['classes'])} reference internal"
                parts.append(escape(text[end:start], quote=False))
                parts.append(f'<a class="{kind}" href="{address}">{words}</a>')
                end = stop
            parts.append(escape(text[end:], quote=False) if end else part)
        self.terms = terms
        return "".join(parts)


def in_running_text(node) -> bool:
    """Whether a text is one to read, and not a link, a heading, code or a formula."""
    inside = False
    while node.parent is not None:
        node = node.parent
        if isinstance(node, NOT_IN) or "toctree-wrapper" in node.get("classes", ()):
            return False
        inside |= isinstance(node, nodes.paragraph | nodes.caption | nodes.entry | nodes.line)
    return inside


def is_output(node) -> bool:
    """Whether a node is what a cell showed."""
    while node is not None:
        if node.get("nb_element", "") == "cell_code_output" if hasattr(node, "get") else False:
            return True
        node = node.parent
    return False


def join_lines(doctree):
    """Make one text of texts that follow each other: MyST ends one at each line of the source."""
    parents = {id(node.parent): node.parent for node in doctree.findall(nodes.Text) if node.parent}
    for parent in parents.values():
        if any(
            isinstance(a, nodes.Text) and isinstance(b, nodes.Text)
            for a, b in itertools.pairwise(parent.children)
        ):
            runs = itertools.groupby(parent.children, lambda node: isinstance(node, nodes.Text))
            children = []
            for texts, run in runs:
                run = list(run)
                children += [nodes.Text("".join(text.astext() for text in run))] if texts else run
            parent.children = []
            parent.extend(children)


def make_links(app, doctree, docname):
    if app.builder.format != "html":
        return
    if getattr(app, "course_terms_of", None) != id(app.env):
        app.course_pattern, app.course_terms_of = Terms(app.env), id(app.env)
    linker = Linker(app, docname, app.course_pattern)
    for reference in doctree.findall(nodes.reference):  # what an author has linked by hand
        page, _, name = reference.get("refuri", "").partition("#")
        if name and page.endswith("glossary.html"):
            linker.linked.add(("book/appendix/glossary", name))
    join_lines(doctree)
    for node in [node for node in doctree.findall(nodes.Text) if in_running_text(node)]:
        linker.replace(node)
    for node in list(doctree.findall(nodes.raw)):
        if "html" in node["format"] and "</details>" in node.astext() and not is_output(node):
            html = linker.replace_in_html(node.astext())
            node.replace_self(nodes.raw("", html, **node.attributes))


def setup(app):
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("doctree-read", collect)
    app.connect("env-updated", rewrite_all)
    app.connect("doctree-resolved", make_links, priority=800)  # after Sphinx's own references
    return {"version": "1", "env_version": 1, "parallel_read_safe": True}
