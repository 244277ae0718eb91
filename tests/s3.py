"""A real S3 server on this machine, in a thread of the test process, and one that can be told to refuse."""

import logging
import os
import socket
import threading

ACCESS, SECRET = "test-access-key-0f3a", "test-secret-key-9b1c"


class Server:
    """Moto's server on a port that is taken when the tests begin, so that every process may know it from then on.

    Attributes
    ----------
    asked
        Method, path and query of each request.
    refuses
        Called with these; where it says so, the answer is 403.
    """

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=0)
        self._server = None
        self.asked = []
        self.refuses = lambda *_: False

    def announce(self):
        """Set what the AWS SDK looks for, for this process and those that it starts."""
        host, port = self._socket.getsockname()
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
            os.environ.pop(name, None)

    def start(self):
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel("ERROR")
        self._socket.listen(128)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, fd=self._socket.fileno())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _answer(self, environ, start_response):
        asked = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        self.asked.append(asked)
        if self.refuses(*asked):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._app(environ, start_response)

    def stop(self):
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._socket.close()


server = Server()
