"Build the site from the stored outputs into _docs/: with Quarto where it is on the PATH, with smalldocs otherwise."
import html, os, re, shutil, subprocess, sys, textwrap
from pathlib import Path

import nbformat, smalldocs.site, typer, yaml
from bs4 import BeautifulSoup
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.serve import proc_nbs

import references
from export import directive
from pneumo.run import is_study

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"Images": "0", "Classifier": "1", "Retrieval": "2", "Reports": "3", "Running": "4", "Studies": "56789"}  # section → first digits
PROC, SITE, STAGE = Path("_proc"), Path("_docs"), Path("runs/site")
# nbdev links to `data.html` for 00_data.ipynb. Quarto follows the `output-file` that nbdev adds and smalldocs does not,
# so the number is taken off the file's name and off the links to it, and both write the same pages.
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")
LINK = re.compile(rf'(?<=\]\()(?:\./)?{NUMBER.pattern}|(?<=href=")(?:\./)?{NUMBER.pattern}')
FONT = re.compile(r"@import\s*(url\()?[\"']?https?://fonts\.[^)\"']*[\"']?\)?;")
INTERVAL = re.compile(r"\([−-]?[\d.,]+ ?%? ?[–-] ?[−-]?[\d.,]+ ?%?\)")  # `(0.926–0.963)`, `(86.2%–91.0%)`
NUMERIC = re.compile(r"(?:[−+±-]?\d[\d.,]*(?:e[+-]?\d+)?[ %]*)?|–|nan|NaN|None|<NA>")
OPTION = re.compile(r"^#\|\s*(label|fig-cap)\s*:\s*(.+)\n?", re.M)


def page(name):
    "The page that a notebook becomes."
    return NUMBER.sub("", name).replace(".ipynb", ".html")


def documented(nb):
    "The names that a processed notebook documents, as the anchors of its page."
    shown = (o.data.get("text/markdown", "") for c in nb.cells for o in c.get("outputs", []) if "data" in o)
    return {name.lower() for text in shown for name in re.findall(r"^### (\S+)$", text, re.M)}


def local(text, site_url, anchors):
    "Links between notebooks and from nbdev's index, made to lead to the pages and the anchors that exist; a command's name is no function's."
    def symbol(m):
        name = m["name"]
        while name and name not in anchors: name = name.rpartition(".")[0]  # a method shown with its class
        return f"]({m['page']}{'#' if name else ''}{name})"
    text = re.sub(rf"\[(`[^`]+`)\]\({re.escape(site_url)}/cli\w*\.html#[\w.]+\)", r"\1", text)
    text = re.sub(rf"\]\({re.escape(site_url)}/(?P<page>\w+\.html)#(?P<name>[\w.]+)\)", symbol, text)
    return LINK.sub("", text)


def number_figures(nb):
    "Number the captions and turn `@fig-name` into a link. Quarto does so for labels that begin with fig-, smalldocs never; so none is left."
    numbers = {}
    for cell in nb.cells:
        options = dict(OPTION.findall(cell.source)) if cell.cell_type == "code" else {}
        if "fig-cap" not in options: continue
        n = len(numbers) + 1
        label = options.get("label", f"fig-{n}").strip()
        numbers[label] = n
        caption = yaml.safe_load(options["fig-cap"])
        caption = yaml.dump(f"Figure {n}. {caption}", width=9999, allow_unicode=True, default_style='"').strip()
        cell.source = f"#| label: {label.replace('fig-', 'figure-', 1)}\n#| fig-cap: {caption}\n" + OPTION.sub("", cell.source)
    for cell in nb.cells:
        if cell.cell_type != "markdown": continue
        cell.source = re.sub(r"@(fig-[\w-]*\w)", lambda m: f"[Figure {numbers[m[1]]}](#{m[1].replace('fig-', 'figure-', 1)})" if m[1] in numbers else m[0], cell.source)


def aligned(text):
    "nbdev's signatures as one reads them: comments in a column, no links, no empty types, no path of this machine."
    def one(m):
        plain = re.sub(r"\[`([^`]+)`\]\([^)]+\)", r"\1", m[0]).replace(":NoneType=None", "=None").replace(f"{ROOT}/", "")
        plain = re.sub(r"^def (?=[A-Z])", "class ", plain)
        plain = re.sub(r"(?<==)([A-Z]\w+)\(\w+=[^()]*\)", r"\1()", plain)  # a default that says every field of its class
        parts = [line.partition("# ") for line in plain.splitlines()]
        width = max((len(code.rstrip()) for code, mark, _ in parts if mark and len(code) < 48), default=0)
        return "\n".join(f"{code.rstrip():<{width}}  # {comment}" if mark else code for code, mark, comment in parts)
    text = re.sub(r"```python\ndef \w+\(\n    \*args, \*\*kwargs\n\):\n```\n?", "", text)  # a class that says nothing of its arguments
    return re.sub(r"(?<=```python\n)def .*?(?=\n```)", one, text, flags=re.S)


def commands():
    "(module, function) → the words of a command, and its parameters."
    from pneumo.cli import app
    def walk(command, words):
        for name, below in getattr(command, "commands", {}).items(): yield from walk(below, f"{words} {name}")
        if not hasattr(command, "commands"): yield (command.callback.__module__.split(".")[-1], command.callback.__name__), (words, command.params)
    return dict(walk(typer.main.get_command(app), "pneumo"))


def private(cell):
    "Does a cell show a method of a class that is nobody's business?"
    return any(re.search(r"^### _", o.data.get("text/markdown", ""), re.M) for o in cell.get("outputs", []) if "data" in o)


def parameter(p):
    "One row of a command's table, as cells: its name, its meaning and its default."
    name = ", ".join(f"`{o}`" for o in p.opts) if p.param_type_name == "option" else f"`{p.name.upper()}`"
    default = p.show_default if isinstance(p.show_default, str) else "" if p.default is None or p.default is False else p.default
    text = re.sub(r"(?<![\w`])--[a-z][\w-]*", r"`\g<0>`", p.help or "").replace("|", r"\|")  # or two hyphens become a dash
    return name, text, "" if default in ([], ()) else str(default)


def as_command(text, known, module):
    "What nbdev shows of the function behind a command of this module, as the help of that command."
    m = re.search(r"### (\w+)\n\n```python\n.*?\n```\n", text, re.S)
    if not m or (module, m[1]) not in known: return text
    words, params = known[module, m[1]]
    rows = [parameter(p) for p in params if p.name != "help" and p.help]
    usage = " ".join([words, *(p.name.upper() for p in params if p.param_type_name == "argument"), "[OPTIONS]"])
    after = re.sub(r"(?:^`pneumo [^`\n]+`\s*)+", lambda e: "```bash\n" + re.sub(r"`\s*", "\n", e[0].replace("`pneumo", "pneumo")).strip() + "\n```\n", text[m.end():], flags=re.M)
    columns = 3 if any(default for *_, default in rows) else 2
    rows = [("", "", "default"), ("---",)*3, *rows]
    head = f"### {words}\n\n```bash\n{usage}\n```\n"
    return text[:m.start()] + "\n".join([head, after, "", *(f"| {' | '.join(row[:columns])} |" for row in rows), ""])


def sourced(text, module):
    "The source of what this module shows: nbdev looks a name up in the whole package, and a command is often named like a function."
    m = re.search(r"/(\w+)\.py#L\d+(?=\).*?^### (\w+)$)", text, re.S | re.M)
    if not m or m[1] == module or not (path := Path(f"pneumo/{module}.py")).exists(): return text
    line = next((n for n, code in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if re.match(rf"(def|class) {m[2]}\b", code)), None)
    return text if line is None else f"{text[:m.start()]}/{module}.py#L{line}{text[m.end():]}"


def unbroken(text):
    "Markdown in which no option of a command breaks after its hyphens, nor an interval in a table."
    text = re.sub(r"(?<!`)(`--?[a-z][\w-]*`)(?!`)", r"[\1]{.option}", text)
    return re.sub(r"^\|.*", lambda row: INTERVAL.sub(r"[\g<0>]{.interval}", row[0]).replace(" ± ", "\u00a0±\u00a0"), text, flags=re.M)


def tabled(text, study=False):
    "HTML tables with numbers to the right, as their headers are, and intervals that do not break; one style for all. A study's headers are words."
    if "<table" not in text: return text
    page = BeautifulSoup(text.replace(" ± ", "\u00a0±\u00a0"), "html.parser")
    for style in page("style", string=re.compile(r"\.dataframe ")): style.extract()  # they reach every table of the page
    for table in page("table"):
        heads = table.thead("tr") if table.thead else []
        if len(heads) > 1 and not any(c.get_text(strip=True) for c in heads[-1]("th")[1:]):  # pandas' name of the index
            corner, name = heads[-2].th, heads[-1].extract().th
            corner.string = " / ".join(filter(None, (c.get_text(strip=True) for c in (name, corner))))
        rows = [row("td") for row in table("tr") if row("td")]
        heads = [row(["th", "td"]) for row in table("tr") if not row("td")]
        for cells in zip(*rows):
            if not all(NUMERIC.fullmatch(c.get_text().strip()) for c in cells): continue
            from_right = len(cells[0].find_next_siblings("td")) + 1
            for cell in (*cells, *(h[-from_right] for h in heads if len(h) >= from_right)): cell["class"] = "num"
        for cell in table.select("tbody th"):
            if len(cell.get_text()) > 20: cell["class"] = "long"  # not a word a line on a phone
        for cell in table("th") if study else []:
            if re.fullmatch("[a-z]+(_[a-z]+)+", cell.get_text()): cell.string = cell.get_text().replace("_", " ")
        for cell in table("td"):
            if cell.get_text(strip=True) in ("NaN", "nan", "None", "<NA>"): cell.string = "–"
            if cell.string and INTERVAL.search(cell.string):
                cell.replace_with(BeautifulSoup(INTERVAL.sub(r"<span class='interval'>\g<0></span>", str(cell)), "html.parser"))
    return str(page)


def drawn(output):
    "A table drawn with lines keeps its columns and scrolls; other text may wrap."
    text = output.get("text", "") if output.get("name") == "stdout" else "".join(output.get("data", {}).values()) if list(output.get("data", {})) == ["text/plain"] else ""
    if not re.search("[─━]", text): return output
    text = re.sub(r"^[^─━│┃\n]{100,}$", lambda line: textwrap.fill(line[0], 96), text.strip("\n").rstrip(), flags=re.M)
    return nbformat.v4.new_output("display_data", {"text/html": f'<pre class="drawn">{html.escape(text)}</pre>'})


def joined(outputs):
    "Lines that a cell printed one after another, as one output."
    kept = []
    for o in outputs:
        if kept and o.get("name") == kept[-1].get("name") == "stdout": kept[-1] = nbformat.v4.new_output("stream", name="stdout", text=kept[-1].text + o.text)
        else: kept.append(o)
    return kept


def tidy(nb, module, site_url, anchors, known, study=False):
    "Mend the links and the tables of one processed notebook, cite its sources, and drop what nbdev leaves in it for Quarto alone."
    number_figures(nb)
    nb.cells = [c for c in nb.cells if not private(c)]
    shown = []  # every text that may cite: (what holds it, its key)
    for cell in nb.cells:
        if cell.cell_type == "raw": cell.source = re.sub(r"^output-file: .*\n", "", cell.source, flags=re.M)
        if cell.cell_type == "markdown": shown.append((cell, "source"))
        if cell.cell_type != "code": continue
        if study and directive(cell, "echo") != "false": cell.source = f"#| code-fold: true\n{cell.source}"
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"  # of the imports that nbdev executed
                        and not (list(o.get("data", {})) == ["text/plain"] and o.data["text/plain"].startswith("<Figure size"))]
        cell.outputs = list(map(drawn, joined(cell.outputs)))
        data = [o.data for o in cell.outputs if "data" in o]
        for d in (d for d in data if "text/html" in d): d["text/html"] = tabled(d["text/html"], study)
        shown += [(d, "text/markdown") for d in data if "text/markdown" in d]
    cited = set()
    for holder, key in shown: holder[key] = references.link(local(unbroken(aligned(as_command(sourced(holder[key], module), known, module))), site_url, anchors), cited)
    if cited: nb.cells.append(nbformat.v4.new_markdown_cell(references.section(cited)))


def contents():
    "The sidebar: the pages without a number, then the rooms, each in order."
    names = sorted(p.name for p in Path("nbs").glob("*.ipynb"))
    pages = ["index.ipynb", *(n for n in names if not n[0].isdigit() and n != "index.ipynb")]
    sections = {"Start": pages} | {room: [n for n in names if n[0] in digits] for room, digits in ROOMS.items()}
    return [{"section": title, "contents": found} for title, found in sections.items() if found]


def configure(cfg, site_url):
    "Write the configuration of the site beside the processed notebooks."
    config = yaml.safe_load(Path("_quarto.yml").read_text(encoding="utf-8"))
    config["website"]["sidebar"]["contents"] = contents()
    text = NUMBER.sub("", yaml.dump(config, sort_keys=False, allow_unicode=True))
    (PROC/"_quarto.yml").write_text(text.replace("{git_url}", cfg.git_url).replace("{site_url}", site_url), encoding="utf-8")
    for name in ("site.css", "favicon.svg"): shutil.copy(f"tools/{name}", PROC)


def stage():
    "A copy of the notebooks of which nbdev executes the exported cells alone: documenting a function needs no example to run."
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    for path in Path("nbs").glob("*.ipynb"):
        nb = nbformat.read(path, 4)
        for cell in nb.cells:
            if cell.cell_type == "code" and not re.search(r"^#\|\s*(export|default_exp)", cell.source, re.M): cell.source = f"#| eval: false\n{cell.source}"
        nbformat.write(nb, STAGE/path.name)


def build():
    "Process the notebooks into _proc/, render them, and leave the site in _docs/."
    cfg = get_config()
    site_url = cfg.doc_host + cfg.doc_baseurl
    _build_modidx()
    stage()
    proc_nbs(str(STAGE), force=True)
    processed = {path: nbformat.read(path, 4) for path in PROC.glob("*.ipynb")}
    anchors, known = set().union(*map(documented, processed.values())), commands()
    for path, nb in processed.items():
        tidy(nb, NUMBER.sub("", path.name).removesuffix(".ipynb"), site_url, anchors, known, study=is_study(path))
        path.unlink()
        nbformat.write(nb, path.with_name(NUMBER.sub("", path.name)))
    configure(cfg, site_url)

    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", PROC], check=True, env={**os.environ, "QUARTO_PYTHON": sys.executable})
    else:
        for warning in smalldocs.site.build(PROC, quiet=True).warnings:
            if "html.grid" not in warning: print("smalldocs:", warning)  # site.css sets its widths
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(PROC/SITE, SITE)
    for css in SITE.rglob("*.css"):  # the themes fetch a font from elsewhere, and site.css names another
        css.write_text(FONT.sub("", css.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    os.chdir(ROOT)
    build()
    print(f"The site is in {SITE}/; open {SITE}/index.html")
