"""Configurations as protobuf's JSON form shows them."""

from tuili.server.repository.filling import filled


def test_fields_of_messages_that_are_there_get_their_defaults():
    control = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_STRING"}
    raw = {"control_input": [{"name": "ID", "control": [control]}], "oldest": {}}
    assert filled(raw, "SequenceBatching") == {
        "oldest": {
            "max_candidate_sequences": 0,
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": 0,
            "preserve_ordering": False,
        },
        "max_sequence_idle_microseconds": 0,
        "control_input": [
            {
                "name": "ID",
                "control": [
                    {
                        "kind": "CONTROL_SEQUENCE_CORRID",
                        "int32_false_true": [],
                        "fp32_false_true": [],
                        "bool_false_true": [],
                        "data_type": "TYPE_STRING",
                    }
                ],
            }
        ],
        "state": [],
        "iterative_sequence": False,
    }


def test_messages_that_are_absent_stay_absent_and_maps_are_filled_by_entry():
    raw = {"name": "m", "parameters": {"a": {}}}
    found = filled(raw)
    assert "dynamic_batching" not in found
    assert found["parameters"] == {"a": {"string_value": ""}}
    assert filled(found) == found
