"""Which is better? Pairs of restorations of one face, and what people chose, as `prefrestore preference fit` reads it.

judgements/judgements.jsonl   one choice a line, and what both pictures were made with
judgements/pictures/          the pictures of these lines: they stay when their photo is removed
judgements/skipped.jsonl      pairs that nobody could or would judge: they are not shown again
judgements/fits/N/            scorers, see `prefrestore.serve.fitting`
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import secrets
import shutil
import threading
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from prefrestore.errors import PrefRestoreError
from prefrestore.files.atomic import written_beside
from prefrestore.serve.judgement_schemas import Choice, Fit, Judgements, Pair
from prefrestore.serve.problems import Problem
from prefrestore.serve.schemas import Face, Restoration
from prefrestore.serve.store import Store, private_folder, stamp

ENOUGH = 100
"""Judgements that move the scorer: docs/preference.md says that some hundred do, and a dozen do not."""
STRENGTHS = (1.0, 0.5)
"""At which each guess is shown; another seed alone changes little."""
MOST_GUESSES = 8
"""Of a face, from which pairs are made."""
MOST_PHOTOS = 200
"""The newest, from which pairs are made."""
LOOKED_AT = 4
"""Pairs of which the one whose pictures differ most is asked: two seeds can draw almost the same."""
MOST_OPEN = 1000
NONE_LEFT = "every pair was judged: restore another photo, or ask for other guesses of a face"
NONE_YET = "there is no restored face to judge yet: restore a photo first"


class Shown(NamedTuple):
    """One picture of a pair."""

    id: str
    face: int
    guess: int
    strength: float

    @property
    def name(self) -> str:
        """Of its file: the same for the same picture, and it tells nothing."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:32] + ".png"


class Judging:
    """The pairs and the choices of one service."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = private_folder(folder / "judgements"), store
        self.file, self._skipped_file = self.folder / "judgements.jsonl", self.folder / "skipped.jsonl"
        self._lock = threading.RLock()
        self._open: OrderedDict[str, tuple[Shown, Shown]] = OrderedDict()
        self._random = random.SystemRandom()

    def state(self, fit: Fit | None) -> Judgements:
        """How many there are."""
        with self._lock:
            entries = _lines(self.file)
            left = sum(1 for _ in self._pairs())
            count = len(entries)
            return Judgements(
                count=count,
                skipped=len(_lines(self._skipped_file)),
                ties=sum(entry["choice"] == "tie" for entry in entries),
                enough=ENOUGH,
                missing=max(0, ENOUGH - count),
                pairs_left=left,
                fit=fit,
            )

    def _pairs(self) -> Iterator[tuple[Shown, Shown]]:
        """All that were neither judged nor skipped."""
        known = {
            frozenset((Path(entry["first"]).name, Path(entry["second"]).name))
            for entry in _lines(self.file) + _lines(self._skipped_file)
        }
        for one in self.store.all()[:MOST_PHOTOS]:
            for face in one.faces if one.status == "done" else ():
                for pair in itertools.combinations(list(variants(one, face)), 2):
                    if frozenset(shown.name for shown in pair) not in known:
                        yield pair

    def next(self) -> Pair:
        """A pair of the face of which the fewest were judged, in random order."""
        with self._lock:
            left = list(self._pairs())
        if not left:
            any_face = any(face.guesses for one in self.store.all() for face in one.faces)
            return Pair(pair=None, message=NONE_LEFT if any_face else NONE_YET)
        # The face with the most pairs left has had the fewest judged, as far as they have equally many.
        counts = Counter((first.id, first.face) for first, _ in left)
        most = max(counts.values())
        fewest = [pair for pair in left if counts[pair[0].id, pair[0].face] == most]
        chosen = max(self._random.sample(fewest, min(LOOKED_AT, len(fewest))), key=self._difference)
        first, second = self._random.sample(chosen, 2)
        pair = secrets.token_hex(16)
        with self._lock:
            self._open[pair] = (first, second)
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        address = f"/api/v1/judgements/pairs/{pair}"
        return Pair(pair=pair, first=f"{address}/first", second=f"{address}/second", before=f"{address}/before")

    def _difference(self, pair: tuple[Shown, Shown]) -> float:
        """How much two pictures differ on average, in levels of 255; 0 for a photo that is being removed."""
        try:
            first, second = (self._drawn(shown).astype(int) for shown in pair)
        except (PrefRestoreError, Problem):
            return 0.0
        return float(abs(first - second).mean())

    def _drawn(self, shown: Shown) -> Any:
        from prefrestore.serve import composing

        one = self.store.get(shown.id)
        return composing.crop(self.store.folder(one.id), one.faces[shown.face], shown.guess, shown.strength)

    def _opened(self, pair: str) -> tuple[Shown, Shown]:
        with self._lock:
            if pair not in self._open:
                raise Problem(404, "this pair was judged, or is no longer open: ask for the next one")
            return self._open[pair]

    def picture(self, pair: str, which: str) -> Any:
        """``first``, ``second`` or ``before`` of an open pair: S x S x 3 uint8."""
        from prefrestore.serve import facefiles

        first, second = self._opened(pair)
        if which == "before":
            return facefiles.load_crop(self.store.folder(self.store.get(first.id).id), first.face, "before")
        return self._drawn(second if which == "second" else first)

    def judge(self, choice: Choice) -> dict[str, dict[str, Any]]:
        """Keep a choice; returns what both pictures were made with."""
        from prefrestore.files.fingerprints import file_hash
        from prefrestore.pictures.encode import write_photo
        from prefrestore.pictures.read import as_photo

        first, second = self._opened(choice.pair)
        one = self.store.get(first.id)
        folder = self.store.folder(one.id)
        record = json.loads((folder / "photo.json").read_text(encoding="utf-8"))
        made = {"first": made_with(one, first, record), "second": made_with(one, second, record)}
        names = {"first": f"pictures/{first.name}", "second": f"pictures/{second.name}"}
        if choice.choice == "skip":
            self._append(self._skipped_file, names, choice.pair)
            return made
        for which, shown in (("first", first), ("second", second)):
            path = self.folder / "pictures" / shown.name
            if not path.is_file():
                write_photo(as_photo(self.picture(choice.pair, which)), path)
        (original,) = folder.glob("original*")
        said = {"choice": choice.choice, "who": choice.who, "when": stamp(datetime.now(timezone.utc))}
        self._append(self.file, names | said | {"group": file_hash(original), "made": made}, choice.pair)
        return made

    def _append(self, file: Path, entry: dict[str, Any], pair: str) -> None:
        """One more line, whole or not at all; a pair counts once, however often it is sent."""
        with self._lock:
            self._opened(pair)
            before = file.read_bytes() if file.is_file() else b""
            with written_beside(file) as part:
                part.write_bytes(before + json.dumps(entry).encode() + b"\n")
            del self._open[pair]

    def archive(self, path: Path) -> None:
        """Judgements and pictures as a zip file at ``path``; Problem 404 when there are none."""
        with self._lock:
            entries = _lines(self.file)
            if not entries:
                raise Problem(404, "nothing was judged yet")
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
                out.write(self.file, self.file.name)
                for name in sorted({entry[which] for entry in entries for which in ("first", "second")}):
                    out.write(self.folder / name, name)

    def clear(self) -> None:
        """Remove all judgements, their pictures, and the scorers that were fitted to them."""
        with self._lock:
            self._open.clear()
            shutil.rmtree(self.folder)
            private_folder(self.folder)


def variants(one: Restoration, face: Face) -> Iterator[Shown]:
    """The different pictures of a face that are compared."""
    known = set()
    for guess in face.guesses[:MOST_GUESSES]:
        key = tuple(guess.made_with().values())
        if key not in known:
            known.add(key)
            yield from (Shown(one.id, face.index, guess.number, strength) for strength in STRENGTHS)


def made_with(one: Restoration, shown: Shown, record: dict[str, Any]) -> dict[str, Any]:
    """How a picture was made, for whoever reads the judgements."""
    guess = one.faces[shown.face].guesses[shown.guess]
    return {
        "restoration": one.id,
        "face": shown.face,
        "strength": shown.strength,
        **guess.made_with(),
        **{name: record.get(name) for name in ("prefrestore", "preset", "dtype", "weights")},
    }


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
