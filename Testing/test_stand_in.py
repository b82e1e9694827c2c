"""The stand-in refuses what Slicer refuses."""

from __future__ import annotations

import sys

import pytest

from Testing.slicer_stand_in.fixtures import ROOT, add_head, application, reddish, stand_in  # noqa: F401


def load(text: str, tmp_path):
    """Load a .ui file with these widgets inside a qMRMLWidget called Top."""
    import slicer

    body, _, connections = text.partition("|")
    path = tmp_path / "panel.ui"
    path.write_text(
        f'<ui version="4.0"><class>Top</class><widget class="qMRMLWidget" name="Top"><layout class="QVBoxLayout" '
        f'name="l">{body}</layout></widget><connections>{connections}</connections></ui>'
    )
    return slicer.util.loadUI(str(path))


SELECTOR = '<item><widget class="qMRMLNodeComboBox" name="selector">{}</widget></item>'
CONNECTION = (
    "<connection><sender>Top</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>selector</receiver>"
    "<slot>setMRMLScene(vtkMRMLScene*)</slot></connection>"
)


def test_properties_are_values(application):  # noqa: F811
    import qt

    button = qt.QPushButton()
    button.text = "Go"
    assert button.text == "Go" and button.enabled is True
    with pytest.raises(TypeError):
        button.text()


def test_unknown_attribute_cannot_be_assigned(application):  # noqa: F811
    import ctk
    import qt

    for widget in (qt.QPushButton(), ctk.ctkSliderWidget()):
        with pytest.raises(AttributeError):
            widget.tooltip = "no such property"


def test_unknown_signal_is_an_error(application):  # noqa: F811
    import ctk
    import qt

    for widget, signal in ((qt.QPushButton(), "click(bool)"), (ctk.ctkSliderWidget(), "valueChanged(int)")):
        with pytest.raises(AttributeError, match="has no signal"):
            widget.connect(signal, print)


def test_slots_get_as_many_arguments_as_they_take(application):  # noqa: F811
    import qt

    button, heard = qt.QPushButton(), []
    button.connect("clicked(bool)", lambda: heard.append("none"))
    button.connect("clicked(bool)", lambda checked: heard.append(checked))
    button.click()
    assert heard == ["none", False]


def test_disconnect(application):  # noqa: F811
    import qt

    button, heard = qt.QPushButton(), []

    def slot():
        heard.append(1)

    button.connect("clicked(bool)", slot)
    button.disconnect("clicked(bool)", slot)
    button.click()
    assert heard == []


def test_methods_that_are_no_slots_are_not_there(application):  # noqa: F811
    import ctk

    assert not hasattr(ctk.ctkSliderWidget(), "setRange")
    assert not hasattr(ctk.ctkCollapsibleButton(), "setCollapsed")


def test_slider_tells_dragging_and_letting_go_apart(application):  # noqa: F811
    import ctk

    slider, heard = ctk.ctkSliderWidget(), []
    slider.connect("valueIsChanging(double)", lambda value: heard.append("changing"))
    slider.connect("valueChanged(double)", lambda value: heard.append("changed"))
    slider.tracking = False
    slider._slider.setSliderDown(True)
    slider._slider.setValue(500)
    assert heard == ["changing"]
    slider._slider.setSliderDown(False)
    assert heard == ["changing", "changed"]
    slider.value = 10.0
    assert heard == ["changing", "changed", "changed"]


def test_views_of_a_layout_come_with_the_layout(application):  # noqa: F811
    import slicer

    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    view = '<item><view class="vtkMRMLPlotViewNode" singletontag="StandInPlot"/></item>'
    node.AddLayoutDescription(20998, f'<layout type="horizontal">{view}</layout>')
    count = application.layout.plotViewCount
    assert application.layout.sliceWidget("StandInSlice") is None
    application.layout.setLayout(20998)
    assert application.layout.plotViewCount == count + 1
    plot = application.layout.plotWidget(count)
    assert plot.mrmlPlotViewNode().GetLayoutName() == "StandInPlot" and plot.plotView().pixels().min() > 200


def test_selector_without_its_connection_stays_disabled(application, tmp_path):  # noqa: F811
    import slicer

    for connection, enabled in (("", False), (CONNECTION, True)):
        top = load(SELECTOR.format("") + "|" + connection, tmp_path)
        top.setMRMLScene(slicer.mrmlScene)
        assert slicer.util.childWidgetVariables(top).selector.enabled is enabled


@pytest.mark.parametrize(
    "text",
    [
        '<item><widget class="ctkNoSuchWidget" name="a"/></item>',
        SELECTOR.format('<property name="noneEnable"><bool>true</bool></property>'),
        SELECTOR.format("") + "|" + CONNECTION.replace("<slot>setMRMLScene", "<slot>setScene"),
        SELECTOR.format("") + "|" + CONNECTION.replace(">selector<", ">selecter<"),
    ],
    ids=["class", "property", "slot", "receiver"],
)
def test_faulty_ui_file_is_refused(application, tmp_path, text):  # noqa: F811
    with pytest.raises((RuntimeError, AttributeError)):
        load(text, tmp_path)


def test_unexpected_question_is_an_error(application):  # noqa: F811
    import qt

    with pytest.raises(AssertionError, match="unexpected pop-up"):
        qt.QFileDialog.getSaveFileName(None, "Save")
    application.recorded.answers.append("there.html")
    assert qt.QFileDialog.getSaveFileName(None, "Save") == "there.html"


def test_parameter_node_checks_names_types_and_ranges(application):  # noqa: F811
    parameters = sys.modules["HemorrhageSeg"].HemorrhageSegLogic().getParameterNode()
    with pytest.raises(AttributeError):
        parameters.overlayOpacty = 0.5
    with pytest.raises(ValueError):
        parameters.overlayOpacity = 1.5
    with pytest.raises(TypeError):
        parameters.device = 3
    parameters.overlayOpacity = 0.25
    assert sys.modules["HemorrhageSeg"].HemorrhageSegLogic().getParameterNode().overlayOpacity == 0.25


def test_views_show_the_scan_and_the_empty_scene_nothing(application):  # noqa: F811
    view = application.layout.sliceWidget("Red").sliceView()
    assert view.pixels().max() == 0
    add_head()
    assert 100 < view.pixels().max() < 160 and reddish(view.pixels()) == 0


def test_packages_are_recorded_and_not_installed(application, tmp_path):  # noqa: F811
    from slicer.packaging import load_requirements, pip_ensure

    (tmp_path / "requirements.txt").write_text("numpy>=1.20\nneuraxis-no-such-package>=1  # a comment\n")
    pip_ensure(load_requirements(tmp_path / "requirements.txt"))
    assert application.packaging.ensured == ["neuraxis-no-such-package>=1"]
    application.packaging.agrees = False
    with pytest.raises(RuntimeError):
        pip_ensure(load_requirements(tmp_path / "requirements.txt"))
