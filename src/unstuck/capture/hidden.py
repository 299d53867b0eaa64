"""Layers and parameters that a module holds without knowing it: in a plain list, a dict, an object, a bare tensor.

`named_parameters()` does not list them, so `optim.Adam(model.parameters())` never trains them. They are found by
walking what the module's attributes hold; on a *copy* they can be registered under the name a user would write
(`encoder[0].weight`), so that a recipe can hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

DEPTH = 3
OWN = frozenset(vars(nn.Module())) | {"_trainer", "_fabric", "_modules", "_parameters", "_buffers"}
FOREIGN = ("torch", "numpy", "lightning", "pytorch_lightning", "transformers", "accelerate", "builtins", "collections")
"""Objects of classes from these packages are not walked into: they are no places where a user keeps layers."""

Found = tuple[nn.Module, str, Any, Any, Any]
"""Owner, name below the owner, the container that holds it, its key there, and what was found."""


def hidden(module: nn.Module) -> list[Found]:
    """Modules with parameters and trainable tensors reachable from `module` that it has not registered."""
    known = {id(m) for m in module.modules()} | {id(t) for t in (*module.parameters(), *module.buffers())}
    found: list[Found] = []
    for owner in list(module.modules()):
        for key, value in list(vars(owner).items()):
            if key not in OWN:
                found += _walk(owner, key, vars(owner), key, value, known, DEPTH)
    return found


def parameters_of(found: list[Found]) -> list[Tensor]:
    """The parameters (and buffers) of what was found."""
    tensors: list[Tensor] = []
    for *_, value in found:
        tensors += [*value.parameters(), *value.buffers()] if isinstance(value, nn.Module) else [value]
    return tensors


def names_of(module: nn.Module, found: list[Found]) -> tuple[dict[int, str], dict[int, str]]:
    """Names that `register` would give: of the tensors of what was found by id, and of its modules."""
    owners = {id(m): f"{name}." if name else "" for name, m in module.named_modules()}
    tensors: dict[int, str] = {}
    modules: dict[int, str] = {}
    for owner, name, _, _, value in found:
        path = owners[id(owner)] + name.replace(".", "_")
        if isinstance(value, nn.Module):
            modules |= {id(m): f"{path}.{n}" if n else path for n, m in value.named_modules()}
            tensors |= {id(t): f"{path}.{n}" for n, t in (*value.named_parameters(), *value.named_buffers())}
        else:
            tensors[id(value)] = path
    return tensors, modules


def register(twin: nn.Module, found: list[Found]) -> list[str]:
    """Register on a copy what `hidden(copy)` found there; the names of the parameters that were added."""
    before = {name for name, _ in twin.named_parameters()}
    for owner, name, holder, key, value in found:
        label = name.replace(".", "_")
        if isinstance(value, nn.Module):
            owner._modules[label] = value
            continue
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach(), value.requires_grad)
        owner._parameters[label] = parameter
        if holder is vars(owner):
            del holder[key]
        elif isinstance(holder, (list, dict)):
            holder[key] = parameter
    return [name for name, _ in twin.named_parameters() if name not in before]


def _walk(owner: nn.Module, name: str, holder: Any, key: Any, value: Any, known: set[int], depth: int) -> list[Found]:
    if id(value) in known:
        return []
    if isinstance(value, nn.Module):
        known.update(id(m) for m in value.modules())
        return [(owner, name, holder, key, value)] if any(True for _ in value.parameters()) else []
    if isinstance(value, Tensor):
        known.add(id(value))
        trainable = value.is_leaf and value.requires_grad
        return [(owner, name, holder, key, value)] if trainable or isinstance(value, nn.Parameter) else []
    found: list[Found] = []
    for inner, part, label in _parts(value) if depth else ():
        known.add(id(value))
        found += _walk(owner, f"{name}{label}", value, inner, part, known, depth - 1)
    return found


def _parts(value: Any) -> Iterator[tuple[Any, Any, str]]:
    """Key, member and label of what a container or an object of the user's own class holds."""
    if isinstance(value, (list, tuple)):
        yield from ((i, part, f"[{i}]") for i, part in enumerate(value[:256]))
    elif isinstance(value, dict):
        yield from ((k, part, f"[{k!r}]") for k, part in list(value.items())[:256])
    elif _walkable(value):
        yield from ((k, part, f"_{k}") for k, part in vars(value).items())


def _walkable(value: Any) -> bool:
    own = hasattr(value, "__dict__") and not isinstance(value, type)
    return own and not type(value).__module__.startswith(FOREIGN) and type(value).__name__ != "function"
