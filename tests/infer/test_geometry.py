"""Network input sizes: the official scripts' numbers, and properties that hold for any image."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ModelError, UsageError
from stream.infer.geometry import MAX_INPUT_PIXELS, network_size
from stream.models.catalog import STARTER
from stream.models.spec import Fit, InputPolicy, Resample


def policy(
    size: int, fit: Fit, multiple: int = 32, *, keep_aspect: bool = True, fixed_size: bool = False
) -> InputPolicy:
    return InputPolicy(
        size_hw=(size, size),
        multiple_of=multiple,
        fit=fit,
        resample=Resample.BICUBIC,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        keep_aspect=keep_aspect,
        fixed_size=fixed_size,
    )


@pytest.mark.parametrize(
    ("policy", "options", "picture", "wanted"),
    [
        # Shapes that the official scripts gave for these pictures.
        (policy(256, Fit.UPPER_BOUND), {}, (480, 640), (192, 256)),  # midas_v21_small_256
        (policy(256, Fit.UPPER_BOUND), {}, (517, 333), (256, 160)),
        (policy(384, Fit.UPPER_BOUND), {}, (480, 640), (288, 384)),  # midas_v21_384
        (policy(384, Fit.UPPER_BOUND), {}, (517, 333), (384, 256)),
        (policy(384, Fit.MINIMAL), {}, (480, 640), (384, 512)),  # dpt_large_384
        (policy(384, Fit.MINIMAL), {}, (517, 333), (608, 384)),
        (policy(384, Fit.MINIMAL), {"square": True}, (480, 640), (384, 384)),
        # 13.5 multiples: the nearest even one is beyond the bound, where there is one.
        (policy(384, Fit.UPPER_BOUND), {"input_size": 432, "square": True}, (480, 640), (416, 416)),
        (policy(384, Fit.MINIMAL), {"input_size": 432, "square": True}, (480, 640), (448, 448)),
        (policy(512, Fit.MINIMAL), {}, (480, 640), (512, 672)),  # dpt_beit_large_512
        (policy(512, Fit.MINIMAL), {}, (517, 333), (512, 320)),
        (policy(384, Fit.MINIMAL), {"input_size": 256}, (480, 640), (256, 352)),  # dpt_beit_base_384, height 256
        (policy(384, Fit.MINIMAL, keep_aspect=False), {}, (517, 333), (384, 384)),  # dpt_swin2_base_384
        (policy(224, Fit.MINIMAL, keep_aspect=False, fixed_size=True), {}, (517, 333), (224, 224)),  # dpt_levit_224
        (policy(518, Fit.LOWER_BOUND, 14), {}, (480, 640), (518, 686)),  # depth_anything_v2_vits
        (policy(518, Fit.LOWER_BOUND, 14), {}, (517, 333), (798, 518)),
        (policy(518, Fit.LOWER_BOUND, 14), {"input_size": 308}, (480, 640), (308, 406)),
        (policy(384, Fit.SHORTER_SIDE), {}, (480, 640), (384, 512)),  # zipdepth_base
        (policy(384, Fit.SHORTER_SIDE), {}, (517, 333), (608, 384)),
        (policy(384, Fit.SHORTER_SIDE), {}, (384, 400), (384, 384)),  # a tie, to even
        (policy(384, Fit.SHORTER_SIDE), {"input_size": 300}, (480, 640), (288, 384)),
        (policy(384, Fit.SHORTER_SIDE), {}, (1, 1), (384, 384)),
        (policy(384, Fit.SHORTER_SIDE), {}, (10, 1000), (384, 38400)),
        # starter: constant area
        (STARTER.input, {}, (480, 640), (224, 288)),
        (STARTER.input, {}, (517, 333), (320, 192)),
        (STARTER.input, {}, (720, 1280), (192, 352)),
        (STARTER.input, {"input_size": 384}, (480, 640), (384, 512)),
        (STARTER.input, {"square": True}, (480, 640), (224, 224)),
        (STARTER.input, {}, (1, 1), (256, 256)),
        (STARTER.input, {}, (1, 1000), (32, 8032)),
    ],
)
def test_known_sizes(
    policy: InputPolicy, options: dict[str, int], picture: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert network_size(policy, picture, **options) == wanted


sides = st.integers(1, 20_000)
policies = st.builds(
    policy,
    st.integers(1, 40).map(lambda n: n * 32),
    st.sampled_from(Fit),
    st.sampled_from([1, 14, 16, 32]),
    keep_aspect=st.booleans(),
)


@given(policies, sides, sides, st.none() | st.integers(1, 2000), st.booleans())
def test_both_sides_are_positive_multiples_within_the_limit(
    policy: InputPolicy, height: int, width: int, input_size: int | None, square: bool
) -> None:
    try:
        size = network_size(policy, (height, width), input_size=input_size, square=square)
    except ModelError:
        return
    assert min(size) >= policy.multiple_of
    assert all(side % policy.multiple_of == 0 for side in size)
    assert size[0] * size[1] <= MAX_INPUT_PIXELS


@given(st.sampled_from(Fit), st.integers(64, 4000), st.integers(64, 4000))
def test_turning_the_picture_turns_the_input(fit: Fit, height: int, width: int) -> None:
    upright, turned = network_size(policy(384, fit), (height, width)), network_size(policy(384, fit), (width, height))
    scales = (384 / height, 384 / width)
    if abs(abs(1 - scales[0]) - abs(1 - scales[1])) > 1e-9:  # if both sides scale alike, the rule prefers one
        assert upright == turned[::-1]


@given(st.integers(64, 4000), st.integers(64, 4000))
def test_bounds_are_kept(height: int, width: int) -> None:
    assert max(network_size(policy(384, Fit.UPPER_BOUND), (height, width))) <= 384
    assert min(network_size(policy(384, Fit.LOWER_BOUND), (height, width))) >= 384


@pytest.mark.parametrize("fit", [Fit.LOWER_BOUND, Fit.MINIMAL])
def test_a_panorama_is_refused_by_name(fit: Fit) -> None:
    with pytest.raises(ModelError) as caught:
        network_size(policy(518, fit, 14), (300, 60_000))
    assert str(caught.value).startswith("a 60000×300 image would need a 103600×518 network input (allowed: up to ")


def test_a_model_of_one_size_takes_no_other() -> None:
    levit = policy(224, Fit.MINIMAL, keep_aspect=False, fixed_size=True)
    assert network_size(levit, (480, 640), input_size=224) == (224, 224)
    with pytest.raises(UsageError, match=r"--input-size 256: this model takes one size \(allowed: 224\)"):
        network_size(levit, (480, 640), input_size=256)


@pytest.mark.parametrize("input_size", [0, -32])
def test_an_input_size_is_positive(input_size: int) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        network_size(STARTER.input, (480, 640), input_size=input_size)
