import pytest
import torch

from ciess.devices import cpu_threads, resolve_device
from ciess.errors import InputError

CPU = torch.device("cpu")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_auto_is_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu0", "", "meta", "xla"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"The device is '{name}', but auto, cpu, cuda or cuda:N was expected\. Choo"):
        resolve_device(name)


@no_cuda
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"The device is '{name}', but this machine has 0 CUDA .* --device cpu, or"):
        resolve_device(name)


def test_threads_are_put_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="on purpose"), cpu_threads(before + 2):
        assert torch.get_num_threads() == before + 2
        raise RuntimeError("on purpose")
    assert torch.get_num_threads() == before
