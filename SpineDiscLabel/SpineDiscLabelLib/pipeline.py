"""From a sagittal spine MR to named discs: what the network sees, what of it are discs, their names and measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from NeuraxisLib.clock import Clock
from NeuraxisLib.errors import InputError
from NeuraxisLib.models import ModelFile
from NeuraxisLib.provenance import model_facts, software
from NeuraxisLib.result import Landmark, Result, ScalarMap
from NeuraxisLib.task import Progress
from NeuraxisLib.volume import Volume
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.checks import require_spine_mr
from SpineDiscLabelLib.direction import require_right_way
from SpineDiscLabelLib.disc_inference import DiscPredictor, disc_predictor
from SpineDiscLabelLib.evidence import Evidence, look
from SpineDiscLabelLib.findings import UNSETTLED, chain_findings, evidence_text, other_rows, others_table
from SpineDiscLabelLib.locate import candidates_of
from SpineDiscLabelLib.naming import Chain, name_chain
from SpineDiscLabelLib.naming_legacy import legacy_chain
from SpineDiscLabelLib.overlay import evidence_map
from SpineDiscLabelLib.pair import LEAST_COMMON, merged
from SpineDiscLabelLib.preprocessing import SagittalPreprocessing
from SpineDiscLabelLib.sagittal import SagittalImages, sagittal_images, sagittal_order
from SpineDiscLabelLib.task import IMAGE, NAMINGS, SECOND, DiscOptions

#: Discs that are less certain than this lie on the slices to look at first.
UNSURE, KEY_SLICES = 0.8, 3


@dataclass(frozen=True)
class _Found:
    """What was seen in one image."""

    evidence: Evidence
    candidates: list[Candidate]


def run(inputs: dict[str, Volume], model: ModelFile, options: DiscOptions, progress: Progress) -> Result:
    """Find, name and measure the discs in ``inputs["mr"]``.

    Args:
        inputs: ``mr``: a sagittal T1 or T2 MR of any region of the spine, (k, j, i), any stored orientation;
            ``second``, if given: another contrast of the same spine in the same place.
        model: the network, how it sees a spine, and which disc each of its channels means.
        options: see :class:`~SpineDiscLabelLib.task.DiscOptions`.
        progress: told about every stage; cancels between and within them.

    Returns:
        Points from above, their evidence as a map, measurements, tables, warnings, provenance.

    Raises:
        InputError: no sagittal spine MR, no spine in view, or a name given that cannot be.
        GeometryError: acquired axially or coronally, oblique, or the header names wrong directions.
        ModelError: the model file does not hold what its header says.
    """
    clock, warnings = Clock(), []
    for volume in inputs.values():
        require_spine_mr(volume)
    predictor = disc_predictor(model, options.device, options.precision)
    threshold = options.threshold if options.threshold > 0 else float(model.header["threshold"])
    with clock.stage("evidence"):
        found = _see(inputs[IMAGE], model, predictor, threshold, progress.part(0.05, 0.5 if SECOND in inputs else 0.8))
        if options.check_direction:
            require_right_way(found.evidence, predictor, threshold)
        candidates = found.candidates
        if SECOND in inputs:
            other = _see(inputs[SECOND], model, predictor, threshold, progress.part(0.5, 0.8))
            candidates = _paired(found, other, warnings)
    progress(0.8, "Naming the discs")
    with clock.stage("naming"):
        chain = _named(candidates, options)
    progress(0.85, "Measuring")
    with clock.stage("measures"):
        result = _result(inputs[IMAGE], found.evidence, chain)
    result.warnings = [*warnings, *predictor.warnings, *chain.notes, model.header["notice"]]
    result.provenance = _provenance(model, options, predictor, found.evidence.images, len(candidates), clock)
    result.provenance["chain"] = _reasons(chain, candidates)
    progress(1.0, "Measuring")
    return result


def _see(volume: Volume, model: ModelFile, predictor: DiscPredictor, threshold: float, progress: Progress) -> _Found:
    progress(0.0, "Looking for discs")
    images = sagittal_images(volume, SagittalPreprocessing.from_dict(model.header["preprocessing"]))
    evidence = look(images, predictor, progress)
    return _Found(evidence, candidates_of(evidence, threshold))


def _paired(first: _Found, second: _Found, warnings: list[str]) -> list[Candidate]:
    """Candidates of both contrasts; of the first alone, with a warning, if they show different places."""
    shows = first.evidence.images.shows, second.evidence.images.shows
    both, common = merged(first.candidates, second.candidates, *shows)
    if common >= LEAST_COMMON:
        return both
    warnings.append("The second image does not show the discs in the same place, so it was left out; check its series.")
    return first.candidates


def _named(candidates: list[Candidate], options: DiscOptions) -> Chain:
    """The chain of discs, with its ends as the options name them; InputError if there is none."""
    if candidates and options.naming != NAMINGS[0]:
        return legacy_chain(candidates, options.naming, options.highest)
    chain = name_chain(candidates)
    if not chain.discs:
        raise InputError("There is no spine in view in the image; choose a sagittal series that covers the spine.")
    ends = {-1: options.lowest, 0: options.highest}
    anchors = {chain.discs[end].candidate: name for end, name in ends.items() if name}
    return name_chain(candidates, anchors) if anchors else chain


def _result(source: Volume, evidence: Evidence, chain: Chain) -> Result:
    points = [Landmark(disc.name, tuple(disc.position_ras_mm), disc.confidence, _note(chain)) for disc in chain.discs]
    seen = ScalarMap(
        evidence_map(evidence, source), "Evidence of discs", (0.0, 1.0), "The network's heat maps of all discs."
    )
    result = Result(task="discs", source=source, maps={"evidence": seen}, points=points)
    result.measurements, result.tables["discs"] = chain_findings(chain.discs, chain.probability, source.regular())
    if chain.alternatives:
        result.tables["alternatives"] = others_table(other_rows(chain.alternatives))
    result.key_slices = _key_slices(source, chain)
    return result


def _note(chain: Chain) -> str:
    return UNSETTLED if chain.relative else ""


def _reasons(chain: Chain, candidates: list[Candidate]) -> dict:
    """What the names rest on; a panel needs it to number the discs anew when a person has corrected them."""
    return {
        "probability": chain.probability,
        "relative": chain.relative,
        "notes": list(chain.notes),
        "others": {title: [*rest] for title, *rest in other_rows(chain.alternatives)},
        "confidence": {disc.name: round(disc.confidence, 4) for disc in chain.discs},
        "evidence_percent": {disc.name: evidence_text(candidates[disc.candidate].evidence) for disc in chain.discs},
    }


def _key_slices(source: Volume, chain: Chain) -> list[int]:
    """Stored slices through the least certain discs, where the stored slices are sagittal."""
    if sagittal_order(source).axes[0] != 0:
        return []
    slices = []
    for disc in sorted(chain.discs, key=lambda disc: disc.confidence):
        along = source.origins_ras @ source.normal_ras - disc.position_ras_mm @ source.normal_ras
        nearest = int(np.argmin(np.abs(along)))
        if nearest not in slices and (disc.confidence < UNSURE or not slices):
            slices.append(nearest)
    return slices[:KEY_SLICES]


def _provenance(
    model: ModelFile,
    options: DiscOptions,
    predictor: DiscPredictor,
    images: SagittalImages,
    candidates: int,
    clock: Clock,
) -> dict:
    shown = images.preprocessing
    return {
        **software(),
        "model": model_facts(model),
        "options": asdict(options),
        "device": predictor.device,
        "precision": predictor.precision,
        "grid": {"pixel_mm": shown.pixel_mm, "slabs": len(images.positions_mm), "tiles": len(images.tiles())},
        "candidates": candidates,
        "seconds": clock.seconds,
    }
