"""Servers that tests put results on: FTP (pyftpdlib) and S3 (moto), each in a thread of the test's own process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: How long a file takes to arrive while uploads are slow.
_NAP_S = 0.25


class _Server:
    """What both have: a place for each test, and uploads that can be made slow.

    Attributes:
        environment: of processes that are to reach it.
        puts: paths of files whose coming has begun while uploads were slow.
    """

    #: Slashes in the path of a batch.
    _depth = 1

    def __init__(self) -> None:
        self.environment: dict[str, str] = dict(os.environ)
        self.puts: list[str] = []
        self._slow = False

    @contextmanager
    def slow_uploads(self) -> Iterator[Callable[[], bool]]:
        """Files come in slowly; gives what tells whether a result is half there now."""
        self.puts, self._slow = [], True
        try:
            yield lambda: len(self.puts) > 1 and any(path.endswith("unfinished.json") for path in self.puts[:-1])
        finally:
            self._slow = False

    def _note(self, path: str) -> None:
        if self._slow and path.rpartition("/")[0].count("/") > self._depth:  # a file of a case, not of the whole batch
            self.puts.append(path)
            time.sleep(_NAP_S)


class FtpServer(_Server):
    """An FTP server on a folder; its users are ``me``, who may write, and ``reader``."""

    password = "correct-horse"

    def __init__(self, folder: Path):
        super().__init__()
        pytest.importorskip("pyftpdlib")
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.servers import ThreadedFTPServer

        folder.mkdir(exist_ok=True)
        self._authorizer = DummyAuthorizer()
        self._authorizer.add_user("me", self.password, str(folder), perm="elradfmwMT")
        self._authorizer.add_user("reader", self.password, str(folder), perm="elr")
        note = self._note

        class Handler(FTPHandler):
            authorizer = self._authorizer

            def ftp_STOR(self, file, mode="w"):  # noqa: N802 - of pyftpdlib
                note(self.fs.fs2ftp(file))
                return super().ftp_STOR(file, mode)

        self._server = ThreadedFTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"timeout": 0.05}, daemon=True)

    def at(self, name: str, reader: bool = False) -> str:
        """The address of a folder."""
        host, port = self._server.address[:2]
        return f"ftp://{'reader' if reader else 'me'}:{self.password}@{host}:{port}/{name}"

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody may write."""
        user = self._authorizer.user_table["me"]
        before, user["perm"] = user["perm"], "elr"
        try:
            yield
        finally:
            user["perm"] = before

    def __enter__(self) -> FtpServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close_all()


class S3Server(_Server):
    """An S3 server with one bucket."""

    bucket, _depth = "results", 2

    def __enter__(self) -> S3Server:
        pytest.importorskip("s3fs")
        server = pytest.importorskip("moto.moto_server.threaded_moto_server")
        from fsspec.config import conf

        note = self._note

        class Dispatcher(server.DomainDispatcherApplication):
            def __call__(self, environ, start_response):
                if environ["REQUEST_METHOD"] == "PUT":
                    note(environ["PATH_INFO"])
                return super().__call__(environ, start_response)

        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(server, "DomainDispatcherApplication", Dispatcher)
        self._server = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._server.start()
        url = "http://{}:{}".format(*self._server.get_host_and_port())
        keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        self.environment |= {**keys, "AWS_ENDPOINT_URL": url}
        self._patch.setitem(conf, "s3", {"endpoint_url": url, "key": "me", "secret": "secret"})
        import s3fs

        s3fs.S3FileSystem().mkdir(self.bucket)
        return self

    def at(self, name: str) -> str:
        """The address of a folder."""
        return f"s3://{self.bucket}/{name}"

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        self._server.stop()
