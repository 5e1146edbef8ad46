"Everything that CI checks. `python tools/check.py 00_data site` runs only the checks whose name contains one of these."
import ast, hashlib, html, os, re, shutil, subprocess, sys, time, traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat, papermill
from papermill.exceptions import PapermillExecutionError

import docs, export

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("runs/check")
TIMEOUT = 600  # seconds for one cell

# Small parameters for each notebook, beside `out`, which every notebook but the index has.
PARAMETERS = {
    "05_evaluate": dict(n_boot=100),
    "11_audit": dict(n_boot=100),
    "20_classification": dict(epochs=1, seeds=[0], limit=512, n_boot=50, out=f"{RUNS}/20_classification"),
}

# A path of one machine in an output; `precision/recall` or `https://…/a/b` is not one.
MACHINE_PATH = re.compile(r"(?<![\w:/.~-])/(?:(?:[\w.-]+/){2,}|(?:home|root|tmp|opt|mnt|work|Users)/)[\w.-]+")


def notebooks():
    "The notebooks, in order."
    return sorted(Path("nbs").glob("*.ipynb"))


def digests():
    "The content of every file that is exported, by name."
    files = [*notebooks(), *Path("nbs/images").glob("index_*"), *Path("pneumo").rglob("*.py"), Path("README.md")]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def drift():
    "The modules and the README are what the notebooks say, and no module is left without its notebook."
    wanted = {m for nb in notebooks() for m in re.findall(r"#\|\s*default_exp\s+([\w.]+)", nb.read_text(encoding="utf-8"))}
    orphans = [str(f) for f in Path("pneumo").glob("*.py") if f.stem not in wanted | {"__init__", "_modidx"}]
    assert not orphans, f"no notebook exports {', '.join(orphans)}: delete it, or name it in a notebook's default_exp"
    before = digests()
    export.export()
    after = digests()
    changed = sorted(f for f in before | after if before.get(f) != after.get(f))
    assert not changed, f"out of step with the notebooks: {', '.join(changed)}\nnow brought in step; look at the changes and commit them"


def text_of(output):
    "What a reader sees of an output: its stream, plain text, Markdown, and HTML without tags, styles and scripts."
    data = output.get("data", {})
    page = re.sub(r"<(style|script|svg)\b.*?</\1>|<[^>]+>", " ", data.get("text/html", ""), flags=re.S)
    return "\n".join([output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", ""), html.unescape(page)])


def outputs():
    "The stored outputs hold no error, no stderr, no path of one machine, and no notebook weighs a megabyte."
    found = []
    for path in notebooks():
        if path.stat().st_size >= 1e6: found.append(f"{path}: {path.stat().st_size/1e6:.1f} MB; keep it under 1 MB")
        cells = nbformat.read(path, 4).cells
        for n, output in ((n, o) for n, c in enumerate(cells) for o in c.get("outputs", [])):
            if output.output_type == "error": found.append(f"{path}, cell {n}: stored error {output.ename}: {output.evalue}")
            elif output.get("name") == "stderr": found.append(f"{path}, cell {n}: stored stderr: {output.text.strip()[:80]}")
            elif m := MACHINE_PATH.search(text_of(output)): found.append(f"{path}, cell {n}: a path of one machine: {m[0]}")
    assert not found, "\n".join(found)


def imports():
    "A cell that imports does nothing else, unless it is exported: to build the site nbdev runs such cells, and only those."
    found = []
    for path in notebooks():
        if "default_exp" not in path.read_text(encoding="utf-8"): continue  # nothing to document, nothing is run
        for n, cell in enumerate(nbformat.read(path, 4).cells):
            if cell.cell_type != "code" or re.search(r"^#\|\s*(export|eval:\s*false)", cell.source, re.M): continue
            try: kinds = {type(node) for node in ast.walk(ast.parse(cell.source))}
            except SyntaxError: continue  # a cell with magics, which nbdev does not run either
            if kinds & {ast.Import, ast.ImportFrom} and kinds & {ast.Expr, ast.Assign}:
                code = export.DIRECTIVE.sub("", cell.source).strip()
                found.append(f"{path}, cell {n}: its imports belong in a cell of their own: {code.splitlines()[0][:60]}")
    assert not found, "\n".join(found)


def execute(path):
    "Run one notebook as papermill users do, with small parameters that must reach it."
    name = path.stem
    parameters = {} if name == "index" else {"out": f"../{RUNS}/{name}", **PARAMETERS.get(name, {})}
    shutil.rmtree(RUNS/name, ignore_errors=True)
    nb = papermill.execute_notebook(path, RUNS/path.name, parameters, cwd="nbs", kernel_name="python3",
                                    progress_bar=False, execution_timeout=TIMEOUT, extra_arguments=["--log-level=CRITICAL"])
    tags = {t for c in nb.cells for t in c.metadata.get("tags", [])}
    missing = {"parameters", "injected-parameters"} - tags
    assert name == "index" or not missing, f"{path} has no cell tagged {' or '.join(sorted(missing))}: papermill could not set its parameters"


class Page(HTMLParser):
    "The links and the anchors of one built page."
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        self.links |= {attrs[k] for k in ("href", "src") if attrs.get(k)}


def site():
    "The site builds, every notebook has its page, and every link and image inside the site leads somewhere."
    docs.build()
    missing = [nb.name for nb in notebooks() if not (docs.SITE/docs.page(nb.name)).exists()]
    assert not missing, f"no page for {', '.join(missing)}"
    pages = {p.resolve(): Page(p) for p in docs.SITE.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in sorted(page.links):
            url = urlsplit(link)
            if url.scheme or url.netloc: continue
            target = (path.parent/unquote(url.path)).resolve() if url.path else path
            if target.is_dir(): target /= "index.html"
            if not target.exists() or (url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids):
                dead.append(f"{path.name}: {link}")
    assert not dead, "dead links\n" + "\n".join(dead)


def command():
    "The command answers."
    subprocess.run([Path(sys.executable).with_name("pneumo"), "--help"], check=True, capture_output=True, text=True)


def attempt(name, check, *args):
    "Run one check; its name, its seconds, and what went wrong, if anything."
    start, problem = time.time(), ""
    try: check(*args)
    except (AssertionError, PapermillExecutionError) as e: problem = str(e)
    except subprocess.CalledProcessError as e: problem = f"{e}\n{e.stderr}"
    except Exception: problem = traceback.format_exc()
    problem = re.sub(r"\x1b\[[0-9;]*m", "", problem).strip()
    return name, time.time() - start, "\n".join(problem.splitlines()[-20:])


def results(wanted):
    "Run the wanted checks, the notebooks two at a time, and yield each result as it comes."
    for check in (command, drift, outputs, imports):
        if wanted(check.__name__): yield attempt(check.__name__, check)
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(attempt, nb.stem, execute, nb) for nb in reversed(notebooks()) if wanted(nb.stem)]  # the long ones first
        for job in as_completed(jobs): yield job.result()
    if wanted("site"): yield attempt("site", site)


def main(names):
    "Print a line for each check, then how many passed and failed."
    if "PNEUMO_DATA" in os.environ: os.environ["PNEUMO_DATA"] = str(Path(os.environ["PNEUMO_DATA"]).resolve())  # kernels run in nbs/
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # two notebooks share the cores
    RUNS.mkdir(parents=True, exist_ok=True)
    passed = failed = 0
    for name, seconds, problem in results(lambda name: not names or any(n in name for n in names)):
        print(f"{'FAIL' if problem else 'ok':<5}{name:<24}{seconds:6.1f} s", flush=True)
        if problem: print("     " + problem.replace("\n", "\n     "), flush=True)
        passed, failed = passed + (not problem), failed + bool(problem)
    print(f"{passed} passed, {failed} failed")
    return failed > 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
