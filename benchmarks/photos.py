"""Photos as people have them: what is restored, what is left alone, and what it looks like.

    python benchmarks/photos.py sharpness DATA            are damaged faces restored and sharp ones left alone?
    python benchmarks/photos.py faults DATA OUT           contact sheets of what photos suffer from, before and after
    python benchmarks/photos.py likeness DATA             how alike are degraded faces to their originals, by clarity?

Each explains itself with --help; they are in ``parts/``. DATA is a folder that holds ``faces`` and ``bench``.
"""

import sys

from parts.systems import command

if __name__ == "__main__":
    sys.exit(command(__doc__, sharpness="sharpness", faults="faults", likeness="likeness"))
