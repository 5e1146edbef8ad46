"""How fast is it, beside what it replaces, on this machine: `python benchmarks/speed.py`.

Training. The design that pneumo starts from fine-tunes EfficientNet-B0 at 224 pixels, batch 32, for 20 epochs and quotes a test AUC near 0.94.
Its time is measured on some steps and multiplied out: 20 epochs of 4708 images, without validation or augmentation. Ours is the time of whole runs
of 1, 2, 3, … epochs, until one reaches that AUC. The test split is read as a stop-watch here, and for nothing else: no choice follows from it.

Prediction. Milliseconds a call under PyTorch and onnxruntime by batch size, the whole of `assess` on a quiet machine and beside two busy processes,
and seconds of `pneumo predict` and `pneumo --help` from cold.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from pneumo.data import load_data, save_json
from pneumo.framing import to_tensor
from pneumo.model import WEIGHTS, create_model, predict_proba, shipped_model
from pneumo.runtime import shipped_onnx
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


def latency(x, repeats=30):
    "Milliseconds a call of the network of 28 pixels, by batch size and runtime."
    model, program, res = shipped_model(), shipped_onnx(), {}
    with torch.inference_mode():
        for n in (1, 8, 64, 256):
            t = to_tensor(x[:n])
            res[n] = {"PyTorch": milliseconds(lambda: model(t), repeats), "onnxruntime": milliseconds(lambda: program.scores(x[:n]), repeats)}
    return res


def whole(x, repeats=60):
    "Milliseconds of the assessment of one image, warm, by size and runtime."
    return {size: {"PyTorch": milliseconds(lambda: assess(of_size, shipped_model(size)), repeats), "onnxruntime": milliseconds(lambda: assess(of_size), repeats)}
            for size, of_size in x.items()}


def beside_busy(call, n=2):
    "The same while other processes keep so many cores busy."
    with ExitStack() as stack:
        for _ in range(n):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        time.sleep(.5)
        return call()


def cold(*arguments, repeats=3):
    "Seconds of a command in a process of its own; the best, for the first reads the disk."
    command = [Path(sys.executable).with_name("pneumo"), *arguments]
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
    for when, by_size in res["assess_ms"].items():
        for size, r in by_size.items():
            yield f"{f'assess, {size} pixels, {when}':<35} {r['PyTorch']:8.2f} ms PyTorch, {r['onnxruntime']:8.2f} ms onnxruntime"
    for command, seconds in res["cold_s"].items(): yield f"{f'pneumo {command}, from cold':<35} {seconds:8.2f} s"


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
    x = {28: splits["val"].x[:1], 64: np.kron(splits["val"].x[:1, :16, :16], np.ones((1, 4, 4), np.uint8))}
    res["latency_ms"] = latency(splits["val"].x)
    res["assess_ms"] = {"quiet": whole(x), "busy": beside_busy(lambda: whole(x))}
    with tempfile.TemporaryDirectory() as tmp:
        image = Path(tmp) / "xray.png"
        Image.fromarray(np.kron(splits["val"].x[0], np.ones((20, 20), np.uint8))).save(image)
        res["cold_s"] = {"predict FILE": cold("predict", image, "--json"), "predict FILE --weights": cold("predict", image, "--weights", WEIGHTS), "--help": cold("--help")}
    save_json(res, args.out)
    if splits["train"].banner: print(splits["train"].banner)
    print("\n".join(table(res)))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
