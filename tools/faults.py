"""Faults, injected: kills, pairs of writers, full and read-only disks, Ctrl-C. `python tools/faults.py` tries all of them
in full and prints a table; `python tools/faults.py --small interrupt` one kind, a few times."""
import argparse, json, os, random, shutil, signal, subprocess, sys, tempfile, time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
from PIL import Image

from pneumo.data import save_json
from pneumo.phantoms import phantoms

PNEUMO = str(Path(sys.executable).with_name("pneumo"))
PATIENCE = 300        # seconds for one process


class Lost(Exception): "Something that was there is not, or a process ended otherwise than it should."


def start(*line, cwd):
    "A process of its own group, as a terminal starts it."
    env = os.environ | {"PNEUMO_CACHE": str(cwd/"cache"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.Popen(list(map(str, line)), cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors="replace", start_new_session=True)


def ended(p):
    "Status, stdout and stderr of a process; no traceback is ever shown."
    try: out, err = p.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        raise Lost(f"still running after {PATIENCE} s: {' '.join(p.args[1:])}") from None
    if "Traceback" in err: raise Lost(f"a traceback: {err[-600:]}")
    return p.returncode, out, err


def done(*line, cwd):
    "Run a command that must succeed; its stdout."
    code, out, err = ended(start(PNEUMO, *line, cwd=cwd))
    if code: raise Lost(f"status {code}: pneumo {' '.join(map(str, line))}: {err[-400:]}")
    return out


def films(folder, n, seed=0):
    "So many phantoms as files."
    folder.mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(phantoms(n, seed=seed, size=64)["x"]): Image.fromarray(x).save(folder/f"{seed}-{i:04}.png")
    return sorted(folder.glob(f"{seed}-*.png"))


def labelled(cwd, n=240):
    "A data set of one's own: so many phantoms in a folder for each class."
    ph = phantoms(n, seed=2, prevalence=.5)
    for i, (x, y) in enumerate(zip(ph["x"], ph["y"])):
        folder = cwd/"data"/("pneumonia" if y else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(folder/f"{i:03}.png")


def index_ids(folder):
    "The ids of an index that opens."
    from pneumo.search import open_index
    return set(open_index(folder).items.query("alive").id)


def lines(path): return [json.loads(t) for t in path.read_text().splitlines()]


def leftovers(folder):
    "Hidden files, which no command may leave."
    return [f.name for f in folder.rglob(".*") if f.is_file()]


class Job:
    "A command that writes: how it is called, what shows that it is at work, and what must be true after it was resumed."
    def __init__(self, name, setup, line, begun, again=(), whole=lambda cwd: None):
        self.name, self.setup, self.line, self.begun, self.again, self.whole = name, setup, line, begun, again, whole

    def prepared(self, base):
        cwd = Path(tempfile.mkdtemp(prefix=f"{self.name.replace(' ', '-')}-", dir=base))
        self.setup(cwd)
        return cwd

    def started(self, cwd):
        "The process, once it is at work."
        p, since = start(PNEUMO, *self.line, cwd=cwd), time.time()
        while p.poll() is None and not self.begun(cwd):
            if time.time()-since > PATIENCE: raise Lost(f"{self.name} did not begin")
            time.sleep(.01)
        return p


def some_films(n): return lambda cwd: films(cwd/"films", n)


def with_index(n=120):
    def setup(cwd):
        labelled(cwd)
        films(cwd/"films", n)
        films(cwd/"more", n, seed=1)
        done("index", "build", "--data", "data", "--split", "all", "--encoder", "pixels", "--out", "index", cwd=cwd)
    return setup


def study(cwd):
    "A small notebook that works for a while and leaves something behind."
    import nbformat
    (cwd/"settings.ini").write_text("[DEFAULT]\n")
    (cwd/"nbs").mkdir()
    nb = nbformat.v4.new_notebook()
    given = nbformat.v4.new_code_cell('epochs: int = 40   # of them\nseed: int = 0   # one\nout: str = "runs"   # folder')
    given.metadata["tags"] = ["parameters"]
    nb.cells = [nbformat.v4.new_markdown_cell("# A study"), given, nbformat.v4.new_code_cell(
        "import time\nfrom pathlib import Path\nPath(out).mkdir(parents=True, exist_ok=True)\n"
        "for i in range(epochs):\n    time.sleep(.1)\n    (Path(out)/'at').write_text(str(i))")]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, cwd/"nbs"/"50_small.ipynb")


def begun_after(marker, seconds=0):
    "Is there a file of this pattern, and was there for so long?"
    def begun(cwd):
        there = list(cwd.glob(marker))
        return bool(there) and time.time()-there[0].stat().st_mtime >= seconds
    return begun


def after(seconds):
    "So long after it was started: for commands that show nothing until they are done."
    since = {}
    return lambda cwd: time.time() - since.setdefault(cwd, time.time()) > seconds


def check_train(cwd):
    from pneumo.model import load_model
    load_model(cwd/"run"/"model.safetensors")
    if len(json.loads((cwd/"run"/"history.json").read_text()))!=12: raise Lost("not twelve epochs")


def check_index(want):
    def whole(cwd):
        ids = index_ids(cwd/"index")
        if len(ids)!=want: raise Lost(f"{len(ids)} images in the index, not {want}")
    return whole


def check_reports(cwd):
    got = [r["id"] for r in lines(cwd/"reports.jsonl")]
    if len(got)!=400 or len(set(got))!=400: raise Lost(f"{len(got)} reports, {len(set(got))} images, not 400")


def check_table(cwd):
    got = pd.read_csv(cwd/"table.csv")
    if len(got)!=400 or got.file.nunique()!=400: raise Lost(f"{len(got)} rows of {got.file.nunique()} files, not 400")


def check_pages(cwd):
    from pneumo.image import DISCLAIMER
    for f in (cwd/"cases").glob("*.html"):
        if DISCLAIMER not in f.read_text(): raise Lost(f"half a page: {f.name}")


TRAIN = ("train", "--data", "data", "--epochs", 12, "--out", "run")
JOBS = [
    Job("train", labelled, TRAIN, begun_after("run/checkpoint.pt"), ("--resume",), check_train),
    Job("train --workers 2", labelled, (*TRAIN, "--workers", 2), begun_after("run/checkpoint.pt"), ("--resume",),
        check_train),
    Job("index build", with_index(),
        ("index", "build", "--data", "data", "--split", "all", "--encoder", "pneumoclip", "--out", "index"), after(3), (),
        check_index(240)),
    Job("index add", with_index(), ("index", "add", "films", "--index", "index"), begun_after("index/.lock"), (),
        check_index(240+120)),
    Job("report", some_films(400), ("report", "films", "--out", "reports.jsonl"), begun_after("reports.jsonl"), ("--resume",),
        check_reports),
    Job("predict", some_films(400), ("predict", "films", "--out", "table.csv"), begun_after("table.csv.parts/*"), ("--resume",),
        check_table),
    Job("case", some_films(40), ("case", "films", "--out", "cases"), begun_after("cases/*.html"), (), check_pages),
    Job("explain", some_films(40), ("explain", "films", "--out", "maps"), begun_after("maps/*.png")),
    Job("run", study, ("run", "50"), begun_after("runs/*/*/at")),
    Job("sweep", study, ("sweep", "nbs/50_small.ipynb", "--grid", "seed=0,1,2", "--jobs", 2), begun_after("runs/**/at")),
    Job("search evaluate", labelled, ("search", "evaluate", "--data", "data", "--n-boot", 200000), after(5)),
    Job("evaluate", labelled, ("evaluate", "--data", "data", "--out", "figures", "--n-boot", 200000), after(5)),
    Job("demo", lambda cwd: None, ("demo", "--out", "demo"), after(4)),
]


def again(job, cwd, line):
    "The same command once more, to its end; then what must be true."
    if line[0]=="index" and "films" in line:
        from_before = index_ids(cwd/"index")
        if any("films" in i for i in from_before): return job.whole(cwd)   # it was complete before the fault
    if not ("--resume" in job.again and (cwd/"run"/"model.safetensors").exists()): done(*line, *job.again, cwd=cwd)
    job.whole(cwd)
    out = cwd/line[line.index("--out")+1] if "--out" in line else cwd
    if hidden := leftovers(out if out.is_dir() else cwd): raise Lost(f"left behind: {hidden}")


def kills(base, rounds, rng):
    "SIGKILL at a random moment of the work; the same command goes on."
    for job in [j for j in JOBS if j.again or j.name in ("index build", "index add", "run", "sweep")]:
        for _ in range(rounds): yield job.name, "killed", kill_once, (job, base, rng)


def kill_once(job, base, rng):
    cwd = job.prepared(base)
    p = job.started(cwd)
    if p.poll() is None:
        time.sleep(rng.random()*1.5)
        os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    again(job, cwd, job.line)
    return cwd


def interrupts(base, rounds, rng):
    "Ctrl-C, as a terminal sends it to every process of the command."
    for job in JOBS:
        for _ in range(rounds): yield job.name, "Ctrl-C", interrupt_once, (job, base)


def interrupt_once(job, base):
    cwd = job.prepared(base)
    p = job.started(cwd)
    if p.poll() is not None: raise Lost(f"ended before the interrupt: {ended(p)}")
    time.sleep(.2)
    workers = psutil.Process(p.pid).children(recursive=True)
    since = time.time()
    os.killpg(p.pid, signal.SIGINT)
    code, _, err = ended(p)
    took = time.time()-since
    said = err.strip().splitlines()[-1:] or [""]
    if code!=130 or "interrupted" not in said[0]: raise Lost(f"status {code}: {err[-300:]}")
    if took > 3: raise Lost(f"{took:.1f} s until it ended")
    if alive := psutil.wait_procs(workers, timeout=2)[1]: raise Lost(f"processes left: {alive}")
    if job.again: again(job, cwd, job.line)
    return cwd


def pairs(base, rounds, rng):
    "Two at once that write to one place."
    for _ in range(rounds):
        for pair in (two_adds, add_and_remove, two_trainings, two_reports, two_runs):
            yield pair.__doc__, "two at once", pair, (base,)


def both(cwd, *two):
    ps = [start(PNEUMO, *line, cwd=cwd) for line in two]
    return [ended(p) for p in ps]


def two_adds(base):
    "index add"
    cwd = Path(tempfile.mkdtemp(dir=base))
    with_index(60)(cwd)
    got = both(cwd, *(("index", "add", f, "--index", "index") for f in ("films", "more")))
    if [g[0] for g in got]!=[0, 0]: raise Lost(f"{got}")
    check_index(240+60+60)(cwd)
    return cwd


def add_and_remove(base):
    "index add, index remove"
    cwd = Path(tempfile.mkdtemp(dir=base))
    with_index(60)(cwd)
    got = both(cwd, ("index", "add", "films", "--index", "index"), ("index", "remove", "test/0", "test/1", "--index", "index"))
    if [g[0] for g in got]!=[0, 0]: raise Lost(f"{got}")
    check_index(240+60-2)(cwd)
    return cwd


def one_refused(got):
    codes = sorted(g[0] for g in got)
    if codes!=[0, 2]: raise Lost(f"not one success and one refusal: {got}")
    told = next(g[2] for g in got if g[0])
    if not any(w in told for w in ("is writing here", "holds a finished run", "exists; go on")): raise Lost(told)


def two_trainings(base):
    "train"
    cwd = Path(tempfile.mkdtemp(dir=base))
    labelled(cwd)
    one_refused(both(cwd, *[("train", "--data", "data", "--epochs", 1, "--out", "run", "--seed", s) for s in (0, 1)]))
    return cwd


def two_reports(base):
    "report"
    cwd = Path(tempfile.mkdtemp(dir=base))
    films(cwd/"films", 30)
    one_refused(both(cwd, *[("report", "films", "--out", "reports.jsonl")]*2))
    if len(lines(cwd/"reports.jsonl"))!=30: raise Lost("not 30 reports")
    return cwd


def two_runs(base):
    "run"
    cwd = Path(tempfile.mkdtemp(dir=base))
    study(cwd)
    got = both(cwd, *[("run", "50", "-p", "epochs=10")]*2)
    if 0 not in [g[0] for g in got] or any("is writing here" not in g[1]+g[2] for g in got if g[0]): raise Lost(f"{got}")
    return cwd


WRITERS = [   # everything that writes, and whether it begins from something that is there
    ("train", lambda o: ("train", "--data", "data", "--epochs", 1, "--out", o/"run")),
    ("evaluate", lambda o: ("evaluate", "--data", "data", "--n-boot", 50, "--out", o/"figures")),
    ("calibrate", lambda o: ("calibrate", o/"model.safetensors", "--data", "data")),
    ("export", lambda o: ("export", o/"network.onnx")),
    ("explain", lambda o: ("explain", "films", "--out", o/"maps")),
    ("report", lambda o: ("report", "films", "--out", o/"reports.jsonl")),
    ("predict", lambda o: ("predict", "films", "--out", o/"table.parquet")),
    ("case", lambda o: ("case", "films", "--out", o/"cases")),
    ("audit", lambda o: ("audit", "reports.jsonl", "--out", o/"audit.json")),
    ("index build", lambda o: ("index", "build", "--data", "data", "--encoder", "pixels", "--out", o/"index2")),
    ("index add", lambda o: ("index", "add", "films", "--index", o/"index")),
    ("index remove", lambda o: ("index", "remove", "test/0", "--index", o/"index")),
    ("search", lambda o: ("search", "image", "films", "--index", o/"index", "--out", o/"results.html")),
    ("page", lambda o: ("page", "--out", o/"try.html")),
    ("demo", lambda o: ("demo", "--out", o/"demo")),
    ("stdout", lambda o: ("predict", "films", "--json")),
]


def snapshot(folder): return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def disks(base, rounds, rng):
    "A full disk and a read-only one, as file systems of their own; needs root."
    if os.geteuid(): return
    cwd = Path(tempfile.mkdtemp(dir=base))
    with_index(24)(cwd)
    done("report", "films", "--out", "reports.jsonl", cwd=cwd)
    done("train", "--data", "data", "--epochs", 1, "--out", "run", cwd=cwd)
    for name, line in WRITERS:
        for kind in ("full disk", "read-only disk", "no cache"): yield name, kind, on_disk, (cwd, line, kind)


def on_disk(cwd, line, kind):
    disk = Path(tempfile.mkdtemp(dir=cwd))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    try:
        shutil.copytree(cwd/"index", disk/"index")
        shutil.copy(cwd/"run"/"model.safetensors", disk)
        if kind=="full disk":
            with open(disk/"ballast", "wb", buffering=0) as f, suppress(OSError):
                while True: f.write(bytes(4096))
        elif kind=="read-only disk": subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        before, words = snapshot(disk), list(map(str, line(disk)))
        is_stdout = words[0]=="predict" and "--json" in words
        env = os.environ | {"PNEUMO_CACHE": "/proc/nowhere" if kind=="no cache" else str(disk/"cache"), "NO_COLOR": "1"}
        out = open("/dev/full", "w") if is_stdout and kind=="full disk" else subprocess.PIPE
        r = subprocess.run([PNEUMO, *words], cwd=cwd, env=env, stdout=out, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
        if "Traceback" in r.stderr: raise Lost(f"a traceback: {r.stderr[-500:]}")
        if kind=="no cache" or (is_stdout and kind!="full disk"):
            if r.returncode: raise Lost(f"status {r.returncode}: {r.stderr[-400:]}")
            return None
        told = r.stderr.strip().splitlines()[-1]
        if r.returncode!=2 or not told.startswith("error:"): raise Lost(f"status {r.returncode}: {r.stderr[-400:]}")
        if not is_stdout and str(disk) not in told: raise Lost(f"no path in: {told}")
        now = snapshot(disk)
        if lost := [k for k, v in before.items() if now.get(k)!=v]: raise Lost(f"changed: {lost}")
        if new := [k for k in now if k not in before]: raise Lost(f"left behind: {new}")
    finally:
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()


KINDS = dict(kills=kills, interrupts=interrupts, pairs=pairs, disks=disks)


def check(kinds, rounds, seed=0, only="", say=print, out=None):
    "Inject faults; a row for each command and fault, and what was lost. `out` collects the rows of several calls."
    rng, lost = random.Random(seed), []
    before = json.loads(Path(out).read_text()) if out and Path(out).exists() else []
    rows = {(r["fault"], r["command"]): [r["tried"], r["survived"]] for r in before}
    with tempfile.TemporaryDirectory(prefix="faults-") as base:
        for kind in kinds:
            for name, fault, attempt, given in KINDS[kind](Path(base), rounds, rng):
                if only not in name: continue
                tried = rows.setdefault((fault, name), [0, 0])
                tried[0] += 1
                since = time.time()
                try:
                    cwd = attempt(*given)
                    tried[1] += 1
                    if cwd: shutil.rmtree(cwd)
                    say(f"ok   {fault:<15}{name:<22}{time.time()-since:6.1f} s")
                except (Lost, subprocess.TimeoutExpired) as e:
                    lost.append(f"{fault}, {name}: {e}")
                    say(f"LOST {fault:<15}{name:<22}{e}")
                if out: save_json([dict(fault=f, command=c, tried=n, survived=ok) for (f, c), (n, ok) in rows.items()], out)
    return rows, lost


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    p.add_argument("--small", action="store_true", help="each once")
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", help="a JSON file that collects the rows")
    p.add_argument("--only", default="", help="commands whose name holds this")
    given = p.parse_args()
    rows, lost = check(given.kinds, 1 if given.small else given.rounds, given.seed, given.only, out=given.out)
    print("\n| fault | command | tried | survived |\n|---|---|---|---|")
    for (fault, name), (n, ok) in rows.items(): print(f"| {fault} | {name} | {n} | {ok} |")
    print(f"\n{sum(n for n, _ in rows.values())} faults, {sum(n-ok for n, ok in rows.values())} not survived")
    return bool(lost)


if __name__ == "__main__": sys.exit(main())
