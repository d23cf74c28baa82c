"""Make slides of the chapters: ``python -m mtl_course.dev slides [NN ...] [--out FOLDER]``.

A deck is one HTML file beside a copy of the book's MathJax. It is made of what the notebook has
already: the question and the answer in short, drawings, figures, sliders, what its claims say, the
quiz and the take-aways. Nothing is run and nothing is written by hand, so a deck is never behind
its chapter. It needs no network. Arrow keys move through it; in print each slide is a page.

Runs where only ``requirements-book.txt`` is installed.
"""

import argparse
import json
import re
import shutil
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from pathlib import Path

from .. import chapters

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("_build", "slides")
MATHJAX = "tex-svg.js"
COURSE = "Multi-task and transfer learning"
GOALS = re.compile(r"^(?:After this chapter y|Y)ou will be able to\s*$", re.M)
# Sections whose tables are shown: where the method works, and what it is weighed against.
RESULTS = re.compile(r"headline|experiment|comparison|joint, single", re.I)
# A displayed formula, with the paragraph before it where that is short.
FORMULA = re.compile(r"(?:^|\n\n)((?:(?!\n\n)[^$]|\$[^$]+\$)*?)\n*(\$\$.+?\$\$)", re.S)
OPTION = re.compile(r'<details class="(right|wrong)"><summary>(.*?)</summary>(.*?)</details>', re.S)
PER_SLIDE = {"claims": 5, "objective": 2, "exercises": 8, "takeaways": 4}


class SlidesError(Exception):
    """The slides cannot be made here; the message says what to do."""


@dataclass
class Slide:
    """One slide; `body` is HTML, `kind` says what it shows."""

    kind: str
    title: str
    body: str


@dataclass
class Section:
    """What a section of a chapter has, in order.

    `under` is the title of its slides: that of the section above it is part of it, and the slides
    of an exercise are those of the section in which it stands.
    """

    title: str = ""
    under: str = ""
    above: str = ""
    text: list[str] = field(default_factory=list)
    slides: list[Slide] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)


# Markdown


def renderer():
    """Markdown with $formulas$, which MathJax reads between its own marks.

    Raises:
        SlidesError: what the book is built with is not installed.
    """
    try:
        from markdown_it import MarkdownIt
        from mdit_py_plugins.dollarmath import dollarmath_plugin
    except ImportError:
        raise SlidesError(
            "The slides are made with what the book is built with. Run `make slides`, or: pip"
            " install -r requirements-book.txt"
        ) from None

    def formula(content: str, options: dict) -> str:
        marks = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
        return marks[0] + escape(content, quote=False) + marks[1]

    return MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=formula)


class Deck:
    """The slides of one chapter.

    Args:
        chapter: its entry.
        cells: of its notebook, as JSON has them.
    """

    def __init__(self, chapter: chapters.Chapter, cells: list[dict]):
        self.chapter, self.markdown = chapter, renderer()
        self.slides: list[Slide] = []
        front, sections = self.read(cells)
        self.opening(front)
        named = [s for s in sections if re.search(r"objective", s.title, re.I)]
        others = [s for s in sections if r"\tag" in "".join(s.text)]
        for section in sections:
            self.section(section, section in (named or others[:1]))
        self.closing(sections)

    def inline(self, text: str) -> str:
        return self.markdown.renderInline(text)

    def block(self, text: str) -> str:
        return self.markdown.render(text)

    def add(self, kind: str, title: str, body: str) -> None:
        self.slides.append(Slide(kind, title, body))

    def read(self, cells: list[dict]) -> tuple[str, list[Section]]:
        """The first cell's text, and the sections after it."""
        sections = [Section()]
        for cell in cells[1:]:
            if cell["cell_type"] == "markdown":
                # A heading within a listing is none.
                for part in re.split(r"^(?=###? )", source(cell), flags=re.M):
                    heading, _, text = part.partition("\n")
                    if re.match(r"###? ", heading):
                        sections.append(self.begin(heading, sections[-1]))
                    else:
                        text = part
                    sections[-1].text.append(text.strip())
            else:
                self.outputs(cell, sections[-1])
        return source(cells[0]), sections

    def begin(self, heading: str, before: Section) -> Section:
        """The section with this heading, after another."""
        title = heading.lstrip("#").strip()
        if heading.startswith("## "):
            return Section(title, title, title)
        if title.startswith("Exercise "):
            return Section(title, before.under, before.above)
        return Section(title, f"{before.above} \u00b7 {title}", before.above)

    def outputs(self, cell: dict, section: Section) -> None:
        """What a cell shows, into the section's slides and claims."""
        shown = cell.get("metadata", {}).get("mystnb", {})
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            html, png = joined(data.get("text/html", "")), joined(data.get("image/png", ""))
            if "mtl-claim" in html:
                section.claims += re.findall(
                    r'<div class="mtl-claim mtl-good".*?<span class="mtl-title">(.*?)</span></div>',
                    html,
                    re.S,
                )
            elif "mtl-drawing" in html:
                section.slides.append(Slide("drawing", section.under, html))
            elif "mtl-slider" in html:
                section.slides.append(Slide("dial", section.under, html))
            elif "mtl-table" in html and RESULTS.search(section.under):
                section.slides.append(Slide("table", section.under, html))
            elif png:
                alt = escape(shown.get("image", {}).get("alt", ""))
                caption = self.inline(shown.get("figure", {}).get("caption", ""))
                picture = f'<img src="data:image/png;base64,{png.strip()}" alt="{alt}">'
                body = f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
                section.slides.append(Slide("figure", section.under, body))

    def opening(self, front: str) -> None:
        """Title and question; the answer in short; what one will be able to do."""
        question = self.chapter.question
        card = front.split("\n| | |")[0]
        told, goals = GOALS.split(card, maxsplit=1)[0], ""
        if match := GOALS.search(card):
            goals = card[match.end() :].strip()
        answer = re.sub(r"^# .*\n+", "", told).strip()
        answer = re.sub(rf"^\*\*{re.escape(question)}\*\*\s*", "", answer).strip()
        answer = re.sub(r"^(In short|Short answer|The short answer): (\w)", capital, answer)
        self.add("title", self.chapter.heading, f'<p class="question">{escape(question)}</p>')
        self.add("answer", "In short", self.block(answer))
        if goals:
            self.add("goals", "You will be able to", self.block(goals))

    def section(self, section: Section, formulas: bool) -> None:
        """Formulas, in that of the objective; then what was shown, then what was claimed."""
        if section.title.startswith("Quiz"):
            return self.quiz("\n\n".join(section.text))
        if formulas:
            found = FORMULA.findall("\n\n".join(section.text))
            numbered = [(before, tex) for before, tex in found if r"\tag" in tex]
            for part in pieces(numbered or found, PER_SLIDE["objective"]):
                lines = [f"{short(before)}\n\n{tex}" for before, tex in part]
                self.add("objective", section.title, self.block("\n\n".join(lines)))
        self.slides += section.slides
        for part in pieces(section.claims, PER_SLIDE["claims"]):
            items = "".join(f"<li>{claim}</li>" for claim in part)
            self.add("claims", section.under, f'<ul class="held">{items}</ul>')
        return None

    def quiz(self, text: str) -> None:
        """A slide per question, the options lettered; the answers stand on a slide of their own."""
        answers = []
        for question in re.split(r"^(?=\*\*\d+\.)", text, flags=re.M):
            options = OPTION.findall(question)
            match = re.match(r"\*\*(\d+)\.\s*(.*?)\*\*", question, re.S)
            if not match or not options:
                continue
            items = "".join(f"<li>{self.inline(words.strip())}</li>" for _, words, _ in options)
            asked = f"<p>{self.inline(match[2])}</p>"
            self.add("quiz", f"Question {match[1]}", f'{asked}<ol class="options">{items}</ol>')
            for letter, (right, _, why) in zip("ABCDEFGH", options, strict=False):
                if right == "right":
                    why = re.sub(r"^Right\.\s*", "", why.strip())
                    answers.append(f"<li><b>{match[1]}: {letter}.</b> {self.inline(why)}</li>")
        if answers:
            self.add("answers", "Answers", f'<ul class="plain">{"".join(answers)}</ul>')

    def closing(self, sections: list[Section]) -> None:
        """Exercises, before the quiz; the take-aways last."""
        exercises = []
        for section in sections:
            if not section.title.startswith("Exercise "):
                continue
            match = re.search(r"^\*Difficulty: (.*?)\*\s*$", "\n".join(section.text), re.M)
            hard = f" <small>{escape(match[1])}</small>" if match else ""
            exercises.append(f"<li>{self.inline(section.title)}{hard}</li>")
        rest = [s for s in self.slides if s.kind not in ("quiz", "answers")]
        quiz = [s for s in self.slides if s.kind in ("quiz", "answers")]
        self.slides = rest
        for part in pieces(exercises, PER_SLIDE["exercises"]):
            self.add("exercises", "Exercises", f'<ul class="plain">{"".join(part)}</ul>')
        self.slides += quiz
        [last] = [s for s in sections if s.title.startswith("Take-aways")]
        text = re.split(r"^\*\*(?:Sources|Where to go|Next)|^Next:", last.text[0], flags=re.M)[0]
        items = re.findall(r"^(?:[-*]|\d+\.) (.*(?:\n(?!\n|[-*] |\d+\. ).*)*)", text, re.M)
        for part in pieces(items, PER_SLIDE["takeaways"]):
            shown = "".join(f"<li>{self.inline(' '.join(item.split()))}</li>" for item in part)
            self.add("takeaways", "Take-aways", f"<ul>{shown}</ul>")

    def html(self) -> str:
        """The deck as a page."""
        return page(self.chapter.heading, self.slides)


def source(cell: dict) -> str:
    return joined(cell["source"])


def joined(text) -> str:
    """A string that JSON may have as a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def capital(match) -> str:
    return match[2].upper()


def pieces(items: list, size: int) -> list[list]:
    """The items in parts of nearly one length, of at most `size`."""
    count = -(-len(items) // size)
    return [items[i * len(items) // count : (i + 1) * len(items) // count] for i in range(count)]


def short(paragraph: str, words: int = 45) -> str:
    """A paragraph if it is short, else nothing."""
    paragraph = paragraph.strip()
    fits = len(paragraph.split()) <= words and not paragraph.startswith(("|", "<", "```"))
    return paragraph if fits else ""


# The page


STYLE = """
:root{--u:min(1vw,1.7778vh);color-scheme:light}
*{box-sizing:border-box}
html{scroll-snap-type:y proximity;scroll-behavior:smooth}
body{margin:0;background:#fff;color:#1a1a1a;font-family:system-ui,-apple-system,'Segoe UI',Roboto,\
'Helvetica Neue',Arial,sans-serif;line-height:1.4}
section{width:100vw;height:100vh;scroll-snap-align:start;display:flex;flex-direction:column;\
justify-content:center;align-items:center;position:relative;overflow:hidden}
.slide{--k:1;width:calc(100*var(--u));height:calc(56.25*var(--u));padding:calc(3*var(--u)) \
calc(5*var(--u)) calc(4*var(--u));display:flex;flex-direction:column;\
font-size:calc(2.1*var(--u)*var(--k))}
h1,h2{margin:0;line-height:1.2;color:#004b78}
h1{font-size:calc(5*var(--u)*var(--k))}
h2{font-size:calc(3.1*var(--u));border-bottom:calc(.3*var(--u)) solid #0072b2;\
padding-bottom:calc(.8*var(--u))}
.answer .slide,.goals .slide,.claims .slide,.quiz .slide,.takeaways .slide,\
.exercises .slide{font-size:calc(2.5*var(--u)*var(--k))}
.body{flex:1;min-height:0;display:flex;flex-direction:column;justify-content:center;\
padding-top:calc(1.2*var(--u))}
.title .slide{justify-content:center;border-left:calc(2*var(--u)) solid #0072b2}
.title .body{flex:none;padding-top:calc(3*var(--u))}
.question{font-size:calc(3.2*var(--u)*var(--k));margin:0;max-width:32em}
.course{margin:calc(4*var(--u)) 0 0;color:#5f5f5f;font-size:calc(1.8*var(--u))}
ul,ol{margin:0;padding-left:1.3em}
li{margin:.35em 0}
p{margin:.4em 0}
.held{list-style:none;padding:0}
.held li{border-left:calc(.5*var(--u)) solid #1a7f37;padding:.2em 0 .2em .8em;margin:.6em 0}
.held li::before{content:"\\2713  "/"holds: ";color:#1a7f37;font-weight:700}
.plain{list-style:none;padding:0}
.options{list-style-type:upper-alpha;padding-left:1.6em}
.options li{margin:.6em 0}
small{color:#5f5f5f;font-size:.8em;white-space:nowrap}
figure{margin:0 auto!important;text-align:center;max-width:100%}
figure img,.mtl-drawing svg{max-width:100%!important;width:auto;height:auto;\
max-height:calc(37*var(--u)*var(--k))}
.mtl-drawing svg{height:calc(37*var(--u)*var(--k))!important}
.mtl-slider img{width:auto!important;margin:0 auto!important;max-height:calc(33*var(--u)*var(--k))}
.mtl-slider .dial{margin:0 auto}
.mtl-slider{text-align:left}
figcaption,.mtl-slider p{font-size:.72em;color:#404040;text-align:center;max-width:60em;\
margin:.4em auto 0}
.mtl-table,.mtl-table>div{max-width:100%}
.mtl-table{font-size:.8em;align-self:center}
code{font-size:.9em;background:#f2f4f7;padding:.05em .25em;border-radius:3px}
a{color:#005a8f}
nav{position:absolute;right:calc(2*var(--u));bottom:calc(1.2*var(--u));color:#5f5f5f;\
font-size:max(12px,calc(1.4*var(--u)))}
nav a{text-decoration:none;padding:.2em .6em;display:inline-block}
a:focus-visible,section:focus-visible{outline:3px solid #56b4e9;outline-offset:-3px}
@media (max-width:700px){
html{scroll-snap-type:none}
section{width:auto;height:auto;min-height:60vh;border-bottom:1px solid #ccc;display:block}
.slide{width:auto;height:auto;padding:1.2rem 1rem 3rem;font-size:1rem}
h1{font-size:1.8rem}h2{font-size:1.3rem}.question{font-size:1.2rem}.course{font-size:1rem}
figure img,.mtl-slider img,.mtl-drawing svg{max-height:none;height:auto!important}
.mtl-table>div,mjx-container[display=true]{overflow-x:auto;overflow-y:hidden}
nav{right:.5rem;bottom:.5rem;font-size:1rem}}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{
@page{size:13.333in 7.5in;margin:0}
:root{--u:.13333in}
html{scroll-snap-type:none}
section{width:13.333in;height:7.49in;break-after:page;break-inside:avoid}
section:last-of-type{break-after:auto}
nav a,.mtl-slider .note{display:none}}
"""
SCRIPT = """
MathJax={tex:{inlineMath:[['\\\\(','\\\\)']],displayMath:[['\\\\[','\\\\]']]},
options:{menuOptions:{settings:{inTabOrder:false}}},
startup:{pageReady:function(){return MathJax.startup.defaultPageReady().then(fit)}}};
function slides(){return Array.from(document.querySelectorAll('section'))}
// Whether what is seen of a slide reaches beyond it. (Its scrollHeight would count what MathJax
// has for screen readers.)
function full(body){var top=1/0,bottom=-1/0,wide=0;
body.querySelectorAll('p,li,table,img,figcaption,svg').forEach(function(e){
var r=e.getBoundingClientRect();
if(r.height&&!e.closest('mjx-assistive-mml')){top=Math.min(top,r.top);
bottom=Math.max(bottom,r.bottom);wide=Math.max(wide,r.width)}});
var room=body.clientHeight-parseFloat(getComputedStyle(body).paddingTop);
return bottom-top>room+1||wide>body.clientWidth+1}
// A slide that is too full is set in smaller type.
function fit(){slides().forEach(function(s){
var box=s.querySelector('.slide'),body=s.querySelector('.body'),k=1;
box.style.setProperty('--k',1);
if(window.innerWidth<=700)return;
while(full(body)&&k>.4){k-=.05;box.style.setProperty('--k',k)}})}
function here(){var all=slides(),best=0,y=window.scrollY+window.innerHeight/3;
all.forEach(function(s,i){if(s.offsetTop<=y)best=i});return best}
addEventListener('keydown',function(e){
if(e.altKey||e.ctrlKey||e.metaKey||e.target.closest('input,select,textarea'))return;
var all=slides(),i=here(),to=
{ArrowRight:i+1,ArrowDown:i+1,PageDown:i+1,' ':e.shiftKey?i-1:i+1,
ArrowLeft:i-1,ArrowUp:i-1,PageUp:i-1,Home:0,End:all.length-1}[e.key];
if(to===undefined||(e.key===' '&&e.target.closest('a')))return;
e.preventDefault();
to=Math.max(0,Math.min(all.length-1,to));
all[to].scrollIntoView();history.replaceState(null,'','#'+all[to].id)});
addEventListener('load',fit);addEventListener('resize',fit);
"""


def page(heading: str, slides: list[Slide]) -> str:
    """Slides as one HTML page."""
    parts = []
    for number, slide in enumerate(slides, 1):
        level = "h1" if number == 1 else "h2"
        title = slide.title if number == 1 else None
        shown = escape(title) if title else renderer().renderInline(slide.title)
        below = f'<p class="course">{COURSE}</p>' if number == 1 else ""
        before, after = max(1, number - 1), min(len(slides), number + 1)
        parts.append(
            f'<section id="s{number}" class="{slide.kind}" aria-roledescription="slide"'
            f' aria-label="{number} of {len(slides)}">\n'
            f'<div class="slide"><{level}>{shown}</{level}>\n'
            f'<div class="body">{slide.body}</div>{below}</div>\n'
            f'<nav aria-label="Slides"><a href="#s{before}" aria-label="previous">\u2039</a>'
            f'{number} / {len(slides)}<a href="#s{after}" aria-label="next">\u203a</a></nav>\n'
            "</section>"
        )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(heading)}: slides</title>\n<style>{STYLE}</style>\n"
        f'<script>{SCRIPT}</script>\n<script defer src="mathjax/{MATHJAX}"></script>\n'
        f"</head>\n<body>\n<main>\n{chr(10).join(parts)}\n</main>\n</body>\n</html>\n"
    )


def contents(made: list[tuple[chapters.Chapter, str]]) -> str:
    """The page that lists the decks."""
    items = "".join(
        f'<li><a href="{name}">{escape(chapter.heading)}</a><br>{escape(chapter.question)}</li>'
        for chapter, name in made
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{COURSE}: slides</title>\n<style>body{{font-family:system-ui,sans-serif;"
        "line-height:1.5;max-width:45em;margin:2em auto;padding:0 1em}li{margin:.6em 0}"
        "a{color:#005a8f}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{COURSE}: slides</h1>\n<p>Arrow keys move through a deck. In the print dialogue each"
        f" slide is a page. Text and figures: CC BY 4.0.</p>\n<ul>{items}</ul>\n"
        "</main>\n</body>\n</html>\n"
    )


def copy_mathjax(out: Path) -> None:
    """The script that the book uses, beside the decks.

    Raises:
        SlidesError: the package that has it is not installed.
    """
    package = find_spec("sphinx-mathjax-offline")
    if package is None:
        raise SlidesError(
            "The package sphinx-mathjax-offline is missing: pip install -r requirements-book.txt"
        )
    target = out / "mathjax" / MATHJAX
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(package.origin).parent / "static" / "mathjax" / MATHJAX, target)


def make(wanted: list[chapters.Chapter], out: Path, root: Path = ROOT) -> list[Path]:
    """Write the decks of these chapters, MathJax beside them, and a page that lists them.

    Raises:
        SlidesError: a notebook is missing, or what slides are made with is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    copy_mathjax(out)
    made = []
    for chapter in wanted:
        path = root / chapter.notebook
        if not path.exists():
            raise SlidesError(f"{chapter.notebook} is missing, so it has no slides.")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        target = out / f"{chapter.number}_{chapter.slug}.html"
        target.write_text(Deck(chapter, cells).html(), encoding="utf-8", newline="\n")
        made.append((chapter, target.name))
    (out / "index.html").write_text(contents(made), encoding="utf-8", newline="\n")
    return [out / name for _, name in made]


def main(arguments: list[str]) -> int:
    """Make the slides that the arguments name, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev slides", description=__doc__)
    parser.add_argument("chapter", metavar="NN", nargs="*", help="numbers of chapters; all if none")
    parser.add_argument("--out", type=Path, default=OUT, help="a folder; _build/slides if not said")
    options = parser.parse_args(arguments)
    try:
        wanted = [chapters.find(n) for n in options.chapter] or list(chapters.CHAPTERS.values())
        made = make(wanted, options.out)
    except (ValueError, SlidesError) as error:
        parser.error(str(error))
    decks = "1 deck" if len(made) == 1 else f"{len(made)} decks"
    print(f"{decks}: open {options.out / 'index.html'}")
    return 0
