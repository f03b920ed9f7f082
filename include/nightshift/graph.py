"""Turn a system's model into the graph that OpenVINO runs, once.

    python -m nightshift.graph SYSTEM OUT

The base is traced in float32, with its adapter merged into it (in float32 too), as a graph whose state are the keys and
values of earlier tokens; that is the form in which OpenVINO finds attention that it can page. The library `optimum` is
not needed for it. 135 M parameters take 10 s and 540 MB. The graph is made in a process of its own, so that an engine
never holds torch, and is kept by what went into it: another index or prompt around the same weights makes no new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nightshift import commit

GRAPH = "openvino_model.xml"  # the name that OpenVINO looks for
KEPT = 4  # graphs: of the release that serves, the one before it, a canary, and what a night judges


def kept(system: Path, cache: Path) -> Path:
    """The folder with the graph of a system's model, made where it is not there yet; the least used others go.

    Raises CalledProcessError when it cannot be made; this process's error output then says why.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / _key(system)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two who need it at once one makes it
        if commit.damage(folder) is not None:
            subprocess.run([sys.executable, "-m", "nightshift.graph", str(system), str(folder)], check=True)
        os.utime(folder)
        graphs = [one for one in cache.iterdir() if (one / GRAPH).is_file()]
        for old in sorted(graphs, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)  # who runs it has its file open
    return folder


def make(system: Path, out: Path) -> None:
    """Trace the model and write its graph."""
    import openvino
    from openvino._offline_transformations import apply_make_stateful_transformation

    model = _loaded(system)
    layers = int(model.config.num_hidden_layers)
    past = [f"past.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    present = [name.replace("past", "present") for name in past]
    with warnings.catch_warnings(action="ignore"):  # tracing says of every branch on a shape that it takes one of them
        graph = openvino.convert_model(_traceable(model), example_input=_example(model.config))
    _name(graph, ["input_ids", "attention_mask", "position_ids", *past], ["logits", *present])
    _free(graph, _state(model.config))
    _reorderable(graph, past)
    apply_make_stateful_transformation(graph, dict(zip(past, present, strict=True)))
    _begun_empty(graph, _state(model.config))
    with commit.folder(out) as draft:
        openvino.save_model(graph, draft / GRAPH, compress_to_fp16=False)


def _key(system: Path) -> str:
    """What the graph hangs on: every file of the base and the adapter, OpenVINO, and how it is made here."""
    files = [one for part in ("base", "adapter") for one in sorted((system / part).resolve().glob("*.*"))]
    parts = [(one.name, commit.sha256(one)) for one in files if one.name != commit.MANIFEST]
    said = commit.dumps([parts, metadata.version("openvino"), commit.sha256(Path(__file__))])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _loaded(system: Path) -> Any:
    """The model in float32, its adapter merged."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        system / "base", dtype=torch.float32, use_safetensors=True, attn_implementation="sdpa"
    )
    if (system / "adapter").is_dir():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(system / "adapter")).merge_and_unload()
    return model.eval()


def _traceable(model: Any) -> Any:
    """The model as a function of ids, mask, positions and earlier keys and values: of tensors alone."""
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class Traceable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any
        ) -> tuple[Any, ...]:  # OpenVINO goes by these names
            cache = DynamicCache()
            for key, value in zip(past[::2], past[1::2], strict=True):
                layer = DynamicLayer()
                layer.lazy_initialization(key, value)
                layer.keys, layer.values = key, value  # given as they are: joined to an empty tensor they do not trace
                cache.layers.append(layer)
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
            said = self.model(**given, past_key_values=cache, use_cache=True)
            now = [tensor for layer in said.past_key_values.layers for tensor in (layer.keys, layer.values)]
            return (said.logits, *now)

    return Traceable()


def _state(config: Any) -> tuple[int, int]:
    """Heads and width of a layer's keys and values."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_key_value_heads), int(width)


def _example(config: Any) -> tuple[Any, ...]:
    """Inputs to trace with: two rows of three tokens after two."""
    import torch

    heads, width = _state(config)
    past = [torch.zeros(2, heads, 2, width) for _ in range(2 * config.num_hidden_layers)]
    ids, mask = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    return (ids, mask, torch.arange(2, 5).expand(2, 3), *past)


def _name(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name what goes in and comes out."""
    for ports, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for found, name in zip(ports, names, strict=True):
            found.get_tensor().set_names({name})


def _free(graph: Any, state: tuple[int, int]) -> None:
    """Let the numbers of rows and of tokens vary, and nothing else."""
    import openvino

    heads, width = state
    for found in graph.inputs:
        shape = [-1, heads, -1, width] if len(found.get_partial_shape()) == 4 else [-1, -1]
        found.get_node().set_partial_shape(openvino.PartialShape(shape))
    graph.validate_nodes_and_infer_types()


def _reorderable(graph: Any, past: Sequence[str]) -> None:
    """Let the rows of the state be put in another order, as beam search does: OpenVINO looks for this form."""
    import numpy as np
    from openvino import opset13 as ops

    order = ops.parameter([-1], dtype=np.int32, name="beam_idx")
    order.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([order])
    for name in past:
        state = graph.input(name)
        readers = state.get_target_inputs()
        ordered = ops.gather(state.get_node(), order, ops.constant(0, dtype=np.int32))
        for reader in readers:
            reader.replace_source_output(ordered.output(0))
    graph.validate_nodes_and_infer_types()


def _begun_empty(graph: Any, state: tuple[int, int]) -> None:
    """Let the state begin with no tokens, for as many rows as are asked."""
    import numpy as np
    from openvino import opset13 as ops

    shape = ops.shape_of(graph.input("input_ids"), output_type="i64")
    rows = ops.gather(shape, ops.constant(np.array([0])), ops.constant(0))
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            sizes = [ops.constant(np.array([size], dtype=np.int64)) for size in (state[0], 0, state[1])]
            empty = ops.broadcast(ops.constant(0.0, dtype=np.float32), ops.concat([rows, *sizes], axis=0))
            node.set_arguments([empty])
    graph.validate_nodes_and_infer_types()


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
