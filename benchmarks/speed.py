"""How fast is it, beside what it replaces, on this machine: `python benchmarks/speed.py`.

Training. The design that pneumo starts from fine-tunes EfficientNet-B0 at 224 pixels, batch 32, for 20 epochs and quotes a test AUC near 0.94.
Its time is measured on some steps and multiplied out: 20 epochs of 4708 images, without validation or augmentation. Ours is the time of whole runs
of 1, 2, 3, … epochs, until one reaches that AUC. The test split is read as a stop-watch here, and for nothing else: no choice follows from it.

Prediction. Milliseconds a call under PyTorch and onnxruntime by batch size, the whole of `assess`, and seconds of `pneumo predict` from cold.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from pneumo.data import load_data, save_json
from pneumo.framing import to_tensor
from pneumo.model import create_model, load_model, predict_proba
from pneumo.onnx import OnnxClassifier, export_onnx
from pneumo.train import TrainConfig, train
from pneumo.trust import assess

GOAL, EPOCHS, IMAGES = .94, 20, 4708  # what the design quotes for EfficientNet-B0, and how long it trains


def milliseconds(call, repeats):
    "Median time of a call, after two to warm up."
    call(); call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def b0_seconds(x, y, steps, image_size=224, batch=32):
    "Seconds a training image of EfficientNet-B0."
    model = create_model("efficientnet_b0", image_size, pretrained="no")
    opt = torch.optim.AdamW(model.parameters(), 1e-4)
    x, y = to_tensor(x[:batch]), torch.from_numpy(y[:batch]).float()

    def step():
        torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        opt.step(); opt.zero_grad()

    return milliseconds(step, steps) / 1e3 / batch


def our_seconds(splits, model, seed, most):
    "The first whole run that reaches the goal: its epochs, seconds and test AUC."
    for epochs in range(1, most + 1):
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            net = train(splits, TrainConfig(model=model, epochs=epochs, seed=seed), out)
            seconds = time.perf_counter() - start
        auc = roc_auc_score(splits["test"].y, predict_proba(net, splits["test"].x))
        print(f"  {epochs} epochs: {seconds:.1f} s, test AUC {auc:.4f}", file=sys.stderr)
        if auc >= GOAL: break
    return dict(epochs=epochs, seconds=seconds, test_auc=auc, reached=bool(auc >= GOAL))


def training(splits, args):
    "Our training beside EfficientNet-B0's."
    tr = splits["train"]
    image = b0_seconds(tr.x, tr.y, args.steps)
    ours, b0 = our_seconds(splits, args.model, args.seed, args.most), image * IMAGES * EPOCHS
    return {"EfficientNet-B0, 224 px, batch 32": dict(seconds_an_image=image, seconds=b0), args.model: ours, "times faster": b0 / ours["seconds"]}


def latency(x, onnx_file, repeats=30):
    "Milliseconds a call, by batch size and runtime; and of a whole assessment."
    model = load_model()
    export_onnx(model, onnx_file)
    exported, res = OnnxClassifier(onnx_file), {}
    with torch.inference_mode():
        for n in (1, 8, 64, 256):
            t = to_tensor(x[:n])
            a = t.numpy()
            res[n] = {"PyTorch": milliseconds(lambda: model(t), repeats), "onnxruntime": milliseconds(lambda: exported.logits(a), repeats)}
    whole = {"PyTorch": milliseconds(lambda: assess(x[:1], model), repeats), "onnxruntime": milliseconds(lambda: assess(x[:1], exported), repeats)}
    return res, whole


def cold(image, *options, repeats=3):
    "Seconds of `pneumo predict` in a process of its own; the best, for the first reads the disk."
    command = [Path(sys.executable).with_name("pneumo"), "predict", image, "--json", *options]
    return min(milliseconds(lambda: subprocess.run(command, check=True, capture_output=True), 1) for _ in range(repeats)) / 1e3


def table(res):
    "The results as lines."
    t = res["training"]
    ours = t[res["model"]]
    b0 = t["EfficientNet-B0, 224 px, batch 32"]
    yield f"{res['threads']} threads, load {res['load']:.1f} at the start, PyTorch {torch.__version__}"
    yield f"EfficientNet-B0, 224 px, batch 32   {b0['seconds_an_image']*1e3:8.1f} ms an image, {b0['seconds']:9.0f} s for {EPOCHS} epochs"
    yield f"{res['model']:<35} {ours['seconds']:8.1f} s for {ours['epochs']} epochs, test AUC {ours['test_auc']:.4f}" + ("" if ours["reached"] else f": {GOAL} NOT REACHED")
    yield f"{'times faster':<35} {t['times faster']:8.0f}"
    for n, r in res["latency_ms"].items(): yield f"network, {n:>3} images {'':16} {r['PyTorch']:8.2f} ms PyTorch, {r['onnxruntime']:8.2f} ms onnxruntime"
    yield f"{'assess, 1 image':<35} {res['assess_ms']['PyTorch']:8.2f} ms PyTorch, {res['assess_ms']['onnxruntime']:8.2f} ms onnxruntime"
    yield f"{'pneumo predict, from cold':<35} {res['cold_s']['PyTorch']:8.2f} s  PyTorch, {res['cold_s']['onnxruntime']:8.2f} s  onnxruntime"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default="auto", help="auto, pneumoniamnist, phantoms, an .npz file or a folder")
    p.add_argument("--model", default="pneumonet", help="what is trained against EfficientNet-B0")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=5, help="timed steps of EfficientNet-B0, after two to warm up")
    p.add_argument("--most", type=int, default=10, help="epochs at most")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("runs/benchmarks/speed.json"))
    args = p.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    splits, load = load_data(args.data), os.getloadavg()[0]
    res = dict(model=args.model, data=splits["train"].source, threads=args.threads, load=load, training=training(splits, args))
    with tempfile.TemporaryDirectory() as tmp:
        image, onnx = Path(tmp) / "xray.png", Path(tmp) / "net.onnx"
        Image.fromarray(np.kron(splits["val"].x[0], np.ones((20, 20), np.uint8))).save(image)
        res["latency_ms"], res["assess_ms"] = latency(splits["val"].x, onnx)
        res["cold_s"] = {"PyTorch": cold(image), "onnxruntime": cold(image, "--onnx", str(onnx))}
    save_json(res, args.out)
    if splits["train"].banner: print(splits["train"].banner)
    print("\n".join(table(res)))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
