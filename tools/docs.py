"Build the site from the stored outputs into _docs/: with Quarto where it is on the PATH, with smalldocs otherwise."
import os, re, shutil, subprocess, sys
from pathlib import Path

import nbformat
import smalldocs.site
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.serve import proc_nbs

ROOT = Path(__file__).resolve().parent.parent
PROC, SITE = Path("_proc"), Path("_docs")
# nbdev links to `data.html` for 00_data.ipynb. Quarto follows the `output-file` that nbdev adds and smalldocs does not,
# so the number is taken off the file's name and off the links to it, and both write the same pages.
NUMBER = re.compile(r"\b\d+[a-zA-Z0-9]*_(?=\w+\.ipynb)")
LINK = re.compile(rf'(?<=\]\()(?:\./)?{NUMBER.pattern}|(?<=href=")(?:\./)?{NUMBER.pattern}')


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


def tidy(nb, site_url, anchors):
    "Mend the links of one processed notebook and drop what nbdev leaves in it for Quarto alone."
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = local(cell.source, site_url, anchors)
        if cell.cell_type == "raw": cell.source = re.sub(r"^output-file: .*\n", "", cell.source, flags=re.M)
        if cell.cell_type != "code": continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # of the imports that nbdev executed
        for data in (o.data for o in cell.outputs if "data" in o):
            if "text/markdown" in data: data["text/markdown"] = local(data["text/markdown"], site_url, anchors)


def build():
    "Process the notebooks into _proc/, render them, and leave the site in _docs/."
    cfg = get_config()
    site_url = cfg.doc_host + cfg.doc_baseurl
    _build_modidx()
    proc_nbs("nbs", force=True)
    processed = {path: nbformat.read(path, 4) for path in PROC.glob("*.ipynb")}
    anchors = set().union(*map(documented, processed.values()))
    for path, nb in processed.items():
        tidy(nb, site_url, anchors)
        path.unlink()
        nbformat.write(nb, path.with_name(NUMBER.sub("", path.name)))
    config = NUMBER.sub("", Path("_quarto.yml").read_text(encoding="utf-8"))
    config = config.replace("{git_url}", cfg.git_url).replace("{site_url}", site_url)
    (PROC/"_quarto.yml").write_text(config, encoding="utf-8")

    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", PROC], check=True, env={**os.environ, "QUARTO_PYTHON": sys.executable})
    else:
        for warning in smalldocs.site.build(PROC, quiet=True).warnings: print("smalldocs:", warning)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(PROC/SITE, SITE)


if __name__ == "__main__":
    os.chdir(ROOT)
    build()
    print(f"The site is in {SITE}/; open {SITE}/index.html")
