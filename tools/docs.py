"Build the site from the stored outputs into _docs/: with Quarto where it is on the PATH, with smalldocs otherwise."
import os, re, shutil, subprocess, sys
from pathlib import Path

import nbformat, smalldocs.site, yaml
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.serve import proc_nbs

from pages import NUMBER, ROOT, commands, documented, tidy
from pneumo.page import write_page
from pneumo.run import ROOMS, is_study

PROC, SITE, STAGE = Path("_proc"), Path("_docs"), Path("runs/site")
FONT = re.compile(r"@import\s*(url\()?[\"']?https?://fonts\.[^)\"']*[\"']?\)?;")
EXPORTED = re.compile(r"^#\|\s*(export|default_exp)", re.M)


def sidebars():
    "Three sidebars: the pages without a number, the rooms of the library, the studies; each in order."
    names = sorted(p.name for p in Path("nbs").glob("*.ipynb"))
    start = ["index.ipynb", *(n for n in names if not n[0].isdigit() and n != "index.ipynb")]
    rooms = {room: [n for n in names if n[0] in digits] for room, digits in ROOMS.items()}
    studies = rooms.pop("Studies")
    start.remove("library.ipynb")
    library = ["library.ipynb", *({"section": room, "contents": found} for room, found in rooms.items() if found)]
    contents = {"Start": start, "Library": library, "Studies": studies}
    return [{"id": name.lower(), "style": "floating", "contents": c} for name, c in contents.items()]


def configure(cfg, site_url):
    "Write the configuration of the site beside the processed notebooks."
    config = yaml.safe_load(Path("_quarto.yml").read_text(encoding="utf-8"))
    config["website"]["sidebar"] = sidebars()
    text = NUMBER.sub("", yaml.dump(config, sort_keys=False, allow_unicode=True))
    text = text.replace("{git_url}", cfg.git_url).replace("{site_url}", site_url)
    (PROC/"_quarto.yml").write_text(text, encoding="utf-8")
    for name in ("site.css", "favicon.svg"): shutil.copy(f"tools/{name}", PROC)


def stage():
    "Copy the notebooks so that nbdev executes exported cells alone: documenting a function needs no example to run."
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    for path in Path("nbs").glob("*.ipynb"):
        nb = nbformat.read(path, 4)
        for cell in nb.cells:
            if cell.cell_type == "code" and not EXPORTED.search(cell.source):
                cell.source = f"#| eval: false\n{cell.source}"
        nbformat.write(nb, STAGE/path.name)


def render():
    "Render _proc/ with the renderer that is here."
    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", PROC], check=True, env={**os.environ, "QUARTO_PYTHON": sys.executable})
        return
    for warning in smalldocs.site.build(PROC, quiet=True).warnings:
        if any(known in warning for known in ("html.grid", "try.html", "respect-user-color")): continue  # Quarto's; added below
        print("smalldocs:", warning)


BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
FETCHED = re.compile(r'<script[^>]+src="https?://[^"]*(?:jquery|require)[^"]*"[^>]*></script>')   # Quarto adds them for tables
ABSENT = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Not here – pneumo</title><base href="{base}">
<style>html {{ background: Canvas; color: CanvasText; }} a {{ color: LinkText; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem; }}</style></head>
<body><main><h1>This page is not here</h1><p>It may have moved: <a href="index.html">start</a>,
<a href="library.html">the library</a>, <a href="classification.html">the studies</a>,
<a href="try.html">try it</a>, <a href="running.html">run it</a>.</p></main></body></html>
"""


def described(text, name, site_url):
    "A page with its address, and with what other sites show of it when it is shared."
    title = re.search(r"<title>(.*?)</title>", text, re.S)[1]
    about = re.search(r'<meta name="description" content="([^"]*)"', text)
    address = f"{site_url}/{name}".replace("/index.html", "/")
    shown = {"og:type": "website", "og:title": title, "og:url": address, "og:image": f"{site_url}/card.png",
             "og:description": about[1] if about else ""}
    lines = [f'<meta property="{k}" content="{v}">' for k, v in shown.items() if f'property="{k}"' not in text]
    if 'rel="canonical"' not in text: lines.append(f'<link rel="canonical" href="{address}">')
    if 'name="twitter:card"' not in text: lines.append('<meta name="twitter:card" content="summary_large_image">')
    return text.replace("</head>", "\n".join(lines) + "</head>", 1)


def finish(cfg, site_url):
    "What both renderers leave open: nothing is fetched from elsewhere, pages have an address and a card, and one is for none."
    for path in SITE.glob("*.html"):
        text = FETCHED.sub("", path.read_text(encoding="utf-8").replace(BADGE, "colab.svg"))
        text = text.replace('bi-github" role="img">', 'bi-github" aria-hidden="true">')  # its word stands beside it
        path.write_text(described(text, path.name, site_url), encoding="utf-8")
    shutil.copy("tools/colab.svg", SITE)
    shutil.copy(max(Path("nbs/images").glob("index_*.png"), key=lambda f: f.stat().st_size), SITE/"card.png")
    (SITE/"404.html").write_text(ABSENT.format(base=f"{cfg.doc_baseurl.rstrip('/')}/"), encoding="utf-8")


def build():
    "Process the notebooks into _proc/, render them, and leave the site in _docs/."
    cfg = get_config()
    site_url = cfg.doc_host + cfg.doc_baseurl
    _build_modidx()
    stage()
    proc_nbs(str(STAGE), force=True)
    processed = {path: nbformat.read(path, 4) for path in PROC.glob("*.ipynb")}
    anchors = set().union(*map(documented, processed.values()))
    known = commands()
    named = {path: NUMBER.sub("", path.name) for path in processed}
    if twice := {name for name in named.values() if list(named.values()).count(name) > 1}:
        raise SystemExit(f"Two notebooks become the page {', '.join(sorted(twice))}: rename one of them.")
    for path, nb in processed.items():
        name = named[path]
        tidy(nb, name.removesuffix(".ipynb"), site_url, anchors, known, study=is_study(path))
        path.unlink()
        nbformat.write(nb, path.with_name(name))
    configure(cfg, site_url)
    render()
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(PROC/SITE, SITE)
    for css in SITE.rglob("*.css"):  # the themes fetch a font from elsewhere, and site.css names another
        css.write_text(FONT.sub("", css.read_text(encoding="utf-8")), encoding="utf-8")
    write_page(SITE/"try.html", home="index.html")
    finish(cfg, site_url)


if __name__ == "__main__":
    os.chdir(ROOT)
    build()
    print(f"The site is in {SITE}/; open {SITE}/index.html")
