"""What a user is told of each choice about a photo: one table for the command line, the service and its page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Told:
    """``text``: what the choice does. ``least``, ``most``: of its numbers, None where there is no end."""

    text: str
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number lies within; what is not a number does not."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def limits(self) -> str:
        """The limits in words; the most is never without a least."""
        return f"is {self.least:g} or more" if self.most is None else f"lies between {self.least:g} and {self.most:g}"


TOLD = {
    "faces": Told(text="Restore these faces, counted from the left, or all, whatever the rules say.", least=0),
    "strength": Told(text="How much of each face is the restored one; by face, others 1.", least=0, most=1),
    "min_face": Told(text="Leave out faces narrower than so many px; 16.", least=0),
    "max_yaw": Told(text="Leave out faces turned further than so many degrees; 55.", least=0, most=90),
    "min_score": Told(text="Leave out faces that the detector is less sure of; none.", least=0, most=1),
    "sharp_enough": Told(text="Leave out faces of this quality and more; 0.56.", least=0, most=1),
    "keep_likeness": Told(text="Restore faces less that become less alike."),
    "prompt": Told(text="What the faces look like, in a sentence."),
    "steps": Told(text="Steps of the flow; by the preset.", least=1),
    "seed": Told(text="The same seed gives the same bytes.", least=0),
    "fidelity": Told(text="0: most detail, 1: most faithful and smooth.", least=0, most=1),
    "guidance_scale": Told(text="Weight of the condition; 1 is plain."),
    "scale": Told(text="1, 2 or 4: size of the output."),
    "aligned": Told(text="Each picture is one aligned square face."),
    "samples": Told(text="Restorations a face, one a seed; the record says how they differ.", least=1),
    "uncertainty": Told(text="Also draw where they differ; 4 samples if not said."),
    "choice": Told(text="Of the samples: the first, the medoid (default), the best scored."),
    "reference": Told(text="The published inference procedure."),
    "sample_tokens": Told(text="Draw the tokens (top_p 0.95, top_k 1200) by the seed."),
    "format": Told(text="Of the outputs, in place of the inputs'."),
    "quality": Told(text="Of JPEG, WebP and AVIF; 95.", least=1, most=100),
}
"""Names as `prefrestore.restoration.options.RestoreOptions` has them, and how the output is written."""
