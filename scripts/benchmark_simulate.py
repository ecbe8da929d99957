"""The `simulate` suite: how fast simulated pictures are made, written and cast."""

import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = {(96, 128): 25, (384, 512): 5}  # px: pictures per second and core that are asked for
SEED = 0


def speed(args) -> None:
    """Time one process that writes pictures with their truth, and casting beside brute force.

    Per domain and size: pictures a second of processor time, drawing, truth and JPEG included. The
    floor is the casting of rays: a brute-force caster of the same closed forms, every ray
    against every solid, is timed on the same scenes.
    """
    for domain in ("toddler", "adult", "atypical"):
        for size_wh, wanted in SIZES.items():
            rate = _rate(domain, size_wh, args.count)
            cast, brute, solids = _casting(domain, size_wh)
            print(f"{domain:8} {size_wh[1]}x{size_wh[0]}: {rate:6.1f} pictures a second and core"
                  f" (asked for {wanted}); casting {1e3 * cast:5.1f} ms, brute force"
                  f" {1e3 * brute:7.1f} ms over {solids} solids: {brute / cast:.1f} x")  # fmt: skip


def _rate(domain, size_wh, count) -> float:
    from nkjax.toddlersim import world
    from nkjax.toddlersim.lab_folder import folder

    counts = {"test": count}
    world.example(domain, "test", 0, size_wh, SEED)
    with tempfile.TemporaryDirectory() as place:
        start = time.process_time()
        folder.write(Path(place) / "lab", domain, counts, size_wh, SEED, world.example,
                     world.SKELETON)  # fmt: skip
        return count / (time.process_time() - start)


def _casting(domain, size_wh, scenes=6) -> tuple[float, float, int]:
    from nkjax.toddlersim import camera as cameras
    from nkjax.toddlersim import casting, world

    spent, solids = np.zeros(2), []
    for index in range(scenes):
        _, _, scene, _ = world.draw(domain, "test", index, size_wh, SEED)
        pixels = np.stack(np.meshgrid(*(np.arange(n) for n in size_wh)), -1).reshape(-1, 2)
        rays = scene.camera.position_3 + cameras.rays(scene.camera, pixels)
        start = time.process_time()
        casting.cast(scene.camera, scene.solids)
        middle = time.process_time()
        for part in np.array_split(rays, max(1, len(rays) // 1024)):
            casting.first_hits(scene.camera.position_3, part, scene.solids)
        spent += (middle - start, time.process_time() - middle)
        solids.append(len(scene.solids.kind_p))
    return *(spent / scenes), round(np.mean(solids))
