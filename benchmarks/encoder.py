"""How near an inversion is after some seconds: python benchmarks/encoder.py MODEL ENCODER [ARCHIVE]

The images: samples of the model, from seeds that no training saw, and real photographs of a zip file, such as a
dataset's. Each is inverted by the same optimizer from the encoder's output and from the mean image, and the best found
so far is judged after some seconds of the process's own CPU time, so that a busy machine changes nothing. Prints a
table and writes it as JSON below benchmarks/results/.
"""

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from inversion import photographs
from results_io import facts, write

from polyinr_core.checkpoints.locate import load_model_file
from polyinr_core.inversion.encoder import load_encoder
from polyinr_core.inversion.invert import invert
from polyinr_core.inversion.loss import TargetImage, load_loss, load_target
from polyinr_core.latents.latents import Latents
from polyinr_core.rendering.model import Model


def after(model: Model, target: TargetImage, start: Latents | None, seconds: float, **options: object) -> dict:
    """Return the scores of an inversion that is stopped after so many seconds of CPU time."""
    begun = time.process_time()
    steps = 0 if seconds == 0 and start is not None else 300
    result = invert(
        model,
        target,
        start=start,
        encoder=None,
        steps=steps,
        stop=lambda: time.process_time() - begun >= seconds,
        **options,  # type: ignore[arg-type]
    )
    return {"psnr": round(result.psnr, 2), "perceptual": round(result.perceptual or 0, 4), "steps": result.steps}


def main(
    model: str,
    encoder: Path,
    archive: Annotated[Path | None, typer.Argument()] = None,
    samples: int = 2,
    images: int = 2,
    side: Annotated[int, typer.Option(help="Pixels along the shorter side. 0: the model's resolution.")] = 0,
    seconds: str = "0,1,5,30",
    output: Path = Path("benchmarks/results/encoder.json"),
) -> None:
    """Compare the two starts."""
    checkpoint, path = load_model_file(model)
    side = side or checkpoint.resolution
    opened = Model(checkpoint, path=path)
    loaded, loss = load_encoder(encoder), load_loss("lite0")
    seeds = range(10**6, 10**6 + samples)
    targets = {
        "samples": [load_target(opened.sample([seed], resolution=side)[0], name=f"seed {seed}") for seed in seeds]
    }
    if archive is not None:
        targets["photographs"] = photographs(archive, images, side)
    rows = []
    for kind, chosen in targets.items():
        if not chosen:
            continue
        for name in ("encoder", "mean"):
            for limit in map(float, seconds.split(",")):
                scores = [
                    after(
                        opened,
                        target,
                        loaded.encode(checkpoint, target) if name == "encoder" else None,
                        limit,
                        loss=loss,
                    )
                    for target in chosen
                ]
                row = {
                    "images": kind,
                    "start": name,
                    "seconds": limit,
                    **{key: round(float(np.mean([one[key] for one in scores])), 4) for key in scores[0]},
                }
                rows.append(row)
                print(" | ".join(map(str, row.values())), flush=True)
    about = facts(
        model={"sha256": checkpoint.sha256, "kimg": checkpoint.kimg, "px": checkpoint.resolution},
        encoder=loaded.facts,
        counts={kind: len(chosen) for kind, chosen in targets.items()},
        side=side,
        figures=rows,
    )
    write(output, about)


if __name__ == "__main__":
    typer.run(main)
