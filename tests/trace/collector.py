"""An OTLP/HTTP receiver in a thread: what it got, and as what it decodes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_S = 5.0


@dataclass
class Receiver:
    """`got`: content type and body of each request. It answers `status` while `gate` is open."""

    url: str = ""
    status: int = 200
    got: list[tuple[str, bytes]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        """Where it takes spans; any other path is 404."""
        return f"{self.url}/v1/traces"

    def spans(self) -> list[Span]:
        """Everything it got."""
        requests = [decoded(body) for _, body in self.got]
        resources = [resource for request in requests for resource in request.resource_spans]
        return [span for one in resources for scope in one.scope_spans for span in scope.spans]


def decoded(body: bytes) -> ExportTraceServiceRequest:
    """OTLP JSON as protobuf: ids are hex there, where protobuf's own JSON has base64."""
    document = json.loads(body)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId"):
                    span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return ParseDict(document, ExportTraceServiceRequest())


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port, until the block ends."""
    receiver = Receiver()
    receiver.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append((self.headers["content-type"], body))
            receiver.gate.wait(PATIENCE_S)
            self.send_response(receiver.status if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiver
        receiver.gate.set()
        server.shutdown()
        thread.join()
