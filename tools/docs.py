"Build the site from the stored outputs into _docs/: with Quarto where it is on the PATH, with smalldocs otherwise."
import os, re, shutil, subprocess
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


def tidy(path, site_url):
    "Rename one processed notebook to its page's name, make its links relative, and drop noise from executed imports."
    nb = nbformat.read(path, 4)
    local = lambda text: LINK.sub("", re.sub(rf"\]\({re.escape(site_url)}/(?=\w+\.html)", "](", text))
    for cell in nb.cells:
        if cell.cell_type == "markdown": cell.source = local(cell.source)
        if cell.cell_type == "raw": cell.source = re.sub(r"^output-file: .*\n", "", cell.source, flags=re.M)
        if cell.cell_type != "code": continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for data in (o.data for o in cell.outputs if "data" in o):
            if "text/markdown" in data: data["text/markdown"] = local(data["text/markdown"])
    path.unlink()
    nbformat.write(nb, path.with_name(NUMBER.sub("", path.name)))


def build():
    "Process the notebooks into _proc/, render them, and leave the site in _docs/."
    cfg = get_config()
    site_url = cfg.doc_host + cfg.doc_baseurl
    _build_modidx()
    proc_nbs("nbs", force=True)
    for path in PROC.glob("*.ipynb"): tidy(path, site_url)
    config = NUMBER.sub("", Path("_quarto.yml").read_text(encoding="utf-8"))
    config = config.replace("{git_url}", cfg.git_url).replace("{site_url}", site_url)
    (PROC/"_quarto.yml").write_text(config, encoding="utf-8")

    if shutil.which("quarto"): subprocess.run(["quarto", "render", PROC], check=True)
    else:
        for warning in smalldocs.site.build(PROC, quiet=True).warnings: print("smalldocs:", warning)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(PROC/SITE, SITE)


if __name__ == "__main__":
    os.chdir(ROOT)
    build()
    print(f"The site is in {SITE}/; open {SITE}/index.html")
