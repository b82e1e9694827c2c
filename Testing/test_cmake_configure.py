"""CMake itself reads the build files, with a stand-in for the Slicer build tree that writes down what it is told."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from project_tree import ROOT, cmake_list, module_names

#: What find_package(Slicer) finds: the macros that the build files call, reduced to checking and recording.
SLICER_CONFIG = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/use.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/nothing.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/nothing.cmake")
set(BUILD_TESTING ON)
"""
USE_FILE = """
function(record key)
  string(JOIN " " values ${ARGN})
  file(APPEND "${CMAKE_BINARY_DIR}/record.txt" "${key}: ${values}\\n")
endfunction()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "listed but missing: ${file}")
    endif()
  endforeach()
  record("${MY_NAME} scripts" ${MY_SCRIPTS})
  record("${MY_NAME} resources" ${MY_RESOURCES})
endfunction()
function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "test is missing: ${MY_SCRIPT}")
  endif()
  record("test" ${MY_SCRIPT})
endfunction()
"""


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> list[str]:
    """What the build files told the stand-in, one line per call."""
    cmake = shutil.which("cmake")
    if not cmake or not (shutil.which("c++") or shutil.which("cl")):
        pytest.skip("needs CMake and a C++ compiler, as a Slicer build does")
    folder = tmp_path_factory.mktemp("slicer_build")
    (folder / "SlicerConfig.cmake").write_text(SLICER_CONFIG)
    (folder / "use.cmake").write_text(USE_FILE)
    (folder / "nothing.cmake").write_text("")
    command = [cmake, "-S", ROOT, "-B", folder / "build", f"-DSlicer_DIR={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "build" / "record.txt").read_text().splitlines()


def test_every_module_is_configured_with_its_test(record):
    assert [line for line in record if line.startswith("test:")] == [f"test: {name}.py" for name in module_names()]


@pytest.mark.parametrize("module", module_names())
def test_cmake_sees_the_lists_that_the_other_tests_check(record, module):
    assert f"{module} scripts: {' '.join(cmake_list(module, 'MODULE_PYTHON_SCRIPTS'))}" in record
    assert f"{module} resources: {' '.join(cmake_list(module, 'MODULE_PYTHON_RESOURCES'))}" in record
