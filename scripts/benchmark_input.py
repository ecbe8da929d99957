"""The `input` suite of benchmark.py: crops a second from packed pictures, pinned to few cores.

Three sides make the same crops, in turn, each in a process of its own on the same cores:
`bare` is a loop over the same OpenCV calls alone (JPEGs and matrices are in memory, crops go into
the same four batches again and again), `nkjax` the endless stream (records read, augmentation
drawn, batches of 8), `torch` a DataLoader whose data set makes the same samples (as many workers as
cores; none on a single core).
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from benchmark_model import Side

ROOT = Path(__file__).resolve().parents[1]
CROP_WH, BATCH = (768, 1024), 8
JOINTS = 17


def draw_lab(folder: Path, size_wh, count: int) -> None:
    """Write pictures about as heavy as photographs (2 bits a pixel) and boxes around people."""
    rng = np.random.default_rng(0)
    width, height = size_wh
    (folder / "images").mkdir(parents=True)
    images, people = [], []
    for i in range(count):
        rough, fine = (
            cv2.resize(rng.normal(128, spread, (height // step, width // step, 3)), size_wh,
                       interpolation=cv2.INTER_CUBIC)
            for step, spread in ((40, 60), (4, 14))
        )  # fmt: skip
        picture = np.clip(rough + fine - 128, 0, 255).astype(np.uint8)
        name = f"{i:04d}.jpg"
        cv2.imwrite(str(folder / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        tall = height * rng.uniform(0.5, 0.95)
        wide = tall * rng.uniform(0.4, 0.7)
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - tall)
        at = rng.uniform((x, y), (x + wide, y + tall), (JOINTS, 2))
        joints = np.column_stack([at, np.full(JOINTS, 2)])
        images.append({"id": i + 1, "file_name": name, "width": width, "height": height})
        people.append({"id": i + 1, "image_id": i + 1, "category_id": 1, "iscrowd": 0,
                       "keypoints": joints.reshape(-1).tolist(), "num_keypoints": JOINTS,
                       "bbox": [x, y, wide, tall], "area": wide * tall * 0.53})  # fmt: skip
    from nkjax import skeleton

    category = {"id": 1, "name": "person", "keypoints": list(skeleton.load("coco17").keypoints)}
    labels = {"images": images, "annotations": people, "categories": [category]}
    (folder / "labels.json").write_text(json.dumps(labels))


def pack(lab: Path, out: Path) -> None:
    """Pack a lab folder through the command that labs use."""
    command = [sys.executable, str(ROOT / "scripts" / "pack_data.py"), "--annotations",
               str(lab / "labels.json"), "--images", str(lab / "images"), "--out", str(out),
               "--val_share", "0", "--test_share", "0"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"packing failed:\n{done.stdout}{done.stderr}")


# ---- one side, in its own process ------------------------------------------------------------


def serve(args) -> None:
    """Make all crops when told to, and answer with the seconds it took."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    from nkjax.data import augment, records, samples, streams

    rows = records.Rows(records.read_manifest(args.data), "train")
    look = samples.Look(CROP_WH, (("view", augment.SAPIENS),))
    stream = streams.Stream(rows, look, BATCH)
    step = {"bare": _bare, "nkjax": _nkjax, "torch": _torch}[args.side](stream, args.threads)
    print(json.dumps({"rows": len(rows)}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        start, cpu = time.perf_counter(), time.process_time()
        made = step()
        seconds = time.perf_counter() - start
        answer = {"s": seconds, "cpu_s": time.process_time() - cpu, "made": made}
        print(json.dumps(answer), flush=True)
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(json.dumps({"peak_bytes": int(peak) * 1024}), flush=True)


def _bare(stream, threads):
    from concurrent.futures import ThreadPoolExecutor

    from nkjax.data import samples
    from nkjax.geometry import affine

    manifest = stream.rows.manifest
    canvas, work = np.empty((CROP_WH[1], CROP_WH[0], 3), np.uint8), []
    for i in range(len(stream.rows)):
        row = stream.rows[i]
        made = samples.sample(row, i, 0, stream.look, manifest.skeleton, (), [canvas])
        view = affine.compose(made["views"]["view"]["from_canonical"], made["from_picture"])
        work.append((np.frombuffer(row["image"], np.uint8), view))
    cv2.setNumThreads(0)
    batches = np.empty((4 * BATCH, *canvas.shape), np.uint8)

    def crop(item, number):
        # None of these pictures is so large that the stream would decode it smaller.
        picture = cv2.imdecode(item[0], cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture)
        place = batches[number % len(batches)]
        cv2.warpAffine(picture, item[1], CROP_WH, place, flags=cv2.INTER_LINEAR)

    if threads == 1:
        return lambda: len([crop(item, i) for i, item in enumerate(work)])
    pool = ThreadPoolExecutor(threads)
    return lambda: len(list(pool.map(crop, work, range(len(work)))))


def _nkjax(stream, threads):
    from nkjax.data import streams

    batches = streams.endless({"": stream}, seed=0, threads=threads)
    steps = len(stream.rows) // BATCH
    return lambda: sum(int(next(batches)[""]["valid"].sum()) for _ in range(steps))


def _torch(stream, threads):
    import torch
    from torch.utils.data import DataLoader, Dataset

    from nkjax.data import samples

    skeleton = stream.rows.manifest.skeleton

    class Crops(Dataset):
        """The same samples, one at a time, as tensors."""

        def __len__(self):
            return len(stream.rows)

        def __getitem__(self, i):
            canvas = np.empty((CROP_WH[1], CROP_WH[0], 3), np.uint8)
            made = samples.sample(stream.rows[i], i, 0, stream.look, skeleton, (), [canvas])
            view = made["views"]["view"]
            return {key: torch.as_tensor(view[key]) for key in ("image", "points", "visible")}

    workers = threads if threads > 1 else 0
    loader = DataLoader(Crops(), BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda: sum(len(batch["image"]) for batch in loader)


# ---- all sides -------------------------------------------------------------------------------


def compare(args) -> None:
    """Time the sides in turn at three sizes of picture and print their rates and ratios."""
    names = ("bare", "nkjax", "torch")
    print(f"{args.threads} core(s), {args.pictures} pictures a round, crops of "
          f"{CROP_WH[0]}x{CROP_WH[1]}, augmentation of the Sapiens recipe")  # fmt: skip
    for size_wh in ((640, 480), (1280, 960), (1920, 1080)):
        with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
            lab, data = Path(scratch) / "lab", Path(scratch) / "data"
            draw_lab(lab, size_wh, args.pictures)
            weight = sum(p.stat().st_size for p in (lab / "images").iterdir()) / args.pictures
            pack(lab, data)
            argv = ["input", "--data", str(data), "--threads", str(args.threads)]
            sides = {name: Side(name, argv) for name in names}
            for i in range(args.rounds + 1):
                for side in sides.values():
                    answer = side.step()
                    assert answer["made"] == args.pictures, answer
                    if i:  # the first round warms caches and allocators up
                        side.steps.append(answer)
            peaks = {name: side.end() for name, side in sides.items()}
        # Beside other work on the machine, processor time is the steadier of the two.
        key = "cpu_s" if args.threads == 1 else "s"
        rates, ratios = {}, {}
        for name, side in sides.items():
            rates[name] = args.pictures / statistics.median(step[key] for step in side.steps)
            pairs = zip(sides["nkjax"].steps, side.steps, strict=True)
            ratios[name] = {
                k: statistics.median(theirs[k] / ours[k] for ours, theirs in pairs_of)
                for k, pairs_of in zip(("cpu_s", "s"), itertools.tee(pairs), strict=True)
            }
        print(f"{size_wh[0]}x{size_wh[1]} ({weight / 1024:.0f} KB), pictures a "
              + ("processor second: " if args.threads == 1 else "second: ")
              + ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
              + "; nkjax / "
              + ", nkjax / ".join(f"{name} {ratios[name][key]:.2f} (wall {ratios[name]['s']:.2f})"
                                  for name in ("bare", "torch"))
              + f"; peak {peaks['nkjax'] / 2**20:.0f} MiB (torch {peaks['torch'] / 2**20:.0f})",
              flush=True)  # fmt: skip


# ---- scale -----------------------------------------------------------------------------------


def scale(args) -> None:
    """Pack many small pictures, open them and stream: seconds and peak memory of each step."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        lab, data = Path(scratch) / "lab", Path(scratch) / "data"
        draw_lab(lab, (160, 120), args.labelled)
        (lab / "more").mkdir()
        rng = np.random.default_rng(1)
        for i in range(args.unlabelled):
            small = rng.integers(0, 256, (9, 12, 3), np.uint8)
            picture = cv2.resize(small, (96, 72), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(lab / "more" / f"{i:06d}.jpg"), picture)
        steps = {
            "pack": [str(ROOT / "scripts" / "pack_data.py"), "--annotations",
                     str(lab / "labels.json"), "--images", str(lab / "images"), "--unlabelled",
                     str(lab / "more"), "--out", str(data)],
            "open": ["-c", _OPEN, str(data)],
            "stream": ["-c", _OPEN + _STREAM, str(data)],
        }  # fmt: skip
        for name, command in steps.items():
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            said = process.stdout.read().strip().splitlines()
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{name} failed:\n" + "\n".join(said))
            seconds = time.perf_counter() - start
            print(f"{name}: {seconds:.1f} s, peak {usage.ru_maxrss / 2**20:.2f} GiB; {said[-1]}",
                  flush=True)  # fmt: skip


_OPEN = """
import sys, time
from nkjax.data import augment, records, samples, streams
start = time.perf_counter()
manifest = records.read_manifest(sys.argv[1])
rows = {split: records.Rows(manifest, split) for split in ("train", "unlabelled")}
for of_split in rows.values():
    of_split[len(of_split) - 1]
counts = {split: len(of_split) for split, of_split in rows.items()}
print(f"index of {counts} and a row of each in {time.perf_counter() - start:.2f} s")
"""
_STREAM = """
views = {"train": (("view", augment.SAPIENS),),
         "unlabelled": (("weak", augment.WEAK), ("strong", augment.STRONG))}
batches = streams.endless(
    {split: streams.Stream(rows[split], samples.Look((768, 1024), views[split]), batch)
     for split, batch in (("train", 8), ("unlabelled", 32))}, seed=0)
start = time.perf_counter()
for step, batch in zip(range(20), batches):
    pass
seconds = time.perf_counter() - start
print(f"20 batches of 8 + 32 rows, 72 crops of 768x1024: {20 * 72 / seconds:.0f} crops/s")
"""
