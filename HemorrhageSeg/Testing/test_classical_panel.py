"""The panel offers the classical methods after the networks, says what they are, and runs the chosen one."""

from __future__ import annotations

from Testing.slicer_stand_in.fake_worker import FakeClient, bleed_result, compute_with
from Testing.slicer_stand_in.fixtures import add_head, application, stand_in  # noqa: F401

TITLES = ["Active contour (no training)", "Fuzzy c-means (no training)"]


def test_classical_methods_are_offered_last_and_run_when_chosen(application, tmp_path, monkeypatch):  # noqa: F811
    fake = FakeClient(tmp_path)
    compute_with(monkeypatch, fake, models=None)
    add_head()
    widget = application.new_widget("HemorrhageSeg")
    models = widget.ui.modelComboBox
    titles = [models.itemText(index) for index in range(models.count)]
    assert titles[-2:] == TITLES and models.currentText not in TITLES
    models.setCurrentIndex(models.count - 1)
    assert "not a trained network" in widget.ui.modelCardLabel.text
    assert "not a calibrated probability" in widget.ui.modelCardLabel.text
    widget.ui.applyButton.click()
    assert fake.handle.job.model == "hemorrhage-fuzzy-c-means"
    fake.finish(bleed_result(fake.handle.job.volume))
    widget._panel.run.on_timer()
    assert widget.ui.statusLabel.text.startswith("Done.")
    application.close_widget(widget)
