"""From judgements to pictures: what the preference stage does, how well its scorer judges, what uncertainty is worth.

    python benchmarks/preference.py spread --adapter nft=runs/nft/preference      spread and fidelity, a table a level
    python benchmarks/preference.py scorer --reliability reliability.png          is the scorer as sure as it is right?
    python benchmarks/preference.py calibration --limit 16                        is the map right where it is hot?
    python benchmarks/preference.py steps --faces DATA                            does a flow gain from its steps?
    python benchmarks/preference.py landmark-spread                               the landmark meter's own spread

Each explains itself with --help; they are in ``parts/``.
"""

import sys

from parts.systems import command

if __name__ == "__main__":
    sys.exit(
        command(
            __doc__,
            spread="spread",
            scorer="scorer",
            calibration="calibration",
            steps="steps",
            landmark_spread="calibration:landmark_spread",
        )
    )
