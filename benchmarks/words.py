"""What the seed of pneumoclip's text tower changes: train it anew for each seed, and ask each the written queries.

    python benchmarks/words.py                        # three seeds, some minutes of one core each
    python benchmarks/words.py --seeds 0 --out runs/benchmarks/words.json

The images are the test images of PneumoniaMNIST. Results go into a JSON file, written anew after every seed, with the digest of the
tower that the seed gave, so that nbs/22_retrieval.ipynb, which shows benchmarks/words.json, can tell which one is shipped.
"""
import argparse, json, time
from pathlib import Path

from pneumo.data import load_data, save_json
from pneumo.embed import QUERIES, ClipConfig, create_encoder, state_digest, train_pneumoclip
from pneumo.search import evaluate_texts

USES = ("kept", "blind", "blind2")


def measure(seed, splits, folder, k=10):
    "Train one seed; precision@k by use, overall and by class."
    path, start = folder/f"seed{seed}.safetensors", time.process_time()
    train_pneumoclip(splits["train"], path, ClipConfig(seed=seed))
    clip = create_encoder(f"pneumoclip:{path}")
    row = dict(seed=seed, seconds=round(time.process_time()-start), digest=state_digest(clip.head))
    e = clip.encode_images(splits["test"].x)
    for use in USES:
        r = evaluate_texts(clip, e, splits["test"].y, [q for q in QUERIES if q["use"]==use], (k,), 1)[0]
        row |= {f"{use}{name}": r[f"{metric}precision@{k}"]["value"] for name,metric in (("", ""), (" normal", "normal_"), (" pneumonia", "pneumonia_"))}
    return row


def run(seeds=(0, 1, 2), out="runs/benchmarks/words.json", data="auto", say=print):
    "Measure, write and return a row for each seed."
    out, splits, rows = Path(out), load_data(data), []
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        rows.append(measure(seed, splits, out.parent))
        save_json(dict(rows=rows), out)
        say(json.dumps(rows[-1]))
    return rows


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--data", default="auto")
    p.add_argument("--out", default="runs/benchmarks/words.json")
    run(**vars(p.parse_args()))
