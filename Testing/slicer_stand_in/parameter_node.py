"""``slicer.parameterNodeWrapper``: typed fields kept in a vtkMRMLScriptedModuleNode, bound to widgets by name.

Only the types that the modules use: str, int, float, bool, MRML nodes and ``Optional`` nodes, with WithinRange,
Choice and Default. Values are stored as text, nodes as references, so both travel with a saved scene.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass

import slicer
import vtk

__all__ = ["Choice", "Default", "WithinRange", "parameterNodeWrapper"]


@dataclass(frozen=True)
class WithinRange:
    """The value has to lie in minimum..maximum."""

    minimum: float
    maximum: float

    def check(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum}..{self.maximum}")


class Choice:
    """The value has to be one of the choices."""

    def __init__(self, choices):
        self.choices = list(choices)

    def check(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {self.choices}")


@dataclass(frozen=True)
class Default:
    """Value of a field that was never set."""

    value: object


class _Field:
    """One annotated field: how it is stored, checked and read."""

    def __init__(self, name: str, annotation, class_default):
        self.name, self.validators, default = name, [], class_default
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *extras = typing.get_args(annotation)
            for extra in extras:
                if isinstance(extra, Default):
                    default = extra.value
                else:
                    self.validators.append(extra)
        options = [a for a in typing.get_args(annotation) if a is not type(None)]
        self.kind = options[0] if options else annotation
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        if not self.is_node and self.kind not in (str, int, float, bool):
            raise TypeError(f"the stand-in's parameter node has no fields of type {self.kind}")
        self.default = default if default is not None or self.is_node else self.kind()

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if text == "" and self.name not in node.GetParameterNames():
            return self.default
        return text == "True" if self.kind is bool else self.kind(text)

    def write(self, node, value) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"{self.name} takes a {self.kind.__name__}, not {type(value).__name__}")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if self.kind is float and isinstance(value, int):
            value = float(value)
        if type(value) is not self.kind:
            raise TypeError(f"{self.name} takes a {self.kind.__name__}, not {type(value).__name__}")
        for validator in self.validators:
            validator.check(value)
        node.SetParameter(self.name, str(value))


_CONNECTORS = {
    "qMRMLNodeComboBox": ("currentNodeChanged(vtkMRMLNode*)", lambda w: w.currentNode(), "setCurrentNode"),
    "QCheckBox": ("toggled(bool)", lambda w: w.checked, "setChecked"),
    "QPushButton": ("toggled(bool)", lambda w: w.checked, "setChecked"),
    "ctkSliderWidget": ("valueChanged(double)", lambda w: w.value, "setValue"),
    "QSpinBox": ("valueChanged(int)", lambda w: w.value, "setValue"),
    "QDoubleSpinBox": ("valueChanged(double)", lambda w: w.value, "setValue"),
    "QLineEdit": ("textChanged(QString)", lambda w: w.text, "setText"),
}


def parameterNodeWrapper(cls):
    """Turn a class of annotated fields into a wrapper of a vtkMRMLScriptedModuleNode."""
    fields = {
        name: _Field(name, annotation, getattr(cls, name, None))
        for name, annotation in typing.get_type_hints(cls, include_extras=True).items()
    }
    return type(cls.__name__, (_Wrapper,), {"_fields": fields, "__doc__": cls.__doc__})


class _Wrapper:
    """Base of the wrapped classes."""

    _fields: dict[str, _Field] = {}

    def __init__(self, parameterNode):
        if not isinstance(parameterNode, slicer.vtkMRMLScriptedModuleNode):
            raise TypeError("a parameter node wrapper wraps a vtkMRMLScriptedModuleNode")
        self.__dict__.update(parameterNode=parameterNode, _connected={}, _next_tag=1)

    def __getattr__(self, name: str):
        if name in type(self)._fields:
            return type(self)._fields[name].read(self.parameterNode)
        raise AttributeError(f"the parameter node has no field '{name}'")

    def __setattr__(self, name: str, value) -> None:
        if name not in type(self)._fields:
            raise AttributeError(f"the parameter node has no field '{name}'")
        if type(self)._fields[name].read(self.parameterNode) != value:
            type(self)._fields[name].write(self.parameterNode, value)

    def AddObserver(self, *arguments):
        return self.parameterNode.AddObserver(*arguments)

    def RemoveObserver(self, tag) -> None:
        self.parameterNode.RemoveObserver(tag)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, was) -> None:
        self.parameterNode.EndModify(was)

    def connectGui(self, gui) -> int:
        """Bind every widget whose dynamic property SlicerParameterName names a field; the field's value wins."""
        undo = []
        for widget in vars(gui).values():
            name = widget.property("SlicerParameterName") if hasattr(widget, "property") else None
            if not name:
                continue
            if name not in type(self)._fields:
                raise ValueError(f"the widget {widget.name} names the field '{name}', which does not exist")
            undo.append(self._bind(widget, name))
        tag = self._next_tag
        self.__dict__["_next_tag"] = tag + 1
        self._connected[tag] = undo
        return tag

    def _bind(self, widget, name: str):
        if widget.className() not in _CONNECTORS:
            raise TypeError(f"a {widget.className()} cannot be bound to a parameter")
        signal, read, setter = _CONNECTORS[widget.className()]

        def to_widget(*_) -> None:
            value = getattr(self, name)
            if read(widget) != value:
                getattr(widget, setter)(value)

        def to_node() -> None:
            setattr(self, name, read(widget))

        to_widget()
        widget.connect(signal, to_node)
        tag = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widget)
        return lambda: (widget.disconnect(signal, to_node), self.parameterNode.RemoveObserver(tag))

    def disconnectGui(self, tag: int) -> None:
        """Undo connectGui."""
        for undo in self._connected.pop(tag):
            undo()
