"""Spectral normalisation of chosen layers: Miyato et al. 2018 (arXiv:1802.05957), for value networks Gogianu et al. 2021
(arXiv:2105.05246), who normalise the layer before the last.

A layer computes with W / sigma, sigma = u^T W v, where u and v are what the power iteration has found of W's largest singular value;
they count as constants in the gradient (Miyato et al., Eq. 12). A forward pass changes nothing: the agent says when to iterate.

    net.init_(stream)
    spectral_norm.attach_(net, config.spectral_norm)   # () attaches nothing
    ...
    self._adam.step()
    spectral_norm.iterate_(net)                        # one iteration a gradient step, as in the papers

Kernels count as matrices [outputs, inputs * field]. `plain` gives the weights as an acting network, which has no u and v, takes them.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rlplatform.streams import Stream
from rlplatform.types import State

START = 15  # iterations where weights are new, so that sigma is no guess
_TINY = 1e-12


class SpectralNorm(nn.Module):
    """W -> W / (u^T W v)."""

    def __init__(self, matrix: Tensor) -> None:
        """u and v begin in the same direction for every matrix of a size: nobody's stream is drawn from."""
        super().__init__()
        rows, columns = matrix.flatten(1).shape
        self.u: Tensor
        self.v: Tensor
        for name, size in (("u", rows), ("v", columns)):
            start = torch.from_numpy(Stream(0, f"spectral_norm/{name}").normal(size)).to(matrix)
            self.register_buffer(name, F.normalize(start, dim=0, eps=_TINY), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        sigma = self.u.dot(weight.flatten(1).mv(self.v))
        return weight / sigma

    @torch.no_grad()
    def iterate_(self, weight: Tensor) -> None:
        """One step of the power iteration on the weight itself, not on the normalised one."""
        matrix = weight.flatten(1)
        self.v.copy_(F.normalize(matrix.T.mv(self.u), dim=0, eps=_TINY))
        self.u.copy_(F.normalize(matrix.mv(self.v), dim=0, eps=_TINY))


def attach_(net: nn.Module, names: Sequence[str]) -> None:
    """From now on these modules of `net` compute with normalised weights. Their parameters keep their values; `named_parameters`
    calls them "<module>.parametrizations.weight.original". Iterate START times before the first pass.

    Raises:
        ValueError: no such module, one without a single matrix called "weight", one that is not in float32, or one named twice.
    """
    known = [name for name, module in net.named_modules() if isinstance(getattr(module, "weight", None), nn.Parameter)]
    for name in names:
        if name not in known:
            raise ValueError(f"spectral_norm: no layer {name!r} with a weight; there are {', '.join(known)}")
        known.remove(name)
        module = net.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, Tensor)
        if weight.ndim < 2 or weight.dtype != torch.float32:
            raise ValueError(
                f"spectral_norm: {name} needs a matrix in float32, got {weight.dtype} {list(weight.shape)}"
            )
        parametrize.register_parametrization(
            module, "weight", SpectralNorm(weight), unsafe=True
        )  # unsafe: do not try it


@torch.no_grad()
def iterate_(net: nn.Module, times: int = 1) -> None:
    """So many steps of the power iteration in every normalised layer of `net`."""
    for norm, original in _normalised(net).values():
        for _ in range(times):
            norm.iterate_(original)


@torch.no_grad()
def copy_(target: nn.Module, net: nn.Module) -> None:
    """Give `target` the u and v of `net`: for a target network that becomes a copy."""
    for name, (norm, _) in _normalised(target).items():
        norm.u.copy_(_normalised(net)[name][0].u)
        norm.v.copy_(_normalised(net)[name][0].v)


def plain(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """named_parameters() of `net` as if nothing were attached, in no particular order: weights that are normalised as they are used, so
    new tensors; all others as they are."""
    normalised = _normalised(net)
    for name, parameter in net.named_parameters():
        owner = name.removesuffix(".parametrizations.weight.original")
        if owner != name and owner in normalised:
            norm, original = normalised[owner]
            yield f"{owner}.weight", norm(original).detach()
        else:
            yield name, parameter.data


def acting(net: nn.Module) -> dict[str, Tensor]:
    """The parameters as a network takes them in which nothing is normalised, by name; where nothing is, the very tensors."""
    normalised = any(isinstance(module, SpectralNorm) for module in net.modules())
    return {name: p.data for name, p in (plain(net) if normalised else net.named_parameters())}


def vectors(net: nn.Module) -> State:
    """Copies of all u and v on the CPU, for a checkpoint."""
    return {
        f"{name}.{which}": getattr(norm, which).detach().cpu().clone()
        for name, (norm, _) in _normalised(net).items()
        for which in ("u", "v")
    }


@torch.no_grad()
def load_vectors(net: nn.Module, state: State) -> None:
    """What `vectors` gave, in place."""
    for name, (norm, _) in _normalised(net).items():
        norm.u.copy_(state[f"{name}.u"])
        norm.v.copy_(state[f"{name}.v"])


def _normalised(net: nn.Module) -> Mapping[str, tuple[SpectralNorm, Tensor]]:
    """Module -> its norm and its own weight."""
    found = {}
    for name, module in net.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            of = module.parametrizations["weight"]
            if isinstance(of[0], SpectralNorm):
                found[name] = (of[0], of.original)
    return found
