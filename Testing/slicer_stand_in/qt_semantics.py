"""PySide6 made to behave as PythonQt does inside Slicer.

* properties are plain attributes: ``button.text`` reads, ``button.text = "x"`` writes, ``button.text()`` fails;
* ``widget.connect("clicked(bool)", f)`` with the C++ signature; f gets only as many arguments as it takes;
* an attribute that the class does not have cannot be assigned;
* ``widget.name``, ``widget.className()``, ``widget.delete()``.

PythonQt only prints a message for an unknown signal; here it is an error, since it is one in every module.
"""

from __future__ import annotations

import ctypes
import inspect
import sys
from collections.abc import Callable

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

#: Virtual methods that share a property's name: C++ looks them up on the Python class, so they stay methods.
_VIRTUAL = ("sizeHint", "minimumSizeHint")
_static_connect = QtCore.QObject.connect
_static_disconnect = QtCore.QObject.disconnect
_original_getattribute = QtCore.QObject.__getattribute__
_connections: dict[tuple[int, str, Callable], list] = {}


class QtProperty:
    """A Qt property as PythonQt shows it: a value, not a method."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, widget, owner=None):
        if widget is None:
            return self
        value = widget.property(self.name)
        return tuple(value) if isinstance(value, list) else value

    def __set__(self, widget, value) -> None:
        if not widget.setProperty(self.name, value):
            raise TypeError(f"{type(widget).__name__}.{self.name} cannot be set to {value!r}")


def qt_classes() -> list[type]:
    """Every QObject class of QtCore, QtGui and QtWidgets."""
    found = {}
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):
            candidate = getattr(module, name)
            if isinstance(candidate, type) and issubclass(candidate, QtCore.QObject):
                found[candidate] = None
    return list(found)


def install() -> None:
    """Change the PySide6 classes of this process, once."""
    if sys.version_info < (3, 12):
        # PySide6 6.12 returns None from C++ functions without counting it. From Python 3.12 on None is immortal;
        # before, a long test run would bring its count to zero and end the process.
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40
    for qt_class in qt_classes():
        meta = qt_class.staticMetaObject
        for index in range(meta.propertyOffset(), meta.propertyCount()):
            name = meta.property(index).name()
            if name not in _VIRTUAL:
                setattr(qt_class, name, QtProperty(name))
        qt_class.__setattr__ = _strict_setattr
    base = QtCore.QObject
    base.name = QtProperty("objectName")
    base.className = lambda self: self.metaObject().className()
    base.delete = lambda self: shiboken6.delete(self)
    base.__getattribute__ = _getattribute


def _strict_setattr(self, name: str, value) -> None:
    # PySide keeps a bound signal on the widget at its first use; its .ui loader keeps named children
    if isinstance(value, QtCore.SignalInstance) or (isinstance(value, QtCore.QObject) and value.objectName == name):
        self.__dict__[name] = value
        return
    for owner in type(self).__mro__:
        if name in owner.__dict__:
            descriptor = owner.__dict__[name]
            if isinstance(descriptor, QtCore.Property):  # of a stand-in widget
                QtProperty(name).__set__(self, value)
                return
            if hasattr(type(descriptor), "__set__"):
                descriptor.__set__(self, value)
                return
            break
    if type(self).__module__.startswith("PySide6") or (_is_stand_in(self) and not name.startswith("_")):
        raise AttributeError(f"{type(self).__name__} has no attribute '{name}' that can be assigned")
    self.__dict__[name] = value


def _is_stand_in(widget) -> bool:
    return type(widget).__module__.startswith("Testing.slicer_stand_in")


def _getattribute(self, name: str):
    if name == "connect":
        return lambda signature, function: connect(self, signature, function)
    if name == "disconnect":
        return lambda signature, function: disconnect(self, signature, function)
    return _original_getattribute(self, name)


def fewer_arguments(function: Callable) -> Callable:
    """The function, called with only as many of the signal's arguments as it takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return lambda *arguments: function(*arguments)
    if any(parameter.kind == parameter.VAR_POSITIONAL for parameter in parameters):
        return lambda *arguments: function(*arguments)
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(parameter.kind in positional for parameter in parameters)
    return lambda *arguments: function(*arguments[:count])


def normalized(signature: str) -> str:
    """The signature in Qt's canonical spelling."""
    return bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()


def connect(sender, signature: str, function: Callable) -> bool:
    """``sender.connect("clicked(bool)", function)``; AttributeError for a signal that the class does not have."""
    receiver = fewer_arguments(function)
    own_signals = getattr(type(sender), "_signals", {})
    signature = normalized(signature)
    if signature in own_signals:
        getattr(sender, own_signals[signature]).connect(receiver)
    elif sender.metaObject().indexOfSignal(signature) >= 0 and not signature.startswith("_"):
        _static_connect(sender, QtCore.SIGNAL(signature), receiver)
    else:
        raise AttributeError(f"{type(sender).__name__} has no signal '{signature}'")
    _connections.setdefault((id(sender), signature, function), []).append(receiver)
    return True


def disconnect(sender, signature: str, function: Callable) -> bool:
    """Undo :func:`connect`; ValueError if that connection was never made."""
    signature = normalized(signature)
    receivers = _connections.pop((id(sender), signature, function), None)
    if receivers is None:
        raise ValueError(f"{type(sender).__name__}.{signature} was not connected to {function}")
    own_signals = getattr(type(sender), "_signals", {})
    for receiver in receivers:
        if signature in own_signals:
            getattr(sender, own_signals[signature]).disconnect(receiver)
        else:
            _static_disconnect(sender, QtCore.SIGNAL(signature), receiver)
    return True
