"""`tuili serve --record`, and what becomes of its files."""

import http.client
import json

import numpy as np
import pytest

from tests.end_to_end.conftest import add_identity, serving


@pytest.mark.parametrize(("transport", "front_ends"), [("http", 1), ("grpc", 2)])
def test_what_clients_send_is_kept_and_can_be_sent_again(tmp_path, transport, front_ends):
    library = pytest.importorskip(f"tritonclient.{transport}")
    add_identity(tmp_path, "m", dims="-1")
    options = ("--record", "m=2", "--frontends", str(front_ends))
    with serving(tmp_path, *options) as server:
        # Each client may meet another front end, and the second request of each the express way.
        for size in (1, 2, 2, 3, 4):
            with library.InferenceServerClient(server.url(transport)) as client:
                for _ in range(2):
                    x = library.InferInput("x", [1, size], "FP32")
                    x.set_data_from_numpy(np.full((1, size), size, np.float32))
                    assert client.infer("m", [x]).as_numpy("y").tolist() == [[size] * size]
    files = sorted((tmp_path / "m" / "recorded").iterdir())
    assert len(files) == 2
    with serving(tmp_path) as server:
        for path in files:
            data = path.read_bytes()
            head = data.index(b"\n") + 1
            connection = http.client.HTTPConnection(server.url("http"))
            fields = {"Inference-Header-Content-Length": str(head)}
            connection.request("POST", "/v2/models/m/infer", data, fields)
            answer = json.load(connection.getresponse())
            connection.close()
            assert answer["outputs"][0]["data"] in ([1.0], [2.0, 2.0])


@pytest.mark.parametrize("text", ["m", "m=", "m=0", "=3", "m=some"])
def test_a_wrong_record_option_is_told(tmp_path, text):
    from typer.testing import CliRunner

    from tuili.cli.main import app

    done = CliRunner().invoke(app, ["serve", str(tmp_path), "--record", text])
    assert done.exit_code == 2
    assert "expected MODEL=COUNT" in done.output
