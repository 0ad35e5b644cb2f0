"""Certificates of every kind, good and bad, and servers that show them."""

import contextlib
import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone

from fusion.certificates.authority import Authority, Subject
from fusion.security.credentials import Credentials


class Certificates:
    """A private authority in a folder, and what it makes: `issue` gives the `Credentials` of one side."""

    def __init__(self, folder, age_days=100):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.pem = Authority(folder, self._time(age_days)).pem
        self.ca = str(folder / "ca.pem")

    @staticmethod
    def _time(age_days):
        return datetime.now(timezone.utc) - timedelta(days=age_days)  # noqa: UP017 - as in certificates.py.

    def issue(self, *names, days=30, age_days=0, client=False, ca=None, token_file=None):
        """A certificate made `age_days` ago, for `days` since then; trusts `ca`, or else this authority."""
        maker = Authority(self.folder, self._time(age_days))
        pair = [self.folder / f"{kind}{len(list(self.folder.iterdir()))}.pem" for kind in ("cert", "key")]
        for path, made in zip(pair, maker.issue(Subject("test", names, client), days), strict=True):
            path.write_bytes(made)
            path.chmod(0o600)
        return Credentials(token_file, ca or self.ca, str(pair[0]), str(pair[1]))


def options(credentials):
    """The flags of a server or of predict."""
    named = {key: value for key, value in vars(credentials).items() if value is not None}
    return [f"--{key}={value}" for key, value in named.items()]


@contextlib.contextmanager
def server(cert, key):
    """A TLS server of this process that shows any certificate, even one that the runner's would not start with; gives
    its port of 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                        secured.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Wakes the thread, which closing alone does not.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
