"""A folder with ONNX graphs and `tokenizer.json` -> arrays, on onnxruntime and tokenizers.

Verifies the folder, cuts texts to length and groups them in batches. Does not know what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .blocks import is_over
from .errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

_TOKENS, _GPU_TOKENS = 1_024, 16_384
"""Most padded tokens of a batch. On a processor four times as many are no faster, and take more memory."""
_CHARACTERS_PER_TOKEN = 8
"""More than most texts have."""
_WORD_TOKENS = 128
"""More than a word has: WordPiece makes at most 100 of one."""
_LFS_POINTER = b"version https://git-lfs"


class ModelFolder:
    """Files of a model beside `tokenizer.json`, checked at once; `config.json` and `SHA256SUMS` may be there.

    Args:
        directory: Where they are.
        files: What the model consists of, unless `graphs` in `config.json` says so.

    Raises:
        ModelError: A file is missing, cut, or a Git LFS pointer.
    """

    def __init__(self, directory: Path, files: Sequence[str]) -> None:
        self.directory = directory
        self.config: Mapping[str, Any] = _read_config(directory / "config.json")
        self.files: tuple[str, ...] = tuple(self.config.get("graphs", files))
        for name in (*self.files, "tokenizer.json"):
            _check_file(directory / name)

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over files, tokenizer and config.

        Raises:
            ModelError: A file is not what `SHA256SUMS` says.
        """
        digests = {
            name: hashlib.sha256((self.directory / name).read_bytes()).hexdigest()
            for name in (*self.files, "tokenizer.json", "config.json")
            if (self.directory / name).is_file()
        }
        sums = self.directory / "SHA256SUMS"
        for line in sums.read_text(encoding="ascii").splitlines() if sums.is_file() else ():
            expected, _, name = line.partition("  ")
            if name in digests and digests[name] != expected:
                raise ModelError(
                    f"{self.directory / name} is damaged: its SHA-256 is not the one in SHA256SUMS",
                    hint="Copy the model again, or reinstall crossrag if it is the bundled one",
                )
        return hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:16]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Without truncation and padding, whatever the file says: both are done by whoever uses it."""
        return load_tokenizer(self.directory / "tokenizer.json")


class OnnxModel(ModelFolder):
    """One or several ONNX graphs with their tokenizer. Sessions are made at first use.

    Args:
        directory: Folder with `model.onnx` (or what `graphs` in `config.json` names) and `tokenizer.json`.
        threads: Threads for one run; 0 = one per core.
        batch_size: Texts per run where `config.json` does not say.
        device: `cpu`, or `cuda` with the number of a GPU behind a colon; None for the processor.

    Raises:
        ModelError: A file is missing, cut, a Git LFS pointer, or not what `SHA256SUMS` says.
    """

    def __init__(
        self, directory: Path, *, threads: int = 0, batch_size: int = 32, device: str | None = None
    ) -> None:
        super().__init__(directory, ("model.onnx",))
        self.graphs = self.files
        self._threads = threads
        self._device = device or "cpu"
        self._batch_size = batch_size
        self._sessions: dict[str, Any] = {}
        self._making = threading.Lock()

    def run(self, encodings: Sequence[Encoding], *, width: int = 0) -> NDArray[np.float32]:
        """First output of the only graph for a batch, padded to the longest or to `width`: float32[n, …]."""
        return self.run_graph(self.graphs[0], feeds(encodings, width=width))[0]

    def run_graph(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """All outputs of one graph; of the inputs, those that it asks for.

        Raises:
            ModelError: The graph cannot be loaded, or asks for an input that is not there.
        """
        session = self._session(name)
        wanted = [node.name for node in session.get_inputs()]
        if unknown := set(wanted) - inputs.keys():
            raise ModelError(
                f"{self.directory / name} wants inputs {sorted(unknown)}",
                hint=f"Export it with no other inputs than {', '.join(inputs)}",
            )
        outputs: list[NDArray[np.float32]] = session.run(None, {key: inputs[key] for key in wanted})
        return outputs

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions grouped by like length: at most `batch_size` of them and `batch_tokens` padded tokens.

        Both may stand in the config; the tokens are else as many as suit the device.

        A model that is quantised dynamically takes the scale of its activations from the whole batch, so the
        score of a pair would depend on its company: such a model says `"batch_size": 1` in its config.
        """
        size = int(self.config.get("batch_size", self._batch_size))
        tokens = int(self.config.get("batch_tokens", _TOKENS if self._device == "cpu" else _GPU_TOKENS))
        order = list(range(len(lengths)))
        if size > 1:
            # Within blocks, so that a deadline costs the last texts and not the longest ones.
            block = 8 * size
            order.sort(key=lambda position: (position // block, lengths[position]))
        batch: list[int] = []
        for position in order:
            width = lengths[position]
            if batch and (len(batch) == size or (len(batch) + 1) * width > tokens):
                yield batch
                batch = []
            batch.append(position)
        if batch:
            yield batch

    def _session(self, name: str) -> Any:
        if name not in self._sessions:
            with self._making:
                if name not in self._sessions:
                    self._sessions[name] = self._loaded(name)
        return self._sessions[name]

    def _loaded(self, name: str) -> Any:
        import onnxruntime

        # The package says so by the environment; this is for a program that had loaded it before that.
        onnxruntime.disable_telemetry_events()
        _ = self.fingerprint  # verifies the files before anything is made of them
        options, providers = _options(self._threads), _providers(self._device)
        try:
            session = onnxruntime.InferenceSession(str(self.directory / name), options, providers=providers)
        except Exception as error:  # noqa: BLE001
            # onnxruntime has no common base for its exceptions.
            raise ModelError(
                f"{self.directory / name} cannot be loaded: {str(error)[:200]}",
                hint="The file may be cut: copy it again, or reinstall crossrag if it is the bundled one",
            ) from None
        # Where libraries of CUDA are missing, onnxruntime goes on without it and only logs so.
        if len(providers) > 1 and "CUDAExecutionProvider" not in session.get_providers():
            raise ModelError(
                f"{self._device} cannot be used: ONNX Runtime did not find its libraries of CUDA and cuDNN",
                hint="Install them as docker/Dockerfile.cuda does, or set device to cpu",
            )
        return session


def _options(threads: int) -> Any:
    """How sessions run: without spinning, and with the memory of all others."""
    import onnxruntime

    _share_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin while they wait take a processor from others: from the next graph, to begin with.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A plan of the memory is remembered for every shape that was ever seen, and here there are thousands.
    options.enable_mem_pattern = False
    return options


_SHARING = threading.Lock()


def _share_memory() -> None:
    """One arena for all sessions of this process; each of its own would keep its largest batch for ever."""
    with _SHARING:
        _arena()


@cache
def _arena() -> None:
    """Make it; it grows by what is asked for, not to a power of two, and only sessions that say so use it."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import OrtMemType

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    place = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, OrtMemType.DEFAULT)
    as_asked = onnxruntime.OrtArenaCfg({"arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(place, as_asked)


def _providers(device: str) -> list[Any]:
    """What onnxruntime calls a device, and the processor for what that cannot do.

    Raises:
        ModelError: This build of onnxruntime has no CUDA.
    """
    import onnxruntime

    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ModelError(
            f"{device} is wanted, and this build of ONNX Runtime is for processors alone",
            hint="pip uninstall onnxruntime, then pip install onnxruntime-gpu; or set device to cpu",
        )
    number = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]


def load_tokenizer(path: Path) -> Tokenizer:
    """Without truncation and padding, whatever the file says.

    Raises:
        ModelError: The file is no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001
        # tokenizers raises bare Exception for anything that it cannot parse.
        raise ModelError(f"{path} is no tokenizer: {error}", hint="Copy the file again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def cut_question(tokenizer: Tokenizer, question: str, most: int) -> tuple[str, int]:
    """The question cut to `most` tokens, and how many it had; by a tokenizer that does not truncate.

    Of one that is far too long only the beginning is counted.
    """
    question = beginning(question, most, counted_by(tokenizer))
    encoding = tokenizer.encode(question, add_special_tokens=False)
    count = len(encoding.ids)
    return (question if count <= most else question[: encoding.offsets[most - 1][1]]), count


def beginning(text: str, tokens: int, count: Callable[[str], int], *, deadline: float | None = None) -> str:
    """As much of a long text as its first `tokens` tokens and some more are made of; a short one as it is.

    They are the tokens that the whole text begins with: where it is cut, one word can be read in another way,
    and more tokens than a word has are behind those that are wanted. How many characters that takes depends
    on the text, so it is tried.

    Args:
        text: Of any length.
        tokens: How many matter; whoever asks whether there are more finds that out too.
        count: How many tokens a text has.
        deadline: `time.monotonic()` value after which nobody will read it: what comes back is too short then.
    """
    length = _CHARACTERS_PER_TOKEN * (tokens + _WORD_TOKENS)
    while length < len(text):
        part = text[:length]
        if is_over(deadline) or count(part) >= tokens + _WORD_TOKENS:
            return part
        length *= 4
    return text


def counted_by(tokenizer: Tokenizer) -> Callable[[str], int]:
    """How many tokens a text has, by a tokenizer that does not truncate."""
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def feeds(encodings: Sequence[Encoding], *, width: int = 0) -> dict[str, NDArray[Any]]:
    """Ids, attention mask and token types, padded to the longest, or to `width` if more: int64[n, l] each."""
    import numpy as np

    width = max(width, *(len(encoding.ids) for encoding in encodings))
    names = ("input_ids", "attention_mask", "token_type_ids")
    arrays = {name: np.zeros((len(encodings), width), np.int64) for name in names}
    for row, encoding in enumerate(encodings):
        columns = (encoding.ids, encoding.attention_mask, encoding.type_ids)
        for name, values in zip(names, columns, strict=True):
            arrays[name][row, : len(values)] = values
    return arrays


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} is missing", hint="A model folder holds its graphs and tokenizer.json")
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ModelError(f"{path} is empty", hint="Copy the file again")
    if head.startswith(_LFS_POINTER):
        raise ModelError(f"{path} is a Git LFS pointer, not the file itself", hint="Run `git lfs pull` there")


def _read_config(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}", hint="Copy the file again") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} must hold a JSON object", hint="Copy the file again")
    return config
