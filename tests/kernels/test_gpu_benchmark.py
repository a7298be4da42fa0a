"""The GPU benchmark without a GPU: what it compares is the same, what it counts and reports is right."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import eager, gpu, gpu_correctness, stage_times
from benchmarks.eager import eager_pooled_mixer, kernel_parts
from benchmarks.findings import Findings, Goal, Plot, Table, as_markdown, at_least, at_most, save
from benchmarks.gpu_correctness import draw_weights, largest_error
from benchmarks.gpu_encoder import CELLVIM, EAGER, Speed, Tokens, Training, times_as_fast, variants
from benchmarks.gpu_scaling import crossing
from benchmarks.stacks import Size, Stack, attention_stack, grids_of, scan_stack
from benchmarks.timing import Failure, Timing, interleaved
from cellvim.config import ModelSettings
from cellvim.model import ChannelEncoder
from cellvim_kernels import Grid, MixerWeights, add_rms_norm, pooled_mixer
from cellvim_kernels.layout import index_tables
from cellvim_kernels.pooled_mixer import naive_pooled_mixer
from cellvim_kernels.stages import Stages

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
STAINS = ("DNA", "ER")
FLOAT64_TOLERANCE = 1e-10


@pytest.fixture(autouse=True)
def _plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "torch")


@pytest.mark.parametrize(
    "grid",
    [Grid(2, 3, 2), Grid(3, 2, 2, "wrc"), Grid(2, 3, 2, is_pooled=False)],
    ids=["even", "odd", "unpooled"],
)
def test_the_eager_composition_is_the_equation_with_all_gradients(grid: Grid) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2, grid.length, 12, generator=generator), *draw_weights(6, 2, generator)]
    results = []
    for mixer in (eager_pooled_mixer, naive_pooled_mixer):
        xz, *weights = (tensor.detach().double().requires_grad_() for tensor in drawn if tensor is not None)
        out = mixer(xz, MixerWeights(*weights), grid)
        results.append([out, *torch.autograd.grad(out.square().sum(), [xz, *weights])])
    assert largest_error(*results) < FLOAT64_TOLERANCE


def test_other_peoples_operations_are_called_as_they_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins with the signatures of causal-conv1d 1.7.0 and mamba-ssm 2.3.2 compute in plain torch."""

    def conv(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
        assert activation == "silu"
        return eager.torch_conv_silu(x, weight, bias)

    def scan(*given: Tensor, delta_bias: Tensor, delta_softplus: bool) -> Tensor:
        assert delta_softplus
        result: Tensor = eager.torch_scan(*given, delta_bias)
        return result

    def norm(x: Tensor, weight: Tensor, bias: None, **options: Any) -> tuple[Tensor, Tensor]:
        assert options.pop("prenorm")
        assert options.pop("residual_in_fp32")
        assert options.pop("eps") == 1e-5
        assert bias is None
        return eager.torch_add_rms_norm(x, options["residual"], weight)

    given = {"causal_conv1d_fn": conv, "selective_scan_fn": scan, "rms_norm_fn": norm}
    monkeypatch.setattr(eager, "part", lambda module, name: (given[name], module.partition(".")[0]))
    parts = kernel_parts()
    assert parts.has_scan_kernel
    assert parts.sources == {"conv_silu": "causal_conv1d", "scan": "mamba_ssm", "add_rms_norm": "mamba_ssm"}
    size, tokens = Size(width=8, depth=3, state=2, head=4), Tokens(2, 2, 3, 2)
    made = variants(tokens, size, parts)
    results = [made[name]()(tokens.draw(8, CPU)) for name in (EAGER, CELLVIM)]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_absent_packages_leave_plain_torch_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "part", lambda *_: (None, "No module named 'mamba_ssm'"))
    parts = kernel_parts()
    assert not parts.has_scan_kernel
    assert parts.scan is eager.torch_scan
    assert parts.sources["scan"] == "torch (No module named 'mamba_ssm')"


@pytest.mark.parametrize("backbone", ["fast_channel_vim", "channel_vim", "channel_vit"])
def test_a_stack_computes_what_cellvims_encoder_computes(backbone: Any) -> None:
    settings = ModelSettings(backbone=backbone, width=24, depth=3, state_size=2, patch_px=2, position_grid=4)
    encoder = ChannelEncoder(settings, STAINS, generator=torch.Generator().manual_seed(1))
    size = Size(width=24, depth=3, state=2, head=8)
    grids = grids_of(2, 3, 2, is_pooled=backbone == "fast_channel_vim")
    make = (
        attention_stack
        if backbone == "channel_vit"
        else partial(scan_stack, mixer=pooled_mixer, norm=add_rms_norm)
    )
    stack: Stack = make(size, grids)
    stack.blocks.load_state_dict(encoder.blocks.state_dict())
    patches = torch.randn(2, 2, 3, 2, 4, generator=torch.Generator().manual_seed(2))
    tokens = encoder.projection(patches) + encoder.address(2, 3, (0, 1))
    expected = encoder.encode_grid(patches, (0, 1))[0].maps.flatten(1, 3)
    torch.testing.assert_close(stack(tokens.flatten(1, 3)), expected)


def test_every_kernel_is_charged_for_each_input_and_output_once() -> None:
    """bf16, 2 samples of 2 x 3 x 2 tokens, E = 6, N = 2: by hand."""
    shape = stage_times.Shape(batch=2, rows=2, cols=3, channels=2, inner=6, state=2, rank=1)
    grid = Grid(2, 3, 2)
    cases = stage_times.kernel_cases(blank_stages(), shape, 2, grid, torch.bfloat16, CPU)
    tokens = 2 * 12 * 6 * 2
    cells = 2 * 2 * 4 * 6 * 4
    parameters = 2 * 2 * 4 * 2 * 4
    index, by_cell = 2 * 12 * 4, (12 + 5 + 4) * 4
    assert index_tables(grid, CPU).cells == 4
    residual = 2 * 12 * 3 * 4
    starts, one_way = 64, cells // 2
    assert {name: case.moved for name, case in cases.items()} == {
        "K1 conv_pool": tokens + cells + index + by_cell,
        "K2 selective_scan": 3 * cells + 2 * parameters,
        "K3 expand_gate": 3 * tokens + cells + index,
        "K3 backward expand_gate": 5 * tokens + cells + index,
        "sum_cells": tokens + one_way + by_cell,
        "K2 backward selective_scan": one_way + 4 * cells + 4 * parameters + starts,
        "K1 backward conv_pool": 3 * tokens + cells + index + by_cell,
        "add_rms_norm": tokens + 2 * residual + 2 * 12 * 4,
        "add_rms_norm backward": tokens // 2 + 3 * residual + 2 * 12 * 4,
    }


def blank_stages() -> Stages:
    """Outputs of the right sizes, and no work."""

    def conv_pool(xz: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros(2, len(xz), 4, 6), torch.empty(0)

    def add_norm(tokens: Tensor, residual: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tokens, residual, residual[..., 0]

    def nothing(*_: Any) -> Any:
        return None

    return Stages(
        conv_pool=conv_pool,
        conv_pool_backward=nothing,
        selective_scan=lambda u, *_, keeps_states: (u, torch.zeros(16 * keeps_states)),
        selective_scan_backward=nothing,
        expand_gate=nothing,
        expand_gate_backward=lambda dout, *_: (dout, None, None),
        sum_cells=lambda dmixed, _: torch.zeros(1, len(dmixed), 4, 6),
        add_rms_norm=add_norm,
        add_rms_norm_backward=nothing,
        chunk=16,
    )


def test_a_section_that_fails_keeps_what_it_found_and_the_others_go_on(tmp_path: Path) -> None:
    def half(findings: Findings) -> None:
        findings.goals.append(at_least("speed", 2.0, 1))
        msg = "no room\nfor details"
        raise MemoryError(msg)

    def whole(findings: Findings) -> None:
        findings.tables.append(Table("t", ("a",), [[1.5]]))

    found = gpu.run_sections({"half": half, "whole": whole}, tmp_path, 100, CPU)
    assert [findings.is_sound for findings in found] == [False, True]
    assert found[0].error == "MemoryError: no room"
    assert found[0].goals[0].is_met
    assert json.loads((tmp_path / "half.json").read_text())["goals"][0]["found"] == 2.0
    assert json.loads((tmp_path / "whole.json").read_text())["tables"][0]["rows"] == [[1.5]]


def test_what_would_begin_too_late_is_told_and_not_begun(tmp_path: Path) -> None:
    found = gpu.run_sections({"late": lambda _: pytest.fail("begun")}, tmp_path, -1, CPU)
    assert found[0].error == "not begun: -1 s were over"


def test_a_case_that_fails_leaves_the_others_their_times() -> None:
    def broken() -> None:
        raise RuntimeError

    times = interleaved({"broken": broken, "fine": lambda: None}, CPU, turns=5, seconds=0)
    assert times["broken"] == Failure("RuntimeError: ")
    assert isinstance(times["fine"], Timing)
    assert times["fine"].turns == 5


def test_the_report_tells_claims_numbers_failures_and_notes(tmp_path: Path) -> None:
    findings = Findings(
        "forward",
        tables=[
            Table("L = 12", ("variant", "ms"), [["a|b", 0.1234], ["c", None], ["d", 12345.6]], ["c: no GPU"])
        ],
        goals=[at_least("faster", 3.2, 3), at_most("memory", 0.75, 0.5), at_least("absent", None, 2)],
        plots=[Plot("curve", "tokens", "images/s", {"a": [(1.0, 2.0), (10.0, 1.0)]})],
        seconds=2.4,
        error="too late",
    )
    save(findings, tmp_path)
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert as_markdown([findings], "the command") == "\n".join(
        [
            "the command\n",
            "| claim | found | held |",
            "|---|---|---|",
            "| faster: at least 3 | 3.2 | yes |",
            "| memory: at most 0.5 | 0.75 | **no** |",
            "| absent: at least 2 | - | not measured |\n",
            "## forward (2 s)\n",
            "**Not finished**: too late\n",
            "**L = 12**\n",
            "| variant | ms |",
            "|---|---|",
            "| a/b | 0.123 |",
            "| c | - |",
            "| d | 12,346 |\n",
            "c: no GPU\n",
            "![images/s over tokens](curve.png)\n",
        ]
    )


def test_slowness_is_no_error_and_a_wrong_result_is() -> None:
    assert Findings("speed", goals=[at_least("faster", 1.0, 3)]).is_sound
    assert not Findings("right", goals=[Goal("same", 1, is_met=False, is_required=True)]).is_sound
    nan = float("nan")
    assert not at_least("faster", nan, 3).is_met
    assert not at_most("less", nan, 3).is_met


def test_ratios_compare_the_better_way_of_launching() -> None:
    def speed(launched: float, graph: float | None) -> Speed:
        timed = None if graph is None else Timing(graph, graph, graph, 1)
        return Speed(Timing(launched, launched, launched, 1), timed, None)

    failed = Failure("no room")
    speeds = {"ours": speed(4, 2), "theirs": speed(9, None), "none": Speed(failed, failed, failed)}
    assert times_as_fast(speeds, "ours", "theirs") == 4.5
    assert times_as_fast(speeds, "ours", "none") is None
    assert times_as_fast(speeds, "ours", "absent") is None


def test_the_crossing_is_where_the_curves_meet() -> None:
    falling = [(100.0, 16.0), (400.0, 4.0), (1600.0, 1.0)]
    level = [(100.0, 8.0), (400.0, 8.0), (1600.0, 8.0)]
    assert crossing(level, falling) == pytest.approx(200)
    assert crossing(falling, level) is None
    assert crossing(level, [(100.0, 1.0)]) == 100
    assert crossing([], level) is None


def test_the_memory_of_a_training_step_counts_weights_gradients_and_moments() -> None:
    tokens = Tokens(1, 2, 2, 1)
    stack = scan_stack(Size(width=8, depth=1, state=2), grids_of(2, 2, 1), pooled_mixer, add_rms_norm)
    training = Training(stack, tokens.draw(8, CPU))
    training.step()
    weights = sum(parameter.nbytes for parameter in stack.parameters())
    counters = 4 * len(list(stack.parameters()))
    assert sum(tensor.nbytes for tensor in training.kept()) == 4 * weights + counters


def run_benchmark(out: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--out", str(out), *arguments],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_starts_where_only_torch_and_jaxtyping_are_installed() -> None:
    """A machine lent for a measurement has few packages: those that cellvim's model needs may be missing."""
    absent = ("cellvim", "pydantic", "polars", "yaml", "safetensors", "matplotlib", "zarr")
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); import benchmarks.gpu"
    paths = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, check=True)


@pytest.mark.slow
def test_the_kernels_are_right_in_the_interpreter(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    done = run_benchmark(tmp_path, "--only", "correctness", "--backend", "triton", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads((tmp_path / "correctness.json").read_text())
    assert content["goals"][0]["found"] == 0
    assert len(content["tables"][0]["rows"]) == 12


def test_a_wrong_result_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Negative control: half the truth is outside the tolerance everywhere."""
    monkeypatch.setattr(gpu_correctness, "pooled_mixer", lambda *given: pooled_mixer(*given) / 2)
    command = [
        "gpu",
        "--device",
        "cpu",
        "--backend",
        "torch",
        "--only",
        "correctness",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu.main() == 1
    found = json.loads((tmp_path / "correctness.json").read_text())["goals"][0]["found"]
    assert found == 10


def test_every_section_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All but what compiles: the smallest shapes, on plain torch."""
    names = ["facts", "determinism", "tokens", "images"]
    command = ["gpu", "--device", "cpu", "--backend", "torch", "--only", *names, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu.main() == 0
    assert (tmp_path / "report.md").read_text().startswith("`python -m benchmarks.gpu --device cpu")
    assert (tmp_path / "tokens.png").exists()
