"""The case in a browser: real MRML views, drawn on a computer without a desktop and sent to the page as pictures.

Needs the packages of the ``view`` extra (trame-slicer); nothing of it is imported by Slicer or by other commands.
"""
