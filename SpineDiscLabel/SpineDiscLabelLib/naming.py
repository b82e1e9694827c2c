"""Names for the discs of a spine: which candidates are discs, and which disc each of them is.

:func:`name_chain` names what a network found; :func:`renumber` names points that a person has put right. Both weigh
every ordered chain (:mod:`SpineDiscLabelLib.naming_search`), so that each name comes with its probability, and the
chain with the other ways to count it: one level up or down, and spines with four or six lumbar vertebrae. Numpy only.

The absolute level comes from what the candidates look like (their evidence), from the length and tilt of the steps
(a neck's are half as long as a loin's), and from anchors. Where these do not settle it the chain is ``relative``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np

from NeuraxisLib.errors import InputError
from SpineDiscLabelLib.anatomy import FORMS, USUAL, SpineForm, number_of
from SpineDiscLabelLib.candidates import Candidate
from SpineDiscLabelLib.discs import DISC_NAMES, FIRST_DISC
from SpineDiscLabelLib.naming_search import Posterior, Search, prune
from SpineDiscLabelLib.naming_steps import LEVELS, Hypotheses, Steps, consecutive_steps, possible_steps

#: A strength is the height of a heat map's peak, no probability: real discs at the ends of a field of view or beside
#: the slab reach a third. Odds of a disc are its square over that of the height at which it is as likely as not.
EVEN_STRENGTH, STRENGTH_RANGE = 0.3, (0.05, 1.0)
#: What each evidence is raised by before it is compared with the others: a disc that does not light up its channel
#: remains possible.
EVIDENCE_FLOOR = 0.04
#: A network that miscounts one disc miscounts its neighbours too, so the evidence of all discs together counts no more
#: than that of so many; and each at most with this exponent. The last discs before the skull and the sacrum are
#: recognised, not counted: they keep an exponent of their own. All three by the likelihood of the true counting on
#: simulated spines and on real ones held out of training.
INDEPENDENT_DISCS, MOST_TRUST, LANDMARK_TRUST = 7.0, 0.8, 1.5
_LANDMARKS = ("C1/C2", "C2/C3", "L5/S1", "L6/S1", "L4/S1")
#: From this probability of the whole counting on a chain is called absolute.
ABSOLUTE_FROM = 0.7
#: Evidence that one disc has to have, and its share of the evidence of all discs, to say something about the level.
SPEAKING_FROM, SPEAKING_SHARE = 0.15, 0.15
#: Countings less likely than this are not offered; at most so many are. The other forms of the lumbar spine are
#: offered from the smaller probability on.
OFFERED_FROM, VARIANT_FROM, MOST_OFFERED = 0.02, 0.002, 6
#: Sizes of spine looked through in the first and second pass (17 and 8 % apart); those near a size of the first that
#: is likelier than this are looked at in the second.
COARSE_SIZES, SIZES, LIKELY_SIZE = 7, 13, 1e-3
#: Most candidates that are looked at; of more, the strongest.
MOST_CANDIDATES = 400


@dataclass(frozen=True, eq=False)
class NamedDisc:
    """A disc with its name.

    Attributes:
        disc: its number, counted from above as the Spinal Cord Toolbox does (2 = C1/C2 ... 25 = L5/S1).
        name: such as ``"L4/L5"``; ``"L5/L6"``, ``"L6/S1"`` and ``"L4/S1"`` belong to unusual lumbar spines.
        position_ras_mm: (3,) RAS mm.
        confidence: probability that there is a disc and that it has this name.
        candidate: index of the candidate or point it came from; None for a disc that was skipped.
    """

    disc: int
    name: str
    position_ras_mm: np.ndarray
    confidence: float
    candidate: int | None


@dataclass(frozen=True)
class Alternative:
    """Another way to count the same discs.

    Attributes:
        names: of the discs of the chain, from above.
        discs: their numbers.
        probability: among all ways to count these discs.
        title: what differs, in words.
    """

    names: tuple[str, ...]
    discs: tuple[int, ...]
    probability: float
    title: str


@dataclass(frozen=True)
class Chain:
    """The discs of one spine.

    Attributes:
        discs: from above.
        missing: discs between them that were not seen, where they should lie.
        alternatives: other ways to count, the likeliest first.
        probability: of this counting, among all ways to count these discs; None where the method knows none.
        relative: whether the absolute level is not settled, so that only the order and the gaps are.
        notes: sentences for the reader.
    """

    discs: list[NamedDisc] = field(default_factory=list)
    missing: list[NamedDisc] = field(default_factory=list)
    alternatives: list[Alternative] = field(default_factory=list)
    probability: float | None = 1.0
    relative: bool = True
    notes: list[str] = field(default_factory=list)


def name_chain(candidates: Sequence[Candidate], anchors: Mapping[int, int | str] | None = None) -> Chain:
    """Name what a network found.

    Args:
        candidates: in any order, false ones among them.
        anchors: index of a candidate -> the disc that it is, by number or name; these are kept whatever else fits.

    Raises:
        InputError: an anchor is no disc, is not among the candidates, or contradicts another.
    """
    anchors = _checked(anchors or {}, [c.position_ras_mm for c in candidates])
    chosen = sorted(range(len(candidates)), key=lambda i: (i in anchors, candidates[i].strength))[-MOST_CANDIDATES:]
    chosen.sort(key=lambda i: -candidates[i].position_ras_mm[2])
    if not chosen:
        return Chain(notes=["No disc was found."])
    points = np.array([candidates[i].position_ras_mm for i in chosen])
    evidence = np.clip(np.array([candidates[i].evidence for i in chosen]), 0.0, 1.0)
    strength = np.clip([candidates[i].strength for i in chosen], *STRENGTH_RANGE)
    held = {chosen.index(i): name for i, name in anchors.items()}
    odds = (strength / EVEN_STRENGTH) ** 2
    odds[list(held)] = 1e6
    steps = possible_steps(points, np.log(odds))
    return _named(steps, odds, evidence, held, chosen)


def renumber(
    positions: Sequence[Sequence[float]] | np.ndarray,
    anchors: Mapping[int, int | str] | None = None,
    current: Sequence[int | None] | None = None,
    evidence: np.ndarray | None = None,
) -> Chain:
    """Name points of which every one is a disc, as a person has put them: dragged, added, deleted or renamed.

    Args:
        positions: (n, 3) RAS mm in any order.
        anchors: index of a point -> the disc that a person says it is, by number or name.
        current: the disc numbers that the points had before, None for new ones. They hold the level while nobody
            has named a point; with an anchor they are not used, as the anchor moves the whole chain.
        evidence: (n, 24) as :attr:`~SpineDiscLabelLib.candidates.Candidate.evidence` what the network saw at each
            point, 0 where it saw nothing; used in place of ``current``, also beside anchors.

    Raises:
        InputError: more points than a spine has discs, or anchors that are no disc or contradict each other.
    """
    positions = np.asarray(positions, float).reshape(-1, 3)
    anchors = _checked(anchors or {}, list(positions))
    if len(positions) > LEVELS:
        raise InputError(f"There are {len(positions)} points, more than a spine has discs; remove the false ones.")
    if not len(positions):
        return Chain(notes=["There is no point to name."])
    order = np.argsort(-positions[:, 2], kind="stable")
    if evidence is not None:
        seen = np.clip(np.asarray(evidence, float), 0.0, 1.0)[order]
    else:
        seen = _as_before(current if not anchors else None, order)
    held = {int(np.flatnonzero(order == index)[0]): name for index, name in anchors.items()}
    return _named(consecutive_steps(positions[order]), np.ones(len(order)), seen, held, order.tolist())


def _as_before(current: Sequence[int | None] | None, order: np.ndarray) -> np.ndarray:
    """(n, 24) evidence that every point is the disc that it was before."""
    seen = np.zeros((len(order), len(DISC_NAMES)))
    if current is not None:
        for row, index in enumerate(order):
            if current[index] in DISC_NAMES:
                seen[row, current[index] - FIRST_DISC] = 1.0
    return seen


# -- the way there --------------------------------------------------------------------------------------------


def _checked(anchors: Mapping[int, int | str], positions: list[np.ndarray]) -> dict[int, str]:
    """Anchors by name, in agreement with each other."""
    names = {}
    for index, disc in anchors.items():
        name = DISC_NAMES.get(disc, {26: "L6/S1"}.get(disc)) if isinstance(disc, (int, np.integer)) else str(disc)
        if name is None or number_of(name) is None:
            raise InputError(f"There is no disc '{disc}'; name one between C1/C2 and L5/S1.")
        if not 0 <= index < len(positions):
            raise InputError(f"The disc to be called {name} is not among the points; choose one of them.")
        names[int(index)] = name
    ordered = sorted(names, key=lambda index: -positions[index][2])
    for upper, lower in pairwise(ordered):
        if number_of(names[upper]) >= number_of(names[lower]):
            raise InputError(f"{names[upper]} cannot lie above {names[lower]}; take one of the two names back.")
    return names


@cache
def _looks(forms: tuple[SpineForm, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the discs of the forms look like.

    Returns:
        (l, v, 2) channels that a disc may light up (two of them or one twice), (l, v) whether there is such a level,
        and (l, v) whether it is a landmark.
    """
    channels = np.zeros((LEVELS, len(forms), 2), int)
    exists, landmark = np.zeros((2, LEVELS, len(forms)), bool)
    for number, form in enumerate(forms):
        levels = len(form.names)
        channels[:levels, number] = [(looks[0] - FIRST_DISC, looks[-1] - FIRST_DISC) for looks in form.looks_like]
        exists[:levels, number] = True
        landmark[:levels, number] = np.isin(form.names, _LANDMARKS)
    return channels, exists, landmark


def _unary(odds: np.ndarray, evidence: np.ndarray, held: dict[int, str], forms: tuple[SpineForm, ...]) -> np.ndarray:
    """(l, v, c) weight of each candidate at each level: its odds, what it looks like, and where it is held."""
    channels, exists, landmark = _looks(forms)
    seen = evidence.T[channels].max(axis=2) + EVIDENCE_FLOOR
    seen *= exists[..., None]
    likeness = seen / (seen.sum(axis=0) / exists.sum(axis=0)[:, None])
    shared_trust = min(MOST_TRUST, INDEPENDENT_DISCS / max(1, np.count_nonzero(odds >= 1.0)))
    result = odds * likeness ** np.where(landmark, LANDMARK_TRUST, shared_trust)[..., None]
    for row, name in held.items():
        for number, form in enumerate(forms):
            result[[level for level in range(LEVELS) if form.names[level : level + 1] != (name,)], number, row] = 0.0
    return result


def _named(steps: Steps, odds: np.ndarray, evidence: np.ndarray, held: dict[int, str], origin: list[int]) -> Chain:
    """Search, and put what was found into words. ``origin`` gives the caller's index of every candidate."""
    unary = _unary(odds, evidence, held, FORMS)
    hypotheses = Hypotheses.of(FORMS, SIZES)
    if not steps.forced:
        usual = Hypotheses.of((USUAL,), COARSE_SIZES)
        steps, likely = prune(steps, unary[:, :1], usual)
        hypotheses = hypotheses.near(usual.size[likely[0] > LIKELY_SIZE])
    search = Search(steps, unary, hypotheses)
    posterior = search.posterior()
    by_form = posterior.hypothesis.sum(axis=1)
    if held and not by_form.max() > 0:
        raise InputError("The given names leave no room for the points between them; take one of the names back.")
    if posterior.hypothesis.sum() < posterior.nothing or not by_form.max() > 0:
        return Chain(notes=["No disc was found."])
    likeliest = int(by_form.argmax())
    path = search.best_chain(likeliest, int(posterior.hypothesis[likeliest].argmax()))
    countings = _countings(search, path)
    form, start = countings[0].form, countings[0].start
    path = [(candidate, level - path[0][1] + start) for candidate, level in path]
    discs = _discs(path, form, steps, posterior, origin)
    missing = _missing(path, form, steps, posterior)
    relative = not held and (countings[0].probability < ABSOLUTE_FROM or not _speaks(evidence, path))
    alternatives = _alternatives(countings)
    notes = _notes(discs, missing, alternatives, relative)
    return Chain(discs, missing, alternatives, countings[0].probability, relative, notes)


def _discs(
    path: list[tuple[int, int]], form: SpineForm, steps: Steps, posterior: Posterior, origin: list[int]
) -> list[NamedDisc]:
    result = []
    for candidate, level in path:
        name = form.names[level]
        sure = sum(float(posterior.level[place][candidate]) for place in _places(name))
        result.append(NamedDisc(form.numbers[level], name, steps.points[candidate], min(sure, 1.0), origin[candidate]))
    return result


@cache
def _places(name: str) -> list[tuple[int, int]]:
    """[(level, form)] of a disc in the forms that have it."""
    return [(form.names.index(name), number) for number, form in enumerate(FORMS) if name in form.names]


def _missing(path: list[tuple[int, int]], form: SpineForm, steps: Steps, posterior: Posterior) -> list[NamedDisc]:
    """The levels that the chain skips, placed between their neighbours as the vertebrae are long."""
    place, result = np.cumsum(form.step_mm), []
    for (above, first), (below, last) in pairwise(path):
        for level in range(first + 1, last):
            share = (place[level] - place[first]) / (place[last] - place[first])
            position = (1 - share) * steps.points[above] + share * steps.points[below]
            seen = float(posterior.level[level].sum())
            result.append(NamedDisc(form.numbers[level], form.names[level], position, max(0.0, 1.0 - seen), None))
    return result


@dataclass(frozen=True)
class _Counting:
    """One way to count a chain: names, and the form and start level that give them."""

    names: tuple[str, ...]
    discs: tuple[int, ...]
    form: SpineForm
    start: int
    probability: float


def _countings(search: Search, path: list[tuple[int, int]]) -> list[_Counting]:
    """Every way to count the same candidates with the same gaps, the likeliest first; probabilities sum to 1."""
    weight = search.shifted(path).sum(axis=1)
    weight /= weight.sum()
    offsets = [level - path[0][1] for _, level in path]
    best: dict[tuple[str, ...], _Counting] = {}
    for number, form in enumerate(search.hypotheses.forms):
        for start in np.flatnonzero(weight[number, : len(form.names) - offsets[-1]] > 0).tolist():
            share = float(weight[number, start])
            names = tuple(form.names[start + offset] for offset in offsets)
            discs = tuple(form.numbers[start + offset] for offset in offsets)
            known = best.get(names)
            total = share + (known.probability if known else 0.0)
            best[names] = _Counting(names, discs, known.form if known else form, known.start if known else start, total)
    return sorted(best.values(), key=lambda counting: -round(counting.probability, 12))


def _alternatives(countings: list[_Counting]) -> list[Alternative]:
    """The other countings that are worth offering: neighbours of the chosen one, unusual forms, likely ones."""
    chosen, result = countings[0], []
    for other in countings[1:]:
        unusual = other.form is not USUAL and not set(other.names) <= set(USUAL.names)
        neighbour = not unusual and abs(other.discs[0] - chosen.discs[0]) == 1
        if neighbour or other.probability >= (VARIANT_FROM if unusual else OFFERED_FROM):
            result.append(Alternative(other.names, other.discs, other.probability, _title(other, chosen, unusual)))
    return result[:MOST_OFFERED]


def _title(other: _Counting, chosen: _Counting, unusual: bool) -> str:
    if unusual or not set(chosen.names) <= set(USUAL.names):
        return f"{other.form.title}, the lowest disc in view is {other.names[-1]}"
    shift = other.discs[0] - chosen.discs[0]
    levels = "one level" if abs(shift) == 1 else f"{abs(shift)} levels"
    return f"{levels} {'lower' if shift > 0 else 'higher'}"


def _speaks(evidence: np.ndarray, path: list[tuple[int, int]]) -> bool:
    """Whether what the discs look like says anything about the level: whether one channel stands out on some disc."""
    seen = evidence[[candidate for candidate, _ in path]]
    share = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1e-9)
    return bool(((share.max(axis=1) > SPEAKING_SHARE) & (seen.max(axis=1) > SPEAKING_FROM)).any())


def _notes(
    discs: list[NamedDisc], missing: list[NamedDisc], alternatives: list[Alternative], relative: bool
) -> list[str]:
    notes = []
    if len(discs) == 1 and relative:
        notes.append("One disc is in view, which cannot be counted; say which disc it is.")
    elif relative:
        notes.append(
            "Nothing in view settles the level: the order of the discs holds, their names may all be shifted; say "
            "which disc one of them is."
        )
    if missing:
        notes.append(f"Not seen between the others: {', '.join(disc.name for disc in missing)}.")
    for other in alternatives:
        if "vertebrae" in other.title and other.probability >= OFFERED_FROM:
            notes.append(f"Possible too ({other.probability:.0%}): {other.title}.")
    return notes
