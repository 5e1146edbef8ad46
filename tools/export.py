"Bring pneumo/ and README.md in step with the notebooks: stamp and clean them, export them, convert the index."
import json, os, posixpath, re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbdev.clean import nbdev_clean
from nbdev.config import get_config
from nbdev.doclinks import nbdev_export

ROOT = Path(__file__).resolve().parent.parent
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)       # `#| echo: false`
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)[^)\s]+")  # the target of a relative Markdown link
STYLE = re.compile(r"<style.*?</style>\s*", re.S)


def directive(cell, name):
    "The value of `#| name: value` in a cell, or None; a bare `#| name` has the value ''."
    found = re.search(rf"^#\|\s*{name}\s*:?(.*)$", cell.source, re.M)
    return found and found[1].strip().strip("\"'")


def colab(name, cfg):
    "The two cells that let a notebook run without a checkout: a badge, and an install where pneumo is not."
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    page = f"{cfg.git_url.replace('github.com', 'colab.research.google.com/github')}/blob/{cfg.branch}/nbs/{name}"
    pip = f'%pip install -q "pneumo[colab] @ git+{cfg.git_url}@{cfg.branch}"'
    install = f"#| hide\ntry: import pneumo\nexcept ImportError:\n    {pip}"
    return [dict(cell_type="markdown", id="colab-badge", metadata={}, source=f"[![Open in Colab]({badge})]({page})"),
            dict(cell_type="code", id="colab-install", metadata={}, source=install, outputs=[], execution_count=None)]


def stamp():
    "Write the cells of `colab` below the title of every notebook, and drop the state of progress bars."
    cfg = get_config()
    for path in Path("nbs").glob("*.ipynb"):
        nb = json.loads(path.read_text(encoding="utf-8"))  # not through nbformat, which writes every cell another way
        title, *rest = [c for c in nb["cells"] if not c.get("id", "").startswith("colab-")]
        cells = [title, *colab(path.name, cfg), *rest]
        metadata = {k: v for k, v in nb["metadata"].items() if k != "widgets"}
        if cells == nb["cells"] and metadata == nb["metadata"]: continue
        text = json.dumps({**nb, "cells": cells, "metadata": metadata}, sort_keys=True, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def readme():
    "Write README.md, and its figures into nbs/images/, from nbs/index.ipynb."
    nb = nbformat.read("nbs/index.ipynb", 4)
    nb.metadata.language_info = {"name": "python"}
    nb.cells = [c for c in nb.cells if directive(c, "hide") is None]
    alts = [directive(c, "fig-alt") or "figure" for c in nb.cells]
    to_root = lambda text: LINK.sub(lambda m: posixpath.normpath(f"nbs/{m[0]}"), text)
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = to_root(cell.source)
        else:
            for data in (o.data for o in cell.outputs if "text/markdown" in o.get("data", {})):
                data["text/markdown"] = to_root(data["text/markdown"])
            cell.metadata.transient = {"remove_source": directive(cell, "echo") == "false"}
            cell.source = DIRECTIVE.sub("", cell.source)
    text, files = MarkdownExporter().from_notebook_node(nb, {"unique_key": "index", "output_files_dir": "nbs/images"})
    text = re.sub(r"!\[\w+\]\((nbs/images/index_(\d+)_)", lambda m: f"![{alts[int(m[2])]}]({m[1]}", text)
    text = re.sub(r"\n\s*\n(?=\S|    )", "\n\n", STYLE.sub("", text)).strip()
    text = f"<!-- Generated from nbs/index.ipynb by `make export`. -->\n\n{text}\n"
    Path("README.md").write_text(text, encoding="utf-8")

    for old in Path("nbs/images").glob("index_*"): old.unlink()
    for name, data in files["outputs"].items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(data)


def export():
    "Stamp and clean the notebooks, then write the modules and the README from them."
    stamp()
    nbdev_clean()
    nbdev_export()
    readme()


if __name__ == "__main__":
    os.chdir(ROOT)
    export()
