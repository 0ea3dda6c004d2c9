"""DeepSeek's placement of experts (EPLB), written anew from its published rules, in torch."""

from __future__ import annotations

import torch


def packed(weight: torch.Tensor, packs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's items, heaviest first, to the lightest pack with room; pack and place in it."""
    rows, items = weight.shape
    room = items // packs
    pack = torch.zeros(rows, items, dtype=torch.int64)
    place = torch.zeros(rows, items, dtype=torch.int64)
    order = weight.sort(dim=-1, descending=True).indices
    if room == 1:
        pack[:] = torch.arange(packs)
        return pack, place
    for row in range(rows):
        loads, counts = [0.0] * packs, [0] * packs
        for item in order[row]:
            open_packs = (at for at in range(packs) if counts[at] < room)
            lightest = min(open_packs, key=loads.__getitem__)
            pack[row, item] = lightest
            place[row, item] = counts[lightest]
            loads[lightest] += weight[row, item]
            counts[lightest] += 1
    return pack, place


def replicated(weight: torch.Tensor, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each further replica to the expert whose replicas carry most; slots' experts and counts."""
    rows, experts = weight.shape
    held = torch.arange(slots).repeat(rows, 1)
    counts = torch.ones(rows, experts, dtype=torch.int64)
    every = torch.arange(rows)
    for slot in range(experts, slots):
        most = (weight / counts).max(dim=-1).indices
        held[:, slot] = most
        counts[every, most] += 1
    return held, counts


def deepseek(weight: torch.Tensor, slots: int, groups: int, nodes: int, gpus: int) -> torch.Tensor:
    """Groups to nodes, replicas within nodes, then replicas to GPUs."""
    layers, experts = weight.shape
    if groups % nodes:
        groups, nodes = 1, 1
    size, each = experts // groups, groups // nodes
    node, place = packed(weight.reshape(layers, groups, size).sum(-1), nodes)
    moved = ((node * each + place) * size).unsqueeze(-1) + torch.arange(size)
    back = moved.reshape(layers, experts).argsort(dim=-1)
    by_node = weight.gather(-1, back).reshape(-1, experts // nodes)
    held, counts = replicated(by_node, slots // nodes)
    gpu, place = packed((by_node / counts).gather(-1, held), gpus // nodes)
    order = (gpu * (slots // gpus) + place).argsort(dim=-1)
    local = held.gather(-1, order).reshape(layers, nodes, -1)
    local = local + torch.arange(nodes).view(1, -1, 1) * (experts // nodes)
    return back.gather(-1, local.reshape(layers, -1))
