"""The twelve configurations that the Stavanger group published, as data. Nothing here needs torch.

F: VGG-16 frozen; U: everything trains from the start; G: frozen first, then unfrozen in stages (specification 1.3).
Pm: the four perfusion maps; M: and the maximum-intensity image; N: and the NIHSS (specification 1.5).
"""

from __future__ import annotations

from dataclasses import dataclass

#: Perfusion maps in the order of the network's branches; the maximum-intensity image, if any, comes last.
MAPS = ("cbf", "cbv", "ttp", "tmax")
MIP = "mip"
#: All maps that a network of this design may read; the published ones read the first four and perhaps the fifth.
ALL_MAPS = (*MAPS, MIP, "mtt", "delay")
#: Numbers of the patient in the order in which the network reads them.
SCALARS = ("nihss", "age", "gender")


@dataclass(frozen=True)
class Configuration:
    """One published training.

    Attributes:
        title: name in the authors' tables.
        file: their settings file.
        experiment: their number, which names the weights (``EXP099.3``).
        regime: F, U or G.
        maps, scalars: inputs, arguments of the network.
        unfreezing: stages after the frozen one, see :func:`StrokeCTPLib.networks.fine_tuning.stages`; G alone.
    """

    title: str
    file: str
    experiment: str
    regime: str
    maps: tuple[str, ...]
    scalars: tuple[str, ...]
    unfreezing: str = ""

    @property
    def arguments(self) -> dict:
        """Arguments of the network as a model file holds them."""
        return {"maps": list(self.maps), "scalars": list(self.scalars)}


_EXPERIMENTS = {
    "F_Pm": "99.3", "F_PmM": "99.917", "F_PmN": "99.887", "F_PmMN": "99.897",
    "U_Pm": "93.3", "U_PmM": "91.3", "U_PmN": "88.3", "U_PmMN": "89.3",
    "G_Pm": "100.3", "G_PmM": "100.917", "G_PmN": "100.887", "G_PmMN": "100.897",
}  # fmt: skip


def _configuration(name: str, experiment: str) -> Configuration:
    regime, inputs = name.split("_")
    more = inputs.removeprefix("Pm")
    return Configuration(
        title="Baseline" if name == "F_Pm" else f"Mdl_{name}",
        file=f"Model_{regime}({','.join(['PMs', *more])}).json",
        experiment=experiment,
        regime=regime,
        maps=(*MAPS, MIP) if "M" in more else MAPS,
        scalars=("nihss",) if "N" in more else (),
        # G(PMs,N) alone was unfrozen at once.
        unfreezing={"G": "full" if more == "N" else "legacy_half"}.get(regime, ""),
    )


#: Name of a network here, such as ``Stavanger_G_PmMN`` -> what was published under it.
CONFIGURATIONS = {f"Stavanger_{name}": _configuration(name, number) for name, number in _EXPERIMENTS.items()}
