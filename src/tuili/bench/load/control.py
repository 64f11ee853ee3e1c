"""What a load asks of a server beside inference: metadata, and regions of shared memory."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any, Protocol

from tuili.bench.load.sockets import Target
from tuili.errors import InvalidArgument, Unavailable, in_words

_TIMEOUT_S = 30.0
_SERVICE = "/inference.GRPCInferenceService/"
Json = dict[str, Any]


class Control(Protocol):
    """The few calls, over either protocol."""

    def metadata(self, model: str, version: str) -> Json:
        """`{"inputs": [{"name", "datatype", "shape"}], ...}`."""
        ...

    def register(self, region: str, key: str, size: int) -> None:
        """Let the server map a region of shared memory."""
        ...

    def unregister(self, region: str) -> None:
        """The region will go."""
        ...


def control_of(target: Target) -> Control:
    """Calls over the protocol of the target."""
    return HttpControl(target) if target.protocol == "http" else GrpcControl(target)


class HttpControl:
    """Over HTTP."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def metadata(self, model: str, version: str) -> Json:
        """The model's inputs and outputs."""
        return self._call("GET", f"/v2/models/{model}{f'/versions/{version}' if version else ''}")

    def register(self, region: str, key: str, size: int) -> None:
        """Let the server map a region."""
        body: Json = {"key": key, "offset": 0, "byte_size": size}
        self._call("POST", f"/v2/systemsharedmemory/region/{region}/register", body)

    def unregister(self, region: str) -> None:
        """The region will go."""
        self._call("POST", f"/v2/systemsharedmemory/region/{region}/unregister", {})

    def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        target = self._target
        if target.tls:
            trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(
                target.host, target.port, timeout=_TIMEOUT_S, context=trusting
            )
        else:
            connection = http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise Unavailable(f"no server at {target.authority}: {in_words(error)}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise InvalidArgument(f"{method} {path}: {answer.status} {text[:300].decode()}")
        return json.loads(text) if text.strip() else {}


class GrpcControl:
    """Over gRPC."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def metadata(self, model: str, version: str) -> Json:
        """The model's inputs and outputs."""
        found = self._call("ModelMetadata", name=model, version=version)
        return {
            role: [
                {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
                for each in getattr(found, role)
            ]
            for role in ("inputs", "outputs")
        }

    def register(self, region: str, key: str, size: int) -> None:
        """Let the server map a region."""
        self._call("SystemSharedMemoryRegister", name=region, key=key, offset=0, byte_size=size)

    def unregister(self, region: str) -> None:
        """The region will go."""
        self._call("SystemSharedMemoryUnregister", name=region)

    def _call(self, method: str, **fields: object) -> Any:
        import grpc

        from tuili.server.grpc.schema import INFERENCE

        request, answer = INFERENCE[f"{method}Request"], INFERENCE[f"{method}Response"]
        target = self._target
        if target.tls:
            pem = ssl.get_server_certificate((target.host, target.port)).encode()
            channel = grpc.secure_channel(target.authority, grpc.ssl_channel_credentials(pem))
        else:
            channel = grpc.insecure_channel(target.authority)
        with channel:
            call = channel.unary_unary(
                _SERVICE + method,
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            try:
                return call(request(**fields), timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                text = f"{method}: {error.code().name} {error.details()}"  # type: ignore[attr-defined]
                raise InvalidArgument(text) from error
