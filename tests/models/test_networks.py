"""Both networks against the reference vectors of the published ones, and what they accept and refuse."""

import pytest
import torch

from losses import NormalizedMSELoss, ReblurringConsistencyLoss
from models import DeblurringNet, ReblurringNet
from models.aspdc import read_as_released
from models.released_names import DEBLURRING_KEY, REBLURRING_KEY, from_released

TOLERANCE = 2e-5
FUSED_TOLERANCE = 1e-4  # its sums run in another order


@pytest.fixture
def make_networks(released_weights):
    def make(seed, modulation, aspdc_op):
        deblurring = DeblurringNet(modulation=modulation, deform_op=aspdc_op)
        deblurring.load_state_dict(from_released(released_weights("deblurring", seed), DEBLURRING_KEY))
        reblurring = ReblurringNet()
        reblurring.load_state_dict(from_released(released_weights("reblurring", seed), REBLURRING_KEY))
        return deblurring, reblurring

    return make


def test_parameter_counts():
    assert sum(each.numel() for each in DeblurringNet().parameters()) == 15_016_503
    assert sum(each.numel() for each in ReblurringNet().parameters()) == 998_802


@pytest.mark.parametrize("modulation", ["aligned", "released"])
def test_outputs_and_losses_equal_the_published_networks(golden, make_networks, modulation, aspdc_op):
    arrays, seed = golden
    deblurring, reblurring = make_networks(seed, modulation, aspdc_op)
    with torch.no_grad():
        deblurred = deblurring(arrays["blurry"])
        reblurred = reblurring(arrays["blurry"], deblurred)
        first = NormalizedMSELoss()(deblurred, arrays["sharp"])
        second = ReblurringConsistencyLoss(reblurring)(arrays["blurry"], deblurred)
    losses = torch.stack([first, second, first + 0.1 * second])
    tolerance = FUSED_TOLERANCE if aspdc_op == "fused" else TOLERANCE
    for ours, name in ((deblurred, "deblurred"), (reblurred, "reblurred"), (losses, "losses")):
        torch.testing.assert_close(ours, arrays[f"{name}_{modulation}"], atol=tolerance, rtol=0)


def test_reblurring_a_sharp_image_equals_the_published_network(golden, make_networks):
    arrays, seed = golden
    _, reblurring = make_networks(seed, "aligned", "torchvision")
    with torch.no_grad():
        ours = reblurring(arrays["blurry"], arrays["sharp"])
    torch.testing.assert_close(ours, arrays["reblurred_from_sharp"], atol=TOLERANCE, rtol=0)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.slow
def test_gradients_equal_the_published_networks(golden, make_networks, released_weights, aspdc_op, set_threads):
    """To the fused operation's bound in one of three orders of its sums, which the number of threads and the processor
    choose: in another one an activation is beyond LReLU's or bilinear sampling's kink here and there, and the gradients
    jump by 3e-4, as those in float64 do."""
    arrays, seed = golden
    names = list(from_released(released_weights("deblurring", seed), DEBLURRING_KEY))
    fused = aspdc_op == "fused"
    tolerance, relative = (FUSED_TOLERANCE, 1e-3) if fused else (TOLERANCE, TOLERANCE)  # single entries jump, too
    differences = []
    for threads in (2, 1, 3) if fused else (2,):
        set_threads(threads)
        deblurring, reblurring = make_networks(seed, "aligned", aspdc_op)
        deblurred = deblurring(arrays["blurry"])
        loss = NormalizedMSELoss()(deblurred, arrays["sharp"])
        loss = loss + 0.1 * ReblurringConsistencyLoss(reblurring)(arrays["blurry"], deblurred)
        loss.backward()
        gradients = {name: each.grad for name, each in deblurring.named_parameters()}
        norms = torch.stack([gradients[name].norm() for name in names])
        offsets = gradients["aspdcs.1.deformable.2.offset_conv.weight"]  # 2nd ASPDC, module 2
        kernels = gradients["aspdcs.5.deformable.0.deform_conv.weight"][:8]  # last ASPDC, module 0
        expected = arrays["grad_norms"], arrays["grad_p_conv"], arrays["grad_dconv"]
        bounds = tolerance, *(relative * each.abs().max().item() for each in expected[1:])
        found = zip((norms, offsets, kernels), expected, bounds, strict=True)
        differences.append([(ours - theirs).abs().max().item() / bound for ours, theirs, bound in found])
        if max(differences[-1]) <= 1:
            return
    pytest.fail(f"largest differences in units of their bounds, for each number of threads: {differences}")


def test_released_reading_is_the_specs_formula():
    height, width = 5, 4
    modulation = torch.arange(2 * 9 * 3 * 2, dtype=torch.float32).view(2, 9, 3, 2)
    read = read_as_released(modulation, height, width)
    n = 9 * (height - 2) * (width - 2)
    for image in range(2):
        for k in range(9):
            for p in range(height * width):
                expected = image * n + (k * height * width + p) % n
                assert read[image, k, p // width, p % width] == expected


@pytest.mark.parametrize("size", [(8, 8), (8, 13), (9, 11), (10, 17), (23, 16), (31, 8)])
@pytest.mark.parametrize("modulation", ["aligned", "released"])
def test_any_size_from_8_px(size, modulation):
    torch.manual_seed(0)
    blurry, sharp = torch.rand(2, 2, 3, *size) * 2 - 1
    deblurred = DeblurringNet(4, modulation)(blurry)
    reblurred = ReblurringNet(2)(blurry, sharp)
    assert deblurred.shape == reblurred.shape == blurry.shape
    assert deblurred.isfinite().all()
    assert reblurred.isfinite().all()


@pytest.mark.parametrize(("network", "stride"), [(DeblurringNet(4), 4), (ReblurringNet(2), 8)])
def test_odd_sizes_are_reflected_at_the_bottom_and_right(network, stride):
    images = [torch.rand(1, 3, 4 * stride + 1, 5 * stride - 2) for _ in range(1 + isinstance(network, ReblurringNet))]
    padded = [torch.nn.functional.pad(image, (0, 2, 0, stride - 1), mode="reflect") for image in images]
    with torch.no_grad():
        ours, whole = network(*images), network(*padded)
    torch.testing.assert_close(ours, whole[..., : ours.shape[-2], : ours.shape[-1]])


def test_maps_of_chosen_blocks_leave_the_result_alone():
    torch.manual_seed(0)
    network = DeblurringNet(4)
    blurry = torch.rand(2, 3, 24, 18)
    with torch.no_grad():
        expected = network(blurry)
        deblurred, maps = network.forward_with_maps(blurry, [0, 5])
    assert torch.equal(deblurred, expected)
    assert sorted(maps) == [0, 5]
    for chosen in maps.values():
        assert chosen.attention.shape == (2, 4, 6, 5)  # 18 px are padded to 20
        assert chosen.offsets.shape == (2, 4, 18, 6, 5)
        assert chosen.modulation.shape == (2, 4, 9, 6, 5)
        torch.testing.assert_close(chosen.attention.sum(1), torch.ones(2, 6, 5))
        assert chosen.offsets[:, 0].count_nonzero() == 0
        assert chosen.offsets[:, 1:].count_nonzero() > 0
        assert chosen.modulation.min() >= 0
        assert chosen.modulation.max() <= 1
    with pytest.raises(ValueError, match=r"blocks should be from 0 to 5, got \[6\]"):
        network.forward_with_maps(blurry, [6])


def test_initialisation():
    torch.manual_seed(0)
    network = DeblurringNet()
    convolution = network.aspdcs[2].deformable[1].deform_conv.weight  # 128 -> 128, 3×3
    assert convolution.std().item() == pytest.approx((2 / (2 * 128 * 9)) ** 0.5, rel=0.02)  # Xavier normal
    predictor = network.aspdcs[2].deformable[1].offset_conv.weight  # 128 -> 18
    assert predictor.std().item() == pytest.approx((2 / ((128 + 18) * 9)) ** 0.5, rel=0.02)
    upsampling = network.tail[0].weight  # PyTorch's default: uniform in ±1/sqrt(fan in), fan in = 64 · 9
    assert upsampling.abs().max().item() == pytest.approx((64 * 9) ** -0.5, rel=0.01)
    bias = network.fusion[0].bias  # uniform in ±1/sqrt(768 · 9)
    assert bias.abs().max().item() == pytest.approx((768 * 9) ** -0.5, rel=0.05)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 1, 16, 16), r"blurry should be a floating-point N×3×H×W batch .*got \(1, 1, 16, 16\)"),
        (torch.zeros(3, 16, 16), r"blurry should be a floating-point N×3×H×W batch .*got \(3, 16, 16\)"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "blurry should be a floating-point .* torch.uint8"),
        (torch.zeros(0, 3, 16, 16), "blurry holds no images"),
        (torch.zeros(1, 3, 7, 16), r"blurry is 7×16 px \(H×W\), the smallest is 8"),
    ],
)
def test_refuses_what_is_no_image(image, message):
    with pytest.raises(ValueError, match=message):
        DeblurringNet(4)(image)
    with pytest.raises(ValueError, match=message):
        ReblurringNet(2)(image, image)


def test_refuses_two_images_of_different_size():
    with pytest.raises(ValueError, match=r"blurry and sharp differ in shape: \(1, 3, 16, 16\) and \(1, 3, 16, 24\)"):
        ReblurringNet(2)(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width should be at least 1, got 0"),
        ({"modulation": "old"}, "modulation should be one of aligned, released, got 'old'"),
        ({"deform_op": "fast"}, "deform_op should be one of auto, fused, mmcv, torchvision, got 'fast'"),
    ],
)
def test_refuses_unknown_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeblurringNet(**arguments)


@pytest.mark.parametrize("deform_op", ["torchvision", "fused"])
def test_offsets_that_are_not_finite_read_nothing_outside_the_image(deform_op):
    torch.manual_seed(0)
    network = DeblurringNet(4, deform_op=deform_op)
    for value in (float("nan"), float("inf"), 1e30):
        with torch.no_grad():
            for aspdc in network.aspdcs:
                aspdc.deformable[1].offset_conv.bias.fill_(value)
            assert network(torch.zeros(1, 3, 16, 16)).isfinite().all()
