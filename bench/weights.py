"""The bundled reranker's weights in the forms in which other libraries take them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any


def standard_folder(model: Path, folder: Path, *, calibrated: bool = False) -> Path:
    """A folder as Hugging Face's libraries expect it, with the whole network as one int8 graph in `onnx/`.

    The torch weights in it are a frame of the right shape; `plug` puts the network into what is made of it.

    Args:
        model: Of the bundled kind.
        folder: Made if missing.
        calibrated: Whether the logit is that of a probability, and not the correction of a first stage.
    """
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    from crossrag.training.export import export_single

    if not folder.exists():
        network = read(model, calibrated=calibrated)
        shape = network.bert.config.to_dict()
        bert = BertConfig(**{key: value for key, value in shape.items() if "label" not in key}, num_labels=1)
        BertForSequenceClassification(bert).save_pretrained(folder)
        BertTokenizerFast(tokenizer_file=str(model / "tokenizer.json"), model_max_length=512).save_pretrained(
            folder
        )
        special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
        (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
        (folder / "onnx").mkdir()
        export_single(network, folder / "onnx" / "model.onnx")
        shutil.copy(folder / "onnx" / "model.onnx", folder / "model.onnx")
    return folder


def read(model: Path, *, calibrated: bool = False) -> Any:
    """The network in torch."""
    import torch

    from crossrag.training.network import from_exported

    network = from_exported(model).eval()
    if calibrated:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        slope, intercept = config["alone"]["slope"], config["alone"]["intercept"]
        head: Any = network.heads[-1]
        with torch.no_grad():
            # The head is a sum: each part is scaled, and what is left goes into the last bias.
            for part in (head.mean_weight, head.match_weight, head.outer.weight):
                part.mul_(slope)
            head.outer.bias.copy_(slope * (head.outer.bias + config["biases"][-1]) + intercept)
    return network


def plug(library: Any, network: Any) -> None:
    """Let the BERT classifier inside a library's model answer with the network's last logit.

    The head is not the library's own; everything else, from batching to tokenizing, is.
    """
    from transformers.modeling_outputs import SequenceClassifierOutput

    def forward(input_ids: Any, attention_mask: Any, token_type_ids: Any, **_: Any) -> Any:
        said = network.corrections(input_ids, attention_mask, token_type_ids)
        return SequenceClassifierOutput(logits=said[:, -1:])

    inner = next(
        module for module in library.modules() if type(module).__name__ == "BertForSequenceClassification"
    )
    inner.forward = forward


def fastembed_encoder(folder: Path) -> Any:
    """FastEmbed's cross-encoder over the graph of a standard folder."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(
        "local/progressive", sources=ModelSource(hf="local/progressive"), model_file="model.onnx"
    )
    return TextCrossEncoder("local/progressive", specific_model_path=str(folder))


def flashrank_ranker(folder: Path, cache: Path) -> Any:
    """FlashRank's ranker over the graph of a standard folder."""
    from flashrank import Ranker
    from flashrank.Config import model_file_map

    name = "ms-marco-MiniLM-L-12-v2"
    # A folder of that name in the cache is taken as it is; inside is our graph.
    shutil.copytree(folder, cache / name)
    shutil.copy(folder / "model.onnx", cache / name / model_file_map[name])
    return Ranker(model_name=name, cache_dir=str(cache), max_length=512)
