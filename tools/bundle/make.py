"""One archive that trains everything anywhere: `python tools/bundle/make.py --data FACES -o bundle.tar`.

It holds the code, faces, the face generator, the networks that the losses ask for, first weights, and `train.py`; see
docs/gpu-bundle.md. Parts come in the order of their need, and the faces take what room is left: their quality is
lowered until all photographs of real people fit.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import generator
import torch
from safetensors.torch import load_file, save_file

import pictures
import prefrestore
from prefrestore.data.faces import SUFFIXES
from prefrestore.errors import InvalidInputError, PrefRestoreError
from prefrestore.faces import onnx
from prefrestore.files.atomic import written_beside
from prefrestore.files.cache import cached_file
from prefrestore.metrics.lpips import weight_file

LIMIT_MIB = 60
FACES_MIB = 10
"""Room that first weights leave to the faces."""
COMPONENTS = (
    ("autoencoder",),
    ("lq_encoder", "input_skip"),
    ("image_tokenizer",),
    ("language_model", "text_tokenizer"),
    ("transformer", "connectors"),
    ("last_octave",),
)
"""In the order in which they are carried while there is room; stages train those that are missing first."""
BESIDE = ("train.py", "recipe.py", "arithmetic.py", "drawing.py", "results.py")
"""What the archive has of this folder."""

OVERHEAD = 512
"""Bytes that a face costs beside its picture: its places in the archive, its row of the table, its caption."""

Part = Mapping[str, Path | bytes]
"""Name in the archive -> a file, or its bytes."""


def code() -> dict[str, Path | bytes]:
    """The package without its weights, except the small preference scorer, and the programs beside this one."""
    package, here = Path(prefrestore.__file__).parent, Path(__file__).parent
    left_out = package / "weights" / "compact"
    files = [path for path in sorted(package.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    kept = [path for path in files if not path.is_relative_to(left_out)]
    return {f"src/prefrestore/{path.relative_to(package).as_posix()}": path for path in kept} | {
        name: here / name for name in BESIDE
    }


def face_generator(scratch: Path) -> dict[str, Path | bytes]:
    """The generator's weights in half precision."""
    return {"generator.safetensors": generator.write(scratch / "generator.safetensors", half=True)}


def lpips(scratch: Path) -> dict[str, Path | bytes]:
    """LPIPS (AlexNet) in half precision."""
    half = {name: value.half() for name, value in load_file(cached_file(weight_file("alex"))).items()}
    save_file(half, scratch / weight_file("alex"))
    return {f"cache/{weight_file('alex')}": scratch / weight_file("alex")}


def recogniser() -> dict[str, Path | bytes]:
    """SFace and YuNet, with what says whose they are, where the package finds them: as if they were installed."""
    about = metadata.distribution(onnx.PACKAGE)
    base = f"packages/{onnx.PACKAGE}"
    told = about.read_text("METADATA") or ""
    found: dict[str, Path | bytes] = {f"{base}-{about.version}.dist-info/METADATA": told.encode()}
    for name in (onnx.SFACE, onnx.YUNET):
        found[f"{base}/models/{name}"] = onnx.model_path(name)
    readme = onnx.model_path(onnx.SFACE).with_name("README.md")
    return found | ({f"{base}/models/README.md": readme} if readme.is_file() else {})


def component(work: Path, preset: str, name: str, scratch: Path) -> dict[str, Path | bytes]:
    """One finished component of a working folder, its weights in half precision; empty where there is none.

    Records of runs stay behind: the copy is another file, put there by hand.
    """
    found: dict[str, Path | bytes] = {}
    for path in sorted((work / name).glob("*")):
        target = f"first/{preset}/{name}/{path.name}"
        if path.suffix == ".safetensors":
            half = {key: v.half() if v.is_floating_point() else v for key, v in load_file(path).items()}
            found[target] = scratch / f"{name}-{path.name}"
            save_file(half, scratch / f"{name}-{path.name}", {"format": "pt"})
        elif path.is_file() and path.name != "run.json":
            found[target] = path
    return found


def size_of(part: Part) -> int:
    """Bytes of a part in the archive: whole blocks of 512 bytes, and one before each file."""
    lengths = [len(value) if isinstance(value, bytes) else value.stat().st_size for value in part.values()]
    return sum(512 + -(-length // 512) * 512 for length in lengths)


def faces(root: Path, room: int, validation: int) -> tuple[dict[str, Path | bytes], str]:
    """Faces of ``root`` that fit into ``room`` bytes, and a sentence about them.

    Raises:
        InvalidInputError: there are none, or no room for any.
    """
    try:
        real, drawn, held_out, rows = listed(root, validation)
        captions = {str(json.loads(line)["id"]): line for line in lines(root / "captions.jsonl")}
    except (KeyError, ValueError, csv.Error) as error:
        told = f"{type(error).__name__} {error}"
        raise InvalidInputError(f"faces.csv or captions.jsonl of {root} cannot be read: {told}") from error
    if not real and not drawn:
        raise InvalidInputError(f"{root} has no face to train on")
    chosen = pictures.fitting(held_out, real, drawn, room - (512 + 1024), OVERHEAD)
    if not any(path in chosen.files for path in (*real, *drawn)):
        raise InvalidInputError(f"there is no room for faces in {room / 2**20:.1f} MiB")
    kept, validating = {path.stem for path in chosen.files}, set(held_out)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path, data in chosen.files.items():
            archive.writestr(f"faces/{'val' if path in validating else 'train'}/{path.stem}.webp", data)
        table = io.StringIO()
        writer = csv.DictWriter(table, next(iter(rows.values())).keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(scaled(row, pictures.SIDE) for key, row in rows.items() if key in kept)
        archive.writestr("faces.csv", table.getvalue(), zipfile.ZIP_DEFLATED)
        text = "".join(f"{captions[key]}\n" for key in sorted(kept & captions.keys()))
        archive.writestr("captions.jsonl", text, zipfile.ZIP_DEFLATED)
    counts = [sum(path in chosen.files for path in group) for group in (real, drawn, held_out)]
    sentence = f"{counts[0]} of {len(real)} real, {counts[1]} of {len(drawn)} drawn, {counts[2]} to validate"
    return {"faces.zip": target.getvalue()}, f"{sentence}, WebP of quality {chosen.quality}"


def lines(path: Path) -> list[str]:
    """The lines of a text that are not empty; none where there is no such file."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()] if path.is_file() else []


def scaled(row: dict[str, str], side: int) -> dict[str, str]:
    """A row of faces.csv for a picture that was stored with another side: points are in px of the stored file."""
    size = int(row["size"])
    if not row.get("points") or size <= side:
        return row
    points = " ".join(f"{float(word) * side / size:.1f}" for word in row["points"].split())
    return row | {"size": str(side), "points": points}


def untold(path: Path) -> dict[str, str]:
    """The row of faces.csv for a picture that nothing is said of: a photograph of somebody."""
    row = {"id": path.stem, "split": "train", "source": "given", "licence": "", "synthetic": "0"}
    return row | {"size": str(pictures.side(path)), "person": path.stem, "defect": "none", "points": ""}


def listed(root: Path, validation: int) -> tuple[list[Path], list[Path], list[Path], dict[str, dict[str, str]]]:
    """Real and drawn faces to train on, faces to validate with, and the rows of faces.csv by id (docs/data-card.md)."""

    def inside(folder: Path) -> list[Path]:
        found = folder.iterdir() if folder.is_dir() else ()
        return sorted(path for path in found if path.suffix.lower() in SUFFIXES)

    if not (root / "faces.csv").is_file():
        found = inside(root)
        return found, [], [], {path.stem: untold(path) for path in found}
    with (root / "faces.csv").open(newline="", encoding="utf-8") as opened:
        rows = {row["id"]: row for row in csv.DictReader(opened)}
    sound = [p for p in inside(root / "faces" / "train") if rows.get(p.stem, {}).get("defect", "none") in ("none", "")]
    synthetic = {path for path in sound if rows.get(path.stem, {}).get("synthetic") == "1"}
    held_out = [p for p in inside(root / "faces" / "val") if rows.get(p.stem, {}).get("synthetic") != "1"]
    step = max(1, len(held_out) // max(1, validation))
    return (
        [path for path in sound if path not in synthetic],
        [path for path in sound if path in synthetic],
        held_out[::step][:validation],
        rows,
    )


def parts(options: argparse.Namespace, scratch: Path) -> Iterator[tuple[str, Part]]:
    """Name and content of each part, those that everything needs first; the faces take the rest."""
    limit = int(options.limit * 2**20) - 2 * tarfile.RECORDSIZE
    used = 0
    fixed = [("code", code()), ("LPIPS, half", lpips(scratch)), ("SFace and YuNet", recogniser())]
    if not options.without_generator:
        fixed.insert(1, ("face generator, half", face_generator(scratch)))
    for name, part in fixed:
        used += size_of(part)
        yield name, part
    for wheel in options.wheel:
        part = {f"wheels/{wheel.name}": wheel}
        used += size_of(part)
        yield f"wheel {wheel.name}", part
    work = options.work or Path(prefrestore.__file__).parent / "weights" / "compact"
    for names in COMPONENTS:
        part = {}
        for name in names:
            part |= component(work, options.preset, name, scratch)
        if part and used + size_of(part) + options.faces_mib * 2**20 <= limit:
            used += size_of(part)
            yield f"first weights: {' and '.join(names)}, half", part
    found, sentence = faces(options.data, limit - used, options.validation)
    yield f"faces: {sentence}", found


def write(options: argparse.Namespace) -> None:
    """Write the archive and print the size of each part.

    Raises:
        InvalidInputError: it would be larger than the limit. And what the parts raise.
    """
    with TemporaryDirectory() as folder, written_beside(options.output) as beside:
        made = []
        with tarfile.open(beside, "w", format=tarfile.GNU_FORMAT) as archive:
            for title, part in parts(options, Path(folder)):
                for name, value in part.items():
                    data = value if isinstance(value, bytes) else value.read_bytes()
                    entry = tarfile.TarInfo(f"bundle/{name}")
                    entry.size, entry.mode = len(data), 0o644
                    archive.addfile(entry, io.BytesIO(data))
                made.append((title, size_of(part)))
        if beside.stat().st_size > options.limit * 2**20:
            raise InvalidInputError(f"the bundle has {beside.stat().st_size / 2**20:.1f} MiB, over {options.limit}")
        size = beside.stat().st_size
    for title, length in made:
        sys.stdout.write(f"{length / 2**20:6.2f} MiB  {title}\n")
    sys.stdout.write(f"{size / 2**20:6.2f} MiB  together: {options.output}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the archive; 1 after a failure."""
    parser = argparse.ArgumentParser(description="Make one archive that trains everything anywhere.")
    parser.add_argument("--data", type=Path, required=True, help="aligned faces, in the layout of docs/data-card.md")
    parser.add_argument("-o", "--output", type=Path, default=Path("bundle.tar"))
    parser.add_argument("--work", type=Path, help="working folder with first weights; the shipped ones where not given")
    parser.add_argument("--preset", default="compact", help="of the first weights")
    parser.add_argument("--limit", type=float, default=LIMIT_MIB, help="MiB of the archive, at most")
    parser.add_argument("--faces-mib", type=float, default=FACES_MIB, help="MiB that first weights leave to the faces")
    parser.add_argument("--validation", type=int, default=48, help="faces to validate with")
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="a wheel to unpack there; repeatable")
    parser.add_argument("--without-generator", action="store_true", help="leave the face generator out")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        write(options)
    except (PrefRestoreError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
