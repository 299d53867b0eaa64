import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def fashion(kind, n):
    base = f"/usr/share/datasets/fashion-mnist/{kind}"
    x = np.frombuffer(gzip.open(base + "-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    y = np.frombuffer(gzip.open(base + "-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = x.reshape(-1, 28, 28)[:n].astype("float32")
    return torch.from_numpy((x - 72.9) / 90.0), torch.from_numpy(y[:n].astype("int64"))


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (d // self.heads) ** 0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class PatchTransformer(nn.Module):
    def __init__(self, dim=32, heads=4, depth=2):
        super().__init__()
        self.embed = nn.Linear(49, dim)
        self.position = nn.Parameter(torch.randn(16, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)

    def forward(self, images):
        patches = images.unfold(1, 7, 7).unfold(2, 7, 7).reshape(len(images), 16, 49)
        x = self.embed(patches) + self.position
        for block in self.blocks:
            x = block(x)
        x = self.head(self.norm(x).mean(dim=1))
        return F.log_softmax(x, dim=1)


if __name__ == "__main__":
    torch.manual_seed(0)
    x_train, y_train = fashion("train", 6000)
    x_test, y_test = fashion("t10k", 1000)
    model = PatchTransformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(12):
        losses = []
        for idx in torch.randperm(len(x_train)).split(64):
            optimizer.zero_grad()
            loss = F.nll_loss(model(x_train[idx]), y_train[idx])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            acc = (model(x_test).argmax(1) == y_test).float().mean().item()
        print(f"[{epoch + 1}/12] loss={np.mean(losses):.4f} test_acc={acc:.3f}")
