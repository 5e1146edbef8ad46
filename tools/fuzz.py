"Damaged files through the reader and the command. `python tools/fuzz.py 5000` makes so many; the same number makes the same files."
import io, json, os, queue, re, subprocess, sys, tempfile, threading
from pathlib import Path

import numpy as np

SECONDS = 5          # of the processor, for one file
PATIENCE = 60        # seconds on the clock before a reader is stopped: other work may slow it down
MEGABYTES = 1500     # resident, with the network loaded
PER_FOLDER = 60      # files in each folder for the command
READER = """
import json, math, resource, sys, time
import numpy as np
from pneumo.image import InputError, Radiograph, read_radiograph
from pneumo.trust import assess
assess([Radiograph(np.zeros((64,64), np.uint8))])

def answer(path):
    try: film = read_radiograph(path)
    except InputError as e: return "not one line" if "\\n" in str(e) or not str(e).startswith(path) else ""
    g = film.pixels
    if g.dtype != np.uint8 or g.ndim != 2: return f"not grey levels: {g.dtype} {g.shape}"
    row = assess([film])[0]
    finite = all(math.isfinite(row[k]) for k in ("probability", "low", "high", "ood"))
    return "" if finite else "a probability that is no number"

for path in map(str.strip, sys.stdin):
    start = time.process_time()
    try: fault = answer(path)
    except BaseException as e: fault = f"{type(e).__name__}: {e}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak //= 2**20 if sys.platform=="darwin" else 1024
    print(json.dumps(dict(fault=fault, seconds=time.process_time()-start, megabytes=peak)), flush=True)
"""


def picture():
    "A synthetic chest of 96 × 80 pixels: two dark lungs, a heart, ribs, a little noise."
    y, x = np.mgrid[-1:1:80j, -1:1:96j]
    lungs = sum(np.exp(-(((x-c)/.3)**4 + ((y-.05)/.6)**4)) for c in (-.45, .45))
    heart = np.exp(-(((x-.15)/.3)**2 + ((y-.3)/.35)**2))
    grey = 170 - 120*lungs + 60*heart + 8*np.sin(25*y + 4*x**2) + np.random.default_rng(0).normal(0, 4, x.shape)
    return grey.clip(0, 255).astype(np.uint8)


def ordinary():
    "Suffix and content of the image formats that Pillow and tifffile write."
    import tifffile
    from PIL import Image
    g = picture()
    deep, colour = g.astype(np.uint16)*11 + 600, np.dstack([g]*3)
    exif = Image.Exif()
    exif[0x0112] = 6

    def pillow(a, kind, **options):
        im = a if isinstance(a, Image.Image) else Image.fromarray(a)
        im.save(b := io.BytesIO(), kind, **options)
        return b.getvalue()

    def tiff(a, **options):
        tifffile.imwrite(b := io.BytesIO(), a, **options)
        return b.getvalue()

    few, inks = Image.fromarray(colour).quantize(64), Image.fromarray(g).convert("CMYK")
    return [(".png", pillow(g, "PNG")), (".png", pillow(deep, "PNG")), (".png", rgb16(deep)), (".png", pillow(few, "PNG")),
            (".jpg", pillow(g, "JPEG")), (".jpg", pillow(colour, "JPEG", progressive=True, exif=exif)),
            (".jpg", pillow(inks, "JPEG")), (".tif", tiff(g)), (".tif", tiff(deep, tile=(32, 32), compression="zlib")),
            (".tif", tiff(np.stack([deep]*3), photometric="rgb", planarconfig="separate")),
            (".tif", tiff(g/np.float32(255), photometric="miniswhite")), (".tif", pillow(g, "TIFF", compression="tiff_lzw")),
            (".bmp", pillow(g, "BMP")), (".gif", pillow(g, "GIF")), (".webp", pillow(colour, "WEBP")),
            (".webp", pillow(colour, "WEBP", lossless=True)), (".jp2", pillow(g, "JPEG2000")),
            (".j2k", pillow(deep, "JPEG2000", no_jp2=True))]


def rgb16(grey):
    "A PNG with 16 bits in three channels, which Pillow does not write."
    import struct, zlib
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind+body))
    h, w = grey.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.dstack([grey]*3))
    head = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def dicom():
    "Suffix and content of DICOM files in several transfer syntaxes."
    import pydicom
    from PIL import Image
    from pydicom import uid
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    g = picture()
    deep = g.astype(np.uint16)*11 + 600

    def dataset(a, syntax=uid.ExplicitVRLittleEndian, **tags):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = syntax
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
        meta.MediaStorageSOPInstanceUID = "1.2.3"
        ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        bits = 12 if a.itemsize>1 else 8
        given = dict(SOPClassUID=meta.MediaStorageSOPClassUID, SOPInstanceUID="1.2.3", Modality="CR", BodyPartExamined="CHEST",
                     PatientAge="003Y", Rows=a.shape[0], Columns=a.shape[1], SamplesPerPixel=1,
                     PhotometricInterpretation="MONOCHROME2", BitsAllocated=8*a.itemsize, BitsStored=bits, HighBit=bits-1,
                     PixelRepresentation=0)
        for k, v in (given | tags).items(): setattr(ds, k, v)
        ds.PixelData = (a.byteswap() if syntax==uid.ExplicitVRBigEndian else a).tobytes()
        ds["PixelData"].VR = "OW" if a.itemsize>1 else "OB"
        return ds

    def written(ds):
        pydicom.dcmwrite(b := io.BytesIO(), ds, enforce_file_format=True)
        return ".dcm", b.getvalue()

    def wrapped(kind, syntax, **options):
        Image.fromarray(g).save(b := io.BytesIO(), kind, **options)
        ds = dataset(g, syntax)
        ds.PixelData = encapsulate([b.getvalue()])
        return written(ds)

    table = Dataset()
    table.add_new((0x0028,0x3002), "US", [2806, 600, 12])
    table.add_new((0x0028,0x3006), "OW", np.linspace(0, 4095, 2806).astype("<u2").tobytes())
    palette = dataset(g, PhotometricInterpretation="PALETTE COLOR")
    for i in range(3):
        palette.add_new((0x0028,0x1101+i), "US", [256, 0, 16])
        palette.add_new((0x0028,0x1201+i), "OW", (np.arange(256)*257).astype("<u2").tobytes())
    rle = dataset(deep)
    rle.compress(uid.RLELossless)
    window = dict(WindowCenter=2002.5, WindowWidth=2806)
    plain = [dataset(deep, **window), dataset(deep, uid.ImplicitVRLittleEndian, PixelPaddingValue=600),
             dataset(deep, uid.DeflatedExplicitVRLittleEndian), dataset(deep, uid.ExplicitVRBigEndian, **window),
             dataset(deep, VOILUTSequence=[table]), palette, rle]
    return [*map(written, plain), wrapped("JPEG", uid.JPEGBaseline8Bit), wrapped("JPEG2000", uid.JPEG2000Lossless, no_jp2=True)]


def place(data, rng):
    "Somewhere in a file, half of the time in its first 600 bytes, where headers are."
    return int(rng.integers(min(len(data), 600 if rng.random()<.5 else len(data))))


def flip(data, other, rng):
    for _ in range(rng.integers(1, 9)): data[place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def extreme(data, other, rng):
    "A field of 2 or 4 bytes gets an extreme value."
    size, at, order = int(rng.choice([2, 4])), place(data, rng), str(rng.choice(["little", "big"]))
    top = 256**size
    value = int(rng.choice([0, 1, top//2-1, top//2, top-1, top-2, 65535 if size==4 else 255]))
    data[at:at+size] = value.to_bytes(size, order)
    return data


def blank(data, other, rng):
    "A range becomes zeros or ones."
    at, n = place(data, rng), int(rng.integers(1, 200))
    data[at:at+n] = bytes([int(rng.choice([0, 255]))])*len(data[at:at+n])
    return data


def cut(data, other, rng): return data[:place(data, rng)+1]


def remove(data, other, rng):
    at = place(data, rng)
    return data[:at] + data[at+int(rng.integers(1, 300)):]


def repeat(data, other, rng):
    at, n = place(data, rng), int(rng.integers(1, 300))
    return data[:at] + data[at:at+n]*int(rng.integers(2, 50)) + data[at:]


def splice(data, other, rng): return data[:place(data, rng)] + other[place(other, rng):]


def noise(data, other, rng):
    at = place(data, rng)
    return data[:at] + bytearray(rng.bytes(int(rng.integers(1, 64)))) + data[at:]


DAMAGES = (flip, extreme, blank, cut, remove, repeat, splice, noise)


def damaged(n):
    "So many damaged files: name and content. The same number gives the same files."
    bases = [*ordinary(), *dicom()]
    for i in range(n):
        rng = np.random.default_rng(i)
        suffix, data = bases[i % len(bases)]
        data, other = bytearray(data), bytearray(bases[rng.integers(len(bases))][1])
        for _ in range(1 + (rng.random()<.3)):
            damage = DAMAGES[rng.integers(len(DAMAGES))]
            data = damage(data, other, rng) or bytearray(1)
        yield f"{i:05}{suffix if rng.random()<.9 else ''}", bytes(data)


class Reader:
    "A process that reads one file after another; when it dies or hangs, another takes its place."
    def __init__(self): self.process = None

    def start(self):
        command = [sys.executable, "-W", "ignore", "-c", READER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines, self.said = queue.Queue(), []
        threading.Thread(target=self._pump, args=(self.process.stdout, self.lines.put), daemon=True).start()
        threading.Thread(target=self._pump, args=(self.process.stderr, self.said.append), daemon=True).start()

    def _pump(self, stream, take):
        for line in stream: take(line)
        take(None)

    def stop(self):
        if self.process: self.process.kill(); self.process.wait()
        self.process = None

    def __call__(self, path):
        "What is wrong about the reading of one file, or an empty string."
        if not self.process: self.start()
        print(path, file=self.process.stdin, flush=True)
        try: line = self.lines.get(timeout=PATIENCE)
        except queue.Empty: self.stop(); return f"no answer in {PATIENCE} s"
        if line is None:
            code = self.process.wait()
            words = "".join(filter(None, self.said))[-300:]
            self.stop()
            return f"the reader died with {code}: {words}"
        r = json.loads(line)
        if r["megabytes"] > MEGABYTES: self.stop(); return f"{r['megabytes']} MB"
        return r["fault"] or (f"{r['seconds']:.1f} s" if r["seconds"] > SECONDS else "")


def through_reader(n, kept):
    "Read every damaged file; problems as lines, their files kept."
    read, problems = Reader(), []
    with tempfile.TemporaryDirectory() as folder:
        for name, data in damaged(n):
            path = Path(folder)/name
            path.write_bytes(data)
            if fault := read(path):
                (kept/name).write_bytes(data)
                problems.append(f"{kept/name}: {fault}")
            path.unlink()
    read.stop()
    return problems


def through_command(names, kept):
    "`pneumo predict FOLDER --json` accounts for every file; problems as lines."
    from pneumo.image import InputError, find_radiographs
    with tempfile.TemporaryDirectory() as folder:
        for name, data in names: (Path(folder)/name).write_bytes(data)
        command = [Path(sys.executable).with_name("pneumo"), "predict", folder, "--json"]
        env = os.environ | {"PYTHONUTF8": "1"}
        r = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, env=env)
        try: wanted = len(find_radiographs(folder)[0])
        except InputError: wanted = 0
    try: rows = len(json.loads(r.stdout or "[]"))
    except ValueError as e: return [f"{names[0][0]}…: no JSON ({e})"]
    errors = len(re.findall(r"^error: ", r.stderr, re.M))
    expected = 0 if rows and not errors else 1 if rows else 2
    found = {"a traceback": "Traceback" in r.stderr, "an exception": "a fault of pneumo" in r.stderr,
             f"exit status {r.returncode}, not {expected}": r.returncode!=expected,
             f"{rows} rows and {errors} errors of {wanted} files": bool(wanted) and rows+errors!=wanted}
    return [f"{names[0][0]} to {names[-1][0]}: {words}: {r.stderr[-300:]}" for words, is_so in found.items() if is_so]


def check(n, kept):
    "All problems of so many damaged files, as lines; files at fault are kept in a folder."
    kept = Path(kept).resolve()
    kept.mkdir(parents=True, exist_ok=True)
    problems = through_reader(n, kept)
    files = list(damaged(min(n, 10*PER_FOLDER) if n>=1000 else min(n, 2*PER_FOLDER)))
    for i in range(0, len(files), PER_FOLDER): problems += through_command(files[i:i+PER_FOLDER], kept)
    return problems


if __name__ == "__main__":
    found = check(int(sys.argv[1]) if len(sys.argv)>1 else 500, "runs/fuzz")
    print("\n".join(found) or "nothing found")
    sys.exit(bool(found))
