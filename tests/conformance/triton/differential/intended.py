"""Every difference from Triton that is meant, with its reason.

A row matches a case by the glob `cases` and a difference by its aspect (`status`, `text` or a path
below `body`) and by what each side answers. A row that matches nothing is stale, which is an error,
unless Triton answers now so and now so.
"""

# ruff: noqa: E501 - one row, one family of differences

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect of one answer in which the servers differ."""

    aspect: str
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class Intended:
    """A family of differences that is meant."""

    cases: str
    aspect: str
    ours: str
    theirs: str
    reason: str
    always: bool = True

    def covers(self, case: str, difference: Difference) -> bool:
        """Whether this row tells of that difference."""
        return (
            any(fnmatchcase(case, each) for each in self.cases.split(" | "))
            and re.fullmatch(self.aspect, re.sub(r"^\d+\.", "", difference.aspect)) is not None
            and re.fullmatch(
                f"(?:{self.ours})\x00(?:{self.theirs})",
                f"{difference.ours}\x00{difference.theirs}",
                re.DOTALL,
            )
            is not None
        )


_SAME = "the same words; then what was found"
_TRACE = "a level is taken before there is a file to trace to"
_STRICT = "wrong or unknown settings are refused with the nearest known one, not dropped in silence"
_WRONG_JSON = "another check finds the mistake first, and names it"
_EVEN_FALSE = "a value of a wrong type is refused, not dropped"
_ORDER = "outputs come in the order that was asked for, or that the configuration has"
_LOADS = "the cause is told, where Triton has it in its log only"

INTENDED: tuple[Intended, ...] = (
    # ---- everywhere
    Intended("*", "kind", "application/json", "text/plain|", "errors are JSON, and say so"),
    Intended("*", "kind", "", "application/json", "an answer without a body has no type"),
    Intended("*", "kind", "text/plain; charset=utf-8", "text/plain", "the same, with its charset"),
    Intended("*", "text", r"(.*): (?:got|input|output|'|-?[0-9]|tuili).*", r"\1", _SAME),
    Intended(
        "*",
        "text",
        r"failed to parse the request JSON buffer: .*",
        r"failed to parse the request JSON buffer: .*",
        "another JSON parser, which says line and column",
    ),
    Intended(
        "*",
        "text",
        r"Unable to parse '[\w]+': (attempt to access JSON [\w-]+ as [\w-]+)(?:: got .*)?",
        r"\1",
        "the same words, and which key",
    ),
    Intended(
        "*",
        "text",
        r"(.*)",
        r"\[request id: <id_unknown>\] \1",
        "found before the request has an id to name",
    ),
    Intended(
        "*",
        "text",
        r".*\(details: it must be a whole number\).*",
        r".*\(details: stol\).*",
        "the cause in words",
    ),
    Intended("*", "body.*version", r"0\..*", r"2\.51\.0", "the servers' own versions"),
    Intended(
        "*", "body.extensions.cuda_shared_memory", "<absent>", "there", "there is no CUDA here"
    ),
    Intended(
        "*",
        r"body.*\.data\.\d+",
        r"-?[0-9.e+]+",
        r"-?[0-9.e+]+",
        "the shortest decimals that give the same FP32 value",
    ),
    Intended("document/outputs swapped | rpc infer/outputs swapped", r"body.*", ".*", ".*", _ORDER),
    # ---- JSON requests
    Intended(
        "document/* | input/* | path/POST */infer | encoding/in * | binary/*",
        "text",
        r".*",
        r".*(Raw request must only have|Input must set only|The document is empty|inputs but got).*",
        "an empty or broken body is a mistake, not a raw request, and invalid UTF-8 is told",
    ),
    Intended(
        "document/* | path/POST */infer",
        "status",
        "500",
        "400",
        "JSON mistakes are all alike with --compat=triton",
    ),
    Intended(
        "document/outputs null | document/parameters null",
        r"status|text|body",
        ".*",
        ".*",
        "null means absent",
    ),
    Intended(
        "document/output parameters list | input/parameters list",
        r"status|text|body",
        ".*",
        ".*",
        _EVEN_FALSE,
    ),
    Intended(
        "document/* | input/no* | input/shape*",
        "text",
        ".*",
        ".*(attempt to|Shape does not match|has no shape).*",
        _WRONG_JSON,
    ),
    Intended("input/shape empty", "status", "500", "400", _WRONG_JSON),
    Intended("*", "status", ".*", "the server died|no answer.*", "Triton 2.51 died meanwhile"),
    Intended(
        "input/shape huge | input/shape overflow | classes/text | generate*/numbers misfit | trace/*/level min | load/broken",
        r"status|text|kind|body",
        ".*",
        "the server died|no answer.*|.*batch size does not match.*|",
        "Triton 2.51 dies of this request",
    ),
    Intended(
        "*input twice | document/three inputs | rpc infer/three inputs | sequence/control given",
        "text",
        r".*(already exists|but got [23] inputs).*",
        r".*(already exists|but got [23] inputs).*",
        "names in order; a missing bracket added",
    ),
    Intended(
        "*",
        "text",
        r".*(?:batch size does not match|batch-size must be <=|unexpected shape).*",
        r".*(?:batch size does not match|batch-size must be <=|unexpected shape).*",
        "the same check, another of the inputs named",
    ),
    Intended(
        "input/data too large | rpc type/*/out of range",
        r"status|text|body",
        ".*",
        ".*",
        "values out of range are refused, not cut",
    ),
    Intended(
        "type/*/of minus",
        "text",
        ".*out of the range.*",
        ".*",
        "a negative number is out of range, not of a wrong type",
    ),
    Intended(
        "type/FP16/*",
        "text",
        "(?:receiving|sending) FP16 data via JSON.*",
        "sending FP16 data via JSON.*",
        "said of the input first, with the name",
    ),
    Intended(
        "input/region*",
        r"status|text",
        ".*",
        ".*",
        "a region without size is told so before it is looked up; numbers are names",
    ),
    # ---- binary data
    Intended(
        "binary/size 63*",
        "text",
        ".*got unexpected byte size 63.*",
        ".*",
        "the size is checked against the shape, as newer Tritons do",
    ),
    Intended(
        "binary/header length*",
        r"status|text",
        ".*",
        ".*",
        "a length that is no number is refused, not cut",
    ),
    Intended(
        "binary/text length beyond | rpc type/BYTES/short",
        "text",
        r"(incomplete string data for inference input '\w+').*",
        r"\1.*",
        "with the model's name",
    ),
    Intended(
        "raw/* | rpc infer/raw empty",
        "text",
        ".*input byte size mismatch for input '(?:IN|INPUT0)'.*",
        ".*input byte size mismatch.*",
        "the input has its own name",
    ),
    Intended(
        "binary/default and one *",
        r"status|kind|body.*",
        ".*",
        ".*",
        "binary_data_output holds for every output that does not say otherwise, as the extension has it",
    ),
    Intended("encoding/out *", r"kind|body", ".*", ".*", "answers below 1 KiB are not compressed"),
    Intended(
        "encoding/in GZIP | encoding/in gzip, cut",
        r"status|text|body",
        ".*",
        ".*",
        "coding names have no case; a body that is cut is refused",
    ),
    # ---- models
    Intended(
        "unary/decoupled | rpc infer/decoupled",
        "text",
        ".*doesn't support models with decoupled transaction policy",
        ".*doesn't support models with decoupled transaction policy",
        "with what to do instead",
    ),
    Intended(
        "parameter/own big number",
        "body.*",
        ".*9223372036854775808.*",
        r".*9\.22.*",
        "whole numbers stay whole",
    ),
    Intended(
        "queue/times out",
        r"status|text|body",
        "503|Request timeout expired|null",
        "200||{.*}",
        "the time counts until the model begins; Triton may have handed the request over long before",
        always=False,
    ),
    # ---- gRPC
    Intended(
        "rpc infer/raw three | rpc infer/output twice",
        r"status|text|body",
        ".*",
        ".*",
        "what cannot be meant is refused, as newer Tritons do for outputs",
    ),
    Intended(
        "rpc infer/* | rpc type/*",
        "text",
        ".*(contents|datatype|negative dim|shared memory region).*",
        ".*",
        "another check finds the mistake first",
    ),
    Intended(
        "rpc infer/region no size",
        "status",
        "NOT_FOUND",
        "INVALID_ARGUMENT",
        "the region is looked up first",
    ),
    Intended(
        "rpc infer/version minus",
        "text",
        "failed to get model version.*",
        "invalid model version.*",
        "one text for all bad versions",
    ),
    Intended(
        "rpc infer/classes*",
        r"status|text|body",
        ".*",
        ".*",
        "a number in text is a number; 0 asks for no classes",
    ),
    Intended(
        "rpc parameter/*",
        r"status|text|body",
        ".*",
        ".*",
        "uint64 and double parameters are taken, as by newer Tritons; one text for wrong types",
    ),
    Intended("rpc/Repository*", "text", "(.*)", r"\1\.", "no full stop"),
    Intended(
        "stream/*",
        r"body\.(?:parameters\.triton_final_response.*|model_name)",
        ".*",
        ".*",
        "errors of a stream name the model, and that they are final",
    ),
    Intended(
        "strict stream/*",
        r"status|text|body|answers|kind",
        ".*",
        ".*",
        "the stream ends with the status at once, without a message before it",
    ),
    # ---- generate
    Intended(
        "generate*",
        "text",
        ".*",
        ".*(Converting keyword|Expected JSON object|attempt to get members).*",
        _WRONG_JSON,
    ),
    Intended(
        "generate*/parameters text",
        "status",
        "400",
        "500",
        "the key is known, so it is no mistake of JSON",
    ),
    Intended("generate*/repetition [02]", "status", "500", "200", "an error has an error's status"),
    Intended("generate*/id", "body.*TEXT", r"hi\{\}", '.*"id".*', "the id is no parameter"),
    Intended(
        "generate*/error",
        "status",
        "500",
        "400",
        "a model's INTERNAL error is 500 here as everywhere",
    ),
    # ---- settings
    Intended(
        "trace/*/level unknown | trace/*/level min | trace/*/unknown | rpc/trace level bad | rpc/trace unknown",
        r"status|text|body",
        "400|INVALID_ARGUMENT|trace_level must be of .*|unknown trace setting .*|null",
        ".*",
        _STRICT,
    ),
    Intended(
        "trace/*/rate minus",
        r"status|text|body",
        "400|Unable to parse 'trace_rate'.*|null",
        ".*",
        "a rate below nothing is refused, not turned into 4294967295",
    ),
    Intended(
        "trace/*/level | trace/*/level both | rpc/trace level",
        r"status|text|body",
        ".*",
        "400|INVALID_ARGUMENT|.*trace file name is not given|null",
        _TRACE,
    ),
    Intended(
        "trace/*/level text | trace/*/rate number",
        r"status|text|body",
        ".*",
        "500|attempt to access JSON non-(?:array as array|string as string)|null",
        "a level stands for a list of one, a number for its text",
    ),
    Intended(
        "trace/*/level number",
        r"status|text",
        "400|trace_level must be of .*",
        "500|attempt to access JSON non-string as string",
        "a client's mistake is 400",
    ),
    Intended(
        "trace/*/mode",
        r"status|text|body",
        "501|trace setting 'trace_mode' can not be updated.*|null",
        ".*",
        "a mode that is not taken is refused, not dropped in silence",
    ),
    Intended(
        "path/POST *trace/setting | path/POST /v2/logging",
        r"status|text|body",
        "200||.*",
        "400|500|.*The document is empty.*|null",
        "an empty body changes nothing",
    ),
    Intended(
        "log/unknown | log/plural | log/list | rpc/log unknown",
        r"status|text|body",
        "400|INVALID_ARGUMENT|unknown log setting .*|the request JSON must be an object|null",
        ".*",
        _STRICT,
    ),
    Intended(
        "rpc/log info text | rpc/log verbose bool",
        "text",
        "Unable to parse 'log_.*",
        "expect (?:boolean|int32) for 'log_.*",
        "one text for HTTP and gRPC",
    ),
    Intended(
        "log/format other",
        r"status|text",
        ".*",
        "503|invalid argument for --log_format.*",
        "a client's mistake is 400, and no option of the command line",
    ),
    # ---- shared memory
    Intended(
        "shm/* | path/POST *sharedmemory*",
        "text",
        "(failed to register shared memory region '.').*",
        r"\1.*",
        _SAME,
    ),
    Intended(
        "shm/* | path/POST *sharedmemory*",
        r"status|text|body.*|kind",
        ".*",
        ".*",
        "a client's mistake is 400, whichever check finds it; a key may have several regions",
    ),
    Intended("cuda/* | rpc/Cuda*", r"status|text|kind", ".*", ".*", "there is no CUDA here"),
    # ---- repository
    Intended("path/GET /v2/health/ready", "text", "model 'broken': .*", "", _LOADS),
    Intended(
        "load/* | rpc/RepositoryModelLoad*",
        "text",
        "(failed to load '.*', failed to poll from model repository|load failed for model '.*': version 1).*",
        r"\1.*|load failed for model.*",
        _LOADS,
    ),
    Intended(
        "rpc/RepositoryModelLoad* | load/*",
        r"status|text",
        "400|INVALID_ARGUMENT|(?:model name|Model name|unrecognized load|unknown load|load parameter|Unable to parse).*",
        ".*",
        "a client's mistake is told as such, before anything is loaded",
    ),
    Intended(
        "load/parameters list",
        r"status|text|body",
        "200||.*",
        "500|attempt to get members.*|null",
        "a list without entries has no parameters",
    ),
    Intended(
        "load/file without version",
        "status",
        "500",
        "400",
        "as whatever does not load",
    ),
    Intended("unload/*", r"status|text", ".*", ".*", _EVEN_FALSE),
    Intended(
        "index/* | path/POST /v2/repository/index | rpc/RepositoryIndex*",
        r"body\.(?:.*\.)?(?:broken|unloadable|spare)/.*",
        ".*",
        ".*",
        "models that failed to load are shown with the cause",
    ),
    Intended(
        "index/* | path/POST /v2/repository/main/index",
        r"status|text|body|kind",
        ".*",
        ".*",
        "a repository that is named is refused, as by the documentation; wrong types are, too",
    ),
    Intended(
        "sequence/id text",
        r"status|text|body.*",
        ".*",
        ".*",
        "an id of a type that the model does not take is refused, as newer Tritons do",
    ),
    # ---- descriptions
    Intended(
        "described/* | path/GET */config | rpc/ModelConfig* | load/config",
        r"body.*\.(?:max_inflight_requests|preferred_batch_size\.length|backend|version_policy.*|default_model_filename|platform)",
        ".*",
        ".*",
        "a field that Triton 2.51 does not have; a size that nobody has preferred is not told",
    ),
    Intended(
        "rpc/ModelStatistics* | path/GET *stats",
        r"body.*",
        ".*",
        ".*",
        "counts since the last start; refused requests count as failures",
    ),
    Intended(
        "near/*",
        r"status|text|body.*|kind",
        ".*",
        ".*",
        "paths are taken as they are written: no %-codes, no leading zeros; only the asked version is told",
    ),
    Intended(
        "odd/* twice",
        r"status|text|body.*",
        ".*",
        ".*",
        "of equal keys the last counts, as for most parsers of JSON; Triton's takes the first",
    ),
    Intended(
        "odd/id not UTF-8",
        r"status|text|body",
        ".*(not valid UTF-8|500|null).*",
        ".*",
        "JSON is UTF-8 (RFC 8259 section 8.1), and what is not is refused, not sent back",
    ),
    Intended(
        "odd/dim beyond int64 | odd/empty, beyond all measure | odd/of 33 dims",
        "text",
        ".*",
        ".*",
        "another check finds the mistake first, and names it",
    ),
    Intended(
        "odd/true | odd/a number | odd/a text",
        "text",
        "the request JSON must be an object",
        ".*non-existing object member 'inputs'",
        "what is no object is told to be none",
    ),
    Intended(
        "rpc/Health Check nobody",
        "status|text|body",
        ".*",
        ".*",
        "a service that is not there is NOT_FOUND, as by gRPC's protocol of health",
    ),
    Intended(
        "rpc/unknown *",
        "text",
        "unknown method .*",
        "",
        "the method that is not there is named",
    ),
)
