"Everything that CI checks. `python tools/check.py 00_image site` runs the checks with such a word in their name."
import hashlib, html, os, re, shlex, shutil, subprocess, sys, tempfile, time, traceback, venv
from concurrent.futures import ProcessPoolExecutor, as_completed
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat, numpy as np, papermill, yaml
from packaging.utils import canonicalize_name as canonical
from papermill.exceptions import PapermillExecutionError

import browse, docs, export, faults, fuzz, pages, references
from pneumo.phantoms import phantoms
from pneumo.run import is_study

ROOT = Path(__file__).resolve().parent.parent
RUNS = Path("runs/check")
FEW = ROOT/RUNS/"few.npz"  # phantoms of 64 pixels
TIMEOUT = 600  # seconds for one cell

# Small parameters of the notebooks, beside `out`, which every notebook with a number has. Those of the studies vary
# every parameter that costs little, as text where a list or a mapping is meant, because `papermill -p` passes text.
PARAMETERS = {
    "04_patients": dict(n_boot=100),
    "12_evaluate": dict(n_boot=100),
    "16_explain": dict(epochs=1, limit=256, seeds28=1, seeds64=1, many=20, n_real=20),
    "23_clip": dict(n_query=5),
    "24_search": dict(limit=60, n_vec=1000),
    "32_audit": dict(n_boot=100),
    "50_classification": dict(epochs=1, image_size=28, batch_size=64, lr=1e-3, seeds="[0, 1]", passes=1,
                              options='{"zoom": 0.3}', limit=512, n_boot=50),
    "51_reports": dict(strategies="concise,retrieved", samples=4, limit=60, tokens=50, temperature=.1, seed=1,
                       encoder="pixels", k=3, n_boot=50),
    "52_retrieval": dict(encoders="pneumonet,pneumoclip", finer="pneumonet64", image_size=32, kind="flat", gallery="val",
                         ks="1,5", limit=100, n_boot=20, bench="1000"),
    "53_robustness": dict(epochs_plain=1, epochs_lite0=1, size_lite0=32, folds=2, epochs_folds=1, severities="[1, 5]",
                          limit=160, n_boot=50),
    "54_files": dict(films=2, limit=2, seed=1),
    "56_resolution": dict(data=str(FEW), fine=64, sizes="28", chosen=28, seeds="0,1", n_fine=1, n_teachers=2,
                          epochs=1, epochs_alone=1, passes=1, crop=.3, zoom=.2, shift=.1, limit=256, n_boot=20),
    "57_scale": dict(films=4, side=96, commands="predict,index", vectors="1000,2000", dim=16, shared=20,
                     many=40),
}
DAMAGED = 500  # files through the reader whenever everything is checked; `check.py fuzz` takes ten times as many

# Run from a wheel, alone in an empty folder, whenever everything is checked; `check.py wheel` runs every notebook so.
FROM_WHEEL = {"02_data", "index"}

# A path of one machine in an output; `precision/recall` or `https://…/a/b` is not one.
MACHINE_PATH = re.compile(r"(?<![\w:/.~-])/(?:(?:[\w.-]+/){2,}|(?:home|root|tmp|opt|mnt|work|Users)/)[\w.-]+")


class Skipped(Exception):
    "A check that cannot run here, and why."


def notebooks():
    "The notebooks, in order."
    return sorted(Path("nbs").glob("*.ipynb"))


def digests():
    "The content of every file that is exported, by name."
    files = [*notebooks(), *Path("nbs/images").glob("index_*"), *Path("pneumo").rglob("*.py"), Path("README.md")]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def drift():
    "The modules and the README are what the notebooks say, and no module is left without its notebook."
    sources = "\n".join(nb.read_text(encoding="utf-8") for nb in notebooks())
    wanted = set(re.findall(r"#\|\s*default_exp\s+([\w.]+)", sources))
    orphans = [str(f) for f in Path("pneumo").glob("*.py") if f.stem not in wanted | {"__init__", "_modidx"}]
    assert not orphans, f"no notebook exports {', '.join(orphans)}: delete it, or name it in a notebook's default_exp"
    before = digests()
    export.export()
    after = digests()
    changed = sorted(f for f in before | after if before.get(f) != after.get(f))
    assert not changed, (f"out of step with the notebooks: {', '.join(changed)}\n"
                         "now brought in step; look at the changes and commit them")


def text_of(output):
    "What a reader sees of an output: its stream, plain text, Markdown, and HTML without tags, styles and scripts."
    data = output.get("data", {})
    page = re.sub(r"<(style|script|svg)\b.*?</\1>|<[^>]+>", " ", data.get("text/html", ""), flags=re.S)
    shown = [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", ""), html.unescape(page)]
    return "\n".join(shown)


def cells():
    "(where, cell) for every cell of every notebook."
    for path in notebooks():
        for n, cell in enumerate(nbformat.read(path, 4).cells): yield f"{path}, cell {n}", cell


def fault(output):
    "What no stored output may hold, in words; None when it holds none of it."
    if output.output_type == "error": return f"stored error {output.ename}: {output.evalue}"
    if output.get("name") == "stderr": return f"stored stderr: {output.text.strip()[:80]}"
    if found := MACHINE_PATH.search(text_of(output)): return f"a path of one machine: {found[0]}"


def outputs():
    "The stored outputs hold no error, no stderr, no path of one machine, and no notebook weighs a megabyte."
    heavy = [p for p in notebooks() if p.stat().st_size >= 1e6]
    found = [f"{p}: {p.stat().st_size/1e6:.1f} MB; keep it under 1 MB" for p in heavy]
    found += [f"{where}: {wrong}" for where, cell in cells() for o in cell.get("outputs", []) if (wrong := fault(o))]
    assert not found, "\n".join(found)


def silenced():
    "No cell hides a failing test."
    hiding = [where for where, cell in cells() if cell.source.lstrip().startswith("%%capture")]
    why = "%%capture swallows errors, a failing test too; use `with capture_output():`"
    found = [f"{where}: {why}" for where in hiding]
    assert not found, "\n".join(found)


def lint():
    "Where pyproject.toml says: no unused name, no line over 120, one statement a line, no complexity above 20."
    ruff = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "."]
    checked = subprocess.run(ruff, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def options(source):
    "The `#| name: value` options of a cell, as the renderers read them; None when they cannot."
    lines = [line[2:] for line in source.splitlines() if re.match(r"#\|\s*[\w-]+\s*:", line)]
    try: return yaml.safe_load("\n".join(lines)) or {}
    except yaml.YAMLError: return None


def unlabelled(cell, labels):
    "What the options of a cell with a figure lack, in words; its label joins those of the notebook."
    given = options(cell.source)
    if given is None: return "its options are not YAML; put the texts in double quotes"
    missing = [k for k in ("label", "fig-cap", "fig-alt") if not given.get(k)]
    if missing: return f"a figure without {', '.join(missing)}"
    label = given["label"]
    if not re.fullmatch(r"fig-[\w-]+", label): return f"label {label} does not begin with fig-"
    if label in labels: return f"label {label} is taken"
    labels.add(label)


def figures():
    "Every figure that a reader sees has a caption, alternative text and a label of its own."
    found, labels = [], {}
    for where, cell in cells():
        shown = any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
        hidden = re.search(r"^#\|\s*(hide\b|include:\s*false)", cell.source, re.M)
        if not shown or hidden: continue
        taken = labels.setdefault(where.partition(",")[0], set())  # of this notebook
        if wrong := unlabelled(cell, taken): found.append(f"{where}: {wrong}")
    assert not found, "\n".join(found)


def citations():
    "Whatever is cited as (Name, year) has its entry in nbs/references.bib."
    found = {f"{where}: {c}" for where, cell in cells() for c in references.unknown(cell.source)}
    assert not found, f"not in {references.BIB}:\n" + "\n".join(sorted(found))


def results():
    "The README quotes the first row of every study's headline, to the digit, from the stored run."
    from pneumo.run import find_studies, headline_line, stored_headline
    readme = Path("README.md").read_text(encoding="utf-8")
    stale = [p.name for p in find_studies() if (h := stored_headline(p)) and headline_line(h) not in readme]
    assert not stale, (f"README.md does not quote {', '.join(stale)} as stored: "
                       "execute nbs/index.ipynb and run `make export`")


def lock():
    "The lock file names every package that pneumo asks for."
    from packaging.requirements import Requirement
    config = ConfigParser(delimiters=["="])
    config.read("settings.ini", encoding="utf-8")
    lines = Path(".github/lock.txt").read_text(encoding="utf-8").splitlines()
    held = {canonical(line.split("==")[0]): line.split("==")[1].split(";")[0].strip() for line in lines if "==" in line}
    asked = [Requirement(r) for r in config["DEFAULT"]["requirements"].split()]
    fits = lambda r: (version := held.get(canonical(r.name))) and r.specifier.contains(version, prereleases=True)
    wrong = [str(r) for r in asked if not fits(r)]
    assert not wrong, f"not in .github/lock.txt: {', '.join(wrong)}; its first lines say how it is made"


def small(path, out=None):
    "The small parameters of one notebook; a page without a number has none."
    if not path.stem[0].isdigit(): return {}
    from_root = "" if is_study(path) else "../"  # a chapter writes from where it stands
    return {"out": out or f"{from_root}{RUNS}/{path.stem}", **PARAMETERS.get(path.stem, {})}


def draw_few():
    "Write a small data set of phantoms, of more pixels than the benchmark's, to `FEW`."
    arrays = {}
    for split, n in dict(train=256, val=160, test=120).items():
        drawn = phantoms(n, seed=n, prevalence=.6, scale=1, size=64)
        arrays |= {f"{split}_images": drawn["x"], f"{split}_labels": drawn["y"][:, None]}
    np.savez(FEW, **arrays)


def execute(path):
    "Run one notebook as papermill users do, with small parameters that must reach it."
    parameters = small(path)
    shutil.rmtree(RUNS/path.stem, ignore_errors=True)
    nb = papermill.execute_notebook(path, RUNS/path.name, parameters, cwd="nbs", kernel_name="python3",
                                    progress_bar=False, execution_timeout=TIMEOUT,
                                    extra_arguments=["--log-level=CRITICAL"])
    tags = {t for c in nb.cells for t in c.metadata.get("tags", [])}
    missing = sorted({"parameters", "injected-parameters"} - tags)
    assert not parameters or not missing, (f"{path} has no cell tagged {' or '.join(missing)}: "
                                           "papermill could not set its parameters")


def called(*command, **kw):
    "Run a command; its output."
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **kw).stdout


def copy_source(source):
    "Copy the project without its notebooks: setuptools would also pack what an earlier build left behind."
    for name in called("git", "ls-files", "-co", "--exclude-standard").split("\n"):
        if not name or name.startswith("nbs/") or not Path(name).is_file(): continue
        (source/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, source/name)


def install_wheel():
    "Build the wheel and install it alone into a fresh environment, which borrows all else from this one; its Python."
    home, source = (RUNS/"wheel").resolve(), (RUNS/"source").resolve()
    for folder in (home, source): shutil.rmtree(folder, ignore_errors=True)
    copy_source(source)
    venv.create(home)
    python = home/"bin"/"python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    called(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", home, source)
    called(*pip, "--python", python, "install", "--no-deps", *home.glob("*.whl"))
    site = next(home.glob("lib/python*/site-packages"))
    borrowed = "\n".join(p for p in sys.path if p.endswith("-packages"))
    (site/"borrowed.pth").write_text(borrowed + "\n", encoding="utf-8")
    return python


def alone(path, python):
    "Run one notebook from the wheel, in a folder that holds nothing else and lies in no checkout."
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    given = yaml.safe_dump(small(path, "out"))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        where = called(python, "-c", "import pneumo; print(pneumo.__file__)", cwd=folder, env=env)
        assert Path(where).is_relative_to(python.parent.parent), f"pneumo comes from {where}, not from the wheel"
        called(python, "-m", "papermill", path.name, "executed.ipynb", "-k", "python3", "--no-progress-bar",
               "--log-level", "ERROR", "-y", given, cwd=folder, env=env)


def readme_commands():
    "The commands of the README that need no checkout, without their comments."
    blocks = re.findall(r"^```bash\n(.*?)^```", Path("README.md").read_text(encoding="utf-8"), re.S | re.M)
    lines = (shlex.split(line, comments=True) for line in "".join(blocks).replace("\\\n", "").splitlines())
    return [words for words in lines if words[:1] == ["pneumo"] and words[1] not in ("run", "sweep")]


def readme(python):
    "Every command of the README, in its order, by the wheel alone, in a folder that holds an X-ray and a folder of two."
    from PIL import Image
    commands = readme_commands()
    with tempfile.TemporaryDirectory() as folder:
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PNEUMO_CACHE": f"{folder}/cache"}
        films = [Image.fromarray(x) for x in phantoms(3, seed=1, size=300)["x"]]
        Path(folder, "scans").mkdir()
        for film, name in zip(films, ("xray.jpeg", "scans/a.png", "scans/b.png")): film.save(Path(folder, name))
        for c in commands: called(python.with_name("pneumo"), *c[1:], cwd=folder, env=env)
    assert len(commands) > 5, f"only {len(commands)} commands found in the README"


class Page(HTMLParser):
    "The links and the anchors of one built page."
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.add(attrs.get("id"))
        if tag != "base": self.links |= {attrs[k] for k in ("href", "src") if attrs.get(k)}


def strayed(built):
    "Pages that link to the source of another module than their own."
    for path, page in built.items():
        modules = {m for link in page.links for m in re.findall(r"/pneumo/(\w+)\.py#L", link)}
        if others := modules - {path.stem}: yield f"{path.stem} → {', '.join(others)}"


def leads_nowhere(path, link, built):
    "Does a link inside the site miss its page or its anchor?"
    url = urlsplit(link)
    if url.scheme or url.netloc: return False
    target = (path.parent/unquote(url.path)).resolve() if url.path else path
    if target.is_dir(): target /= "index.html"
    if not target.exists(): return True
    return bool(url.fragment) and target in built and unquote(url.fragment) not in built[target].ids


def site():
    "The site builds, every notebook has its page, and every link and image inside the site leads somewhere."
    docs.build()
    missing = [nb.name for nb in notebooks() if not (docs.SITE/pages.page_of(nb.name)).exists()]
    assert not missing, f"no page for {', '.join(missing)}"
    built = {p.resolve(): Page(p) for p in docs.SITE.rglob("*.html")}
    betrayed = [p.name for p in built if str(ROOT) in p.read_text(encoding="utf-8")]
    assert not betrayed, f"a path of this machine in {', '.join(betrayed)}"
    other = list(strayed(built))
    assert not other, f"the source of another module: {'; '.join(other)}"
    links = [(p, link) for p, page in built.items() for link in sorted(page.links)]
    dead = [f"{p.name}: {link}" for p, link in links if leads_nowhere(p, link, built)]
    assert not dead, "dead links\n" + "\n".join(dead)


def browser():
    "The site in a browser: no console error, no dead image, alternative text, search, phone width, dark mode."
    if not browse.found():
        raise Skipped(f"no browser here ({', '.join(browse.BROWSERS)}); on Debian: apt-get install chromium")
    if not docs.SITE.exists(): docs.build()
    wrong = browse.problems(docs.SITE)
    assert not wrong, "\n".join(wrong)


def damaged_files(n):
    "Damaged files are read or refused in one line: no crash, no exception, no hang, bounded memory."
    found = fuzz.check(n, RUNS/"fuzz")
    assert not found, f"{len(found)} of {n} files; they are kept in {RUNS/'fuzz'}\n" + "\n".join(found)


def injected(kinds):
    "Nothing is lost to a kill, to a second writer, or to Ctrl-C: (kind of fault, which commands) pairs, each tried once."
    lost = [fault for kind, only in kinds for fault in faults.check([kind], 1, only=only, say=lambda line: None)[1]]
    assert not lost, "\n".join(lost)


def command():
    "The command answers."
    subprocess.run([Path(sys.executable).with_name("pneumo"), "--help"], check=True, capture_output=True, text=True)


def attempt(name, check, *args):
    "Run one check; its name, its seconds, and what went wrong, if anything."
    start, problem = time.time(), ""
    try: check(*args)
    except Skipped as e: return name, None, str(e)
    except (AssertionError, PapermillExecutionError) as e: problem = str(e)
    except subprocess.CalledProcessError as e: problem = f"{e}\n{e.stderr}"
    except Exception: problem = traceback.format_exc()
    problem = re.sub(r"\x1b\[[0-9;]*m", "", problem).strip()
    return name, time.time() - start, "\n".join(problem.splitlines()[-20:])


def packed(stem, names):
    "Is this notebook to run from the wheel?"
    if not names: return stem in FROM_WHEEL
    return any(n.startswith("wheel") and n in f"wheel_{stem}" for n in names)


def run_checks(names):
    "Run the checks whose name contains one of `names`, or all, notebooks two at a time; yield each result as it comes."
    wanted = lambda name: not names or any(n in name for n in names)
    for check in (command, lint, lock, drift, outputs, silenced, figures, citations, results):
        if wanted(check.__name__): yield attempt(check.__name__, check)
    jobs = [(nb.stem, execute, nb) for nb in reversed(notebooks()) if wanted(nb.stem)]  # the long ones first
    from_wheel = [nb for nb in notebooks() if packed(nb.stem, names)]
    if from_wheel or wanted("readme"):
        python = install_wheel()
        jobs += [(f"wheel_{nb.stem}", alone, nb, python) for nb in from_wheel]
        if wanted("readme"): jobs.append(("readme", readme, python))
    if wanted("faults") and names: yield attempt("faults", injected, [(kind, "") for kind in faults.KINDS])
    elif wanted("faults"):
        yield attempt("faults_interrupts", injected, [("interrupts", "predict")])   # it has a deadline: alone
        jobs.append(("faults", injected, [("kills", "predict"), ("pairs", "index add")]))
    if wanted("fuzz"): jobs.insert(0, ("fuzz", damaged_files, DAMAGED*10 if names else DAMAGED))
    if wanted("site"): jobs.insert(0, ("site", site))
    if any("56_resolution" in name for name, *_ in jobs): draw_few()
    with ProcessPoolExecutor(2) as pool:
        for job in as_completed([pool.submit(attempt, *job) for job in jobs]): yield job.result()
    if wanted("browser"): yield attempt("browser", browser)


def main(names):
    "Print a line for each check, then how many passed and failed."
    if data := os.environ.get("PNEUMO_DATA"):
        os.environ["PNEUMO_DATA"] = str(Path(data).resolve())  # kernels run in nbs/
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # two notebooks share the cores
    RUNS.mkdir(parents=True, exist_ok=True)
    count = dict.fromkeys(("ok", "FAIL", "skip"), 0)
    for name, seconds, problem in run_checks(names):
        verdict = "skip" if seconds is None else "FAIL" if problem else "ok"
        count[verdict] += 1
        print(f"{verdict:<5}{name:<28}" + (f"{seconds:6.1f} s" if seconds is not None else ""), flush=True)
        if problem: print("     " + problem.replace("\n", "\n     "), flush=True)
    print(f"{count['ok']} passed, {count['FAIL']} failed" + f", {count['skip']} skipped"*(count["skip"] > 0))
    return count["FAIL"] > 0 or count["ok"] == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
