"""The loop over cases and methods. One bad case never stops the rest, and none goes missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from NeuraxisLib.errors import CancelledError
from NeuraxisLib.process import as_user_error
from NeuraxisLib.task import Progress
from Training.evaluation.cases import Case, Cases
from Training.evaluation.methods import Method, Prediction
from Training.evaluation.rules import Rules
from Training.evaluation.scores import Score, failure, score
from Training.evaluation.summary import Evaluation

#: Told of every judged case: the case, the predictions by method (None where it failed), the scores by method.
CaseListener = Callable[[Case, dict[str, Prediction | None], dict[str, Score]], None]


def judge(
    cases: Cases,
    methods: Sequence[Method],
    rules: Rules,
    progress: Progress | None = None,
    on_case: CaseListener | None = None,
) -> Evaluation:
    """Judge every method on every case that has a truth.

    Args:
        cases: where truth and images come from.
        methods: in the order of the tables; the first is the reference of comparisons.
        rules: by which.
        progress: told how far it is; cancels between cases and within a model's run.
        on_case: such as one that draws pictures; what it raises stops the evaluation.

    Returns:
        All scores. A case whose truth cannot be read is in ``unjudged``; one on which a method raises is a failure of
        that method.

    Raises:
        CancelledError: the user cancelled.
    """
    progress = progress or Progress()
    found = Evaluation(rules, cases.name, {method.name: method.facts for method in methods})
    found.unjudged.update(cases.unjudged)
    regions = 0
    for number, name in enumerate(cases.ids):
        part = progress.part(number / len(cases.ids), (number + 1) / len(cases.ids))
        part(0.0, f"Case {number + 1} of {len(cases.ids)}")
        try:
            case = cases.case(name)
        except Exception as error:
            found.unjudged[name] = _sentence(error)
            continue
        predictions: dict[str, Prediction | None] = {}
        errors: dict[str, str] = {}
        for at, method in enumerate(methods):
            within = part.part(at / len(methods), (at + 1) / len(methods))
            try:
                predictions[method.name] = method.predict(case, within)
            except Exception as error:
                predictions[method.name], errors[method.name] = None, _sentence(error)
        case = _with_region(case, predictions)
        regions += case.region is not None
        scores = {name: _score(case, name, predictions, errors, rules) for name in predictions}
        found.scores += scores.values()
        if on_case is not None:
            on_case(case, predictions, scores)
    found.notes += _notes(found, regions)
    return found


def _with_region(case: Case, predictions: dict[str, Prediction | None]) -> Case:
    """The case with the searched space of the first result that tells it, where the truth does not."""
    told = (p.region for p in predictions.values() if p is not None and p.region is not None)
    region = case.region if case.region is not None else next(told, None)
    fits = region is not None and region.shape == case.truth.shape
    return replace(case, region=region) if fits else case


def _score(
    case: Case, method: str, predictions: dict[str, Prediction | None], errors: dict[str, str], rules: Rules
) -> Score:
    """The score of one method; a prediction that cannot be judged becomes a failure, in ``predictions``, too."""
    if (prediction := predictions[method]) is not None:
        try:
            return score(case, method, prediction, rules)
        except Exception as error:
            predictions[method], errors[method] = None, _sentence(error)
    return failure(case, method, errors[method], rules)


def _sentence(error: Exception) -> str:
    """The error in one sentence; a cancel is none and goes on its way."""
    if isinstance(error, CancelledError):
        raise error
    return str(as_user_error(error))


def _notes(found: Evaluation, regions: int) -> list[str]:
    """What a reader has to see beside the numbers."""
    notes = []
    if found.rules.name.startswith("legacy_"):
        notes.append(
            f"Judged by the rules of {found.rules.title}, faults included, to imitate published tables; "
            "use the default rules for anything else."
        )
    failed = sum(s.failed for s in found.scores)
    if failed:
        counted = "left out of the means by these rules" if found.rules.skip_empty_predictions else "counted as misses"
        notes.append(f"{failed} results are missing or failed; they are listed below and {counted}.")
    left_out = sum(not s.counted for s in found.scores)
    if left_out:
        notes.append(f"{left_out} results without any predicted voxel are left out of every mean by these rules.")
    if found.unjudged:
        notes.append(f"{len(found.unjudged)} cases have no readable truth and were not judged; they are listed below.")
    if any(s.calibration is not None for s in found.scores) and not found.rules.calibrate_everywhere:
        cases = len(found.cases)
        if regions < cases:
            notes.append(
                f"{cases - regions} of {cases} cases name no searched region; calibration counts all their voxels, "
                "air and bone too, which makes ECE, NLL and Brier score look better."
            )
    notes += [facts["notice"] for facts in found.methods.values() if facts.get("notice")]
    return list(dict.fromkeys(notes))
