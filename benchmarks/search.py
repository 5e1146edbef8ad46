"""Index kinds at growing size: build time, memory, recall@10 and queries a second on one thread.

    python benchmarks/search.py                       # 10⁴, 10⁵ and 10⁶ vectors; about 15 minutes of one core
    python benchmarks/search.py --sizes 10000 --out runs/benchmarks/small.json

The vectors are pneumoclip's of PneumoniaMNIST's training images, drawn with replacement, moved by noise as long as the median
distance to the nearest neighbour, and scaled back to length one; the queries come from the validation images in the same way.
Results go into a JSON file, written anew after every row so that a run that is stopped loses one row at most; rows that are
there already are not measured again. The study nbs/52_retrieval.ipynb shows them.
"""
import argparse, json, os, time
from pathlib import Path

for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"): os.environ[k] = "1"  # before numpy and faiss start their pools

import faiss, numpy as np
from pneumo.data import load_data, save_json
from pneumo.embed import create_encoder, embed, unit
from pneumo.search import KINDS, make_faiss

K = 10


def jitter(e, n, seed):
    "`n` vectors around those of `e`, as far apart as neighbours in `e` are."
    rng = np.random.default_rng(seed)
    s = e @ e.T
    np.fill_diagonal(s, -1)
    gap = np.sqrt(np.maximum(2 - 2*np.median(s.max(1)), 1e-8))
    picked = e[rng.integers(len(e), size=n)]
    noise = rng.standard_normal(picked.shape, dtype=np.float32)
    return unit(picked + noise*np.float32(gap/np.sqrt(e.shape[1])))


def depths(index, kind):
    "Depths of search to try, and how to set one; None where there is nothing to set."
    if kind in ("ivf", "ivfpq"): return [d for d in (1, 2, 4, 8, 16, 32, 64, 96, 128, 192) if d <= index.nlist], lambda d: setattr(index, "nprobe", d)
    if kind == "hnsw": return [16, 32, 64, 128, 256], lambda d: setattr(index.hnsw, "efSearch", d)
    return [None], lambda d: None


def default_depth(index, kind):
    "The depth that the package sets."
    return index.nprobe if kind in ("ivf", "ivfpq") else index.hnsw.efSearch if kind == "hnsw" else None


def speed(search, q, least=.5):
    "Queries a second: whole passes over the queries until `least` seconds have gone by; process time, so that a busy machine does not count."
    done, start = 0, time.process_time()
    while time.process_time() - start < least: search(q); done += len(q)
    return done / (time.process_time() - start)


def measure(v, q, truth, kind):
    "One row for each depth of one kind."
    wall, cpu = time.perf_counter(), time.process_time()
    index = make_faiss(v, kind)
    built = dict(build_seconds=time.process_time()-cpu, build_wall_seconds=time.perf_counter()-wall, megabytes=faiss.serialize_index(index).nbytes/2**20)
    own = default_depth(index, kind)
    values, set_depth = depths(index, kind)
    rows = []
    for d in sorted({*values, own}, key=lambda x: x or 0):
        set_depth(d)
        found = index.search(q, K)[1]
        recall = np.mean([len(set(a) & set(b))/K for a, b in zip(truth, found)])
        rows.append(dict(kind=kind, n=len(v), depth=d, default=d == own, recall=float(recall), queries_per_second=speed(lambda q: index.search(q, K), q), **built))
    return rows


def sklearn_row(v, q, truth):
    "scikit-learn's brute force on the same vectors."
    from sklearn.neighbors import NearestNeighbors
    cpu = time.process_time()
    nn = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="cosine").fit(v)
    built = time.process_time()-cpu
    found = nn.kneighbors(q, return_distance=False)
    recall = np.mean([len(set(a) & set(b))/K for a, b in zip(truth, found)])
    return [dict(kind="sklearn brute", n=len(v), depth=None, default=True, recall=float(recall), queries_per_second=speed(lambda q: nn.kneighbors(q), q),
                 build_seconds=built, build_wall_seconds=built, megabytes=v.nbytes/2**20)]


def run(sizes=(10**4, 10**5, 10**6), kinds=KINDS, queries=500, out="runs/benchmarks/search.json", data="auto", encoder="pneumoclip", sklearn_up_to=10**5, say=print):
    "Measure, write and return all rows."
    faiss.omp_set_num_threads(1)
    out, enc, splits = Path(out), create_encoder(encoder), load_data(data)
    e, eq = embed(enc, splits["train"].x), embed(enc, splits["val"].x)
    setup = dict(encoder=enc.name, digest=enc.digest, dim=enc.dim, data=splits["train"].source, queries=queries, k=K, threads=1)
    old = json.loads(out.read_text()) if out.exists() else {}
    rows = old["rows"] if old.get("setup") == setup else []
    for n in sizes:
        wanted = [k for k in (*kinds, *(["sklearn brute"] if n <= sklearn_up_to else [])) if not any(r["kind"] == k and r["n"] == n for r in rows)]
        if not wanted: continue
        v, q = jitter(e, n, n), jitter(eq, queries, 1)
        truth = make_faiss(v, "flat").search(q, K)[1]
        for kind in wanted:
            rows += sklearn_row(v, q[:100], truth[:100]) if kind == "sklearn brute" else measure(v, q, truth, kind)
            save_json(dict(setup=setup, rows=rows), out)
            r = next(r for r in reversed(rows) if r["default"])
            say(f"{kind:<14} n = {n:<9} build {r['build_seconds']:7.1f} s  {r['megabytes']:7.1f} MB  recall@10 {r['recall']:.3f}  {r['queries_per_second']:9.0f} queries/s")
    return dict(setup=setup, rows=rows)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    p.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    p.add_argument("--queries", type=int, default=500)
    p.add_argument("--data", default="auto")
    p.add_argument("--encoder", default="pneumoclip")
    p.add_argument("--out", default="runs/benchmarks/search.json")
    run(**vars(p.parse_args()))
