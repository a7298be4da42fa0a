"""The GPU benchmark without a GPU: what it compares is the same, what it counts and reports is right."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import eager, gpu, gpu_correctness, gpu_encoder, stage_times
from benchmarks.eager import PLAIN, Parts, eager_pooled_mixer, kernel_parts
from benchmarks.findings import Findings, Goal, Plot, Table, as_markdown, at_least, at_most, save
from benchmarks.gpu_correctness import draw_weights, largest_error
from benchmarks.gpu_encoder import CELLVIM, EAGER, EAGER_COMPILED, Speed, Tokens, Training, times_as_fast
from benchmarks.gpu_scaling import crossing
from benchmarks.stacks import Size, Stack, attention_stack, grids_of, scan_stack
from benchmarks.timing import PROCESS, Failure, Timing, interleaved, resident_growth_mib
from cellvim.config import ModelSettings
from cellvim.model import ChannelEncoder
from cellvim_kernels import Grid, MixerWeights, add_rms_norm, pooled_mixer
from cellvim_kernels.layout import index_tables
from cellvim_kernels.pooled_mixer import naive_pooled_mixer
from cellvim_kernels.stages import Stages

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])}
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
    assert parts.is_all_kernels
    assert parts.sources == {"conv_silu": "causal_conv1d", "scan": "mamba_ssm", "add_rms_norm": "mamba_ssm"}
    size, tokens = Size(width=8, depth=3, state=2, head=4), Tokens(2, 2, 3, 2)
    made = gpu_encoder.variants(tokens, size, parts)
    results = [made[name]()(tokens.draw(8, CPU)) for name in (EAGER, CELLVIM)]
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)


def test_absent_packages_leave_plain_torch_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "part", lambda *_: (None, "No module named 'mamba_ssm'"))
    parts = kernel_parts()
    assert not parts.has_scan_kernel
    assert not parts.is_all_kernels
    assert parts.scan is eager.torch_scan
    assert parts.sources["scan"] == "torch (No module named 'mamba_ssm')"


@pytest.mark.parametrize("backbone", ["fast_channel_vim", "channel_vim", "channel_vit"])
def test_a_stack_computes_what_cellvims_encoder_computes(backbone: Any) -> None:
    settings = ModelSettings(backbone=backbone, width=24, depth=3, state_size=2, patch_px=2, position_grid=4)
    encoder = ChannelEncoder(settings, STAINS, generator=torch.Generator().manual_seed(1))
    size = Size(width=24, depth=3, state=2, head=8)
    grids = grids_of(2, 3, 2, is_pooled=backbone == "fast_channel_vim")
    scan = partial(scan_stack, mixer=pooled_mixer, norm=add_rms_norm)
    make: Any = attention_stack if backbone == "channel_vit" else scan
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


FAILED = Speed(*3 * [Failure("no room")])


def speed(launched: float, graph: float | None = None, peak_mib: float | None = None) -> Speed:
    timed = None if graph is None else Timing(graph, graph, graph, 1)
    return Speed(Timing(launched, launched, launched, 1), timed, peak_mib)


def test_ratios_compare_the_better_way_of_launching() -> None:
    speeds = {"ours": speed(4, 2), "theirs": speed(9), "none": FAILED}
    assert times_as_fast(speeds, "ours", "theirs") == 4.5
    assert times_as_fast(speeds, "ours", "none") is None
    assert times_as_fast(speeds, "ours", "absent") is None


def eager_parts(conv: str, rest: str) -> Parts:
    return replace(PLAIN, sources={"conv_silu": conv, "scan": rest, "add_rms_norm": rest})


def test_the_eager_composition_is_judged_on_its_kernels_and_the_compiled_one_is_told() -> None:
    speeds = {CELLVIM: speed(2, None, 50.0), EAGER: speed(9, 8, 200.0), EAGER_COMPILED: speed(5)}
    faster, smaller = gpu_encoder.faster_than_eager, gpu_encoder.smaller_than_eager
    packages = eager_parts("causal_conv1d", "mamba_ssm")
    goal = at_least("L: times as fast as the eager composition (compiled: 2.5)", 4.0, 3)
    assert faster("L", speeds, packages, 3) == goal
    assert smaller("L", speeds, packages, 0.5).found == 0.25
    assert (
        "(compiled: was not measured)" in faster("L", {**speeds, EAGER_COMPILED: FAILED}, packages, 3).claim
    )
    lost = {**speeds, EAGER: FAILED}
    for parts, times in (
        (PLAIN, speeds),
        (eager_parts("torch (absent)", "mamba_ssm"), speeds),
        (packages, lost),
    ):
        for judged in (faster("L", times, parts, 3), smaller("L", times, parts, 0.5)):
            assert judged.found is None
            assert not judged.is_met


def test_the_fastest_transformer_is_named() -> None:
    flash, cudnn, compiled = gpu_encoder.VIT_FLASH, gpu_encoder.VIT_CUDNN, gpu_encoder.VIT_COMPILED
    speeds = {CELLVIM: speed(2), flash: speed(9, 7), cudnn: FAILED, compiled: speed(8, 6)}
    judge = gpu_encoder.faster_than_vit
    named = "L: times as fast as the fastest ViT (compiled, CUDA graph)"
    assert judge("L", speeds, 2) == at_least(named, 3.0, 2)
    assert "(flash, launched)" in judge("L", {**speeds, flash: speed(4)}, 2).claim
    assert judge("L", {**speeds, flash: FAILED, compiled: FAILED}, 2).found is None


@pytest.mark.skipif(not (PROCESS / "clear_refs").exists(), reason="only Linux keeps a peak")
def test_the_memory_of_a_run_is_its_own_and_not_that_of_one_before() -> None:
    def take(mib: int) -> None:
        torch.ones(mib, 2**18)

    take(256)
    grown = resident_growth_mib(partial(take, 64))
    assert grown is not None
    assert 56 < grown < 96


def test_memory_that_nobody_counts_has_no_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.timing.PROCESS", tmp_path / "absent")
    assert resident_growth_mib(lambda: None) is None


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


def test_it_starts_where_only_torch_and_jaxtyping_are_installed() -> None:
    """A machine lent for a measurement has few packages: those that cellvim's model needs may be missing."""
    absent = ("cellvim", "pydantic", "polars", "yaml", "safetensors", "matplotlib", "zarr")
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); import benchmarks.gpu"
    subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, check=True)


def run_here(monkeypatch: pytest.MonkeyPatch, out: Path, backend: str, *names: str) -> int:
    command = ["gpu", "--device", "cpu", "--backend", backend, "--only", *names, "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    return gpu.main()


def test_a_backend_that_is_not_in_use_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Negative control: what was asked for falls back to another."""
    monkeypatch.setattr(gpu, "chosen_backend", lambda _: "naive")
    assert run_here(monkeypatch, tmp_path, "torch", "facts") == 1
    goal = json.loads((tmp_path / "facts.json").read_text())["goals"][0]
    assert goal["claim"] == "backends other than torch, which was asked for, in use: 0"
    assert goal["found"] == 1


@pytest.mark.parametrize("backend", ["mamba", "misspelled"])
def test_a_backend_that_is_not_there_is_told_and_nothing_is_measured(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, tmp_path, backend, "facts") == 1
    assert f"nothing was measured: CELLVIM_KERNEL={backend}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_auto_is_what_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "chosen_backend", lambda _: "naive")
    assert gpu.use_backend("auto", CPU) == "naive"
    assert os.environ["CELLVIM_KERNEL"] == "naive"


@pytest.mark.slow
def test_the_kernels_are_right_in_the_interpreter(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    script = "from tests.kernels.interpreter import patch_once_per_launch as patch; patch()\n"
    script += "import sys; from benchmarks import gpu; sys.exit(gpu.main())"
    flags = ["--device", "cpu", "--backend", "triton", "--only", "correctness", "--out", str(tmp_path)]
    environment = ENVIRONMENT | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", script, *flags], env=environment, check=True)
    content = json.loads((tmp_path / "correctness.json").read_text())
    assert content["goals"][0]["found"] == 0
    assert len(content["tables"][0]["rows"]) == 6


def test_a_wrong_result_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Negative control: half the truth is outside the tolerance everywhere."""
    monkeypatch.setattr(gpu_correctness, "pooled_mixer", lambda *given: pooled_mixer(*given) / 2)
    assert run_here(monkeypatch, tmp_path, "torch", "correctness") == 1
    found = json.loads((tmp_path / "correctness.json").read_text())["goals"][0]["found"]
    assert found == 4


def test_every_section_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All but a backend's own kernels: the smallest shapes, on plain torch, and nothing is compiled."""
    monkeypatch.setattr(gpu_encoder, "_compiled", lambda make: make())
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    monkeypatch.setattr(gpu_encoder, "LONG_TOKENS", gpu.TINY.encoder[0].length)
    names = ["facts", "forward", "training", "determinism", "tokens", "images", "compile"]
    assert run_here(monkeypatch, tmp_path, "torch", *names) == 0
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in names}
    times = {row[0]: row for row in found["forward"]["tables"][0]["rows"]}
    assert {CELLVIM, EAGER, EAGER_COMPILED, gpu_encoder.VIT_FLASH, gpu_encoder.VIT_COMPILED} <= times.keys()
    assert all(row[1] != "failed" for name, row in times.items() if name != gpu_encoder.VIT_CUDNN)
    eager_claim, vit_claim = found["forward"]["goals"]
    assert eager_claim["found"] is None
    assert vit_claim["found"] > 0
    assert len(found["training"]["goals"]) == 2
    assert found["compile"]["goals"][0]["found"] == 0
    assert (tmp_path / "report.md").read_text().startswith("`python -m benchmarks.gpu --device cpu")
    assert (tmp_path / "tokens.png").exists()
