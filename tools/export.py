"Bring pneumo/ and README.md in step with the notebooks: clean them, export them, convert the index."
import os, posixpath, re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbdev.clean import nbdev_clean
from nbdev.doclinks import nbdev_export

ROOT = Path(__file__).resolve().parent.parent
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)       # `#| echo: false`
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)[^)\s]+")  # the target of a relative Markdown link
STYLE = re.compile(r"<style.*?</style>\s*", re.S)


def directive(cell, name):
    "The value of `#| name: value` in a cell, or None; a bare `#| name` has the value ''."
    found = re.search(rf"^#\|\s*{name}\s*:?(.*)$", cell.source, re.M)
    return found and found[1].strip().strip("\"'")


def readme():
    "Write README.md, and its figures into nbs/images/, from nbs/index.ipynb."
    nb = nbformat.read("nbs/index.ipynb", 4)
    nb.metadata.language_info = {"name": "python"}
    nb.cells = [c for c in nb.cells if directive(c, "hide") is None]
    alts = [directive(c, "fig-alt") or "figure" for c in nb.cells]
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(lambda m: posixpath.normpath(f"nbs/{m[0]}"), cell.source)
        else:
            cell.metadata.transient = {"remove_source": directive(cell, "echo") == "false"}
            cell.source = DIRECTIVE.sub("", cell.source)
    text, files = MarkdownExporter().from_notebook_node(nb, {"unique_key": "index", "output_files_dir": "nbs/images"})
    text = re.sub(r"!\[\w+\]\((nbs/images/index_(\d+)_)", lambda m: f"![{alts[int(m[2])]}]({m[1]}", text)
    text = re.sub(r"\n\s*\n(?=\S|    )", "\n\n", STYLE.sub("", text)).strip()
    Path("README.md").write_text(f"<!-- Generated from nbs/index.ipynb by `make export`. -->\n\n{text}\n", encoding="utf-8")

    for old in Path("nbs/images").glob("index_*"): old.unlink()
    for name, data in files["outputs"].items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(data)


def export():
    "Clean the notebooks, then write the modules and the README from them."
    nbdev_clean()
    nbdev_export()
    readme()


if __name__ == "__main__":
    os.chdir(ROOT)
    export()
