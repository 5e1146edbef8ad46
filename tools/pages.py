"What a processed notebook needs before Quarto or smalldocs renders it: links, figures, signatures, commands, tables."
import html, re, textwrap
from pathlib import Path

import nbformat, typer, yaml
from bs4 import BeautifulSoup

import references
from export import directive

ROOT = Path(__file__).resolve().parent.parent
# nbdev links to `data.html` for 00_data.ipynb. Quarto follows the `output-file` that nbdev adds and smalldocs does not,
# so the number is taken off the file's name and off the links to it, and both write the same pages.
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")
LINK = re.compile(rf'(?<=\]\()(?:\./)?{NUMBER.pattern}|(?<=href=")(?:\./)?{NUMBER.pattern}')
INTERVAL = re.compile(r"\([−-]?[\d.,]+ ?%? ?[–-] ?[−-]?[\d.,]+ ?%?\)")  # `(0.926–0.963)`, `(86.2%–91.0%)`
NUMERIC = re.compile(r"(?:[−+±-]?\d[\d.,]*(?:e[+-]?\d+)?[ %]*)?|–|nan|NaN|None|<NA>")
OPTION = re.compile(r"^#\|\s*(label|fig-cap)\s*:\s*(.+)\n?", re.M)
EXAMPLES = re.compile(r"(?:^`pneumo [^`\n]+`\s*)+", re.M)
EMPTY_CLASS = re.compile(r"```python\ndef \w+\(\n    \*args, \*\*kwargs\n\):\n```\n?")
NARROW_PM, WIDE_PM = " ± ", "\u00a0±\u00a0"  # a sign that no line breaks at


def page_of(name):
    "The page that a notebook becomes."
    return NUMBER.sub("", name).replace(".ipynb", ".html")


def markdown_of(cell):
    "The Markdown outputs of a cell."
    return [o.data["text/markdown"] for o in cell.get("outputs", []) if "text/markdown" in o.get("data", {})]


def documented(nb):
    "The names that a processed notebook documents, as the anchors of its page."
    shown = "\n".join(text for cell in nb.cells for text in markdown_of(cell))
    return {name.lower() for name in re.findall(r"^### (\S+)$", shown, re.M)}


def is_private(cell):
    "Does a cell document a private name?"
    return any(re.search(r"^### _", text, re.M) for text in markdown_of(cell))


def commands():
    "(module, function) → the words of a command, and its parameters."
    from pneumo.cli import app
    def walk(command, words):
        if hasattr(command, "commands"):
            for name, below in command.commands.items(): yield from walk(below, f"{words} {name}")
        else:
            function = command.callback
            yield (function.__module__.split(".")[-1], function.__name__), (words, command.params)
    return dict(walk(typer.main.get_command(app), "pneumo"))


def sourced(text, module):
    "Point a source link at this module: nbdev takes a command for the function of the same name elsewhere."
    m = re.search(r"/(\w+)\.py#L\d+(?=\).*?^### (\w+)$)", text, re.S | re.M)
    path = Path(f"pneumo/{module}.py")
    if not m or m[1] == module or not path.exists(): return text
    lines = path.read_text(encoding="utf-8").splitlines()
    for n, line in enumerate(lines, 1):
        if re.match(rf"(def|class) {m[2]}\b", line): return f"{text[:m.start()]}/{module}.py#L{n}{text[m.end():]}"
    return text


def parameter(p):
    "One row of a command's table, as cells: its name, its meaning and its default."
    names = p.opts if p.param_type_name == "option" else [p.name.upper()]
    default = p.show_default if isinstance(p.show_default, str) else p.default
    if default is None or default is False or default in ([], ()): default = ""
    meaning = re.sub(r"(?<![\w`])--[a-z][\w-]*", r"`\g<0>`", p.help or "")  # or two hyphens become a dash
    return ", ".join(f"`{n}`" for n in names), meaning.replace("|", r"\|"), str(default)


def as_command(text, known, module):
    "Replace the signature of the function behind a command by the help of that command."
    m = re.search(r"### (\w+)\n\n```python\n.*?\n```\n", text, re.S)
    if not m or (module, m[1]) not in known: return text
    words, params = known[module, m[1]]
    arguments = [p.name.upper() for p in params if p.param_type_name == "argument"]
    rows = [parameter(p) for p in params if p.name != "help" and p.help]
    columns = 3 if any(default for *_, default in rows) else 2
    table = [f"| {' | '.join(row[:columns])} |" for row in [("", "", "default"), ("---",)*3, *rows]]
    usage = f"### {words}\n\n```bash\n{' '.join([words, *arguments, '[OPTIONS]'])}\n```\n"
    fenced = lambda e: "```bash\n" + re.sub(r"`\s*", "\n", e[0].replace("`pneumo", "pneumo")).strip() + "\n```\n"
    return text[:m.start()] + "\n".join([usage, EXAMPLES.sub(fenced, text[m.end():]), "", *table, ""])


def signature(text):
    "One signature as people read it: comments in a column, no links, no empty types, no path of this machine."
    text = re.sub(r"\[`([^`]+)`\]\([^)]+\)", r"\1", text)
    text = text.replace(":NoneType=None", "=None").replace(f"{ROOT}/", "")
    text = re.sub(r"^def (?=[A-Z])", "class ", text)
    text = re.sub(r"(?<==)([A-Z]\w+)\(\w+=[^()]*\)", r"\1()", text)  # a default that says every field of its class
    parts = [line.partition("# ") for line in text.splitlines()]
    width = max((len(code.rstrip()) for code, mark, _ in parts if mark and len(code) < 48), default=0)
    return "\n".join(f"{code.rstrip():<{width}}  # {comment}" if mark else code for code, mark, comment in parts)


def aligned(text):
    "All signatures of a text as people read them; that of a class without documented arguments is dropped."
    text = EMPTY_CLASS.sub("", text)
    return re.sub(r"(?<=```python\n)def .*?(?=\n```)", lambda m: signature(m[0]), text, flags=re.S)


def unbroken(text):
    "Markdown in which no option of a command breaks after its hyphens, nor an interval in a table."
    text = re.sub(r"(?<!`)(`--?[a-z][\w-]*`)(?!`)", r"[\1]{.option}", text)
    row = lambda m: INTERVAL.sub(r"[\g<0>]{.interval}", m[0]).replace(NARROW_PM, WIDE_PM)
    return re.sub(r"^\|.*", row, text, flags=re.M)


def local(text, site_url, anchors):
    "Make links between notebooks and from nbdev's index lead to pages and anchors that exist."
    def symbol(m):
        name = m["name"]
        while name and name not in anchors: name = name.rpartition(".")[0]  # a method is shown with its class
        return f"]({m['page']}{'#' if name else ''}{name})"
    site = re.escape(site_url)
    text = re.sub(rf"\[(`[^`]+`)\]\({site}/cli\w*\.html#[\w.]+\)", r"\1", text)  # a command's name is no function's
    text = re.sub(rf"\]\({site}/(?P<page>\w+\.html)#(?P<name>[\w.]+)\)", symbol, text)
    return LINK.sub("", text)


def number_figures(nb):
    "Number the captions and link `@fig-name`: Quarto does so for labels with fig-, smalldocs never."
    numbers = {}
    for cell in nb.cells:
        options = dict(OPTION.findall(cell.source)) if cell.cell_type == "code" else {}
        if "fig-cap" not in options: continue
        n = len(numbers) + 1
        label = options.get("label", f"fig-{n}").strip()
        numbers[label] = n
        caption = f"Figure {n}. {yaml.safe_load(options['fig-cap'])}"
        caption = yaml.dump(caption, width=9999, allow_unicode=True, default_style='"').strip()
        head = f"#| label: {label.replace('fig-', 'figure-', 1)}\n#| fig-cap: {caption}\n"
        cell.source = head + OPTION.sub("", cell.source)
    def link(m):
        return f"[Figure {numbers[m[1]]}](#{m[1].replace('fig-', 'figure-', 1)})" if m[1] in numbers else m[0]
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = re.sub(r"@(fig-[\w-]*\w)", link, cell.source)


def without_index_name(table):
    "Fold the row that pandas gives to the name of the index into the row above."
    heads = table.thead("tr") if table.thead else []
    if len(heads) < 2 or any(c.get_text(strip=True) for c in heads[-1]("th")[1:]): return
    corner, name = heads[-2].th, heads[-1].extract().th
    corner.string = " / ".join(filter(None, (c.get_text(strip=True) for c in (name, corner))))


def numbers_to_the_right(table):
    "Mark the columns of numbers, and their headers."
    rows = [row("td") for row in table("tr") if row("td")]
    heads = [row(["th", "td"]) for row in table("tr") if not row("td")]
    for column in zip(*rows):
        if not all(NUMERIC.fullmatch(c.get_text().strip()) for c in column): continue
        from_right = len(column[0].find_next_siblings("td")) + 1
        above = [head[-from_right] for head in heads if len(head) >= from_right]
        for cell in (*column, *above): cell["class"] = "num"


def readable_cells(table):
    "Dashes for what is missing, intervals that do not break, long row names marked."
    for cell in table.select("tbody th"):
        if len(cell.get_text()) > 20: cell["class"] = "long"  # not a word a line on a phone
    for cell in table("td"):
        if cell.get_text(strip=True) in ("NaN", "nan", "None", "<NA>"): cell.string = "–"
        if cell.string and INTERVAL.search(cell.string):
            marked = INTERVAL.sub(r"<span class='interval'>\g<0></span>", str(cell))
            cell.replace_with(BeautifulSoup(marked, "html.parser"))


WORDS = {"auc": "AUC", "map": "mean average precision", "mrr": "mean reciprocal rank", "ood": "OOD score", "n": "images",
         "p_holm": "p (Holm)", "val_auc": "validation AUC", "only_a": "only a right", "only_b": "only b right"}
RAW = re.compile(r"[a-z]+(_[a-z]+)*")


def headed(table):
    "The headers of columns and rows in words, where they are names of code."
    for cell in table("th"):
        name = cell.get_text().strip()
        of_column = WORDS.get(name) if cell.find_parent("thead") else None
        if RAW.fullmatch(name) and (of_column or "_" in name): cell.string = of_column or name.replace("_", " ")


def tabled(text, study=False):
    "HTML tables in one style, with numbers to the right."
    if "<table" not in text: return text
    page = BeautifulSoup(text.replace(NARROW_PM, WIDE_PM), "html.parser")
    for style in page("style", string=re.compile(r"\.dataframe ")):
        style.extract()  # it would reach every table of the page
    for table in page("table"):
        without_index_name(table)
        if study: headed(table)
        numbers_to_the_right(table)
        readable_cells(table)
    return str(page)


def drawn(output):
    "A table drawn with lines keeps its columns and scrolls; other text may wrap."
    data = output.get("data", {})
    text = output.text if output.get("name") == "stdout" else data["text/plain"] if list(data) == ["text/plain"] else ""
    if not re.search("[─━]", text): return output
    fill = lambda line: textwrap.fill(line[0], 96)
    text = re.sub(r"^[^─━│┃\n]{100,}$", fill, text.strip("\n").rstrip(), flags=re.M)
    return nbformat.v4.new_output("display_data", {"text/html": f'<pre class="drawn">{html.escape(text)}</pre>'})


def joined(outputs):
    "Lines that a cell printed one after another, as one output."
    kept = []
    for o in outputs:
        if kept and o.get("name") == kept[-1].get("name") == "stdout":
            kept[-1] = nbformat.v4.new_output("stream", name="stdout", text=kept[-1].text + o.text)
        else: kept.append(o)
    return kept


def is_noise(output):
    "What imports print, and the name of a figure that is shown anyway."
    data = output.get("data", {})
    is_figure_name = list(data) == ["text/plain"] and data["text/plain"].startswith("<Figure size")
    return output.get("name") == "stderr" or is_figure_name


def tidy(nb, module, site_url, anchors, known, study=False):
    "Make one processed notebook ready for both renderers, and cite its sources."
    def written(text):
        text = aligned(as_command(sourced(text, module), known, module))
        return references.link(local(unbroken(text), site_url, anchors), cited)
    cited = set()
    number_figures(nb)
    nb.cells = [c for c in nb.cells if not is_private(c)]
    for cell in nb.cells:
        if cell.cell_type == "raw": cell.source = re.sub(r"^output-file: .*\n", "", cell.source, flags=re.M)
        if cell.cell_type == "markdown": cell.source = written(cell.source)
        if cell.cell_type != "code": continue
        if study and directive(cell, "echo") != "false": cell.source = f"#| code-fold: true\n{cell.source}"
        cell.outputs = [drawn(o) for o in joined(o for o in cell.outputs if not is_noise(o))]
        for data in (o.data for o in cell.outputs if "data" in o):
            if "text/html" in data: data["text/html"] = tabled(data["text/html"], study)
            if "text/markdown" in data: data["text/markdown"] = written(data["text/markdown"])
    if cited: nb.cells.append(nbformat.v4.new_markdown_cell(references.section(cited)))
