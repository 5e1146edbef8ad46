"Citations: `He et al., 2016` in a page becomes a link to its entry of nbs/references.bib, listed at the end of the page."
import re
from functools import cache
from pathlib import Path

import bibtexparser
from bibtexparser.customization import splitname

BIB = Path("nbs/references.bib")
KEPT = re.compile(r"(```.*?```|`[^`\n]*`|!?\[[^\]\n]*\]\([^)\n]*\))", re.S)  # code and links, where nothing is cited
NAME = r"(?:(?:[Vv]an der|[Vv]an|[Vv]on|[Dd]e|[Dd]i) )?[A-ZÀ-Ž][\w’'-]+"
CITATION = re.compile(rf"(?P<who>{NAME}(?: (?:&|and) {NAME}| et al\.)?),? (?P<open>\()?(?P<year>(?:19|20)\d\d)(?(open)\))")
LOOSE = re.compile(rf"\((?:see )?({NAME}(?: (?:&|and) {NAME}| et al\.)?, (?:19|20)\d\d)[);]")  # what must be a citation


def people(entry):
    "The authors of an entry as (family, given) names."
    names = (splitname(re.sub(r"\s+", " ", a).strip()) for a in entry["author"].split(" and ") if a.strip() != "others")
    return [(" ".join(n["von"] + n["last"]).strip("{}"), " ".join(n["first"])) for n in names]


def who(entry):
    "How a text names the authors."
    families = [family for family, _ in people(entry)]
    if len(families) > 2 or entry["author"].endswith("and others"): return f"{families[0]} et al."
    return " & ".join(families)


@cache
def entries():
    "(who, year) → entry."
    found = bibtexparser.loads(BIB.read_text(encoding="utf-8")).entries
    return {(who(e), e["year"]): e for e in found}


def link(text, cited):
    "Link the citations of a Markdown text and add their entries' keys to `cited`."
    def one(m):
        key = m["who"].replace(" and ", " & "), m["year"]
        if key not in entries(): return m[0]
        cited.add(key)
        return f"[{m[0]}](#ref-{entries()[key]['ID']})"
    return "".join(part if n % 2 else CITATION.sub(one, part) for n, part in enumerate(KEPT.split(text)))


def unknown(text):
    "The citations of a text that have no entry."
    plain = "".join(KEPT.split(text)[::2])
    return {c for c in LOOSE.findall(plain) if tuple(c.replace(" and ", " & ").rsplit(", ", 1)) not in entries()}


def formatted(entry):
    "One entry of the list."
    authors = [f"{family} {''.join(w[0] for w in re.split(r'[ .-]+', given) if w)}".strip() for family, given in people(entry)]
    if len(authors) > 6: authors = [*authors[:3], "et al."]
    elif entry["author"].endswith("and others"): authors.append("et al.")
    title, where = entry["title"].replace("{", "").replace("}", ""), entry.get("journal") or entry.get("booktitle") or entry.get("publisher", "")
    url = f"https://doi.org/{entry['doi']}" if "doi" in entry else entry.get("url")
    name = f"[{title}]({url})" if url else title
    return f"[]{{#ref-{entry['ID']}}}{', '.join(authors)} ({entry['year']}). {name}. *{where}*."


def section(cited):
    "The list of what a page cites, by author and year."
    return "\n\n".join(["## References {.unnumbered}", *(formatted(entries()[key]) for key in sorted(cited))])
