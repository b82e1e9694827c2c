"""Runs of the disc task on volumes of the scene, and the chains of discs that they leave there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from NeuraxisLib import scene
from NeuraxisLib.errors import InputError
from NeuraxisLib.scene_runs import SceneRuns
from SpineDiscLabelLib.panel_export import write_corrected
from SpineDiscLabelLib.panel_scene import SceneChain
from SpineDiscLabelLib.task import IMAGE, SECOND, TASK


class DiscRuns(SceneRuns):
    """Runs through a worker, of one contrast or two.

    Args:
        make_client: makes the worker client when the first run needs it.
    """

    def __init__(self, make_client: Callable[[], Any]):
        super().__init__(TASK.name, IMAGE, make_client)
        self._chain: SceneChain | None = None

    def process_pair(self, node: Any, second: Any | None, *arguments: Any) -> Any:
        """As :meth:`SceneRuns.process` on a volume node, with another contrast of the same spine or None."""
        chosen = {IMAGE: node} | ({SECOND: second} if second is not None else {})
        inputs = {name: scene.volume_from_node(one, unit="") for name, one in chosen.items()}
        return self.process(node, *arguments, inputs=inputs)

    def nodes(self, node: Any) -> dict[str, Any]:
        """Part -> node of the result of a volume."""
        return scene.result_nodes(node, TASK.name)

    def chain(self, node: Any) -> SceneChain | None:
        """The discs of a volume with all corrections; None if it has no result."""
        nodes = self.nodes(node)
        if not {"points", "table measurements"} <= nodes.keys():
            return None
        if self._chain is None or not self._chain.shows(nodes):
            self._chain = SceneChain(node, nodes)
        return self._chain

    def needed_chain(self, node: Any) -> SceneChain:
        """As :meth:`chain`; InputError if there is none."""
        chain = self.chain(node)
        if chain is None:
            raise InputError("The volume has no disc labels yet; label its discs first.")
        chain.take_in()
        return chain

    def corrected_folder(self, node: Any) -> Path:
        """The result folder of a volume, brought up to date with the corrections.

        Raises:
            InputError: it was not computed in this session.
            OutputError: it cannot be written.
        """
        chain, folder = self.needed_chain(node), self.result_folder(node)
        if folder is None:
            raise InputError("The files of this result are gone; label the discs again.")
        if not chain.is_reported:
            write_corrected(chain, folder)
        return folder
