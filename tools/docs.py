"Build the site from the stored outputs into _docs/: with Quarto where it is on the PATH, with smalldocs otherwise."
import os, re, shutil, subprocess, sys
from pathlib import Path

import nbformat, smalldocs.site, yaml
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.serve import proc_nbs

import references

ROOT = Path(__file__).resolve().parent.parent
PROC, SITE, STAGE = Path("_proc"), Path("_docs"), Path("runs/site")
# nbdev links to `data.html` for 00_data.ipynb. Quarto follows the `output-file` that nbdev adds and smalldocs does not,
# so the number is taken off the file's name and off the links to it, and both write the same pages.
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")
LINK = re.compile(rf'(?<=\]\()(?:\./)?{NUMBER.pattern}|(?<=href=")(?:\./)?{NUMBER.pattern}')
FONT = re.compile(r"@import\s*(url\()?[\"']?https?://fonts\.[^)\"']*[\"']?\)?;")
OPTION = re.compile(r"^#\|\s*(label|fig-cap)\s*:\s*(.+)\n?", re.M)


def page(name):
    "The page that a notebook becomes."
    return NUMBER.sub("", name).replace(".ipynb", ".html")


def documented(nb):
    "The names that a processed notebook documents, as the anchors of its page."
    shown = (o.data.get("text/markdown", "") for c in nb.cells for o in c.get("outputs", []) if "data" in o)
    return {name.lower() for text in shown for name in re.findall(r"^### (\S+)$", text, re.M)}


def local(text, site_url, anchors):
    "Links between notebooks and from nbdev's index, made to lead to the pages and the anchors that exist."
    def symbol(m):
        name = m["name"]
        while name and name not in anchors: name = name.rpartition(".")[0]  # a method shown with its class
        return f"]({m['page']}{'#' if name else ''}{name})"
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


def tidy(nb, site_url, anchors):
    "Mend the links of one processed notebook, cite its sources, and drop what nbdev leaves in it for Quarto alone."
    number_figures(nb)
    shown = []  # every text that may cite: (what holds it, its key)
    for cell in nb.cells:
        if cell.cell_type == "raw": cell.source = re.sub(r"^output-file: .*\n", "", cell.source, flags=re.M)
        if cell.cell_type == "markdown": shown.append((cell, "source"))
        if cell.cell_type != "code": continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # of the imports that nbdev executed
        shown += [(o.data, "text/markdown") for o in cell.outputs if "text/markdown" in o.get("data", {})]
    cited = set()
    for holder, key in shown: holder[key] = references.link(local(holder[key], site_url, anchors), cited)
    if cited: nb.cells.append(nbformat.v4.new_markdown_cell(references.section(cited)))


def contents():
    "The sidebar: the pages without a number, the chapters, the studies, each in order."
    names = sorted(p.name for p in Path("nbs").glob("*.ipynb"))
    pages = ["index.ipynb", *(n for n in names if not n[0].isdigit() and n != "index.ipynb")]
    sections = {"Start": pages, "Library": [n for n in names if n[0] in "01"], "Studies": [n for n in names if n[0] in "23456789"]}
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
    anchors = set().union(*map(documented, processed.values()))
    for path, nb in processed.items():
        tidy(nb, site_url, anchors)
        path.unlink()
        nbformat.write(nb, path.with_name(NUMBER.sub("", path.name)))
    configure(cfg, site_url)

    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", PROC], check=True, env={**os.environ, "QUARTO_PYTHON": sys.executable})
    else:
        for warning in smalldocs.site.build(PROC, quiet=True).warnings: print("smalldocs:", warning)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(PROC/SITE, SITE)
    for css in SITE.rglob("*.css"):  # the themes fetch a font from elsewhere, and site.css names another
        css.write_text(FONT.sub("", css.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    os.chdir(ROOT)
    build()
    print(f"The site is in {SITE}/; open {SITE}/index.html")
