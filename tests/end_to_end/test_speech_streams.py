"""Silero VAD with its state in the server: a hundred interleaved streams, each as if alone."""

import asyncio

import numpy as np
import pytest

from benchmarks import speech_streams
from benchmarks.models import MODELS
from tests.server.test_dataplane import run
from tuili.server.protocol.messages import InferRequest, InputTensor

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]
STREAMS, CHUNKS = 100, 4


def alone(session, sound):
    """The answers of one stream whose client keeps the state."""
    state, found = np.zeros((2, 1, 128), np.float32), []
    for chunk in sound:
        feeds = {"input": chunk, "state": state, "sr": np.array(16000)}
        answer, state = session.run(None, feeds)
        found.append(answer.item())
    return found


def ask(sequence, at, chunk):
    rate = np.array([16000])
    return InferRequest(
        "vad",
        [InputTensor("input", "FP32", chunk.shape, chunk), InputTensor("sr", "INT64", (1,), rate)],
        parameters={
            "sequence_id": sequence,
            "sequence_start": at == 0,
            "sequence_end": at == CHUNKS - 1,
        },
    )


def test_a_hundred_interleaved_streams_are_each_as_if_alone(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(MODELS["silero_vad"].path(), options)
    speech_streams.put(tmp_path)
    sounds = [speech_streams.speech(stream, CHUNKS) for stream in range(STREAMS)]

    async def scenario(dataplane):
        answers = [[None] * CHUNKS for _ in range(STREAMS)]
        left = asyncio.get_running_loop().create_future()
        count = STREAMS * CHUNKS

        def answered(stream, at, answer):
            nonlocal count
            answers[stream][at] = answer.outputs[0].data.item()
            count -= 1
            if not count:
                left.set_result(None)

        # All chunks are there at once: the server keeps each stream in order.
        for at in range(CHUNKS):
            for stream in range(STREAMS):
                dataplane.submit(
                    ask(stream + 1, at, sounds[stream][at]),
                    lambda answer, stream=stream, at=at: answered(stream, at, answer),
                )
        await asyncio.wait_for(left, 60)
        return answers

    found = run(tmp_path, scenario)
    expected = [alone(session, sound) for sound in sounds]
    np.testing.assert_allclose(found, expected, atol=1e-5)
