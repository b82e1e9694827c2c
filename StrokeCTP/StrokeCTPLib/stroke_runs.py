"""Runs of the stroke task on what the scene holds: frames of an acquisition, or maps of another program."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from NeuraxisLib import scene, scene_frames, scene_masks
from NeuraxisLib.errors import InputError
from NeuraxisLib.files import write_volume
from NeuraxisLib.private_folder import private_folder, remove_private
from NeuraxisLib.scene_review_edits import is_edited
from NeuraxisLib.scene_runs import SceneRuns
from NeuraxisLib.volume import Volume
from StrokeCTPLib import panel_choice

TASK_NAME, INPUT = "stroke", "perfusion"
#: Attribute of a result's measurement table: network, options and excluded tissue of the run, as JSON.
ASKED_ATTRIBUTE = "Neuraxis.Asked"


class StrokeRuns(SceneRuns):
    """Runs through a worker; results are tied to the average of the frames, or to the first of the maps.

    Args:
        make_client: makes the worker client when the first run needs it.
    """

    def __init__(self, make_client: Callable[[], Any]):
        super().__init__(TASK_NAME, INPUT, make_client)
        self._private: Path | None = None

    def process_chosen(
        self,
        chosen: Any,
        model: str,
        device: str,
        options: Mapping[str, Any],
        wait: bool,
        on_progress: Callable[[float, str], None] | None = None,
        on_done: Callable[[Any], None] | None = None,
        on_failed: Callable[[Exception], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
        exclude: Any = None,
    ) -> Any:
        """As :meth:`SceneRuns.process`, on a node with frames, or on a dict of map kind -> volume node.

        Args:
            exclude: segmentation or label map of tissue to leave out of the lesions; None for nothing.
        """
        if isinstance(chosen, Mapping):
            source, given = next(iter(chosen.values()), None), self._write_maps(chosen)
        else:
            given, source = scene_frames.placed_frames(chosen)

        mask = None if exclude is None or source is None else scene_masks.mask_of(exclude, source)
        asked = asked_text(options, model, mask)

        def remember(shown: scene.SceneResult) -> scene.SceneResult:
            shown.tables["measurements"].SetAttribute(ASKED_ATTRIBUTE, asked)
            return shown

        def done(shown: scene.SceneResult) -> None:
            remember(shown)
            if on_done:
                on_done(shown)

        inputs = {INPUT: given}
        if mask is not None:
            inputs["exclude"] = Volume(mask.astype(np.uint8), scene.ijk_to_world(source), "")
        ended = self.process(
            source, model, device, options, wait, on_progress, done, on_failed, on_cancelled, inputs=inputs
        )
        return remember(ended) if wait else ended

    def stop(self) -> None:
        """End the worker and remove all private files."""
        super().stop()
        if self._private is not None:
            remove_private(self._private)
            self._private = None

    def _write_maps(self, maps: Mapping[str, Any]) -> Path:
        """The maps as files named after their kinds, in a private folder of their own."""
        if not maps:
            raise InputError("Choose the perfusion maps first.")
        if self._private is None:
            self._private = private_folder("maps")
        folder = Path(tempfile.mkdtemp(dir=self._private))
        for kind, node in maps.items():
            write_volume(scene.volume_from_node(node, unit=""), folder / f"{kind}.nrrd")
        return folder


def mask_key(mask: np.ndarray | None) -> str:
    """What tells a mask from another one; empty for none."""
    return "" if mask is None else f"{zlib.crc32(np.packbits(mask)):08x}"


def asked_text(options: Mapping[str, Any], model: str, mask: np.ndarray | None) -> str:
    """What a run was asked for, in a form that can be compared; where it is computed changes nothing."""
    asked = {"options": dict(options), "model": model or "", "exclude": mask_key(mask)}
    return json.dumps(asked, sort_keys=True, default=str)


def excluded_key(nodes: Mapping[str, Any]) -> str:
    """The :func:`mask_key` of the tissue that the run of a result left out."""
    return json.loads(nodes["table measurements"].GetAttribute(ASKED_ATTRIBUTE) or "{}").get("exclude", "")


def is_up_to_date(nodes: Mapping[str, Any], parameters: Any) -> bool:
    """Whether a result in the scene was computed with options, network and excluded tissue as the panel says them.

    One that was edited by hand is: no computation would draw it again.
    """
    if is_edited(nodes):
        return True
    table, mask = nodes.get("table measurements"), panel_choice.excluded_tissue(parameters)
    asked = asked_text(panel_choice.options_of(parameters), parameters.modelName, mask)
    return table is not None and table.GetAttribute(ASKED_ATTRIBUTE) == asked
